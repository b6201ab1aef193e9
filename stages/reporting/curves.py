"""The curves of the trainings, as the train stage left them: one CSV a figure, with a row an epoch."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from stages.common.errors import UserError

FIGURES = {"loss": "loss", "val": "val_miou_anom", "corrected": "corrected_share"}
"""File, without .csv, and the column of it that the report draws against `epoch`."""


class Curve(NamedTuple):
    """One training of a run; `points` of each of FIGURES: (epoch, value), without what was undefined."""

    run: str
    seed: int
    points: dict[str, list[tuple[int, float]]]


def read_curves(folder: Path, run: str, seed: int) -> Curve:
    """The curves in `folder`/RUN/SEED. Raises UserError when one is missing or holds other columns."""
    points = {}
    for name, column in FIGURES.items():
        path = folder / run / str(seed) / f"{name}.csv"
        try:
            rows = pd.read_csv(path)[["epoch", column]].dropna()
        except (OSError, KeyError, ValueError):
            raise UserError(f"{path}: no readable curve with columns epoch and {column}; train {run} first") from None
        points[name] = [(int(epoch), float(value)) for epoch, value in rows.itertuples(index=False)]
    return Curve(run, seed, points)
