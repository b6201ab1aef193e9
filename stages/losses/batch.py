"""What a method of supervision is given: pixels, labels, boxes with SAM's masks, and what depends on time.

Every method is one file with

    losses(logits: Logits, batch: Batch, params, moment: Moment, teacher: Logits | None) -> tuple[Named, Named]

which returns its losses, weighted, by name (their sum is what is minimised), and figures for the curves (no gradient).
`logits` are the student's on `batch.image`, `teacher` the EMA student's on `batch.clean`, without gradient; a method
that needs none ignores it. A batch without a single box gives finite losses and teaches background.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SCORES = ("sam_pred_iou", "stability", "mean_prob_in", "box_iou")
"""Columns of the candidates table that are the scores of `Boxes`, in the order of its fields."""

Named = dict[str, Tensor]
"""Scalars by name."""


class Boxes(NamedTuple):
    """All boxes of a batch, N of them, with C candidate masks each. N may be 0."""

    image_index: Tensor  # (N,) int64, which image of the batch
    class_id: Tensor  # (N,) int64, 0..K-1
    xyxy: Tensor  # (N, 4) float32, window pixels, half-open; may reach beyond the window
    candidates: Tensor  # (N, C, S, S) bool, SAM's masks in the window; 0 its single-mask output, 1 to 3 its three
    valid: Tensor  # (N, C) bool, the candidate has pixels
    predicted_iou: Tensor  # (N, C) float32, SAM's own estimate, not clamped
    stability: Tensor  # (N, C) float32
    mean_prob: Tensor  # (N, C) float32, mean probability over the mask's pixels
    box_iou: Tensor  # (N, C) float32, of the mask's bounding box with the box
    chosen: Tensor  # (N,) int64, the candidate that rasterize painted

    def of_chosen(self, values: Tensor) -> Tensor:
        """`values` (N, C, ...) of each box's chosen candidate, (N, ...)."""
        return values[torch.arange(len(self.chosen), device=values.device), self.chosen]

    def where(self, keep: Tensor) -> "Boxes":
        """The boxes that `keep` names, (N,) bool or indices."""
        return Boxes(*(values[keep] for values in self))


def boxes_of(rows: Sequence[Sequence[dict]], xyxy: Tensor, candidates: Tensor) -> Boxes:
    """N boxes of one image, from the C rows of the candidates table that each has.

    `xyxy` (N, 4) and `candidates` (N, C, H, W) bool, the masks of the rows, in whichever frame.
    """
    return Boxes(
        torch.zeros(len(rows), dtype=torch.long),
        torch.tensor([each[0]["class_id"] for each in rows]),
        xyxy,
        candidates,
        torch.tensor([[row["area"] > 0 for row in each] for each in rows]),
        *(torch.tensor([[row[name] for row in each] for each in rows], dtype=torch.float32) for name in SCORES),
        torch.tensor([[row["chosen"] for row in each].index(True) for each in rows]),
    )


class Batch(NamedTuple):
    """B windows of S x S pixels."""

    image: Tensor  # (B, 3, S, S) float32 in [0, 1], photometrically augmented: the student's
    clean: Tensor  # (B, 3, S, S) float32, the same geometry, not augmented: the EMA teacher's, and for colours
    labels: Tensor  # (B, S, S) int64 in 0..K or IGNORE, 0 = background
    boxes: Boxes | None  # None where the method reads none

    def to(self, device: torch.device) -> "Batch":
        """The same on `device`."""
        boxes = None if self.boxes is None else Boxes(*(values.to(device) for values in self.boxes))
        return Batch(self.image.to(device), self.clean.to(device), self.labels.to(device), boxes)


class Thresholds(NamedTuple):
    """What `two_sided` has learnt about its student so far; see there."""

    invented: Tensor  # (K,) in [0, 1): below it, a painted pixel becomes background
    beyond: Tensor  # (K,) in (0, 1]: above it, background outside all boxes becomes the class


class Moment(NamedTuple):
    """What depends on time, or on the data as a whole."""

    progress: float  # share of the training steps done, in [0, 1]
    class_weights: Tensor  # (K+1,) of the cross-entropy, background first
    thresholds: Thresholds | None = None  # of a method that keeps any


def ramp(progress: float, warmup: float) -> float:
    """From 0 at the start up to 1 at `warmup`, a share of the training steps; 1 throughout where that is 0."""
    return min(progress / warmup, 1.0) if warmup > 0 else 1.0
