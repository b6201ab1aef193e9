"""The fifth candidate: what the teacher's masks and the image's brightness say together.

Networks trained on other surfaces draw defects too fat, and miss parts of them; but a defect looks alike along its
length, and different from what surrounds it. A pixel of the box is defect where its odds exceed one:

    odds = odds by the masks * (frequency among defect pixels / frequency among sound ones) ** 1.5

once for its brightness and once for its brightness less the mean of its neighbourhood, of half the box's size. The
masks' odds are the vote of the four candidates, weighted by their predicted IoU; frequencies are 16-bin histograms over
the box and its surroundings, weighted by the same vote. It is one step of GrabCut (Rother et al. 2004) from masks in
place of a rectangle, without its graph cut; all constants are our choice.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, uniform_filter

from stages.data.boxes import Window
from stages.teacher.candidates import STABILITY_OFFSET, Candidate, bounds
from stages.teacher.evidence import Surroundings, mask_iou

BINS, TRUST, LEAST = 16, 1.5, 0.002
"""Of the histograms; exponent of their ratio; added to each frequency, so that no ratio is beyond reason."""

VOTE_SIGMA_PX, RATIO_SIGMA_PX = 1.0, 0.7
"""Smoothing of the vote before its odds are taken, and of the logarithm of the ratio, against the image's noise."""

UNSURE = 0.05
"""Odds of the vote lie between this and its reciprocal, about."""


def refine(place: Surroundings, votes: Sequence[np.ndarray], predicted_iou: Sequence[float]) -> Candidate:
    """The refined mask of one box, on the pixels of the box; where no odds exceed one, the majority of the vote, whose
    mean probability is then at most 0.5.

    `votes`: the candidates as `place` shows them. The refined mask's predicted IoU is the largest product of a
    candidate's and of its IoU with the refined mask.
    """
    around, inside, levels = place
    weights = np.maximum(predicted_iou, 1e-6)
    vote = np.average([mask.astype(np.float64) for mask in votes], axis=0, weights=weights)
    smooth = gaussian_filter(vote, VOTE_SIGMA_PX)
    log_odds = np.log((smooth + UNSURE) / (1 - smooth + UNSURE))
    if vote.any():
        neighbourhood = uniform_filter(levels, max(min(levels.shape) // 2, 3), mode="nearest")
        ratio = log_ratio(levels, vote) + log_ratio(levels - neighbourhood, vote)
        log_odds += TRUST * gaussian_filter(ratio, RATIO_SIGMA_PX)
    box = slice(inside.y1 - around.y1, inside.y2 - around.y1), slice(inside.x1 - around.x1, inside.x2 - around.x1)
    log_odds, vote, votes = log_odds[box], vote[box], [mask[box] for mask in votes]
    mask = log_odds > 0
    if not mask.any():
        mask = vote > 0.5
    likeness = [mask_iou(mask, other) for other in votes]
    tight = bounds(mask)
    largest, smallest = ((log_odds > threshold).sum() for threshold in (-STABILITY_OFFSET, STABILITY_OFFSET))
    return Candidate(
        Window(inside.x1 + tight.x1, inside.y1 + tight.y1, inside.x1 + tight.x2, inside.y1 + tight.y2),
        mask[tight.y1 : tight.y2, tight.x1 : tight.x2],
        float(np.max(np.multiply(weights, likeness))),
        float(smallest / largest) if largest else 0.0,
        float((1 / (1 + np.exp(-log_odds[mask]))).mean()) if mask.any() else 0.0,
    )


def log_ratio(values: np.ndarray, vote: np.ndarray) -> np.ndarray:
    """(H, W) log of how much more frequent each pixel's value is among defect pixels than among sound ones.

    `values`: (H, W), any range; its 16 bins lie between its 0.5 % and 99.5 % quantiles. `vote`: (H, W) in [0, 1], how
    far each pixel counts as defect; the rest of it counts as sound.
    """
    low, high = np.percentile(values, [0.5, 99.5])
    bins = np.clip((values - low) / max(high - low, 1e-6) * BINS, 0, BINS - 1).astype(int)
    counts = (np.bincount(bins.ravel(), weights.ravel(), minlength=BINS) for weights in (vote, 1 - vote))
    defect, sound = (gaussian_filter1d(each, 1.0) / max(each.sum(), 1e-9) + LEAST for each in counts)
    return np.log(defect / sound)[bins]
