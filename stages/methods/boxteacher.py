"""BoxTeacher (arXiv 2210.05174): BoxInst, and masks of an EMA teacher weighted by how far each can be believed.

Pseudo-mask losses as released [C]: noise-aware Dice, noise-reduced affinity counted per instance, both weighted by a
mask's confidence s and divided by the number of masks with s > 0; they rise with the pairwise term, and there is no
burn-in of its own. The confidence is the paper's s = sqrt(c * mean{p : p > 0.5, x in box}) [M]; the release takes
sqrt(c) under the root and the whole thresholded mask [C], which is the same at c = 1 inside the box. The student alone
sees strong photometric augmentation: `batch.image`, where `batch.clean` is the teacher's.

Departures: boxes are annotations, so c = 1 for the EMA's masks [O]. There is no detection to assign to a box: the EMA
mask of box i is p_k > 0.5 inside it, and it counts if its bounding box has an IoU of 0.5 with the box (what the window
shows of it) - the release assigns predictions greedily, with an occupancy test that lets the first one's match be
stolen, and ignores the class [C]. The fine head's mask serves both heads. Masks are thresholded at native pixels, and
a cell of the grid holds its share of mask, so that what is thinner than a cell survives. The teacher runs in evaluation
mode with averaged buffers, where the release leaves it in train mode with its own [C]. SAM as the source is ours: c is
then SAM's predicted IoU clamped to [0, 1], no detection score, and p its mean probability. With `sam_then_ema`
the EMA's mask replaces SAM's from when it counts and sqrt(fit * mean p) is no lower than SAM's score, where fit is the
IoU of the bounding boxes: its own c of 1 would win from the start.
"""

import torch
from torch import Tensor

from stages.losses.batch import Batch, Boxes, Moment, Named, ramp
from stages.losses.grid import Head, Scene, heads, pool_masks, scene
from stages.losses.pseudo_masks import Pseudo, box_pixels, ema_masks, sam_masks
from stages.losses.terms import dice, edges, log_same, mask_similarity
from stages.methods.boxinst import box_losses
from stages.methods.config import BoxTeacherParams
from stages.networks.student import Logits


def losses(
    logits: Logits, batch: Batch, params: BoxTeacherParams, moment: Moment, teacher: Logits | None
) -> tuple[Named, Named]:
    """BoxInst's losses, `pixel` and `affinity`; figures `mask_score`, a mean over boxes, and `ema_share` of them.

    `teacher` is needed but for the source `sam`.
    """
    on = scene(batch, params.stride)
    seen = heads(logits, on, params.fine, params.binary)
    pseudo, from_ema = choose(params.source, teacher, on.boxes, box_pixels(batch, on.boxes))
    named = box_losses(seen, on, batch, params, moment.progress)
    rise = ramp(moment.progress, params.warmup)
    named |= pseudo_losses(seen, on, pseudo, rise * params.pixel, rise * params.affinity)
    boxes = max(len(from_ema), 1)
    return named, {"mask_score": pseudo.score.sum() / boxes, "ema_share": from_ema.sum() / boxes}


@torch.no_grad()
def choose(source: str, teacher: Logits | None, boxes: Boxes, inside: Tensor) -> tuple[Pseudo, Tensor]:
    """Each box's mask, and whether it is the EMA's, (N,) bool. `inside` (N, S, S) bool: the pixels of the boxes."""
    if source == "sam":
        return sam_masks(boxes, inside), torch.zeros_like(boxes.class_id, dtype=torch.bool)
    ema, fit = ema_masks(teacher, boxes, inside)
    if source == "ema":
        return ema, ema.score > 0
    sam = sam_masks(boxes, inside)
    better = (ema.score > 0) & (ema.score * fit.sqrt() >= sam.score)
    mask = torch.where(better[:, None, None], ema.mask, sam.mask)
    return Pseudo(mask, torch.where(better, ema.score, sam.score)), better


def pseudo_losses(seen: list[Head], on: Scene, pseudo: Pseudo, pixel: float, affinity: float) -> Named:
    """Both pseudo-mask losses, times `pixel` and `affinity`, summed over the heads."""
    masks = pool_masks(pseudo.mask, on.stride)
    return {
        "pixel": pixel * sum(head.weight * pixel_loss(head, masks, pseudo.score) for head in seen),
        "affinity": affinity * sum(head.weight * affinity_loss(head, on, masks, pseudo.score) for head in seen),
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
    return (score > 0).sum().clamp(min=1)
