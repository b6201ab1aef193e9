"""One mask proposal of a teacher, from low-resolution logits to a mask at native size with its scores."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.data.boxes import Window
from stages.teacher.windows import InputFrame, View, input_size_hw

STABILITY_OFFSET = 1.0
"""Shift of the logit threshold for the stability score (the default of SAM's automatic mask generator)."""

LOGIT_LIMIT = 8.0
"""Limit on the logits of each view where several are joined: no view outvotes all others by its confidence alone."""


class Candidate(NamedTuple):
    """One mask for one box, and its scores. The mask has no pixel outside the window that was encoded."""

    tight: Window  # the bounding box of its pixels; an empty window where it has none
    mask: np.ndarray  # bool, native pixels, logit > 0: the part in `tight`
    predicted_iou: float  # the teacher's own estimate, not clamped
    stability: float  # IoU of the masks at logit > 1 and > -1; 0 where both are empty
    mean_probability: float  # over the mask's pixels; 0 where it has none
    probability: np.ndarray  # (H, W) float32 of the pixels of the box


def describe(low_res: Tensor, predicted_iou: float, window: Window, inside: Window, frame: InputFrame) -> Candidate:
    """The candidate of one box. `low_res`: logits (h, w) on the CPU, of the whole network input that shows `window`;
    `inside`: the pixels of the box."""
    rows, columns = _upsamplings(low_res, window, frame)
    # Images are large and defects small: upsample only the box, and what may exceed -STABILITY_OFFSET. An upsampled
    # logit is a weighted mean of cells, so it exceeds a value only where one of them does.
    perhaps = bounds((low_res > -STABILITY_OFFSET).numpy())
    top, bottom = _reach(rows, perhaps.y1, perhaps.y2, inside.y1 - window.y1, inside.y2 - window.y1)
    left, right = _reach(columns, perhaps.x1, perhaps.x2, inside.x1 - window.x1, inside.x2 - window.x1)
    logits = rows[:, top:bottom].T @ low_res @ columns[:, left:right]
    return _candidate(logits, predicted_iou, window.x1 + left, window.y1 + top, inside)


def join(
    low_res: Sequence[Tensor], predicted_iou: Sequence[float], views: Sequence[View], inside: Window, frame: InputFrame
) -> Candidate:
    """One candidate from the logits (h, w) of several views, whose parts cover `inside`, the pixels of the box.

    The logit of a pixel is the mean over the views whose part contains it, each limited to +-LOGIT_LIMIT and weighted
    by how deep inside the part the pixel lies. The predicted IoU is the mean over the views, weighted by the number of
    mask pixels in their parts; the plain mean where the mask is empty.
    """
    x1, y1 = (min(view.part[side] for view in views) for side in (0, 1))
    x2, y2 = (max(view.part[side] for view in views) for side in (2, 3))
    total, weights = torch.zeros(2, y2 - y1, x2 - x1)
    places = [
        (slice(view.part.y1 - y1, view.part.y2 - y1), slice(view.part.x1 - x1, view.part.x2 - x1)) for view in views
    ]
    for each, (window, _, part), place in zip(low_res, views, places, strict=True):
        rows, columns = _upsamplings(each, window, frame)
        rows = rows[:, part.y1 - window.y1 : part.y2 - window.y1]
        columns = columns[:, part.x1 - window.x1 : part.x2 - window.x1]
        weight = _depth(part.y2 - part.y1)[:, None] * _depth(part.x2 - part.x1)
        total[place] += weight * (rows.T @ each @ columns).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        weights[place] += weight
    # parts that do not overlap may leave pixels of their common bounding box that no view covers: no mask there
    logits = torch.where(weights > 0, total / weights.clamp(min=1e-12), -LOGIT_LIMIT)
    areas = np.array([int((logits[place] > 0).sum()) for place in places])
    return _candidate(logits, float(np.average(predicted_iou, weights=areas if areas.any() else None)), x1, y1, inside)


def _depth(length: int) -> Tensor:
    """(length,) weights that rise linearly from the ends of a part to its middle, all positive."""
    place = torch.arange(length) + 0.5
    return torch.minimum(place, length - place)


def _candidate(logits: Tensor, predicted_iou: float, left: int, top: int, inside: Window) -> Candidate:
    """The candidate from logits (H, W) of native pixels, the first at `left`, `top` of the image; no mask elsewhere."""
    mask = logits > 0
    largest, smallest = ((logits > threshold).sum() for threshold in (-STABILITY_OFFSET, STABILITY_OFFSET))
    return Candidate(
        *cut(mask.numpy(), left, top),
        predicted_iou,
        float(smallest / largest) if largest else 0.0,
        float(logits[mask].sigmoid().mean()) if mask.any() else 0.0,
        logits[inside.y1 - top : inside.y2 - top, inside.x1 - left : inside.x2 - left].sigmoid().numpy(),
    )


def _upsamplings(low_res: Tensor, window: Window, frame: InputFrame) -> list[Tensor]:
    """The matrices of `_upsampling` for the rows and for the columns of `window`."""
    used = input_size_hw(window, frame)
    return [
        _upsampling(cells, frame.side_px, part, length)
        for cells, part, length in zip(low_res.shape, used, window.size_hw, strict=True)
    ]


@lru_cache(maxsize=256)
def _upsampling(cells: int, side_px: int, used: int, length: int) -> Tensor:
    """(cells, length): the weight of each low-resolution cell in each of a window's `length` pixels, along one axis.

    `Sam.postprocess_masks` on unit vectors: linear to the input's `side_px`, cut to the `used` part that is not
    padding, linear to native pixels. Bilinear is linear in both axes, so two such matrices upsample a mask.
    """
    resized = F.interpolate(torch.eye(cells)[None], size=side_px, mode="linear", align_corners=False)
    return F.interpolate(resized[..., :used], size=length, mode="linear", align_corners=False)[0]


def _reach(weights: Tensor, start: int, stop: int, first: int, end: int) -> tuple[int, int]:
    """The half-open range that covers the pixels `first` to `end` and all to which the cells `start` to `stop`
    contribute. `weights`: see `_upsampling`."""
    pixels = np.flatnonzero((weights[start:stop] > 0).numpy().any(axis=0))
    return (min(first, int(pixels[0])), max(end, int(pixels[-1]) + 1)) if len(pixels) else (first, end)


def cut(mask: np.ndarray, left: int, top: int) -> tuple[Window, np.ndarray]:
    """The bounding box, in the image, of the pixels of `mask`, and the part of the mask in it.

    `mask`: (H, W) bool, its first pixel at `left`, `top` of the image.
    """
    x1, y1, x2, y2 = bounds(mask)
    return Window(left + x1, top + y1, left + x2, top + y2), mask[y1:y2, x1:x2]


def bounds(mask: np.ndarray) -> Window:
    """Bounding box of the pixels of a mask; (0, 0, 0, 0) where it has none."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return Window(0, 0, 0, 0)
    return Window(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
