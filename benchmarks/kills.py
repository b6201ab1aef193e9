"""Kills `dvc repro` at aimed moments: each kill must be repaired without a person, and lead to the same bytes.

    python -m benchmarks.kills --count 60

Kills DVC and its stage together (SIGKILL) when one of the files that DVC writes in place, or a stage's temporary
output, changes for the nth time, n drawn at random. After each, `python -m stages.repair`; after every fifth, `dvc
repro` to its end and a comparison of all tables. Prints how many kills left a file half-written.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from ruamel.yaml import YAML

from benchmarks.pipeline_copy import ROOT, copy_pipeline

AIMS = ("dvc.lock", "data/dvc.lock", ".dvc/tmp/rwlock", "data/tables", "data/fingerprint.json")
"""Files to watch: three that DVC writes in place, and two outputs, whose folder shows temporary files."""

HALF_WRITTEN = ("repo/dvc.lock", "data/dvc.lock", "rwlock")
"""Ends of the paths that `stages.repair` may name as half-written."""

EVERY = 5
"""Kills between two runs to the end."""


def make_repository(repo: Path) -> None:
    """A DVC repository with this project's code and a data set of a few images."""
    copy_pipeline(repo)
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (repo / "set" / folder / split).mkdir(parents=True)
        for number in range(6):
            pixels = draw.integers(0, 256, (60, 84, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(repo / f"set/images/{split}/{number}.png")
            (repo / f"set/labels/{split}/{number}.txt").write_text("0 .5 .5 .3 .3\n")
    (repo / "set/data.yaml").write_text("train: images/train\nval: images/val\nnames: [dirt]\n")
    params = YAML().load((ROOT / "params.yaml").read_text())
    params["data"]["root"] = "set"
    params["synthesize"] |= {"train": 1, "val": 1, "test": 1}
    YAML().dump(params, repo / "params.yaml")
    call(repo, "git", "init", "--quiet")
    call(repo, "dvc", "init", "--quiet")


def environment() -> dict[str, str]:
    """Environment with this interpreter's folder first in PATH, because DVC runs each stage's `python` by name."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1"}


def call(repo: Path, *words: str) -> str:
    """Run a command; returns what it printed. Exits when it fails, because then a person would be needed."""
    done = subprocess.run(words, cwd=repo, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def tables(repo: Path) -> dict[str, bytes]:
    """All that ingest writes."""
    return {str(path): path.read_bytes() for path in (repo / "data/tables").rglob("*") if path.is_file()}


def kill_one(repo: Path, draw: random.Random, number: int) -> str:
    """Change a label, start `dvc repro`, kill it at an aimed moment; returns what `stages.repair` printed."""
    # every second time the data set is the same as at first
    (repo / "set/labels/train/0.txt").write_text(f"0 .5 .5 .3 .{3 + number % 2}\n")
    aim, nth, changes = repo / AIMS[number % len(AIMS)], draw.randint(1, 6), 0
    process = subprocess.Popen(
        ["dvc", "repro", "--quiet", "ingest"], cwd=repo, env=environment(), start_new_session=True
    )
    before = seen(aim)
    while process.poll() is None and changes < nth:
        now = seen(aim)
        changes, before = changes + (now != before), now
        if now == before:
            time.sleep(0.0002)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return call(repo, sys.executable, "-m", "stages.repair")


def seen(path: Path) -> tuple:
    """What changes when `path` does, or when a temporary file of it appears."""
    try:
        status = path.stat()
        own = (status.st_size, status.st_mtime_ns)
    except OSError:
        own = ()
    return own, *sorted(part.name for part in path.parent.glob(f".{path.name}.*"))


def main(
    count: Annotated[int, typer.Option(min=1, help="Number of kills.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
) -> None:
    """Kill `dvc repro` again and again, mend, and compare."""
    draw, said = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder) / "repo"
        make_repository(repo)
        call(repo, "dvc", "repro", "--quiet", "ingest")
        wanted = tables(repo)
        for number in range(1, count + 1):
            mended = kill_one(repo, draw, number)
            said.update(name for name in HALF_WRITTEN if f"{name}: was half-written" in mended)
            if number % EVERY == 0 or number == count:
                (repo / "set/labels/train/0.txt").write_text("0 .5 .5 .3 .3\n")
                call(repo, "dvc", "repro", "--quiet", "ingest")
                if tables(repo) != wanted:
                    raise SystemExit(f"kill {number}: other bytes")
                typer.echo(f"{number} kills, same bytes; half-written: {dict(said)}")


if __name__ == "__main__":
    typer.run(main)
