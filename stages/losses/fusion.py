"""BoxSeg's Quality-Aware Module (arXiv 2504.05137): several candidate masks per box, fused into one and scored.

Here the candidates are SAM's and the EMA teacher's mask:
- box-quality ranking, as released: candidates whose box has an IoU over 0.5 with the annotation and a score over 0.1
  (the release keeps the best 20 by that IoU; here there are at most six); a box without any has no pseudo-mask losses;
- fusion, `published` (from a summary of the paper): M = sum w_n m_n > 0.5, w_n in proportion to sqrt(score_n * IoU_n),
  over the K best, K linear in the square root of the area between two sizes (the constants were not found);
  `released`: strict majority of the masks B_n thresholded at 0.5, without weights or K; a tie is background;
- mask-quality scoring, as released: a_n = IoU(B_n, M) * sum(m_n B_n) / max(|M|, 1), Q_n = sqrt((c_n + 1) / 2 * a_n),
  Q their mean; Q takes the place of BoxTeacher's s. a_n is at most 1, and it is 1 for any B_n of probability 1 that
  contains M: a candidate that is too large costs nothing.

Departures: annotations replace detections, so candidates come from SAM, with its predicted IoU as the class score, and
from the EMA teacher, with its mean p; a candidate's box is its mask's bounding box, and c_n = sqrt(score_n * IoU_n),
where the box IoU replaces centre-ness. SAM's soft masks are not stored: m_n is the mean probability on the mask's
pixels, 0 elsewhere, and B_n is the mask itself, because the refined candidate may have pixels of a low probability.
SAM's three outputs are nested, not independent votes, so a majority tends to the middle one. K's constants are our
choice: 2 up to an area of 32 x 32 px, all from 96 x 96; candidates equal to the K-th best count too, so that their
order does not matter. Masks are clipped to the box before fusion.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from stages.losses.batch import Boxes
from stages.losses.pseudo_masks import Pseudo, class_probability, fit_of, mask_iou, mean_inside
from stages.student.segmenter import Logits

MIN_IOU, MIN_SCORE = 0.5, 0.1
"""Box-quality ranking: both have to be exceeded, as released."""

FEWEST, SMALL_PX, LARGE_PX = 2, 32.0, 96.0
"""K for boxes with an area up to SMALL_PX squared; from LARGE_PX squared it is all candidates (our choice)."""


class Peers(NamedTuple):
    """M candidates for each of N boxes."""

    mask: Tensor  # (N, M, H, W) bool, inside the box
    soft: Tensor  # (N, M, H, W) float in [0, 1], inside the box
    score: Tensor  # (N, M) in [0, 1], SAM's predicted IoU, or mean p of the EMA teacher's mask
    iou: Tensor  # (N, M) in [0, 1], of the mask's bounding box with the box


@torch.no_grad()
def peers(boxes: Boxes, inside: Tensor, ema: Logits | None) -> Peers:
    """SAM's candidates and, if `ema` is given, the EMA teacher's mask as the last one. `inside` (N, H, W) bool."""
    score = boxes.predicted_iou.clamp(0, 1) * boxes.valid
    masks = boxes.candidates & inside[:, None]
    found = Peers(masks, masks * boxes.mean_prob.clamp(0, 1)[..., None, None], score, boxes.box_iou)
    if ema is None:
        return found
    p = class_probability(ema.fine, boxes) * inside
    mask = p > 0.5
    own = Peers(mask, p, mean_inside(p, mask), fit_of(mask, inside))
    return Peers(*(torch.cat([sam, student[:, None]], dim=1) for sam, student in zip(found, own, strict=True)))


@torch.no_grad()
def judge(found: Peers, inside: Tensor, fusion: str) -> Pseudo:
    """Rank, fuse and score: one mask per box. `inside` (N, H, W) bool; `fusion`: `published` or `released`."""
    kept = rank(found)
    fused = fuse(found, kept, inside.sum((-2, -1)).float(), fusion)
    return Pseudo(fused, mask_quality(found, kept, fused))


def rank(found: Peers) -> Tensor:
    """(N, M) bool: candidates that may take part."""
    return (found.iou > MIN_IOU) & (found.score > MIN_SCORE)


def fuse(found: Peers, kept: Tensor, area: Tensor, fusion: str) -> Tensor:
    """(N, H, W) bool: the fused masks. `kept` (N, M) bool: see `rank`; `area` (N,): pixels of the box."""
    if fusion == "released":
        votes = (found.mask & kept[..., None, None]).sum(1)
        return votes * 2 > kept.sum(1)[:, None, None]
    weight = (found.score * found.iou).sqrt() * kept
    weight = weight * _among_best(weight, how_many(area, weight.shape[1]))
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-9)
    return torch.einsum("nm,nmhw->nhw", weight, found.soft) > 0.5


def how_many(area: Tensor, most: int) -> Tensor:
    """(N,) K: FEWEST up to SMALL_PX squared, `most` from LARGE_PX squared, in between linear in the root, rounded."""
    share = ((area.sqrt() - SMALL_PX) / (LARGE_PX - SMALL_PX)).clamp(0, 1)
    fewest = min(FEWEST, most)
    return (fewest + share * (most - fewest)).round()


def mask_quality(found: Peers, kept: Tensor, fused: Tensor) -> Tensor:
    """(N,) Q in [0, 1]: the mean of Q_n over the kept candidates; 0 without one, or where the fused mask is empty."""
    agreement = mask_iou(found.mask, fused[:, None])
    a = agreement * (found.soft * found.mask).sum((-2, -1)) / fused.sum((-2, -1)).clamp(min=1)[:, None]
    each = (((found.score * found.iou).sqrt() + 1) / 2 * a).sqrt()
    return (each * kept).sum(1) / kept.sum(1).clamp(min=1)


def _among_best(values: Tensor, count: Tensor) -> Tensor:
    """(N, M) bool: no lower than the count-th largest of the row. `count` (N,), 1 to M."""
    ordered = values.sort(dim=1, descending=True).values
    return values >= ordered.gather(1, count.long()[:, None] - 1)
