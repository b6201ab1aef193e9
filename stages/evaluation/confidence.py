"""Calibration: whether a share p of the pixels that are predicted with probability p is predicted correctly.

C. Guo et al., "On calibration of modern neural networks", ICML 2017: expected calibration error over equal bins of the
confidence, and temperature scaling. The error is computed on pixels that are predicted to be a defect, because the
background, most of an image and nearly always sure, would hide theirs; the negative log likelihood is over all pixels.
"""

from typing import NamedTuple

import numpy as np

from stages.data.tables import IGNORE
from stages.metrics.scores import defined, ratio

TEMPERATURES = tuple(float(2.0 ** (step / 4)) for step in range(-4, 9))
"""0.5 to 4; the fifth is 1."""
BINS = 10


class Confidence(NamedTuple):
    """Sums over pixels, for each of the T TEMPERATURES. `likelihood`: (T,) negative log likelihoods of the truth;
    `bins`: (T, BINS, 3) predicted defect pixels by confidence: number, sum of confidences, correct ones."""

    likelihood: np.ndarray
    bins: np.ndarray

    def __add__(self, other: "Confidence") -> "Confidence":
        return Confidence(self.likelihood + other.likelihood, self.bins + other.bins)

    def error(self, temperature: float) -> float:
        """Expected calibration error; NaN where no pixel was predicted to be a defect."""
        count, sure, correct = self.bins[TEMPERATURES.index(temperature)].T
        return float(ratio(np.abs(sure - correct).sum(), count.sum()))

    def best_temperature(self) -> float:
        """The temperature with the least negative log likelihood if it lowers the calibration error, else 1."""
        best = TEMPERATURES[int(self.likelihood.argmin())]
        return best if self.error(best) < self.error(1.0) else 1.0

    def curve(self, temperature: float) -> dict[str, object]:
        """For JSON: mean confidence and share of correct pixels per bin, None where it is empty; and the error."""
        count, sure, correct = self.bins[TEMPERATURES.index(temperature)].T
        return {
            "confidence": [defined(value) for value in ratio(sure, count)],
            "correct": [defined(value) for value in ratio(correct, count)],
            "pixels": count.astype(int).tolist(),
            "expected_calibration_error": defined(self.error(temperature)),
        }


def confidence_of(logits: np.ndarray, truth: np.ndarray) -> Confidence:
    """The sums for (K+1, h, w) `logits` and (h, w) uint8 `truth`, 255 where ignored."""
    counted = truth != IGNORE
    logits, truth = logits[:, counted].astype(np.float64), truth[counted].astype(np.int64)
    predicted = logits.argmax(0)
    likelihood, bins = np.zeros(len(TEMPERATURES)), np.zeros((len(TEMPERATURES), BINS, 3))
    defect = predicted > 0
    logits -= logits.max(0)
    of_truth = np.take_along_axis(logits, truth[None], 0).sum()
    for place, temperature in enumerate(TEMPERATURES):
        total = np.exp(logits / temperature).sum(0)
        likelihood[place] = np.log(total).sum() - of_truth / temperature
        sure = 1 / total[defect]
        own = np.minimum((sure * BINS).astype(int), BINS - 1)
        for column, weights in enumerate((np.ones(len(sure)), sure, (predicted == truth)[defect].astype(float))):
            bins[place, :, column] = np.bincount(own, weights, minlength=BINS)
    return Confidence(likelihood, bins)
