"""Show and prune the work folder: cached candidates of the teacher, shards and checkpoints of killed runs.

    python -m stages.cache
    python -m stages.cache --older-than 30 --larger-than 20

It only saves time: what is missing is computed again. See stages/common/workdir.py.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import run
from stages.common.workdir import work_folder

DAY, GB = 24 * 3600, 10**9


def main(
    older_than: Annotated[float | None, typer.Option(min=0, help="Remove what was unused for this many days.")] = None,
    larger_than: Annotated[
        float | None, typer.Option(min=0, help="Remove what was used longest ago until at most this many GB are left.")
    ] = None,
) -> None:
    """Show the size and age of the work folder, after removing what the options select."""
    folder = work_folder()
    entries = sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: (path.stat().st_mtime, path)
    )
    total, now, removed = sum(path.stat().st_size for path in entries), time.time(), []
    for path in entries:
        status = path.stat()
        too_old = older_than is not None and now - status.st_mtime > older_than * DAY
        too_much = larger_than is not None and total > larger_than * GB
        if too_old or too_much:
            path.unlink(missing_ok=True)
            total -= status.st_size
            removed.append(path)
    gone = set(removed)
    typer.echo(f"{folder}: {total / GB:.3f} GB" + (f", {len(removed)} removed" if removed else ""))
    for kind in ("candidates", "shards", "training", "fingerprints"):
        describe(folder / kind, [path for path in entries if path not in gone and (folder / kind) in path.parents], now)


def describe(folder: Path, entries: list[Path], now: float) -> None:
    """Print one line on one subfolder; `entries`: its files, the longest unused first; `now`: seconds, as time.time."""
    size = sum(path.stat().st_size for path in entries)
    age = f", not used for up to {(now - entries[0].stat().st_mtime) / DAY:.1f} days" if entries else ""
    typer.echo(f"  {folder.name}: {len(entries)} entries, {size / GB:.3f} GB{age}")


if __name__ == "__main__":
    run(main)
