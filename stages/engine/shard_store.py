"""Finished shards and the model on object storage, for machines that share no file system.

    URL/KEY/*.parquet, URL/KEY/done.json   a finished shard as in staging, done.json written last
    URL/models/SHA-256/                    files of the model, and their names in files.json, written last

Each machine has a staging folder of its own. Shards finished there are copied to URL, and shards finished at URL are
not computed again. All methods raise UserError where the storage refuses or does not answer.
"""

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePath

from stages.common.errors import UserError
from stages.common.files import new_file
from stages.common.workdir import files_fingerprint
from stages.data.remote import RemotePath

DONE = "done.json"
"""Written last: the shard beside it is finished."""
FILES = "files.json"


@dataclass(frozen=True)
class ShardStore:
    """`model`: the `files_fingerprint` of the model's folder. A shard's folder in staging ends in its KEY, split into
    two folder names."""

    url: RemotePath
    model: str = ""

    def put(self, folder: Path, overwrite: bool) -> None:
        """Copy a finished shard to URL, unless it is there; with `overwrite` in any case."""
        there, done = self.place(folder), (folder / DONE).read_bytes()
        if overwrite or _read(there / DONE) != done:
            for name in (*json.loads(done), DONE):
                (there / name).upload(folder / name)

    def get(self, folder: Path) -> None:
        """Copy a finished shard to staging, if there is one."""
        there = self.place(folder)
        try:
            done = (there / DONE).read()
            for name in (*json.loads(done), DONE):
                with new_file(folder / _plain(name)) as part:
                    (there / name).download(part)
        except FileNotFoundError:
            return
        except (ValueError, TypeError) as error:
            print(f"{there / DONE}: damaged ({error}), computed again", file=sys.stderr)

    def put_model(self, folder: Path) -> None:
        """Copy the model to URL, unless it is there."""
        there = self.url / "models" / self.model
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        listed = json.dumps(names).encode()
        if _read(there / FILES) != listed:
            for name in names:
                (there / name).upload(folder / name)
            (there / FILES).write(listed)

    def get_model(self, folder: Path) -> None:
        """Download the model to `folder` where it is missing. Raises UserError where `folder` holds another one."""
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            there = self.url / "models" / self.model
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
                part = Path(temporary) / folder.name
                for name in json.loads((there / FILES).read()):
                    (part / _plain(name)).parent.mkdir(parents=True, exist_ok=True)
                    (there / name).download(part / name)
                try:
                    part.rename(folder)
                except OSError:
                    if not folder.exists():  # another process of this machine was faster
                        raise
        if files_fingerprint([folder]) != self.model:
            raise UserError(f"{folder} on {os.uname().nodename}: not the model that the driver has; remove it")

    def place(self, folder: Path) -> RemotePath:
        """Where the shard of a folder of staging lies at URL."""
        return self.url / folder.parent.name / folder.name


def _read(path: RemotePath) -> bytes | None:
    try:
        return path.read()
    except FileNotFoundError:
        return None


def _plain(name: str) -> str:
    """`name`. Raises ValueError unless it is a relative path without `..`."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"{name!r} is no name of a file")
    return name
