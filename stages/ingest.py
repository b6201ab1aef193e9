"""Read an Ultralytics data set into tables. The data set is not modified; everything that is not used is listed.

    python -m stages.ingest --tables data/tables --truth data/truth --metrics metrics/ingest.json

Writes into TABLES, per split, images and boxes (Parquet), and for all splits dataset.json, the findings (rejects, as
Parquet and CSV), near duplicates across splits and, if splits are made by group, the groups (CSV). Human masks go into
a folder of their own, TRUTH, so that only stages that score depend on them. A data set that must not be used leaves
only its findings, near duplicates and counts.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from stages.common.errors import UserError, cancelling, printable, run
from stages.common.files import new_folder, write_csv, write_json
from stages.common.options import Metrics, ParamsFile, Tables, Truth, Workers
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.data.remote import readers
from stages.data.tables import BOXES, IMAGES, SPLITS, TRUTH, Dataset, append, open_table, with_names, write_dataset
from stages.ingestion.census import Census
from stages.ingestion.config import DataParams, IngestParams
from stages.ingestion.counterparts import Counterparts
from stages.ingestion.duplicates import near_duplicates, write_near_duplicates
from stages.ingestion.groups import split_by_group
from stages.ingestion.labels import RowFormat
from stages.ingestion.layout import ImageFile, orphans, read_layout
from stages.ingestion.manifest_file import opened_root
from stages.ingestion.rejects import write_rejects
from stages.ingestion.sample import read_sample

CHUNK = 256
"""Images whose rows are held in memory before they are written."""


class Params(Section):
    data: DataParams
    ingest: IngestParams


def main(
    tables: Tables,
    truth: Truth,
    metrics: Metrics,
    params: ParamsFile = Path("params.yaml"),
    strict: Annotated[bool, typer.Option("--strict", help="Fail on any finding.")] = False,
    workers: Workers = 0,
) -> None:
    """Read the data set at data.root into tables."""
    values = load_params(Params, params)
    values.data.check_apart(tables, truth, metrics)
    ingest, root, groups = values.ingest, opened_root(values.data), None
    layout = read_layout(root, train_alone=ingest.split.group is not None)
    if ingest.split.group is not None:
        layout, groups = split_by_group(layout, ingest.split)
    census = Census(layout, layout.ignored + orphans(layout), groups)
    format = RowFormat(len(layout.names), layout.keypoints, ingest.confidence, ingest.polygons)
    beside = Counterparts(layout.root, layout.masks.folder)
    sampled = partial(read_sample, beside, format=format, masks=layout.masks, white_level=ingest.white_level)
    total = sum(len(images or ()) for images in layout.splits.values())
    with new_folder(tables) as part, new_folder(truth) as truth_part:
        with (
            cancelling(ThreadPoolExecutor(workers or readers(root))) as pool,
            progress((), "ingest", "images", total=total) as bar,
        ):
            for split, images in layout.splits.items():
                ingest_split(images or [], split, partial(pool.map, sampled), part, truth_part, census, bar)
        if ingest.near_duplicates is not None:
            census.pairs = near_duplicates(census.images, ingest.near_duplicates)
        census.note()
        problems = census.problems(ingest, strict, boxed=values.data.trusted is None)
        if problems:
            for split in SPLITS:
                shutil.rmtree(part / split)
                (truth_part / f"{split}.parquet").unlink()
        else:
            write_dataset(part / "dataset.json", Dataset(layout.root, layout.names, ingest.white_level))
            if groups:
                write_csv(part / "groups.csv", ("group", "split", "images"), groups)
        write_rejects(part, census.rejects)
        write_near_duplicates(part / "near_duplicates.csv", census.pairs)
    write_json(metrics, census.metrics())
    notes = Counter(reject.reason for reject in census.rejects if reject.action == "noted")
    for line in census.lines() + [f"note: {reason}{f' ({n} files)' * (n > 1)}" for reason, n in notes.items()]:
        typer.echo(printable(line), err=True)
    if census.rejects:
        typer.echo(f"{len(census.rejects)} findings in {tables / 'rejects.csv'}", err=True)
    if census.pairs:
        typer.echo(f"{len(census.pairs)} near duplicates across splits in {tables / 'near_duplicates.csv'}", err=True)
    if problems:
        listed = f"; all findings in {tables / 'rejects.csv'}" if census.rejects else ""
        raise UserError("; ".join(problems) + listed)


def ingest_split(
    images: list[ImageFile], split: str, read: Callable, tables: Path, truth: Path, census: Census, bar: tqdm
) -> None:
    """Read one split by `read` (images to samples, in order) into folders `tables` and `truth`; add to `census`."""
    with (
        open_table(tables / split / "images.parquet", IMAGES) as image_table,
        open_table(tables / split / "boxes.parquet", with_names(BOXES, census.names)) as box_table,
        open_table(truth / f"{split}.parquet", with_names(TRUTH, census.names)) as truth_table,
    ):
        for start in range(0, len(images), CHUNK):
            samples = list(read(images[start : start + CHUNK]))
            for sample in samples:
                census.add(split, sample)
            bar.update(len(samples))
            append(image_table, [sample.image for sample in samples if sample.image])
            append(box_table, [box for sample in samples for box in sample.boxes])
            append(truth_table, [sample.truth for sample in samples if sample.truth])


if __name__ == "__main__":
    run(main)
