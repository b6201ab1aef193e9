"""Turn boxes into pseudo-masks: SAM is prompted with each box, the chosen masks become one label map an image.

    python -m stages.rasterize --tables data/tables --weights data/weights/teacher --out data/masks

Each image (or crop) is encoded once and its boxes are decoded together; images without boxes cost no
network at all, nor do those that any earlier run was asked the same about (stages/teacher/store.py). Memory does not
grow with their number. Truth is not an input: no mask can depend on it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from segment_anything.modeling import Sam
from tqdm import tqdm

from stages.common.errors import cancelling, run
from stages.common.files import new_folder
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.compute.device import device_of, make_deterministic
from stages.compute.workdir import work_folder
from stages.data.images import read_image
from stages.data.tables import BOXES, IMAGES, SPLITS, read_dataset, read_table
from stages.masks.pseudomasks import candidate_rows, mask_row
from stages.masks.shards import write_shard
from stages.teacher.chunks import Chunks
from stages.teacher.config import RasterizeParams
from stages.teacher.prompting import prompted
from stages.teacher.sam import load_teacher
from stages.teacher.store import Store

READ_AHEAD = 4
"""Images decoded ahead of the network, in as many threads."""

SMALL_INPUT_PX = 256
"""A teacher with so small an input runs on one core an image: sharing its operations costs more than it gains (ten
times the time when the cores are busy otherwise), and on one core the bytes do not depend on their number. The other
cores take other images."""

MOST_AT_ONCE = 8
"""Images prompted on side by side: with more, threads wait for Python."""


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
    place = device_of(device)
    sam = load_teacher(weights)[0].to(place)
    store = Store(work_folder() / "candidates", weights, values, place.type)
    chunks = Chunks(values.batch_size)
    at_once = images_at_once(sam)
    if is_small(sam):
        torch.set_num_threads(1)

    def ask(photo: np.ndarray, rows: Sequence[dict]) -> list[dict]:
        return prompted(sam, photo, corners(rows), values, chunks)

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
                rasterize_shard(part, index, answers(shard, boxes, root, store, ask, at_once), boxes, values, bar)


def is_small(sam: Sam) -> bool:
    """Whether the teacher runs on one core an image."""
    return sam.image_encoder.img_size <= SMALL_INPUT_PX


def images_at_once(sam: Sam) -> int:
    """How many images are prompted on side by side: one on a GPU, or where one alone keeps all cores busy."""
    return min(os.cpu_count() or 1, MOST_AT_ONCE) if is_small(sam) and sam.device.type == "cpu" else 1


def rasterize_shard(
    folder: Path,
    index: int,
    answered: Iterator[tuple[dict, list[dict]]],
    boxes: dict[str, list[dict]],
    params: RasterizeParams,
    bar: tqdm,
) -> None:
    """Rows of the images table with what SAM said, and their boxes (by image id, in label order) -> shard `index`.

    Depends on nothing else, so shards can be made in any order and by any number of workers.
    """
    masks, candidates = [], []
    for image, found in answered:
        chosen = candidate_rows(boxes.get(image["image_id"], []), found, params.candidate)
        masks.append(mask_row(image, chosen, params.clip_margin))
        candidates.extend(chosen)
        bar.update()
    write_shard(folder, index, masks, candidates)


def answers(
    images: Sequence[dict],
    boxes: dict[str, list[dict]],
    root: Path,
    store: Store,
    ask: Callable[[np.ndarray, Sequence[dict]], list[dict]],
    at_once: int,
) -> Iterator[tuple[dict, list[dict]]]:
    """Each row of the images table, in order, and what SAM says of its boxes: as it was kept, or else by `ask`.

    A few images are decoded ahead, and `at_once` of them asked about side by side; those without a box have an
    empty answer. Each is asked about alone, so no answer depends on `at_once`.
    """

    def read(image: dict) -> tuple[dict, Path, list[dict], np.ndarray | None]:
        rows = boxes.get(image["image_id"], [])
        path = store.path(image["sha256"], corners(rows))
        found = store.get(path) if rows else []
        if found is not None:
            return image, path, found, None
        return image, path, [], read_image(root, image["path"], image["sha256"], image["exif_orientation"])

    def finish(image: dict, path: Path, found: list[dict], photo: np.ndarray | None) -> tuple[dict, list[dict]]:
        if photo is not None:
            found = ask(photo, boxes[image["image_id"]])
            store.put(path, found)
        return image, found

    if at_once == 1:
        begin, end, threads = read, finish, ThreadPoolExecutor(READ_AHEAD)
    else:
        begin, end = lambda image: finish(*read(image)), lambda *answer: answer
        threads = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,))
    ahead = max(READ_AHEAD, at_once)
    with cancelling(threads):
        waiting = [threads.submit(begin, image) for image in images[:ahead]]
        for position in range(len(images)):
            answer = waiting.pop(0).result()
            waiting += [threads.submit(begin, later) for later in images[position + ahead :][:1]]
            yield end(*answer)


def corners(rows: Sequence[dict]) -> list[tuple[float, float, float, float]]:
    """Corners of rows of the boxes table."""
    return [(row["x1"], row["y1"], row["x2"], row["y2"]) for row in rows]


if __name__ == "__main__":
    run(main)
