"""One photograph and its boxes -> its rows in the pseudo-mask tables."""

from collections.abc import Sequence

import numpy as np
from segment_anything.modeling import Sam

from stages.dataset.tables import encode_label_map
from stages.teacher import rle
from stages.teacher.candidates import SOURCES, Candidate, predict
from stages.teacher.config import RasterizeParams
from stages.teacher.labelmap import Chosen, paint, pixels_of_box
from stages.teacher.views import Window, crop_window, whole_window

Box = tuple[float, float, float, float]


def mask_row(image: dict, candidates: Sequence[dict], clip_margin: float | None) -> dict:
    """The photograph's row of the masks table, painted from the chosen among its candidate rows."""
    size_hw = (image["height"], image["width"])
    chosen = [Chosen(row["rle"], row["class_id"], _box(row)) for row in candidates if row["chosen"]]
    kept = ("image_id", "path", "sha256", "exif_orientation", "height", "width", "label_status")
    png = encode_label_map(paint(chosen, size_hw, clip_margin))
    return {key: image[key] for key in kept} | {"n_boxes": len(chosen), "label_map": {"bytes": png, "path": None}}


def candidate_rows(sam: Sam, photo: np.ndarray, boxes: Sequence[dict], params: RasterizeParams) -> list[dict]:
    """Four rows of the candidates table for each row of the boxes table, in order.

    `photo`: (H, W, 3) uint8 RGB, upright. All `boxes` are of this photograph; at least one.
    """
    size_hw = photo.shape[:2]
    corners = [_box(box) for box in boxes]
    windows = [view(corner, size_hw, params) for corner in corners]
    found = predict(sam, photo, np.array(corners, dtype=np.float64), windows, params.batch_size)
    return [
        row
        for box, window, candidates in zip(boxes, windows, found, strict=True)
        for row in _rows(box, window, candidates, size_hw, params)
    ]


def view(box_xyxy: Box, size_hw: tuple[int, int], params: RasterizeParams) -> Window:
    """What the encoder is to see for a box."""
    if params.view == "whole":
        return whole_window(size_hw)
    return crop_window(box_xyxy, size_hw, params.context, params.min_view_px)


def choose(predicted_iou: Sequence[float], candidate: str) -> int:
    """Index of the chosen candidate: `single` is 0, `best` the highest predicted IoU of 1 to 3 (a tie: the first)."""
    return 0 if candidate == "single" else 1 + int(np.argmax(predicted_iou[1:]))


def _rows(
    box: dict, window: Window, found: Sequence[Candidate], size_hw: tuple[int, int], params: RasterizeParams
) -> list[dict]:
    chosen = choose([candidate.predicted_iou for candidate in found], params.candidate)
    shared = {key: box[key] for key in ("box_id", "image_id", "class_id")} | _corners("", _box(box))
    shared |= _corners("prompt_", _box(box)) | _corners("view_", window)
    return [
        shared
        | {"cand_idx": index, "source": SOURCES[index], "chosen": index == chosen}
        | measure(candidate.mask, candidate.tight, _box(box), size_hw)
        | {
            "rle": rle.encode(candidate.mask, candidate.tight[:2], size_hw),
            "sam_pred_iou": candidate.predicted_iou,
            "stability": candidate.stability,
            "mean_prob_in": candidate.mean_probability,
        }
        for index, candidate in enumerate(found)
    ]


def measure(mask: np.ndarray, tight: Window, box_xyxy: Box, size_hw: tuple[int, int]) -> dict:
    """Area of a mask, in all and on the pixels of the box, and its bounding box with that one's IoU with the box.

    `mask`: bool, the part of the photograph in `tight`, its bounding box (zeros where there is no pixel).
    """
    inside = pixels_of_box(box_xyxy, size_hw)
    left, right = (max(x - tight.x1, 0) for x in (inside.x1, inside.x2))
    top, bottom = (max(y - tight.y1, 0) for y in (inside.y1, inside.y2))
    corners = tight if mask.size else Window(0, 0, 0, 0)
    return {
        "area": int(mask.sum()),
        "area_in_box": int(mask[top:bottom, left:right].sum()),
        **_corners("tight_", corners),
        "box_iou": box_iou(corners, box_xyxy),
    }


def box_iou(first: Box, second: Box) -> float:
    """IoU of two boxes; 0 where both have no area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(width, 0.0) * max(height, 0.0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - common
    return common / union if union > 0 else 0.0


def _box(row: dict) -> Box:
    return row["x1"], row["y1"], row["x2"], row["y2"]


def _corners(prefix: str, box_xyxy: Sequence[float]) -> dict[str, float]:
    return {f"{prefix}{name}": float(value) for name, value in zip(("x1", "y1", "x2", "y2"), box_xyxy, strict=True)}
