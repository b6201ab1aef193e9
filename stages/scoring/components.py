"""Connected regions of one class: what a defect is, wherever defects are counted, measured or exported."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from stages.scoring.confusion import IGNORE

TOUCHING = np.ones((3, 3), dtype=bool)
"""Pixels of a class that touch, be it at a corner, are one defect."""


def connected(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Regions of (H, W) bool `pixels`: a map of 1 to R in the order of their first pixels, 0 elsewhere, and R."""
    return ndimage.label(pixels, TOUCHING)


def components(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray, int]]:
    """Class id, map and number of the regions of each class that (H, W) uint8 `labels` show, one class at a time."""
    for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=1)):
        if label not in (0, IGNORE):
            yield int(label) - 1, *connected(labels == label)
