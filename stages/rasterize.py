"""Turn boxes into pseudo-masks: SAM is prompted with each box, the chosen masks become one label map a photograph.

    python -m stages.rasterize --tables data/tables --weights data/weights/teacher --out data/masks

Each photograph (or crop) is encoded once and its boxes are decoded together; photographs without boxes cost no
network at all. Memory does not grow with their number. Truth is not an input: no mask can depend on it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from segment_anything.modeling import Sam
from tqdm import tqdm

from stages.dataset.photos import read_photo
from stages.dataset.tables import BOXES, IMAGES, SPLITS, read_dataset, read_table
from stages.shell.device import device_of, make_deterministic
from stages.shell.errors import run
from stages.shell.files import new_folder
from stages.shell.params import Section, load_params
from stages.shell.progress import progress
from stages.teacher.config import RasterizeParams
from stages.teacher.pseudomasks import candidate_rows, mask_row
from stages.teacher.sam import load_teacher
from stages.teacher.shards import write_shard

READ_AHEAD = 4
"""Photographs decoded ahead of the network, in as many threads."""

SMALL_INPUT_PX = 256
"""A teacher with so small an input runs on one core: sharing its operations costs more than it gains (ten times the
time when the cores are busy otherwise), and on one core the bytes do not depend on their number."""


class Params(Section):
    rasterize: RasterizeParams


def main(
    tables: Annotated[Path, typer.Option(help="Folder of the tables that ingest wrote.")] = Path("data/tables"),
    weights: Annotated[Path, typer.Option(help="Folder of the teacher.")] = Path("data/weights/teacher"),
    out: Annotated[Path, typer.Option(help="Folder for one folder of shards a split.")] = Path("data/masks"),
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Write pseudo-masks and the candidates behind them for every split."""
    values = load_params(Params, params).rasterize
    make_deterministic()
    root = read_dataset(tables / "dataset.json").root
    sam = load_teacher(weights)[0].to(device_of(device))
    if sam.image_encoder.img_size <= SMALL_INPUT_PX:
        torch.set_num_threads(1)
    for split in SPLITS:
        images = read_table(tables / split / "images.parquet", IMAGES).to_pylist()
        rows = read_table(tables / split / "boxes.parquet", BOXES).to_pylist()
        boxes = {
            image_id: sorted(group, key=lambda row: row["line"])
            for image_id, group in groupby(sorted(rows, key=lambda row: row["image_id"]), lambda row: row["image_id"])
        }
        with (
            new_folder(out / split) as part,
            progress((), f"rasterize {split}", "images", total=len(images)) as bar,
        ):
            for index, start in enumerate(range(0, max(len(images), 1), values.shard_size)):
                shard = images[start : start + values.shard_size]
                rasterize_shard(part, index, shard, boxes, root, sam, values, bar)


def rasterize_shard(
    folder: Path,
    index: int,
    images: Sequence[dict],
    boxes: dict[str, list[dict]],
    root: Path,
    sam: Sam,
    params: RasterizeParams,
    bar: tqdm,
) -> None:
    """Rows of the images table and their boxes (by image id, in label order) -> shard `index` in `folder`.

    Depends on nothing else, so shards can be made in any order and by any number of workers.
    """
    masks, candidates = [], []
    for image, photo in photographs(images, boxes, root):
        found = [] if photo is None else candidate_rows(sam, photo, boxes[image["image_id"]], params)
        masks.append(mask_row(image, found, params.clip_margin))
        candidates.extend(found)
        bar.update()
    write_shard(folder, index, masks, candidates)


def photographs(
    images: Sequence[dict], boxes: dict[str, list[dict]], root: Path
) -> Iterator[tuple[dict, np.ndarray | None]]:
    """Each row of the images table with its pixels, decoded a few ahead; None where it has no box to be looked at."""

    def read(image: dict) -> np.ndarray | None:
        if image["image_id"] not in boxes:
            return None
        return read_photo(root, image["path"], image["sha256"], image["exif_orientation"])

    with ThreadPoolExecutor(READ_AHEAD) as threads:
        waiting = [threads.submit(read, image) for image in images[:READ_AHEAD]]
        for position, image in enumerate(images):
            photo = waiting.pop(0).result()
            waiting += [threads.submit(read, later) for later in images[position + READ_AHEAD :][:1]]
            yield image, photo


if __name__ == "__main__":
    run(main)
