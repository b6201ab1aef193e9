"""Where to look closer: the defect, or false alarm, that went most wrong."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from stages.data.tables import IGNORE

LEAST_PX = 48
"""Least width of a window: narrower ones show pixels, not surroundings."""
SURROUNDINGS = 1.8
"""Window size over the size of what it shows."""


class Window(NamedTuple):
    """Part of an image in whole pixels."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """That part of an (H, W, ...) array."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def window_on(
    reference: np.ndarray, predicted: np.ndarray, boxes_xyxy: list[tuple[float, float, float, float]]
) -> Window:
    """The window to enlarge, of the image's own proportions.

    Around the connected region of defect, true or predicted, with the most wrong pixels; where all is right, around
    the largest; where there is none, around the largest box; else the whole image. Label maps (H, W).
    """
    height, width = reference.shape
    true, found = (reference > 0) & (reference != IGNORE), (predicted > 0) & (reference != IGNORE)
    regions, count = ndimage.label(true | found, np.ones((3, 3)))
    if count:
        index = np.arange(1, count + 1)
        wrong, area = ndimage.sum(true != found, regions, index), ndimage.sum(true | found, regions, index)
        rows, columns = ndimage.find_objects(regions)[np.lexsort((area, wrong))[-1]]
        return _around(columns.start, rows.start, columns.stop, rows.stop, width, height)
    if boxes_xyxy:
        return _around(*max(boxes_xyxy, key=lambda box: (box[2] - box[0]) * (box[3] - box[1])), width, height)
    return Window(0, 0, width, height)


def _around(x1: float, y1: float, x2: float, y2: float, width: int, height: int) -> Window:
    """A window of the image's proportions with the box in its middle, moved inside where it sticks out."""
    share = max((x2 - x1) * SURROUNDINGS / width, (y2 - y1) * SURROUNDINGS / height, LEAST_PX / width)
    cut_w, cut_h = (min(side, max(1, round(side * min(share, 1.0)))) for side in (width, height))
    left = min(max(0, round((x1 + x2 - cut_w) / 2)), width - cut_w)
    top = min(max(0, round((y1 + y2 - cut_h) / 2)), height - cut_h)
    return Window(left, top, cut_w, cut_h)
