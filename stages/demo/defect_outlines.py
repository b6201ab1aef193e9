"""Outlines of the demo's defects, without colour: the share of each pixel that a defect covers.

Each outline takes a window's coordinates and a size, the defect's length in px, and returns coverage in [0, 1], float32
(h, w). Truth is coverage >= 0.5, so outlines are exact there: a crack 1 px wide is a line of pixels without gaps.
"""

from dataclasses import dataclass

import numpy as np

from stages.demo.textures import fractal, smoothstep


@dataclass(frozen=True)
class Window:
    """Coordinates around a defect, px, float32 (h, w), 0 at its centre: `along` its axis and `off` the axis.

    `depth`: distance from the blade's leading edge, large on the other half of the blade.
    """

    along: np.ndarray
    off: np.ndarray
    depth: np.ndarray


def stain(rng: np.random.Generator, window: Window, size: float) -> np.ndarray:
    """A patch with a soft, uneven border."""
    long, wide = size / 2, size / 2 * rng.uniform(0.45, 1)
    radius = np.hypot(window.along / long, window.off / wide)
    ragged = 0.24 * fractal(rng, radius.shape, max(size / 3, 2), 4)
    return smoothstep(-0.25, 0.25, 0.85 - radius + ragged)


def streak(rng: np.random.Generator, window: Window, size: float) -> np.ndarray:
    """Runs of dirt side by side: each starts blunt, wanders, thins out and fades."""
    covered = np.zeros_like(window.along)
    ragged = fractal(rng, window.along.shape, max(size / 5, 4), 3)
    spread = size * rng.uniform(0.01, 0.07)
    for number in range(rng.integers(1, 5)):
        length = size * (1 if number == 0 else rng.uniform(0.3, 0.9))
        run = np.clip((window.along + size / 2 - rng.uniform(0, size - length)) / length, 0, 1)
        width = np.maximum(length * rng.uniform(0.02, 0.07), 1.0)
        middle = rng.normal(0, spread) + width * np.sin(run * rng.uniform(0, 5) + rng.uniform(0, 6))
        profile = width * ((1 - run) ** 0.7 * smoothstep(0, 0.1, run) * (1 + 0.35 * ragged))
        core = np.where((run > 0) & (run < 1), profile - np.abs(window.off - middle), -9)
        np.maximum(covered, np.clip(0.5 + core / rng.uniform(1.5, 3), 0, 1), out=covered)
    return covered


def specks(rng: np.random.Generator, window: Window, size: float) -> np.ndarray:
    """Insects, drops, spatter: a loose group of dots."""
    covered = np.zeros_like(window.along)
    for _ in range(rng.integers(2, 4 + int(size / 5))):
        along, off = np.clip(rng.normal(0, 0.24 * size, 2), -size / 2, size / 2)
        radius = rng.uniform(0.8, 1.4 + 0.04 * size)
        squash = rng.uniform(0.7, 1.4)
        distance = np.hypot((window.along - along) * squash, window.off - off)
        np.maximum(covered, np.clip(radius + 0.5 - distance, 0, 1), out=covered)
    return covered


def crack(rng: np.random.Generator, window: Window, size: float) -> np.ndarray:
    """A crooked line 1 to 4 px wide that thins toward its ends, with a branch or two."""
    width = rng.uniform(1, 4) if size > 40 else rng.uniform(1, 2.2)
    trunk = _walk(rng, (-size / 2, 0), 0, size, 0.35)
    lines = [_taper(trunk, width, both=True)]
    for _ in range(rng.poisson(size / 70)):
        start = rng.integers(1, len(trunk) - 1)
        turn = rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
        branch = _walk(rng, trunk[start], turn, size * rng.uniform(0.12, 0.35), 0.4)
        lines.append(_taper(branch, width * 0.7, both=False))
    return strokes(window, lines)


def chip(rng: np.random.Generator, window: Window, size: float) -> np.ndarray:
    """A flake of coating is missing: a hard, ragged outline."""
    long, wide = size / 2, size / 2 * rng.uniform(0.4, 1)
    radius = np.hypot(window.along / long, window.off / wide)
    ragged = 0.22 * fractal(rng, radius.shape, max(size / 2.5, 2), 4)
    return np.clip(0.5 + (0.88 - radius + ragged) * wide, 0, 1)


def erosion(rng: np.random.Generator, window: Window, size: float) -> np.ndarray:
    """Leading edge worn by rain: pits that merge toward the edge, along `size` px of it."""
    reach = rng.uniform(5, 7 + 0.07 * size)
    ends = smoothstep(0, 0.25, 0.5 - np.abs(window.along) / size)
    bite = fractal(rng, window.along.shape, max(reach * 0.7, 4), 4) * 0.5 + 0.8 * ends - window.depth / reach
    return np.clip(0.5 + bite * 0.6 * reach, 0, 1) * (np.abs(window.along) < size / 2)


def lightning(rng: np.random.Generator, window: Window, size: float) -> np.ndarray:
    """A scorched spot with branching thin discharge marks."""
    core = size * rng.uniform(0.10, 0.2)
    stretch = rng.uniform(0.5, 1)
    radius = np.hypot(window.along, window.off / stretch)
    radius = radius + core * 0.4 * fractal(rng, radius.shape, max(core, 2), 4)
    lines = []
    for turn in rng.uniform(0, 2 * np.pi, rng.integers(2, 5)):
        arm = _walk(rng, (0, 0), turn, size * rng.uniform(0.2, 0.55), 0.6)
        lines.append(_taper(arm, rng.uniform(1.3, 2.6), both=False))
        twig = rng.integers(1, len(arm) - 1)
        lines.append(_taper(_walk(rng, arm[twig], turn + rng.normal(0, 0.9), size * 0.15, 0.6), 1.2, both=False))
    return np.maximum(strokes(window, lines), smoothstep(-0.7, 0.7, (core - radius) / core))


def strokes(window: Window, lines: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Coverage (h, w) of polylines, from exact distances to their segments.

    `lines`: per polyline its points (n, 2), along and off, and the widths of its segments (n - 1,), px.
    """
    start = np.concatenate([points[:-1] for points, _ in lines]).astype(np.float32)
    step = np.concatenate([np.diff(points, axis=0) for points, _ in lines]).astype(np.float32)
    width = np.concatenate([width for _, width in lines]).astype(np.float32)
    covered = np.zeros_like(window.along)
    for (x0, y0), (dx, dy), thick in zip(start, step, width, strict=True):
        x, y = window.along - x0, window.off - y0
        share = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
        distance = np.hypot(x - share * dx, y - share * dy)
        np.maximum(covered, np.clip(thick / 2 + 0.5 - distance, 0, 1), out=covered)
    return covered


def _walk(rng: np.random.Generator, start: tuple, heading: float, length: float, wobble: float) -> np.ndarray:
    """Points (n, 2), along and off, of a crooked path of about `length` px; `heading` and `wobble` in radians."""
    count = int(np.clip(length / 5, 3, 22))
    headings = heading + rng.normal(0, wobble, count) + np.cumsum(rng.normal(0, wobble / 4, count))
    steps = length / count * rng.uniform(0.6, 1.4, count)[:, None] * np.stack([np.cos(headings), np.sin(headings)], 1)
    return np.concatenate([[start], start + np.cumsum(steps, 0)])


def _taper(points: np.ndarray, width: float, both: bool) -> tuple[np.ndarray, np.ndarray]:
    """A path and the width of each of its segments, at least 1 px: thinner toward the far end or toward `both`."""
    place = (np.arange(len(points) - 1) + 0.5) / (len(points) - 1)
    thick = np.sin(np.pi * place) ** 0.5 if both else 1 - place
    return points, np.maximum(width * thick, 1.0)
