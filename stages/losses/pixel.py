"""Per-pixel losses of the two heads: Boxes2Pixels (arXiv 2604.11162)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.data.tables import IGNORE
from stages.losses.batch import Batch
from stages.student.segmenter import Logits

EPS = 1e-6


def asymmetric_dice(p: Tensor, g: Tensor, beta: float) -> Tensor:
    """Scalar 1 - (<p,g> + eps) / (<p,g> + beta <p,1-g> + <1-p,g> + eps); beta < 1 lowers the cost of false positives.

    `p`: defect probabilities in [0, 1], `g`: 0/1 targets, any one shape; sums run over all elements.
    Where `g` is empty the value is 1 - eps / (beta sum p + eps), whose gradient vanishes: see `binary_loss`.
    """
    hit = (p * g).sum()
    return 1 - (hit + EPS) / (hit + beta * (p * (1 - g)).sum() + ((1 - p) * g).sum() + EPS)


def binary_loss(logits: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Asymmetric Dice of the binary head over the batch; without a defect pixel in it, mean -log p(background).

    `logits` (B, 2, H, W); `labels` (B, H, W) int64 in 0..K or IGNORE.
    """
    known, margin = labels != IGNORE, logits[:, 1] - logits[:, 0]
    defect = ((labels > 0) & known).to(logits.dtype)
    if not defect.any():
        return (F.softplus(margin) * known).sum() / known.sum().clamp(min=1)
    # an IGNORE pixel adds nothing to any of the three sums
    return asymmetric_dice(margin.sigmoid() * known, defect, beta)


def weighted_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Mean over the known pixels of w[label] * -log p[label]. `class_weights` (K+1,).

    The sum is divided by the number of pixels, not by the sum of their weights, so that correcting one label does not
    change the weight of all other pixels.
    """
    total = F.cross_entropy(logits, labels, weight=class_weights, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def generalised_cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: Tensor, q: float, trusted: Tensor | None = None
) -> Tensor:
    """Mean over the known pixels of w[label] (1 - p[label]^q) / q (Zhang and Sabuncu, arXiv 1805.07836, equation 6).

    `logits` (B, K+1, H, W); `labels` (B, H, W) int64 in 0..K or IGNORE; `class_weights` (K+1,); `q` in (0, 1], near 0
    it is `weighted_cross_entropy`. That is used on the `trusted` (B, H, W) bool pixels, whose labels are not wrong.
    """
    known = labels != IGNORE
    label = labels.where(known, 0)
    log_p = logits.log_softmax(dim=1).gather(1, label[:, None])[:, 0]
    each = (1 - (q * log_p).exp()) / q
    if trusted is not None:
        each = torch.where(trusted, -log_p, each)
    return (each * class_weights[label] * known).sum() / known.sum().clamp(min=1)


def trusted_loss(logits: Logits, batch: Batch, class_weights: Tensor, fine: float, binary: float | None) -> Tensor:
    """Cross-entropy of both heads, times `fine` and `binary`: summed over trusted pixels, divided by all known pixels.

    For methods that do not learn pixel by pixel; in the others it would count trusted pixels twice.
    """
    labels = torch.where(batch.trusted, batch.labels, IGNORE)
    known = labels != IGNORE
    share = known.sum() / (batch.labels != IGNORE).sum().clamp(min=1)
    total = fine * weighted_cross_entropy(logits.fine, labels, class_weights)
    if logits.binary is not None and binary is not None:
        defect = torch.where(known, (labels > 0).long(), IGNORE)
        total = total + binary * weighted_cross_entropy(logits.binary, defect, torch.ones_like(class_weights[:2]))
    return share * total
