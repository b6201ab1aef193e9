"""Render the demo data set: images of turbine blades, boxes as humans draw them, and exact pixel truth.

python -m stages.synthesize --out data/demo
"""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from stages.common.errors import UserError, cancelling, run
from stages.common.files import new_folder
from stages.common.options import ParamsFile, Workers
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.demo.blade_defects import NAMES
from stages.demo.config import SynthesizeParams
from stages.demo.scene import SIZE_HW, SPLITS, make_sample, yolo_line

UNLABELLED_EVERY = 5
"""Of the images without a box, those whose number is a multiple of this get no label file rather than an empty one."""

DATA_YAML = "".join(
    [
        "path: .\n",
        *(f"{split}: images/{split}\n" for split in SPLITS),
        "names:\n",
        *(f"  {class_id}: {name}\n" for class_id, name in enumerate(NAMES)),
    ]
)


class Params(Section):
    synthesize: SynthesizeParams


def write_sample(folder: Path, params: SynthesizeParams, job: tuple[str, int]) -> None:
    """Render one image, given as (split, number), and write its files: image, truth and, mostly, labels."""
    split, index = job
    sample = make_sample(params, split, index)
    stem = f"{split}_{index:04d}"
    (folder / "images" / split / f"{stem}.jpg").write_bytes(sample.jpeg)
    Image.fromarray(sample.truth).save(folder / "masks" / split / f"{stem}.png")
    pairs = zip(sample.defects, sample.boxes, strict=True)
    lines = [f"{yolo_line(defect.class_id, box, SIZE_HW)}\n" for defect, box in pairs if box is not None]
    if lines or index % UNLABELLED_EVERY:
        (folder / "labels" / split / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")


def write_dataset(folder: Path, params: SynthesizeParams, workers: int) -> None:
    """Write the whole data set below `folder`; the same bytes for any number of worker processes."""
    for kind in ("images", "labels", "masks"):
        for split in SPLITS:
            (folder / kind / split).mkdir(parents=True)
    (folder / "data.yaml").write_text(DATA_YAML, encoding="utf-8")
    jobs = [(split, index) for split in SPLITS for index in range(getattr(params, split))]
    write = partial(write_sample, folder, params)
    if workers == 1:
        for job in progress(jobs, "synthesize", "images"):
            write(job)
        return
    ignored = signal.SIGINT, signal.SIG_IGN  # Ctrl-C reaches them too, but their parent ends them
    with cancelling(ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, ignored)) as pool:
        for _ in progress(pool.map(write, jobs, chunksize=4), "synthesize", "images", total=len(jobs)):
            pass


def main(
    out: Annotated[Path, typer.Option(help="Folder for the data set; an earlier one is replaced.")],
    params: ParamsFile = Path("params.yaml"),
    workers: Workers = 0,
) -> None:
    """Render images of turbine blades with boxes and pixel truth."""
    values = load_params(Params, params)
    described = out / "data.yaml"
    if out.exists() and not (described.is_file() and described.read_bytes() == DATA_YAML.encode()):
        raise UserError(f"{out}: exists, and is no data set of this command: use another --out, or remove it")
    with new_folder(out) as part:
        write_dataset(part, values.synthesize, workers or os.cpu_count() or 1)


if __name__ == "__main__":
    run(main)
