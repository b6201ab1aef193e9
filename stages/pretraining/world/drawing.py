"""What is drawn with a pen: outlines in native pixels, antialiased."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

SCALE = 3
"""Supersampling: a pen draws on a canvas this many times finer."""


def drawn(size_hw: tuple[int, int], paint: Callable[[ImageDraw.ImageDraw], object], turn: float = 0.0) -> np.ndarray:
    """(H, W) float32 coverage in [0, 1] of what `paint(pen)` draws, turned by `turn` degrees about the middle."""
    canvas = Image.new("L", (size_hw[1] * SCALE, size_hw[0] * SCALE))
    paint(ImageDraw.Draw(canvas))
    canvas = canvas.rotate(turn) if turn else canvas
    return np.asarray(canvas.reduce(SCALE), dtype=np.float32) / 255
