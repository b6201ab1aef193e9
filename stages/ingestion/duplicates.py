"""Duplicates across splits: images with the same bytes, and images that look alike by a perceptual hash.

The hash is pHash (signs of low DCT coefficients relative to their median) with 16 x 16 coefficients instead of 8 x 8:
64 bits cannot distinguish images of the same kind of surface.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.fft import dctn

from stages.common.files import write_csv
from stages.data.tables import SPLITS

COEFFICIENTS = 16
"""Low DCT coefficients along each axis that make up the hash."""

SHADING = 4
"""DCT coefficients below this are shading, which vignetting makes alike in all images of one camera."""

BITS, BLOCK = 256, 2048
"""Bits of a hash, of which the last is always 0; hashes that are compared with as many others at once."""

MIN_DETAIL = 1.0
"""Minimum RMS, in grey levels, of the coefficients above shading; less is mostly rounding of the thumbnail."""


@dataclass(frozen=True)
class HashedImage:
    """An ingested image, to be compared; `phash`: its perceptual hash, None for an image without detail."""

    split: str
    path: str
    sha256: str
    phash: bytes | None


@dataclass(frozen=True)
class Pair:
    """An image, its nearest one of another split, and the number of bits that differ (0 to 255)."""

    distance: int
    image: HashedImage
    twin: HashedImage


def perceptual_hash(thumbnail: np.ndarray) -> bytes | None:
    """255 bits, in 32 bytes, of a (32, 32) uint8 grey thumbnail; None for one without enough detail to compare."""
    low = dctn(thumbnail.astype(np.float64), norm="ortho")[:COEFFICIENTS, :COEFFICIENTS]
    detail = low.copy()
    detail[:SHADING, :SHADING] = 0
    if np.sqrt((detail**2).sum() / thumbnail.size) < MIN_DETAIL:
        return None
    without_mean = low.ravel()[1:]
    return np.packbits(without_mean > np.median(without_mean)).tobytes()


def exact_duplicates(images: list[HashedImage]) -> list[list[HashedImage]]:
    """Groups of images with the same bytes that are in more than one split, all sorted by path."""
    same = defaultdict(list)
    for image in images:
        same[image.sha256].append(image)
    groups = [group for group in same.values() if len({image.split for image in group}) > 1]
    in_order = (sorted(group, key=lambda image: (image.path, image.split)) for group in groups)
    return sorted(in_order, key=lambda group: group[0].path)


def near_duplicates(images: list[HashedImage], max_bits: int) -> list[Pair]:
    """For each image the nearest one of each earlier split, if at most `max_bits` differ; nearest pairs first.

    Images with the same bytes are exact duplicates and make no pair. Each image is in at most two pairs as `image`.
    """
    by_split = {split: [image for image in images if image.split == split and image.phash] for split in SPLITS}
    found = []
    for index, later in enumerate(SPLITS):
        for earlier in SPLITS[:index]:
            found += _nearest(by_split[later], by_split[earlier], max_bits)
    return sorted(found, key=lambda pair: (pair.distance, pair.image.path, pair.twin.path))


def write_near_duplicates(path: Path, pairs: list[Pair]) -> None:
    """Write `pairs` as CSV; `distance` is in bits, paths are relative to the data root."""
    columns = ("distance", "split", "path", "other_split", "other_path")
    write_csv(
        path,
        columns,
        ((pair.distance, pair.image.split, pair.image.path, pair.twin.split, pair.twin.path) for pair in pairs),
    )


def _nearest(images: list[HashedImage], others: list[HashedImage], max_bits: int) -> list[Pair]:
    """Each of `images` with the nearest of `others` within `max_bits`, the first if several are. Quadratic time."""
    _, content = np.unique([image.sha256 for image in (*images, *others)], return_inverse=True)
    none = np.iinfo(np.int64).max
    best = np.full(len(images), none)
    for top in range(0, len(images), BLOCK):
        mine = _signs(images[top : top + BLOCK])
        for start in range(0, len(others), BLOCK):
            # bits that agree minus bits that differ, exact in float32
            agree = mine @ _signs(others[start : start + BLOCK]).T
            left, right = np.nonzero(agree >= BITS - 2 * max_bits)
            differ = (BITS - agree[left, right].astype(np.int64)) // 2
            left, right = left + top, right + start
            near = content[left] != content[len(images) + right]
            # one number of distance and index, so that the minimum decides by distance first
            np.minimum.at(best, left[near], (differ[near] << 32) + right[near])
    found = zip(images, best.tolist(), strict=True)
    return [Pair(code >> 32, image, others[code & 0xFFFFFFFF]) for image, code in found if code != none]


def _signs(images: list[HashedImage]) -> np.ndarray:
    """(N, BITS) float32: 1 for a set bit of a hash, else -1."""
    hashes = np.frombuffer(b"".join(image.phash for image in images), np.uint8).reshape(len(images), -1)
    return np.unpackbits(hashes, axis=1) * np.float32(2) - 1
