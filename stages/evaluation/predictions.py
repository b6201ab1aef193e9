"""A run's predictions per image of a split and their confusion counts: one Parquet file per split and seed.

The files are read row by row, because each row holds an encoded label map.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stages.data.tables import ROWS_AT_ONCE, columns, stream_rows, write_table

PREDICTIONS = pa.schema(
    columns(
        {"confusion", "shares_png"},
        image_id=(pa.string(), "as in the tables of ingest"),
        mask_png=(pa.binary(), "predicted label map, an 8-bit PNG: 0 background, class id + 1"),
        defect_scores=(pa.list_(pa.float32()), "mean probability of its class over the pixels of each region"),
        confusion=(pa.list_(pa.int64()), "(K+1)^2 counts of pixels, row-major, rows truth; null without truth"),
        shares_png=(pa.binary(), "see Prediction in stages/evaluation/predictions.py; null where it is not stored"),
    )
)


class Prediction(NamedTuple):
    """One row of PREDICTIONS. `mask_png` is at the scored resolution; `defect_scores` are in the order of
    `components.regions`; `shares_png`, of the seed that the report shows, is by `probabilities.encode_shares`."""

    image_id: str
    mask_png: bytes
    defect_scores: list[float]
    confusion: list[int] | None
    shares_png: bytes | None = None


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write rows as they come; memory does not grow with their number."""
    write_table(path, PREDICTIONS, (row._asdict() for row in predictions), ROWS_AT_ONCE)


def stream_predictions(path: Path, columns: list[str] | None = None) -> Iterator[dict]:
    """Rows of `write_predictions`, one by one. Raises UserError when the file is missing or has another schema."""
    return stream_rows(path, PREDICTIONS, "evaluate", columns)


def scored_by_seed(folder: Path, seeds: Sequence[int], split: str, classes: int) -> tuple[list[str], np.ndarray]:
    """Image ids of a run's scored images, and their (N, seeds, classes, classes) counts; `classes`: K + 1."""
    each = [scored(folder / str(seed) / f"{split}.parquet", classes) for seed in seeds]
    return each[0][0], np.stack([counts for _, counts in each], axis=1)


def scored(path: Path, classes: int) -> tuple[list[str], np.ndarray]:
    """Image ids of the scored rows and their confusion counts, (N, classes, classes) int64 with rows truth."""
    rows = stream_predictions(path, ["image_id", "confusion"])
    known = [(row["image_id"], row["confusion"]) for row in rows if row["confusion"] is not None]
    counts = np.array([confusion for _, confusion in known], dtype=np.int64).reshape(-1, classes, classes)
    return [image_id for image_id, _ in known], counts
