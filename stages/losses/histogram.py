"""Histograms of probabilities, and their quantiles."""

import torch
from torch import Tensor

REACH, BINS = 20.0, 160
"""Bins of equal width in the logit, from -REACH to REACH; values beyond are counted in the first or last bin."""


def bin_edges(device: torch.device) -> Tensor:
    """(BINS + 1,) probabilities at the edges of the bins."""
    return torch.linspace(-REACH, REACH, BINS + 1, device=device).sigmoid()


def count_probabilities(p: Tensor) -> Tensor:
    """(BINS,) histogram of probabilities, any shape."""
    p = p.flatten().clamp(1e-9, 1 - 1e-7)
    bins = ((p.log() - (-p).log1p() + REACH) / (2 * REACH) * BINS).long().clamp(0, BINS - 1)
    return torch.bincount(bins, minlength=BINS).float()


def quantile(counts: Tensor, edges: Tensor, share: float, empty: float) -> Tensor:
    """(N,) quantiles at `share`, in [0, 1], of histograms (N, BINS), linear within a bin; `empty` without any count."""
    total, below = counts.sum(-1), counts.cumsum(-1)
    at = (below < share * total[:, None]).sum(-1).clamp(max=counts.shape[1] - 1)
    own = counts.gather(1, at[:, None])[:, 0]
    part = (share * total - (below.gather(1, at[:, None])[:, 0] - own)) / own.clamp(min=1e-9)
    return torch.where(total > 0, edges[at] + part * (edges[at + 1] - edges[at]), empty)
