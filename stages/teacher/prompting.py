"""Prompt a teacher with the boxes of one image: four candidates per box. Everything that needs the network is here.

A window that all boxes share (the whole image) is encoded once; else each box has a window of its own. The decoder
runs once per chunk of boxes, and what it finds for a box does not depend on the other boxes.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from stages.common.errors import UserError
from stages.data.boxes import Box, Window, box_iou, pixels_of_box
from stages.masks import rle
from stages.teacher.candidates import Candidate, describe
from stages.teacher.config import RasterizeParams
from stages.teacher.promptable import Proposals, Teacher
from stages.teacher.windows import crop_window, to_input, whole_window

T = TypeVar("T")


class Chunks:
    """How many boxes are processed at once: at most `size`, halved each time that GPU memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, count: int, work: Callable[[slice], T]) -> Iterator[T]:
        """`work` on slices of range(count), in order. A slice that ran out of memory is repeated in halves.

        Raises UserError where memory does not suffice for a single box.
        """
        start = 0
        while start < count:
            some = slice(start, min(start + self.size, count))
            try:
                yield work(some)
                start = some.stop
                continue
            except torch.OutOfMemoryError:
                pass
            # only here are the error and the tensors that it refers to freed
            torch.cuda.empty_cache()
            if some.stop - some.start == 1:
                raise UserError(
                    "out of GPU memory with a single box: free the GPU, take a smaller weights.teacher, or run on the "
                    "CPU (python -m stages.rasterize --device cpu)"
                )
            self.size = (some.stop - some.start) // 2
            print(f"out of GPU memory: from here on {self.size} boxes at once", file=sys.stderr)


def prompted(
    teacher: Teacher, image: np.ndarray, boxes_xyxy: Sequence[Box], params: RasterizeParams, chunks: Chunks
) -> list[dict]:
    """Four candidates per box, in the order of the boxes: the columns of the candidates table that the teacher gives.

    `image`: (H, W, 3) uint8 RGB, upright. `boxes_xyxy`: native pixels, at least one.
    """
    size_hw = image.shape[:2]
    windows = [window_of(box, size_hw, params) for box in boxes_xyxy]
    found = predict(teacher, image, np.array(boxes_xyxy, dtype=np.float64), windows, chunks)
    return [
        _row(index, candidate, box, size_hw)
        for box, candidates in zip(boxes_xyxy, found, strict=True)
        for index, candidate in enumerate(candidates)
    ]


def window_of(box_xyxy: Box, size_hw: tuple[int, int], params: RasterizeParams) -> Window:
    """The window that is encoded for a box."""
    if params.view == "whole":
        return whole_window(size_hw)
    return crop_window(box_xyxy, size_hw, params.context, params.min_view_px)


@torch.inference_mode()
def predict(
    teacher: Teacher, image: np.ndarray, boxes_xyxy: np.ndarray, windows: Sequence[Window], chunks: Chunks
) -> Iterator[list[Candidate]]:
    """The four candidates of one box after the other, each box a prompt of its own.

    `image`: (H, W, 3) uint8 RGB. `boxes_xyxy`: (N, 4) native pixels. `windows`: N, to be encoded for each box.
    Logits are upsampled to native pixels one mask at a time, so memory does not grow with N.
    """
    cropped = [image[window.y1 : window.y2, window.x1 : window.x2] for window in windows]
    one_for_all = len(set(windows)) == 1
    shared = next(chunks.run(1, lambda _: teacher.encode(cropped[:1]))) if one_for_all else None

    def propose(some: slice) -> tuple[Sequence[Window], Proposals]:
        prompts = [
            to_input(box[None], window, teacher.frame)
            for box, window in zip(boxes_xyxy[some], windows[some], strict=True)
        ]
        embeddings = shared if one_for_all else teacher.encode(cropped[some])
        return windows[some], teacher.decode(embeddings, np.concatenate(prompts))

    for some, proposals in chunks.run(len(windows), propose):
        for window, logits, scores in zip(some, *proposals, strict=True):
            yield [
                describe(low_res, float(score), window, teacher.frame)
                for low_res, score in zip(logits, scores, strict=True)
            ]


def _row(index: int, found: Candidate, box_xyxy: Box, size_hw: tuple[int, int]) -> dict:
    return {
        "cand_idx": index,
        "rle": rle.encode(found.mask, found.tight[:2], size_hw),
        **measure(found.mask, found.tight, box_xyxy, size_hw),
        "sam_pred_iou": found.predicted_iou,
        "stability": found.stability,
        "mean_prob_in": found.mean_probability,
    }


def measure(mask: np.ndarray, tight: Window, box_xyxy: Box, size_hw: tuple[int, int]) -> dict:
    """Pixels of a mask, in all and on the pixels of the box, and the IoU of its bounding box with the box.

    `mask`: bool, the part of the image in `tight`, its bounding box (of no size where there is no pixel).
    """
    inside = pixels_of_box(box_xyxy, size_hw)
    left, right = (max(x - tight.x1, 0) for x in (inside.x1, inside.x2))
    top, bottom = (max(y - tight.y1, 0) for y in (inside.y1, inside.y2))
    return {
        "area": int(mask.sum()),
        "area_in_box": int(mask[top:bottom, left:right].sum()),
        "box_iou": box_iou(tight, box_xyxy) if mask.size else 0.0,
    }
