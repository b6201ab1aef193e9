"""YOLO label files: one row a box, taken or rejected one by one. Ultralytics' wording where its users know it.

Rows are `class cx cy w h`, normalised to the upright photograph, that is, after its EXIF orientation.
"""

import math
from dataclasses import dataclass

OVERHANG = 0.01
"""A box may leave the image by this share of its side, and is clipped; beyond that its row is rejected."""


@dataclass(frozen=True)
class Box:
    """`xyxy`: upright pixels inside the image, half-open. `clipped`: whether the row reached out of the image."""

    class_id: int
    xyxy: tuple[float, float, float, float]
    line: int
    clipped: bool


@dataclass(frozen=True)
class Reject:
    """A row that is no box. `line` counts from 1."""

    line: int
    reason: str


def parse_labels(data: bytes, size_hw: tuple[int, int], n_classes: int) -> tuple[list[Box], list[Reject]]:
    """All rows of a label file. Never raises, whatever the bytes; blank lines count for nothing."""
    # bytes that are no text spoil their row and no other
    text = data.decode("utf-8-sig", errors="replace")
    boxes: list[Box] = []
    rejects: list[Reject] = []
    seen: set[tuple[float, ...]] = set()
    for line, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        values = _numbers(row)
        found = parse_row(values, line, size_hw, n_classes) if values else Reject(line, _not_a_row(row))
        if isinstance(found, Box) and values in seen:
            found = Reject(line, "duplicate label removed")
        seen.add(values or ())
        (boxes if isinstance(found, Box) else rejects).append(found)
    return boxes, rejects


def parse_row(values: tuple[float, ...], line: int, size_hw: tuple[int, int], n_classes: int) -> Box | Reject:
    """The five numbers of a row as a box in pixels, or the reason why not."""
    class_number, *center_size = values
    if not all(map(math.isfinite, values)):
        return Reject(line, "NaN or infinite value")
    if class_number != int(class_number):
        return Reject(line, f"label class {class_number:g} is not a whole number")
    if not 0 <= class_number < n_classes:
        return Reject(
            line,
            f"label class {int(class_number)} exceeds dataset class count {n_classes}, "
            f"possible class labels are 0-{n_classes - 1}",
        )
    cx, cy, w, h = center_size
    if w <= 0 or h <= 0:
        return Reject(line, f"box without area: width {w:g}, height {h:g}")
    x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    if min(x1, y1) < -OVERHANG or max(x2, y2) > 1 + OVERHANG:
        return Reject(line, f"non-normalized or out of bounds coordinates {cx:g} {cy:g} {w:g} {h:g}")
    height, width = size_hw
    inside = tuple(min(max(value, 0.0), 1.0) for value in (x1, y1, x2, y2))
    xyxy = (inside[0] * width, inside[1] * height, inside[2] * width, inside[3] * height)
    if xyxy[2] <= xyxy[0] or xyxy[3] <= xyxy[1]:
        return Reject(line, "box without area inside the image")
    # six decimals of rounding are no overhang
    clipped = any(abs(a - b) > 1e-6 for a, b in zip(inside, (x1, y1, x2, y2), strict=True))
    return Box(int(class_number), xyxy, line, clipped)


def _numbers(row: str) -> tuple[float, ...] | None:
    """The five numbers of a row; None when it is not five numbers."""
    words = row.split()
    try:
        values = tuple(map(float, words))
    except ValueError:
        return None
    # Python reads 1_0 as a number, no labelling tool writes it as one
    return values if len(values) == 5 and "_" not in row else None


def _not_a_row(row: str) -> str:
    words = row.split()
    if len(words) > 6 and len(words) % 2:
        return f"a polygon of {(len(words) - 1) // 2} points: labels require 5 columns (class cx cy w h)"
    if len(words) != 5:
        return f"labels require 5 columns (class cx cy w h), {len(words)} columns detected"
    return f"not numbers: {' '.join(words)[:60]!r}"
