"""What `predict` can write, by name; files of each image, and files of all images."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

import numpy as np

from stages.data.tables import encode_label_map
from stages.formats import yolo
from stages.formats.coco import coco
from stages.formats.csv_parquet import tables
from stages.formats.cvat import cvat
from stages.formats.inputs import file_in
from stages.formats.label_studio import label_studio
from stages.formats.measured_defects import Record
from stages.formats.outputs import write_output
from stages.formats.overlay_jpeg import overlay


class Format(StrEnum):
    """Output formats; docs/predict.md describes them."""

    masks = "masks"
    overlays = "overlays"
    table = "table"
    yolo = "yolo"
    coco = "coco"
    label_studio = "label_studio"
    cvat = "cvat"


FOLDER_OF = {Format.masks: "masks", Format.overlays: "overlays", Format.yolo: "labels"}
"""Output folder of the formats with one file per image."""


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


def collections(
    records: list[Record],
    names: list[str],
    formats: Iterable[Format],
    scales: Mapping[str, float] | None,
    folder: str,
) -> dict[str, bytes]:
    """File name to bytes of the outputs with one file for all images. `scales`: see `formats.scale`; `folder`: name of
    the folder that all inputs share."""
    makers = {
        Format.table: lambda: tables(records, names, scales),
        Format.yolo: lambda: {"data.yaml": yolo.data_yaml(names)},
        Format.coco: lambda: {"coco.json": b"".join(coco(records, names))},
        Format.label_studio: lambda: {
            name: b"".join(text) for name, text in label_studio(records, names, folder).items()
        },
        Format.cvat: lambda: {"cvat.xml": b"".join(cvat(records, names))},
    }
    return {name: data for kind in formats if kind in makers for name, data in makers[kind]().items()}
