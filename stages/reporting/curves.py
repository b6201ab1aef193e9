"""The training curves, as the train stage wrote them: CSV files with a row per epoch."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stages.common.errors import UserError
from stages.common.params import check_digests
from stages.reporting.score_tables import UNDEFINED, Body, Cell, Table

TITLES = {
    "loss": "Training loss",
    "val_miou_anom": "mIoU_anom on val, against the pseudo-masks",
    "corrected_share": "Share of background pixels that the method relabelled as a defect",
    "dropped_share": "Share of labelled pixels that the method set to background",
}
"""Columns in words; other columns of a method are shown by their names."""

Points = list[tuple[int, float]]


class Curve(NamedTuple):
    """One training of a run; `points`: column -> (epoch, value), without undefined values."""

    run: str
    seed: int
    points: dict[str, Points]


def read_curves(folder: Path, run: str, seed: int) -> Curve:
    """Columns `loss` and `val_miou_anom`, and all that the method recorded, of `folder`/RUN/SEED.

    Raises UserError when a file or column is missing, or a file is not as it was written.
    """
    folder = folder / run / str(seed)
    check_digests(folder, "train again (dvc repro)")
    columns = _read(folder / "loss.csv", run, "loss") | _read(folder / "val.csv", run, "val_miou_anom")
    return Curve(run, seed, columns | _read(folder / "method.csv", run))


def ends_table(curves: Sequence[Curve]) -> Table:
    """The last, or best, value of each training."""

    def row(curve: Curve) -> tuple[str, list[Cell]]:
        loss, val, corrected = (curve.points.get(key) for key in ("loss", "val_miou_anom", "corrected_share"))
        best = max(val or (), key=lambda point: point[1], default=None)
        return f"{curve.run}, seed {curve.seed}", [
            Cell(f"{loss[-1][0]}" if loss else UNDEFINED),
            Cell(f"{loss[-1][1]:.3f}" if loss else UNDEFINED),
            Cell(f"{best[1]:.3f}" if best else UNDEFINED, f"epoch {best[0]}" if best else ""),
            Cell(f"{corrected[-1][1]:.2%}" if corrected else UNDEFINED),
        ]

    columns = ["training", "epochs", "loss at the end", "best mIoU_anom on val", "corrected at the end"]
    return Table("Last and best values of each training", columns, [Body([row(curve) for curve in curves])])


def _read(path: Path, run: str, column: str | None = None) -> dict[str, Points]:
    """`column`, or where None all columns, against `epoch`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), reader.fieldnames or []
        columns = [column] if column else [name for name in names if name != "epoch"]
        if not {"epoch", *columns} <= set(names):
            raise KeyError(columns)
        return {
            name: [(int(row["epoch"]), float(row[name])) for row in rows if math.isfinite(float(row[name] or "nan"))]
            for name in columns
        }
    except (OSError, KeyError, ValueError, TypeError):
        wanted = f"columns epoch and {column}" if column else "a column epoch"
        raise UserError(f"{path}: no readable curve with {wanted}; train {run} first") from None
