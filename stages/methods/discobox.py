"""DiscoBox-lite: a reduced form of DiscoBox (ICCV 2021), and called so wherever it is reported.

The paper's teacher is a structured energy over a self-ensembled network: pairs within a box, and correspondences
between objects of one class across images; minimising it gives refined masks and correspondences that supervise the
student (from a summary of the paper). Here there is no correspondence. The losses are BoxInst's, and a Dice loss
against the EMA teacher's mask, refined by a few mean-field steps with a colour kernel inside the box. Steps, coupling
and weight are our choice.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from stages.losses.batch import Batch, Moment, ramp
from stages.losses.config import Weight
from stages.losses.grid import Head, drawn_first, heads, scene
from stages.losses.instance import BoxLossParams, box_losses, similar
from stages.losses.method import Method as BaseMethod
from stages.losses.method import Named
from stages.losses.terms import dice, edges, neighbours
from stages.student.segmenter import Logits


class Params(BoxLossParams):
    """`refined`: weight of the Dice loss against the refined mask (1). `steps`: mean-field steps (5).

    `coupling`: change of a cell's logit when all its neighbours have its colour and agree (4). All are our choice.
    """

    method: Literal["discobox"]
    refined: Weight
    steps: int = Field(ge=0)
    coupling: Weight


class Method(BaseMethod):
    """BoxInst's losses and `refined`. Curve `refined_share`, of boxes whose refined mask is not empty."""

    reads_boxes = True
    reads_labels = False
    reads_ema = True

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        params, on = self.params, scene(batch, self.params.stride)
        seen = heads(logits, on, params.fine, params.binary)
        named = box_losses(seen, on, batch, params, moment.progress)
        own = heads(ema, on, params.fine, params.binary)[0]
        pairs = edges(on.inside, own.visible) * similar(on, batch.clean)
        masks = drawn_first(on, mean_field(own.logits.detach(), on.inside, pairs, params))
        found = masks.flatten(1).any(dim=1)
        rise = ramp(moment.progress, params.warmup)
        named["refined"] = rise * params.refined * sum(head.weight * _dice_loss(head, masks) for head in seen)
        return named, {"refined_share": found.sum() / max(len(found), 1)}


@torch.no_grad()
def mean_field(logits: Tensor, inside: Tensor, similarity: Tensor, params: Params) -> Tensor:
    """(N, h, w) 0/1 masks q > 0.5, after `steps` times q = sigmoid(logits + coupling * mean of S (2 q - 1)).

    `logits` (N, h, w) of the EMA teacher; `inside` (N, h, w) bool, the box; `similarity` S (N, 8, h, w), 0 for pairs
    that do not count. The mean is over all 8 neighbours, so a cell with few of its colour changes little. Outside the
    box q is 0.
    """
    q = logits.sigmoid() * inside
    for _ in range(params.steps):
        message = (similarity * (2 * neighbours(q, 0.0) - 1)).mean(dim=1)
        q = (logits + params.coupling * message).sigmoid() * inside
    return (q > 0.5).float()


def _dice_loss(head: Head, masks: Tensor) -> Tensor:
    """Mean Dice loss over the boxes whose refined mask is not empty; 0 if there is none."""
    found = masks.flatten(1).any(dim=1)
    p = head.logits.sigmoid() * head.visible
    return (dice(p, masks) * found).sum() / found.sum().clamp(min=1)
