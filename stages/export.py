"""Export a trained student to ONNX or OpenVINO, for machines without PyTorch.

    python -m stages.export --model data/models/RUN/SEED --out DIR --format openvino --int8

No stage depends on it. `DIR` holds the model, the student's configuration and `export.json`: format, precision, and
how far its predictions differ from the student's on images of val. Beyond the tolerances in `stages.runtime.parity`
nothing is written. Inputs and outputs of the model: `stages.runtime.graphs`.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import onnx
import onnxruntime
import openvino
import torch
import typer

from stages.common.errors import UserError, run
from stages.common.files import new_folder, write_json
from stages.common.options import Force, Tables
from stages.runtime.calibration import sample_tiles
from stages.runtime.graphs import to_int8, to_onnx, to_openvino
from stages.runtime.network import identity_of_student, onnx_runner, openvino_runner, student_folder, torch_runner
from stages.runtime.parity import EXACT, INT8, check, compare
from stages.student.segmenter import load_student


class Format(StrEnum):
    """Each is a runtime of `stages.predict`."""

    onnx = "onnx"
    openvino = "openvino"


def main(
    model: Annotated[Path, typer.Option(help="Folder of one trained student.")],
    out: Annotated[Path, typer.Option(help="Folder for the export.")],
    format: Annotated[Format, typer.Option(help="What to write.")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise for CPUs, calibrated on train.")] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Fixed number of tiles per call; by default any.")] = None,
    tables: Tables = Path("data/tables"),
    force: Force = False,
) -> None:
    """Export a trained student to ONNX or OpenVINO, for machines without PyTorch."""
    if out.exists() and not (force and (out / "export.json").is_file()):
        raise UserError(f"{out}: exists; {'it is not an export' if force else '--force replaces an export'}")
    folder = student_folder(model)
    student = load_student(folder)
    view = student.config.view
    with new_folder(out) as part:
        to_onnx(student, batch, part / "student.onnx")
        if int8:
            quantised = part / "int8.onnx"
            to_int8(part / "student.onnx", batch, sample_tiles(tables, "train", view), quantised)
            quantised.replace(part / "student.onnx")
        if format is Format.openvino:
            to_openvino(part / "student.onnx", part / "student.xml")
            (part / "student.onnx").unlink()
        exported = {Format.onnx: onnx_runner, Format.openvino: openvino_runner}[format](part)
        found = compare(torch_runner(folder, "cpu"), exported, sample_tiles(tables, "val", view))
        print(f"{out}: {found}")
        check(found, INT8 if int8 else EXACT, str(out))
        (part / "student.json").write_text(student.config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        about = {
            "format": format.value,
            "precision": "int8" if int8 else "float32",
            "batch": batch or "any",
            "identity": identity_of_student(folder) + ("-int8" if int8 else ""),
            "parity": found.as_json(),
            "versions": {package.__name__: package.__version__ for package in (onnx, onnxruntime, openvino, torch)},
        }
        write_json(part / "export.json", about)


if __name__ == "__main__":
    run(main)
