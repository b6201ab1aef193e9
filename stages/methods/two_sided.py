"""Two-sided correction, our own [O]: Boxes2Pixels' losses, after what the teacher missed and what it invented.

Boxes2Pixels believes every painted pixel, and corrects background anywhere above one fixed tau. Here both of the
teacher's errors are looked for with the same evidence: SAM's candidates, the box that a person drew, and the EMA
student on the image that was not augmented. s is that student's p(defect) by the fine head times that by the binary
head, so that both have to agree. After the warm-up:

- invented: a painted pixel becomes background where s is below the median of s over the background in boxes of its
  class on which all candidates agree (it looks more like background than background typically does), and below the
  5 % quantile of s over the pixels painted with its class on which all agree. The second keeps a class that the
  student does not know yet from being corrected away: of what nobody doubts, 5 % at most is lost.
- missed: beyond the boxes nobody vouches for a defect, and confidence alone is no evidence: what people did not box is
  subtle, and what the student is surest of there is clutter. So background outside all boxes becomes the likeliest
  class only above the lowest s (no lower than tau_k, the 95 % quantile of s over the pixels painted k on which all
  candidates agree) at which such pixels are no more numerous than surprises of the class inside boxes; where clutter
  outnumbers them at every level, never. At least half of all surprises then lie where a person saw something, and the
  rule opens by itself once the student tells clutter from defects.
- unknown: background in a box whose mask is empty teaches nothing, for somebody saw a defect there.

Medians and quantiles are of the last hundred steps or so (`typical.py`), so a student that is never surer than 0.5 of a
true pixel still has a tau. With `tau` a number, background anywhere is corrected as in the paper, the student's own p_k
above tau, and invented pixels by the rule above.

On the demo, with one `boxes2pixels` student after 1,000 steps, against the exact truth of val (in brackets: of 100
images of train): of painted pixels on which all candidates agree 14 % (13 %) are wrong, of the others 45 % and
more. 97 % (83 %) of those with s below the median over background were.

On the test images of magnetic tiles, means of three seeds after 680 steps, it ends at a binary IoU of 0.369 and a
precision of 0.461, `boxes2pixels` at 0.320 and 0.374; on the demo the two are alike.

Tried, and worse on val's truth of the demo or of magnetic tiles (one seed each): weights of each box's mask by its
quality, which is what BoxTeacher and BoxSeg do (predicted IoU times the candidates' agreement, which ranks masks with a
Spearman of 0.81 on the demo, where the bounding box's IoU that both lean on has -0.13). Against the median of all
boxes, they starve classes whose masks are hard: the IoU of cracks fell from 0.13 to 0.02. Against the median of the
class, or with background in boxes that a candidate and the student call a defect corrected to one, the student paints
too much: precision on the demo fell from 0.75 to 0.70 and less.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from stages.data.tables import IGNORE
from stages.losses.batch import Batch, Moment, Named
from stages.losses.pseudo_masks import box_pixels
from stages.methods.boxes2pixels import binary_loss, correct_labels, weighted_cross_entropy
from stages.methods.config import TwoSidedParams
from stages.methods.running_thresholds import Seen, count_probabilities
from stages.networks.student import Logits


class Corrected(NamedTuple):
    """Labels to learn from."""

    labels: Tensor  # (B, S, S) int64
    missed: Tensor  # (B, S, S) bool: background that became a defect
    invented: Tensor  # (B, S, S) bool: painted pixels that became background


def losses(
    logits: Logits, batch: Batch, params: TwoSidedParams, moment: Moment, teacher: Logits | None
) -> tuple[Named, Named]:
    """`fine` and `binary`; figures `corrected_share` of the background and `dropped_share` of what is painted.

    `teacher` and `moment.thresholds` are needed.
    """
    result = correct(batch, teacher, params, moment)
    if moment.progress >= params.warmup and params.tau != "typical":
        labels, missed = correct_labels(logits.fine, result.labels, params.tau)
        result = result._replace(labels=labels, missed=missed)
    named = {"fine": params.fine * weighted_cross_entropy(logits.fine, result.labels, moment.class_weights)}
    if logits.binary is not None and params.binary is not None:
        named["binary"] = params.binary * binary_loss(logits.binary, result.labels, params.beta)
    return named, {
        "corrected_share": result.missed.sum() / (batch.labels == 0).sum().clamp(min=1),
        "dropped_share": result.invented.sum() / _painted(batch).sum().clamp(min=1),
    }


def defect_probability(teacher: Logits) -> Tensor:
    """(B, S, S) s: the fine head's probability of any defect, times the binary head's where there is one."""
    s = 1 - teacher.fine.softmax(dim=1)[:, 0]
    return s if teacher.binary is None else s * teacher.binary.softmax(dim=1)[:, 1]


@torch.no_grad()
def observe(batch: Batch, teacher: Logits, classes: int) -> Seen:
    """What `Typical` is to count of this batch. `classes` K."""
    boxes, inside, defect = batch.boxes, box_pixels(batch, batch.boxes), defect_probability(teacher)
    s, labels = defect[boxes.image_index], batch.labels[boxes.image_index]
    valid = boxes.valid[..., None, None]
    votes = (boxes.candidates & valid).sum(1) / valid.sum(1).clamp(min=1)
    mask = boxes.of_chosen(boxes.candidates) & boxes.of_chosen(boxes.valid)[:, None, None]
    painted = mask & (labels == boxes.class_id[:, None, None] + 1)
    in_box = inside & (labels == 0)
    far = far_from_boxes(batch, inside)
    likeliest = teacher.fine[:, 1:].argmax(dim=1)
    by_class = []
    for class_id in range(classes):
        own = (boxes.class_id == class_id)[:, None, None]
        sure = s[own & painted & (votes == 1)]
        sound = s[own & in_box & (votes == 0) & valid.any(1)]
        beyond = defect[far & (likeliest == class_id)]
        by_class.append(torch.stack([count_probabilities(p) for p in (sure, sound, s[own & in_box], beyond)]))
    return Seen(torch.stack(by_class, dim=1))


@torch.no_grad()
def correct(batch: Batch, teacher: Logits, params: TwoSidedParams, moment: Moment) -> Corrected:
    """The labels to learn from, by the rules above."""
    at, painted = moment.thresholds, _painted(batch)
    nothing = torch.zeros_like(painted)
    if moment.progress < params.warmup:
        return Corrected(batch.labels, nothing, nothing)
    inside, s = box_pixels(batch, batch.boxes), defect_probability(teacher)
    invented = painted & (s < at.invented[(batch.labels - 1).clamp(0, len(at.invented) - 1)])
    empty = ~batch.boxes.of_chosen(batch.boxes.valid)
    unknown = (batch.labels == 0) & _any(inside[empty], batch.boxes.image_index[empty], len(painted))
    labels = torch.where(invented, 0, torch.where(unknown, IGNORE, batch.labels))
    if params.tau != "typical":
        return Corrected(labels, nothing, invented)
    likeliest = teacher.fine[:, 1:].argmax(dim=1)
    missed = far_from_boxes(batch, inside) & (s > at.beyond[likeliest])
    return Corrected(torch.where(missed, likeliest + 1, labels), missed, invented)


def far_from_boxes(batch: Batch, inside: Tensor) -> Tensor:
    """(B, S, S) bool: background that is in none of the boxes, whose pixels are `inside` (N, S, S) bool."""
    return (batch.labels == 0) & ~_any(inside, batch.boxes.image_index, len(batch.labels))


def _painted(batch: Batch) -> Tensor:
    """(B, S, S) bool: labelled a defect."""
    return (batch.labels > 0) & (batch.labels != IGNORE)


def _any(masks: Tensor, image_index: Tensor, images: int) -> Tensor:
    """(B, H, W) bool: in any of the masks (N, H, W) of the image."""
    result = torch.zeros(images, *masks.shape[1:], dtype=torch.bool, device=masks.device)
    for mask, image in zip(masks, image_index.tolist(), strict=True):
        result[image] |= mask
    return result
