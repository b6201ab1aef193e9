"""Windows of an image that a teacher encodes, and where a box lies in the network's input.

To the network a window is an image of its own.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from stages.data.boxes import Box, Window


class InputFrame(NamedTuple):
    """The square input of a network: its side in pixels, and how a window is resized to it.

    `pad`: the longest side to `side_px`, the rest padded at the right and the bottom (SAM). `stretch`: both sides.
    """

    side_px: int
    resize: Literal["pad", "stretch"]


def whole_window(size_hw: tuple[int, int]) -> Window:
    """The whole image."""
    height, width = size_hw
    return Window(0, 0, width, height)


def crop_window(box_xyxy: Box, size_hw: tuple[int, int], context: float, min_px: int) -> Window:
    """A square around the box, `context` (>= 1) times its long side and at least `min_px`, rounded up to pixels.

    Where it would exceed the image it is shifted inside; where the image is smaller than the square, it is cut to the
    image on that axis. A box inside the image is always inside its window.
    """
    x1, y1, x2, y2 = box_xyxy
    side = max(math.ceil(context * max(x2 - x1, y2 - y1)) + 1, min_px)
    height, width = size_hw
    left, right = _span((x1 + x2) / 2, side, width)
    top, bottom = _span((y1 + y2) / 2, side, height)
    return Window(left, top, right, bottom)


def _span(centre: float, side: int, length: int) -> tuple[int, int]:
    if side >= length:
        return 0, length
    start = min(max(math.floor(centre - (side - 1) / 2), 0), length - side)
    return start, start + side


def input_size_hw(window: Window, frame: InputFrame) -> tuple[int, int]:
    """Size of the resized window inside the input, in pixels, without the padding."""
    if frame.resize == "stretch":
        return frame.side_px, frame.side_px
    scale = frame.side_px / max(window.size_hw)
    height, width = (int(side * scale + 0.5) for side in window.size_hw)
    return height, width


def to_input(boxes_xyxy: np.ndarray, window: Window, frame: InputFrame) -> np.ndarray:
    """(N, 4) boxes in native pixels -> pixels of the network's input, float64."""
    origin = np.array([window.x1, window.y1, window.x1, window.y1], dtype=np.float64)
    # each axis has its own factor: the resized size is rounded to whole pixels
    (height, width), (new_height, new_width) = window.size_hw, input_size_hw(window, frame)
    return (np.asarray(boxes_xyxy, dtype=np.float64) - origin) * np.array([new_width / width, new_height / height] * 2)
