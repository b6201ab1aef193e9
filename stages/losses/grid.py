"""The grid that instance losses work on, with cells of `stride` pixels; boxes, masks and logits on that grid.

Sides that `stride` does not divide are padded equally at both ends by repeating the rim, so that flipping commutes with
pooling whenever the padding is even (518 at stride 4 is padded by one pixel at each end to 130 cells).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.data.boxes import EDGE_TOLERANCE_PX
from stages.data.tables import IGNORE
from stages.losses.batch import Batch, Boxes
from stages.student.segmenter import Logits


class Head(NamedTuple):
    """The outputs of one head on the grid, for N boxes."""

    weight: float  # of this head in every loss
    background: Tensor  # (B, h, w) log probability of background
    logits: Tensor  # (N, h, w) of the box's own class against all others; the sigmoid is that class's probability
    visible: Tensor  # (N, h, w) bool: see `visible_cells`; False inside other boxes that share the channel


class Scene(NamedTuple):
    """A batch on the grid: what does not depend on any head. Boxes without a cell are left out."""

    stride: int
    boxes: Boxes
    kept: Tensor  # (M,) bool, which of the batch's M boxes these are
    known: Tensor  # (B, h, w) bool: some pixel of the cell is image, not padding
    inside: Tensor  # (N, h, w) bool: the box touches the cell
    whole_xy: Tensor  # (N, 2) bool: the box ends inside the window on its x axis, on its y axis
    trusted: Tensor  # (N,) bool: every known pixel of the box is trusted
    drawn: Tensor | None  # (N, H, W) bool, the labels of the box's class in trusted boxes; None: the split has none


def scene(batch: Batch, stride: int) -> Scene:
    """`batch` on a grid of `stride` pixels."""
    size_hw = batch.labels.shape[-2:]
    pixels = pad((batch.labels != IGNORE).float()[:, None], stride)
    known = F.max_pool2d(pixels, stride)[:, 0] > 0
    inside = box_cells(batch.boxes.xyxy, size_hw, stride) & known[batch.boxes.image_index]
    there = inside.flatten(1).any(dim=1)
    boxes = batch.boxes.where(there)
    ends = boxes.xyxy[:, 2:] <= boxes.xyxy.new_tensor(size_hw[::-1]) + EDGE_TOLERANCE_PX
    whole_xy = (boxes.xyxy[:, :2] >= -EDGE_TOLERANCE_PX) & ends
    trusted, drawn = torch.zeros_like(boxes.class_id, dtype=torch.bool), None
    if batch.trusted is not None:
        image = boxes.image_index
        pixels = box_cells(boxes.xyxy, size_hw, 1) & (batch.labels != IGNORE)[image]
        trusted = ~(pixels & ~batch.trusted[image]).flatten(1).any(dim=1)
        own = pixels & (batch.labels[image] == boxes.class_id[:, None, None] + 1)
        drawn = own & trusted[:, None, None]
    return Scene(stride, boxes, there, known, inside[there], whole_xy, trusted, drawn)


def drawn_first(on: Scene, masks: Tensor) -> Tensor:
    """(N, h, w) masks on the grid, those of trusted boxes replaced by the share of each cell that a person drew."""
    if on.drawn is None:
        return masks
    return torch.where(on.trusted[:, None, None], pool_masks(on.drawn, on.stride), masks)


def heads(logits: Logits, on: Scene, fine: float, binary: float | None) -> list[Head]:
    """The fine head with the weight `fine` and, if the network has one and `binary` is a weight, the binary head."""
    boxes = on.boxes
    log_p = pool_log_probabilities(logits.fine, on.stride)
    same = boxes.class_id[:, None] == boxes.class_id
    seen = [
        Head(fine, log_p[:, 0], instance_logits(log_p, boxes.image_index, boxes.class_id + 1), visible_cells(on, same))
    ]
    if logits.binary is not None and binary is not None:
        log_p = pool_log_probabilities(logits.binary, on.stride)
        defect = torch.ones_like(boxes.class_id)
        answers = instance_logits(log_p, boxes.image_index, defect)
        seen.append(Head(binary, log_p[:, 0], answers, visible_cells(on, torch.ones_like(same))))
    return seen


def pad(maps: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) with sides padded to multiples of `stride`, the rim repeated, the odd pixel below and right."""
    height, width = maps.shape[-2:]
    down, right = -height % stride, -width % stride
    if not down and not right:
        return maps
    return F.pad(maps, (right // 2, right - right // 2, down // 2, down - down // 2), mode="replicate")


def pool_mean(maps: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) float to the mean of each cell, (B, C, h, w)."""
    return F.avg_pool2d(pad(maps, stride), stride)


def pool_log_probabilities(logits: Tensor, stride: int) -> Tensor:
    """Logits (B, C, H, W) to log probabilities (B, C, h, w): the mean probability of each cell's pixels, by class."""
    log_p = F.log_softmax(logits, dim=1)
    if stride == 1:
        return log_p
    log_p = pad(log_p, stride)
    size, channels = len(log_p), log_p.shape[1]
    height, width = (side // stride for side in log_p.shape[-2:])
    cells = log_p.view(size, channels, height, stride, width, stride).transpose(3, 4).flatten(4)
    return cells.logsumexp(dim=-1) - 2 * torch.tensor(float(stride)).log()


def pool_masks(masks: Tensor, stride: int) -> Tensor:
    """(N, H, W) bool to the share of each cell that is mask, (N, h, w) float in [0, 1].

    A share, not a vote: a crack thinner than half a cell would vanish, and the student's own mean probability over
    the cell is compared with it, so a perfect student agrees with it exactly.
    """
    return pool_mean(masks.float()[:, None], stride)[:, 0] if stride > 1 else masks.float()


def instance_logits(log_p: Tensor, image_index: Tensor, channel: Tensor) -> Tensor:
    """(N, h, w): log p_k - logsumexp of all others, so that its sigmoid is the softmax's p_k exactly.

    `log_p` (B, C, h, w) log probabilities; `image_index`, `channel` (N,).
    """
    own = log_p[image_index]
    mine = F.one_hot(channel, log_p.shape[1]).bool()[:, :, None, None]
    chosen = own.gather(1, channel[:, None, None, None].expand(-1, 1, *own.shape[-2:]))[:, 0]
    return chosen - own.masked_fill(mine, -torch.inf).logsumexp(dim=1)


def box_cells(xyxy: Tensor, size_hw: tuple[int, int], stride: int) -> Tensor:
    """Cells that a box touches, (N, h, w) bool, by any overlap: a box smaller than a cell has the cell it lies in.

    `xyxy` (N, 4) pixels of an (H, W) window, half-open; what reaches beyond the window is cut off, so a box outside
    of it has no cell.
    """
    across = _touched(xyxy[:, 0], xyxy[:, 2], size_hw[1], stride)
    down = _touched(xyxy[:, 1], xyxy[:, 3], size_hw[0], stride)
    return down[:, :, None] & across[:, None, :]


def _touched(start: Tensor, end: Tensor, length: int, stride: int) -> Tensor:
    """(N, cells) bool along one axis."""
    edges = torch.arange(-(-length // stride) + 1, device=start.device) * stride - (-length % stride) // 2
    first, last = edges[:-1].clamp(min=0), edges[1:].clamp(max=length)
    start, end, centre = start[:, None], end[:, None], (start + end)[:, None] / 2
    overlapping = (start + EDGE_TOLERANCE_PX < last) & (end - EDGE_TOLERANCE_PX > first)
    return overlapping | ((first <= centre) & (centre < last))


def visible_cells(on: Scene, rivals: Tensor) -> Tensor:
    """V, (N, h, w) bool: known cells, except those inside another box of the image for which `rivals` (N, N) is true.

    All boxes of a class share a channel (in the binary head all boxes do), so its values inside another box are no
    evidence about this one; the box's own cells always count.
    """
    image = on.boxes.image_index
    other = rivals & (image[:, None] == image) & ~torch.eye(len(image), dtype=torch.bool, device=image.device)
    taken = torch.einsum("ij,jhw->ihw", other.float(), on.inside.float()) > 0
    return on.known[image] & ~(taken & ~on.inside)
