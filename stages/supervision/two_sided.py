"""Two-sided correction, our own [O]: Boxes2Pixels' losses, after what the teacher missed and what it invented.

Boxes2Pixels believes every painted pixel, and corrects background anywhere above one fixed tau. Here each pixel of the
cross-entropy and of the asymmetric Dice has a weight, and both of the teacher's errors are looked for with the same
evidence: SAM's candidates, the box that a person drew, and the EMA student on the image that was not augmented.

How far a label is to be believed (the weight):
- v, the share of SAM's candidates of the box that say the same of the pixel: v where the mask was painted, 1 - v on
  background in the box. Background outside all boxes keeps weight 1.
- times the trust in the box's mask as a whole: min(1, q / typical q), q = predicted IoU * mean IoU of all pairs of
  candidates; a mask at least as good as the typical (the running median) counts in full. After the warm-up, times the
  same of the student's opinion: the soft IoU of the mask with s (below) in the box; how sure the student is in general
  cancels against the typical. An empty mask has q = 0: its box teaches only what
  is found missed in it.
Weights are then scaled to a mean of 1 over the batch's defect pixels, and over its background in boxes: doubt about one
pixel is trust in another, and defects count for as much as in Boxes2Pixels. Without it the painted mean is 0.62, and
the student learns to leave defects out.
BoxTeacher's and BoxSeg's scores are what this grew from; the IoU of the mask's bounding box, which both lean on, ranks
masks no better than chance on the demo, and candidates' agreement best (see below).

What a label becomes (after the warm-up), s being the EMA student's p(defect) by the fine head times that by the binary
head, so that both have to agree:
- missed: background in a box becomes the box's class where at least one candidate has the pixel and s > tau_k, the
  median of s over the pixels painted k on which all candidates agree: the student is surer than on the typical true
  pixel. Its weight is the share of votes, the student's counted as one more candidate's.
- invented: a painted pixel weighs nothing where s < the median of s over the background in boxes of its class on which
  all candidates agree: it looks more like background than background typically does.
- beyond the boxes nobody vouches for a defect, and confidence alone is no evidence: what people did not box is subtle,
  and what the student is surest of there is clutter. So background outside all boxes becomes the likeliest class only
  above the lowest s (no lower than tau_k) at which such pixels are no more numerous than surprises of the class inside
  boxes; where clutter outnumbers them at every level, never. At least half of all surprises then lie where a person saw
  something, and the rule opens by itself once the student tells clutter from defects.
Medians are of the last hundred steps or so (`typical.py`), so no number is set by hand, and a student that is never
surer than 0.5 of a true pixel still has a tau.

On the demo, with one `boxes2pixels` student after 1,000 steps, against the exact truth of val (in brackets: of 100
photographs of train), by which the rules were chosen: Spearman of q with the mask's IoU 0.81 (0.76), of the student's
soft IoU 0.52 (0.54), of the bounding box's IoU -0.13 (0.08). Of painted pixels on which all candidates agree 14 %
(13 %) are wrong, of the others 45 % and more; weights lower the wrong share of the painted weight from 28 % to 14 %
(23 % to 12 %). 97 % (83 %) of the pixels found invented were; 0.4 % of right ones were lost. 45 % (62 %) of those
found missed in boxes were; outside of them, no threshold that was tried came above 7 % (0.1 %), and there the rule
never fires. These figures are of the labels alone: what a student learns from them has not been measured here.

With `tau` a number, background anywhere is corrected as in the paper: the student's own p_k above tau.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from stages.student.model import Logits
from stages.supervision.batch import IGNORE, Batch, Boxes, Moment, Named, Thresholds
from stages.supervision.boxes2pixels import binary_loss, correct_labels, weighted_cross_entropy
from stages.supervision.config import TwoSidedParams
from stages.supervision.masks import box_pixels, mask_iou
from stages.supervision.typical import Seen, count_probabilities, count_qualities


class Evidence(NamedTuple):
    """What speaks for and against the labels in N boxes, at native pixels."""

    boxes: Boxes
    inside: Tensor  # (N, S, S) bool: pixels of the box
    painted: Tensor  # (N, S, S) bool: pixels that the box's mask painted with its class
    votes: Tensor  # (N, S, S) share of the valid candidates that have the pixel
    sam: Tensor  # (N,) quality of the mask by SAM's evidence
    student: Tensor  # (N,) and by the student's
    defect: Tensor  # (B, S, S) s, the student's probability of a defect


class Corrected(NamedTuple):
    """Labels to learn from."""

    labels: Tensor  # (B, S, S) int64
    weights: Tensor  # (B, S, S) in [0, 1]
    missed: Tensor  # (B, S, S) bool: background that became a defect
    invented: Tensor  # (B, S, S) bool: painted pixels that teach nothing


def losses(
    logits: Logits, batch: Batch, params: TwoSidedParams, moment: Moment, teacher: Logits | None
) -> tuple[Named, Named]:
    """`fine` and `binary`; figures `corrected_share` of the background, `dropped_share` and `mask_weight` of what is
    painted. `teacher` and `moment.thresholds` are needed.
    """
    found = evidence(batch, teacher)
    result = correct(found, batch, teacher, params, moment)
    if moment.progress >= params.warmup and params.tau != "typical":
        labels, missed = correct_labels(logits.fine, batch.labels, params.tau)
        result = result._replace(labels=labels, weights=torch.where(missed, 1.0, result.weights), missed=missed)
    weights = balanced(result.weights, result.labels, _any(found.inside, batch.boxes.image_index, len(batch.labels)))
    terms = weighted_cross_entropy(logits.fine, result.labels, moment.class_weights, weights)
    named = {"fine": params.fine * terms}
    if logits.binary is not None and params.binary is not None:
        named["binary"] = params.binary * binary_loss(logits.binary, result.labels, params.beta, weights)
    background, painted = batch.labels == 0, (batch.labels > 0) & (batch.labels != IGNORE)
    return named, {
        "corrected_share": result.missed.sum() / background.sum().clamp(min=1),
        "dropped_share": result.invented.sum() / painted.sum().clamp(min=1),
        "mask_weight": (result.weights * painted).sum() / painted.sum().clamp(min=1),
    }


@torch.no_grad()
def evidence(batch: Batch, teacher: Logits) -> Evidence:
    """Gather what speaks for and against the labels."""
    boxes = batch.boxes
    inside = box_pixels(batch, boxes)
    candidates = boxes.candidates & inside[:, None]
    votes = (boxes.candidates & boxes.valid[..., None, None]).sum(1) / boxes.valid.sum(1).clamp(min=1)[:, None, None]
    own = batch.labels[boxes.image_index] == boxes.class_id[:, None, None] + 1
    mask = boxes.of_chosen(boxes.candidates) & boxes.of_chosen(boxes.valid)[:, None, None]
    defect = defect_probability(teacher)
    sam = boxes.of_chosen(boxes.predicted_iou).clamp(0, 1) * agreement(candidates, boxes.valid)
    return Evidence(
        boxes,
        inside,
        mask & own,
        votes,
        sam * boxes.of_chosen(boxes.valid),
        soft_iou(defect[boxes.image_index], mask & inside, inside),
        defect,
    )


def defect_probability(teacher: Logits) -> Tensor:
    """(B, S, S) s: the fine head's probability of any defect, times the binary head's where there is one."""
    s = 1 - teacher.fine.softmax(dim=1)[:, 0]
    return s if teacher.binary is None else s * teacher.binary.softmax(dim=1)[:, 1]


def agreement(masks: Tensor, valid: Tensor) -> Tensor:
    """(N,) mean IoU over all pairs of a box's C masks, (N, C, H, W) bool; 1 for a single valid one.

    A pair with an invalid mask counts 0. Two valid masks that both lie outside the window agree about what is in it.
    """
    pairs = [(i, j) for i in range(masks.shape[1]) for j in range(i)]
    if not pairs:
        return valid[:, 0].float()
    each = []
    for i, j in pairs:
        nothing = ~(masks[:, i] | masks[:, j]).flatten(1).any(1)
        each.append(torch.where(nothing, 1.0, mask_iou(masks[:, i], masks[:, j])) * (valid[:, i] & valid[:, j]))
    return torch.stack(each).mean(0)


def soft_iou(p: Tensor, masks: Tensor, inside: Tensor) -> Tensor:
    """(N,) sum(p m) / sum(p + m - p m) over the pixels of the box; 1 for a mask without a pixel there.

    `p` (N, H, W) in [0, 1]; `masks`, `inside` (N, H, W) bool, the masks cut to their boxes.
    """
    p = p * inside
    common, area = (p * masks).sum((-2, -1)), masks.sum((-2, -1))
    return torch.where(area > 0, common / (p.sum((-2, -1)) + area - common).clamp(min=1e-6), 1.0)


@torch.no_grad()
def observe(batch: Batch, teacher: Logits, classes: int) -> Seen:
    """What `Typical` is to count of this batch. `classes` K."""
    found = evidence(batch, teacher)
    index, s = found.boxes.image_index, found.defect[found.boxes.image_index]
    background = batch.labels == 0
    in_box = found.inside & background[index]
    heard = found.boxes.valid.any(1)[:, None, None]
    far = background & ~_any(found.inside, index, len(background))
    likeliest = teacher.fine[:, 1:].argmax(dim=1)
    by_class = []
    for class_id in range(classes):
        own = (found.boxes.class_id == class_id)[:, None, None]
        defect = s[own & found.painted & (found.votes == 1)]
        sound = s[own & in_box & (found.votes == 0) & heard]
        beyond = found.defect[far & (likeliest == class_id)]
        by_class.append(torch.stack([count_probabilities(p) for p in (defect, sound, s[own & in_box], beyond)]))
    qualities = torch.stack([count_qualities(found.sam), count_qualities(found.student)])
    return Seen(torch.stack(by_class, dim=1), qualities)


@torch.no_grad()
def correct(found: Evidence, batch: Batch, teacher: Logits, params: TwoSidedParams, moment: Moment) -> Corrected:
    """The labels to learn from, by the rules above."""
    speaks, at = moment.progress >= params.warmup, moment.thresholds
    labels, weights = batch.labels.clone(), label_weights(found, batch, at, speaks)
    missed = torch.zeros_like(labels, dtype=torch.bool)
    if not speaks:
        return Corrected(labels, weights, missed, missed)
    painted = (batch.labels > 0) & (batch.labels != IGNORE)
    invented = painted & (found.defect < at.invented[(batch.labels - 1).clamp(0, len(at.invented) - 1)])
    weights = torch.where(invented, 0.0, weights)
    if params.tau != "typical":
        return Corrected(labels, weights, missed, invented)
    likeliest = teacher.fine[:, 1:].argmax(dim=1)
    far = (batch.labels == 0) & ~_any(found.inside, found.boxes.image_index, len(labels))
    missed = far & (found.defect > at.beyond[likeliest])
    labels = torch.where(missed, likeliest + 1, labels)
    weights = torch.where(missed, 1.0, weights)
    # the smallest box last: where boxes overlap, its class is the one that the label map would show
    for i in found.inside.flatten(1).sum(1).argsort(descending=True, stable=True).tolist():
        image, class_id = int(found.boxes.image_index[i]), int(found.boxes.class_id[i])
        here = found.inside[i] & (batch.labels[image] == 0) & (found.votes[i] > 0)
        here &= found.defect[image] > at.missed[class_id]
        voices = found.boxes.valid[i].sum()
        labels[image] = torch.where(here, class_id + 1, labels[image])
        weights[image] = torch.where(here, (found.votes[i] * voices + 1) / (voices + 1), weights[image])
        missed[image] |= here
    return Corrected(labels, weights, missed, invented)


def label_weights(found: Evidence, batch: Batch, at: Thresholds, student_speaks: bool) -> Tensor:
    """(B, S, S) in [0, 1]: how far each label is to be believed. Where boxes overlap, a painted pixel is believed as
    far as the best mask that painted it allows, background as far as the worst of the boxes around it.
    """
    trust = (found.sam / at.sam.clamp(min=1e-6)).clamp(max=1)
    if student_speaks:
        trust = trust * (found.student / at.student.clamp(min=1e-6)).clamp(max=1)
    painted = torch.zeros(batch.labels.shape, device=trust.device)
    claimed = torch.zeros_like(painted, dtype=torch.bool)
    background = torch.ones_like(painted)
    for i, image in enumerate(found.boxes.image_index.tolist()):
        mask, votes = found.painted[i], found.votes[i]
        painted[image] = torch.where(mask, torch.maximum(painted[image], votes * trust[i]), painted[image])
        claimed[image] |= mask
        around = torch.minimum(background[image], (1 - votes) * trust[i])
        background[image] = torch.where(found.inside[i], around, background[image])
    # a painted pixel without its box (which lies outside the window) is believed
    return torch.where(claimed, painted, torch.where(batch.labels == 0, background, 1.0))


def balanced(weights: Tensor, labels: Tensor, in_boxes: Tensor) -> Tensor:
    """`weights` scaled to a mean of 1 over the batch's defect pixels, and over its background in boxes.

    All (B, S, S); `in_boxes` bool. Where all weights are 0, they stay so.
    """
    for where in ((labels > 0) & (labels != IGNORE), (labels == 0) & in_boxes):
        mean = (weights * where).sum() / where.sum().clamp(min=1)
        weights = torch.where(where, weights / mean.clamp(min=1e-6), weights)
    return weights


def _any(masks: Tensor, image_index: Tensor, images: int) -> Tensor:
    """(B, H, W) bool: in any of the masks (N, H, W) of the image."""
    result = torch.zeros(images, *masks.shape[1:], dtype=torch.bool, device=masks.device)
    for mask, image in zip(masks, image_index.tolist(), strict=True):
        result[image] |= mask
    return result
