"""Label maps that people have corrected, read from what annotation tools write, and the images that they are of."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np


class Correction(NamedTuple):
    """The label map of one image as a file holds it, whether or not it differs from what was exported.

    `path`: of the image, as in the images table. `image_sha256`: as the file says it; None where it says nothing.
    `label_map`: (H, W) uint8 at `size_hw`, 0 = background, class id + 1, 255 = unknown. `source`: the file, and the
    part of it where it has parts. `exported_at`: as the file says it.
    """

    path: str
    image_sha256: str | None
    size_hw: tuple[int, int]
    label_map: np.ndarray
    source: str
    exported_at: str | None = None


class Refused(NamedTuple):
    """What cannot be taken of one image. `name`: of the image, as the file has it; `reason`: one line."""

    name: str
    reason: str
    source: str


class UnknownImage(ValueError):
    """A name that is not that of exactly one image; the message is the reason."""


class KnownImages:
    """The images of a data set, found by the names that annotation tools give them."""

    def __init__(self, rows: Iterable[Mapping]) -> None:
        """`rows`: path, sha256, height and width of each image, as in the images table."""
        self._by_last: dict[str, list[tuple[tuple[str, ...], Mapping]]] = defaultdict(list)
        for row in rows:
            path = PurePosixPath(row["path"])
            for last in {path.name, path.stem}:
                self._by_last[last].append(((*path.parts[:-1], last), row))

    def find(self, name: str) -> Mapping:
        """The row of the image called `name`: its path, with or without suffix, with folders more or fewer in front.

        Raises UnknownImage where there is none, or where several fit equally well.
        """
        parts = PurePosixPath(name).parts
        found = [(_common_tail(parts, each), row) for each, row in self._by_last.get(parts[-1] if parts else "", ())]
        best = max((length for length, _ in found), default=0)
        paths = {row["path"]: row for length, row in found if length == best > 0}
        if not paths:
            raise UnknownImage("no image of the data set has this name")
        if len(paths) > 1:
            raise UnknownImage(f"could be any of {len(paths)} images, such as {' and '.join(sorted(paths)[:2])}")
        return next(iter(paths.values()))


def _common_tail(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """Length of the shorter path where it ends the longer one; 0 where it does not."""
    length = min(len(first), len(second))
    return length if first[-length:] == second[-length:] else 0
