"""What a run predicted for every photograph of a split, and how each was scored: one Parquet file a split."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.dataset.tables import read_table
from stages.shell.errors import UserError
from stages.shell.files import new_file

ROWS_AT_ONCE = 64
"""Rows held in memory and written as one row group."""

PREDICTIONS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("mask_png", pa.binary(), nullable=False),
        pa.field("confusion", pa.list_(pa.int64())),
    ]
)


class Prediction(NamedTuple):
    """One row: the predicted label map as an index PNG (0 = background, class id + 1) at the scored resolution, and
    its (K+1)^2 confusion counts, row-major with rows truth, or None where there is nothing to score against."""

    image_id: str
    mask_png: bytes
    confusion: list[int] | None


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write rows as they come; memory does not grow with their number."""
    with new_file(path) as part, pq.ParquetWriter(part, PREDICTIONS, compression="zstd") as writer:
        remaining = iter(predictions)
        while rows := list(islice(remaining, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist([row._asdict() for row in rows], schema=PREDICTIONS))


def read_predictions(path: Path) -> pa.Table:
    """Rows of `write_predictions`. Raises UserError when the file is missing or holds something else."""
    return read_table(path, PREDICTIONS, "evaluate")


def scored_by_seed(folder: Path, seeds: Sequence[int], split: str, classes: int) -> tuple[list[str], np.ndarray]:
    """Image ids and (N, seeds, classes, classes) counts of a run. Raises UserError where seeds saw other images."""
    each = [scored(read_predictions(folder / str(seed) / f"{split}.parquet"), classes) for seed in seeds]
    for seed, (image_ids, _) in zip(seeds, each, strict=True):
        if image_ids != each[0][0]:
            raise UserError(f"{folder}: seed {seed} was scored on other {split} images than seed {seeds[0]}")
    return each[0][0], np.stack([counts for _, counts in each], axis=1)


def scored(table: pa.Table, classes: int) -> tuple[list[str], np.ndarray]:
    """Image ids of the scored rows and their confusion counts, (N, classes, classes) int64 with rows truth."""
    rows = table.select(["image_id", "confusion"]).filter(table["confusion"].is_valid())
    counts = np.array(rows["confusion"].to_pylist(), dtype=np.int64).reshape(-1, classes, classes)
    return rows["image_id"].to_pylist(), counts
