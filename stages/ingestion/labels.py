"""YOLO label files: rows of `class cx cy w h`, normalised to the upright image, become boxes in its pixels.

Rows of other tasks become boxes too: corners of a polygon or an oriented box give their enclosing box, and pose labels
begin with a box. One extra last column is a confidence, as detectors write it. Four corners are taken for an oriented
box.

Upright means after applying the EXIF orientation, as annotation tools show the image and as Ultralytics assumes.
Errors use Ultralytics' words, but reject only the row, where Ultralytics rejects the image.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from stages.data.boxes import Box
from stages.masks import rle

OVERHANG = 0.01
"""Largest overhang of a box beyond the image, as a share of its width or height; it is clipped. Ultralytics' limit."""

ROUNDING = 1e-5
"""Overhang up to this comes from rounding to six decimals, and is not reported."""

MAX_LABEL_BYTES = 1 << 23
MAX_ROWS = 100_000
"""Bounds of a label file; beyond them the image is rejected, because its defects would be background."""

ROW = re.compile(rb"^[ \t]*-?[0-9.][^ \t,;\r\n]*(?:[ \t,;]+[^ \t,;\r\n]+){4}", re.MULTILINE)

KEYPOINTS = "; keypoints need kpt_shape in data.yaml"

SHOWN_LETTERS = 40
"""Characters of a value that an error message shows."""


class BadRow(ValueError):
    """A row that is not a usable box. Rows are counted by `kind`; the message names value and what is allowed."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class LabelledBox:
    """`xyxy`: upright pixels [x1, x2) x [y1, y2), inside the image, area > 0; `overhang`: share that was clipped.

    `form`: what the row held: box, confidence, polygon, oriented or pose. `keypoints`: number of columns of
    a polygon row that could also be a box with keypoints; else 0. `mask`: run-length code of a trusted polygon, at the
    size of the image; else None.
    """

    class_id: int
    xyxy: Box
    overhang: float = 0.0
    form: str = "box"
    keypoints: int = 0
    mask: bytes | None = None


@dataclass(frozen=True)
class RowFormat:
    """`class_count`, `keypoints` (columns of pose labels beyond a box, or None): of data.yaml. Rest: `IngestParams`."""

    class_count: int
    keypoints: int | None = None
    confidence: float | None = None
    polygons: str = "box"


@dataclass(frozen=True)
class Labels:
    """Boxes and rejected rows of a label file, each with its line number, from 1."""

    boxes: list[tuple[int, LabelledBox]]
    bad: list[tuple[int, BadRow]]


def count_rows(data: bytes) -> int:
    """Number of lines that begin with a number and have at least five columns, unlike the lines of a README.txt."""
    return sum(1 for _ in ROW.finditer(data))


def parse_labels(data: bytes, size_hw: tuple[int, int], format: RowFormat) -> Labels:
    """All rows of a label file. A byte-order mark, CRLF, tabs and blank lines are allowed."""
    labels, seen = Labels([], []), {}
    for line, row in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        text = row.decode("utf-8", errors="replace").strip()
        if not text:
            continue
        try:
            box = parse_row(text, size_hw, format)
            first = seen.setdefault((box.class_id, box.xyxy, box.mask), line)
            if first != line:
                raise BadRow("duplicate", f"duplicate label removed, same as line {first}")
            labels.boxes.append((line, box))
        except BadRow as bad:
            labels.bad.append((line, bad.with_traceback(None)))  # it would keep the row's columns in memory
    return labels


def parse_row(text: str, size_hw: tuple[int, int], format: RowFormat) -> LabelledBox:
    """One row to a box in an image of `size_hw` pixels. Raises BadRow."""
    columns = text.split()
    if len(columns) < 5:
        raise BadRow("columns", f"labels require 5 columns, {len(columns)} columns detected")
    class_value, *numbers = map(_number, columns)
    form, has_confidence, keypoints = _form_of(numbers, format.keypoints)
    _check_class(class_value, columns[0], format.class_count)
    if has_confidence:
        _check_confidence(numbers.pop(), columns, format.confidence)
    corners = numbers
    if form == "polygon":
        if format.polygons == "reject":
            raise BadRow("polygon", f"{len(numbers) // 2} corners of a polygon or an oriented box (ingest.polygons)")
        form = "oriented" if len(numbers) == 8 else form
        left, top, right, bottom = min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
        numbers = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    cx, cy, width, height = numbers[:4]
    if width <= 0 or height <= 0:
        raise BadRow("zero_area", f"box size {_brief(*columns[3:5], between=' x ')} is not positive")
    x1, y1, x2, y2 = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    overhang = max(-x1, -y1, x2 - 1, y2 - 1, 0.0)
    if overhang > OVERHANG + 1e-12:
        raise BadRow(
            "out_of_bounds",
            f"non-normalized or out of bounds coordinates {_brief(*columns[1:9])}: the box reaches from "
            f"({x1:.4g}, {y1:.4g}) to ({x2:.4g}, {y2:.4g}), allowed is 0 to 1, and {OVERHANG} beyond is clipped",
        )
    image_h, image_w = size_hw
    xyxy = (_clip(x1) * image_w, _clip(y1) * image_h, _clip(x2) * image_w, _clip(y2) * image_h)
    if xyxy[0] >= xyxy[2] or xyxy[1] >= xyxy[3]:
        raise BadRow("zero_area", f"box {_brief(*columns[1:9])} has no area inside the image")
    mask = None
    if form == "polygon" and format.polygons == "trust":
        (down, across), part = yolo_polygon(np.array(corners).reshape(-1, 2).clip(0, 1), size_hw)
        mask = rle.encode(part, (across.start, down.start), size_hw)
        xyxy = (float(across.start), float(down.start), float(across.stop), float(down.stop))
    return LabelledBox(int(class_value), xyxy, overhang, form, keypoints, mask)


def yolo_polygon(shares_xy: np.ndarray, size_hw: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """Place in the image (rows, columns) and (h, w) bool mask of a polygon, as Ultralytics draws it; at least a pixel.

    `shares_xy`: (N, 2) corners in shares of the image's width and height, from 0 to 1. Corners are truncated to whole
    pixels, and the border is drawn too.
    """
    corners = np.minimum((shares_xy * size_hw[::-1]).astype(int), [size_hw[1] - 1, size_hw[0] - 1])
    (left, top), (right, bottom) = corners.min(0).tolist(), (corners.max(0) + 1).tolist()
    canvas = Image.new("1", (right - left, bottom - top))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in (corners - [left, top]).tolist()], fill=1, outline=1)
    return (slice(top, bottom), slice(left, right)), np.array(canvas)


def _form_of(numbers: list[float], keypoints: int | None) -> tuple[str, bool, int]:
    """What the columns after the class hold, whether the last is a confidence, and `LabelledBox.keypoints`.

    Without kpt_shape in data.yaml, keypoints are told from corners by their visibility, if each has one of 0, 1 or 2.
    Corners on borders have 0 or 1 too: without a 2, which no corner can have, the keypoints must lie in their box.
    """
    if len(numbers) <= 5:
        return ("confidence", True, 0) if len(numbers) == 5 else ("box", False, 0)
    if keypoints is not None and len(numbers) - 4 - keypoints in (0, 1):
        return "pose", len(numbers) == 5 + keypoints, 0
    (cx, cy, width, height), points = numbers[:4], numbers[4:]
    possible = 0 < width <= min(cx, 1 - cx) * 2 + OVERHANG and 0 < height <= min(cy, 1 - cy) * 2 + OVERHANG

    def within(step: int) -> bool:
        pairs = zip(points[::step], points[1::step], strict=False)
        return all((x, y) == (0, 0) or (abs(x - cx) * 2 <= width and abs(y - cy) * 2 <= height) for x, y in pairs)

    seen = set(points[2::3])
    if possible and len(points) % 3 == 0 and seen <= {0, 1, 2} and (2 in seen or within(3)):
        return "pose", False, 0
    has_confidence = len(numbers) % 2 == 1
    may_be_pose = possible and not has_confidence and len(points) >= 6 and within(2)
    return "polygon", has_confidence, len(numbers) + 1 if may_be_pose else 0


def _check_confidence(value: float, columns: list[str], least: float | None) -> None:
    last = _brief(columns[-1])
    if least is None:
        reason = f"{len(columns)} columns detected: the last, {last}, looks like a confidence (ingest.confidence)"
        raise BadRow("confidence", f"{reason}{KEYPOINTS if len(columns) > 6 else ''}")
    if not 0 <= value <= 1:
        raise BadRow("columns", f"confidence {last}, allowed is 0 to 1{KEYPOINTS if len(columns) > 6 else ''}")
    if value < least:
        raise BadRow("below_confidence", f"confidence {last} is below ingest.confidence = {least}")


def _check_class(value: float, column: str, class_count: int) -> None:
    possible = f"possible class labels are 0-{class_count - 1}"
    if value != int(value):
        raise BadRow("class", f"label class {_brief(column)} is not an integer")
    if value < 0:
        raise BadRow("class", f"negative label class {_brief(column)}, {possible}")
    if value >= class_count:
        kind = "class_one_more" if value == class_count else "class"
        raise BadRow(kind, f"label class {_brief(column)} exceeds dataset class count {class_count}, {possible}")


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


def _brief(*columns: str, between: str = " ") -> str:
    """`columns` for an error message, each shortened: a number may have a million digits."""
    return between.join(column if len(column) <= SHOWN_LETTERS else f"{column[:SHOWN_LETTERS]}…" for column in columns)


def _clip(share: float) -> float:
    return min(max(share, 0.0), 1.0)
