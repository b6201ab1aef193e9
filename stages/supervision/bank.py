"""The copy-paste bank: which instances of the train shards are fit to be pasted, drawn by seed, read when needed.

As in BoxSeg's release [C]: an instance is admitted if its box overlaps no other box of its photograph by an IoU of
`max_box_iou` or more, and quality, score and area exceed theirs. Departures [O]: the quality is that of SAM's
candidates alone, there being no EMA student yet; the score is the chosen candidate's predicted IoU; what is drawn by
seed is photographs, at most `photographs` of them, not one for each combination of classes with random eviction.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from stages.dataset.photos import read_photo
from stages.supervision.batch import Boxes
from stages.supervision.boxseg import judge, peers
from stages.supervision.config import BankParams
from stages.supervision.copypaste import Piece
from stages.supervision.masks import pairwise_box_iou, tight_boxes
from stages.teacher import rle
from stages.teacher.labelmap import pixels_of_box

SCORES = ("sam_pred_iou", "stability", "mean_prob_in", "box_iou")
"""Columns of the candidates table, in the order of `Piece.scores`."""


class Entry(NamedTuple):
    """A photograph of the bank."""

    photo: dict  # its row of the masks table, less the label map
    instances: list[list[dict]]  # the candidate rows of each box that may be pasted


def build(masks: pa.Table, candidates: pa.Table, params: BankParams, fusion: str, seed: int) -> list[Entry]:
    """Photographs with an instance to paste, in the order of their draw. No pixel of a photograph is read.

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
        if len(bank) == params.photographs:
            break
    return bank


def read(root: Path, entry: Entry, fusion: str) -> list[Piece]:
    """The entry's instances with their pixels. Raises UserError like `read_photo`."""
    photo = entry.photo
    rgb = read_photo(root, photo["path"], photo["sha256"], photo["exif_orientation"])
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
    """Candidates (C, H, W) and the fused mask (H, W), on the photograph, and its quality."""
    masks = torch.from_numpy(np.stack([rle.decode(row["rle"], size_hw) for row in rows]))
    window = pixels_of_box(_corners(rows), size_hw)
    inside = torch.zeros(size_hw, dtype=torch.bool)
    inside[window.y1 : window.y2, window.x1 : window.x2] = True
    scores = torch.tensor([[row[name] for row in rows] for name in SCORES])
    one = Boxes(
        torch.zeros(1, dtype=torch.long),
        torch.tensor([rows[0]["class_id"]]),
        torch.tensor([_corners(rows)]),
        masks[None],
        masks.flatten(1).any(1)[None],
        *scores[:, None],
        torch.tensor([next(index for index, row in enumerate(rows) if row["chosen"])]),
    )
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
