"""What is doubtful in the pseudo-mask of an image: about how many of its pixels are wrong, and why.

A box counts with the largest of its doubts; each predicted defect without a box is added. Images are ranked by the sum.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stages.data.boxes import corners, pixels_of_box
from stages.evaluation.components import regions
from stages.student.tiling import Prediction

FULL = 0.95
"""A mask fills its box from this share of the box's pixels on (our choice)."""

FULL_SIDE_PX = 4
"""Boxes with a shorter side may be filled by correct masks too."""

MARGIN = 0.1
"""A box grows by this share of its sides before something counts as outside; masks may too (`clip_margin`)."""

SURE = 0.9
"""A predicted region counts as sure from this mean probability on (our choice, as selfcorr.tau)."""

LEAST_PX = 16
"""Predicted regions of fewer pixels are left out."""

EMPTY = 0.5
"""Share of a box's pixels that an empty mask counts as wrong (our choice)."""

COLUMNS = ("image_id", "class_id", "x1", "y1", "x2", "y2", "chosen", "area_in_box", "separation", "agreement")
"""Of the candidates table."""


class Doubt(NamedTuple):
    """`wrong_px`: about how many pixels of one mask are wrong or missing."""

    wrong_px: float
    reason: str


def doubts(
    image: Mapping, chosen: Sequence[Mapping], names: Sequence[str], labels: np.ndarray | None, seen: Prediction | None
) -> list[Doubt]:
    """The doubts of one image, the largest first.

    `image`: a row of the masks table; `chosen`: COLUMNS of the candidates that were chosen for its boxes. `seen`: what
    a student predicts, None without one; then (H, W) uint8 `labels`, the pseudo-mask, is not needed.
    """
    size_hw = image["height"], image["width"]
    found = [max(_of_box(row, size_hw, labels, seen), key=lambda doubt: doubt.wrong_px) for row in chosen]
    found = [
        Doubt(wrong_px, f"{names[row['class_id']]} at {_middle(*corners(row))}: {reason}")
        for (wrong_px, reason), row in zip(found, chosen, strict=True)
    ]
    if seen is not None:
        found += _without_box(seen, chosen, size_hw, names)
    return sorted(found, key=lambda doubt: -doubt.wrong_px)


def _of_box(
    row: Mapping, size_hw: tuple[int, int], labels: np.ndarray | None, seen: Prediction | None
) -> Iterator[Doubt]:
    box = pixels_of_box(corners(row), size_hw)
    pixels, mask_px = box.size_hw[0] * box.size_hw[1], row["area_in_box"]
    if mask_px == 0:
        yield Doubt(EMPTY * pixels, "empty mask")
    if mask_px >= FULL * pixels and min(box.size_hw) >= FULL_SIDE_PX:
        yield Doubt(mask_px, f"the mask fills {mask_px / pixels:.0%} of its box")
    evidence = row["separation"] * row["agreement"]
    reason = f"evidence {evidence:.2f} (separation {row['separation']:.2f}, candidates agree {row['agreement']:.2f})"
    yield Doubt((1 - evidence) * mask_px, reason)
    if seen is not None:
        x1, y1, x2, y2 = pixels_of_box(corners(row), size_hw, MARGIN)
        teacher, student = (map_[y1:y2, x1:x2] == row["class_id"] + 1 for map_ in (labels, seen.labels))
        differ = int((teacher ^ student).sum())
        yield Doubt(differ, f"student and SAM differ in {differ} px")


def _without_box(
    seen: Prediction, boxes: Sequence[Mapping], size_hw: tuple[int, int], names: Sequence[str]
) -> Iterator[Doubt]:
    """Sure predicted regions of which half or more lies outside of all boxes."""
    found = regions(seen.labels)
    outside = np.ones(size_hw, bool)
    for row in boxes:
        x1, y1, x2, y2 = pixels_of_box(corners(row), size_hw, MARGIN)
        outside[y1:y2, x1:x2] = False
    shares, means = found.means(outside), found.means(seen.confidence)
    for number in np.flatnonzero((shares >= 0.5) & (means >= SURE) & (found.areas_px >= LEAST_PX)).tolist():
        rows, columns = np.nonzero(found.index == number + 1)
        place = _middle(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        reason = f"{len(rows)} px outside of all boxes, the student is {means[number]:.0%} sure"
        yield Doubt(float(means[number]) * len(rows), f"{names[found.class_ids[number]]} at {place}: {reason}")


def _middle(x1: float, y1: float, x2: float, y2: float) -> str:
    return f"({(x1 + x2) / 2:.0f}, {(y1 + y2) / 2:.0f})"


def in_words(found: Sequence[Doubt], most: int = 5) -> str:
    """The first `most` of `found` as one line."""
    more = [f"and {len(found) - most} more"] if len(found) > most else []
    return "; ".join([doubt.reason for doubt in found[:most]] + more)
