"""What `predict` and `review` can write, by name, and the files of all images."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from stages.formats import yolo
from stages.formats.coco import coco
from stages.formats.csv_parquet import tables
from stages.formats.cvat import cvat
from stages.formats.label_studio import label_studio
from stages.formats.measured_defects import Record
from stages.formats.regions import Labelled


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


def written(
    records: list[Record], names: list[str], formats: Iterable[Format], scales: Mapping[str, float] | None, folder: str
) -> dict[str, bytes]:
    """File name to bytes of the outputs with one file for all images. `scales`: see `formats.scale`; `folder`: name of
    the folder that all inputs share."""
    found = {}
    for kind in formats:
        files = collections(kind, records, names, folder)
        found |= {name: b"".join(chunks) for name, chunks in files.items()}
        if kind is Format.table:
            found |= tables(records, names, scales)
    return found


def collections(kind: str, records: Iterable[Labelled], names: list[str], folder: str) -> dict[str, Iterable[bytes]]:
    """File name to bytes, in parts, of what annotation tools read of all images together.

    `kind`: a name in Format; `folder`: name of the folder of all images.
    """
    files = {
        Format.yolo: {"data.yaml": [yolo.data_yaml(names, dict.fromkeys(("train", "val"), "images"))]},
        Format.coco: {"coco.json": coco(records, names)},
        Format.label_studio: label_studio(records, names, folder),
        Format.cvat: {"cvat.xml": cvat(records, names)},
    }
    return files.get(kind, {})
