"""Export a trained student to ONNX or OpenVINO, for machines without PyTorch.

    python -m stages.export --model data/models/RUN/SEED --out DIR --format openvino --int8

No stage depends on it. `DIR` gets the model, with all that is needed to run it as embedded metadata
(`stages.runtime.metadata`); `export.json`, the same metadata and how much the model's predictions differ from the
student's on images of val; and `sha256.json`, by which `predict` checks the files. Nothing is written if they differ by
more than the tolerances in `stages.runtime.parity`.
"""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import onnx
import onnxruntime
import openvino
import torch
import typer

from stages.common.errors import UserError, run
from stages.common.files import new_folder, write_json
from stages.common.options import Force, Student, Tables
from stages.common.params import write_digests
from stages.data.tables import read_dataset
from stages.runtime.calibration import sample_tiles
from stages.runtime.graphs import embed, obstacles, to_int8, to_onnx, to_openvino
from stages.runtime.metadata import metadata_of
from stages.runtime.network import open_onnx, open_openvino, student_folder, torch_runner
from stages.runtime.parity import EXACT, INT8, check, compare
from stages.student.config import read_student
from stages.student.decision import read_decision
from stages.student.segmenter import load_student


class Format(StrEnum):
    """The runtime that the export is for."""

    onnx = "onnx"
    openvino = "openvino"


def main(
    model: Student,
    out: Annotated[Path, typer.Option(help="Folder for the export.")],
    format: Annotated[Format, typer.Option(help="Runtime to export for.")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise for CPUs, calibrated on train.")] = False,
    batch: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Fixed number of tiles per call; by default any.")
    ] = None,
    tables: Tables = Path("data/tables"),
    force: Force = False,
) -> None:
    """Export a trained student to ONNX or OpenVINO, for machines without PyTorch."""
    if out.exists() and not (force and (out / "export.json").is_file()):
        raise UserError(f"{out}: exists; {'it is not an export' if force else '--force replaces an export'}")
    folder = student_folder(model)
    student, (_, weights_sha256) = load_student(folder), read_student(folder)
    view, names = student.config.view, student.config.names
    # the comparison below takes any images; the ranges of INT8 have to come from those that the student is for
    if int8 and (others := list(read_dataset(tables / "dataset.json").names)) != names:
        told = f"has the classes {others}, the student {names}: --int8 needs the data set that it was trained on"
        raise UserError(f"{tables}: {told}; --tables names its tables")
    decision = read_decision(folder, len(names))
    versions = {package.__name__: package.__version__ for package in (onnx, onnxruntime, openvino, torch)}
    about = metadata_of(student.config, decision, weights_sha256[:12], int8, batch, versions)
    with new_folder(out) as part:
        to_onnx(student, batch, part / "student.onnx")
        if int8:
            quantised = part / "int8.onnx"
            to_int8(part / "student.onnx", batch, sample_tiles(tables, "train", view), quantised)
            quantised.replace(part / "student.onnx")
        if format is Format.openvino:
            to_openvino(part / "student.onnx", about, part / "student.xml")
            (part / "student.onnx").unlink()
            _, exported = open_openvino(part)
        else:
            embed(part / "student.onnx", about)
            _, exported = open_onnx(part)
            for obstacle in obstacles(onnx.load(part / "student.onnx")):
                print(f"{out}: not for TensorRT: {obstacle}")
        found = compare(torch_runner(folder, "cpu"), exported, sample_tiles(tables, "val", view))
        print(f"{out}: {found}")
        check(found, INT8 if int8 else EXACT, f"{out}: not written")
        write_json(part / "export.json", {"format": format.value, **about.model_dump(), "parity": found.as_json()})
        write_digests(part)


cli = partial(run, main)
"""The console command."""

if __name__ == "__main__":
    cli()
