"""The work folder: checkpoints and cached results of killed runs, by hashes of everything that they depend on.

It is `.dvc/tmp/boxes2pixels` in the project: outside of every stage's outputs, which DVC deletes before it runs a
stage; ignored by git and DVC; not touched by `dvc gc`; safe to delete while nothing runs. DVC passes the root of the
project to every stage in DVC_ROOT; in an experiment with `--temp` or `--queue`, which runs in a copy, it is the root of
the original project. So all experiments share one work folder.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from stages.common.files import new_file, sha256_file

CODE = Path(__file__).parents[2]


def project_folder(*folders: Path) -> Path | None:
    """The first of `folders` that is a DVC project, or None; by default the current folder and those above it."""
    here = Path.cwd()
    return next((folder for folder in folders or (here, *here.parents) if (folder / ".dvc").is_dir()), None)


def work_folder() -> Path:
    """The work folder, which may not exist yet. Without DVC it is `.work` in the current folder."""
    project = project_folder(Path(root)) if (root := os.environ.get("DVC_ROOT")) else project_folder()
    return Path.cwd() / ".work" if project is None else project / ".dvc/tmp/boxes2pixels"


def fingerprint(parts: object) -> str:
    """Hex SHA-256 of any JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def files_fingerprint(paths: Iterable[Path]) -> str:
    """Hex SHA-256 over the bytes of files, and over names and bytes of all files in folders."""
    return fingerprint([[(name, sha256_file(file)) for name, file in _files(path)] for path in paths])


def code_fingerprint(modules: Iterable[ModuleType] | None = None) -> str:
    """Hex SHA-256 over the sources of `modules`; by default of those of this project that are loaded."""
    loaded = list(sys.modules.values()) if modules is None else modules
    files = {Path(file).resolve() for module in loaded if (file := getattr(module, "__file__", None))}
    ours = sorted(file for file in files if file.is_relative_to(CODE / "stages"))
    return fingerprint([(file.relative_to(CODE).as_posix(), sha256_file(file)) for file in ours])


def write_cached(path: Path, payload: bytes) -> None:
    """Write `payload` with its checksum, atomically."""
    with new_file(path) as part:
        part.write_bytes(hashlib.sha256(payload).digest() + payload)


def read_cached(path: Path) -> bytes | None:
    """What `write_cached` wrote; None where there is no file, or a damaged one, which is reported on stderr."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if data[:32] == hashlib.sha256(data[32:]).digest():
        return data[32:]
    print(f"{path}: damaged, computed again", file=sys.stderr)
    return None


def keep_lock() -> None:
    """Keep a copy of dvc.lock, which DVC writes in place and a kill leaves half-written; `stages.repair` restores it.

    Whenever DVC starts a stage the file is whole. In an experiment with `--temp` it is that of a copy, and not kept.
    """
    lock, kept = Path("dvc.lock"), work_folder() / "dvc.lock"
    if not (os.environ.get("DVC_STAGE") and lock.is_file() and Path.cwd() == Path(os.environ["DVC_ROOT"]).resolve()):
        return
    data = lock.read_bytes()
    if not kept.is_file() or read_cached(kept) != data:
        write_cached(kept, data)


def _files(path: Path) -> list[tuple[str, Path]]:
    if path.is_dir():
        return [(file.relative_to(path).as_posix(), file) for file in sorted(path.rglob("*")) if file.is_file()]
    return [("", path)]
