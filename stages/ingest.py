"""Read an Ultralytics data set into tables; nothing of it is modified, and nothing bad passes unsaid.

    python -m stages.ingest --tables data/tables --truth data/truth --near data/near_duplicates \
        --metrics metrics/ingest.json

Writes images and boxes a split, the list of rejects (Parquet and CSV), and the pixel truth apart from them, so that
only the stages that score depend on it; and the images that look like one of another split, as CSV and picture.
A data set that must not be used leaves its rejects, its near duplicates and its counts alone.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from stages.common.errors import UserError, cancelling, run
from stages.common.files import new_folder, write_json
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.data.tables import BOXES, IMAGES, SPLITS, TRUTH, Dataset, append, open_table, write_dataset
from stages.ingestion.census import Census
from stages.ingestion.config import DataParams, IngestParams
from stages.ingestion.groups import split_by_group, write_groups
from stages.ingestion.layout import Layout, orphans, read_layout
from stages.ingestion.near import write_near_duplicates
from stages.ingestion.rejects import write_rejects
from stages.ingestion.sample import read_entry

CHUNK = 256
"""Images whose rows are held before they are written; bounds memory."""


class Params(Section):
    data: DataParams
    ingest: IngestParams


def main(
    tables: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("data/tables"),
    truth: Annotated[Path, typer.Option(help="Folder for the pixel truth.")] = Path("data/truth"),
    near: Annotated[Path, typer.Option(help="Folder for the near duplicates.")] = Path("data/near_duplicates"),
    metrics: Annotated[Path, typer.Option(help="JSON file for the counts.")] = Path("metrics/ingest.json"),
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
    strict: Annotated[bool, typer.Option("--strict", help="Fail on any line in the list of rejects.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Threads that decode; 0 is one a core.")] = 0,
) -> None:
    """Read the data set at data.root into tables."""
    values = load_params(Params, params)
    grouped = values.ingest.split.group is not None
    layout, groups = read_layout(Path(values.data.root), train_alone=grouped), None
    if grouped:
        layout, groups = split_by_group(layout, values.ingest.split)
    absent = [split for split, photos in layout.splits.items() if photos is None]
    census = Census(layout.names, absent, layout.ignored + orphans(layout), groups)
    total = sum(len(photos or ()) for photos in layout.splits.values())
    with new_folder(tables) as part, new_folder(truth) as truth_part:
        with (
            cancelling(ThreadPoolExecutor(workers or os.cpu_count())) as pool,
            progress((), "ingest", "images", total=total) as bar,
        ):
            for split in SPLITS:
                ingest_split(layout, split, part / split, truth_part / f"{split}.parquet", census, pool, bar)
        census.compare_looks(values.ingest.near_duplicates)
        problems = census.problems(values.ingest, strict)
        if problems:
            for split in SPLITS:
                shutil.rmtree(part / split)
                (truth_part / f"{split}.parquet").unlink()
        else:
            write_dataset(part / "dataset.json", Dataset(layout.root, layout.names))
            if groups:
                write_groups(part / "groups.csv", groups)
        write_rejects(part, census.rejects)
    write_near_duplicates(near, layout.root, census.pairs)
    write_json(metrics, census.metrics())
    for line in census.lines():
        typer.echo(line, err=True)
    if census.rejects:
        typer.echo(f"{len(census.rejects)} findings in {tables / 'rejects.csv'}", err=True)
    if census.pairs:
        typer.echo(f"{len(census.pairs)} near duplicates across splits in {near / 'pairs.csv'}", err=True)
    if problems:
        listed = f"; all findings in {tables / 'rejects.csv'}" if census.rejects else ""
        raise UserError("; ".join(problems) + listed)


def ingest_split(
    layout: Layout, split: str, tables: Path, truth: Path, census: Census, pool: ThreadPoolExecutor, bar: tqdm
) -> None:
    """Write the tables of one split, in the order of its images' ids, and count them."""
    photos = layout.splits[split] or []
    read = partial(read_entry, layout.root, class_count=len(layout.names))
    with (
        open_table(tables / "images.parquet", IMAGES) as images,
        open_table(tables / "boxes.parquet", BOXES) as boxes,
        open_table(truth, TRUTH) as masks,
    ):
        for start in range(0, len(photos), CHUNK):
            entries = []
            for entry in pool.map(read, photos[start : start + CHUNK]):
                census.add(split, entry)
                entries.append(entry)
                bar.update()
            append(images, [entry.image for entry in entries if entry.image])
            append(boxes, [box for entry in entries for box in entry.boxes])
            append(masks, [entry.truth for entry in entries if entry.truth])


if __name__ == "__main__":
    run(main)
