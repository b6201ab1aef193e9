"""The state of each file of a data root: what changes with its content."""

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages.common.errors import UserError, cancelling
from stages.common.workdir import fingerprint, read_cached, work_folder, write_cached
from stages.data.remote import RemotePath, list_objects
from stages.data.root_files import Unreadable, open_file, visible_files

CHUNK = 4096
"""Files that are given to the threads at once."""

State = list
"""State of a file: [bytes, times of modification and of change in ns, inode, SHA-256], or [the reason why not read]."""


def marks_of(root: Path | RemotePath) -> dict[str, tuple[int, str]]:
    """Size in bytes and mark of all files below `root` that ingest can see, by relative path.

    The mark is the SHA-256, or the reason why a file is not read (its size is then 0); for an object, see
    `list_objects`. `root` may be the data.yaml in it. Raises UserError when it does not exist or cannot be listed.
    """
    root = folder_of(root)
    if isinstance(root, RemotePath):
        return list_objects(root)
    if not root.is_dir():
        raise UserError(f"data.root = {root}: no such folder")
    memory = work_folder() / "fingerprints" / f"{fingerprint(str(root.resolve()))}.json"
    known = remembered(memory)
    states = states_of(root, known)
    if states != known:
        write_cached(memory, json.dumps(states).encode())
    return {path: (own[0] if len(own) > 1 else 0, own[-1]) for path, own in states.items()}


def folder_of(root: Path | RemotePath) -> Path | RemotePath:
    """`root`, or the folder that it is in where it is a YAML file."""
    is_file = root.suffix in (".yaml", ".yml") if isinstance(root, RemotePath) else root.is_file()
    return root.parent if is_file else root


def remembered(memory: Path) -> dict[str, State]:
    """The states of the last run; empty where they cannot be read."""
    try:
        known = json.loads(read_cached(memory) or b"{}")
        return known if isinstance(known, dict) else {}
    except (ValueError, RecursionError):
        return {}


def states_of(root: Path, known: dict[str, State]) -> dict[str, State]:
    """Path below `root` to its state, sorted, of all files that ingest can see; `known`: those of the last run."""
    linked: list[Path] = []
    paths = sorted(os.path.relpath(path, root) for path in visible_files(root, linked.append))
    states = {}
    with cancelling(ThreadPoolExecutor(os.cpu_count())) as pool:
        for start in range(0, len(paths), CHUNK):
            some = paths[start : start + CHUNK]
            states |= zip(some, pool.map(lambda path: state_of(root, path, known.get(path)), some), strict=True)
    return states | {os.path.relpath(path, root): ["link to a folder"] for path in sorted(linked)}


def state_of(root: Path, path: str, known: State | None) -> State:
    """State of the file `path`; its last state, `known`, if size, times and inode are unchanged, without reading it."""
    try:
        status = (root / path).lstat()
        if known and stat.S_ISREG(status.st_mode) and known[:-1] == _identity(status):
            return known
        with open_file(root, path) as file:
            status = os.fstat(file.fileno())
            return [*_identity(status), hashlib.file_digest(file, "sha256").hexdigest()]
    except FileNotFoundError:
        return ["not found"]
    except (Unreadable, OSError) as error:
        return [str(error) if isinstance(error, Unreadable) else error.strerror]


def _identity(status: os.stat_result) -> list[int]:
    # a program can set the time of modification, not that of change
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
