"""A run's predictions per image of a split and their confusion counts: one Parquet file per split and seed.

The files are read row by row, because each row holds an encoded label map.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.data.tables import columns, stream_rows

PREDICTIONS = pa.schema(
    columns(
        {"confusion", "shares_png"},
        image_id=(pa.string(), "as in the tables of ingest"),
        mask_png=(pa.binary(), "predicted label map as scored, an 8-bit PNG: 0 background, class id + 1"),
        defect_scores=(pa.list_(pa.float32()), "mean probability of its class over the pixels of each region"),
        confusion=(pa.list_(pa.int64()), "(K+1)^2 counts of pixels, row-major, rows truth; null without truth"),
        shares_png=(pa.binary(), "by encode_shares of stages/evaluation/probabilities.py; null where it is not stored"),
    )
)
"""`defect_scores`: in the order of `components.regions`. `shares_png`: stored for the seed that the report shows."""


def stream_predictions(path: Path, columns: list[str] | None = None) -> Iterator[dict]:
    """Rows of PREDICTIONS, one by one. Raises UserError when the file is missing or has another schema."""
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
