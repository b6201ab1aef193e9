"""Scores of a split with their intervals, and the difference between two runs with its own."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stages.evaluation.bootstrap import (
    BootstrapParams,
    holm,
    percentile_interval,
    resampled_means,
    resampled_sums,
    two_sided_p,
)
from stages.metrics.scores import defined, figures

SHOWN_BY_SEED = ("iou_bin", "miou_anom")


def summarise(counts: np.ndarray, names: Sequence[str], bootstrap: BootstrapParams) -> dict[str, object]:
    """Every figure of metrics.py as a mean over seeds, with `<key>_low` and `<key>_high`, its 95 % interval.

    `counts`: (N, S, K+1, K+1) integer confusion counts per image and training seed, rows truth, N > 0. The bootstrap
    draws images, and seeds with them. None where undefined, for one seed or more. `<key>_by_seed` lists S values.
    """
    points = figures(counts.sum(axis=0), names)
    resampled = figures(resampled_sums(counts, bootstrap), names)
    result: dict[str, object] = {"images": len(counts)}
    for key, point in points.items():
        low, high = percentile_interval(resampled_means(resampled[key], bootstrap))
        result |= {key: defined(point.mean()), f"{key}_low": defined(low), f"{key}_high": defined(high)}
    return result | {f"{key}_by_seed": [defined(value) for value in points[key]] for key in SHOWN_BY_SEED}


class Difference(NamedTuple):
    """A figure of one run minus that of another, its 95 % interval, and the p-value of no difference; None: undefined.

    `adjusted`: the p-value after Holm's correction for all comparisons made, once these are known.
    """

    point: float | None
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None = None


def paired_differences(
    counts: np.ndarray, baseline: np.ndarray, names: Sequence[str], keys: Sequence[str], bootstrap: BootstrapParams
) -> dict[str, Difference]:
    """Figures `keys` of one run minus those of a baseline, by the paired bootstrap over images and seeds.

    Both are (N, S, K+1, K+1) counts of the same images and seeds in the same order, and share the resamples, so that
    what makes an image hard for both cancels.
    """
    if counts.shape != baseline.shape:
        raise ValueError(f"runs to compare were scored on different images: {counts.shape} and {baseline.shape}")
    pair = np.stack([counts, baseline], axis=1)
    points, resampled = figures(pair.sum(axis=0), names), figures(resampled_sums(pair, bootstrap), names)
    found = {}
    for key in keys:
        differences = resampled_means(resampled[key][:, 0] - resampled[key][:, 1], bootstrap)
        figures_of = (np.subtract(*points[key]).mean(), *percentile_interval(differences), two_sided_p(differences))
        found[key] = Difference(*map(defined, figures_of))
    return found


def adjusted_for_all(differences: Mapping[str, Mapping[str, Difference]]) -> dict[str, dict[str, Difference]]:
    """The same, run -> figure, with `adjusted`: every figure of every run is one of the comparisons."""
    flat = [(run, key) for run, own in differences.items() for key in own]
    known = holm([np.nan if differences[run][key].p is None else differences[run][key].p for run, key in flat])
    result: dict[str, dict[str, Difference]] = {run: {} for run in differences}
    for (run, key), p in zip(flat, known, strict=True):
        result[run][key] = differences[run][key]._replace(adjusted=defined(p))
    return result
