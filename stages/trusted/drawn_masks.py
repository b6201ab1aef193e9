"""Masks that people drew, which training takes as truth: their table, and what becomes of them in the pseudo-masks.

A whole image: its label map replaces the pseudo-mask, and each 8-connected region of a class becomes a box with that
region as every candidate and all scores 1, so that methods that learn from boxes need no special case; the image's own
boxes are left out. A single box, from a row of polygon corners: the same for this box, and the background in the box is
trusted too, except where another box may label it.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import ndimage

from stages.data.boxes import connected
from stages.data.tables import IGNORE, decode_label_map, read_table
from stages.masks import rle
from stages.masks.labelmap import CANDIDATES_PER_BOX, box_columns, candidate_rows, row_of
from stages.masks.shards import SCORES

TRUSTED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("label_png", pa.binary(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("exported_at", pa.string()),
        pa.field("replaces", pa.string()),
    ]
)
"""One row per image. `label_png`: label map as in MASKS, 255 = unknown. `source`: the file that the mask was read from
or, if it was accepted, had been accepted from; `exported_at`: when that file was exported, if it says so; `replaces`:
SHA-256 of the pseudo-mask that it was drawn on."""


def read_trusted(path: Path) -> dict[str, bytes]:
    """Image id to label map as PNG. Raises UserError where the table is missing."""
    table = read_table(path, TRUSTED, "trust")
    return dict(zip(table["image_id"].to_pylist(), table["label_png"].to_pylist(), strict=True))


def trusted_rows(image: dict, png: bytes) -> tuple[dict, list[dict]]:
    """The row of the masks table, and those of the candidates table, of an image whose label map a person drew."""
    labels, rows = decode_label_map(png), []
    for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=IGNORE + 1)[1:IGNORE]) + 1:
        regions, _ = connected(labels == value)
        for number, (down, across) in enumerate(ndimage.find_objects(regions), start=1):
            part = regions[down, across] == number
            box = dict(zip(("x1", "y1", "x2", "y2"), (across.start, down.start, across.stop, down.stop), strict=True))
            box |= {"box_id": f"{image['image_id']}:drawn{len(rows) // CANDIDATES_PER_BOX + 1}"}
            box |= {"image_id": image["image_id"], "class_id": int(value) - 1}
            rows += _drawn_rows(box, rle.encode(part, (across.start, down.start), labels.shape), int(part.sum()))
    return row_of(image, labels, rows, labels != IGNORE), rows


def with_drawn(boxes: Sequence[dict], found: Sequence[dict], size_hw: tuple[int, int], candidate: str) -> list[dict]:
    """`candidate_rows` of an image of `size_hw` where a person drew the masks of some boxes, which `found` lacks."""
    rows, found = [], iter(found)
    for box in boxes:
        if box["mask"] is None:
            rows += candidate_rows([box], list(islice(found, CANDIDATES_PER_BOX)), candidate)
        else:
            rows += _drawn_rows(box, box["mask"], rle.area(box["mask"], size_hw))
    return rows


def _drawn_rows(box: dict, code: bytes, area: int) -> list[dict]:
    """The rows of the candidates table of a box whose mask a person drew: `area` pixels, run-length `code`."""
    known = {"rle": code, "area": area, "area_in_box": area, **dict.fromkeys(SCORES, 1.0)}
    return [box_columns(box) | known | {"cand_idx": index, "chosen": index == 0} for index in range(CANDIDATES_PER_BOX)]
