"""Where jobs run: in this process, or as Ray tasks on one machine or many. The output is the same, byte for byte."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Annotated

import typer
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.workdir import files_fingerprint
from stages.data.remote import RemotePath
from stages.engine.ray_tasks import run_on_ray
from stages.engine.shard_jobs import Done, Job, Work, Worker, bring
from stages.engine.shard_store import ShardStore


class EngineName(StrEnum):
    """What runs the jobs."""

    local = "local"
    ray = "ray"


Shards = Annotated[
    str | None,
    typer.Option("--shards", help="Only shards A-B, counted from 0, as in job arrays; a run without it completes all."),
]
EngineOption = Annotated[
    EngineName, typer.Option("--engine", envvar="BOXES2PIXELS_ENGINE", help="What runs the shards.")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="BOXES2PIXELS_RAY_ADDRESS",
        help="Address of a Ray cluster; default: one is started here.",
    ),
]
Gpus = Annotated[
    float,
    typer.Option(
        "--gpus-per-task", envvar="BOXES2PIXELS_GPUS_PER_TASK", min=0, help="GPUs per Ray task; may be a fraction."
    ),
]
ShardsUrl = Annotated[
    str | None,
    typer.Option(
        "--shards-url",
        envvar="BOXES2PIXELS_SHARDS_URL",
        help="Object storage for finished shards, for machines that share no file system.",
    ),
]
"""These options change no byte of the output, so they are neither in params.yaml nor in the commands of dvc.yaml."""


@dataclass(frozen=True)
class Engine:
    """`address`: of a Ray cluster; None: one is started on this machine. `gpus`: per task, may be a fraction. `url`:
    of a folder on object storage for finished shards; None: all machines share the work's staging folder."""

    name: EngineName = EngineName.local
    address: str | None = None
    gpus: float = 0.0
    url: str | None = None

    def store(self, model: str = "") -> ShardStore | None:
        """The store at `url`, or None. `model`: SHA-256 of the model. Raises UserError where `url` is not a URL."""
        if self.url is not None and not re.match("[a-z0-9]+://[^/]", self.url):
            raise UserError(f"--shards-url {self.url}: allowed are URLs, such as s3://bucket/folder")
        return ShardStore(RemotePath(self.url), model) if self.url else None


def run_jobs(work: Work, jobs: Iterable[Job], engine: Engine, bar: tqdm, numbers: range | None = None) -> list[Done]:
    """Do the jobs, or only those with these `numbers`, counted from 0. The results are in the order of the jobs.

    `bar` counts images. Raises UserError where `Work.open` does.
    """
    if store := engine.store(files_fingerprint([work.model]) if engine.url else ""):
        store.put_model(work.model)
    # without numbers `jobs` is read to its end, where the tables get their last check
    asked = jobs if numbers is None else islice(jobs, numbers.start, numbers.stop)
    if engine.name is EngineName.local:
        worker = Worker(work, store)
        return [worker(job, bar.update) for job in asked]
    found = {}
    for number, done in run_on_ray(work, asked, engine.address, engine.gpus, store):
        if store:
            bring(done, store)
        found[number] = done
        bar.update(done.rows)
    return [done for _, done in sorted(found.items())]
