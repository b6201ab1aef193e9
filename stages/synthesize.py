"""Render the demo data set: images, boxes as people draw them, and exact pixel truth.

python -m stages.synthesize --out data/demo
"""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from stages.common.errors import cancelling, ignore_ctrl_c, run
from stages.common.files import new_folder
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.demo.boxes import yolo_line
from stages.demo.config import SynthesizeParams
from stages.demo.defects import NAMES
from stages.demo.scene import SIZE_HW, SPLITS, Sample, make_sample

UNLISTED_EVERY = 5


class Params(Section):
    synthesize: SynthesizeParams


def write_sample(folder: Path, params: SynthesizeParams, job: tuple[str, int]) -> None:
    """Render one image and write its three files; every fifth image without a box has no label file."""
    split, index = job
    sample = make_sample(params, split, index)
    stem = f"{split}_{index:04d}"
    (folder / "images" / split / f"{stem}.jpg").write_bytes(sample.jpeg)
    Image.fromarray(sample.truth).save(folder / "masks" / split / f"{stem}.png")
    lines = label_lines(sample)
    if lines or index % UNLISTED_EVERY:
        (folder / "labels" / split / f"{stem}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def label_lines(sample: Sample) -> list[str]:
    """One YOLO line for each boxed defect."""
    pairs = zip(sample.defects, sample.boxes, strict=True)
    return [yolo_line(defect.class_id, box, SIZE_HW) for defect, box in pairs if box is not None]


def write_dataset(folder: Path, params: SynthesizeParams, workers: int) -> None:
    """The whole data set below `folder`; the same bytes for any number of worker processes."""
    for kind in ("images", "labels", "masks"):
        for split in SPLITS:
            (folder / kind / split).mkdir(parents=True)
    head = ["path: ."] + [f"{split}: images/{split}" for split in SPLITS] + ["names:"]
    names = [f"  {class_id}: {name}" for class_id, name in enumerate(NAMES)]
    (folder / "data.yaml").write_text("\n".join([*head, *names]) + "\n", encoding="utf-8")
    jobs = [(split, index) for split in SPLITS for index in range(getattr(params, split))]
    write = partial(write_sample, folder, params)
    if workers == 1:
        for job in progress(jobs, "synthesize", "images"):
            write(job)
        return
    with cancelling(ProcessPoolExecutor(workers, get_context("spawn"), initializer=ignore_ctrl_c)) as pool:
        for _ in progress(pool.map(write, jobs, chunksize=4), "synthesize", "images", total=len(jobs)):
            pass


def main(
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
    out: Annotated[Path, typer.Option(help="Folder of the data set.")] = Path("data/demo"),
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
) -> None:
    """Render images of turbine blades with boxes and pixel truth."""
    values = load_params(Params, params)
    with new_folder(out) as part:
        write_dataset(part, values.synthesize, workers or os.cpu_count() or 1)


if __name__ == "__main__":
    run(main)
