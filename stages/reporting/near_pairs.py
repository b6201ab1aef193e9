"""Near duplicates across splits, side by side: the pairs that ingest listed in near_duplicates.csv, nearest first."""

import csv
from pathlib import Path
from typing import NamedTuple

from stages.common.errors import UserError
from stages.common.files import unexecuted
from stages.data.images import read_image
from stages.data.tables import IMAGES, Dataset, stream_rows
from stages.reporting.layers import data_uri, jpeg_of

SHOWN = 24
"""Largest number of pairs shown; the rest is counted."""
SIDE_PX = 240


class Side(NamedTuple):
    """One image of a pair: `uri` is a JPEG of at most SIDE_PX a side."""

    split: str
    path: str
    uri: str


class NearPair(NamedTuple):
    """Two images of different splits; `distance`: how many of 255 bits of their perceptual hashes differ."""

    distance: int
    sides: tuple[Side, Side]


def near_pairs(source: Dataset, tables: Path) -> tuple[list[NearPair], int]:
    """The first SHOWN pairs, and the number of all.

    Raises UserError where the list is missing.
    """
    path = tables / "near_duplicates.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror}); run the ingest stage") from None
    shown = rows[:SHOWN]
    wanted = {(row[f"{which}split"], row[f"{which}path"]) for row in shown for which in ("", "other_")}
    sides = {}
    for split in sorted({split for split, _ in wanted}):
        for image in stream_rows(tables / split / "images.parquet", IMAGES, "ingest"):
            if (key := (split, unexecuted(image["path"]))) in wanted:
                sides[key] = _side(source, split, image)
    return [
        NearPair(int(row["distance"]), (sides[row["split"], row["path"]], sides[row["other_split"], row["other_path"]]))
        for row in shown
    ], len(rows)


def _side(source: Dataset, split: str, image: dict) -> Side:
    rgb = read_image(source, image)
    scale = SIDE_PX / max(rgb.shape[:2])
    size_wh = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    return Side(split, image["path"], data_uri("image/jpeg", jpeg_of(rgb, size_wh)))
