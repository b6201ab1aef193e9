"""Samples for the teacher: one defect with its box, in a crop around the box as rasterize makes it, or a piece of a
defect that is larger than the teacher's view."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from stages.pretraining.world.primitives import Rng
from stages.pretraining.world.procedural_scene import scene


class Prompt(NamedTuple):
    """`image` uint8 (S, S, 3), padded with zeros on the right or below; `size_hw`: the part that is image; `box_xyxy`
    float32 (4,) in its pixels; `mask` bool (S, S); `kind` of shape."""

    image: np.ndarray
    size_hw: tuple[int, int]
    box_xyxy: np.ndarray
    mask: np.ndarray
    kind: str


def prompt(rng: Rng, side_px: int) -> Prompt:
    """A random defect 8 to 170 px long, in a crop that is resized to `side_px`, the teacher's input side."""
    while True:
        long_px = float(np.exp(rng.uniform(np.log(8), np.log(170))))
        window = max(24, round(long_px * rng.uniform(1.4, 2.6)))
        # at the border of an image rasterize shifts the crop, and cuts it where the image is smaller
        size_hw = (window, max(12, round(window * rng.uniform(0.4, 1)))) if rng.random() < 0.25 else (window, window)
        size_hw = size_hw if rng.random() < 0.5 else size_hw[::-1]
        off_centre = 0.3 if rng.random() < 0.3 else 0.06
        centre_xy = [side * rng.uniform(0.5 - off_centre, 0.5 + off_centre) for side in size_hw[::-1]]
        others = [
            (long_px * rng.uniform(0.2, 0.9), tuple(rng.uniform(0, 1, 2) * size_hw[::-1]))
            for _ in range(rng.choice([0, 0, 0, 1, 2]))
        ]
        made = scene(rng, size_hw, [*others, (long_px, tuple(centre_xy))])
        if not made.defects:
            continue
        defect = made.defects[-1]
        box = drawn_box(rng, defect.mask)
        scale = side_px / max(size_hw)
        height, width = (int(side * scale + 0.5) for side in size_hw)
        image = np.zeros((side_px, side_px, 3), np.uint8)
        image[:height, :width] = Image.fromarray(made.image).resize((width, height), Image.Resampling.BILINEAR)
        mask = np.zeros((side_px, side_px), bool)
        soft = Image.fromarray(defect.mask.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        mask[:height, :width] = np.asarray(soft) >= 0.5
        if mask.any():
            factors = np.array([width / size_hw[1], height / size_hw[0]] * 2)
            return Prompt(image, (height, width), (box * factors).astype(np.float32), mask, defect.kind)


THIN, LARGE = ("crack", "crack", "streak", "pieces"), ("chip", "fray", "stain", "blob")
"""Kinds of shapes that are cut into pieces: mostly cracks, whose boxes are large for the few pixels that they have."""

EMPTY = 0.2
"""Share of pieces without a defect: most of the box around a long crack is sound surface."""


def piece(rng: Rng, side_px: int) -> Prompt:
    """A piece of the box of a long defect, in a view around the piece: the mask ends at the piece and may be empty.

    Most views are at the scale of the image, as in prompting in pieces.
    """
    side = round(side_px * rng.choice([1.0, 1.0, rng.uniform(0.6, 1.5)]))
    canvas = side + 2 * (side // 4)
    thin, empty = rng.random() < 0.75, rng.random() < EMPTY
    kind = str(rng.choice(THIN if thin else LARGE))
    long_px = side * float(rng.uniform(0.8, 2.5) if thin else rng.uniform(0.5, 1.4))
    made = scene(rng, (canvas, canvas), [] if empty else [(long_px, (canvas / 2, canvas / 2))], kind=kind)
    left, top = rng.integers(0, canvas - side + 1, 2)
    image = made.image[top : top + side, left : left + side]
    defect = made.defects[-1].mask if made.defects else np.zeros((canvas, canvas), bool)
    scale = side_px / side
    extent = side_px / rng.uniform(1.15, 2.0, 2)
    x1, y1 = (side_px - extent) * np.clip(rng.normal(0.5, 0.25, 2), 0, 1)
    box = np.array([x1, y1, x1 + extent[0], y1 + extent[1]], np.float32)
    (low_x, low_y), (high_x, high_y) = np.floor(box[:2] / scale).astype(int), np.ceil(box[2:] / scale).astype(int)
    cut = (slice(low_y, high_y), slice(low_x, high_x))
    mask = np.zeros((side, side), np.float32)
    mask[cut] = defect[top : top + side, left : left + side][cut]
    resized = [
        np.array(Image.fromarray(each).resize((side_px, side_px), Image.Resampling.BILINEAR)) for each in (image, mask)
    ]
    return Prompt(resized[0], (side_px, side_px), box, resized[1] >= 0.5, kind)


def drawn_box(rng: Rng, mask: np.ndarray) -> np.ndarray:
    """Box (4,) xyxy around `mask` as a human draws it, inside the image: each side is off by up to a tenth of the box's
    width or height, or by a pixel where that is more."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
    sides = np.array([tight[2] - tight[0], tight[3] - tight[1]] * 2)
    slack = np.maximum(0.1 * sides, 1.0) * rng.uniform(-0.6, 1, 4) * rng.choice([0.0, 0.5, 1.0])
    box = tight + slack * [-1, -1, 1, 1]
    box = np.clip(box, 0, [mask.shape[1], mask.shape[0]] * 2)
    return box if (box[2:] - box[:2] >= 1).all() else tight
