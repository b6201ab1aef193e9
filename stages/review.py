"""Hand the pseudo-masks most worth checking to an annotation tool; `stages.accept` takes the corrections back.

    python -m stages.review --out DIR --format cvat --first 100

No stage depends on it. DIR gets the images, their pseudo-masks, and `review.csv`, which says why each is in the list.
Test images are never in it: corrections are trained on, and must not be scored on. Once there is a student, its
predictions count too: where they differ from SAM's masks, and where it is sure of a defect outside of all boxes. Memory
does not grow with the size of the masks.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import UserError, run
from stages.common.files import new_folder
from stages.common.options import Device, Masks, ParamsFile, Tables
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.data.tables import IMAGES, count_rows, read_dataset
from stages.evaluation.config import Rows, Seeds
from stages.ingestion.config import IngestParams
from stages.masks.shards import stream_masks
from stages.reviewing.doubted import asked, entries_of, trained
from stages.reviewing.handover import Tool, hash_of, reviewed, sources_of, write_for, write_table
from stages.reviewing.ranking import ranked

SPLITS = ("train", "val")

AUTO, NONE = Path("auto"), Path("none")


class Params(Section):
    ingest: IngestParams
    rows: Rows
    seeds: Seeds


def main(
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    format: Annotated[Tool, typer.Option(help="Tool or format of the corrections.")],
    first: Annotated[int, typer.Option(min=1, help="Number of images.")] = 100,
    model: Annotated[
        Path, typer.Option(help="Folder of a student; auto: that of the first of `rows`, if trained; none: no student.")
    ] = AUTO,
    tables: Tables = Path("data/tables"),
    masks: Masks = Path("data/masks"),
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
) -> None:
    """Write the images most worth checking, with their pseudo-masks and the reasons."""
    if out.exists():
        raise UserError(f"{out}: exists, and may hold corrections; use another --out")
    values, source = load_params(Params, params), read_dataset(tables / "dataset.json")
    if model == AUTO:
        network = trained(tables.parent / f"models/{values.rows[0]}/{values.seeds[0]}", source, device)
    else:
        network = None if model == NONE else asked(model, source, device)
    counts = {split: count_rows(tables / split / "images.parquet", IMAGES) for split in SPLITS}
    with progress((), "doubts", "images", total=sum(counts.values())) as bar:
        entries = [entry for split in SPLITS for entry in entries_of(masks / split, source, network, bar)]
    chosen = ranked(entries, first, lambda entry: hash_of(source, entry), values.ingest.near_duplicates)
    sources = sources_of([one.entry.path for one in chosen])
    rows = (row for split in SPLITS for row in stream_masks(masks / split))
    with new_folder(out) as part:
        records = reviewed(rows, chosen, sources, source, part / "images")
        records = progress(records, "write", "images", total=len(chosen))
        filled = write_for(format, records, list(source.names), part, out.name)
        write_table(part / "review.csv", chosen, sources)
    print(f"{len(chosen)} of {len(entries)} images: {out}; {out / 'review.csv'} says why")
    if filled:
        print(f"{filled} masks have holes; polygons cannot hold them, so they are filled there")


cli = partial(run, main)
"""The console command."""

if __name__ == "__main__":
    cli()
