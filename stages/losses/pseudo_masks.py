"""Masks of boxes at native pixels: those of the EMA teacher and of SAM, and how well their extent fits the box."""

from typing import NamedTuple

import torch
from torch import Tensor

from stages.data.tables import IGNORE
from stages.losses.batch import Batch, Boxes
from stages.losses.grid import box_cells
from stages.student.segmenter import Logits


class Pseudo(NamedTuple):
    """One mask per box, and its confidence."""

    mask: Tensor  # (N, H, W) bool, inside the box
    score: Tensor  # (N,) in [0, 1]; 0: teaches nothing


def box_pixels(batch: Batch, boxes: Boxes) -> Tensor:
    """(N, S, S) bool: the image's pixels in each box."""
    inside = box_cells(boxes.xyxy, batch.labels.shape[-2:], stride=1)
    return inside & (batch.labels != IGNORE)[boxes.image_index]


def class_probability(logits: Tensor, boxes: Boxes) -> Tensor:
    """(N, H, W) probability of each box's class by the fine head's `logits` (B, K+1, H, W), no gradient."""
    return logits.detach().softmax(dim=1)[boxes.image_index, boxes.class_id + 1]


def tight_boxes(masks: Tensor) -> Tensor:
    """(N, 4) float32 bounding boxes of (N, H, W) bool masks, half-open; zeros where a mask is empty."""
    corners = []
    for axis in (1, 2):
        along = masks.any(dim=axis).float()  # over rows: x; over columns: y
        length = along.shape[1]
        first = along.argmax(dim=1)
        last = length - along.flip(1).argmax(dim=1)
        corners.append((first, last))
    (x1, x2), (y1, y2) = corners
    return torch.stack([x1, y1, x2, y2], dim=1).float() * masks.flatten(1).any(dim=1)[:, None]


def pairwise_box_iou(first: Tensor, second: Tensor) -> Tensor:
    """(N,) IoU of the boxes in equal rows of (N, 4) and (N, 4); 0 where both have no area."""
    sides = torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])
    common = sides.clamp(min=0).prod(dim=1)
    union = (first[:, 2:] - first[:, :2]).prod(dim=1) + (second[:, 2:] - second[:, :2]).prod(dim=1) - common
    return torch.where(union > 0, common / union.clamp(min=1e-9), 0.0)


def mask_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of bool masks over the last two axes, broadcast over the others; 0 where both are empty."""
    return (first & second).sum((-2, -1)) / (first | second).sum((-2, -1)).clamp(min=1)


def fit_of(masks: Tensor, inside: Tensor) -> Tensor:
    """(N,) IoU of each mask's bounding box with the part of its box that the window shows."""
    return pairwise_box_iou(tight_boxes(masks), tight_boxes(inside))


def mean_inside(values: Tensor, masks: Tensor) -> Tensor:
    """(N,) mean of `values` over each mask's pixels; 0 where it has none."""
    return (values * masks).sum((-2, -1)) / masks.sum((-2, -1)).clamp(min=1)


def sam_masks(boxes: Boxes, inside: Tensor) -> Pseudo:
    """The candidate that rasterize chose, clipped to its box; score sqrt(predicted IoU * mean probability)."""
    mask = boxes.of_chosen(boxes.candidates) & inside
    believed = mask.flatten(1).any(dim=1)
    score = (boxes.of_chosen(boxes.predicted_iou).clamp(0, 1) * boxes.of_chosen(boxes.mean_prob).clamp(0, 1)).sqrt()
    return Pseudo(mask, score * believed)


def ema_masks(teacher: Logits, boxes: Boxes, inside: Tensor) -> tuple[Pseudo, Tensor]:
    """The EMA teacher's masks p > 0.5 inside the boxes, and their fit (N,); score sqrt(mean p), 0 for a fit < 0.5."""
    p = class_probability(teacher.fine, boxes)
    mask = (p > 0.5) & inside
    fit = fit_of(mask, inside)
    return Pseudo(mask, mean_inside(p, mask).sqrt() * (fit >= 0.5)), fit


@torch.no_grad()
def choose(source: str, ema: Logits | None, boxes: Boxes, inside: Tensor) -> tuple[Pseudo, Tensor]:
    """Each box's mask, and whether it is the EMA teacher's, (N,) bool. `inside` (N, S, S) bool: the pixels of the
    boxes.

    `source`: `sam`, `ema`, or `sam_then_ema`: the EMA teacher's mask if its score is above 0 and sqrt(fit * mean p) is
    at least SAM's score (fit: see `fit_of`), else SAM's.
    """
    if source == "sam":
        return sam_masks(boxes, inside), torch.zeros_like(boxes.class_id, dtype=torch.bool)
    own, fit = ema_masks(ema, boxes, inside)
    if source == "ema":
        return own, own.score > 0
    sam = sam_masks(boxes, inside)
    better = (own.score > 0) & (own.score * fit.sqrt() >= sam.score)
    mask = torch.where(better[:, None, None], own.mask, sam.mask)
    return Pseudo(mask, torch.where(better, own.score, sam.score)), better
