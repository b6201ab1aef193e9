"""Matches the regions of two label maps one to one, by descending IoU.

Of all pairs of regions that share a pixel, the one with the largest IoU is matched first, whatever the classes, then
the largest among regions not matched yet, until none is left; of equal IoUs, the first in the order of the regions.
So a region has one match at most, the result depends on the two maps only, and a pair matched with an IoU of at least
0.5 is also matched at the threshold 0.1. (COCO's evaluation matches by descending score; see average_precision.py.)
"""

from typing import NamedTuple

import numpy as np

from stages.evaluation.components import Regions


class Overlaps(NamedTuple):
    """Pairs of regions that share pixels, by `first`, then `second`: (P,) indices from 0, and (P,) float64 IoUs."""

    first: np.ndarray
    second: np.ndarray
    iou: np.ndarray

    def where(self, keep: np.ndarray) -> "Overlaps":
        """The pairs selected by `keep`, (P,) bool."""
        return Overlaps(*(each[keep] for each in self))


def overlaps(first: Regions, second: Regions) -> Overlaps:
    """All pairs that share a pixel; both label maps are of one size."""
    both = (first.index > 0) & (second.index > 0)
    codes = (first.index[both].astype(np.int64) - 1) * len(second) + second.index[both] - 1
    codes, shared = np.unique(codes, return_counts=True)
    rows, columns = np.divmod(codes, max(1, len(second)))
    return Overlaps(rows, columns, shared / (first.areas_px[rows] + second.areas_px[columns] - shared))


def matched_iou(pairs: Overlaps, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
    """IoU of each region with its match, 0 where it has none: (first,) and (second,) float64."""
    ious = np.zeros(first), np.zeros(second)
    for place in np.lexsort((pairs.second, pairs.first, -pairs.iou)):
        a, b = pairs.first[place], pairs.second[place]
        if not ious[0][a] and not ious[1][b]:
            ious[0][a] = ious[1][b] = pairs.iou[place]
    return ious
