"""Scores of a split with their intervals, and the difference between two runs with its interval."""

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
from stages.metrics.scores import defined, image_ious, ratio, score_arrays

SHOWN_BY_SEED = ("iou_bin", "miou_anom")


def summarise(counts: np.ndarray, names: Sequence[str], bootstrap: BootstrapParams) -> dict[str, object]:
    """Every score of metrics/scores.py as a mean over seeds, with `<key>_low` and `<key>_high`, its 95 % interval.

    `counts`: (N, S, K+1, K+1) integer confusion counts per image and training seed, rows truth, N > 0. The bootstrap
    draws images and seeds. None where undefined for one seed or more. `<key>_by_seed` lists the S values.
    """
    points, resampled = _scored(counts, names, bootstrap)
    result: dict[str, object] = {"images": len(counts)}
    for key, point in points.items():
        low, high = percentile_interval(resampled_means(resampled[key], bootstrap))
        result |= {key: defined(point.mean()), f"{key}_low": defined(low), f"{key}_high": defined(high)}
    return result | {f"{key}_by_seed": [defined(value) for value in points[key]] for key in SHOWN_BY_SEED}


class Difference(NamedTuple):
    """A score of one run minus that of another, its 95 % interval, and the p-value of no difference; None: undefined.

    `adjusted`: the p-value after Holm's correction for all comparisons, see `adjusted_for_all`.
    """

    point: float | None
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None = None


def paired_differences(
    counts: np.ndarray, baseline: np.ndarray, names: Sequence[str], keys: Sequence[str], bootstrap: BootstrapParams
) -> dict[str, Difference]:
    """Scores `keys` of one run minus those of a baseline, by the paired bootstrap over images and seeds.

    Both are (N, S, K+1, K+1) counts of the same images and seeds in the same order, and share the resamples, so that
    the difficulty of an image cancels. Raises ValueError when the shapes differ.
    """
    pair = np.stack([counts, baseline], axis=1)
    points, resampled = _scored(pair, names, bootstrap)
    found = {}
    for key in keys:
        differences = resampled_means(resampled[key][:, 0] - resampled[key][:, 1], bootstrap)
        values = (np.subtract(*points[key]).mean(), *percentile_interval(differences), two_sided_p(differences))
        found[key] = Difference(*map(defined, values))
    return found


def _scored(counts: np.ndarray, names: Sequence[str], bootstrap: BootstrapParams) -> tuple[dict, dict]:
    """Every score of (N, ..., K+1, K+1) `counts` by key: (...) of all images, and (samples, ...) of the resamples."""
    each = image_ious(counts)
    images = np.stack([np.nan_to_num(each), ~np.isnan(each)], axis=-1)

    def of(pixels: np.ndarray, means: np.ndarray) -> dict[str, np.ndarray]:
        return score_arrays(pixels, names) | {"iou_image": ratio(means[..., 0], means[..., 1])}

    of_all = of(counts.sum(axis=0), images.sum(axis=0))
    return of_all, of(resampled_sums(counts, bootstrap), resampled_sums(images, bootstrap))


def adjusted_for_all(differences: Mapping[str, Mapping[str, Difference]]) -> dict[str, dict[str, Difference]]:
    """run -> score -> Difference with `adjusted` filled in: every score of every run is one comparison."""
    flat = [(run, key) for run, own in differences.items() for key in own]
    known = holm([np.nan if differences[run][key].p is None else differences[run][key].p for run, key in flat])
    result: dict[str, dict[str, Difference]] = {run: {} for run in differences}
    for (run, key), p in zip(flat, known, strict=True):
        result[run][key] = differences[run][key]._replace(adjusted=defined(p))
    return result
