"""Duplicates across splits: images with the same bytes, and images that look alike by a perceptual hash.

The hash is pHash (signs of low DCT coefficients relative to their median) with 16 x 16 coefficients instead of 8 x 8:
64 bits do not tell apart the images of one kind of surface.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.fft import dctn

from stages.common.files import write_csv
from stages.ingestion.hash_search import nearest

COEFFICIENTS = 16
"""Low DCT coefficients along each axis that make up the hash."""

SHADING = 4
"""DCT coefficients below this are shading: vignetting makes it alike in all images of one camera."""

MIN_DETAIL = 1.0
"""Least RMS, in grey levels, of the coefficients above shading; less is lost in the rounding of the thumbnail."""


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


def near_duplicates(images: list[HashedImage], splits: tuple[str, ...], max_bits: int) -> list[Pair]:
    """For each image the nearest one of each earlier split, if at most `max_bits` differ; nearest pairs first.

    Images with the same bytes are exact duplicates and make no pair. Each image is in at most two pairs as `image`.
    """
    by_split = {split: [image for image in images if image.split == split and image.phash] for split in splits}
    found = []
    for index, later in enumerate(splits):
        for earlier in splits[:index]:
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
    if not images or not others:
        return []
    _, same = np.unique([image.sha256 for image in (*images, *others)], return_inverse=True)
    hashes = np.frombuffer(b"".join(image.phash for image in (*images, *others)), np.uint64).reshape(len(same), -1)
    parts = [(part[: len(images)], part[len(images) :]) for part in (hashes, same)]
    found = zip(images, *nearest(*parts[0], *parts[1], max_bits), strict=True)
    return [Pair(int(bits), image, others[twin]) for image, bits, twin in found if bits <= max_bits]
