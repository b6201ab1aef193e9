"""YOLO label files: rows of `class cx cy w h`, normalised to the upright image, become boxes in its pixels.

Upright means after applying the EXIF orientation, as annotation tools show the image and as Ultralytics assumes.
Errors use Ultralytics' words, but reject only the row, where Ultralytics rejects the image.
"""

import math
from dataclasses import dataclass

from stages.data.boxes import Box

OVERHANG = 0.01
"""Greatest overhang of a box beyond the image, as a share of its width or height; it is clipped. Ultralytics' limit."""

ROUNDING = 1e-5
"""Overhang up to this is the rounding of six decimals, and not reported."""

SHOWN_LETTERS = 40
"""Characters of a value that an error message shows."""


class BadRow(ValueError):
    """A row that is not a usable box. Rows are counted by `kind`; the message names value and what is allowed."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class LabelledBox:
    """`xyxy`: upright pixels [x1, x2) x [y1, y2), inside the image, area > 0; `overhang`: share that was clipped."""

    class_id: int
    xyxy: Box
    overhang: float = 0.0


@dataclass(frozen=True)
class Labels:
    """Boxes and rejected rows of a label file, each with its line number, from 1."""

    boxes: list[tuple[int, LabelledBox]]
    bad: list[tuple[int, BadRow]]


def parse_labels(data: bytes, size_hw: tuple[int, int], class_count: int) -> Labels:
    """All rows of a label file. A byte-order mark, CRLF, tabs and blank lines are allowed."""
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


def parse_row(text: str, size_hw: tuple[int, int], class_count: int) -> LabelledBox:
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
    image_h, image_w = size_hw
    xyxy = (_clip(x1) * image_w, _clip(y1) * image_h, _clip(x2) * image_w, _clip(y2) * image_h)
    if xyxy[0] >= xyxy[2] or xyxy[1] >= xyxy[3]:
        raise BadRow("zero_area", f"box {_brief(*columns[1:])} has no area inside the image")
    return LabelledBox(int(class_value), xyxy, overhang)


def _number(column: str) -> float:
    try:
        # float() alone would accept 1_000 and digits of other scripts
        value = float(column) if column.isascii() and "_" not in column else None
    except ValueError:
        value = None
    if value is None:
        raise BadRow("not_a_number", f"{_brief(column)!r} is not a number")
    if not math.isfinite(value):
        raise BadRow("not_finite", f"{_brief(column)} is not a finite number")
    return value


def _brief(*columns: str) -> str:
    """`columns` for an error message, each shortened: a number may have a million digits."""
    return " ".join(column if len(column) <= SHOWN_LETTERS else f"{column[:SHOWN_LETTERS]}…" for column in columns)


def _clip(share: float) -> float:
    return min(max(share, 0.0), 1.0)
