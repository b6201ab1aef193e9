"""The procedural world: a surface, its clutter, defects on it, and the camera. Exact masks come for free.

It shares nothing with the renderer of the demo: what is learnt here has never seen a demo image.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from stages.pretraining.world.clutter import clutter
from stages.pretraining.world.materials import blend, material
from stages.pretraining.world.noise import Draw, fractal
from stages.pretraining.world.shapes import KINDS

OFTEN = {"blob": 1, "speck": 1, "stain": 1, "crack": 2, "streak": 1.5, "chip": 1.5, "pieces": 1.5, "fray": 1.5}
"""How often each kind of shape is drawn: thin and ragged ones are harder to learn."""

LEAST_PX = 6
"""A defect of fewer visible pixels is not one."""


class Defect(NamedTuple):
    """`mask` (H, W) bool and the kind of shape it came from."""

    kind: str
    mask: np.ndarray


class Scene(NamedTuple):
    """`image` (H, W, 3) uint8, the defects in it, the last one on top, and where `clutter` (H, W) bool shows."""

    image: np.ndarray
    defects: list[Defect]
    clutter: np.ndarray


def scene(
    draw: Draw, size_hw: tuple[int, int], wanted: list[tuple[float, tuple[float, float]]], lettered: float = 0.0
) -> Scene:
    """An image with a defect of each wanted (long side, centre xy; px). Those that fail to show are left out.

    `lettered`: see `clutter`.
    """
    surface, cluttered = clutter(draw, material(draw, size_hw), lettered)
    often = np.array(list(OFTEN.values())) / sum(OFTEN.values())
    defects: list[Defect] = []
    for long_px, centre_xy in wanted:
        kind = str(draw.choice(list(OFTEN), p=often))
        coverage = _placed(KINDS[kind](draw, size_hw, long_px), centre_xy)
        mask = coverage >= 0.5
        if mask.sum() < LEAST_PX:
            continue
        surface = _applied(draw, surface, coverage, kind)
        defects = [Defect(each.kind, each.mask & ~mask) for each in defects] + [Defect(kind, mask)]
        cluttered &= ~mask
    image = camera(draw, surface)
    return Scene(image, [each for each in defects if each.mask.sum() >= LEAST_PX], cluttered)


def camera(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """Exposure, lens blur, sensor noise; grey in half of the images. Returns uint8."""
    if draw.random() < 0.5:
        surface = np.broadcast_to(surface.mean(-1, keepdims=True), surface.shape)
    sigma = draw.choice([0.0, 0.0, 0.5, 0.8, 1.2]) * draw.uniform(0.7, 1.2)
    surface = gaussian_filter(surface, (sigma, sigma, 0)) if sigma else surface
    noise = draw.choice([0.003, 0.01, 0.03]) * draw.random()
    surface = surface * draw.uniform(0.6, 1.25) + noise * draw.standard_normal(surface.shape, dtype=np.float32)
    return np.uint8(np.clip(surface, 0, 1) * 255 + 0.5)


def _placed(coverage: np.ndarray, centre_xy: tuple[float, float]) -> np.ndarray:
    height, width = coverage.shape
    offset_yx = (round(centre_xy[1] - height / 2), round(centre_xy[0] - width / 2))
    return shift(coverage, offset_yx, order=0)


def _applied(draw: Draw, surface: np.ndarray, coverage: np.ndarray, kind: str) -> np.ndarray:
    """The defect's own look: a step in tone against what lies under it, with texture inside and perhaps a rim."""
    inside = coverage >= 0.5
    under = surface[inside].mean(0)
    grain = float(surface[inside].std(0).mean())
    step = min(0.75, max(1.2 * grain, float(np.exp(draw.uniform(np.log(0.05), np.log(0.6))))))
    darker = draw.random() < (0.9 if under.mean() > 0.6 else 0.65)
    colour = under + (-step if darker else step) * (1 + 0.25 * draw.standard_normal(3) * (draw.random() < 0.4))
    texture = draw.choice([0.0, 0.15, 0.5]) * step * fractal(draw, coverage.shape, draw.uniform(2, 14))
    look = np.clip(colour, 0.0, 1.0) + texture[..., None]
    if draw.random() < 0.35:
        look = look + (surface - under) * draw.uniform(0.3, 1)  # the material's own grain shows through
    softness = draw.choice([0.0, 0.4, 0.8]) if kind != "stain" else draw.choice([0.5, 1.0, 2.0])
    alpha = gaussian_filter(coverage, softness) if softness else coverage
    result = blend(surface, alpha, look)
    if draw.random() < 0.2:
        rim = np.clip(gaussian_filter(coverage, 1.2) - coverage, 0, 1)
        result = blend(
            result,
            np.clip(rim * 2, 0, 1) * draw.uniform(0.2, 0.8),
            np.clip(under + step * draw.choice([-0.6, 0.6]), 0, 1),
        )
    return result.astype(np.float32)
