"""One image of the demo data set, from its random streams to pixels, truth and boxes."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stages.demo.background import background
from stages.demo.blade_defects import Defect, add_defects
from stages.demo.camera import exposed, jpeg
from stages.demo.config import SynthesizeParams
from stages.demo.distractors import add_distractors
from stages.demo.textures import blend
from stages.demo.turbine_parts import Part, Sun, blade, nacelle, random_sun, tower

SIZE_HW = (371, 586)
SPLITS = ("train", "val", "test")
MAX_DEFECTS = 8

COMPOSITIONS = (
    ((blade,), 0.44),
    ((tower,), 0.12),
    ((nacelle,), 0.16),
    ((tower, blade), 0.10),
    ((nacelle, blade), 0.10),
    ((blade, blade), 0.08),
)
"""Parts that an image shows, the nearest last, and how often."""


@dataclass(frozen=True)
class Sample:
    """An image and its labels.

    jpeg: the file's bytes; truth: uint8 (H, W), 0 or class id + 1; boxes: per defect, xyxy in px or None (unboxed).
    """

    jpeg: bytes
    truth: np.ndarray
    defects: list[Defect]
    boxes: list[tuple[float, float, float, float] | None]


def make_sample(params: SynthesizeParams, split: str, index: int) -> Sample:
    """Image number `index` of `split`. It depends on the parameters and these two alone: with more images, or in
    another order, the others stay the same."""
    streams = np.random.SeedSequence([params.seed, SPLITS.index(split), index]).spawn(4)
    scene_rng, defect_rng, camera_rng, annotator_rng = (np.random.default_rng(stream) for stream in streams)
    defect_free = defect_rng.random() < params.defect_free
    count = 0 if defect_free else int(min(1 + defect_rng.poisson(2.2), MAX_DEFECTS))
    linear, defects, owner = render(scene_rng, defect_rng, count, params)
    truth = np.zeros(SIZE_HW, np.uint8)
    for number, defect in enumerate(defects):
        truth[owner == number] = defect.class_id + 1
    share = 0.0 if split == "test" else params.unboxed_subtle
    unboxed = [defect.subtle and annotator_rng.random() < share for defect in defects]
    boxes = [drawn_box(annotator_rng, owner == number) for number in range(len(defects))]
    boxes = [None if skip else box for skip, box in zip(unboxed, boxes, strict=True)]
    return Sample(jpeg(camera_rng, exposed(camera_rng, linear)), truth, defects, boxes)


def render(
    scene_rng: np.random.Generator, defect_rng: np.random.Generator, count: int, params: SynthesizeParams
) -> tuple[np.ndarray, list[Defect], np.ndarray]:
    """A scene with up to `count` defects: linear light (H, W, 3), the defects and their owner map (see `add_defects`).

    The scene is the same whatever is drawn from `defect_rng`.
    """
    sun = random_sun(scene_rng)
    image = background(scene_rng, SIZE_HW)
    parts = _random_parts(scene_rng, sun)
    for part in parts:
        add_distractors(scene_rng, part, sun)
    defects, owner = add_defects(defect_rng, parts, sun, count, params.subtle, params.contrast)
    for part in parts:
        blend(image, part.cover, part.shaded())
    return image, defects, owner


def _random_parts(rng: np.random.Generator, sun: Sun) -> list[Part]:
    """One or two parts of the turbine, the nearest last. What it hides of the other is not in the other's `visible`."""
    chosen = rng.choice(len(COMPOSITIONS), p=[often for _, often in COMPOSITIONS])
    parts = [make(rng, SIZE_HW, sun) for make in COMPOSITIONS[chosen][0]]
    for behind, in_front in pairwise(parts):
        behind.visible = behind.cover * (1 - in_front.cover)
    return parts


def drawn_box(rng: np.random.Generator, mask: np.ndarray) -> tuple[float, float, float, float]:
    """Box xyxy in px around the True pixels of `mask` (H, W), as a simulated annotator draws it, inside the image.

    Each side is off by a pixel or two, or by some per cent of the defect where that is more, outward more often than
    inward; it never cuts off more than an eighth of the defect's width or height.
    """
    height, width = mask.shape
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    x1, x2, y1, y2 = columns[0], columns[-1] + 1.0, rows[0], rows[-1] + 1.0
    sides_px = np.asarray([x2 - x1, y2 - y1, x2 - x1, y2 - y1])
    outward = rng.normal(0.5, 0.8, 4) * np.maximum(1.5, 0.05 * sides_px)
    left, top, right, bottom = np.maximum(outward, -sides_px / 8)
    return max(x1 - left, 0.0), max(y1 - top, 0.0), min(x2 + right, float(width)), min(y2 + bottom, float(height))


def yolo_line(class_id: int, box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> str:
    """The line `class cx cy w h` of a YOLO label file: normalised by width and height, 6 decimals."""
    (x1, y1, x2, y2), (height, width) = box_xyxy, size_hw
    cx, cy, w, h = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
    return f"{class_id} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}"
