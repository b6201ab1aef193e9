"""Scores of a candidate that do not come from the teacher: how well the image and the other candidates support it.

A network's own scores may fail on surfaces that it was not trained on. Whether the pixels of a mask differ from their
surroundings can be measured in the image itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stages.data.boxes import Box, Window, pixels_of_box

MARGIN = 0.25
"""Share of the box's sides by which it grows on each side for `separation`, so that a mask that fills the box has
surroundings to be compared with (our choice)."""


class Surroundings(NamedTuple):
    """The pixels of one box and around it."""

    around: Window  # the box grown by MARGIN
    inside: Window  # the pixels of the box
    levels: np.ndarray  # (H, W) float64 brightness of the window `around`, 0 to 255

    def show(self, mask: np.ndarray, origin_xy: tuple[int, int]) -> np.ndarray:
        """(H, W) bool of the window `around`: the pixels of the box that belong to `mask`, (h, w) bool, whose first
        pixel lies at `origin_xy` of the image."""
        shown = np.zeros(self.around.size_hw, bool)
        x1, y1 = max(origin_xy[0], self.inside.x1), max(origin_xy[1], self.inside.y1)
        x2, y2 = min(origin_xy[0] + mask.shape[1], self.inside.x2), min(origin_xy[1] + mask.shape[0], self.inside.y2)
        if x1 < x2 and y1 < y2:
            part = mask[y1 - origin_xy[1] : y2 - origin_xy[1], x1 - origin_xy[0] : x2 - origin_xy[0]]
            shown[y1 - self.around.y1 : y2 - self.around.y1, x1 - self.around.x1 : x2 - self.around.x1] = part
        return shown


def surroundings(image: np.ndarray, box_xyxy: Box) -> Surroundings:
    """The surroundings of `box_xyxy`, in native pixels of `image`, (H, W, 3) uint8 RGB."""
    around = pixels_of_box(box_xyxy, image.shape[:2], MARGIN)
    levels = image[around.y1 : around.y2, around.x1 : around.x2].mean(axis=2)
    return Surroundings(around, pixels_of_box(box_xyxy, image.shape[:2]), levels)


def evidence(levels: np.ndarray, shown: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """`separation` and `agreement` of each candidate of one box, both in [0, 1]; only pixels of the box count as mask.

    `agreement`: mean IoU with all candidates of the box, itself included; 0 for an empty mask. `levels`: (H, W)
    brightness around the box, 0 to 255; `shown`: the masks of the candidates, bool of the same shape.
    """
    whole = np.rint(levels).astype(np.uint8)
    return [
        {
            "separation": separation(whole, mask),
            "agreement": float(np.mean([mask_iou(mask, other) for other in shown])) if mask.any() else 0.0,
        }
        for mask in shown
    ]


def separation(levels: np.ndarray, mask: np.ndarray) -> float:
    """|2 AUC - 1|, AUC being the probability that a pixel of `mask` is brighter than one outside, ties half.

    1 where all pixels of the mask are brighter, or all are darker, than all others; about 0 for a mask drawn at random,
    and 0 where either side has no pixel. `levels`: (H, W) uint8; `mask`: (H, W) bool. Mann and Whitney (1947).
    """
    inside, outside = (np.bincount(levels[part], minlength=256).astype(np.float64) for part in (mask, ~mask))
    pairs = inside.sum() * outside.sum()
    if not pairs:
        return 0.0
    brighter = (inside * (np.cumsum(outside) - outside / 2)).sum() / pairs
    return float(abs(2 * brighter - 1))


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two bool masks of the same shape; 0 where both are empty."""
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0
