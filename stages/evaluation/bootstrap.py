"""Percentile bootstrap: intervals of scores over resampled images and training seeds, and p-values.

Images, not pixels, are resampled: pixels of one image are not independent.
B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979).
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from stages.common.params import Section

COUNTS_AT_ONCE = 2**21
"""Bounds the memory of the draws, (resamples x images), whatever the size of the split."""

LEVEL = 0.95
"""Confidence level of all intervals."""


class BootstrapParams(Section):
    """Number of resamples and the seed of their draws."""

    samples: int = Field(ge=100, le=100_000)
    seed: int = Field(ge=0)


def resampled_sums(counts: np.ndarray, params: BootstrapParams) -> np.ndarray:
    """Totals of `params.samples` resamples of N images, drawn with replacement.

    `counts`: (N, ...) integer counts per image, N > 0. Returns (samples, ...) float64, exact up to 2**53.
    Counts of several runs over the same images, stacked along an inner axis, share their draws: that is the
    paired bootstrap. The result does not depend on the order of the images.
    """
    images = len(counts)
    rows = np.ascontiguousarray(counts, dtype=np.float64).reshape(images, -1)
    rows = rows[np.lexsort(rows.T)]
    generator = np.random.default_rng(params.seed)
    totals = np.empty((params.samples, rows.shape[1]))
    at_once = max(1, COUNTS_AT_ONCE // images)
    for start in range(0, params.samples, at_once):
        part = totals[start : start + at_once]
        part[:] = generator.multinomial(images, np.full(images, 1 / images), size=len(part)) @ rows
    return totals.reshape(params.samples, *counts.shape[1:])


def resampled_means(values: np.ndarray, params: BootstrapParams) -> np.ndarray:
    """(samples, S) metrics of S training seeds -> (samples,) means over S seeds drawn with replacement.

    NaN (undefined) where the metric is undefined for any seed, drawn or not: a mean over the other seeds would not be
    comparable. With one seed, the interval is that of the images alone and says nothing about other seeds.
    """
    draws = np.random.default_rng([params.seed, 1]).integers(values.shape[1], size=values.shape)
    means = np.take_along_axis(values, draws, axis=1).mean(axis=1)
    return np.where(np.isnan(values).any(axis=1), np.nan, means)


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """Central interval of (samples,) resampled metrics.

    Resamples in which the metric is undefined (NaN) are left out; (NaN, NaN) when it is undefined in all.
    """
    values = values[~np.isnan(values)]
    if not values.size:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def two_sided_p(values: np.ndarray) -> float:
    """p-value of (samples,) resampled differences: twice the share of those on the rarer side of 0.

    One sample is added to either side, so that the result is never below 2 / (samples + 1), the resolution of that
    many resamples. A difference of exactly 0 counts on both sides. NaN when the difference is undefined in all.
    """
    values = values[~np.isnan(values)]
    if not values.size:
        return np.nan
    rarer = min((values <= 0).sum(), (values >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (values.size + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's procedure, which controls the family-wise error rate.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    NaN (an undefined comparison) stays NaN and is not counted.
    """
    p = np.array(p_values, dtype=np.float64)
    order = [place for place in np.argsort(p, kind="stable") if not np.isnan(p[place])]
    adjusted, largest = p.copy(), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[place]))
        adjusted[place] = largest
    return adjusted.tolist()
