"""Turn boxes into pseudo-masks: the teacher is prompted with each box, the chosen masks become one label map per image.

    python -m stages.rasterize --tables data/tables --weights data/weights/teacher --out data/masks

An image, or the crop around a box, is encoded once and its boxes are decoded together. No network is needed for images
without boxes, for cached answers (stages/teacher/answer_store.py), and for masks that people drew, which replace the
teacher's (stages/trusted/drawn_masks.py). Memory does not grow with the number of images. A finished shard survives a
kill; images that cannot be used are reported after all others are done. `--engine ray` and `--shards` share the work
among machines (docs/cluster.md). Ground truth is not an input: no mask can depend on it.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import run
from stages.common.files import link_or_copy, new_folder
from stages.common.options import Device, ParamsFile, Tables
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.common.workdir import files_fingerprint, fingerprint, work_folder
from stages.data.tables import IMAGES, SPLITS, Dataset, count_rows, read_dataset
from stages.engine.engines import Address, Engine, EngineName, EngineOption, Gpus, Shards, ShardsUrl, run_jobs
from stages.engine.ray_tasks import environment
from stages.engine.shard_jobs import Done, all_there, forget, shard_count, stop_at_failures, wanted
from stages.masks.shards import CANDIDATE_ROWS, LABEL_MAPS, Shard, shard_path, write_index
from stages.teacher.config import RasterizeParams
from stages.teacher.rasterizing import Rasterize, jobs_of


class Params(Section):
    rasterize: RasterizeParams


def main(
    tables: Tables,
    weights: Annotated[Path, typer.Option(help="Folder of the teacher's weights.")],
    out: Annotated[Path, typer.Option(help="Folder to write pseudo-masks to, one folder per split.")],
    trusted: Annotated[Path | None, typer.Option(help="Folder of the trusted masks, if there are any.")] = None,
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    engine: EngineOption = EngineName.local,
    ray_address: Address = None,
    gpus_per_task: Gpus = 0.0,
    shards: Shards = None,
    shards_url: ShardsUrl = None,
) -> None:
    """Write pseudo-masks, and the candidates that they were chosen from, for every split."""
    values = load_params(Params, params).rasterize
    where = Engine(engine, ray_address, gpus_per_task, shards_url)
    work = work_of(weights, read_dataset(tables / "dataset.json"), values, device)
    images = {split: count_rows(tables / split / "images.parquet", IMAGES) for split in SPLITS}
    numbers = wanted(shards, total := sum(shard_count(rows, values.shard_size) for rows in images.values()))
    size, drawn = values.shard_size, {split: None if split == "test" else trusted for split in SPLITS}
    jobs = chain.from_iterable(jobs_of(tables, drawn[split], split, size) for split in SPLITS)
    with progress((), "rasterize", "images", total=sum(images.values()) if shards is None else None) as bar:
        finished = run_jobs(work, jobs, where, bar, None if shards is None else numbers)
    stop_at_failures([failure for done in finished for failure in done.failures], sum(images.values()))
    if shards is not None:
        typer.echo(f"shards {shards} of {total} are done; without --shards the command completes the masks", err=True)
        return
    with all_there(finished, where.store()):
        for split in SPLITS:
            put_together(out / split, [done for done in finished if done.split == split])
    forget(finished, where.store())


def work_of(weights: Path, source: Dataset, values: RasterizeParams, device: str) -> Rasterize:
    """The work, with absolute paths: other processes may run in other folders."""
    parts = [files_fingerprint([weights]), values.model_dump(mode="json"), source.white_level, source.names, device]
    identity = fingerprint([*parts, environment()])
    folder, absolute = work_folder().resolve(), Dataset(source.root.resolve(), source.names, source.white_level)
    return Rasterize(folder / "shards", identity, weights.resolve(), folder / "candidates", absolute, values, device)


def put_together(folder: Path, finished: Sequence[Done]) -> None:
    """Put the files of a split's shards into one folder; its index is written last."""
    with new_folder(folder) as part:
        for done in finished:
            for kind in (CANDIDATE_ROWS, LABEL_MAPS):
                link_or_copy(done.folder / f"{kind}.parquet", shard_path(part, kind, done.index))
        hashes = [{name.removesuffix(".parquet"): sha256 for name, sha256 in done.files.items()} for done in finished]
        write_index(part, [Shard(done.index, done.rows, own) for done, own in zip(finished, hashes, strict=True)])


if __name__ == "__main__":
    run(main)
