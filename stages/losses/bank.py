"""The copy-paste bank: which instances of the train shards are fit to be pasted, drawn by seed, read when needed.

As in BoxSeg's release [C]: an instance is admitted if its box overlaps no other box of its image by an IoU of
`max_box_iou` or more, and quality, score and area exceed theirs. Departures [O]: the quality is that of SAM's
candidates alone, there being no EMA student yet; the score is the chosen candidate's predicted IoU; what is drawn by
seed is images, at most `images` of them, not one for each combination of classes with random eviction.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from stages.common.errors import UserError
from stages.data.boxes import pixels_of_box
from stages.data.images import read_image
from stages.losses.batch import SCORES, Batch, boxes_of
from stages.losses.copy_paste import Piece, copy_paste
from stages.losses.pseudo_masks import pairwise_box_iou, tight_boxes
from stages.masks import rle
from stages.methods.boxseg import judge, peers
from stages.methods.config import BankParams, BoxSegParams
from stages.student.config import ViewParams


class Entry(NamedTuple):
    """An image of the bank."""

    photo: dict  # its row of the masks table, less the label map
    instances: list[list[dict]]  # the candidate rows of each box that may be pasted


def build(masks: pa.Table, candidates: pa.Table, params: BankParams, fusion: str, seed: int) -> list[Entry]:
    """Images with an instance to paste, in the order of their draw. No pixel of an image is read.

    `masks`, `candidates`: the train shards' tables. The same tables and seed give the same bank.
    """
    columns = ["image_id", "path", "sha256", "exif_orientation", "height", "width"]
    photos = masks.select(columns).to_pylist()
    by_image: dict[str, dict[str, list[dict]]] = {}
    for row in candidates.to_pylist():
        by_image.setdefault(row["image_id"], {}).setdefault(row["box_id"], []).append(row)
    bank: list[Entry] = []
    for index in np.random.default_rng([seed, len(photos)]).permutation(len(photos)):
        photo = photos[index]
        boxes = list(by_image.get(photo["image_id"], {}).values())
        if admitted := _admitted(boxes, photo, params, fusion):
            bank.append(Entry(photo, admitted))
        if len(bank) == params.images:
            break
    return bank


def paster(
    root: Path, masks: pa.Table, candidates: pa.Table, params: BoxSegParams, view: ViewParams, seed: int
) -> Callable[[Batch, float, np.random.Generator], Batch]:
    """Copy-paste from a bank of the train split under `root`, into a batch at a share of the training.

    Raises UserError when no instance is fit for the bank.
    """
    entries = build(masks, candidates, params.copy_paste, params.fusion, seed)
    if not entries:
        raise UserError(
            "no instance of the train split is fit for the copy-paste bank: lower supervision.copy_paste.min_quality, "
            "min_score or min_area_px, or switch copy_paste off (null)"
        )
    bank = [
        [at_scale(piece, _scale_yx(entry, view)) for piece in read(root, entry, params.fusion)] for entry in entries
    ]
    return lambda batch, progress, draw: copy_paste(batch, bank, params.copy_paste, progress, params.warmup, draw)


def at_scale(piece: Piece, scale_yx: tuple[float, float]) -> Piece:
    """The piece as a window shows it that is stretched by so much; masks by nearest neighbour, never empty."""
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


def _scale_yx(entry: Entry, view: ViewParams) -> tuple[float, float]:
    stretched = view.scale == "stretch"
    return tuple(view.size_px / entry.photo[side] if stretched else 1.0 for side in ("height", "width"))


def read(root: Path, entry: Entry, fusion: str) -> list[Piece]:
    """The entry's instances with their pixels. Raises UserError like `read_image`."""
    photo = entry.photo
    rgb = read_image(root, photo["path"], photo["sha256"], photo["exif_orientation"])
    return [_piece(rows, rgb, fusion) for rows in entry.instances]


def _admitted(boxes: list[list[dict]], photo: dict, params: BankParams, fusion: str) -> list[list[dict]]:
    size_hw = (photo["height"], photo["width"])
    corners = torch.tensor([_corners(rows) for rows in boxes]).reshape(-1, 4)
    kept = []
    for index, rows in enumerate(boxes):
        others = torch.cat([corners[:index], corners[index + 1 :]])
        if (pairwise_box_iou(corners[index].expand_as(others), others) >= params.max_box_iou).any():
            continue
        if next(row for row in rows if row["chosen"])["sam_pred_iou"] <= params.min_score:
            continue
        _, fused, quality = _fused(rows, size_hw, fusion)
        if quality > params.min_quality and fused.sum() > params.min_area_px:
            kept.append(rows)
    return kept


def _fused(rows: Sequence[dict], size_hw: tuple[int, int], fusion: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Candidates (C, H, W) and the fused mask (H, W), on the image, and its quality."""
    masks = torch.from_numpy(np.stack([rle.decode(row["rle"], size_hw) for row in rows]))
    window = pixels_of_box(_corners(rows), size_hw)
    inside = torch.zeros(size_hw, dtype=torch.bool)
    inside[window.y1 : window.y2, window.x1 : window.x2] = True
    one = boxes_of([rows], torch.tensor([_corners(rows)]), masks[None])
    fused = judge(peers(one, inside[None], None), inside[None], fusion)
    return masks, fused.mask[0], float(fused.score[0])


def _piece(rows: Sequence[dict], rgb: np.ndarray, fusion: str) -> Piece:
    masks, fused, quality = _fused(rows, rgb.shape[:2], fusion)
    x1, y1, x2, y2 = tight_boxes(fused[None])[0].int().tolist()
    return Piece(
        torch.from_numpy(rgb[y1:y2, x1:x2].copy()).permute(2, 0, 1).float() / 255,
        fused[y1:y2, x1:x2],
        masks[:, y1:y2, x1:x2] & fused[y1:y2, x1:x2],
        rows[0]["class_id"],
        torch.tensor(_corners(rows)) - torch.tensor([x1, y1, x1, y1]),
        torch.tensor([[row[name] for row in rows] for name in SCORES]),
        next(index for index, row in enumerate(rows) if row["chosen"]),
        quality,
    )


def _corners(rows: Sequence[dict]) -> tuple[float, float, float, float]:
    return rows[0]["x1"], rows[0]["y1"], rows[0]["x2"], rows[0]["y2"]
