"""Masks for images of any size, in the formats of the tools that people use.

    python -m stages.predict INPUT... --model data/models/RUN/SEED --out DIR --format masks --format cvat

Nothing of the pipeline depends on it. Per image `records/NAME.json` holds what was found, and every output is made
from that: another format later costs no prediction, and a killed run goes on where it was. With `--runtime onnx` or
`openvino` the model is a folder that the export wrote, and PyTorch is not needed.

Exit status: 0 all done, 1 a mistake that the message names, 3 done except for images that cannot be used.
"""

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from stages.common.errors import run
from stages.common.progress import progress
from stages.data.images import BadImage
from stages.data.tables import encode_label_map
from stages.formats import yolo
from stages.formats.coco import coco
from stages.formats.cvat import cvat
from stages.formats.defects import Record, defects_of
from stages.formats.label_studio import label_studio
from stages.formats.photos import Source, file_in, find_photos, read
from stages.formats.pictures import overlay
from stages.formats.store import forget, place, standing
from stages.formats.table import tables
from stages.runtime.network import Network, Runtime, open_network
from stages.student.tiling import predict

SOME_SKIPPED = 3


class Format(StrEnum):
    """What is written: see README."""

    masks = "masks"
    overlays = "overlays"
    table = "table"
    yolo = "yolo"
    coco = "coco"
    label_studio = "label_studio"
    cvat = "cvat"


FOLDER_OF = {Format.masks: "masks", Format.overlays: "overlays", Format.yolo: "labels"}
"""Where a format that is one file an image goes."""


def main(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders of them, globs.")],
    model: Annotated[Path, typer.Option(help="Folder of one trained student, or of an exported one.")],
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")],
    format: Annotated[list[Format], typer.Option(help="What to write; may be given several times.")] = (
        Format.masks,
        Format.overlays,
        Format.table,
    ),
    runtime: Annotated[Runtime, typer.Option(help="What runs the network.")] = Runtime.torch,
    device: Annotated[str, typer.Option(help="For torch: auto, cpu or cuda.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite outputs that are there.")] = False,
) -> None:
    """Masks for images of any size, in the formats of the tools that people use."""
    sources = find_photos(inputs, out)
    network = open_network(model, runtime, device)
    out.mkdir(parents=True, exist_ok=True)
    folders = [folder for kind, folder in FOLDER_OF.items() if kind in format]
    known = standing(sources, out, folders, network.identity, force)
    todo = [source for source in sources if force or source.name not in known or missing(source, out, folders)]
    skipped = {}
    for source in progress(todo, "predict", "images"):
        try:
            sha256, photo = read(source)
        except BadImage as error:
            skipped[source.file] = str(error)
            continue
        if source.name not in known:
            known[source.name] = seen(network, source, sha256, photo)
            if force:  # what is not asked for this time, too: next time it would be taken for done
                forget(source.name, out)
            text = known[source.name].model_dump_json(indent=1) + "\n"
            place(file_in(out / "records", source.name), text.encode(), force)
        write_files(known[source.name], photo, out, folders, force)
    for file, reason in skipped.items():
        print(f"skipped: {file}: {reason}", file=sys.stderr)
    records = [known[source.name] for source in sources if source.name in known]
    for name, data in collections(records, network.config.names, format).items():
        place(out / name, data, force)
    tell(records, len(sources) - len(todo), len(skipped), format, out)


def missing(source: Source, out: Path, folders: Iterable[str]) -> bool:
    """Whether one of the image's own files is still to be written."""
    return not all(file_in(out / folder, source.name).is_file() for folder in folders)


def seen(network: Network, source: Source, sha256: str, photo: np.ndarray) -> Record:
    """What the network finds in an image."""
    labels, confidence = predict(network.run, photo, network.config.view)
    return Record(
        file=source.file,
        name=source.name,
        sha256=sha256,
        model=network.identity,
        size_hw=labels.shape,
        defects=defects_of(labels, confidence),
    )


def write_files(record: Record, photo: np.ndarray, out: Path, folders: Iterable[str], force: bool) -> None:
    """The image's own files. One that is there may have been corrected by hand: it stays, unless forced."""
    makers = {
        "masks": lambda: encode_label_map(record.labels()),
        "overlays": lambda: overlay(photo, record),
        "labels": lambda: yolo.lines(record).encode(),
    }
    for folder in folders:
        path = file_in(out / folder, record.name)
        if force or not path.is_file():
            place(path, makers[folder](), force)


def collections(records: list[Record], names: list[str], formats: Iterable[Format]) -> dict[str, bytes]:
    """File name to bytes of the outputs that hold all images."""
    makers = {
        Format.table: lambda: tables(records, names),
        Format.coco: lambda: {"coco.json": coco(records, names)},
        Format.label_studio: lambda: label_studio(records, names),
        Format.cvat: lambda: {"cvat.xml": cvat(records, names)},
    }
    return {name: data for kind in formats if kind in makers for name, data in makers[kind]().items()}


def tell(records: list[Record], before: int, skipped: int, formats: Iterable[Format], out: Path) -> None:
    """What was done and what was not; leaves with its own exit status when images were skipped."""
    defects = [defect for record in records for defect in record.defects]
    print(f"{len(records)} images ({before} done before), {len(defects)} defects: {out}")
    if Format.yolo in formats and (holed := sum(defect.holes > 0 for defect in defects)):
        print(f"{out / 'labels'}: {holed} defects have holes; polygons cannot hold them, so they are filled there")
    if skipped:
        print(f"{skipped} of {len(records) + skipped} images were skipped", file=sys.stderr)
        raise typer.Exit(SOME_SKIPPED)


if __name__ == "__main__":
    run(main)
