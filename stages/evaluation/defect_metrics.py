"""Metrics per defect: which true regions are detected, and which predicted regions are false positives.

    recall_defects_iouNN                  share of the true defects whose match (see matching.py) has an IoU of at
                                          least 0.NN; undefined where the truth has no defect
    false_positives_per_image_iouNN       predicted regions without such a match, per image; a second region on one
                                          defect is a false positive
    false_positives_per_image_no_overlap  predicted regions that share no pixel with any true defect, per image

Classes are disregarded here, as in binary IoU, except under `by_class`, where a match asks for the class, as in average
precision (average_precision.py). Pixels that the truth ignores belong to no region; a region that has no other pixels
is not counted.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stages.data.tables import IGNORE
from stages.evaluation.bootstrap import BootstrapParams, percentile_interval, resampled_means, resampled_sums
from stages.evaluation.components import Regions, regions
from stages.evaluation.matching import matched_iou, overlaps
from stages.metrics.scores import defined, ratio

IOUS = (0.1, 0.5)
"""Thresholds on the IoU of a match: roughly located, and well outlined."""
RECALLS = tuple(f"recall_defects_iou{iou * 100:.0f}" for iou in IOUS)
FALSE_POSITIVES = tuple(
    f"false_positives_per_image_{case}" for case in (*(f"iou{iou * 100:.0f}" for iou in IOUS), "no_overlap")
)
OF_A_CLASS = (RECALLS[0], FALSE_POSITIVES[0])
"""What is reported per class: the quantities that an operating point can be chosen for."""


class Outcome(NamedTuple):
    """One prediction for one image. `true_iou`, `predicted_iou`: of each region with its match, 0 where it has none;
    `touching`: (P,) bool, whether a predicted region shares a pixel with a true one."""

    true: Regions
    predicted: Regions
    true_iou: np.ndarray
    predicted_iou: np.ndarray
    touching: np.ndarray


def outcome(truth: np.ndarray, predicted: np.ndarray, true: Regions | None = None) -> Outcome:
    """Label maps are (H, W) uint8, `truth` with 255 where ignored; `true`: its regions, where known already."""
    true, own = true or regions(truth), regions(predicted, truth != IGNORE)
    pairs = overlaps(true, own)
    touching = np.zeros(len(own), dtype=bool)
    touching[pairs.second] = True
    return Outcome(true, own, *matched_iou(pairs, len(true), len(own)), touching)


def counts_of(found: Outcome) -> np.ndarray:
    """(6,) int64: true defects, those detected at each of IOUS, false positives at each, and those without overlap."""
    detected = [(found.true_iou >= iou).sum() for iou in IOUS]
    false = [(found.predicted_iou < iou).sum() for iou in IOUS]
    return np.array([len(found.true), *detected, *false, (~found.touching).sum()], dtype=np.int64)


def counts_by_class(found: Outcome, classes: int) -> np.ndarray:
    """(K, 3) int64: true defects, those detected and false positives at IOUS[0], among the regions of each class."""
    pairs = overlaps(found.true, found.predicted)
    same = found.true.class_ids[pairs.first] == found.predicted.class_ids[pairs.second]
    true_iou, predicted_iou = matched_iou(pairs.where(same), len(found.true), len(found.predicted))
    of_classes = (
        found.true.class_ids,
        found.true.class_ids[true_iou >= IOUS[0]],
        found.predicted.class_ids[predicted_iou < IOUS[0]],
    )
    return np.stack([np.bincount(ids, minlength=classes) for ids in of_classes], axis=1)


def summarise_defects(counts: np.ndarray, bootstrap: BootstrapParams) -> dict[str, float | int | None]:
    """RECALLS and FALSE_POSITIVES as means over seeds, each with `_low` and `_high`, its 95 % interval; `true_defects`.

    `counts`: (N, S, 6) of `counts_of`, per image and training seed, N > 0.
    """
    keys = (*RECALLS, *FALSE_POSITIVES)
    return _rates(keys, counts.sum(axis=0), resampled_sums(counts, bootstrap), len(counts), bootstrap)


def summarise_by_class(counts: np.ndarray, names: Sequence[str], bootstrap: BootstrapParams) -> dict[str, dict]:
    """Class name -> OF_A_CLASS, in the same way. `counts`: (N, S, K, 3) of `counts_by_class`."""
    points, resampled = counts.sum(axis=0), resampled_sums(counts, bootstrap)
    return {
        name: _rates(OF_A_CLASS, points[:, class_id], resampled[:, :, class_id], len(counts), bootstrap)
        for class_id, name in enumerate(names)
    }


def _rates(
    keys: Sequence[str], points: np.ndarray, resampled: np.ndarray, images: int, bootstrap: BootstrapParams
) -> dict[str, float | int | None]:
    """`points`: (S, 1 + len(keys)) counts, of true defects first; `resampled`: (samples, S, 1 + len(keys))."""
    result: dict[str, float | int | None] = {"true_defects": int(points[0, 0])}
    for place, key in enumerate(keys, start=1):
        per_image = key in FALSE_POSITIVES
        total = np.full(points.shape[:1], images) if per_image else points[:, 0]
        totals = np.full(resampled.shape[:2], images) if per_image else resampled[..., 0]
        low, high = percentile_interval(resampled_means(ratio(resampled[..., place], totals), bootstrap))
        point = ratio(points[:, place], total).mean()
        result |= {key: defined(point), f"{key}_low": defined(low), f"{key}_high": defined(high)}
    return result


def mean_over_seeds(each: Sequence[Mapping]) -> dict:
    """Mean of every metric, nested mappings included; None where it is undefined for one seed or more."""
    means: dict = {}
    for key, value in each[0].items():
        own = [seed[key] for seed in each]
        if isinstance(value, Mapping):
            means[key] = mean_over_seeds(own)
        else:
            means[key] = None if None in own else defined(np.mean(own))
    return means
