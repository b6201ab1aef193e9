"""What is typical of a student so far: running histograms of its opinions, and the thresholds of `two_sided` in them.

The rules, and why they are what they are, stand in `two_sided.py`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from stages.losses.batch import Thresholds

DECAY = 0.99
"""Of what was seen before, a step: about the last hundred steps count."""

REACH, BINS = 20.0, 160
"""Bins of probabilities are even in the logit, from -REACH to REACH; what lies beyond is in the last bin."""

DOUBTED = 0.05
"""Of the pixels on which all candidates agree, the share that is less like a defect than what is called invented, and
the share that is more like one than what is called missed."""

DEFECT, SOUND, SURPRISE, BEYOND = range(4)
"""Which pixels a histogram is of: see `Seen`."""


class Seen(NamedTuple):
    """One batch, counted."""

    pixels: Tensor  # (4, K, BINS) by class: DEFECT painted, and all candidates agree; SOUND in a box, background, and
    # all agree; SURPRISE in a box, background; BEYOND outside all boxes, background, of the likeliest class


class Typical(nn.Module):
    """Running histograms; they are buffers, so a checkpoint carries them and a resumed run goes on with the same."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("pixels", torch.zeros(4, classes, BINS))

    @torch.no_grad()
    def update(self, seen: Seen) -> None:
        """Count one more batch."""
        self.pixels.mul_(DECAY).add_(seen.pixels)

    def thresholds(self) -> Thresholds:
        """What follows from all that was seen; nothing is corrected where nothing was."""
        edges = self._edges()
        typical_background = _quantile(self.pixels[SOUND], edges, 0.5, empty=0.0)
        least_doubted = _quantile(self.pixels[DEFECT], edges, DOUBTED, empty=0.0)
        invented = torch.minimum(typical_background, least_doubted)
        return Thresholds(invented, beyond(self.pixels, self.tau(), edges))

    def tau(self) -> Tensor:
        """(K,) in (0, 1]: what few defects of the class exceed; 1 for a class that was not seen."""
        return _quantile(self.pixels[DEFECT], self._edges(), 1 - DOUBTED, empty=1.0)

    def _edges(self) -> Tensor:
        """(BINS + 1,) probabilities between which the bins of pixels lie."""
        return torch.linspace(-REACH, REACH, BINS + 1, device=self.pixels.device).sigmoid()


def beyond(pixels: Tensor, tau: Tensor, edges: Tensor) -> Tensor:
    """(K,) lowest bin edge, no lower than `tau`, above which BEYOND counts no more pixels than SURPRISE; else 1."""
    above = pixels.flip(-1).cumsum(-1).flip(-1)
    allowed = (above[BEYOND] <= above[SURPRISE]) & (above[SURPRISE] > 0) & (edges[:-1] >= tau[:, None])
    return torch.where(allowed, edges[:-1], 1.0).amin(dim=1)


def count_probabilities(p: Tensor) -> Tensor:
    """(BINS,) histogram of probabilities, any shape."""
    p = p.flatten().clamp(1e-9, 1 - 1e-7)
    bins = ((p.log() - (-p).log1p() + REACH) / (2 * REACH) * BINS).long().clamp(0, BINS - 1)
    return torch.bincount(bins, minlength=BINS).float()


def _quantile(counts: Tensor, edges: Tensor, share: float, empty: float) -> Tensor:
    """(N,) quantiles of histograms (N, bins), even within a bin; `empty` of one without a count."""
    total, below = counts.sum(-1), counts.cumsum(-1)
    at = (below < share * total[:, None]).sum(-1).clamp(max=counts.shape[1] - 1)
    own = counts.gather(1, at[:, None])[:, 0]
    part = (share * total - (below.gather(1, at[:, None])[:, 0] - own)) / own.clamp(min=1e-9)
    return torch.where(total > 0, edges[at] + part * (edges[at + 1] - edges[at]), empty)
