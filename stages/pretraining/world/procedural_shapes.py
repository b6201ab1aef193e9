"""Shapes of defects, one function per kind: coverage float32 (H, W) in [0, 1].

Each takes the size of the canvas and the long side of the shape in px, and centres the shape on the canvas.
"""

import numpy as np
from PIL import ImageDraw
from scipy.ndimage import gaussian_filter

from stages.pretraining.world.primitives import SCALE, Rng, Size, drawn, fractal, rotated


def blob(rng: Rng, size_hw: Size, long_px: float) -> np.ndarray:
    """A compact, wavy ellipse."""
    return _sharp(_radial(rng, size_hw, long_px, rng.uniform(0.35, 1), rng.uniform(0, 0.25)))


def speck(rng: Rng, size_hw: Size, long_px: float) -> np.ndarray:
    """A small, nearly round spot."""
    return _sharp(_radial(rng, size_hw, long_px, rng.uniform(0.7, 1), rng.uniform(0, 0.1)))


def stain(rng: Rng, size_hw: Size, long_px: float) -> np.ndarray:
    """A soft-edged patch, broken up by noise."""
    inside = _radial(rng, size_hw, long_px, rng.uniform(0.4, 1), rng.uniform(0, 0.2))
    field = inside / (0.25 * long_px) + rng.uniform(0, 0.5) * fractal(rng, size_hw, long_px / 3)
    return np.clip(field * rng.uniform(0.6, 3) + 0.5, 0, 1).astype(np.float32) * (inside > -0.12 * long_px)


def crack(rng: Rng, size_hw: Size, long_px: float) -> np.ndarray:
    """A thin wandering line of uneven width, sometimes branching or interrupted."""
    width = min(rng.uniform(1.2, 4.5), max(1.2, long_px / 6))
    wander = rng.choice([0.05, 0.15, 0.35])
    lines = [_walk(rng, long_px, wander)]
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        root = lines[0][rng.integers(1, len(lines[0]) - 1)]
        lines.append(root + _walk(rng, long_px * rng.uniform(0.15, 0.5), wander, from_start=True))
    coverage = _strokes(rng, size_hw, lines, width)
    if rng.random() < 0.2:
        coverage = coverage * (fractal(rng, size_hw, long_px / 6) > -1.0)
    return coverage


def streak(rng: Rng, size_hw: Size, long_px: float) -> np.ndarray:
    """A straight or slightly bent band, thinner towards its ends."""
    width = rng.uniform(0.06, 0.3) * long_px
    return _strokes(rng, size_hw, [_walk(rng, long_px, 0.03)], max(1.5, width), taper=True)


def chip(rng: Rng, size_hw: Size, long_px: float) -> np.ndarray:
    """An angular, ragged piece as it breaks off an edge."""
    corners = rng.integers(3, 8)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = long_px / 2 * rng.uniform(0.5, 1, corners)
    points = _turn(np.stack([np.cos(angles) * radii, np.sin(angles) * radii * rng.uniform(0.25, 1)], 1), rng)
    corners_xy = [tuple(point) for point in (points + _centre(size_hw)) * SCALE]
    solid = drawn(size_hw, lambda pen: pen.polygon(corners_xy, fill=255))
    depth = gaussian_filter(solid, max(0.6, long_px / 15)) - 0.5
    ragged = (depth + rng.uniform(0, 0.2) * fractal(rng, size_hw, long_px / 4)) * 8
    return _sharp(ragged) * (depth > -0.4)


def pieces(rng: Rng, size_hw: Size, long_px: float) -> np.ndarray:
    """Several separate blobs that humans box as one defect."""
    total = np.zeros(size_hw, np.float32)
    spread = _turn(rng.uniform(-0.42, 0.42, (rng.integers(2, 9), 2)) * [1, rng.uniform(0.1, 1)], rng) * long_px
    for offset_xy in spread:
        size = long_px * rng.uniform(0.08, 0.35)
        part = _radial(rng, size_hw, max(2.0, size), rng.uniform(0.4, 1), 0.2, offset_xy)
        total = np.maximum(total, _sharp(part))
    return total


def fray(rng: Rng, size_hw: Size, long_px: float) -> np.ndarray:
    """Fibrous damage: streaky noise above a level, inside a soft outline."""
    inside = _radial(rng, size_hw, long_px, rng.uniform(0.25, 0.9), 0.15) / (0.2 * long_px)
    cell, stretch = max(2.5, long_px / rng.uniform(6, 16)), rng.uniform(1, 5)
    fibres = rotated(rng, size_hw, lambda d, size: fractal(d, size, cell, stretch), rng.uniform(0, 180))
    return _sharp((fibres + np.clip(inside, -4, 1) * 1.5 + rng.uniform(-0.6, 0.8)) * 3) * (inside > -0.3)


KINDS = {
    "blob": blob,
    "speck": speck,
    "stain": stain,
    "crack": crack,
    "streak": streak,
    "chip": chip,
    "pieces": pieces,
    "fray": fray,
}


def _radial(rng: Rng, size_hw: Size, long_px: float, aspect: float, waviness: float, offset_xy=(0.0, 0.0)):
    """Approximate signed distance in px from a wavy ellipse, float32 (H, W), positive inside.

    `long_px`: its long axis; `aspect`: its short axis as a share of that; `offset_xy`: from the canvas's centre, px.
    """
    x0, y0 = _centre(size_hw) + offset_xy
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32) + 0.5
    angle = rng.uniform(0, np.pi)
    u = (columns - x0) * np.cos(angle) + (rows - y0) * np.sin(angle)
    v = ((rows - y0) * np.cos(angle) - (columns - x0) * np.sin(angle)) / aspect
    around, radius = np.arctan2(v, u), np.hypot(u, v)
    outline = np.ones_like(radius)
    for order in range(2, 8):
        outline += waviness * rng.standard_normal() / order * np.cos(order * around + rng.uniform(0, 2 * np.pi))
    return (long_px / 2 * outline - radius) * aspect


def _walk(rng: Rng, long_px: float, wander: float, from_start: bool = False) -> np.ndarray:
    """Points (P, 2) xy of a crooked line about `long_px` long, centred on the origin or starting there."""
    steps = max(4, min(40, round(long_px / 3)))
    headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.standard_normal(steps) * wander)
    points = np.cumsum(np.stack([np.cos(headings), np.sin(headings)], 1), 0) * long_px / steps
    return points - (0 if from_start else (points.min(0) + points.max(0)) / 2)


def _strokes(rng: Rng, size_hw: Size, lines: list[np.ndarray], width: float, taper: bool = False) -> np.ndarray:
    """Coverage of `lines`, each points (P, 2) xy relative to the canvas's centre. Their width varies around `width` px,
    and falls toward the ends if `taper`."""

    def paint(pen: ImageDraw.ImageDraw) -> None:
        for line in lines:
            points = (line + _centre(size_hw)) * SCALE
            progress = np.linspace(-1, 1, len(points) - 1)
            widths = width * rng.uniform(0.7, 1.3, len(progress)) * (1 - 0.8 * progress**2 if taper else 1)
            for start, end, stroke in zip(points, points[1:], np.maximum(widths, 1.2) * SCALE, strict=False):
                pen.line([tuple(start), tuple(end)], fill=255, width=max(1, round(stroke)))
                radius = stroke / 2 - 0.5
                pen.ellipse([end[0] - radius, end[1] - radius, end[0] + radius, end[1] + radius], fill=255)

    return drawn(size_hw, paint)


def _turn(points: np.ndarray, rng: Rng) -> np.ndarray:
    """Points (P, 2) turned by a random angle about the origin."""
    angle = rng.uniform(0, 2 * np.pi)
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _centre(size_hw: Size) -> np.ndarray:
    """Centre xy of the canvas, px."""
    return np.array([size_hw[1] / 2, size_hw[0] / 2])


def _sharp(field_px: np.ndarray) -> np.ndarray:
    """Coverage of the inside of a signed distance field in px, with a transition of one pixel."""
    return np.clip(field_px + 0.5, 0, 1).astype(np.float32)
