"""From an image of any size to its label map, in numpy: what `stages.student.inference` does, strip by strip.

That one keeps the probabilities of all classes for the whole image and needs PyTorch; this one keeps one strip as
high as a tile, and runs anything. The tiles are the same, and so are the label maps: tests prove it, for training and
evaluation go the other way.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from stages.runtime.network import Network
from stages.student.tiles import TILES_AT_ONCE, taper, tile_starts

STRIP_PX = 128
"""Rows of a stretched image that are resized back at once."""


class Prediction(NamedTuple):
    """`labels`: (H, W) uint8, 0 = background, class id + 1. `confidence`: (H, W) float16, probability of that label."""

    labels: np.ndarray
    confidence: np.ndarray


def predict(network: Network, photo: np.ndarray) -> Prediction:
    """Label map of `photo`, (H, W, 3) uint8 RGB. Beside the image it takes three bytes a pixel, and a strip."""
    height, width = photo.shape[:2]
    labels, confidence = np.empty((height, width), np.uint8), np.empty((height, width), np.float16)
    strips = _stretched if network.config.view.scale == "stretch" else _tiled
    for top, logits in strips(network, photo):
        probabilities = softmax(logits[:, : height - top, :width])
        rows = slice(top, top + probabilities.shape[1])
        labels[rows] = probabilities.argmax(0)
        confidence[rows] = probabilities.max(0)
    return Prediction(labels, confidence)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the first axis, in the place of `logits`."""
    logits -= logits.max(0)
    np.exp(logits, out=logits)
    logits /= logits.sum(0)
    return logits


def tiles_of(photo: np.ndarray, size_px: int) -> tuple[list[tuple[int, int]], Callable[[tuple[int, int]], np.ndarray]]:
    """Corners (top, left) of the tiles that cover `photo`, row by row, and the function that cuts one out.

    An image smaller than a tile is continued by its last row and column.
    """
    height, width = photo.shape[:2]
    below, right = max(0, size_px - height), max(0, size_px - width)
    padded = np.pad(photo, ((0, below), (0, right), (0, 0)), mode="edge") if below or right else photo
    tops, lefts = tile_starts(height + below, size_px), tile_starts(width + right, size_px)
    corners = [(top, left) for top in tops for left in lefts]
    return corners, lambda corner: padded[corner[0] : corner[0] + size_px, corner[1] : corner[1] + size_px]


def to_square(photo: np.ndarray, size_px: int) -> np.ndarray:
    """(size, size, 3) float32: the image stretched, bilinear with antialiasing, not rounded."""
    channels = [Image.fromarray(photo[..., index].astype(np.float32)) for index in range(3)]
    return np.stack([np.asarray(c.resize((size_px, size_px), Image.Resampling.BILINEAR)) for c in channels], axis=-1)


def _tiled(network: Network, photo: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First row and blended logits (K+1, h, W) of strips that no later tile reaches."""
    size = network.config.view.size_px
    corners, cut = tiles_of(photo, size)
    width = max(photo.shape[1], size)
    weight = taper(size)
    total = np.zeros((len(network.config.names) + 1, size, width), np.float32)
    covered = np.zeros((size, width), np.float32)
    first = 0
    for start in range(0, len(corners), TILES_AT_ONCE):
        chunk = corners[start : start + TILES_AT_ONCE]
        tiles = np.stack([cut(corner) for corner in chunk]).astype(np.float32)
        for (top, left), logits in zip(chunk, network.run(tiles), strict=True):
            if done := top - first:
                yield first, total[:, :done] / covered[:done]
                for rows in (total, covered[None]):
                    rows[:, : size - done] = rows[:, done:].copy()
                    rows[:, size - done :] = 0
                first = top
            total[:, :, left : left + size] += logits * weight
            covered[:, left : left + size] += weight
    yield first, total / covered


def _stretched(network: Network, photo: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First row and logits of strips of the whole image, seen as a square and resized back, bilinear."""
    height, width = photo.shape[:2]
    size = network.config.view.size_px
    logits = network.run(to_square(photo, size)[None])[0]
    left, right, share_x = _between(np.arange(width), width, size)
    for top in range(0, height, STRIP_PX):
        upper, lower, share_y = _between(np.arange(top, min(top + STRIP_PX, height)), height, size)
        rows = logits[:, upper] * (1 - share_y[:, None]) + logits[:, lower] * share_y[:, None]
        yield top, rows[..., left] * (1 - share_x) + rows[..., right] * share_x


def _between(targets: np.ndarray, length: int, source_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbouring source positions of pixel centres `targets`, and the share of the second one."""
    position = np.maximum((targets + 0.5) * (source_length / length) - 0.5, 0)
    first = np.minimum(position.astype(np.int64), source_length - 1)
    return first, np.minimum(first + 1, source_length - 1), (position - first).astype(np.float32)
