"""What a method of supervision is given: pixels, labels, boxes with the SAM teacher's masks, and training progress."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SCORES = {
    "sam_pred_iou": "predicted_iou",
    "mean_prob_in": "mean_prob",
    "box_iou": "box_iou",
    "separation": "separation",
    "agreement": "agreement",
}
"""Columns of the candidates table with the scores that losses read, and the fields of `Boxes` that hold them."""


class Boxes(NamedTuple):
    """All boxes of a batch, N of them, with C candidate masks each. N may be 0."""

    image_index: Tensor  # (N,) int64, which image of the batch
    class_id: Tensor  # (N,) int64, 0..K-1
    xyxy: Tensor  # (N, 4) float32, window pixels, half-open; may reach beyond the window
    candidates: Tensor  # (N, C, S, S) bool, masks in the window: SAM's single output, its three, the refined one
    valid: Tensor  # (N, C) bool, the candidate has pixels
    predicted_iou: Tensor  # (N, C) float32, SAM's own estimate, not clamped
    mean_prob: Tensor  # (N, C) float32, mean probability over the mask's pixels
    box_iou: Tensor  # (N, C) float32, of the mask's bounding box with the box
    separation: Tensor  # (N, C) float32, how far the mask differs in brightness from its surroundings
    agreement: Tensor  # (N, C) float32, mean IoU of the mask with all candidates of its box
    chosen: Tensor  # (N,) int64, the candidate that rasterize took for the labels

    def of_chosen(self, values: Tensor) -> Tensor:
        """`values` (N, C, ...) of each box's chosen candidate, (N, ...)."""
        return values[torch.arange(len(self.chosen), device=values.device), self.chosen]

    def where(self, keep: Tensor) -> "Boxes":
        """The boxes selected by `keep`, (N,) bool or indices."""
        return Boxes(*(values[keep] for values in self))


def boxes_of(rows: Sequence[Sequence[dict]], xyxy: Tensor, candidates: Tensor) -> Boxes:
    """N boxes of one image, from the C rows of the candidates table that each has.

    `xyxy` (N, 4) float32, and `candidates` (N, C, H, W) bool, the masks of the rows, both in pixels of the image or of
    a window. N may be 0.
    """
    shape = candidates.shape[:2]
    scores = {
        field: torch.tensor([[row[column] for row in each] for each in rows], dtype=torch.float32).reshape(shape)
        for column, field in SCORES.items()
    }
    return Boxes(
        image_index=torch.zeros(len(rows), dtype=torch.long),
        class_id=torch.tensor([each[0]["class_id"] for each in rows], dtype=torch.long),
        xyxy=xyxy,
        candidates=candidates,
        valid=torch.tensor([[row["area"] > 0 for row in each] for each in rows], dtype=torch.bool).reshape(shape),
        chosen=torch.tensor([[row["chosen"] for row in each].index(True) for each in rows], dtype=torch.long),
        **scores,
    )


class Batch(NamedTuple):
    """B windows of S x S pixels."""

    image: Tensor  # (B, 3, S, S) float32 in [0, 1], photometrically augmented: the student's
    clean: Tensor  # (B, 3, S, S) float32, the same geometry, not augmented: the EMA teacher's, and for colours
    labels: Tensor  # (B, S, S) int64 in 0..K or IGNORE, 0 = background
    boxes: Boxes | None  # None where the method reads none
    trusted: Tensor | None = None  # (B, S, S) bool, a person drew this label; None: no label of the split is trusted

    def correctable(self) -> Tensor:
        """(B, S, S) bool: pixels whose label a method may change or leave out."""
        return torch.ones_like(self.labels, dtype=torch.bool) if self.trusted is None else ~self.trusted

    def to(self, device: torch.device) -> "Batch":
        """The same on `device`."""
        boxes = None if self.boxes is None else Boxes(*(values.to(device) for values in self.boxes))
        trusted = None if self.trusted is None else self.trusted.to(device)
        return Batch(self.image.to(device), self.clean.to(device), self.labels.to(device), boxes, trusted)


class Moment(NamedTuple):
    """What depends on the training's progress, or on the data set as a whole."""

    progress: float  # share of the training steps done, in [0, 1]
    class_weights: Tensor  # (K+1,) of the cross-entropy, background first


def ramp(progress: float, warmup: float) -> float:
    """From 0 at the start up to 1 at `warmup`, a share of the training steps; 1 throughout where that is 0."""
    return min(progress / warmup, 1.0) if warmup > 0 else 1.0
