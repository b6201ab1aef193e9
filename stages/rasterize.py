"""Turn boxes into pseudo-masks: the teacher is prompted with each box, the chosen masks become one label map per image.

    python -m stages.rasterize --tables data/tables --weights data/weights/teacher --out data/masks

An image, or the crop around a box, is encoded once and its boxes are decoded together. Images without boxes need no
network, nor do those whose answers are cached (stages/teacher/answer_store.py), nor what people drew, which replaces
the teacher's masks (stages/trusted/drawn_masks.py). Memory does not grow with the number of images. Ground truth is not
an input: no mask can depend on it.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from stages.common.errors import run
from stages.common.files import new_folder
from stages.common.options import Device, ParamsFile, Tables
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.common.workdir import work_folder
from stages.compute.device import device_of, make_deterministic
from stages.data.tables import BOXES, IMAGES, SPLITS, read_dataset, read_table
from stages.masks.labelmap import mask_row
from stages.masks.shards import write_shard
from stages.teacher.answer_store import Store
from stages.teacher.answers import Answers
from stages.teacher.config import RasterizeParams
from stages.teacher.loading import load_teacher
from stages.trusted.drawn_masks import read_trusted, trusted_rows, with_drawn


class Params(Section):
    rasterize: RasterizeParams


def main(
    tables: Tables,
    weights: Annotated[Path, typer.Option(help="Folder of the teacher's weights.")],
    out: Annotated[Path, typer.Option(help="Folder to write pseudo-masks to, one folder per split.")],
    trusted: Annotated[Path | None, typer.Option(help="Folder of the trusted masks, if there are any.")] = None,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
) -> None:
    """Write pseudo-masks, and the candidates that they were chosen from, for every split."""
    values = load_params(Params, params).rasterize
    make_deterministic()
    source = read_dataset(tables / "dataset.json")
    teacher = load_teacher(weights, device_of(device))
    store = Store(work_folder() / "candidates", teacher, weights, values)
    answers = Answers(teacher, store, source, values)
    for split in SPLITS:
        images, boxes = read_split(tables / split)
        drawn = read_trusted(trusted / f"{split}.parquet") if trusted and split != "test" else {}
        asked = {key: [row for row in rows if row["mask"] is None] for key, rows in boxes.items() if key not in drawn}
        with (
            new_folder(out / split) as part,
            progress((), f"rasterize {split}", "images", total=len(images)) as bar,
        ):
            for index, start in enumerate(range(0, max(len(images), 1), values.shard_size)):
                shard = images[start : start + values.shard_size]
                rasterize_shard(part, index, answers.of(shard, asked), boxes, drawn, values, bar)


def read_split(folder: Path) -> tuple[list[dict], dict[str, list[dict]]]:
    """Rows of a split's images table, and by image id those of its boxes table in label order."""
    rows = read_table(folder / "boxes.parquet", BOXES).to_pylist()
    rows.sort(key=lambda row: (row["image_id"], row["line"]))
    boxes = {image_id: list(group) for image_id, group in groupby(rows, lambda row: row["image_id"])}
    return read_table(folder / "images.parquet", IMAGES).to_pylist(), boxes


def rasterize_shard(
    folder: Path,
    index: int,
    answered: Iterator[tuple[dict, list[dict]]],
    boxes: dict[str, list[dict]],
    drawn: dict[str, bytes],
    params: RasterizeParams,
    bar: tqdm,
) -> None:
    """Write shard `index` from rows of the images table with the teacher's answers.

    By image id, `boxes`: their rows of the boxes table; `drawn`: label maps of trusted images as PNG.
    """
    masks, candidates = [], []
    for image, found in answered:
        image_id, own = image["image_id"], boxes.get(image["image_id"], [])
        if image_id in drawn:
            mask, rows = trusted_rows(image, drawn[image_id])
        else:
            rows = with_drawn(own, found, (image["height"], image["width"]), params.candidate)
            by_hand = {row["box_id"] for row in own if row["mask"] is not None}
            mask = mask_row(image, rows, params.clip_margin, by_hand)
        masks.append(mask)
        candidates.extend(rows)
        bar.update()
    write_shard(folder, index, masks, candidates)


if __name__ == "__main__":
    run(main)
