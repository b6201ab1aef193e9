"""Prompt a teacher with the boxes of one image: five candidates per box. Everything that needs the network is here.

A window that all boxes share (the whole image) is encoded once; otherwise each box has a window of its own, or several
for its pieces. The decoder runs once per chunk of prompts; the result for a box does not depend on the other boxes.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import torch

from stages.common.errors import UserError
from stages.data.boxes import Box, Window, box_iou, pixels_of_box
from stages.masks import rle
from stages.teacher.candidates import Candidate, describe, join
from stages.teacher.config import RasterizeParams
from stages.teacher.evidence import evidence, surroundings
from stages.teacher.hygiene import clean
from stages.teacher.promptable import Proposals, Teacher
from stages.teacher.refinement import refine
from stages.teacher.windows import View, grown, to_input, views_of

T = TypeVar("T")

LEAST_SEPARATION, LEAD = 0.6, 0.1
"""Least separation of the mask from a box's pieces, and by how much it has to exceed that of the mask from the whole
view; chosen on val, see RESULTS.md."""


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
            # the error, and the tensors that it refers to, are freed only after the except clause
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
    """Five candidates per box, in the order of the boxes: rows with the columns of the candidates table that the
    teacher gives. First its own four, then the one refined from them (stages/teacher/refinement.py).

    `image`: (H, W, 3) uint8 RGB, upright. `boxes_xyxy`: native pixels, at least one.
    """
    size_hw = image.shape[:2]
    views = [views_of(grown(box, size_hw, params.grow), size_hw, params, teacher.frame) for box in boxes_xyxy]
    rows = []
    for box, several, candidates in zip(boxes_xyxy, views, predict(teacher, image, views, chunks), strict=True):
        place = surroundings(image, several[0].box_xyxy)
        votes, scores = [one.probability for one in candidates], [one.predicted_iou for one in candidates]
        refined = refine(place, votes, scores, params.min_part)
        found = [clean(one, box, params) for one in (*candidates, refined)]
        seen = evidence(place.levels, [place.show(one.mask, one.tight[:2]) for one in found])
        rows += [_row(index, one, box, size_hw) | seen[index] for index, one in enumerate(found)]
    return rows


@torch.inference_mode()
def predict(
    teacher: Teacher, image: np.ndarray, views: Sequence[Sequence[View]], chunks: Chunks
) -> Iterator[list[Candidate]]:
    """The four candidates of each box, in order. Each view of a box is a prompt of its own.

    `image`: (H, W, 3) uint8 RGB. `views`: per box the view of the whole box, then those of its pieces, if any. With
    pieces, the candidates are those of the joined pieces where `_stand_out` says so, else those of the first view.
    Logits are upsampled to native pixels one mask at a time, so memory does not grow with N.
    """
    boxes, pieces = [several[0] for several in views], [view for several in views for view in several[1:]]
    if len(boxes) > 1 and len({view.window for view in boxes}) == 1:  # encoded once, apart from the pieces
        of_boxes, of_pieces = (proposed(teacher, image, each, chunks) for each in (boxes, pieces))
    else:
        of_boxes = of_pieces = proposed(teacher, image, [view for several in views for view in several], chunks)
    for several in views:
        (low_res, scores), first = next(of_boxes), several[0].window
        inside = pixels_of_box(several[0].box_xyxy, image.shape[:2])
        seen = zip(low_res, scores.tolist(), strict=True)
        whole = [describe(*one, first, inside, teacher.frame) for one in seen]
        if len(several) == 1:
            yield whole
            continue
        logits, scores = (torch.stack(part, dim=1) for part in zip(*islice(of_pieces, len(several) - 1), strict=True))
        seen = zip(logits, scores.tolist(), strict=True)
        joined = [join(*one, several[1:], inside, teacher.frame) for one in seen]
        yield joined if _stand_out(joined, whole, image, several[0].box_xyxy) else whole


def proposed(
    teacher: Teacher, image: np.ndarray, views: Sequence[View], chunks: Chunks
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The low-resolution logits (4, h, w) and predicted IoUs (4,) of each view, in order. A window that all of them
    share is encoded once."""
    windows = [view.window for view in views]
    cropped = [image[window.y1 : window.y2, window.x1 : window.x2] for window in windows]
    one_for_all = len(set(windows)) == 1
    shared = next(chunks.run(1, lambda _: teacher.encode(cropped[:1]))) if one_for_all else None

    def propose(some: slice) -> Proposals:
        prompts = [to_input(np.array([view.box_xyxy]), view.window, teacher.frame) for view in views[some]]
        embeddings = shared if one_for_all else teacher.encode(cropped[some])
        return teacher.decode(embeddings, np.concatenate(prompts))

    for some in chunks.run(len(views), propose):
        yield from zip(*some, strict=True)


def _stand_out(joined: Sequence[Candidate], whole: Sequence[Candidate], image: np.ndarray, box_xyxy: Box) -> bool:
    """Whether the best mask of the pieces (of the last three, by predicted IoU) differs enough from its surroundings.

    A thin defect needs the scale of the pieces, a compact one needs its outline in one view. The predicted IoU does not
    tell which.
    """
    place = surroundings(image, box_xyxy)
    best = [max(four[1:], key=lambda one: one.predicted_iou) for four in (joined, whole)]
    pieces, view = evidence(place.levels, [place.show(one.mask, one.tight[:2]) for one in best])
    return pieces["separation"] >= max(LEAST_SEPARATION, view["separation"] + LEAD)


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
    """Number of pixels of a mask, in total and inside the box, and the IoU of its bounding box with the box.

    `mask`: bool, of the part of the image in `tight`, its bounding box (empty where the mask has no pixel).
    """
    inside = pixels_of_box(box_xyxy, size_hw)
    left, right = (max(x - tight.x1, 0) for x in (inside.x1, inside.x2))
    top, bottom = (max(y - tight.y1, 0) for y in (inside.y1, inside.y2))
    return {
        "area": int(mask.sum()),
        "area_in_box": int(mask[top:bottom, left:right].sum()),
        "box_iou": box_iou(tight, box_xyxy) if mask.size else 0.0,
    }
