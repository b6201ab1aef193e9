"""Which region of one label map is which of another: the rule by which defects are found and alarms are false.

Of all pairs of regions that share a pixel the one with the largest IoU is taken first, whatever their classes, then
the largest among regions not taken yet, until none is left; of equal IoUs the pair that comes first in the order of
the regions. So every region is paired once at most, the result depends on nothing but the two maps, and the pairs
with an IoU of 0.5 are among those with an IoU of 0.1: what is found by the stricter rule is found by the other.
(COCO's evaluation goes by descending score instead; it is used where scores matter, in average_precision.py.)
"""

from typing import NamedTuple

import numpy as np

from stages.evaluation.components import Regions


class Overlaps(NamedTuple):
    """Pairs of regions that share pixels, by `first`, then `second`: (P,) numbers from 0, and (P,) float64 IoUs."""

    first: np.ndarray
    second: np.ndarray
    iou: np.ndarray

    def among(self, first: np.ndarray, second: np.ndarray) -> "Overlaps":
        """Those between regions for which both (R,) bool masks hold."""
        both = first[self.first] & second[self.second]
        return Overlaps(self.first[both], self.second[both], self.iou[both])


def overlaps(first: Regions, second: Regions) -> Overlaps:
    """All pairs; both label maps are of one size."""
    both = (first.index > 0) & (second.index > 0)
    codes = (first.index[both].astype(np.int64) - 1) * len(second) + second.index[both] - 1
    codes, shared = np.unique(codes, return_counts=True)
    rows, columns = np.divmod(codes, max(1, len(second)))
    return Overlaps(rows, columns, shared / (first.areas_px[rows] + second.areas_px[columns] - shared))


def paired_iou(pairs: Overlaps, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
    """IoU of each region with the one that it is paired with, 0 where there is none: (first,) and (second,) float64."""
    ious = np.zeros(first), np.zeros(second)
    for place in np.lexsort((pairs.second, pairs.first, -pairs.iou)):
        a, b = pairs.first[place], pairs.second[place]
        if not ious[0][a] and not ious[1][b]:
            ious[0][a] = ious[1][b] = pairs.iou[place]
    return ious
