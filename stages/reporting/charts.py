"""One chart: every run's binary IoU on val and test, with its interval."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

SERIES = {
    "test": ("test, against pixel truth", "#d1495b", "o", -0.13, 5),
    "val": ("val, against the noisy teacher", "#30638e", "s", 0.13, -13),
}


def draw_scores(path: Path, metrics: Mapping[str, Mapping[str, dict | None]]) -> None:
    """`metrics`: run -> split -> scores or None. Writes a PNG whose bytes depend on the scores alone."""
    figure = Figure(figsize=(8, 1.6 + 0.6 * len(metrics)), layout="constrained")
    axes = figure.add_subplot()
    for split, (label, colour, marker, offset, text_pt) in SERIES.items():
        rows = [(row, run[split]) for row, run in enumerate(metrics.values()) if run[split]]
        rows = [(row, scores) for row, scores in rows if scores["iou_bin"] is not None]
        if not rows:
            axes.plot([], [], marker, color=colour, label=f"{label}: not scored")
            continue
        points = np.array([scores["iou_bin"] for _, scores in rows])
        ends = np.array([[scores["iou_bin_low"], scores["iou_bin_high"]] for _, scores in rows]).T
        # A skewed percentile interval may leave its point estimate outside; an error bar cannot be negative.
        spans = np.maximum([points - ends[0], ends[1] - points], 0)
        heights = [row + offset for row, _ in rows]
        axes.errorbar(points, heights, xerr=spans, fmt=marker, color=colour, capsize=4, label=label)
        for at in zip(points, heights, strict=True):
            axes.annotate(f"{at[0]:.3f}", at, (0, text_pt), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(metrics)), list(metrics))
    axes.set(xlim=(0, 1), ylim=(len(metrics) - 0.4, -0.6), xlabel="binary IoU, 95 % bootstrap interval")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
