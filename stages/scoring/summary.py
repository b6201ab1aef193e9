"""Scores of a split with their intervals, and the difference between two runs with its own."""

from collections.abc import Sequence

import numpy as np

from stages.scoring.bootstrap import BootstrapParams, percentile_interval, resampled_means, resampled_sums
from stages.scoring.metrics import defined, figures

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


def paired_difference(
    counts: np.ndarray, baseline: np.ndarray, names: Sequence[str], key: str, bootstrap: BootstrapParams
) -> tuple[float | None, float | None, float | None]:
    """Figure `key` of one run minus that of a baseline, and the 95 % interval of the difference: (point, low, high).

    Both are (N, S, K+1, K+1) counts of the same images and seeds in the same order, and share the resamples, so that
    what makes an image hard for both cancels. Not corrected for the number of comparisons made.
    """
    if counts.shape != baseline.shape:
        raise ValueError(f"runs to compare were scored on different images: {counts.shape} and {baseline.shape}")
    pair = np.stack([counts, baseline], axis=1)
    point = np.subtract(*figures(pair.sum(axis=0), names)[key]).mean()
    resampled = figures(resampled_sums(pair, bootstrap), names)[key]
    low, high = percentile_interval(resampled_means(resampled[:, 0] - resampled[:, 1], bootstrap))
    return defined(point), defined(low), defined(high)
