"""One mask proposal of a teacher, from low-resolution logits to a mask at native size with its scores."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.data.boxes import Window
from stages.teacher.windows import InputFrame, input_size_hw

STABILITY_OFFSET = 1.0
"""Shift of the logit threshold for the stability score (the default of SAM's automatic mask generator)."""


class Candidate(NamedTuple):
    """One mask for one box, and its scores. The mask has no pixel outside the window that was encoded."""

    tight: Window  # the bounding box of its pixels; a window of no size where it has none
    mask: np.ndarray  # bool, native pixels, logit > 0: the part in `tight`
    predicted_iou: float  # the teacher's own estimate, not clamped
    stability: float  # IoU of the masks at logit > 1 and > -1; 0 where both are empty
    mean_probability: float  # over the mask's pixels; 0 where it has none


def describe(low_res: Tensor, predicted_iou: float, window: Window, frame: InputFrame) -> Candidate:
    """The candidate of `window` from logits (h, w) on the CPU, which cover the whole network input."""
    rows, columns = (
        _upsampling(cells, frame.side_px, used, length)
        for cells, used, length in zip(low_res.shape, input_size_hw(window, frame), window.size_hw, strict=True)
    )
    # only where there may be mask (images are large, defects small): upsampled logits are weighted means of these
    perhaps = _bounds(low_res > -STABILITY_OFFSET)
    top, bottom = _reach(rows, perhaps.y1, perhaps.y2)
    left, right = _reach(columns, perhaps.x1, perhaps.x2)
    logits = rows[:, top:bottom].T @ low_res @ columns[:, left:right]
    mask = logits > 0
    tight = _bounds(mask)
    largest, smallest = ((logits > threshold).sum() for threshold in (-STABILITY_OFFSET, STABILITY_OFFSET))
    left, top = window.x1 + left, window.y1 + top
    return Candidate(
        Window(left + tight.x1, top + tight.y1, left + tight.x2, top + tight.y2),
        mask[tight.y1 : tight.y2, tight.x1 : tight.x2].numpy(),
        predicted_iou,
        float(smallest / largest) if largest else 0.0,
        float(logits[mask].sigmoid().mean()) if mask.any() else 0.0,
    )


@lru_cache(maxsize=256)
def _upsampling(cells: int, side_px: int, used: int, length: int) -> Tensor:
    """(cells, length): the weight of each low-resolution cell in each of a window's `length` pixels, along one axis.

    `Sam.postprocess_masks` on unit vectors: linear to the input's `side_px`, cut to the `used` part that is not
    padding, linear to native pixels. Bilinear is linear in both axes, so two such matrices upsample a mask.
    """
    resized = F.interpolate(torch.eye(cells)[None], size=side_px, mode="linear", align_corners=False)
    return F.interpolate(resized[..., :used], size=length, mode="linear", align_corners=False)[0]


def _reach(weights: Tensor, start: int, stop: int) -> tuple[int, int]:
    """First and end pixel of those that cells `start` to `stop` contribute to; (0, 0) for none."""
    pixels = np.flatnonzero((weights[start:stop] > 0).numpy().any(axis=0))
    return (int(pixels[0]), int(pixels[-1]) + 1) if len(pixels) else (0, 0)


def _bounds(mask: Tensor) -> Window:
    """Bounding box of the pixels of a mask on the CPU; (0, 0, 0, 0) where it has none."""
    # numpy's `any` is several times faster than PyTorch's
    rows, columns = (np.flatnonzero(mask.numpy().any(axis)) for axis in (1, 0))
    if not len(rows):
        return Window(0, 0, 0, 0)
    return Window(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
