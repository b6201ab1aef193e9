"""The terms that box-supervised losses are made of: Dice, projections, pairwise colour and mask affinity.

Shapes: N boxes on a grid of h x w cells. Neighbours of a cell are the other 8 of a 3 x 3 window with dilation 2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

DILATION = 2
"""Distance in cells, along each axis, from a cell to its neighbours."""

OFFSETS_YX = [(dy, dx) for dy in (-DILATION, 0, DILATION) for dx in (-DILATION, 0, DILATION) if dy or dx]
"""The 8 neighbours, row by row."""

EPS = 1e-5


def dice(p: Tensor, t: Tensor) -> Tensor:
    """(N,) 1 - 2 sum(p t) / (sum p^2 + sum t^2 + eps), over all but the first axis. Against an empty target it is 1."""
    p, t = p.flatten(1), t.flatten(1)
    return 1 - 2 * (p * t).sum(1) / ((p * p).sum(1) + (t * t).sum(1) + EPS)


def projection(p: Tensor, inside: Tensor, whole_xy: Tensor) -> Tensor:
    """(N,) Dice of the maxima over rows, plus Dice of the maxima over columns, with those of the box.

    `p`, `inside` (N, h, w). A tight box has mask in each of its rows and columns, but the part of a box inside the
    window need not: where the window cuts its x axis, a row's mask may lie beyond, so rows are not compared, and
    likewise columns where it cuts the y axis (our own: the published detectors see whole images).
    """
    box = inside.to(p.dtype)
    rows, columns = dice(p.amax(2), box.amax(2)), dice(p.amax(1), box.amax(1))
    return rows * whole_xy[:, 0] + columns * whole_xy[:, 1]


def neighbours(maps: Tensor, outside: float | bool) -> Tensor:
    """(N, 8, h, w): the value at each neighbour, `outside` where it is off the grid. `maps` (N, h, w)."""
    height, width = maps.shape[-2:]
    padded = F.pad(maps, (DILATION,) * 4, value=outside)
    views = [
        padded[:, DILATION + dy : DILATION + dy + height, DILATION + dx : DILATION + dx + width]
        for dy, dx in OFFSETS_YX
    ]
    return torch.stack(views, dim=1)


def log_same(logits: Tensor) -> Tensor:
    """(N, 8, h, w) log P_same = log(p_x p_y + (1 - p_x)(1 - p_y)), p the sigmoid of `logits` (N, h, w)."""
    yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)
    return torch.logaddexp(yes[:, None] + neighbours(yes, 0.0), no[:, None] + neighbours(no, 0.0))


def edges(inside: Tensor, visible: Tensor) -> Tensor:
    """(N, 8, h, w) bool: pairs of a cell inside the box and a neighbour on the grid, both `visible`.

    Boxes of a class share a channel: a neighbour in another box of the class is no evidence about this one, so the pair
    is left out (multiplying p by V there, as the projection does, would pull the cell itself towards background).
    """
    return inside[:, None] & visible[:, None] & neighbours(visible, False)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] to CIE L*a*b* (D65, 2 degrees): (B, 3, h, w) to the same shape, L in [0, 100]."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = rgb.new_tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    )
    white = rgb.new_tensor([0.95047, 1.0, 1.08883])
    xyz = torch.einsum("dc,bchw->bdhw", to_xyz, linear) / white[:, None, None]
    f = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], dim=1)


def colour_similarity(rgb: Tensor) -> Tensor:
    """(B, 8, h, w) S = exp(-|LAB_x - LAB_y| / 2), 0 where the neighbour is off the image. `rgb` (B, 3, h, w)."""
    lab = rgb_to_lab(rgb)
    apart = torch.stack([neighbours(channel, 0.0) - channel[:, None] for channel in lab.unbind(1)])
    on_grid = neighbours(torch.ones_like(rgb[:, 0], dtype=torch.bool), False)
    return (-apart.square().sum(0).sqrt() / 2).exp() * on_grid


def mask_similarity(masks: Tensor) -> Tensor:
    """(N, 8, h, w) a = g_x g_y + (1 - g_x)(1 - g_y), 0 off the grid, g the mean of the mask and its 3 x 3 mean.

    `masks` (N, h, w) float in [0, 1]; the zeros around the grid count in the mean.
    """
    g = (masks + F.avg_pool2d(masks[:, None], 3, stride=1, padding=1)[:, 0]) / 2
    beside = neighbours(g, 0.0)
    on_grid = neighbours(torch.ones_like(g, dtype=torch.bool), False)
    return (g[:, None] * beside + (1 - g[:, None]) * (1 - beside)) * on_grid


def grow(cells: Tensor, by: int) -> Tensor:
    """(N, h, w) bool, dilated by a square of `by` cells to each side."""
    return F.max_pool2d(cells.float()[:, None], 2 * by + 1, stride=1, padding=by)[:, 0] > 0


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Scalar mean of `values` where `where` is true; 0, with a gradient of 0, if it is true nowhere."""
    return torch.where(where, values, 0.0).sum() / where.sum().clamp(min=1)
