"""One image and its boxes -> what SAM says of them: all that costs, and nothing that is decided afterwards."""

from collections.abc import Sequence

import numpy as np
from segment_anything.modeling import Sam

from stages.data.boxes import Box, Window, box_iou, pixels_of_box
from stages.masks import rle
from stages.teacher.candidates import SOURCES, Candidate, predict
from stages.teacher.chunks import Chunks
from stages.teacher.config import RasterizeParams
from stages.teacher.windows import crop_window, whole_window


def prompted(
    sam: Sam, photo: np.ndarray, boxes_xyxy: Sequence[Box], params: RasterizeParams, chunks: Chunks
) -> list[dict]:
    """Four candidates for each box, in order: the columns of the candidates table that SAM answers for.

    `photo`: (H, W, 3) uint8 RGB, upright. `boxes_xyxy`: native pixels, at least one.
    """
    size_hw = photo.shape[:2]
    windows = [view(box, size_hw, params) for box in boxes_xyxy]
    found = predict(sam, photo, np.array(boxes_xyxy, dtype=np.float64), windows, chunks)
    return [
        row
        for box, window, candidates in zip(boxes_xyxy, windows, found, strict=True)
        for row in _rows(box, window, candidates, size_hw)
    ]


def view(box_xyxy: Box, size_hw: tuple[int, int], params: RasterizeParams) -> Window:
    """What the encoder is to see for a box."""
    if params.view == "whole":
        return whole_window(size_hw)
    return crop_window(box_xyxy, size_hw, params.context, params.min_view_px)


def _rows(box: Box, window: Window, found: Sequence[Candidate], size_hw: tuple[int, int]) -> list[dict]:
    shared = _corners("prompt_", box) | _corners("view_", window)
    return [
        shared
        | {"cand_idx": index, "source": SOURCES[index]}
        | measure(candidate.mask, candidate.tight, box, size_hw)
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

    `mask`: bool, the part of the image in `tight`, its bounding box (zeros where there is no pixel).
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


def _corners(prefix: str, box_xyxy: Sequence[float]) -> dict[str, float]:
    return {f"{prefix}{name}": float(value) for name, value in zip(("x1", "y1", "x2", "y2"), box_xyxy, strict=True)}
