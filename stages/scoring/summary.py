"""Scores of a split with their intervals, and the difference between two runs with its own."""

from collections.abc import Sequence

import numpy as np

from stages.scoring.bootstrap import BootstrapParams, percentile_interval, resampled_sums
from stages.scoring.metrics import defined, figures


def summarise(counts: np.ndarray, names: Sequence[str], bootstrap: BootstrapParams) -> dict[str, int | float | None]:
    """Every figure of metrics.py with `<key>_low` and `<key>_high`, its 95 % bootstrap interval over images.

    `counts`: (N, K+1, K+1) integer confusion counts per image, rows truth, N > 0. None where undefined.
    """
    points = figures(counts.sum(axis=0), names)
    resampled = figures(resampled_sums(counts, bootstrap), names)
    result: dict[str, int | float | None] = {"images": len(counts)}
    for key, point in points.items():
        low, high = percentile_interval(resampled[key])
        result |= {key: defined(point), f"{key}_low": defined(low), f"{key}_high": defined(high)}
    return result


def paired_difference(
    counts: np.ndarray, baseline: np.ndarray, names: Sequence[str], key: str, bootstrap: BootstrapParams
) -> tuple[float | None, float | None, float | None]:
    """Figure `key` of one run minus that of a baseline, and the 95 % interval of the difference: (point, low, high).

    Both are (N, K+1, K+1) counts of the same images in the same order, and share the resamples, so that what makes
    an image hard for both cancels. Not corrected for the number of comparisons made.
    """
    if counts.shape != baseline.shape:
        raise ValueError(f"runs to compare were scored on different images: {counts.shape} and {baseline.shape}")
    pair = np.stack([counts, baseline], axis=1)
    point = np.subtract(*figures(pair.sum(axis=0), names)[key])
    resampled = figures(resampled_sums(pair, bootstrap), names)[key]
    low, high = percentile_interval(resampled[:, 0] - resampled[:, 1])
    return defined(point), defined(low), defined(high)
