"""Boxes, windows and regions in pixels of an image: corners of a table row, the pixels that a box touches, IoU.

Every box is (x1, y1, x2, y2) in native pixels of the upright image, half-open. A window is such a box of whole pixels.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import ndimage

Box = tuple[float, float, float, float]

EDGE_TOLERANCE_PX = 0.01
"""A box touches a pixel if it covers more than this share of its side: label files hold rounded coordinates."""


class Window(NamedTuple):
    """Whole pixels inside an image."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.y2 - self.y1, self.x2 - self.x1


def connected(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected regions of (H, W) bool `pixels`, as (H, W) int32, and their number R.

    1 to R in the order of their first pixels, 0 elsewhere. 8-connected: pixels that touch at a corner are connected.
    """
    return ndimage.label(pixels, np.ones((3, 3)))


def corners(row: Mapping) -> Box:
    """The box of a row of the boxes table or the candidates table."""
    return row["x1"], row["y1"], row["x2"], row["y2"]


def pixels_of_box(box_xyxy: Box, size_hw: tuple[int, int], margin: float = 0.0) -> Window:
    """The pixels that a box touches, after enlarging it by `margin` times its sides and clipping it to the image.

    Never empty for a box inside the image: a box thinner than EDGE_TOLERANCE_PX touches the pixel that it lies in.
    """
    x1, y1, x2, y2 = box_xyxy
    (grow_x, grow_y), (height, width) = (margin * (x2 - x1), margin * (y2 - y1)), size_hw
    left, right = _touched(x1 - grow_x, x2 + grow_x, width)
    top, bottom = _touched(y1 - grow_y, y2 + grow_y, height)
    return Window(left, top, right, bottom)


def centre_line(box_xyxy: Box, place: Window) -> Window:
    """The part of `place` in the row or column through a box's middle, along its longer side; may be empty."""
    x1, y1, x2, y2 = box_xyxy
    if x2 - x1 >= y2 - y1:
        row = int((y1 + y2) / 2)
        return Window(place.x1, row, place.x2, row + (place.y1 <= row < place.y2))
    column = int((x1 + x2) / 2)
    return Window(column, place.y1, column + (place.x1 <= column < place.x2), place.y2)


def _touched(start: float, end: float, length: int) -> tuple[int, int]:
    first = min(max(int(np.floor(start + EDGE_TOLERANCE_PX)), 0), length - 1)
    last = min(int(np.ceil(end - EDGE_TOLERANCE_PX)), length)
    return first, max(last, first + 1)


def box_iou(first: Box, second: Box) -> float:
    """IoU of two boxes; 0 where both have no area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(width, 0.0) * max(height, 0.0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - common
    return common / union if union > 0 else 0.0
