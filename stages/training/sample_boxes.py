"""The boxes of a training window, with SAM's candidates, from the candidates table of the shards."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from stages.data.boxes import Window
from stages.losses.batch import SCORES, Boxes, boxes_of
from stages.losses.train_rows import CandidatesByImage
from stages.masks import rle
from stages.student.config import ViewParams


class BoxTable:
    """Rows of the candidates table by image. Masks are decoded when a window needs them."""

    def __init__(self, masks: pa.Table, candidates: pa.Table) -> None:
        """The tables of the train split; image `index` of `window` is row `index` of `masks`."""
        self.sizes_hw = np.stack([masks["height"].to_numpy(), masks["width"].to_numpy()], axis=1)
        names = ["box_id", "class_id", "x1", "y1", "x2", "y2", "chosen", "rle", "area", *SCORES]
        self.rows = CandidatesByImage(masks, candidates, names)
        self.candidates = (pc.max(candidates["cand_idx"]).as_py() if len(candidates) else -1) + 1

    def window(self, index: int, view: ViewParams, top: int, left: int) -> Boxes:
        """The boxes of image `index` that overlap the window, in window pixels; their `image_index` is 0.

        With view.scale `native` the window starts at image pixel (`top`, `left`); with `stretch` it shows the whole
        image.
        """
        size, size_hw, scale_yx = view.size_px, tuple(self.sizes_hw[index].tolist()), (1.0, 1.0)
        if view.scale == "stretch":
            top, left, scale_yx = 0, 0, (size / size_hw[0], size / size_hw[1])
        seen: dict[str, list[dict]] = {}
        for row in self.rows.of(index):
            x1, x2 = ((row[x] - left) * scale_yx[1] for x in ("x1", "x2"))
            y1, y2 = ((row[y] - top) * scale_yx[0] for y in ("y1", "y2"))
            if x2 > 0 and y2 > 0 and x1 < size and y1 < size:
                seen.setdefault(row["box_id"], []).append(row | {"xyxy": (x1, y1, x2, y2)})
        boxes = list(seen.values())
        xyxy = torch.tensor([rows[0]["xyxy"] for rows in boxes], dtype=torch.float32).reshape(-1, 4)
        masks = [torch.stack([cut_mask(row["rle"], size_hw, view, top, left) for row in rows]) for rows in boxes]
        empty = torch.zeros(0, self.candidates, size, size, dtype=torch.bool)
        return boxes_of(boxes, xyxy, torch.stack(masks) if masks else empty)


def cut_mask(code: bytes, size_hw: tuple[int, int], view: ViewParams, top: int, left: int) -> Tensor:
    """(S, S) bool: the part of a mask in the window at (`top`, `left`); with `stretch`, the whole mask, resized.

    `code`: the mask as in stages/masks/rle.py; `size_hw`: of its image.
    """
    size = view.size_px
    if view.scale == "stretch":
        return nearest(torch.from_numpy(rle.decode(code, size_hw)), size)
    window = torch.zeros(size, size, dtype=torch.bool)
    shown = Window(left, top, min(left + size, size_hw[1]), min(top + size, size_hw[0]))
    cut = torch.from_numpy(rle.decode_part(code, size_hw, shown))
    window[: cut.shape[0], : cut.shape[1]] = cut
    return window


def nearest(labels: Tensor, size_px: int) -> Tensor:
    """(H, W) labels or mask resized to (size_px, size_px) by nearest neighbour."""
    rows = ((torch.arange(size_px) + 0.5) * labels.shape[0] / size_px).long()
    columns = ((torch.arange(size_px) + 0.5) * labels.shape[1] / size_px).long()
    return labels[rows][:, columns]


def flip_boxes(boxes: Boxes, axes: Sequence[int]) -> Boxes:
    """The boxes of a window that is mirrored along `axes`, -2 (upside down) and -1 (left to right)."""
    size, corners = boxes.candidates.shape[-1], list(boxes.xyxy.unbind(1))
    for axis in axes:
        first = 0 if axis == -1 else 1
        corners[first], corners[first + 2] = size - corners[first + 2], size - corners[first]
    return boxes._replace(xyxy=torch.stack(corners, dim=1), candidates=boxes.candidates.flip(list(axes)))


def stack(each: Sequence[Boxes]) -> Boxes:
    """The boxes of several windows as those of one batch."""
    numbered = [boxes._replace(image_index=boxes.image_index + index) for index, boxes in enumerate(each)]
    return Boxes(*(torch.cat(values) for values in zip(*numbered, strict=True)))
