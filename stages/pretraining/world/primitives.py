"""Building blocks of the procedural world: random fields, antialiased drawing, blending of colours."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator
Size = tuple[int, int]

SCALE = 3
"""Supersampling: drawings are made on a canvas this many times finer."""


def smooth(rng: Rng, size_hw: Size, cell_yx: tuple[float, float]) -> np.ndarray:
    """Smooth noise, float32 (H, W), standard deviation about 1; one independent value per `cell_yx` pixels."""
    grid = tuple(max(2, round(side / max(cell, 1)) + 1) for side, cell in zip(size_hw, cell_yx, strict=True))
    coarse = rng.standard_normal(grid, dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size_hw[::-1], Image.Resampling.BICUBIC))


def fractal(rng: Rng, size_hw: Size, cell_px: float, stretch: float = 1.0, fade: float = 0.55) -> np.ndarray:
    """Sum of octaves of `smooth`, float32 (H, W), standard deviation 1; all 0 if no octave fits.

    Cells shrink by half per octave, from `cell_px` to 2 px, and weights by `fade`; cells are `stretch` times wider
    than high.
    """
    total, weight = np.zeros(size_hw, np.float32), 1.0
    while cell_px >= 2 and weight > 0.05:
        total += weight * smooth(rng, size_hw, (cell_px, cell_px * stretch))
        cell_px, weight = cell_px / 2, weight * fade
    deviation = total.std()
    return total / deviation if deviation > 0 else total


def rotated(rng: Rng, size_hw: Size, field: Callable[[Rng, Size], np.ndarray], angle: float) -> np.ndarray:
    """What `field(rng, size_hw)` makes on a larger canvas, turned by `angle` degrees and cut to `size_hw`."""
    side = int(np.ceil(np.hypot(*size_hw))) + 2
    image = Image.fromarray(field(rng, (side, side))).rotate(angle, Image.Resampling.BILINEAR)
    top, left = (side - size_hw[0]) // 2, (side - size_hw[1]) // 2
    return np.asarray(image)[top : top + size_hw[0], left : left + size_hw[1]]


def drawn(size_hw: Size, paint: Callable[[ImageDraw.ImageDraw], object], turn: float = 0.0) -> np.ndarray:
    """Coverage, float32 (H, W) in [0, 1], of what `paint(pen)` draws, turned by `turn` degrees about the centre. The
    pen's coordinates are px times SCALE."""
    canvas = Image.new("L", (size_hw[1] * SCALE, size_hw[0] * SCALE))
    paint(ImageDraw.Draw(canvas))
    canvas = canvas.rotate(turn) if turn else canvas
    return np.asarray(canvas.reduce(SCALE), dtype=np.float32) / 255


def blend(surface: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """`surface` (H, W, 3) with `colour`, (3,) or (H, W, 3), over it at opacity `alpha` (H, W) in [0, 1]."""
    return surface + alpha[..., None] * (colour - surface)
