"""From an image of any size to its label map, in numpy; independent of what runs the network.

With view.scale `native` the image is cut into overlapping tiles at its own scale, and their logits are blended; with
`stretch` the whole image is resized to the network's square (as published), and its logits are resized back. Both work
strip by strip: the probabilities of all classes are never held for the whole image.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from stages.common.errors import UserError
from stages.student.config import ViewParams
from stages.student.decision import ARGMAX, Decision, decide, drop_small

RunTiles = Callable[[np.ndarray], np.ndarray]
"""(N, S, S, 3) float32 RGB, 0 to 255, to (N, K+1, S, S) float32 logits, label 0 = background; S = view.size_px."""

Corner = tuple[int, int]
"""Top and left of a tile, in pixels."""

Cut = Callable[[Corner], np.ndarray]
"""From a tile's corner to its (S, S, 3) pixels."""

OVERLAP = 0.25
"""Least share of a tile that its neighbour covers too: predictions near a tile's edge lack context."""

TILES_AT_ONCE = 8
"""Most tiles in one call of the network; bounds memory for an image of any size."""

LOGITS_AT_ONCE = 2**26
"""Most logits (256 MiB) from one call of the network, unless a single tile has more: they grow with the classes."""

STRIP_PX = 128
"""Rows of a stretched image that are resized back at once."""


class Prediction(NamedTuple):
    """`labels`: (H, W) uint8, 0 = background, class id + 1. `confidence`: (H, W) float32, probability of that label."""

    labels: np.ndarray
    confidence: np.ndarray


def predict(
    run: RunTiles,
    image: np.ndarray,
    classes: int,
    view: ViewParams,
    decision: Decision = ARGMAX,
    watch: Callable[[slice, np.ndarray], None] | None = None,
    batch: int = 1,
) -> Prediction:
    """Label map of `image`, (H, W, 3) uint8 RGB, with `classes` classes of defects.

    `run` gets a multiple of `batch` tiles at once where the image has so many: a graph of a fixed batch fills the rest.
    Needs five bytes per pixel besides the image, one strip of logits, and the tiles that are run at once.
    `watch` is called with the rows of each strip and its logits (K+1, h, W), which it must not change.
    Raises UserError when the network's output is not finite.
    """
    (height, width), size = image.shape[:2], view.size_px
    labels, confidence = np.empty((height, width), np.uint8), np.empty((height, width), np.float32)
    at_once = math.ceil(tiles_at_once(classes, size) / batch) * batch
    strips = _stretched(run, image, size) if view.scale == "stretch" else _tiled(run, image, classes, size, at_once)
    for top, logits in strips:
        logits = logits[:, : height - top, :width]
        rows = slice(top, top + logits.shape[1])
        if watch:
            watch(rows, logits)
        labels[rows], confidence[rows] = decide(logits, decision)
    if not np.isfinite(confidence).all():
        raise UserError("the network's output is not finite: its weights or its input statistics are damaged")
    drop_small(labels, decision)
    return Prediction(labels, confidence)


def tile_starts(length_px: int, tile_px: int) -> list[int]:
    """First pixels of the fewest evenly spread tiles that cover `length_px` with at least OVERLAP between neighbours.

    `length_px` must be at least `tile_px`.
    """
    stride = tile_px * (1 - OVERLAP)
    count = math.ceil((length_px - tile_px) / stride) + 1
    return [round(i * (length_px - tile_px) / max(count - 1, 1)) for i in range(count)]


def taper(tile_px: int) -> np.ndarray:
    """(tile, tile) float32 blending weight: 1 inside, falling linearly towards the edge, never 0."""
    position = np.arange(tile_px, dtype=np.float32) + np.float32(0.5)
    ramp = np.minimum(np.minimum(position, tile_px - position) / np.float32(tile_px * OVERLAP), 1).astype(np.float32)
    return ramp[:, None] * ramp[None, :]


def pad_to(image: np.ndarray, size_px: int) -> np.ndarray:
    """Repeat the last row and column of (H, W, C) until both sides have at least `size_px`."""
    below, right = max(0, size_px - image.shape[0]), max(0, size_px - image.shape[1])
    return np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge") if below or right else image


def tiles_of(image: np.ndarray, size_px: int) -> tuple[list[Corner], Cut]:
    """Corners of the tiles that cover `image` after `pad_to`, row by row, and the function that cuts one out."""
    padded = pad_to(image, size_px)
    tops, lefts = (tile_starts(length, size_px) for length in padded.shape[:2])
    corners = [(top, left) for top in tops for left in lefts]
    return corners, lambda corner: padded[corner[0] : corner[0] + size_px, corner[1] : corner[1] + size_px]


def to_square(image: np.ndarray, size_px: int) -> np.ndarray:
    """(size, size, 3) float32: (H, W, 3) stretched, bilinear with antialiasing, not rounded."""
    channels = [Image.fromarray(image[..., index].astype(np.float32)) for index in range(3)]
    return np.stack([np.asarray(c.resize((size_px, size_px), Image.Resampling.BILINEAR)) for c in channels], axis=-1)


def _tiled(run: RunTiles, image: np.ndarray, classes: int, size: int, at_once: int) -> Iterator[tuple[int, np.ndarray]]:
    """First row and blended logits (K+1, h, W) of strips that no later tile reaches."""
    corners, cut = tiles_of(image, size)
    width = max(image.shape[1], size)
    weight = taper(size)
    total, covered, first = np.zeros((classes + 1, size, width), np.float32), np.zeros((size, width), np.float32), 0
    for (top, left), logits in _logits_of(run, corners, cut, at_once):
        if done := top - first:
            yield first, total[:, :done] / covered[:done]
            for rows in (total, covered[None]):
                rows[:, : size - done] = rows[:, done:].copy()
                rows[:, size - done :] = 0
            first = top
        total[:, :, left : left + size] += logits * weight
        covered[:, left : left + size] += weight
    yield first, total / covered


def tiles_at_once(classes: int, size_px: int) -> int:
    """Number of tiles that one call of the network gets."""
    return max(1, min(TILES_AT_ONCE, LOGITS_AT_ONCE // ((classes + 1) * size_px**2)))


def _logits_of(run: RunTiles, corners: list[Corner], cut: Cut, at_once: int) -> Iterator[tuple[Corner, np.ndarray]]:
    """Each corner with the logits (K+1, S, S) of its tile."""
    for start in range(0, len(corners), at_once):
        chunk = corners[start : start + at_once]
        yield from zip(chunk, run(np.stack([cut(corner) for corner in chunk]).astype(np.float32)), strict=True)


def _stretched(run: RunTiles, image: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """First row and logits (K+1, h, W) of strips of the whole image, seen as a square and resized back, bilinear."""
    height, width = image.shape[:2]
    logits = run(to_square(image, size)[None])[0]
    left, right, share_x = _between(np.arange(width), width, size)
    for top in range(0, height, STRIP_PX):
        upper, lower, share_y = _between(np.arange(top, min(top + STRIP_PX, height)), height, size)
        rows = logits[:, upper] * (1 - share_y[:, None]) + logits[:, lower] * share_y[:, None]
        yield top, rows[..., left] * (1 - share_x) + rows[..., right] * share_x


def _between(targets: np.ndarray, length: int, source_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbouring source positions of pixel centres `targets`, and the weight of the second one."""
    position = np.maximum((targets + 0.5) * (source_length / length) - 0.5, 0)
    first = np.minimum(position.astype(np.int64), source_length - 1)
    return first, np.minimum(first + 1, source_length - 1), (position - first).astype(np.float32)
