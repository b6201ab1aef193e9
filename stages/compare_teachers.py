"""Compare teachers: each is prompted with the same boxes, those of a split's images that have pixel truth.

    python -m stages.compare_teachers embedded sam2.1_tiny FOLDER --tables data/tables --truth data/truth \\
        --metrics teachers.json

Teachers are named as in `weights.teacher`. Section `rasterize` of params.yaml says how they are prompted and which
candidate is chosen, as in the pipeline. Nothing is cached, so that the times of the teachers can be compared.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from stages.appraisal.quality import BoxQuality, box_quality, pixel_counts, rank_correlation, summarise
from stages.checkpoints.fetch import cache_folder
from stages.checkpoints.sam_teacher import install_teacher
from stages.common.errors import UserError, run
from stages.common.files import write_json
from stages.common.options import Cache, Device, Embedded, Metrics, ParamsFile, Tables, Truth
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.compute.device import device_of
from stages.data.boxes import corners
from stages.data.images import read_image
from stages.data.tables import SPLITS, Dataset, TruthInOrder, by_image, decode_label_map, read_dataset
from stages.evaluation.card import cell
from stages.masks.labelmap import CANDIDATES_PER_BOX, Chosen, candidate_rows, draw_label_map
from stages.masks.shards import SCORES
from stages.teacher.config import RasterizeParams
from stages.teacher.loading import load_teacher
from stages.teacher.promptable import Teacher
from stages.teacher.prompting import Chunks, prompted
from stages.teacher.rasterizing import jobs_of

Known = tuple[dict, list[dict], np.ndarray]
"""Image, its boxes in label order, its truth (H, W) uint8."""

IMAGES_AT_ONCE = 256
"""Rows of the images table, with their boxes, that are held in memory."""


class Params(Section):
    rasterize: RasterizeParams


def main(
    teachers: Annotated[list[str], typer.Argument(help="Names, official files or folders, as in weights.teacher.")],
    tables: Tables,
    truth: Truth,
    metrics: Metrics,
    split: Annotated[
        Literal[SPLITS], typer.Option(help="val to choose a teacher; test to report the chosen one.")
    ] = "val",
    embedded: Embedded = Path("data/weights/embedded/teacher"),
    cache: Cache = Path("~/.cache/boxes2pixels"),
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
) -> None:
    """Write the quality of each teacher's masks as JSON, and print it as a table."""
    values = load_params(Params, params).rasterize
    source, results = read_dataset(tables / "dataset.json"), {}
    images = sum(1 for _ in encoded_truth(tables, truth, split))
    if not images:
        raise UserError(f"{truth / f'{split}.parquet'}: no image of {split} has both boxes and pixel truth")
    with tempfile.TemporaryDirectory() as folder:
        installed = {name: Path(folder) / str(number) for number, name in enumerate(teachers)}
        for name, own in installed.items():  # all before the first is measured: one may not be available
            install_teacher(name, embedded, cache_folder(cache), own)
        for name, own in installed.items():
            known = progress(images_with_truth(tables, truth, split), f"compare {name}", "images", total=images)
            results[name] = measure(load_teacher(own, device_of(device)), known, source, values)
    write_json(metrics, results)
    typer.echo(table(results, source.names))


def images_with_truth(tables: Path, truth: Path, split: str) -> Iterator[Known]:
    """All images of a split that have boxes and truth, in memory that does not grow with their number. Raises UserError
    where boxes or truth are not in the order of the images."""
    return ((image, own, decode_label_map(png)) for image, own, png in encoded_truth(tables, truth, split))


def encoded_truth(tables: Path, truth: Path, split: str) -> Iterator[tuple[dict, list[dict], bytes]]:
    """`images_with_truth` with the truth as PNG: they can be counted without decoding it."""
    human = TruthInOrder(truth / f"{split}.parquet")
    for job in jobs_of(tables, None, split, IMAGES_AT_ONCE):
        boxes = by_image(job.boxes.to_pylist())
        for image in job.images.to_pylist():
            png, own = human.of(image["image_id"]), boxes.get(image["image_id"])
            if own and png is not None:
                yield image, own, png
    human.end("images.parquet", "ingest")


def measure(teacher: Teacher, known: Iterable[Known], source: Dataset, params: RasterizeParams) -> dict[str, object]:
    """The metrics of `stages.appraise`, rank correlations of the scores, and seconds per image, reading it included."""
    boxes, classes, seconds = list[BoxQuality](), len(source.names) + 1, []
    counts, chunks = np.zeros((2, classes, classes), dtype=np.int64), Chunks(params.batch_size)
    for image, own, labels in known:
        start = time.perf_counter()
        asked = prompted(teacher, read_image(source, image), [corners(row) for row in own], params, chunks)
        seconds.append(time.perf_counter() - start)
        rows = candidate_rows(own, asked, params.candidate)
        chosen = [Chosen(row["rle"], row["class_id"], corners(row)) for row in rows if row["chosen"]]
        each = range(0, len(rows), CANDIDATES_PER_BOX)
        found = [box_quality(rows[at : at + CANDIDATES_PER_BOX], labels) for at in each]
        counts += pixel_counts(draw_label_map(chosen, labels.shape, params.clip_margin), found, labels, classes)
        boxes += found
    return summarise(boxes, counts, source.names) | {
        "rank_correlation": {score: rank_correlation(boxes, score) for score in SCORES},
        "seconds_per_image": sum(seconds) / len(seconds),
    }


def table(results: dict[str, dict], names: tuple[str, ...]) -> str:
    """Markdown, one row per teacher."""
    classes = map(cell, names)
    head = ["teacher", "IoU per box", *classes, "filled boxes", "best candidate", "label maps", *SCORES, "s per image"]
    lines = [head, ["---"] * len(head)]
    for name, found in results.items():
        one, each = found["per_box"], found["per_box_by_class"]
        numbers = [one["mask_iou"], *(each[class_name]["mask_iou"] for class_name in names), one["filled_box_iou"]]
        numbers += [one["best_candidate_iou"], found["pseudo_masks"]["iou_bin"], *found["rank_correlation"].values()]
        numbers += [found["seconds_per_image"]]
        lines.append([cell(name), *("–" if number is None else f"{number:.3f}" for number in numbers)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    run(main)
