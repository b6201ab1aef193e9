"""How an image is cut into overlapping tiles and blended again: one geometry for whatever runs the network."""

import math

import numpy as np

OVERLAP = 0.25
"""Least share of a tile that its neighbour covers too; predictions near a tile's rim see too little around them."""

TILES_AT_ONCE = 8
"""Bounds memory whatever the size of the image."""


def tile_starts(length_px: int, tile_px: int) -> list[int]:
    """First pixels of the fewest evenly spread tiles that cover `length_px` with at least OVERLAP between neighbours.

    `length_px` must be at least `tile_px`.
    """
    stride = tile_px * (1 - OVERLAP)
    count = math.ceil((length_px - tile_px) / stride) + 1
    return [round(i * (length_px - tile_px) / max(count - 1, 1)) for i in range(count)]


def taper(tile_px: int) -> np.ndarray:
    """(tile, tile) float32 blending weight: 1 inside, falling linearly towards the rim, never 0."""
    position = np.arange(tile_px, dtype=np.float32) + np.float32(0.5)
    ramp = np.minimum(np.minimum(position, tile_px - position) / np.float32(tile_px * OVERLAP), 1).astype(np.float32)
    return ramp[:, None] * ramp[None, :]
