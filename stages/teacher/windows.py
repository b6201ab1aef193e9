"""Windows of an image that a teacher encodes, and where a box lies in the network's input.

The network sees a window as if it were an image. A box that its window shows too small is also prompted in overlapping
pieces, each with a window of its own.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from stages.data.boxes import Box, Window, pixels_of_box
from stages.teacher.config import RasterizeParams

PIECE_CONTEXT = 1.3
"""Side of a piece's window, as a multiple of the longest possible piece."""

OVERLAP = 0.25
"""Least overlap of neighbouring pieces, as a share of their length."""

MAX_PIECES = 64
"""Most pieces per box: a box that would need more is shown at a smaller scale."""

REACH = 0.1
"""How far outside itself a piece decides on pixels, as a share of its sides: defects end a little outside their box."""


class InputFrame(NamedTuple):
    """The square input of a network: its side in pixels, and how a window is resized to it.

    `pad`: the longest side to `side_px`, the rest padded at the right and the bottom (SAM). `stretch`: both sides.
    """

    side_px: int
    resize: Literal["pad", "stretch"]


def window_of(box_xyxy: Box, size_hw: tuple[int, int], params: RasterizeParams) -> Window:
    """The window that shows all of a box."""
    if params.view == "whole":
        return whole_window(size_hw)
    return crop_window(box_xyxy, size_hw, params.context, params.min_view_px)


def grown(box_xyxy: Box, size_hw: tuple[int, int], share: float) -> Box:
    """The box, each side moved outward by `share` of its width or height (negative: inward), clipped to the image."""
    x1, y1, x2, y2 = box_xyxy
    (height, width), more_x, more_y = size_hw, share * (x2 - x1), share * (y2 - y1)
    return max(x1 - more_x, 0.0), max(y1 - more_y, 0.0), min(x2 + more_x, width), min(y2 + more_y, height)


class View(NamedTuple):
    """One prompt: the window that is encoded, the box in it, and the pixels of the image whose logits count."""

    window: Window
    box_xyxy: Box
    part: Window


def views_of(box_xyxy: Box, size_hw: tuple[int, int], params: RasterizeParams, frame: InputFrame) -> list[View]:
    """The prompts for a box: the box in its window and, where that is scaled below `min_scale`, its pieces."""
    window = window_of(box_xyxy, size_hw, params)
    whole = View(window, box_xyxy, window)
    if params.min_scale is None or frame.side_px >= params.min_scale * max(window.size_hw):
        return [whole]
    x1, y1, x2, y2 = box_xyxy
    scale, spans = params.min_scale, []
    while not spans or len(spans[0]) * len(spans[1]) > MAX_PIECES:
        side = max(int(frame.side_px / scale), 3)
        spans = [_pieces(start, end, (side - 2) / PIECE_CONTEXT) for start, end in ((y1, y2), (x1, x2))]
        scale /= 1.1
    pieces = [(left, top, right, bottom) for top, bottom in spans[0] for left, right in spans[1]]
    return [whole] + [
        View(crop_window(piece, size_hw, PIECE_CONTEXT, side), piece, pixels_of_box(piece, size_hw, REACH))
        for piece in pieces
    ]


def _pieces(start: float, end: float, longest: float) -> list[tuple[float, float]]:
    """Equal spans of at most `longest` that cover start..end and overlap by at least OVERLAP of their length."""
    length = min(longest, end - start)
    count = 1 + max(0, math.ceil((end - start - length) / ((1 - OVERLAP) * length) - 1e-9)) if length else 1
    step = (end - start - length) / max(count - 1, 1)
    return [(start + step * number, start + step * number + length) for number in range(count)]


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
    """First and end pixel of `side` pixels around `centre`, shifted into 0..length or cut to it."""
    if side >= length:
        return 0, length
    start = min(max(math.floor(centre - (side - 1) / 2), 0), length - side)
    return start, start + side


def input_size_hw(window: Window, frame: InputFrame) -> tuple[int, int]:
    """Size of the resized window inside the input, in pixels, without the padding."""
    if frame.resize == "stretch":
        return frame.side_px, frame.side_px
    scale = frame.side_px / max(window.size_hw)
    height, width = (max(1, int(side * scale + 0.5)) for side in window.size_hw)  # a long strip would have no row left
    return height, width


def to_input(boxes_xyxy: np.ndarray, window: Window, frame: InputFrame) -> np.ndarray:
    """(N, 4) boxes in native pixels -> pixels of the network's input, float64."""
    origin = np.array([window.x1, window.y1, window.x1, window.y1], dtype=np.float64)
    # each axis has its own factor: the resized size is rounded to whole pixels
    (height, width), (new_height, new_width) = window.size_hw, input_size_hw(window, frame)
    return (np.asarray(boxes_xyxy, dtype=np.float64) - origin) * np.array([new_width / width, new_height / height] * 2)
