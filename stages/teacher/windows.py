"""What the teacher's encoder sees of an image: a window of it, and the way there and back.

A window is (x1, y1, x2, y2), whole native pixels, half-open, inside the image. To SAM a window is an image
of its own: its longest side is resized to the encoder's input side and the rest padded at the right and the bottom,
as segment_anything's `ResizeLongestSide` and `Sam.preprocess` do. The pixels that a box touches are a window, too.
"""

import math

import numpy as np

from stages.data.boxes import Window


def whole_window(size_hw: tuple[int, int]) -> Window:
    """The whole image."""
    height, width = size_hw
    return Window(0, 0, width, height)


def crop_window(
    box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int], context: float, min_px: int
) -> Window:
    """A square around the box, `context` (>= 1) times its long side and at least `min_px`, rounded up to pixels.

    Where it would leave the image it is shifted back in; where the image is smaller than the square, it is
    cut to the image on that axis. A box inside the image is always inside its window.
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


def input_size_hw(window: Window, image_size: int) -> tuple[int, int]:
    """Size of the window inside the encoder's padded square input of side `image_size`."""
    scale = image_size / max(window.size_hw)
    height, width = (int(side * scale + 0.5) for side in window.size_hw)
    return height, width


def to_view(boxes_xyxy: np.ndarray, window: Window, image_size: int) -> np.ndarray:
    """(N, 4) boxes in native pixels -> pixels of the encoder's input, float64."""
    return (np.asarray(boxes_xyxy, dtype=np.float64) - _origin(window)) * _scale(window, image_size)


def from_view(boxes_xyxy: np.ndarray, window: Window, image_size: int) -> np.ndarray:
    """The inverse of `to_view`."""
    return np.asarray(boxes_xyxy, dtype=np.float64) / _scale(window, image_size) + _origin(window)


def _origin(window: Window) -> np.ndarray:
    return np.array([window.x1, window.y1, window.x1, window.y1], dtype=np.float64)


def _scale(window: Window, image_size: int) -> np.ndarray:
    # each axis has its own factor: the resized size is rounded to whole pixels
    (height, width), (new_height, new_width) = window.size_hw, input_size_hw(window, image_size)
    return np.array([new_width / width, new_height / height] * 2)
