"""The fifth candidate, made from the teacher's masks, the image's brightness and the box.

Networks trained on other surfaces draw defects too wide, and miss parts of them. But a defect looks the same along its
length, and different from its surroundings. The odds that a pixel of the box is defect:

    odds = odds of the vote * ratio of its brightness * ratio of (its brightness - the mean of its neighbourhood)
    ratio = frequency of the value among defect pixels / its frequency among sound ones

The vote is the mean of the four candidates' probabilities, weighted by their predicted IoU; frequencies are histograms
over the box and its surroundings, weighted by the vote; the neighbourhood has half the box's size. It is one step of
GrabCut (Rother et al. 2004) from masks in place of a rectangle, without its graph cut.

The mask has the pixels with odds above one. But people draw boxes tight: a mask that does not span its box is
incomplete, so the threshold is lowered until it does (compare the tightness prior of Lempitsky et al. 2009).
All constants are our choice.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, uniform_filter

from stages.teacher.candidates import STABILITY_OFFSET, Candidate, bounds, cut
from stages.teacher.evidence import Surroundings, mask_iou
from stages.teacher.hygiene import without_small_parts

BINS, LEAST = 16, 0.002
"""Number of bins of a histogram; what is added to each frequency, to bound the ratios."""

RATIO_SIGMA_PX = 0.7
"""Smoothing of the logarithm of the ratio, against the image's noise."""

UNSURE = 0.05
"""The odds of the vote are limited to about this value and its reciprocal."""

LOG_ODDS = (0.0, -0.5, -1.0, -1.5, -2.0)
"""Thresholds on the logarithm of the odds, tried one after the other."""

SPAN = 0.7
"""Share of its box's width and height that a mask has to span: as much as a defect whose box was drawn a fifth too
large on each side."""


def refine(
    place: Surroundings, votes: Sequence[np.ndarray], predicted_iou: Sequence[float], min_part: float
) -> Candidate:
    """The refined candidate of one box, inside the box. Its threshold is the first of LOG_ODDS with which the mask
    spans SPAN of the box, without parts smaller than `min_part` times its largest one; if there is none, the first with
    which the mask is not empty.

    `votes`: probabilities of the candidates, each (H, W) in [0, 1] on the pixels of the box; `predicted_iou`: theirs.
    That of the refined mask is the largest product of a candidate's predicted IoU and its IoU with the refined mask.
    """
    around, inside, levels = place
    box = slice(inside.y1 - around.y1, inside.y2 - around.y1), slice(inside.x1 - around.x1, inside.x2 - around.x1)
    weights = np.maximum(predicted_iou, 1e-6)
    vote = np.zeros(around.size_hw)
    vote[box] = np.average(np.asarray(votes, np.float64), axis=0, weights=weights)
    neighbourhood = uniform_filter(levels, max(min(levels.shape) // 2, 3), mode="nearest")
    ratio = log_ratio(levels, vote) + log_ratio(levels - neighbourhood, vote)
    log_odds = (np.log((vote + UNSURE) / (1 - vote + UNSURE)) + gaussian_filter(ratio, RATIO_SIGMA_PX))[box]
    threshold = _threshold(log_odds, min_part)
    mask = log_odds > threshold
    likeness = [mask_iou(mask, one > 0.5) for one in votes]
    largest, smallest = ((log_odds > threshold + shift).sum() for shift in (-STABILITY_OFFSET, STABILITY_OFFSET))
    probability = 1 / (1 + np.exp(-log_odds))
    return Candidate(
        *cut(mask, inside.x1, inside.y1),
        float(np.max(np.multiply(weights, likeness))),
        float(smallest / largest) if largest else 0.0,
        float(probability[mask].mean()) if mask.any() else 0.0,
        probability.astype(np.float32),
    )


def _threshold(log_odds: np.ndarray, min_part: float) -> float:
    """The threshold of the mask, see `refine`; the last of LOG_ODDS where all give an empty mask."""
    not_empty = [threshold for threshold in LOG_ODDS if log_odds.max() > threshold]
    for threshold in not_empty:
        spanned = bounds(without_small_parts(log_odds > threshold, min_part)).size_hw
        if all(spanned >= SPAN * np.array(log_odds.shape)):
            return threshold
    return not_empty[0] if not_empty else LOG_ODDS[-1]


def log_ratio(values: np.ndarray, vote: np.ndarray) -> np.ndarray:
    """(H, W) log of how much more frequent each pixel's value is among defect pixels than among sound ones.

    `values`: (H, W), any range; the bins lie between its 0.5 % and 99.5 % quantiles. `vote`: (H, W) in [0, 1], how far
    each pixel counts as defect; the rest of it counts as sound.
    """
    low, high = np.percentile(values, [0.5, 99.5])
    bins = np.clip((values - low) / max(high - low, 1e-6) * BINS, 0, BINS - 1).astype(int)
    counts = (np.bincount(bins.ravel(), weights.ravel(), minlength=BINS) for weights in (vote, 1 - vote))
    defect, sound = (gaussian_filter1d(each, 1.0) / max(each.sum(), 1e-9) + LEAST for each in counts)
    return np.log(defect / sound)[bins]
