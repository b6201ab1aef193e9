"""Fingerprint the data set, so that DVC runs ingest again when, and only when, a file of it has changed.

    python -m stages.fingerprint --out data/fingerprint.json --trusted data/fingerprint_trusted.json

The same for the masks in data.trusted, apart, so that a corrected one does not read the data set again.
DVC runs it each time and never looks into data.root itself: it would wait for ever at a pipe, and stop at a link to
nothing. Here a file that ingest would refuse is its reason. A file whose size, time of change and inode are those of
the last time is not read again.
"""

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import UserError, cancelling, run
from stages.common.files import write_json
from stages.common.options import ParamsFile
from stages.common.params import Section, load_params
from stages.common.workdir import fingerprint, read_cached, work_folder, write_cached
from stages.data.root_files import Unreadable, open_file, visible_files
from stages.ingestion.config import DataParams

CHUNK = 4096
"""Files that wait for a thread at once."""

State = list
"""Of a file: size, time of change in ns, inode, SHA-256; or only the reason why it is not read."""


class Params(Section):
    data: DataParams


def main(
    out: Annotated[Path, typer.Option(help="JSON file for the number of files and their hash.")],
    trusted: Annotated[Path, typer.Option(help="The same for data.trusted.")],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Fingerprint the data set at data.root, and data.trusted."""
    data = load_params(Params, params).data
    root = Path(data.root)
    root = root.parent if root.is_file() else root
    if not root.is_dir():
        raise UserError(f"{params}: data.root = {root}: no such folder")
    write_json(out, taken(root))
    drawn = None if data.trusted is None else Path(data.trusted)
    if drawn is None or drawn.is_dir():
        write_json(trusted, drawn and taken(drawn))
    else:
        state = state_of(drawn.parent, drawn.name, None)
        write_json(trusted, {"files": 1, "sha256": fingerprint([drawn.name, state[-1]])})


def taken(root: Path) -> dict:
    """Number of the files below `root` that can be read, and a hash over their names and bytes."""
    memory = work_folder() / "fingerprints" / f"{fingerprint(str(root.resolve()))}.json"
    known = json.loads(read_cached(memory) or b"{}")
    states = states_of(root, known)
    if states != known:
        write_cached(memory, json.dumps(states).encode())
    return {"files": len(states), "sha256": fingerprint([(path, own[-1]) for path, own in states.items()])}


def states_of(root: Path, known: dict[str, State]) -> dict[str, State]:
    """Path below `root` to its state, sorted, of all files that ingest can see; `known`: those of the last time."""
    linked: list[Path] = []
    paths = sorted(os.path.relpath(path, root) for path in visible_files(root, linked.append))
    states = {}
    with cancelling(ThreadPoolExecutor(os.cpu_count())) as pool:
        for start in range(0, len(paths), CHUNK):
            some = paths[start : start + CHUNK]
            states |= zip(some, pool.map(lambda path: state_of(root, path, known.get(path)), some), strict=True)
    return states | {os.path.relpath(path, root): ["link to a folder"] for path in sorted(linked)}


def state_of(root: Path, path: str, known: State | None) -> State:
    """`known` where the file has not changed since."""
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
    return [status.st_size, status.st_mtime_ns, status.st_ino]


if __name__ == "__main__":
    run(main)
