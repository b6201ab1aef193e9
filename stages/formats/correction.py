"""Label maps that people have corrected: what each format gives, how it is drawn, and which image it is of."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
from pycocotools import mask as coco
from scipy import ndimage

from stages.data.boxes import connected
from stages.data.tables import IGNORE

Part = tuple[tuple[slice, slice], np.ndarray, int]
"""Place in an image, (h, w) bool mask in it, and value in a label map."""

UNKNOWN = "unknown"
"""Label for pixels whose class is not known, unless a class of the data set has this name."""

FOLDERS = ("images", "labels", "masks")
"""Folders that tell an image's files apart and do not belong to its name."""


class Correction(NamedTuple):
    """The label map of one image as a file holds it, whether or not it differs from what was exported.

    `path`: of the image, as in the images table. `image_sha256`: as in the file; None where it has none.
    `label_map`: (H, W) uint8 at `size_hw`, 0 = background, class id + 1, 255 = unknown. `source`: the file.
    `exported_at`: time of the export, as in the file. `holes`: whether its format can hold masks with holes.
    """

    path: str
    image_sha256: str | None
    size_hw: tuple[int, int]
    label_map: np.ndarray
    source: str
    exported_at: str | None = None
    holes: bool = True

    def unchanged(self, exported: np.ndarray) -> bool:
        """Whether the label map equals `exported`, (H, W) uint8, as far as the format can hold that."""
        return np.array_equal(self.label_map, exported if self.holes else without_holes(exported))


class Refused(NamedTuple):
    """A correction that cannot be used. `name`: of the image, as in the file `source`; `reason`: one line."""

    name: str
    reason: str
    source: str


class BadDrawing(ValueError):
    """Shapes that give no label map, or a name of no image; the message says what is wrong and what is allowed."""


MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)
"""Errors that are raised where the content of a parsed file is malformed."""


def malformed(name: object, error: Exception, source: str) -> Refused:
    """The refusal of an image, or of an entry called `name`, that raised one of MALFORMED."""
    return Refused(str(name), f"cannot be read ({type(error).__name__}: {error})", source)


def check_size(theirs_hw: tuple[object, object], upright_hw: tuple[int, int]) -> None:
    """Raises BadDrawing where the size in a file is not that of the upright image, or no size."""
    if not all(isinstance(side, int | float) for side in theirs_hw):
        raise BadDrawing(f"height {theirs_hw[0]!r} and width {theirs_hw[1]!r} there, needed are two numbers")
    if theirs_hw != upright_hw:
        there, here = (f"{width} x {height}" for height, width in (theirs_hw, upright_hw))
        raise BadDrawing(f"is {there} pixels there, the upright image {here}")


class Drawing(NamedTuple):
    """One image in a file. `name`: as the file has it. `draw`: label map of an image of (H, W); raises BadDrawing.

    `size_hw`: None where the format does not hold it. The other fields are those of `Correction`.
    """

    name: str
    size_hw: tuple[int, int] | None
    draw: Callable[[tuple[int, int]], np.ndarray]
    sha256: str | None = None
    exported_at: str | None = None
    holes: bool = True


def values_of(names: Sequence[str]) -> dict[str, int]:
    """Label to value in a label map: the classes of the data set, in their order, and then UNKNOWN."""
    values = {name: index for index, name in enumerate(names, start=1)}
    return values if UNKNOWN in values else values | {UNKNOWN: IGNORE}


def value_of(label: object, values: Mapping[str, int]) -> int:
    """The value of a label, see `values_of`. Raises BadDrawing for a label that is not in `values`."""
    if label not in values:
        raise BadDrawing(f"label {label!r}, allowed are {', '.join(values)}")
    return values[label]


def filled_polygon(points_xy: np.ndarray, size_hw: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of an image that a polygon with (N, 2) corners in pixels touches, and its bool mask in that part.

    Filled as by pycocotools, datumaro and CVAT. Raises BadDrawing for under 3 corners, or corners far outside.
    """
    height, width = size_hw
    if points_xy.ndim != 2 or points_xy.shape[1] != 2 or len(points_xy) < 3:
        raise BadDrawing(f"a polygon of {len(points_xy)} corners, needed are 3 or more")
    inside = (points_xy >= [-width, -height]) & (points_xy <= [2 * width, 2 * height])
    if not inside.all():  # also NaN and infinity
        raise BadDrawing(f"a polygon has a corner far outside of the image of {width} x {height} pixels")
    left, top = np.floor(points_xy.min(0)).clip(0, [width - 1, height - 1]).astype(int).tolist()
    right, bottom = (np.ceil(points_xy.max(0)) + 1).clip([left + 1, top + 1], [width, height]).astype(int).tolist()
    part_hw = bottom - top, right - left
    code = coco.frPyObjects([(points_xy - [left, top]).ravel().tolist()], *part_hw)[0]
    return (slice(top, bottom), slice(left, right)), coco.decode(code).astype(bool)


def without_holes(labels: np.ndarray) -> np.ndarray:
    """(H, W) uint8 `labels` as polygons hold them: every 8-connected region filled, smaller ones on top."""
    parts = []
    for value in np.unique(labels[labels > 0]).tolist():
        regions, _ = connected(labels == value)
        for number, place in enumerate(ndimage.find_objects(regions), start=1):
            parts.append((place, ndimage.binary_fill_holes(regions[place] == number), value))
    return smallest_on_top(parts, labels.shape)


def label_map_of(parts: Iterable[Part], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 label map of the parts, later ones on top."""
    labels = np.zeros(size_hw, np.uint8)
    for place, mask, value in parts:
        labels[place][mask] = value
    return labels


def smallest_on_top(parts: Iterable[Part], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 label map of the parts, smaller ones on top."""
    return label_map_of(sorted(parts, key=lambda part: -int(part[1].sum())), size_hw)


class KnownImages:
    """The images of a data set, found by the names that annotation tools give them; compared in Unicode's form NFC."""

    def __init__(self, rows: Iterable[Mapping]) -> None:
        """`rows`: path, sha256, height and width of each image, as in the images table."""
        self._by_path = {row["path"]: row for row in rows}
        self._by_last: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for text in self._by_path:
            path = PurePosixPath(normalize("NFC", text))
            for last in {path.name, path.stem}:
                self._by_last[last].append((_own_parts((*path.parts[:-1], last)), text))

    def find(self, name: str) -> Mapping:
        """The row of the image called `name`: its path, with or without suffix, with more or fewer folders in front.

        An image without other folders is preferred. Raises BadDrawing where none fits, or several fit equally well.
        """
        if name in self._by_path:
            return self._by_path[name]
        parts = _own_parts(PurePosixPath(normalize("NFC", name)).parts)
        found = [(_common_tail(parts, each), text) for each, text in self._by_last.get(parts[-1] if parts else "", ())]
        best = max((length for length, _ in found), default=0)
        paths = sorted({text for length, text in found if length == best > 0})
        if not paths:
            raise BadDrawing("no image of the data set has this name")
        if len(paths) > 1:
            raise BadDrawing(f"could be any of {len(paths)} images, such as {' and '.join(paths[:2])}")
        return self._by_path[paths[0]]


def _own_parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The parts of a path without FOLDERS."""
    return (*(part for part in parts[:-1] if part not in FOLDERS), *parts[-1:])


def _common_tail(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """Length of the shorter path where it ends the longer one, 1 more where they are equal; 0 where it does not."""
    length = min(len(first), len(second))
    return length + (first == second) if first[-length:] == second[-length:] else 0
