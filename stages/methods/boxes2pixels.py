"""Boxes2Pixels (arXiv 2604.11162): asymmetric Dice on the binary head, self-correcting cross-entropy on the fine head.

Departures from the authors' release:
- cross-entropy is averaged over pixels with self-correction on and off, so that the switch changes one thing only (the
  release divides by the number of pixels in one case and by the summed class weights in the other);
- Dice sums over the whole batch, so that false positives on a defect-free image enter a loss that has a gradient; a
  batch without any defect is taught by cross-entropy, because Dice against an empty target has almost no gradient.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from stages.losses.batch import Batch, Moment
from stages.losses.config import HeadWeights, SelfcorrParams
from stages.losses.method import Method as BaseMethod
from stages.losses.method import Named
from stages.losses.pixel import binary_loss, weighted_cross_entropy
from stages.student.segmenter import Logits


class Params(HeadWeights):
    """The sections `loss` and `selfcorr`; `selfcorr` is None for a run that does not self-correct."""

    method: Literal["boxes2pixels"]
    beta: float | None = Field(ge=0)
    selfcorr: SelfcorrParams | None


class Method(BaseMethod):
    """Losses `fine` and `binary`. Curve `corrected_share`, of background pixels, in a run that self-corrects."""

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        params, targets, shown = self.params, batch.labels, {}
        if params.selfcorr is not None:
            shown = {"corrected_share": torch.zeros((), device=batch.labels.device)}
            if moment.progress >= params.selfcorr.warmup:
                targets, changed = correct_labels(logits.fine, batch.labels, params.selfcorr.tau, batch.correctable())
                shown = {"corrected_share": changed.sum() / (batch.labels == 0).sum().clamp(min=1)}
        named = {"fine": params.fine * weighted_cross_entropy(logits.fine, targets, moment.class_weights)}
        if logits.binary is not None:
            named["binary"] = params.binary * binary_loss(logits.binary, batch.labels, params.beta)
        return named, shown


@torch.no_grad()
def correct_labels(
    logits: Tensor, labels: Tensor, tau: float, correctable: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One-sided self-correction: background where a defect class has probability above `tau` becomes that class.

    `logits` (B, K+1, H, W); `labels` (B, H, W). Returns the corrected labels and the (B, H, W) bool map of what
    changed. Labels other than background never change, nor do those outside of `correctable` (B, H, W) bool.
    """
    confidence, best = logits.softmax(dim=1)[:, 1:].max(dim=1)
    changed = (labels == 0) & (confidence > tau)
    if correctable is not None:
        changed &= correctable
    return torch.where(changed, best + 1, labels), changed
