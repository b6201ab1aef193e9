"""Bare surfaces, float32 (H, W, 3) in about [0, 1], and the light on them."""

import numpy as np

from stages.pretraining.world.primitives import Rng, Size, fractal, rotated, smooth


def material(rng: Rng, size_hw: Size, contrasts: tuple[float, ...] = (0.01, 0.03, 0.06, 0.1)) -> np.ndarray:
    """A bare surface of random kind, colour, grain and light.

    The standard deviation of its grain, relative to the colour, is 0.5 to 1.5 times one of `contrasts`.
    """
    kinds = (_brushed, _brushed, _grain, _mottled, _painted, _fibrous, _tiled, _pavement)
    texture = kinds[rng.integers(len(kinds))](rng, size_hw)
    colour = _colour(rng)
    contrast = np.float32(rng.choice(contrasts) * rng.uniform(0.5, 1.5))
    surface = colour * (1 + contrast * texture[..., None])
    if rng.random() < 0.3:
        surface = surface + 0.02 * smooth(rng, size_hw, (40, 40))[..., None] * rng.standard_normal(3)
    return (surface * light(rng, size_hw)[..., None]).astype(np.float32)


def light(rng: Rng, size_hw: Size) -> np.ndarray:
    """(H, W) factor around 1: a gradient, perhaps a bright bar or a dark corner."""
    rows, columns = np.mgrid[-0.5 : 0.5 : size_hw[0] * 1j, -0.5 : 0.5 : size_hw[1] * 1j].astype(np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.choice([0.0, 0.15, 0.5]) * rng.random()
    factor = 1 + strength * (rows * np.sin(angle) + columns * np.cos(angle))
    if rng.random() < 0.2:
        factor += rng.uniform(-0.3, 0.6) * np.exp(
            -(((columns if rng.random() < 0.5 else rows) - rng.uniform(-0.5, 0.5)) ** 2) / 0.02
        )
    if rng.random() < 0.3:
        factor += 0.15 * smooth(rng, size_hw, (size_hw[0] / 2, size_hw[1] / 2))
    return factor


def _colour(rng: Rng) -> np.ndarray:
    value = rng.uniform(0.12, 0.92)
    tint = rng.standard_normal(3) * rng.choice([0.0, 0.0, 0.03, 0.12])
    return np.clip(value + tint, 0.05, 0.97).astype(np.float32)


def _brushed(rng: Rng, size_hw: Size) -> np.ndarray:
    stretch, cell = rng.uniform(6, 40), rng.choice([2, 3, 6, 12])
    angle = rng.choice([0, 90]) + rng.normal(0, 2) if rng.random() < 0.6 else rng.uniform(0, 180)
    return rotated(rng, size_hw, lambda d, size: fractal(d, size, cell, stretch, fade=0.8), angle)


def _fibrous(rng: Rng, size_hw: Size) -> np.ndarray:
    one = rotated(rng, size_hw, lambda d, size: fractal(d, size, 4, 8), rng.uniform(0, 180))
    return 0.7 * one + 0.7 * rotated(rng, size_hw, lambda d, size: fractal(d, size, 3, 12), rng.uniform(0, 180))


def _grain(rng: Rng, size_hw: Size) -> np.ndarray:
    return rng.standard_normal(size_hw, dtype=np.float32) * 0.7 + 0.5 * fractal(rng, size_hw, 8)


def _pavement(rng: Rng, size_hw: Size) -> np.ndarray:
    """Stones of a few pixels in a darker binder, on large patches of wear: asphalt, concrete, plaster."""
    stones = smooth(rng, size_hw, (rng.uniform(1.5, 5),) * 2)
    rough = np.clip(stones - rng.uniform(-0.5, 0.5), -0.7, 2) + 0.4 * rng.standard_normal(size_hw, dtype=np.float32)
    return rng.uniform(1, 2.5) * (rough - rough.mean()) + 0.3 * fractal(rng, size_hw, 60)


def _mottled(rng: Rng, size_hw: Size) -> np.ndarray:
    return fractal(rng, size_hw, rng.uniform(6, 60), fade=rng.uniform(0.4, 0.9))


def _painted(rng: Rng, size_hw: Size) -> np.ndarray:
    return 0.5 * fractal(rng, size_hw, 100, fade=0.4) + 0.1 * rng.standard_normal(size_hw, dtype=np.float32)


def _tiled(rng: Rng, size_hw: Size) -> np.ndarray:
    pitch, joint = rng.uniform(14, 70, 2), rng.uniform(1, 2.5)
    rows, columns = (np.arange(side) + rng.uniform(0, 70) for side in size_hw)
    joints = (rows % pitch[0] < joint)[:, None] | (columns % pitch[1] < joint)[None, :]
    return _mottled(rng, size_hw) - 3.0 * rng.choice([-1, 1]) * joints.astype(np.float32)
