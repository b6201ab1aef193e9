"""How alike two images look: a perceptual hash each, and the pairs across splits that differ in few bits.

The hash is the usual pHash (signs of low DCT coefficients against their median) with 16 x 16 coefficients instead of
8 x 8: with 64 bits, different images of one kind of surface agree by the hundred.
"""

from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn

WAVES = 16
SHADING = 4
"""Below this, DCT coefficients are shading: vignetting makes it alike on all images of one camera."""

MIN_DETAIL = 1.0
"""Levels (RMS) that the coefficients above shading must make up; less is lost in the rounding of the thumbnail."""

BLOCK = 128
"""Images compared with a whole split at a time; bounds memory."""


@dataclass(frozen=True)
class Seen:
    """An ingested image as its duplicates are looked for: `look` is its perceptual hash, None without detail."""

    split: str
    path: str
    sha256: str
    exif_orientation: int
    look: bytes | None


@dataclass(frozen=True)
class Pair:
    """An image, the one of another split that looks most like it, and the number of bits that differ, of 255."""

    distance: int
    photo: Seen
    twin: Seen


def perceptual_hash(thumbnail: np.ndarray) -> bytes | None:
    """255 bits of a (32, 32) uint8 grey picture, as 32 bytes; None for one too plain to be told from others."""
    waves = dctn(thumbnail.astype(np.float64), norm="ortho")[:WAVES, :WAVES]
    detail = waves.copy()
    detail[:SHADING, :SHADING] = 0
    if np.sqrt((detail**2).sum() / thumbnail.size) < MIN_DETAIL:
        return None
    kept = waves.ravel()[1:]
    return np.packbits(kept > np.median(kept)).tobytes()


def near_pairs(seen: list[Seen], splits: tuple[str, ...], max_bits: int) -> list[Pair]:
    """The nearest image in each earlier split of every image of a later one, nearest pairs first.

    Same bytes are no pair: those are duplicates, and told as such. At most as many pairs as images, times two.
    """
    by_split = {split: [one for one in seen if one.split == split and one.look] for split in splits}
    found = []
    for index, later in enumerate(splits):
        for earlier in splits[:index]:
            found += _nearest(by_split[later], by_split[earlier], max_bits)
    return sorted(found, key=lambda pair: (pair.distance, pair.photo.path, pair.twin.path))


def _nearest(photos: list[Seen], others: list[Seen], max_bits: int) -> list[Pair]:
    if not photos or not others:
        return []
    found, theirs = [], _words(others)
    same = {}
    for index, other in enumerate(others):
        same.setdefault(other.sha256, []).append(index)
    for start in range(0, len(photos), BLOCK):
        block = photos[start : start + BLOCK]
        mine = _words(block)
        bits = np.zeros((len(block), len(others)), np.uint16)
        for word in range(mine.shape[1]):
            bits += np.bitwise_count(mine[:, word, None] ^ theirs[None, :, word])
        for row, photo in enumerate(block):
            bits[row, same.get(photo.sha256, [])] = np.iinfo(np.uint16).max
        for row, best in enumerate(bits.argmin(axis=1)):
            if bits[row, best] <= max_bits:
                found.append(Pair(int(bits[row, best]), block[row], others[best]))
    return found


def _words(seen: list[Seen]) -> np.ndarray:
    """Hashes as (N, 4) uint64."""
    return np.frombuffer(b"".join(one.look for one in seen), np.uint64).reshape(len(seen), -1)
