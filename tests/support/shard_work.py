"""A work of texts for tests of the engines. Its shards misbehave once, as their first image is named."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from stages.data.tables import write_table
from stages.engine.shard_jobs import Failure, Job

TEXTS = pa.schema([("image_id", pa.string())])


@dataclass(frozen=True)
class Upper:
    """Writes the ids of a job in upper case, and a file per attempt into `log`: SHARD-PROCESS.

    `kill`: the process dies at the first attempt; `hang`: the first attempt does not end; `bad`: the image fails;
    `slow`: takes a second.
    """

    staging: Path
    log: Path
    identity: str = "upper"
    model: Path | None = None

    def open(self) -> Callable:
        self._note("opened", os.getpid())

        def shard(job: Job, folder: Path, tick) -> list[Failure]:
            ids = job.images["image_id"].to_pylist()
            first = not list(self.log.glob(f"{job.index}-*"))
            self._note(job.index, os.getpid())
            if first and ids[0] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if first and ids[0] == "hang":
                time.sleep(600)
            if ids[0] == "slow":
                time.sleep(1)
            tick(len(ids))
            bad = [Failure(one, "is bad") for one in ids if one.startswith("bad")]
            if not bad:
                write_table(folder / "upper.parquet", TEXTS, [{"image_id": one.upper()} for one in ids])
            return bad

        return shard

    def attempts(self) -> dict[str, int]:
        """Number of attempts by shard, and how often the work was opened."""
        names = [path.name.split("-")[0] for path in self.log.iterdir()]
        return {name: names.count(name) for name in sorted(set(names))}

    def _note(self, what: object, process: int) -> None:
        self.log.mkdir(parents=True, exist_ok=True)
        (self.log / f"{what}-{process}-{time.monotonic_ns()}").touch()


def jobs(*shards: list[str]) -> list[Job]:
    tables = [pa.table({"image_id": ids}, TEXTS) for ids in shards]
    return [Job("val", index, table) for index, table in enumerate(tables)]
