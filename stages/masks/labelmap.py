"""From the teacher's candidates for an image's boxes to its rows in the pseudo-mask tables. Needs no network.

Clipping: a mask ends at its box, enlarged on every side by `clip_margin` times the box's width (left, right) and
height (top, bottom); None leaves masks as they are. Overlaps: the smaller mask (after clipping) is on top, so that a
small defect on a large one stays visible; of equal masks the later box is on top. A box with an empty mask labels no
pixel.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from stages.data.boxes import Box, Window, corners, pixels_of_box
from stages.data.tables import encode_label_map
from stages.masks import rle

CANDIDATES_PER_BOX = 5


class Chosen(NamedTuple):
    """The mask chosen for one box: COCO run-length code at native size, class id, box in native pixels."""

    code: bytes
    class_id: int
    box_xyxy: Box


def candidate_rows(boxes: Sequence[dict], found: Sequence[dict], candidate: str) -> list[dict]:
    """Rows of the candidates table: for each row of the boxes table the next five of `found`, one chosen (`choose`)."""
    rows = []
    for number, box in enumerate(boxes):
        five = found[number * CANDIDATES_PER_BOX : (number + 1) * CANDIDATES_PER_BOX]
        chosen = choose([one["sam_pred_iou"] for one in five], candidate)
        rows += [box_columns(box) | one | {"chosen": index == chosen} for index, one in enumerate(five)]
    return rows


def box_columns(box: dict) -> dict:
    """The values that the candidates table takes from a row of the boxes table."""
    return {key: box[key] for key in ("box_id", "image_id", "class_id", "x1", "y1", "x2", "y2")}


def choose(predicted_iou: Sequence[float], candidate: str) -> int:
    """Index of the chosen candidate: `single` is 0, `refined` 4, `best` the highest predicted IoU of 1 to 3 (a tie: the
    first).
    """
    return {"single": 0, "refined": 4}.get(candidate, 1 + int(np.argmax(predicted_iou[1:4])))


def mask_row(image: dict, candidates: Sequence[dict], clip_margin: float | None, drawn: Collection[str] = ()) -> dict:
    """The row of the masks table for a row of the images table and the rows of its candidates.

    `drawn`: ids of boxes whose masks a person drew. These masks are not clipped, lie above all others, and are trusted;
    so is the background in their boxes, except where another box may label it.
    """
    size_hw, margins = (image["height"], image["width"]), {False: clip_margin, True: None}
    chosen = {by_hand: [] for by_hand in margins}
    for row in candidates:
        if row["chosen"]:
            chosen[row["box_id"] in drawn].append(Chosen(row["rle"], row["class_id"], corners(row)))
    below, above = (draw_label_map(chosen[by_hand], size_hw, margin) for by_hand, margin in margins.items())
    known = np.zeros(size_hw, bool)
    for by_hand, margin in ((True, 0.0), (False, clip_margin or 0.0)):
        for one in chosen[by_hand]:
            window = pixels_of_box(one.box_xyxy, size_hw, margin)
            known[window.y1 : window.y2, window.x1 : window.x2] = by_hand
    known = (known & (below == 0)) | (above > 0)
    return row_of(image, np.where(above, above, below), candidates, known if chosen[True] else None)


def row_of(image: dict, labels: np.ndarray, candidates: Sequence[dict], trusted: np.ndarray | None = None) -> dict:
    """The row of the masks table with (H, W) uint8 `labels`, of which a person drew those in (H, W) bool `trusted`."""
    copied = ("image_id", "path", "sha256", "exif_orientation", "height", "width", "label_status")
    return {key: image[key] for key in copied} | {
        "n_boxes": len({row["box_id"] for row in candidates}),
        "label_map": {"bytes": encode_label_map(labels), "path": None},
        "trusted": None if trusted is None else rle.encode(trusted, (0, 0), labels.shape),
    }


def draw_label_map(chosen: Sequence[Chosen], size_hw: tuple[int, int], clip_margin: float | None) -> np.ndarray:
    """(H, W) uint8 label map of the chosen masks: 0 = background, class id + 1. Rules: see the head of this file."""

    def part(index: int) -> tuple[Window, np.ndarray]:
        code, _, box_xyxy = chosen[index]
        if clip_margin is None:
            return Window(0, 0, size_hw[1], size_hw[0]), rle.decode(code, size_hw)
        window = pixels_of_box(box_xyxy, size_hw, clip_margin)
        return window, rle.decode_part(code, size_hw, window)

    return _overlay([one.class_id for one in chosen], part, size_hw)


def fill_boxes(class_ids: Sequence[int], boxes_xyxy: Sequence[Box], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 label map in which every box is filled, under the same overlap rule: the baseline for masks."""

    def part(index: int) -> tuple[Window, np.ndarray]:
        window = pixels_of_box(boxes_xyxy[index], size_hw)
        return window, np.ones(window.size_hw, bool)

    return _overlay(class_ids, part, size_hw)


def _overlay(
    class_ids: Sequence[int], part: Callable[[int], tuple[Window, np.ndarray]], size_hw: tuple[int, int]
) -> np.ndarray:
    """`part`: index -> window and the mask in it. Called twice per mask, so that only one is held in memory."""
    order = sorted(range(len(class_ids)), key=lambda index: (-int(part(index)[1].sum()), index))
    labels = np.zeros(size_hw, dtype=np.uint8)
    for index in order:
        window, mask = part(index)
        labels[window.y1 : window.y2, window.x1 : window.x2][mask] = class_ids[index] + 1
    return labels
