"""Two-sided correction, our own: Boxes2Pixels' losses on labels corrected for SAM's false positives and negatives.

Boxes2Pixels trusts every labelled pixel, and corrects background anywhere above one fixed tau. Here the evidence for
both kinds of error is SAM's candidates, the box that a person drew, and the EMA teacher on the image without
augmentation: s is its p(defect) by the fine head times that by the binary head, so that both have to agree. Below,
"agreed" are pixels on which all candidates of the box agree. After the warm-up:

- false positives: a labelled pixel becomes background where s is below two limits: the median of s over the agreed
  background in boxes of its class (it looks more like background than background typically does), and the 5 % quantile
  of s over the agreed pixels labelled with its class. The second limit protects a class that the student does not know
  yet: at most 5 % of the agreed pixels are lost.
- false negatives: outside all boxes a high s alone is no evidence, because defects that people did not box are subtle,
  and what the student is surest of there is clutter. So each class k has a threshold on s: the lowest value above which
  background outside all boxes, likeliest of class k, has no more pixels than background inside boxes of k, but at least
  tau_k, the 95 % quantile of s over the agreed pixels labelled k. Background outside all boxes with s above the
  threshold becomes k. Without such a value nothing is corrected: the rule waits until the student tells clutter from
  defects.
- unknown: background in a box whose mask is empty is ignored, because a person saw a defect there.

On some surfaces most of SAM's masks are wrong. Evidence for a mask is separation times agreement (teacher/evidence.py):
its pixels differ in brightness from those around, and the candidates agree. While its median over masks is below
`believed`, masks with less than that are doubted: the pixels of such a box are ignored, it teaches only by BoxInst's
projection and pairwise terms (CVPR 2021, stages/losses/instance.py), and val's masks do not choose the weights.

Medians and quantiles are over roughly the last hundred steps.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from stages.data.tables import IGNORE
from stages.losses.batch import Batch, Boxes, Moment
from stages.losses.config import HeadWeights, Share, Weight
from stages.losses.grid import heads, scene
from stages.losses.histogram import BINS, bin_edges, count_probabilities, quantile
from stages.losses.instance import projection_and_pairs
from stages.losses.method import Method as BaseMethod
from stages.losses.method import Named, TrainSplit
from stages.losses.pixel import binary_loss, weighted_cross_entropy
from stages.losses.pseudo_masks import box_pixels
from stages.student.segmenter import Logits

DECAY = 0.99
"""Factor on the earlier counts at each step, so that roughly the last hundred steps count."""

DOUBTED = 0.05
"""Of the labelled pixels on which all candidates agree: the share that may be called false positives, and the share
above tau_k."""

DEFECT, SOUND, INSIDE, BEYOND = range(4)
"""Kinds of pixels that are counted per class: DEFECT labelled, and all candidates agree; SOUND in a box, background,
and all agree; INSIDE in a box, background; BEYOND outside all boxes, background, of the likeliest class."""


class Params(HeadWeights):
    """`beta`: as in `loss`. `warmup`: share of the training steps before labels are corrected, and over which the
    pairwise term rises. `believed`: least evidence, in [0, 1], of the median mask, else of each mask (0.5); 0: none is
    doubted. The others: see `BoxLossParams`.
    """

    method: Literal["two_sided"]
    beta: float | None = Field(ge=0)
    warmup: Share
    believed: Share
    stride: Literal[1, 2, 4]
    projection: Weight
    pairwise: Weight
    colour: float = Field(gt=0, le=1)


class Method(BaseMethod):
    """Curves: `corrected_share` of background, `dropped_share` of labelled pixels, `doubted_share` of boxes."""

    reads_boxes = True
    reads_ema = True

    def __init__(self, params: Params, split: TrainSplit) -> None:
        super().__init__(params, split)
        self.histograms = RunningHistograms(len(split.source.names))

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        evidence = evidence_for_masks(batch.boxes)
        doubted = (evidence < self.params.believed) & (not self.judged_by_masks())
        known = batch._replace(labels=without(batch, doubted), boxes=batch.boxes.where(~doubted))
        self.histograms.update(observe(known, ema, self.histograms.pixels.shape[1]), evidence)
        named, shown = losses(logits, known, self.params, moment, ema, self.histograms.thresholds())
        named |= {"projection": logits.fine.new_zeros(()), "pairwise": logits.fine.new_zeros(())}
        if doubted.any():
            on = scene(batch, self.params.stride)
            seen = heads(logits, on, self.params.fine, self.params.binary)
            named |= projection_and_pairs(seen, on, batch, self.params, moment.progress, doubted[on.kept])
        return named, shown | {"doubted_share": doubted.sum() / max(len(doubted), 1)}

    def judged_by_masks(self) -> bool:
        """True while the median evidence for masks is at least `believed`."""
        return self.histograms.typical_evidence().item() >= self.params.believed


class Thresholds(NamedTuple):
    """(K,) limits of s: below `labelled` a labelled pixel becomes background; above `beyond` a BEYOND one a defect."""

    labelled: Tensor
    beyond: Tensor


class Corrected(NamedTuple):
    """(B, S, S) each: labels to learn from, background that became a defect, labelled pixels that became background."""

    labels: Tensor
    false_negatives: Tensor
    false_positives: Tensor


def losses(
    logits: Logits, batch: Batch, params: Params, moment: Moment, ema: Logits, at: Thresholds
) -> tuple[Named, Named]:
    """Losses on the labels corrected by the thresholds `at`, and values for the curves: see `Method`."""
    result = correct(batch, ema, params, moment.progress, at)
    named = {"fine": params.fine * weighted_cross_entropy(logits.fine, result.labels, moment.class_weights)}
    if logits.binary is not None and params.binary is not None:
        named["binary"] = params.binary * binary_loss(logits.binary, result.labels, params.beta)
    return named, {
        "corrected_share": result.false_negatives.sum() / (batch.labels == 0).sum().clamp(min=1),
        "dropped_share": result.false_positives.sum() / _labelled(batch).sum().clamp(min=1),
    }


def evidence_for_masks(boxes: Boxes) -> Tensor:
    """(N,) in [0, 1] of each box's chosen mask; 0 for one without a pixel."""
    return boxes.of_chosen(boxes.separation) * boxes.of_chosen(boxes.agreement)


def without(batch: Batch, doubted: Tensor) -> Tensor:
    """(B, S, S) labels, IGNORE in the `doubted` (N,) bool boxes, except in believed masks and at trusted pixels."""
    boxes, inside = batch.boxes, box_pixels(batch, batch.boxes)
    masks = boxes.of_chosen(boxes.candidates) & inside
    unknown = _any(inside[doubted], boxes.image_index[doubted], len(batch.labels))
    sure = _any(masks[~doubted], boxes.image_index[~doubted], len(batch.labels))
    return torch.where(unknown & ~sure & batch.correctable(), IGNORE, batch.labels)


def defect_probability(ema: Logits) -> Tensor:
    """(B, S, S) s: the fine head's probability of any defect, times the binary head's where there is one."""
    s = 1 - ema.fine.softmax(dim=1)[:, 0]
    return s if ema.binary is None else s * ema.binary.softmax(dim=1)[:, 1]


@torch.no_grad()
def observe(batch: Batch, ema: Logits, classes: int) -> Tensor:
    """(4, K, BINS) histograms of s in this batch, by kind of pixel and class. `classes`: K."""
    boxes, inside, defect = batch.boxes, box_pixels(batch, batch.boxes), defect_probability(ema)
    s, labels = defect[boxes.image_index], batch.labels[boxes.image_index]
    valid = boxes.valid[..., None, None]
    votes = boxes.candidates.sum(1) / valid.sum(1).clamp(min=1)
    labelled = boxes.of_chosen(boxes.candidates) & (labels == boxes.class_id[:, None, None] + 1)
    in_box = inside & (labels == 0)
    far = far_from_boxes(batch, inside)
    likeliest = ema.fine[:, 1:].argmax(dim=1)
    by_class = []
    for class_id in range(classes):
        own = (boxes.class_id == class_id)[:, None, None]
        sure = s[own & labelled & (votes == 1)]
        sound = s[own & in_box & (votes == 0) & valid.any(1)]
        beyond = defect[far & (likeliest == class_id)]
        by_class.append(torch.stack([count_probabilities(p) for p in (sure, sound, s[own & in_box], beyond)]))
    return torch.stack(by_class, dim=1)


@torch.no_grad()
def correct(batch: Batch, ema: Logits, params: Params, progress: float, at: Thresholds) -> Corrected:
    """The labels to learn from, by the rules above, at a share `progress` of the steps."""
    labelled = _labelled(batch)
    nothing = torch.zeros_like(labelled)
    if progress < params.warmup:
        return Corrected(batch.labels, nothing, nothing)
    inside, s, correctable = box_pixels(batch, batch.boxes), defect_probability(ema), batch.correctable()
    false_positives = labelled & correctable & (s < at.labelled[(batch.labels - 1).clamp(0, len(at.labelled) - 1)])
    empty = ~batch.boxes.of_chosen(batch.boxes.valid)
    unknown = (batch.labels == 0) & correctable & _any(inside[empty], batch.boxes.image_index[empty], len(labelled))
    labels = torch.where(false_positives, 0, torch.where(unknown, IGNORE, batch.labels))
    likeliest = ema.fine[:, 1:].argmax(dim=1)
    false_negatives = far_from_boxes(batch, inside) & (s > at.beyond[likeliest])
    return Corrected(torch.where(false_negatives, likeliest + 1, labels), false_negatives, false_positives)


def far_from_boxes(batch: Batch, inside: Tensor) -> Tensor:
    """(B, S, S) bool: background that nobody drew, in none of the boxes, whose pixels are `inside` (N, S, S) bool."""
    return (batch.labels == 0) & batch.correctable() & ~_any(inside, batch.boxes.image_index, len(batch.labels))


def _labelled(batch: Batch) -> Tensor:
    """(B, S, S) bool: labelled a defect."""
    return (batch.labels > 0) & (batch.labels != IGNORE)


def _any(masks: Tensor, image_index: Tensor, images: int) -> Tensor:
    """(B, H, W) bool: in any of the masks (N, H, W) of the image."""
    result = torch.zeros(images, *masks.shape[1:], dtype=torch.bool, device=masks.device)
    for mask, image in zip(masks, image_index.tolist(), strict=True):
        result[image] |= mask
    return result


class RunningHistograms(nn.Module):
    """Decaying histograms of s by kind of pixel and class, and of the evidence for masks. Checkpoints hold them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("pixels", torch.zeros(4, classes, BINS))
        self.register_buffer("masks", torch.zeros(BINS))

    @torch.no_grad()
    def update(self, counts: Tensor, evidence: Tensor) -> None:
        """Add a batch's `observe` and `evidence_for_masks`."""
        self.pixels.mul_(DECAY).add_(counts)
        self.masks.mul_(DECAY).add_(count_probabilities(evidence))

    def typical_evidence(self) -> Tensor:
        """Scalar median of the evidence for masks; 1 before any mask was seen."""
        return quantile(self.masks[None], bin_edges(self.masks.device), 0.5, empty=1.0)[0]

    def thresholds(self) -> Thresholds:
        """The thresholds by the counts so far; for a class that was not seen they correct nothing."""
        edges = bin_edges(self.pixels.device)
        typical_background = quantile(self.pixels[SOUND], edges, 0.5, empty=0.0)
        low_defect = quantile(self.pixels[DEFECT], edges, DOUBTED, empty=0.0)
        return Thresholds(torch.minimum(typical_background, low_defect), beyond(self.pixels, self.tau(), edges))

    def tau(self) -> Tensor:
        """(K,) in (0, 1]: the 95 % quantile of DEFECT; 1 for a class that was not seen."""
        return quantile(self.pixels[DEFECT], bin_edges(self.pixels.device), 1 - DOUBTED, empty=1.0)


def beyond(pixels: Tensor, tau: Tensor, edges: Tensor) -> Tensor:
    """(K,) lowest bin edge, at least `tau`, above which BEYOND has no more pixels than INSIDE; 1 if there is none."""
    above = pixels.flip(-1).cumsum(-1).flip(-1)
    allowed = (above[BEYOND] <= above[INSIDE]) & (above[INSIDE] > 0) & (edges[:-1] >= tau[:, None])
    return torch.where(allowed, edges[:-1], 1.0).amin(dim=1)
