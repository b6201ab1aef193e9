"""From boxes to masks: by the pipeline, and by a plain loop with `SamPredictor`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from benchmarks.timing import as_pipeline, as_usual
from stages.data.boxes import Box, corners
from stages.data.images import probe_image
from stages.data.tables import Dataset
from stages.demo.scene import SIZE_HW, Sample
from stages.teacher.answer_store import Store
from stages.teacher.answers import Answers
from stages.teacher.config import RasterizeParams
from stages.teacher.sam import SamTeacher
from stages.teacher.windows import window_of

PARAMS = RasterizeParams(
    view="crop",
    context=1.8,
    min_view_px=24,
    min_scale=None,
    grow=0.0,
    parts="all",
    min_part=0.0,
    candidate="best",
    clip_margin=0.1,
    batch_size=16,
    shard_size=256,
)
SIDES_PX = (15.0, 90.0)
"""Range of the boxes' sides, as in the demo."""


class Work:
    """Images as files, with `count` random boxes each: rows as in the tables."""

    def __init__(self, samples: list[Sample], count: int, root: Path) -> None:
        self.root, self.images, self.boxes = root, [], {}
        root.mkdir(parents=True)
        draw = np.random.default_rng(0)
        for number, sample in enumerate(samples):
            name = f"{number}.jpg"
            (root / name).write_bytes(sample.jpeg)
            row = {"image_id": name, "path": name, "sha256": probe_image(sample.jpeg).sha256, "exif_orientation": 1}
            self.images.append(row)
            self.boxes[name] = [_box(draw) for _ in range(count)]

    def corners(self, image: dict) -> list[Box]:
        """The boxes of a row of `images`."""
        return [corners(row) for row in self.boxes[image["image_id"]]]


def _box(draw: np.random.Generator) -> dict[str, float]:
    height, width = SIZE_HW
    w, h = draw.uniform(*SIDES_PX, 2)
    x1, y1 = draw.uniform(0, width - w), draw.uniform(0, height - h)
    return {"x1": x1, "y1": y1, "x2": x1 + w, "y2": y1 + h}


def fresh_store(sam: Sam, weights: Path, folder: Path, how: str) -> Store:
    """The pipeline's cache of the teacher's answers; `sam` is saved in the folder `weights`."""
    return Store(folder, SamTeacher(sam), weights, PARAMS.model_copy(update={"view": how}))


def ours(sam: Sam, work: Work, how: str, store: Store) -> list[dict]:
    """As `stages.rasterize`: from files, five candidates per box with all their scores, as RLE, cached in `store`.

    `store` is emptied first, so that nothing is cached. With PyTorch's threads as the stage has them.
    """
    shutil.rmtree(store.folder, ignore_errors=True)
    threads = torch.get_num_threads()
    answers = Answers(SamTeacher(sam), store, Dataset(work.root, ()), PARAMS.model_copy(update={"view": how}))
    found = list(answers.of(work.images, work.boxes))
    torch.set_num_threads(threads)
    return [row for _, rows in found for row in rows]


def loop(sam: Sam, work: Work, how: str) -> list[np.ndarray]:
    """The per-box loop: three masks per box, (3, H, W) bool, at the size of the encoded window; nothing is cached.

    `whole`: for each image `set_image`, then `predict` for each box. `crop`: for each box `set_image` of the
    pipeline's crop, then `predict`. `afresh`: for each box `set_image` of the whole image, then `predict`.
    """
    predictor, found = SamPredictor(sam), []
    for row in work.images:
        image = np.array(Image.open(work.root / row["path"]).convert("RGB"))
        if how == "whole":
            predictor.set_image(image)
        for box in work.corners(row):
            origin = np.zeros(4)
            if how == "crop":
                x1, y1, x2, y2 = window_of(box, image.shape[:2], PARAMS)
                predictor.set_image(image[y1:y2, x1:x2])
                origin = np.array([x1, y1, x1, y1])
            elif how == "afresh":
                predictor.set_image(image)
            found.append(predictor.predict(box=np.array(box) - origin, multimask_output=True)[0])
    return found


def contests(sam: Sam, teacher: Path, samples: list[Sample], folder: Path) -> dict[tuple[str, int, str], Callable]:
    """What is timed: (view, boxes per image, name) to a call over all images. `sam` is saved in `teacher`."""
    calls: dict[tuple[str, int, str], Callable] = {}
    for count in (8, 1):
        work = Work(samples, count, folder / f"boxes{count}")
        for how in ("crop", "whole"):
            store = fresh_store(sam, teacher, folder / "cache", how)
            calls[how, count, "loop"] = as_usual(lambda work=work, how=how: loop(sam, work, how))
            calls[how, count, "ours"] = as_pipeline(lambda work=work, how=how, store=store: ours(sam, work, how, store))
        calls["whole", count, "loop, afresh"] = as_usual(lambda work=work: loop(sam, work, "afresh"))
    return calls
