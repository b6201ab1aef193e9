"""Random fields, the raw material of textures and of ragged outlines."""

import numpy as np
from PIL import Image

Draw = np.random.Generator


def smooth(draw: Draw, size_hw: tuple[int, int], cell_yx: tuple[float, float]) -> np.ndarray:
    """(H, W) float32 field of about unit deviation, that varies over `cell_yx` pixels on each axis."""
    grid = tuple(max(2, round(side / max(cell, 1)) + 1) for side, cell in zip(size_hw, cell_yx, strict=True))
    coarse = draw.standard_normal(grid, dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size_hw[::-1], Image.Resampling.BICUBIC))


def fractal(draw: Draw, size_hw: tuple[int, int], cell_px: float, stretch: float = 1.0, fade: float = 0.55):
    """(H, W) float32 sum of octaves from `cell_px` down to 2 pixels; `stretch` > 1 draws it out along the rows."""
    total, weight = np.zeros(size_hw, np.float32), 1.0
    while cell_px >= 2 and weight > 0.05:
        total += weight * smooth(draw, size_hw, (cell_px, cell_px * stretch))
        cell_px, weight = cell_px / 2, weight * fade
    deviation = total.std()
    return total / deviation if deviation > 0 else total


def rotated(draw: Draw, size_hw: tuple[int, int], field, angle: float) -> np.ndarray:
    """A field made by `field(draw, size_hw)` on a larger canvas, turned by `angle` degrees and cut to `size_hw`."""
    side = int(np.ceil(np.hypot(*size_hw))) + 2
    image = Image.fromarray(field(draw, (side, side))).rotate(angle, Image.Resampling.BILINEAR)
    top, left = (side - size_hw[0]) // 2, (side - size_hw[1]) // 2
    return np.asarray(image)[top : top + size_hw[0], left : left + size_hw[1]]
