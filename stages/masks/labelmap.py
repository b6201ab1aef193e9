"""From one chosen mask per box to one class label map, with stated rules.

Clipping: a mask ends at its box, enlarged on every side by `clip_margin` times the box's width (left, right) and
height (top, bottom); None leaves masks as they are. Overlaps: larger masks (after clipping) are painted first, so
that a small defect on a large one stays visible; of equal masks the later box is painted last. An empty mask paints
nothing: no box is filled in its place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stages.data.boxes import Window, pixels_of_box
from stages.masks import rle


class Chosen(NamedTuple):
    """The mask chosen for one box: COCO code at native size, class id, box in native pixels, half-open."""

    code: bytes
    class_id: int
    box_xyxy: tuple[float, float, float, float]


def paint(chosen: Sequence[Chosen], size_hw: tuple[int, int], clip_margin: float | None) -> np.ndarray:
    """(H, W) uint8 label map: 0 = background, class id + 1. Rules: see above."""
    order = sorted(range(len(chosen)), key=lambda index: (-clipped_area(chosen[index], size_hw, clip_margin), index))
    labels = np.zeros(size_hw, dtype=np.uint8)
    for index in order:
        window, mask = _clipped(chosen[index], size_hw, clip_margin)
        labels[window.y1 : window.y2, window.x1 : window.x2][mask] = chosen[index].class_id + 1
    return labels


def fill_boxes(class_ids: Sequence[int], boxes_xyxy: Sequence[tuple], size_hw: tuple[int, int]) -> np.ndarray:
    """The label map of a teacher that fills every box, under the same overlap rule: (H, W) uint8."""
    windows = [pixels_of_box(box, size_hw) for box in boxes_xyxy]
    order = sorted(range(len(windows)), key=lambda index: (-np.prod(windows[index].size_hw), index))
    labels = np.zeros(size_hw, dtype=np.uint8)
    for index in order:
        window = windows[index]
        labels[window.y1 : window.y2, window.x1 : window.x2] = class_ids[index] + 1
    return labels


def clipped_area(chosen: Chosen, size_hw: tuple[int, int], clip_margin: float | None) -> int:
    """Pixels that clipping keeps."""
    return int(_clipped(chosen, size_hw, clip_margin)[1].sum())


def _clipped(chosen: Chosen, size_hw: tuple[int, int], clip_margin: float | None) -> tuple[Window, np.ndarray]:
    if clip_margin is None:
        return Window(0, 0, size_hw[1], size_hw[0]), rle.decode(chosen.code, size_hw)
    window = pixels_of_box(chosen.box_xyxy, size_hw, clip_margin)
    return window, rle.decode_part(chosen.code, size_hw, window)
