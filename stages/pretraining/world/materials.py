"""Bare surfaces, float32 (H, W, 3) in about [0, 1], and the light on them."""

import numpy as np

from stages.pretraining.world.primitives import Draw, Size, fractal, rotated, smooth


def material(draw: Draw, size_hw: Size, contrasts: tuple[float, ...] = (0.01, 0.03, 0.06, 0.1)) -> np.ndarray:
    """A bare surface of random kind, colour, grain and light.

    The standard deviation of its grain, relative to the colour, is 0.5 to 1.5 times one of `contrasts`.
    """
    kinds = (_brushed, _brushed, _grain, _mottled, _painted, _fibrous, _tiled, _pavement)
    texture = kinds[draw.integers(len(kinds))](draw, size_hw)
    colour = _colour(draw)
    contrast = np.float32(draw.choice(contrasts) * draw.uniform(0.5, 1.5))
    surface = colour * (1 + contrast * texture[..., None])
    if draw.random() < 0.3:
        surface = surface + 0.02 * smooth(draw, size_hw, (40, 40))[..., None] * draw.standard_normal(3)
    return (surface * light(draw, size_hw)[..., None]).astype(np.float32)


def light(draw: Draw, size_hw: Size) -> np.ndarray:
    """(H, W) factor around 1: a gradient, perhaps a bright bar or a dark corner."""
    rows, columns = np.mgrid[-0.5 : 0.5 : size_hw[0] * 1j, -0.5 : 0.5 : size_hw[1] * 1j].astype(np.float32)
    angle, strength = draw.uniform(0, 2 * np.pi), draw.choice([0.0, 0.15, 0.5]) * draw.random()
    factor = 1 + strength * (rows * np.sin(angle) + columns * np.cos(angle))
    if draw.random() < 0.2:
        factor += draw.uniform(-0.3, 0.6) * np.exp(
            -(((columns if draw.random() < 0.5 else rows) - draw.uniform(-0.5, 0.5)) ** 2) / 0.02
        )
    if draw.random() < 0.3:
        factor += 0.15 * smooth(draw, size_hw, (size_hw[0] / 2, size_hw[1] / 2))
    return factor


def _colour(draw: Draw) -> np.ndarray:
    value = draw.uniform(0.12, 0.92)
    tint = draw.standard_normal(3) * draw.choice([0.0, 0.0, 0.03, 0.12])
    return np.clip(value + tint, 0.05, 0.97).astype(np.float32)


def _brushed(draw: Draw, size_hw: Size) -> np.ndarray:
    stretch, cell = draw.uniform(6, 40), draw.choice([2, 3, 6, 12])
    angle = draw.choice([0, 90]) + draw.normal(0, 2) if draw.random() < 0.6 else draw.uniform(0, 180)
    return rotated(draw, size_hw, lambda d, size: fractal(d, size, cell, stretch, fade=0.8), angle)


def _fibrous(draw: Draw, size_hw: Size) -> np.ndarray:
    one = rotated(draw, size_hw, lambda d, size: fractal(d, size, 4, 8), draw.uniform(0, 180))
    return 0.7 * one + 0.7 * rotated(draw, size_hw, lambda d, size: fractal(d, size, 3, 12), draw.uniform(0, 180))


def _grain(draw: Draw, size_hw: Size) -> np.ndarray:
    return draw.standard_normal(size_hw, dtype=np.float32) * 0.7 + 0.5 * fractal(draw, size_hw, 8)


def _pavement(draw: Draw, size_hw: Size) -> np.ndarray:
    """Stones of a few pixels in a darker binder, on large patches of wear: asphalt, concrete, plaster."""
    stones = smooth(draw, size_hw, (draw.uniform(1.5, 5),) * 2)
    rough = np.clip(stones - draw.uniform(-0.5, 0.5), -0.7, 2) + 0.4 * draw.standard_normal(size_hw, dtype=np.float32)
    return draw.uniform(1, 2.5) * (rough - rough.mean()) + 0.3 * fractal(draw, size_hw, 60)


def _mottled(draw: Draw, size_hw: Size) -> np.ndarray:
    return fractal(draw, size_hw, draw.uniform(6, 60), fade=draw.uniform(0.4, 0.9))


def _painted(draw: Draw, size_hw: Size) -> np.ndarray:
    return 0.5 * fractal(draw, size_hw, 100, fade=0.4) + 0.1 * draw.standard_normal(size_hw, dtype=np.float32)


def _tiled(draw: Draw, size_hw: Size) -> np.ndarray:
    pitch, joint = draw.uniform(14, 70, 2), draw.uniform(1, 2.5)
    rows, columns = (np.arange(side) + draw.uniform(0, 70) for side in size_hw)
    joints = (rows % pitch[0] < joint)[:, None] | (columns % pitch[1] < joint)[None, :]
    return _mottled(draw, size_hw) - 3.0 * draw.choice([-1, 1]) * joints.astype(np.float32)
