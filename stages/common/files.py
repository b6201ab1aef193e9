"""Atomic outputs: written under a temporary name, then renamed, so that a file or folder is complete or absent.

A kill leaves the temporary `.NAME.*.part` behind: git and DVC ignore it, and the next process that writes into its
folder removes it.
"""

import csv
import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from torch import Tensor

PART = ".part"

_swept: set[Path] = set()
"""Folders in which this process has removed what killed processes left."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that spreadsheets run as a formula."""


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on error nothing changes."""
    with _part(path, folder=False) as part:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it replaces `path` as a whole; a link is followed."""
    path = path.resolve() if path.is_symlink() else path
    with _part(path, folder=True) as part:
        yield part
        mode = stat.S_IMODE(part.stat().st_mode)
        for file in part.rglob("*"):
            # some writers (safetensors) make private files; a file with other hard links is not ours alone
            if file.is_dir() or file.stat().st_nlink == 1:
                file.chmod(mode if file.is_dir() else mode & 0o666)
        if not path.exists():
            part.replace(path)
            return
        # two renames: a kill between them leaves no folder, at any other time the old or the new one, never a part
        with _part(path, folder=True) as old:
            path.replace(old)
            part.replace(path)


@contextmanager
def _part(path: Path, folder: bool) -> Iterator[Path]:
    """A temporary file or folder beside `path`, locked while in use and removed at the end; removes old ones first.

    An OSError that names no file (disk full), or a temporary one, is raised again with `path` as its file name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent.resolve())
    while True:
        part = path.parent / f".{path.name}.{secrets.token_hex(4)}{PART}"
        try:
            if folder:
                part.mkdir()
            handle = os.open(part, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            error.filename = str(path)
            raise
        with suppress(OSError):  # a file system without locks: _sweep removes nothing there
            fcntl.flock(handle, fcntl.LOCK_SH)
        if part.exists():
            break
        os.close(handle)  # removed by another process before it was locked
    try:
        yield part
    except OSError as error:
        # a copy names its source first, and its target second
        names = [name for name in (error.filename, error.filename2) if name is not None]
        if not names or any(Path(os.fsdecode(name)).is_relative_to(part) for name in names):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        os.close(handle)
        _remove(part)


def _sweep(folder: Path) -> None:
    """Remove temporary files of killed processes in `folder`; once per process, as a folder may hold very many files.

    Those of running processes are locked and stay.
    """
    if folder in _swept:
        return
    _swept.add(folder)
    for part in folder.glob(f".*{PART}"):
        with suppress(OSError):
            handle = os.open(part, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(part)
            finally:
                os.close(handle)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` as `target` where the file system allows it, else copy it; its folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file in place, for use inside `new_folder`; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(parts)


def remove_others(folder: Path, names: Container[str]) -> list[Path]:
    """Remove the visible folders in `folder` whose names are not in `names`, and return their paths."""
    others = [path for path in sorted(folder.glob("[!.]*/")) if path.name not in names]
    for path in others:
        shutil.rmtree(path)
    return others


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON. Raises ValueError for NaN and infinity, which JSON lacks."""
    with new_file(path) as part:
        part.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_weights(folder: Path, weights: Mapping[str, "Tensor"], config: BaseModel) -> None:
    """Write contiguous `weights` as model.safetensors and `config` as config.json, whole or not at all."""
    from safetensors.torch import save_file  # here: it needs PyTorch, which a machine that predicts may lack

    with new_folder(folder) as part:
        save_file(dict(weights), part / "model.safetensors")
        (part / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write `csv_text` as UTF-8."""
    with new_file(path) as part:
        part.write_bytes(csv_text(columns, rows).encode())


def csv_text(columns: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A header and `rows` as CSV: LF, quotes only where needed, None as an empty field, texts as `unexecuted`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([unexecuted(value) for value in row] for row in rows)
    return text.getvalue()


def unexecuted(value: object) -> object:
    """`value`; a text that spreadsheets would run as a formula gets an apostrophe in front, which they do not show."""
    return f"'{value}" if isinstance(value, str) and value[:1] in FORMULA else value


def as_it_was(cell: str) -> str:
    """A cell without the apostrophe of `unexecuted`."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in FORMULA else cell
