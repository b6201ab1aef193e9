"""Predict the masks of images of any size, and write them in the formats of annotation tools.

    python -m stages.predict INPUT... --model data/models/RUN/SEED --out DIR --format masks --format cvat

No stage depends on it. `records/NAME.json` holds the defects of one image, and its other outputs are made from it: so
another format needs no new prediction, and a killed run can be resumed. PyTorch is not needed with a model that
`stages.export` wrote.

Exit status: 0 all done, 1 an error that the message explains, 3 done except for images that cannot be used.
"""

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import SOME_LEFT_OUT, UserError, printable, run
from stages.common.options import Device, Force, Model
from stages.common.progress import progress
from stages.engine.engines import Address, Engine, EngineName, EngineOption, Gpus, Shards, run_jobs
from stages.engine.shard_jobs import shard_count, wanted
from stages.formats.inputs import file_in, find_images, shared_folder
from stages.formats.measured_defects import Record
from stages.formats.output_folder import (
    REWRITE,
    SHARD_IMAGES,
    Predict,
    existing_records,
    jobs_of,
    read_record,
    write_output,
)
from stages.formats.scale import scales_of
from stages.formats.writers import FOLDER_OF, Format, written
from stages.runtime.network import OperatingPoint, PointOption, open_network


def main(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders of images, glob patterns.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="Output folder.")],
    format: Annotated[list[Format], typer.Option(help="What to write; may be given several times.")] = (
        Format.masks,
        Format.overlays,
        Format.table,
    ),
    device: Device = "auto",
    force: Force = False,
    mm_per_px: Annotated[
        str | None, typer.Option(help="Adds millimetres to `table`: a number, `exif`, or a CSV: file,mm_per_px.")
    ] = None,
    operating_point: PointOption = OperatingPoint.saved,
    engine: EngineOption = EngineName.local,
    ray_address: Address = None,
    gpus_per_task: Gpus = 0.0,
    shards: Shards = None,
) -> None:
    """Predict the masks of images of any size, and write them in the formats of annotation tools."""
    if mm_per_px is not None and Format.table not in format:
        raise UserError("--mm-per-px adds columns to the table: add --format table")
    sources, skipped = find_images(inputs, out)
    scales = None if mm_per_px is None else scales_of(mm_per_px, sources)
    network = open_network(model, device, operating_point)
    out.mkdir(parents=True, exist_ok=True)
    folders = tuple(folder for kind, folder in FOLDER_OF.items() if kind in format)
    numbers = wanted(shards, total := shard_count(len(sources), SHARD_IMAGES))
    sources = sources[numbers.start * SHARD_IMAGES : numbers.stop * SHARD_IMAGES]
    known = existing_records(sources, out, folders, network.identity, force)
    done = {name for name in known if all(file_in(out / folder, name).is_file() for folder in folders)}
    todo = [source for source in sources if force or source.name not in done]
    work = Predict(network.identity, model.resolve(), device, operating_point, out.resolve(), folders, force, network)
    with progress((), "predict", "images", total=len(todo)) as bar:
        where = Engine(engine, ray_address, gpus_per_task)
        for shard in run_jobs(work, jobs_of(todo, set(known)), where, bar):
            skipped |= dict(shard.failures)
    for file, reason in skipped.items():
        print(printable(f"skipped: {file}: {reason}"), file=sys.stderr)
    cached, records = len(sources) - len(todo), []
    for source in sources:
        if source.name in known or source.file not in skipped:
            records.append(known.get(source.name) or read_record(file_in(out / "records", source.name)))
    if shards is None:
        for name, data in written(records, network.names, format, scales, shared_folder(sources).name).items():
            write_output(out / name, data, force, REWRITE)
    else:
        typer.echo(f"shards {shards} of {total}; without --shards the command completes the output", err=True)
    report(records, cached, len(skipped), format, out)


def report(records: list[Record], cached: int, skipped: int, formats: Iterable[Format], out: Path) -> None:
    """Print what was done. Raises typer.Exit with status 3 when images were skipped."""
    defects = [defect for record in records for defect in record.defects]
    print(f"{len(records)} images ({cached} cached), {len(defects)} defects: {out}")
    if Format.yolo in formats and (holed := sum(defect.holes > 0 for defect in defects)):
        print(f"{out / 'labels'}: {holed} defects have holes; polygons cannot hold them, so they are filled there")
    if skipped:
        print(f"{skipped} of {len(records) + skipped} images were skipped", file=sys.stderr)
        raise typer.Exit(SOME_LEFT_OUT)


cli = partial(run, main)
"""The console command."""

if __name__ == "__main__":
    cli()
