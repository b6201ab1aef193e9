"""What DVC's commands show: a few scores per run for `dvc metrics` and `dvc exp show`, and tables for `dvc plots`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.common.files import new_folder, write_csv
from stages.evaluation.defect_metrics import RECALLS
from stages.reporting.curves import Curve

MOST = 40
"""Largest number of values in the summary: what fits a screen."""

SCORES = (
    ("test", "iou_bin"),
    ("test", "recall_bin"),
    ("test", "precision_bin"),
    ("val", "iou_bin"),
    ("test", "miou_anom"),
    ("test", RECALLS[0]),
    ("test", "ap50"),
    ("val", "miou_anom"),
)
"""By importance: with many runs the last ones are left out."""

PLOTTED = ("loss", "val_miou_anom")


def summary(metrics: Mapping[str, dict]) -> dict[str, dict[str, float | None]]:
    """SPLIT_SCORE -> run -> value, at most MOST values; `metrics`: run -> its scores."""
    runs = list(metrics)[:MOST]
    few: dict[str, dict[str, float | None]] = {}
    for split, key in SCORES[: max(1, MOST // len(runs))]:
        scores = {run: metrics[run][split] or {} for run in runs}
        few[f"{split}_{key}"] = {run: {**own.get("defects", {}), **own}.get(key) for run, own in scores.items()}
    return few


def write_plots(folder: Path, curves: Sequence[Curve]) -> None:
    """Write `folder`/QUANTITY.csv with a row per training and epoch, for each of PLOTTED."""
    with new_folder(folder) as part:
        for key in PLOTTED:
            rows = ((curve.run, curve.seed, *point) for curve in curves for point in curve.points[key])
            write_csv(part / f"{key}.csv", ["run", "seed", "epoch", key], rows)
