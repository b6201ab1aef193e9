"""BoxSeg's Peer-assisted Copy-paste (arXiv 2504.05137): well-masked instances of the bank, pasted into a batch.

As released: an image that has a box is given one more instance, of a class that it has, from a random image of
the bank; of that image's fitting instances the one with the highest quality. It lands on a box of its class drawn
at random (not the worst): its left edge uniformly between 0.9 of its width left of the box and 0.1 of its width left
of the box's right edge, likewise from above; no scaling, flip or blending. What it covers is erased from the other
instances, whose boxes shrink with them; one stays if no side of its box moved by more than `max_shift_px` or more than
`min_area_px` of its mask are left. Attempts fall from every image to 3 in 10 over the warm-up (the release's
`rand < 0.7 ramp` means skip). A pasted instance brings its label, its masks and their scores, hence its quality.

Departures: the bank is built offline from the train shards with seeded draws, keeps its images after use and
is not renewed, so training is reproducible; its qualities are those of SAM's masks alone. Pasting comes first, so the
EMA teacher sees the pasted image, and colour similarity is computed on it (in the release the teacher labels before
pasting, and the colours are from before it). A side of a box moves as far as that side of its mask's bounding box,
because boxes drawn by people are not as tight as masks. What is left of a dropped instance is ignored, not made
background. A piece is not augmented: `image` and `clean` get the same pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.data.tables import IGNORE
from stages.losses.batch import Batch, Boxes
from stages.losses.pseudo_masks import tight_boxes

SKIPPED = 0.7
"""Share of the images that are left alone once the warm-up is over, as released."""


class Piece(NamedTuple):
    """An instance of the bank, cut out to the bounding box of its mask: h x w pixels, C candidates."""

    rgb: Tensor  # (3, h, w) float32 in [0, 1]
    mask: Tensor  # (h, w) bool, what is pasted
    candidates: Tensor  # (C, h, w) bool
    class_id: int
    box_xyxy: Tensor  # (4,) float32, relative to the cut-out's top left
    scores: dict[str, Tensor]  # (C,) float32, by the fields of `Boxes` that SCORES names
    chosen: int
    quality: float


Bank = Sequence[Sequence[Piece]]
"""The instances of each image in the bank."""


def at_scale(piece: Piece, scale_yx: tuple[float, float]) -> Piece:
    """The piece resized by `scale_yx`, its masks by nearest neighbour; `mask` is never empty."""
    if scale_yx == (1.0, 1.0):
        return piece
    size_hw = [max(round(side * scale), 1) for side, scale in zip(piece.mask.shape, scale_yx, strict=True)]
    rgb = F.interpolate(piece.rgb[None], size_hw, mode="bilinear", antialias=True, align_corners=False)[0]
    masks = torch.cat([piece.mask[None], piece.candidates]).float()[None]
    mask, *each = F.interpolate(masks, size_hw, mode="nearest-exact")[0].bool()
    if not mask.any():
        mask = torch.ones_like(mask)
    candidates = torch.stack(each) & mask
    box_xyxy = piece.box_xyxy * torch.tensor([*reversed(scale_yx), *reversed(scale_yx)])
    return piece._replace(rgb=rgb, mask=mask, candidates=candidates, box_xyxy=box_xyxy)


def copy_paste(
    batch: Batch, bank: Bank, max_shift_px: float, min_area_px: int, rise: float, draw: np.random.Generator
) -> Batch:
    """The batch with pieces pasted into some of its images; the one given is left as it is.

    `rise`: share of the warm-up that is over, from 0 to 1. `max_shift_px`, `min_area_px`: see `erase`.

    The same `draw` state gives the same batch. Images without a box, or without a fitting piece, stay as they are.
    """
    for image in range(len(batch.labels)):
        if draw.random() < SKIPPED * rise:
            continue
        mine = (batch.boxes.image_index == image).nonzero()[:, 0]
        classes = set(batch.boxes.class_id[mine].tolist())
        fitting = [pieces for pieces in bank if classes & {piece.class_id for piece in pieces}]
        if not fitting:
            continue
        peers = [piece for piece in fitting[draw.integers(len(fitting))] if piece.class_id in classes]
        piece = max(peers, key=lambda one: one.quality)
        targets = mine[batch.boxes.class_id[mine] == piece.class_id]
        target_xyxy = batch.boxes.xyxy[targets[draw.integers(len(targets))]].tolist()
        batch = paste(batch, image, piece, place(piece, target_xyxy, draw), max_shift_px, min_area_px)
    return batch


def place(piece: Piece, target_xyxy: Sequence[float], draw: np.random.Generator) -> tuple[int, int]:
    """Left and top of the piece, in whole pixels of the window; the piece may reach beyond the window."""
    height, width = piece.mask.shape
    left = draw.uniform(*sorted((target_xyxy[0] - 0.9 * width, target_xyxy[2] - 0.1 * width)))
    top = draw.uniform(*sorted((target_xyxy[1] - 0.9 * height, target_xyxy[3] - 0.1 * height)))
    return round(left), round(top)


def paste(
    batch: Batch, image: int, piece: Piece, corner_xy: tuple[int, int], max_shift_px: float, min_area_px: int
) -> Batch:
    """The batch with `piece` in `image`, its top left at `corner_xy`. IGNORE pixels, such as padding, do not change."""
    size_hw = batch.labels.shape[-2:]
    covered = _onto(piece.mask, size_hw, corner_xy) & (batch.labels[image] != IGNORE)
    if not covered.any():
        return batch
    rgb = _onto(piece.rgb, size_hw, corner_xy)
    images = [each.clone() for each in (batch.image, batch.clean)]
    for each in images:
        each[image] = torch.where(covered, rgb, each[image])
    labels, correctable = batch.labels.clone(), batch.correctable()
    before = batch.boxes
    boxes, keep = erase(before, image, covered, max_shift_px, min_area_px)
    for lost in (~keep).nonzero()[:, 0].tolist():
        rest = before.of_chosen(before.candidates)[lost] & (labels[image] == before.class_id[lost] + 1)
        labels[image] = torch.where(rest & correctable[image], IGNORE, labels[image])
    labels[image] = torch.where(covered, piece.class_id + 1, labels[image])
    added = _as_box(piece, image, _onto(piece.candidates, size_hw, corner_xy) & covered, corner_xy)
    together = [torch.cat([old, new]) for old, new in zip(boxes.where(keep), added, strict=True)]
    trusted = batch.trusted
    if trusted is not None:
        trusted = trusted.clone()
        trusted[image] &= ~covered
    return Batch(*images, labels, Boxes(*together), trusted)


def erase(boxes: Boxes, image: int, covered: Tensor, max_shift_px: float, min_area_px: int) -> tuple[Boxes, Tensor]:
    """The boxes, with `covered` (S, S) bool erased from the masks in `image`, and which of them stay, (N,) bool.

    One stays if no side of its box moved by more than `max_shift_px`, or more than `min_area_px` of its mask are left.
    """
    here = boxes.image_index == image
    candidates = boxes.candidates & ~(covered & here[:, None, None])[:, None]
    old, new = boxes.of_chosen(boxes.candidates), boxes.of_chosen(candidates)
    moved = tight_boxes(new) - tight_boxes(old)
    remaining, touched = new.flatten(1).sum(1), (old != new).flatten(1).any(1)
    near = (moved.abs() <= max_shift_px).all(dim=1) & (remaining > 0)
    keep = ~touched | near | (remaining > min_area_px)
    # a mask that has no pixel in the window is as valid as before
    emptied = boxes.candidates.flatten(2).any(2) & ~candidates.flatten(2).any(2)
    return boxes._replace(candidates=candidates, xyxy=boxes.xyxy + moved, valid=boxes.valid & ~emptied), keep


def _onto(part: Tensor, size_hw: tuple[int, int], corner_xy: tuple[int, int]) -> Tensor:
    """`part` (..., h, w) placed on an empty window, (..., H, W), and cut off at the window's rim."""
    (height, width), (left, top) = size_hw, corner_xy
    window = part.new_zeros(*part.shape[:-2], height, width)
    y1, x1 = max(top, 0), max(left, 0)
    y2, x2 = max(min(top + part.shape[-2], height), y1), max(min(left + part.shape[-1], width), x1)
    if y2 > y1 and x2 > x1:
        window[..., y1:y2, x1:x2] = part[..., y1 - top : y2 - top, x1 - left : x2 - left]
    return window


def _as_box(piece: Piece, image: int, candidates: Tensor, corner_xy: tuple[int, int]) -> Boxes:
    """The piece as the only box, in window pixels."""
    return Boxes(
        image_index=torch.tensor([image]),
        class_id=torch.tensor([piece.class_id]),
        xyxy=piece.box_xyxy[None] + torch.tensor([*corner_xy, *corner_xy], dtype=torch.float32),
        candidates=candidates[None],
        valid=candidates.flatten(1).any(1)[None],
        chosen=torch.tensor([piece.chosen]),
        **{field: values[None] for field, values in piece.scores.items()},
    )
