"""Predict the masks of images of any size, and write them in the formats of annotation tools.

    python -m stages.predict INPUT... --model data/models/RUN/SEED --out DIR --format masks --format cvat

No stage depends on it. Per image `records/NAME.json` holds the defects found, and every other output is made from it:
a further format needs no new prediction, and a killed run resumes. With `--runtime onnx` or `openvino` the model is a
folder that `stages.export` wrote, and PyTorch is not needed.

Exit status: 0 all done, 1 an error that the message explains, 3 done except for images that cannot be used.
"""

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from stages.common.errors import run
from stages.common.options import Device, Force
from stages.common.progress import progress
from stages.data.images import BadImage
from stages.data.tables import encode_label_map
from stages.formats import yolo
from stages.formats.coco import coco
from stages.formats.csv_parquet import tables
from stages.formats.cvat import cvat
from stages.formats.inputs import Source, file_in, find_images, read
from stages.formats.label_studio import label_studio
from stages.formats.measured_defects import Record, defects_of
from stages.formats.outputs import existing_records, remove_outputs, write_output
from stages.formats.overlay_jpeg import overlay
from stages.runtime.network import Network, Runtime, open_network
from stages.student.tiling import predict

SOME_SKIPPED = 3


class Format(StrEnum):
    """Output formats; README describes them."""

    masks = "masks"
    overlays = "overlays"
    table = "table"
    yolo = "yolo"
    coco = "coco"
    label_studio = "label_studio"
    cvat = "cvat"


FOLDER_OF = {Format.masks: "masks", Format.overlays: "overlays", Format.yolo: "labels"}
"""Output folder of the formats with one file per image."""


def main(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders of images, glob patterns.")],
    model: Annotated[Path, typer.Option(help="Folder of one trained student, or of an exported one.")],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    format: Annotated[list[Format], typer.Option(help="What to write; may be given several times.")] = (
        Format.masks,
        Format.overlays,
        Format.table,
    ),
    runtime: Annotated[Runtime, typer.Option(help="What runs the network.")] = Runtime.torch,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Predict the masks of images of any size, and write them in the formats of annotation tools."""
    sources = find_images(inputs, out)
    network = open_network(model, runtime, device)
    out.mkdir(parents=True, exist_ok=True)
    folders = [folder for kind, folder in FOLDER_OF.items() if kind in format]
    known = existing_records(sources, out, folders, network.identity, force)
    todo = [source for source in sources if force or source.name not in known or missing(source, out, folders)]
    skipped = {}
    for source in progress(todo, "predict", "images"):
        try:
            sha256, image = read(source)
        except BadImage as error:
            skipped[source.file] = str(error)
            continue
        if source.name not in known:
            known[source.name] = record_of(network, source, sha256, image)
            if force:  # files of formats not asked for now are of the old model, and would count as done later
                remove_outputs(source.name, out)
            text = known[source.name].model_dump_json(indent=1) + "\n"
            write_output(file_in(out / "records", source.name), text.encode(), force)
        write_files(known[source.name], image, out, folders, force)
    for file, reason in skipped.items():
        print(f"skipped: {file}: {reason}", file=sys.stderr)
    records = [known[source.name] for source in sources if source.name in known]
    for name, data in collections(records, network.names, format).items():
        write_output(out / name, data, force)
    report(records, len(sources) - len(todo), len(skipped), format, out)


def missing(source: Source, out: Path, folders: Iterable[str]) -> bool:
    """Whether one of the image's own files does not exist yet."""
    return not all(file_in(out / folder, source.name).is_file() for folder in folders)


def record_of(network: Network, source: Source, sha256: str, image: np.ndarray) -> Record:
    """The defects that the network finds in (H, W, 3) uint8 RGB `image`."""
    labels, confidence = predict(network.run, image, network.view)
    return Record(
        file=source.file,
        name=source.name,
        sha256=sha256,
        model=network.identity,
        size_hw=labels.shape,
        defects=defects_of(labels, confidence),
    )


def write_files(record: Record, image: np.ndarray, out: Path, folders: Iterable[str], force: bool) -> None:
    """Write the image's own files. Existing ones may have been corrected by hand: they stay, unless `force` is set."""
    makers = {
        "masks": lambda: encode_label_map(record.labels()),
        "overlays": lambda: overlay(image, record),
        "labels": lambda: yolo.lines(record).encode(),
    }
    for folder in folders:
        path = file_in(out / folder, record.name)
        if force or not path.is_file():
            write_output(path, makers[folder](), force)


def collections(records: list[Record], names: list[str], formats: Iterable[Format]) -> dict[str, bytes]:
    """File name to bytes of the outputs with one file for all images."""
    makers = {
        Format.table: lambda: tables(records, names),
        Format.coco: lambda: {"coco.json": coco(records, names)},
        Format.label_studio: lambda: label_studio(records, names),
        Format.cvat: lambda: {"cvat.xml": cvat(records, names)},
    }
    return {name: data for kind in formats if kind in makers for name, data in makers[kind]().items()}


def report(records: list[Record], cached: int, skipped: int, formats: Iterable[Format], out: Path) -> None:
    """Print what was done. Raises typer.Exit with status 3 when images were skipped."""
    defects = [defect for record in records for defect in record.defects]
    print(f"{len(records)} images ({cached} cached), {len(defects)} defects: {out}")
    if Format.yolo in formats and (holed := sum(defect.holes > 0 for defect in defects)):
        print(f"{out / 'labels'}: {holed} defects have holes; polygons cannot hold them, so they are filled there")
    if skipped:
        print(f"{skipped} of {len(records) + skipped} images were skipped", file=sys.stderr)
        raise typer.Exit(SOME_SKIPPED)


if __name__ == "__main__":
    run(main)
