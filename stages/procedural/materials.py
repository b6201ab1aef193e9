"""Surfaces: (H, W, 3) float32 in about [0, 1], and the things on them that are no defect."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.procedural.noise import Draw, fractal, rotated, smooth

Size = tuple[int, int]


def material(draw: Draw, size_hw: Size) -> np.ndarray:
    """A bare surface of random kind, colour, grain and light."""
    kinds = (_brushed, _brushed, _grain, _mottled, _painted, _fibrous, _tiled)
    texture = kinds[draw.integers(len(kinds))](draw, size_hw)
    colour = _colour(draw)
    contrast = np.float32(draw.choice([0.01, 0.03, 0.06, 0.1]) * draw.uniform(0.5, 1.5))
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


def clutter(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """`surface` with a few things that a careless eye takes for defects: lines, seams, shadows, letters, rivets."""
    for _ in range(draw.choice([0, 0, 1, 1, 2, 3])):
        surface = (_line, _line, _edge, _shadow, _letters, _rivets)[draw.integers(6)](draw, surface)
    return surface


def blend(surface: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """`colour` ((3,) or (H, W, 3)) laid over `surface` with (H, W) opacity `alpha`."""
    return surface + alpha[..., None] * (colour - surface)


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


def _mottled(draw: Draw, size_hw: Size) -> np.ndarray:
    return fractal(draw, size_hw, draw.uniform(6, 60), fade=draw.uniform(0.4, 0.9))


def _painted(draw: Draw, size_hw: Size) -> np.ndarray:
    return 0.5 * fractal(draw, size_hw, 100, fade=0.4) + 0.1 * draw.standard_normal(size_hw, dtype=np.float32)


def _tiled(draw: Draw, size_hw: Size) -> np.ndarray:
    pitch, joint = draw.uniform(14, 70, 2), draw.uniform(1, 2.5)
    rows, columns = (np.arange(side) + draw.uniform(0, 70) for side in size_hw)
    joints = (rows % pitch[0] < joint)[:, None] | (columns % pitch[1] < joint)[None, :]
    return _mottled(draw, size_hw) - 3.0 * draw.choice([-1, 1]) * joints.astype(np.float32)


def _tone(draw: Draw, surface: np.ndarray, least: float = 0.05) -> np.ndarray:
    step = draw.choice([-1, -1, 1]) * draw.uniform(least, 0.5)
    return np.clip(surface.mean((0, 1)) + step, 0, 1).astype(np.float32)


def _drawn(size_hw: Size, paint) -> np.ndarray:
    """(H, W) coverage in [0, 1] of what `paint(ImageDraw, scale)` draws, antialiased."""
    scale = 3
    canvas = Image.new("L", (size_hw[1] * scale, size_hw[0] * scale))
    paint(ImageDraw.Draw(canvas), scale)
    return np.asarray(canvas.reduce(scale), dtype=np.float32) / 255


def _line(draw: Draw, surface: np.ndarray) -> np.ndarray:
    size = np.array(surface.shape[1::-1])
    ends, width = draw.uniform(-0.2, 1.2, (2, 2)) * size, draw.uniform(0.7, 4)
    if draw.random() < 0.5:
        ends[:, draw.integers(2)] = ends[0, 0] if draw.random() < 0.5 else ends[0, 1]
    alpha = _drawn(
        surface.shape[:2], lambda pen, s: pen.line([tuple(p * s) for p in ends], 255, max(1, round(width * s)))
    )
    return blend(surface, alpha * draw.uniform(0.2, 1), _tone(draw, surface))


def _edge(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """Beyond a straight edge begins another material or empty space."""
    side = _half_plane(draw, surface.shape[:2])
    other = np.zeros_like(surface) + 0.03 if draw.random() < 0.4 else material(draw, surface.shape[:2])
    return blend(surface, side, other)


def _half_plane(draw: Draw, size_hw: Size) -> np.ndarray:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32)
    angle = draw.choice([0, 90, 180, 270]) + draw.normal(0, 3) if draw.random() < 0.7 else draw.uniform(0, 360)
    across = rows * np.sin(np.radians(angle)) + columns * np.cos(np.radians(angle))
    low, high = across.min(), across.max()
    return np.clip(across - (low + draw.uniform(0.6, 1.0) * (high - low)), 0, 1)


def _shadow(draw: Draw, surface: np.ndarray) -> np.ndarray:
    across = _half_plane(draw, surface.shape[:2])
    soft = np.asarray(Image.fromarray(across).resize((9, 9)).resize(surface.shape[1::-1], Image.Resampling.BICUBIC))
    return surface * (1 - draw.uniform(0.1, 0.5) * np.clip(soft, 0, 1)[..., None])


def _letters(draw: Draw, surface: np.ndarray) -> np.ndarray:
    text = "".join(draw.choice(list("ABCDEFGHKLMNOPRSTX0123456789"), draw.integers(1, 5)))
    height = draw.uniform(0.15, 0.6) * min(surface.shape[:2]) + 6
    at = tuple(draw.uniform(-0.1, 0.8, 2) * surface.shape[1::-1])

    def paint(pen, scale):
        font = ImageFont.load_default(height * scale)
        pen.text((at[0] * scale, at[1] * scale), text, fill=255, font=font)

    return blend(surface, _drawn(surface.shape[:2], paint) * draw.uniform(0.3, 1), _tone(draw, surface, 0.15))


def _rivets(draw: Draw, surface: np.ndarray) -> np.ndarray:
    radius, pitch, start = draw.uniform(1, 4), draw.uniform(10, 30), draw.uniform(0, 1, 2) * surface.shape[1::-1]
    along = np.array([pitch, draw.normal(0, 2)])[:: draw.choice([-1, 1])]
    centers = [start + step * along for step in range(-8, 9)]

    def paint(pen, scale):
        for x, y in centers:
            pen.ellipse([(x - radius) * scale, (y - radius) * scale, (x + radius) * scale, (y + radius) * scale], 255)

    return blend(surface, _drawn(surface.shape[:2], paint) * draw.uniform(0.3, 1), _tone(draw, surface))
