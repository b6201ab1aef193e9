"""One image of the demo data set, from its random streams to pixels, truth and boxes."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stages.demo.background import background
from stages.demo.bodies import Body, Sun, blade, nacelle, random_sun, tower
from stages.demo.boxes import drawn_box, forgotten
from stages.demo.camera import exposed, jpeg
from stages.demo.config import SynthesizeParams
from stages.demo.defects import Defect, add_defects
from stages.demo.fields import blend
from stages.demo.surface import furnish

SIZE_HW = (371, 586)
SPLITS = ("train", "val", "test")
MAX_DEFECTS = 8


@dataclass(frozen=True)
class Sample:
    """An image and all that is known about it.

    jpeg: the file's bytes; truth: uint8 (H, W), 0 or class id + 1; defects with a box each (xyxy in px, None: unboxed).
    """

    jpeg: bytes
    truth: np.ndarray
    defects: list[Defect]
    boxes: list[tuple[float, float, float, float] | None]


def make_sample(params: SynthesizeParams, split: str, index: int) -> Sample:
    """Image number `index` of `split`: a function of the parameters and these two alone, so that more images,
    or another order, change none of the others."""
    streams = np.random.SeedSequence([params.seed, SPLITS.index(split), index]).spawn(4)
    scene, defect, camera, annotator = (np.random.default_rng(stream) for stream in streams)
    count = 0 if defect.random() < params.defect_free else int(min(1 + defect.poisson(2.2), MAX_DEFECTS))
    picture, defects, owner = render(scene, defect, count, params)
    truth = np.zeros(SIZE_HW, np.uint8)
    for number, one in enumerate(defects):
        truth[owner == number] = one.class_id + 1
    share = 0.0 if split == "test" else params.unboxed_subtle
    unboxed = forgotten(annotator, [one.subtle for one in defects], share)
    boxes = [drawn_box(annotator, owner == number) for number in range(len(defects))]
    boxes = [None if skip else box for skip, box in zip(unboxed, boxes, strict=True)]
    return Sample(jpeg(camera, exposed(camera, picture)), truth, defects, boxes)


def render(scene, defect, count: int, params: SynthesizeParams) -> tuple[np.ndarray, list[Defect], np.ndarray]:
    """Linear light (H, W, 3), the defects and their owner map. `scene` and `defect` are separate random streams."""
    sun = random_sun(scene)
    picture = background(scene, SIZE_HW)
    bodies = _bodies(scene, sun)
    for body in bodies:
        furnish(scene, body, sun)
    defects, owner = add_defects(defect, bodies, sun, count, params.subtle, params.contrast)
    for body in bodies:
        blend(picture, body.cover, body.shaded())
    return picture, defects, owner


def _bodies(rng: np.random.Generator, sun: Sun) -> list[Body]:
    """One or two parts of the turbine, the nearest last; what hides behind it is marked invisible."""
    makers = [(blade,), (tower,), (nacelle,), (tower, blade), (nacelle, blade), (blade, blade)]
    chosen = makers[rng.choice(len(makers), p=[0.44, 0.12, 0.16, 0.10, 0.10, 0.08])]
    bodies = [maker(rng, SIZE_HW, sun) for maker in chosen]
    for behind, before in pairwise(bodies):
        behind.visible = behind.cover * (1 - before.cover)
    return bodies
