"""YOLO label files: rows of `class cx cy w h`, normalised to the upright image, to boxes in its pixels.

Upright means after the EXIF orientation has been applied: what an annotation tool showed, and what Ultralytics assumes.
Refusals are worded as Ultralytics words them, but concern one row, never the whole image.
"""

import math
from dataclasses import dataclass

OVERHANG = 0.01
"""A box may reach this far out of the image, as a share of its width or height; it is clipped. Ultralytics' figure."""

ROUNDING = 1e-5
"""Less overhang than this is the rounding of six written decimals, and not worth a word."""

SHOWN_LETTERS = 40
"""So much of a value stands in the reason why it was refused."""


class BadRow(ValueError):
    """A row that is no usable box. `kind` is what rows are counted by, the message names value and what is allowed."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Box:
    """Upright pixels [x1, x2) x [y1, y2), inside the image, area > 0; `overhang` is the share that was clipped."""

    class_id: int
    xyxy: tuple[float, float, float, float]
    overhang: float = 0.0


@dataclass(frozen=True)
class Labels:
    """A label file, read: boxes and refused rows, each with its line number."""

    boxes: list[tuple[int, Box]]
    bad: list[tuple[int, BadRow]]


def parse_labels(data: bytes, size_hw: tuple[int, int], class_count: int) -> Labels:
    """All rows of a label file. A byte-order mark, CRLF, tabs and blank lines are tolerated."""
    labels, seen = Labels([], []), {}
    for line, row in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        text = row.decode("utf-8", errors="replace").strip()
        if not text:
            continue
        try:
            box = parse_row(text, size_hw, class_count)
            first = seen.setdefault((box.class_id, box.xyxy), line)
            if first != line:
                raise BadRow("duplicate", f"duplicate label removed, same as line {first}")
            labels.boxes.append((line, box))
        except BadRow as bad:
            labels.bad.append((line, bad))
    return labels


def parse_row(text: str, size_hw: tuple[int, int], class_count: int) -> Box:
    """`class cx cy w h` to a box in an image of `size_hw` pixels. Raises BadRow."""
    columns = text.split()
    if len(columns) != 5:
        shape = " (a polygon or an oriented box; only boxes are read)" if len(columns) > 6 else ""
        raise BadRow("columns", f"labels require 5 columns, {len(columns)} columns detected{shape}")
    class_value, cx, cy, width, height = map(_number, columns)
    if class_value != int(class_value):
        raise BadRow("class", f"label class {_brief(columns[0])} is not an integer")
    if class_value < 0:
        raise BadRow(
            "class", f"negative label class {_brief(columns[0])}, possible class labels are 0-{class_count - 1}"
        )
    if class_value >= class_count:
        raise BadRow(
            "class",
            f"label class {_brief(columns[0])} exceeds dataset class count {class_count}, "
            f"possible class labels are 0-{class_count - 1}",
        )
    if width <= 0 or height <= 0:
        raise BadRow("zero_area", f"box size {_brief(columns[3])} x {_brief(columns[4])} is not positive")
    x1, y1, x2, y2 = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    overhang = max(-x1, -y1, x2 - 1, y2 - 1, 0.0)
    if overhang > OVERHANG + 1e-12:
        raise BadRow(
            "out_of_bounds",
            f"non-normalized or out of bounds coordinates {_brief(*columns[1:])}: the box reaches from "
            f"({x1:.4g}, {y1:.4g}) to ({x2:.4g}, {y2:.4g}), allowed is 0 to 1, and {OVERHANG} beyond is clipped",
        )
    rows, across = size_hw
    xyxy = (_clip(x1) * across, _clip(y1) * rows, _clip(x2) * across, _clip(y2) * rows)
    if xyxy[0] >= xyxy[2] or xyxy[1] >= xyxy[3]:
        raise BadRow("zero_area", f"box {_brief(*columns[1:])} has no area inside the image")
    return Box(int(class_value), xyxy, overhang)


def _number(column: str) -> float:
    try:
        # Python alone would also read 1_000 and other scripts' digits
        value = float(column) if column.isascii() and "_" not in column else None
    except ValueError:
        value = None
    if value is None:
        raise BadRow("not_a_number", f"{_brief(column)!r} is not a number")
    if not math.isfinite(value):
        raise BadRow("not_finite", f"{_brief(column)} is not a finite number")
    return value


def _brief(*columns: str) -> str:
    """A number of a million digits is possible, and would stand in every list."""
    return " ".join(column if len(column) <= SHOWN_LETTERS else f"{column[:SHOWN_LETTERS]}…" for column in columns)


def _clip(share: float) -> float:
    return min(max(share, 0.0), 1.0)
