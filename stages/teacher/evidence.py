"""What speaks for a candidate beside the teacher's own scores: the image, and the other candidates.

Networks judge their masks by what they were trained on; on other surfaces that fails. Whether a mask's pixels look
different from what surrounds them can be seen in the image itself.
"""

from collections.abc import Sequence

import numpy as np

from stages.data.boxes import Box, Window, pixels_of_box

MARGIN = 0.25
"""Share of the box's sides by which it grows on each side for `separation`, so that a mask that fills the box has
surroundings to be compared with (our choice)."""


def evidence(
    image: np.ndarray, box_xyxy: Box, masks: Sequence[np.ndarray], origins_xy: Sequence[tuple[int, int]]
) -> list[dict[str, float]]:
    """`separation` and `agreement` of each candidate of one box, both in [0, 1]; only pixels of the box count as mask.

    `image`: (H, W, 3) uint8 RGB. `masks`: bool, the parts of the image that start at `origins_xy`.
    """
    size_hw = image.shape[:2]
    around, inside = pixels_of_box(box_xyxy, size_hw, MARGIN), pixels_of_box(box_xyxy, size_hw)
    levels = np.rint(image[around.y1 : around.y2, around.x1 : around.x2].mean(axis=2)).astype(np.uint8)
    shown = [_in_window(mask, origin, inside, around) for mask, origin in zip(masks, origins_xy, strict=True)]
    return [
        {
            "separation": separation(levels, mask),
            "agreement": float(np.mean([_iou(mask, other) for other in shown])) if mask.any() else 0.0,
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


def _in_window(mask: np.ndarray, origin_xy: tuple[int, int], inside: Window, around: Window) -> np.ndarray:
    """The pixels of `mask` that lie in the window `inside`, on the window `around`."""
    shown = np.zeros(around.size_hw, bool)
    x1, y1 = max(origin_xy[0], inside.x1), max(origin_xy[1], inside.y1)
    x2, y2 = min(origin_xy[0] + mask.shape[1], inside.x2), min(origin_xy[1] + mask.shape[0], inside.y2)
    if x1 < x2 and y1 < y2:
        part = mask[y1 - origin_xy[1] : y2 - origin_xy[1], x1 - origin_xy[0] : x2 - origin_xy[0]]
        shown[y1 - around.y1 : y2 - around.y1, x1 - around.x1 : x2 - around.x1] = part
    return shown


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0
