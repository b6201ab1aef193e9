"""Defect by defect: which regions of the truth were found, and which regions of the prediction are false alarms.

    found_iouNN    share of the true defects whose pair (see matching.py) has an IoU of at least 0.NN; undefined where
                   the truth has no defect
    alarms_iouNN   predicted regions without such a pair, per image: a second region on one defect is one, too
    alarms_apart   predicted regions that touch no true defect at all, per image

Classes do not matter here, as in binary IoU: a defect found under another class's name is found. They do in the
average precision beside it. Pixels that the truth ignores belong to no region; a region that has no others counts
for nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stages.data.tables import IGNORE
from stages.evaluation.bootstrap import BootstrapParams, percentile_interval, resampled_means, resampled_sums
from stages.evaluation.components import Regions, regions
from stages.evaluation.matching import overlaps, paired_iou
from stages.metrics.scores import defined

IOUS = (0.1, 0.5)
"""Where a pair of regions begins to count: anywhere near, and well outlined."""
FOUND = tuple(f"found_iou{iou * 100:.0f}" for iou in IOUS)
ALARMS = (*(f"alarms_iou{iou * 100:.0f}" for iou in IOUS), "alarms_apart")


class Outcome(NamedTuple):
    """One prediction of one image. `true_iou`, `predicted_iou`: of each region with its pair, 0 where it has none;
    `touching`: (P,) bool, which predicted regions share a pixel with a true one."""

    true: Regions
    predicted: Regions
    true_iou: np.ndarray
    predicted_iou: np.ndarray
    touching: np.ndarray


def outcome(truth: np.ndarray, predicted: np.ndarray, true: Regions | None = None) -> Outcome:
    """Label maps are (H, W) uint8, `truth` with 255 where ignored; `true` are its regions where they are known."""
    true, own = true or regions(truth), regions(predicted, truth != IGNORE)
    pairs = overlaps(true, own)
    touching = np.zeros(len(own), dtype=bool)
    touching[pairs.second] = True
    return Outcome(true, own, *paired_iou(pairs, len(true), len(own)), touching)


def counts_of(found: Outcome) -> np.ndarray:
    """(6,) int64: true defects, those found at each of IOUS, false alarms at each, and those that touch no defect."""
    hits = [(found.true_iou >= iou).sum() for iou in IOUS]
    alarms = [(found.predicted_iou < iou).sum() for iou in IOUS]
    return np.array([len(found.true), *hits, *alarms, (~found.touching).sum()], dtype=np.int64)


def summarise_defects(counts: np.ndarray, bootstrap: BootstrapParams) -> dict[str, float | int | None]:
    """FOUND and ALARMS as means over seeds, each with `_low` and `_high`, its 95 % interval; `true_defects`.

    `counts`: (N, S, 6) of `counts_of`, per image and training seed, N > 0.
    """
    points, resampled = counts.sum(axis=0), resampled_sums(counts, bootstrap)
    result: dict[str, float | int | None] = {"true_defects": int(points[0, 0])}
    for place, key in enumerate((*FOUND, *ALARMS), start=1):
        total = np.full(points.shape[:1], len(counts)) if key in ALARMS else points[:, 0]
        totals = np.full(resampled.shape[:2], len(counts)) if key in ALARMS else resampled[..., 0]
        low, high = percentile_interval(resampled_means(ratio(resampled[..., place], totals), bootstrap))
        point = ratio(points[:, place], total).mean()
        result |= {key: defined(point), f"{key}_low": defined(low), f"{key}_high": defined(high)}
    return result


def mean_over_seeds(each: Sequence[Mapping]) -> dict:
    """Mean of every figure, also of those in mappings within; None where it is undefined for one seed or more."""
    means: dict = {}
    for key, value in each[0].items():
        own = [seed[key] for seed in each]
        if isinstance(value, Mapping):
            means[key] = mean_over_seeds(own)
        else:
            means[key] = None if None in own else defined(np.mean(own))
    return means


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
