"""Work in shards, which rasterize, evaluate and predict share: in this process, or as tasks of a Ray cluster.

    STAGING/KEY/*.parquet   what a shard's work wrote
    STAGING/KEY/done.json   names and SHA-256 of these files, written last: the shard is finished

The key of a shard covers its rows and all else that its files depend on. So a finished shard is its own checkpoint:
after a kill, or after images that could not be used, another process or machine can resume the run; and after a change
of the data set only the changed shards are computed.
"""

import hashlib
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from stages.common.errors import UserError, printable
from stages.common.files import sha256_file, write_json
from stages.engine.shard_store import DONE, ShardStore

SHOWN = 20
"""Failures that are listed one by one."""

Tick = Callable[[int], object]
"""Called with the number of images that have been done since the last call."""


class Failure(NamedTuple):
    """An image that could not be used, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class Job:
    """Shard `index` of `split`: rows of some images, and rows of the boxes that belong to them."""

    split: str
    index: int
    images: pa.Table
    boxes: pa.Table | None = None


@dataclass(frozen=True)
class Done:
    """A job's result. `rows`: its number of images; `folder`: where its `files` (name to hex SHA-256) lie, which are
    none where an image failed."""

    split: str
    index: int
    rows: int
    folder: Path | None
    files: dict[str, str]
    failures: list[Failure]


class Work(Protocol):
    """What is done with each shard. Picklable.

    `staging`: folder of finished shards, reachable from every machine; None: the work's outputs are its own checkpoint.
    `identity`: hex SHA-256 of all that the files depend on, except a job's rows. `model`: folder that `open` loads.
    """

    staging: Path | None
    identity: str
    model: Path

    def open(self) -> Callable[[Job, Path | None, Tick], list[Failure]]:
        """Load the model; called once per process. The function that it returns writes a job's files to a folder and
        calls the tick after each image. Raises UserError where the work cannot be done at all."""
        ...


class Worker:
    """Does jobs of one work in this process. The work is opened at the first job that is not finished."""

    def __init__(self, work: Work, store: ShardStore | None = None) -> None:
        self.work, self.store = work, store
        self.shard: Callable[[Job, Path | None, Tick], list[Failure]] | None = None

    def __call__(self, job: Job, tick: Tick = lambda count: None) -> Done:
        """Do the job, unless its files are there and have the SHA-256 they should have."""
        rows, folder = job.images.num_rows, None
        if self.work.staging is not None:
            key = key_of(self.work.identity, job.images, job.boxes)
            folder = self.work.staging / key[:2] / key[2:]
            if (files := self._finished(folder)) is not None:
                tick(rows)
                return Done(job.split, job.index, rows, folder, files, [])
        if self.shard is None:
            if self.store:
                self.store.get_model(self.work.model)
            self.shard = self.work.open()
        failures = self.shard(job, folder, tick)
        if folder is None or failures:
            return Done(job.split, job.index, rows, folder, {}, failures)
        files = {path.name: sha256_file(path) for path in sorted(folder.glob("*.parquet"))}
        write_json(folder / DONE, files)
        if self.store:
            self.store.put(folder, overwrite=True)
        return Done(job.split, job.index, rows, folder, files, [])

    def _finished(self, folder: Path) -> dict[str, str] | None:
        """The files of a shard that is finished here or in the store, copied to the other one; None where it is not."""
        files = finished_files(folder)
        if self.store and files is not None:
            self.store.put(folder, overwrite=False)
        elif self.store:
            self.store.get(folder)
            files = finished_files(folder)
        return files


def finished_files(folder: Path) -> dict[str, str] | None:
    """Names and SHA-256 of the files of a finished shard; None where there is none, or a damaged one, which is printed
    on stderr."""
    try:
        files = json.loads((folder / DONE).read_text(encoding="utf-8"))
        if files and all(sha256_file(folder / name) == sha256 for name, sha256 in files.items()):
            return files
    except FileNotFoundError:
        if not (folder / DONE).exists():
            return None
    except (ValueError, AttributeError):
        pass
    print(f"{folder}: damaged, computed again", file=sys.stderr)
    return None


def key_of(identity: str, *tables: pa.Table | None) -> str:
    """Hex SHA-256 of the identity of a work and the rows of a job."""
    rows = [None if table is None else table.to_pylist() for table in tables]
    text = json.dumps([identity, rows], default=lambda data: hashlib.sha256(data).hexdigest())
    return hashlib.sha256(text.encode()).hexdigest()


def shard_count(rows: int, size: int) -> int:
    """Shards of at most `size` rows; a split without rows has one."""
    return max(1, math.ceil(rows / size))


def wanted(text: str | None, total: int) -> range:
    """The shards that `--shards` A-B or A asks for, counted from 0 over all splits; B may lie beyond the last one.

    Raises UserError for any other text, and where A lies beyond the last shard.
    """
    if text is None:
        return range(total)
    found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text)
    first, last = (int(number or found[1]) for number in found.groups()) if found else (1, 0)
    if first > last:
        raise UserError(f"--shards {text}: allowed are A-B or A, such as 0-99")
    if first >= total:
        raise UserError(f"--shards {text}: there are {total} shards, 0 to {total - 1}")
    return range(first, min(last + 1, total))


def stop_at_failures(failures: list[Failure], images: int) -> None:
    """List the images that failed on stderr. Raises UserError where there is one."""
    for failure in failures[:SHOWN]:
        print(printable(f"failed: {failure.image}: {failure.reason}"), file=sys.stderr)
    if failures:
        first = failures[0]
        raise UserError(
            f"{len(failures)} of {images} images failed, first {first.image}: {first.reason}; the others are done and "
            "cached, a rerun costs no more than the shards of those that failed"
        )


def bring(done: Done, store: ShardStore) -> None:
    """Download a finished shard that this machine's staging lacks. Raises UserError where it is damaged or lost."""
    if done.files and finished_files(done.folder) is None:
        store.get(done.folder)
        if finished_files(done.folder) != done.files:
            raise UserError(f"{store.place(done.folder)}: damaged or lost; remove it and run it again")


@contextmanager
def all_there(finished: list[Done], store: ShardStore | None = None) -> Iterator[None]:
    """A context to read finished shards in. Raises UserError where another run has removed one by `forget`.

    The rest of that shard is removed too: a run that worked on it meanwhile may have stored some of its files as all.
    """
    try:
        yield
    except FileNotFoundError as error:
        lost = [done for done in finished if done.folder is not None and str(done.folder) in str(error)]
        if not lost:
            raise
        forget(lost, store)
        where = f"another run, which shares the work folder, has removed the finished shard {lost[0].folder}"
        raise UserError(f"{where}: run it again") from None


def forget(finished: Iterable[Done], store: ShardStore | None = None) -> None:
    """Remove finished shards from staging and from the store, once the outputs are in place."""
    folders = [done.folder for done in finished if done.folder is not None]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if store:
        try:
            for folder in folders:
                store.place(folder).remove_folder()
        except UserError as error:  # the outputs are complete: no reason to fail
            print(f"finished shards are not removed: {error}", file=sys.stderr)
