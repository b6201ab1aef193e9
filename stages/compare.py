"""Compare an exported student with the student: ONNX, OpenVINO, or a TensorRT engine that trtexec built from the ONNX.

    python -m stages.compare --model data/models/RUN/SEED --exported DIR

No stage depends on it. `export` makes the same comparison before it writes; this is for engines, which are built
elsewhere, and for other machines, where results can differ. Exit status 1 where the predictions differ by more than the
tolerances in `stages.runtime.parity`.
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import UserError, run
from stages.common.options import Student, Tables
from stages.runtime.calibration import sample_tiles
from stages.runtime.network import open_network, student_folder
from stages.runtime.parity import EXACT, INT8, check, compare


def main(
    model: Student,
    exported: Annotated[Path, typer.Option(help="Folder of its export, or of an engine and its export.json.")],
    tables: Tables = Path("data/tables"),
) -> None:
    """Compare an exported student with the student on images of val."""
    ours, theirs = open_network(student_folder(model), "cpu"), open_network(exported, "auto")
    if (ours.names, ours.view) != (theirs.names, theirs.view):
        raise UserError(f"{exported}: has {theirs.names} and {theirs.view}, the student {ours.names} and {ours.view}")
    found = compare(ours.run, theirs.run, sample_tiles(tables, "val", ours.view))
    print(f"{exported}: {found}")
    # engines compute in TF32 or half precision
    rounded = theirs.identity.endswith("-int8") or (exported / "student.engine").is_file()
    check(found, INT8 if rounded else EXACT, str(exported))


if __name__ == "__main__":
    run(main)
