"""BoxSeg (arXiv 2504.05137): BoxTeacher's losses on masks fused from several candidates and scored by their agreement.

The Quality-Aware Module is stages/losses/fusion.py, Peer-assisted Copy-paste stages/losses/copy_paste.py, on a bank of
instances that is built here. The varifocal loss and the NMS-free teacher are left out: they belong to a detector.

The bank, as released: an instance is admitted if its box overlaps no other box of its image by an IoU of `max_box_iou`
or more, and its quality, score and area exceed their limits. Departures: its quality is that of SAM's candidates alone,
because there is no EMA teacher yet; its score is the chosen candidate's predicted IoU; the bank holds up to `images`
images drawn by seed, where the release holds one per combination of classes, with random eviction.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from stages.common.errors import UserError
from stages.common.params import Section
from stages.data.boxes import corners, pixels_of_box
from stages.data.images import read_image
from stages.losses.batch import SCORES, Batch, Moment, boxes_of, ramp
from stages.losses.config import Share, Weight
from stages.losses.copy_paste import Piece, at_scale, copy_paste
from stages.losses.fusion import judge, peers
from stages.losses.grid import heads, scene
from stages.losses.instance import BoxLossParams, box_losses, pseudo_losses
from stages.losses.method import Method as BaseMethod
from stages.losses.method import Named, TrainSplit
from stages.losses.pseudo_masks import box_pixels, choose, pairwise_box_iou, tight_boxes
from stages.losses.train_rows import CandidatesByImage, Rows
from stages.masks import rle
from stages.student.segmenter import Logits


class BankParams(Section):
    """The copy-paste bank, and when an instance survives being pasted over.

    Values in brackets are the release's. `images`: most images in the bank (80). An admitted instance has a mask
    quality above `min_quality` and a predicted IoU above `min_score` (0.5 each), a box IoU below `max_box_iou` with
    every other box of its image (0.1), and a mask of more than `min_area_px` (300 on images of 800 px and more; 75 is
    the same at 518).

    An instance that is pasted over stays if more than `min_area_px` of its mask is left, or if no side of its box moved
    by more than `max_shift_px` (10).
    """

    images: int = Field(ge=1)
    min_quality: Share
    min_score: Share
    max_box_iou: Share
    min_area_px: int = Field(ge=1)
    max_shift_px: float = Field(ge=0)


class Params(BoxLossParams):
    """`quality_aware`: whether to use the Quality-Aware Module; if not, masks are chosen and scored as by `boxteacher`
    with `sam_then_ema`. `fusion`: how a box's candidates are fused, as in the paper (`published`) or in the authors'
    code (`released`). `copy_paste`: Peer-assisted Copy-paste; None: off. `pixel`, `affinity`: as in `boxteacher`.
    """

    method: Literal["boxseg"]
    quality_aware: bool
    fusion: Literal["published", "released"]
    copy_paste: BankParams | None
    pixel: Weight
    affinity: Weight


class Method(BaseMethod):
    """BoxInst's losses, `pixel` and `affinity`. Curves: mean `mask_score`, and `ranked_share` of boxes with a mask."""

    reads_boxes = True
    reads_labels = False
    reads_ema = True

    def __init__(self, params: Params, split: TrainSplit) -> None:
        super().__init__(params, split)
        self.bank = read_bank(split, params.copy_paste, params.fusion) if params.copy_paste else None

    def augment(self, batch: Batch, progress: float, draw: np.random.Generator) -> Batch:
        if self.bank is None:
            return batch
        limits = self.params.copy_paste
        return copy_paste(
            batch, self.bank, limits.max_shift_px, limits.min_area_px, ramp(progress, self.params.warmup), draw
        )

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        params, on = self.params, scene(batch, self.params.stride)
        seen = heads(logits, on, params.fine, params.binary)
        inside = box_pixels(batch, on.boxes)
        if params.quality_aware:
            pseudo = judge(peers(on.boxes, inside, ema), inside, params.fusion)
        else:
            pseudo, _ = choose("sam_then_ema", ema, on.boxes, inside)
        named = box_losses(seen, on, batch, params, moment.progress)
        rise = ramp(moment.progress, params.warmup)
        named |= pseudo_losses(seen, on, pseudo, rise * params.pixel, rise * params.affinity)
        boxes = max(len(pseudo.score), 1)
        return named, {"mask_score": pseudo.score.sum() / boxes, "ranked_share": (pseudo.score > 0).sum() / boxes}


def read_bank(split: TrainSplit, params: BankParams, fusion: str) -> list[list[Piece]]:
    """The pieces of each image that has any, at the scale of a window; images in a random order, by seed.

    Raises UserError when no instance is fit for the bank, or an image cannot be read.
    """
    images = Rows(split.masks, ["path", "sha256", "exif_orientation", "height", "width"])
    of_image, bank = CandidatesByImage(split.masks, split.candidates, split.candidates.column_names), []
    stretched = split.view.scale == "stretch"
    for index in np.random.default_rng([split.seed, len(images)]).permutation(len(images)):
        image, boxes = images[int(index)], {}
        for row in of_image.of(index):
            boxes.setdefault(row["box_id"], []).append(row)
        if admitted := _admitted(list(boxes.values()), image, params, fusion):
            rgb = read_image(split.source, image)
            scale_yx = tuple(split.view.size_px / image[side] if stretched else 1.0 for side in ("height", "width"))
            bank.append([at_scale(_piece(rows, rgb, fusion), scale_yx) for rows in admitted])
        if len(bank) == params.images:
            break
    if not bank:
        raise UserError(
            "no instance of the train split is fit for the copy-paste bank: lower supervision.copy_paste.min_quality, "
            "min_score or min_area_px, or switch copy_paste off (null)"
        )
    return bank


def _admitted(boxes: list[list[dict]], image: dict, params: BankParams, fusion: str) -> list[list[dict]]:
    """Those of `boxes` that may be pasted; each box is given as the list of its candidate rows."""
    size_hw = (image["height"], image["width"])
    xyxy = torch.tensor([corners(rows[0]) for rows in boxes]).reshape(-1, 4)
    kept = []
    for index, rows in enumerate(boxes):
        others = torch.cat([xyxy[:index], xyxy[index + 1 :]])
        if (pairwise_box_iou(xyxy[index].expand_as(others), others) >= params.max_box_iou).any():
            continue
        if next(row for row in rows if row["chosen"])["sam_pred_iou"] <= params.min_score:
            continue
        _, fused, quality = _fused(rows, size_hw, fusion)
        if quality > params.min_quality and fused.sum() > params.min_area_px:
            kept.append(rows)
    return kept


def _fused(rows: Sequence[dict], size_hw: tuple[int, int], fusion: str) -> tuple[Tensor, Tensor, float]:
    """Candidates (C, H, W) bool and their fused mask (H, W) bool, in image pixels, and its quality in [0, 1]."""
    masks = torch.from_numpy(np.stack([rle.decode(row["rle"], size_hw) for row in rows]))
    window = pixels_of_box(corners(rows[0]), size_hw)
    inside = torch.zeros(size_hw, dtype=torch.bool)
    inside[window.y1 : window.y2, window.x1 : window.x2] = True
    one = boxes_of([rows], torch.tensor([corners(rows[0])]), masks[None])
    fused = judge(peers(one, inside[None], None), inside[None], fusion)
    return masks, fused.mask[0], float(fused.score[0])


def _piece(rows: Sequence[dict], rgb: np.ndarray, fusion: str) -> Piece:
    masks, fused, quality = _fused(rows, rgb.shape[:2], fusion)
    x1, y1, x2, y2 = tight_boxes(fused[None])[0].int().tolist()
    return Piece(
        rgb=torch.from_numpy(rgb[y1:y2, x1:x2].copy()).permute(2, 0, 1).float() / 255,
        mask=fused[y1:y2, x1:x2],
        candidates=masks[:, y1:y2, x1:x2] & fused[y1:y2, x1:x2],
        class_id=rows[0]["class_id"],
        box_xyxy=torch.tensor(corners(rows[0])) - torch.tensor([x1, y1, x1, y1]),
        scores={field: torch.tensor([row[column] for row in rows]) for column, field in SCORES.items()},
        chosen=next(index for index, row in enumerate(rows) if row["chosen"]),
        quality=quality,
    )
