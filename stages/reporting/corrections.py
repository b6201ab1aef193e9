"""What the students make of the SAM teacher's errors, counted against the truth.

Counted in pixels (defect or background) and in defects (regions, at an IoU; see matching.py):

    recovered   false negatives of the teacher that the student detects
    lost        true positives of the teacher that the student misses
    removed     false positives of the teacher that the student does not predict
    added       false positives of the student that the teacher does not predict

So the student's true positives are the teacher's, plus `recovered`, minus `lost`; its false positives are the
teacher's, minus `removed`, plus `added`. Two false positives are the same one where they are matched among the false
positives of both, by the same rule and at the same IoU as defects.
"""

import numpy as np

from stages.data.tables import IGNORE
from stages.evaluation.bootstrap import BootstrapParams, percentile_interval, resampled_means, resampled_sums
from stages.evaluation.defect_metrics import Outcome
from stages.evaluation.matching import Overlaps, matched_iou
from stages.metrics.scores import defined, ratio

KINDS = ("recovered", "lost", "removed", "added")
"""Each is counted together with the whole that it is a part of."""


def corrected_pixels(truth: np.ndarray, teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    """(4, 2) int64: each of KINDS and what it is a part of. Label maps are (H, W) uint8 of one size, 255 = ignored."""
    counted = truth != IGNORE
    cases = 4 * (truth[counted] > 0) + 2 * (teacher[counted] > 0) + (student[counted] > 0)
    # by truth, teacher, student: a defect or not
    n = np.bincount(cases, minlength=8).reshape(2, 2, 2)
    pairs = [(n[1, 0, 1], n[1, 0]), (n[1, 1, 0], n[1, 1]), (n[0, 1, 0], n[0, 1]), (n[0, 0, 1], n[0, :, 1])]
    return np.array([(part, whole.sum()) for part, whole in pairs], dtype=np.int64)


def corrected_defects(teacher: Outcome, student: Outcome, shared: Overlaps, iou: float) -> np.ndarray:
    """(4, 2) int64, as above, in regions. Both outcomes are on one truth; `shared`: of their predicted regions."""
    teacher_hits, hits = teacher.true_iou >= iou, student.true_iou >= iou
    teacher_false, false = teacher.predicted_iou < iou, student.predicted_iou < iou
    both_false = shared.where(teacher_false[shared.first] & false[shared.second])
    same = (matched_iou(both_false, len(teacher_false), len(false))[0] >= iou).sum()
    return np.array(
        [
            [(~teacher_hits & hits).sum(), (~teacher_hits).sum()],
            [(teacher_hits & ~hits).sum(), teacher_hits.sum()],
            [teacher_false.sum() - same, teacher_false.sum()],
            [false.sum() - same, false.sum()],
        ],
        dtype=np.int64,
    )


def summarise_corrections(counts: np.ndarray, bootstrap: BootstrapParams) -> dict[str, dict[str, float | None]]:
    """`counts`: (N, S, 4, 2) of either kind, per image and training seed, N > 0.

    For each of KINDS: `part` and `whole`, sums over images and means over seeds; `share`, mean over seeds, with `low`
    and `high`, its 95 % interval over images and seeds; None where there is nothing to be a part of.
    """
    points, resampled = counts.sum(axis=0), resampled_sums(counts, bootstrap)
    shares, resampled_shares = ratio(points[..., 0], points[..., 1]), ratio(resampled[..., 0], resampled[..., 1])
    result = {}
    for place, kind in enumerate(KINDS):
        low, high = percentile_interval(resampled_means(resampled_shares[..., place], bootstrap))
        part, whole = points[:, place].mean(axis=0)
        result[kind] = {
            "part": defined(part),
            "whole": defined(whole),
            "share": defined(shares[:, place].mean()),
            "low": defined(low),
            "high": defined(high),
        }
    return result
