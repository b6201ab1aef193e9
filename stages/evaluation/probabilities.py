"""Probabilities of the defect classes as bytes, so that the report can draw masks at other thresholds."""

import math

import numpy as np

from stages.data.tables import decode_label_map, encode_label_map

STEPS = 200
"""A probability p is stored as floor(p * STEPS): a step is half a percent, so that every threshold of
`operating_points` is a whole number of steps."""

LONGEST_PX = 1600
"""Longest side of the maps that are written; larger ones are max-pooled."""

Place = tuple[float, float, float, float]
"""Top, left, bottom, right in pixels of a map."""


def shares_of(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities, 0 to 1, as uint8 numbers of steps, 0 to STEPS."""
    return (probabilities * STEPS).astype(np.uint8)


def pooled(shares: np.ndarray, place: Place, size_hw: tuple[int, int]) -> np.ndarray:
    """`place` of (K, H, W) `shares`, max-pooled to (K, *size_hw), so that a region of one pixel stays."""
    top, left, bottom, right = place
    for axis, start, stop, count in ((1, top, bottom, size_hw[0]), (2, left, right, size_hw[1])):
        firsts = np.floor(start + np.arange(count) * (stop - start) / count).astype(int)
        inside = shares[(slice(None),) * axis + (slice(math.ceil(stop)),)]
        shares = np.maximum.reduceat(inside, firsts, axis)
    return shares


def encode_shares(shares: np.ndarray) -> bytes:
    """(K, H, W) uint8 as PNG of one grey image, the classes below each other; at most LONGEST_PX wide or high each."""
    height, width = shares.shape[1:]
    scale = min(1.0, LONGEST_PX / max(height, width))
    size_hw = max(1, round(height * scale)), max(1, round(width * scale))
    if scale < 1:  # one class after the other: all of them may lie in a file
        shares = np.concatenate([pooled(own[None], (0, 0, height, width), size_hw) for own in shares])
    return encode_label_map(shares.reshape(-1, size_hw[1]))


def decode_shares(png: bytes, classes: int) -> np.ndarray:
    """(K, h, w) uint8 of `encode_shares`."""
    image = decode_label_map(png)
    return image.reshape(classes, -1, image.shape[1])
