"""Take in the pseudo-masks that people have corrected, so that training can trust them.

    python -m stages.accept annotations.zip more/
    dvc exp run -S data.trusted=trusted

Reads exports of CVAT (XML), Label Studio (JSON), COCO (JSON), YOLO polygons (TXT) and index PNGs, as files, folders or
ZIP archives. A mask that is unchanged since its export is left out. One that fits no image, or is of a test image, is
refused with a line of its own. Nothing is overwritten: to replace an accepted mask, remove it first. Accepted masks
without a defect are counted: files of COCO list also images that nobody has annotated.

Exit status: 0 all done, 1 an error that the message explains, 3 done except for masks that are refused.
"""

import shlex
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from stages.common.errors import SOME_LEFT_OUT, UserError, printable, run
from stages.common.options import Masks, Tables
from stages.data.tables import IGNORE, decode_label_map
from stages.formats.correction import Correction, Refused, without_holes
from stages.reviewing.handover import exported
from stages.trusted.accepted import AcceptedMasks
from stages.trusted.admission import Admission, described

NOTHING = "no masks: of Label Studio's tasks those count that somebody submitted"


def main(
    files: Annotated[list[Path], typer.Argument(help="Files, folders or ZIP archives with corrected masks.")],
    out: Annotated[Path, typer.Option(help="Folder of accepted masks, which may hold some already.")] = Path("trusted"),
    tables: Tables = Path("data/tables"),
    masks: Masks = Path("data/masks"),
) -> None:
    """Accept corrected masks for training."""
    if missing := [file for file in files if not file.exists()]:
        raise UserError(f"{missing[0]}: no such file or folder")
    admission = Admission(tables)
    accepted = AcceptedMasks(out, admission.names)
    exported_png = exported(masks)
    counts: Counter[str] = Counter()
    without_defect = 0
    try:
        for found in (found for file in files for found in admission.read(file)):
            outcome, png = found, None
            if not isinstance(found, Refused):
                png = exported_png(found.path)
                outcome = accepted.take(found, admission.row_of[found.path]["sha256"], png)
            if isinstance(outcome, Refused):
                typer.echo(printable(described(outcome)), err=True)
            elif outcome == "accepted" and png is not None and lost_holes(found, decode_label_map(png)):
                lost = "its format holds no holes, and those of the pseudo-mask are filled"
                typer.echo(printable(f"note: {found.path} ({found.source}): {lost}"), err=True)
            without_defect += outcome == "accepted" and np.isin(found.label_map, (0, IGNORE)).all()
            counts["refused" if isinstance(outcome, Refused) else outcome] += 1
    finally:
        accepted.save()
    notes = {"accepted": f" ({without_defect} without a defect)"} if without_defect else {}
    told = [f"{number} {outcome}{notes.get(outcome, '')}" for outcome, number in sorted(counts.items())]
    typer.echo(", ".join(told) or NOTHING)
    if counts["accepted"]:
        typer.echo(f"to train on them: dvc exp run -S {shlex.quote(f'data.trusted={out}')}")
    if counts["refused"]:
        raise typer.Exit(SOME_LEFT_OUT)


def lost_holes(found: Correction, exported: np.ndarray) -> bool:
    """Whether the label map that was `exported` has holes that the format of its correction cannot hold."""
    return not found.holes and not np.array_equal(exported, without_holes(exported))


cli = partial(run, main)
"""The console command."""

if __name__ == "__main__":
    cli()
