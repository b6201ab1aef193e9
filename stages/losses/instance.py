"""Losses per box that several methods share: what boxes teach without masks, and what one scored mask per box teaches.

BoxInst (CVPR 2021) and BoxTeacher (arXiv 2210.05174), on the logits of semantic heads: see stages/losses/grid.py.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from stages.losses.batch import Batch, ramp
from stages.losses.config import HeadWeights, Share, Weight
from stages.losses.grid import Head, Scene, drawn_first, pool_masks, pool_mean
from stages.losses.method import Named
from stages.losses.pseudo_masks import Pseudo
from stages.losses.terms import (
    DILATION,
    colour_similarity,
    dice,
    edges,
    grow,
    log_same,
    mask_similarity,
    mean_where,
    projection,
)

PER_BOX_CELL, LEAST = 0.25, 0.02
"""Cells outside all boxes that have a loss, those where it is highest: so many per cell inside a box, at least this
share of those outside. Most of a surface is easy, and in a mean over all of it false positives would hardly count;
where boxes cover much, the hardest of the rest are defects without a box (our choice, after Shrivastava et al.
2016)."""


class BoxLossParams(HeadWeights):
    """Base of the `Params` of the box-supervised methods; values in brackets are published unless they are ours.

    `stride`: side in pixels of the grid's cells (4 in all of these papers; ours: 2 for cracks; 1: full resolution).
    `fine`, `binary`: weights of the heads (ours: 0.5 each); `binary` is None for a run without a binary head.
    `projection`, `pairwise`: weights of BoxInst's terms (1 and 1).
    `colour`: least colour similarity at which two neighbours should have the same label (0.3).
    `outside`: weight of the background term outside all boxes (ours: 1).
    `warmup`: share of the steps over which the pairwise term and the pseudo-mask losses rise to their full weight
    (10,000 of 90,000 steps: 0.11).
    """

    stride: Literal[1, 2, 4]
    projection: Weight
    pairwise: Weight
    colour: float = Field(gt=0, le=1)
    outside: Weight
    warmup: Share


def box_losses(seen: list[Head], on: Scene, batch: Batch, params: BoxLossParams, progress: float) -> Named:
    """What boxes teach without any mask: the three terms of BoxInst, weighted, summed over the heads."""
    outside = params.outside * outside_loss(seen, on)
    return projection_and_pairs(seen, on, batch, params, progress) | {"outside": outside}


def projection_and_pairs(
    seen: list[Head], on: Scene, batch: Batch, params, progress: float, counted: Tensor | None = None
) -> Named:
    """BoxInst's `projection` and `pairwise`; with `counted`, (N,) bool, only of these boxes, times their share of all.

    A trusted box has no pairwise term, because its pixels are known.
    `params` has `projection`, `pairwise`, `colour` and `warmup`, as in `BoxLossParams`.
    """
    alike, share = similar(on, batch.clean) >= params.colour, 1.0
    alike = alike & ~on.trusted[:, None, None, None]
    if counted is not None:
        alike, share = alike & counted[:, None, None, None], counted.sum() / max(len(counted), 1)
    rise = ramp(progress, params.warmup) * share
    return {
        "projection": params.projection * sum(head.weight * projection_loss(head, on, counted) for head in seen),
        "pairwise": rise * params.pairwise * sum(head.weight * pairwise_loss(head, on, alike) for head in seen),
    }


def similar(on: Scene, clean: Tensor) -> Tensor:
    """(N, 8, h, w) colour similarity in each box's image. `clean` (B, 3, H, W): the images without augmentation."""
    return colour_similarity(pool_mean(clean, on.stride))[on.boxes.image_index]


def projection_loss(head: Head, on: Scene, counted: Tensor | None = None) -> Tensor:
    """Mean over boxes of both Dice losses; 0 without a box. Only boxes `counted`, (N,) bool, have a loss."""
    each = projection(head.logits.sigmoid() * head.visible, on.inside, on.whole_xy)
    return (each if counted is None else each * counted).sum() / max(len(each), 1)


def pairwise_loss(head: Head, on: Scene, alike: Tensor) -> Tensor:
    """Mean of -log P_same over the pairs of similar colour of all boxes. `alike` (N, 8, h, w) bool: those pairs."""
    return mean_where(-log_same(head.logits), edges(on.inside, head.visible) & alike)


def outside_loss(seen: list[Head], on: Scene) -> Tensor:
    """Weighted sum over the heads of the mean -log p(background) over the hardest of the known cells further than
    DILATION from every box: PER_BOX_CELL of the batch's cells in boxes, at least LEAST of those outside; 0 where there
    are none (our choice)."""
    of_image = F.one_hot(on.boxes.image_index, len(on.known)).float()
    boxed = torch.einsum("nb,nhw->bhw", of_image, on.inside.float()) > 0
    outside = on.known & ~grow(boxed, DILATION)
    wanted = torch.maximum(PER_BOX_CELL * boxed.sum(), LEAST * outside.sum()).ceil()
    chosen = torch.arange(outside.numel(), device=outside.device) < torch.minimum(wanted, outside.sum())

    def hardest(head: Head) -> Tensor:
        # all others have a loss of 0, the least there is: a mask of unknown size would make a GPU wait
        each = torch.where(outside, -head.background, 0.0).flatten().sort(descending=True).values
        return mean_where(each, chosen)

    return sum(head.weight * hardest(head) for head in seen)


def pseudo_losses(seen: list[Head], on: Scene, pseudo: Pseudo, pixel: float, affinity: float) -> Named:
    """Both pseudo-mask losses, times `pixel` and `affinity`, summed over the heads.

    A trusted box has the mask that a person drew, with a score of 1, or of 0 if that mask is empty.
    """
    masks, score = drawn_first(on, pool_masks(pseudo.mask, on.stride)), pseudo.score
    if on.drawn is not None:
        score = torch.where(on.trusted, on.drawn.flatten(1).any(dim=1).to(score.dtype), score)
    return {
        "pixel": pixel * sum(head.weight * pixel_loss(head, masks, score) for head in seen),
        "affinity": affinity * sum(head.weight * affinity_loss(head, on, masks, score) for head in seen),
    }


def pixel_loss(head: Head, masks: Tensor, score: Tensor) -> Tensor:
    """(1 / N_p) sum s_i Dice(p_i, m_i), N_p the number of boxes with s > 0. `masks` (N, h, w) in [0, 1]."""
    return (score * dice(head.logits.sigmoid() * head.visible, masks)).sum() / _believed(score)


def affinity_loss(head: Head, on: Scene, masks: Tensor, score: Tensor) -> Tensor:
    """(1 / N_p) sum s_i A_i, A_i the mean of -log P_same over the box's pairs whose mask similarity is 0.5 or more."""
    pairs = edges(on.inside, head.visible) & (mask_similarity(masks) >= 0.5)
    each = torch.where(pairs, -log_same(head.logits), 0.0).flatten(1).sum(1) / pairs.flatten(1).sum(1).clamp(min=1)
    return (score * each).sum() / _believed(score)


def _believed(score: Tensor) -> Tensor:
    """N_p: the number of boxes with a score above 0, at least 1."""
    return (score > 0).sum().clamp(min=1)
