"""A scene of the procedural world: a surface, its clutter, defects with exact masks, and the camera.

It shares no code with the renderer of the demo, so that the embedded teacher cannot have seen a demo image.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from stages.pretraining.world.clutter import clutter
from stages.pretraining.world.materials import material
from stages.pretraining.world.primitives import Rng, Size, blend, fractal
from stages.pretraining.world.procedural_shapes import KINDS

FREQUENCIES = {"blob": 1, "speck": 1, "stain": 1, "crack": 2, "streak": 1.5, "chip": 1.5, "pieces": 1.5, "fray": 1.5}
"""Relative frequency of each kind of shape: thin and ragged ones are harder to learn."""

MIN_PIXELS = 6
"""A defect with fewer visible pixels is left out."""


class Defect(NamedTuple):
    """A kind of shape and the `mask` bool (H, W) of its visible pixels."""

    kind: str
    mask: np.ndarray


class Scene(NamedTuple):
    """`image` uint8 (H, W, 3), and its defects, the last one on top; no pixel is in two of their masks."""

    image: np.ndarray
    defects: list[Defect]


def scene(
    rng: Rng,
    size_hw: Size,
    wanted: list[tuple[float, tuple[float, float]]],
    kind: str | None = None,
) -> Scene:
    """An image with a defect for each of `wanted`, (long side, centre xy) in px, except those with too few pixels.

    `kind`: of all defects; None: chosen at random for each.
    """
    surface = clutter(rng, material(rng, size_hw))
    frequencies = np.array(list(FREQUENCIES.values())) / sum(FREQUENCIES.values())
    defects: list[Defect] = []
    for long_px, centre_xy in wanted:
        shape = kind or str(rng.choice(list(FREQUENCIES), p=frequencies))
        coverage = _moved(KINDS[shape](rng, size_hw, long_px), centre_xy)
        mask = coverage >= 0.5
        if mask.sum() < MIN_PIXELS:
            continue
        surface = _blended(rng, surface, coverage, shape)
        defects = [Defect(each.kind, each.mask & ~mask) for each in defects] + [Defect(shape, mask)]
    image = camera(rng, surface)
    return Scene(image, [each for each in defects if each.mask.sum() >= MIN_PIXELS])


def camera(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """`surface` (H, W, 3) after lens blur, exposure and sensor noise, uint8; grey in half of the cases."""
    if rng.random() < 0.5:
        surface = np.broadcast_to(surface.mean(-1, keepdims=True), surface.shape)
    sigma = rng.choice([0.0, 0.0, 0.5, 0.8, 1.2]) * rng.uniform(0.7, 1.2)
    surface = gaussian_filter(surface, (sigma, sigma, 0)) if sigma else surface
    noise = rng.choice([0.003, 0.01, 0.03]) * rng.random()
    surface = surface * rng.uniform(0.6, 1.25) + noise * rng.standard_normal(surface.shape, dtype=np.float32)
    return np.uint8(np.clip(surface, 0, 1) * 255 + 0.5)


def _moved(coverage: np.ndarray, centre_xy: tuple[float, float]) -> np.ndarray:
    """`coverage` (H, W) moved from the centre of the canvas to `centre_xy`, px."""
    height, width = coverage.shape
    offset_yx = (round(centre_xy[1] - height / 2), round(centre_xy[0] - width / 2))
    return shift(coverage, offset_yx, order=0)


def _blended(rng: Rng, surface: np.ndarray, coverage: np.ndarray, kind: str) -> np.ndarray:
    """`surface` with a defect on it that differs in tone, with texture inside and sometimes a rim."""
    inside = coverage >= 0.5
    under = surface[inside].mean(0)
    grain = float(surface[inside].std(0).mean())
    step = min(0.75, max(1.2 * grain, float(np.exp(rng.uniform(np.log(0.05), np.log(0.6))))))
    darker = rng.random() < (0.9 if under.mean() > 0.6 else 0.65)
    colour = under + (-step if darker else step) * (1 + 0.25 * rng.standard_normal(3) * (rng.random() < 0.4))
    texture = rng.choice([0.0, 0.15, 0.5]) * step * fractal(rng, coverage.shape, rng.uniform(2, 14))
    look = np.clip(colour, 0.0, 1.0) + texture[..., None]
    if rng.random() < 0.35:
        look = look + (surface - under) * rng.uniform(0.3, 1)  # the material's grain is visible
    softness = rng.choice([0.0, 0.4, 0.8]) if kind != "stain" else rng.choice([0.5, 1.0, 2.0])
    alpha = gaussian_filter(coverage, softness) if softness else coverage
    result = blend(surface, alpha, look)
    if rng.random() < 0.2:
        rim = np.clip(gaussian_filter(coverage, 1.2) - coverage, 0, 1)
        opacity = np.clip(rim * 2, 0, 1) * rng.uniform(0.2, 0.8)
        result = blend(result, opacity, np.clip(under + step * rng.choice([-0.6, 0.6]), 0, 1))
    return result.astype(np.float32)
