"""The file that evaluating a shard of images writes, and the sum of a split's shards."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain
from operator import add
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.data.tables import ROWS_AT_ONCE, stream_rows, write_table
from stages.engine.shard_jobs import Done
from stages.evaluation.average_precision import Detected
from stages.evaluation.confidence import Confidence
from stages.evaluation.config import EvaluateParams
from stages.evaluation.operating_points import Counts
from stages.evaluation.predictions import PREDICTIONS

FILE = "scored.parquet"
PUBLISHED_PX = 518
COUNTS = b"counts"
DRAWN = "drawn_"
POINT = "point_"
PREFIXES = ("", DRAWN, POINT)
COUNTED = [f"{prefix}{name}" for prefix in PREFIXES for name in ("confusion", "defects", "classes")]

SCORED = pa.schema(
    [
        *PREDICTIONS,
        # a prediction has its confusion already
        *(pa.field(name, pa.list_(pa.int64())) for name in COUNTED if name not in PREDICTIONS.names),
        *(pa.field(name, pa.string()) for name in ("regions", f"{DRAWN}regions")),
    ]
)
"""Columns beside the prediction's: `defects`, see `counts_of`; `classes`, see `counts_by_class`; `regions`, JSON of a
`Detected`; with the prefix DRAWN the same against what people drew for training; with POINT those of the labels of the
operating point. Null for an image without such a label map. The metadata holds the sum of the images' `Counts`."""


@dataclass
class Tally:
    """Counts of label maps, one item per image that has one to be compared with; fields as in SCORED."""

    confusion: list[np.ndarray] = field(default_factory=list)
    defects: list[np.ndarray] = field(default_factory=list)
    classes: list[np.ndarray] = field(default_factory=list)

    def add(self, row: dict, prefix: str, classes: int) -> None:
        """Add the counts of an image, unless it has none."""
        if row[f"{prefix}confusion"] is not None:
            self.confusion.append(np.array(row[f"{prefix}confusion"]).reshape(classes + 1, classes + 1))
            self.defects.append(np.array(row[f"{prefix}defects"]))
            self.classes.append(np.array(row[f"{prefix}classes"]).reshape(classes, 3))


@dataclass
class Scored(Tally):
    """One student's counts on a split. `images`: number of all; `detected`: one item per image with a label map;
    `point`: of the labels of the operating point, if it was scored."""

    images: int = 0
    detected: list[Detected] = field(default_factory=list)
    point: Tally = field(default_factory=Tally)
    counts: Counts | None = None


def at_resolution(pixels: np.ndarray, values: EvaluateParams) -> np.ndarray:
    """uint8 unchanged, or as published at 518 x 518: an image (H, W, 3) bilinear, a label map (H, W) nearest."""
    if values.resolution == "native":
        return pixels
    method = Image.Resampling.BILINEAR if pixels.ndim == 3 else Image.Resampling.NEAREST
    return np.array(Image.fromarray(pixels).resize((PUBLISHED_PX, PUBLISHED_PX), method))


def write_scored(path: Path, rows: Sequence[dict], counts: Sequence[Counts]) -> None:
    """Write the rows of one shard and the counts of its images."""
    total = json.dumps(reduce(add, counts) if counts else None, default=np.ndarray.tolist)
    write_table(path, SCORED.with_metadata({COUNTS: total}), rows)


def counts_in(finished: Sequence[Done]) -> Counts | None:
    """The sum of the shards' `Counts`; None where no image was judged."""
    found = [json.loads(pq.read_schema(done.folder / FILE).metadata[COUNTS]) for done in finished if not done.failures]
    known = [_counts(one) for one in found if one is not None]
    return reduce(add, known) if known else None


def gather(finished: Sequence[Done], classes: int, predictions: Path, prefix: str = "") -> Scored:
    """The sum of the shards of a split, in order; their predictions become one file.

    `classes`: K. `prefix`: DRAWN for only the images with pixels that people drew, scored on these pixels.
    """
    total = Scored(counts=counts_in(finished))

    def added(row: dict) -> dict:
        total.images += 1
        total.add(row, prefix, classes)
        total.point.add(row, POINT, classes)
        counts = row[f"{prefix}confusion"]
        if counts is not None:
            total.detected.append(Detected(*json.loads(row[f"{prefix}regions"])))
        return {name: row[name] for name in PREDICTIONS.names} | {"confusion": counts}

    shards = [done.folder / FILE for done in finished if not done.failures]
    rows = chain.from_iterable(stream_rows(path, SCORED, "evaluate") for path in shards)
    ours = (row for row in rows if not prefix or row[f"{prefix}confusion"] is not None)
    write_table(predictions, PREDICTIONS, map(added, ours), ROWS_AT_ONCE)
    return total


def _counts(found: list) -> Counts:
    images, *arrays, confidence = found
    return Counts(images, *map(np.array, arrays), Confidence(*map(np.array, confidence)))
