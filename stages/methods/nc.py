"""Noise-correction loss (arXiv 2407.13157): a soft IoU loss whose errors are squared at first, and not squared later.

While they are squared, large errors weigh most, and the student learns what most labels agree on; with power 1 every
pixel of the union has the same influence, so that wrong labels are outvoted. The loss replaces cross-entropy in the
fine head, where the defect classes are taken together (1 - p[background]), and the asymmetric Dice in the binary head.
Cross-entropy among the defect classes teaches the class of a labelled pixel. Labels are not corrected.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.data.tables import IGNORE
from stages.losses.batch import Batch, Moment
from stages.losses.config import HeadWeights, Share
from stages.losses.method import Method as BaseMethod
from stages.losses.method import Named
from stages.losses.pixel import EPS, weighted_cross_entropy
from stages.student.segmenter import Logits


class Params(HeadWeights):
    """`warmup`: share of the steps in which errors are squared."""

    method: Literal["nc"]
    warmup: Share


class Method(BaseMethod):
    """Losses `fine`, `class` and `binary`."""

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        params, labels = self.params, batch.labels
        power = 2 if moment.progress < params.warmup else 1
        among = torch.where((labels > 0) & (labels != IGNORE), labels - 1, IGNORE)
        named = {
            "fine": params.fine * noise_correction(1 - logits.fine.softmax(dim=1)[:, 0], labels, power),
            "class": params.fine * weighted_cross_entropy(logits.fine[:, 1:], among, moment.class_weights[1:]),
        }
        if logits.binary is not None:
            margin = logits.binary[:, 1] - logits.binary[:, 0]
            named["binary"] = params.binary * noise_correction(margin.sigmoid(), labels, power)
        return named, {}


def noise_correction(p: Tensor, labels: Tensor, power: int) -> Tensor:
    """Scalar sum |p - g|^power / (sum p + sum g - sum p g) over the known pixels (arXiv 2407.13157).

    `p` (B, H, W): probability of a defect; `labels` (B, H, W) int64 in 0..K or IGNORE; g is 1 at a defect. Without a
    defect in the batch, mean -log(1 - p), because with power 1 the quotient is then 1 for any p, without a gradient.
    """
    known = labels != IGNORE
    g = ((labels > 0) & known).to(p.dtype)
    if not g.any():
        missed = F.binary_cross_entropy(p.clamp(max=1 - EPS), g, reduction="none")
        return (missed * known).sum() / known.sum().clamp(min=1)
    p = p * known
    return ((p - g).abs() ** power).sum() / (p.sum() + g.sum() - (p * g).sum() + EPS)
