"""Mend what a killed DVC has left half-written, so that `dvc repro` resumes; `make repro` does this first.

    python -m stages.repair

DVC writes its dvc.lock files and .dvc/tmp/rwlock in place. A whole dvc.lock is restored from the copy that each stage
keeps, or from git; an rwlock that is not JSON is removed. So are predictions and curves of runs that are not among
`rows`, which DVC leaves after `dvc exp apply` of fewer. What a killed `dvc exp run` leaves is named, with the way back.
"""

import fcntl
import json
import subprocess
from pathlib import Path

import typer
from ruamel.yaml import YAML, YAMLError

from stages.common.errors import UserError, run
from stages.common.files import new_file, remove_others
from stages.common.params import Section, load_params
from stages.common.workdir import project_folder, read_cached, work_folder

LOCKS = ("dvc.lock", "data/dvc.lock")
"""The stages keep a copy of the first; the second is written again each time."""

CONFLICT = b"<<<<<<< "
"""Begins the line above the first side of a conflict in a file that git merges."""


class Params(Section):
    rows: list[str]


def main() -> None:
    """Mend a half-written dvc.lock and rwlock, and name what else a killed DVC has left."""
    if (project := project_folder()) is None:
        raise UserError(f"{Path.cwd()}: not in a DVC project, no folder .dvc here or above")
    locks = [line for name in LOCKS for line in mend_lock(project, name)]
    lines = [*locks, *mend_rwlock(project / ".dvc/tmp"), *remove_other_runs(project), *leftovers(project)]
    typer.echo("\n".join(lines) or "nothing to repair")


def mend_lock(project: Path, name: str) -> list[str]:
    """Restore or remove one of LOCKS if it is not whole; returns lines that say what was done.

    Raises UserError where git has left a conflict in it.
    """
    path = project / name
    if not path.exists() or whole(now := path.read_bytes()):
        return []
    if now.startswith(CONFLICT) or b"\n" + CONFLICT in now:
        raise UserError(
            f"{path}: holds a conflict of git, nothing changed; resolve it, such as by `git checkout --ours {name}`"
        )
    committed = git(project, "show", f"HEAD:./{name}")
    for source, data in (("the copy kept by the last stage", read_cached(work_folder() / name)), ("git", committed)):
        if data and whole(data):
            with new_file(path) as part:
                part.write_bytes(data)
            return [f"{path}: was half-written, restored from {source}"]
    path.unlink()
    return [f"{path}: was half-written, removed; DVC finds what was done in its run cache"]


def whole(data: bytes) -> bool:
    """Whether these are the bytes of a complete dvc.lock: DVC ends it with a line break, after a command per stage."""
    try:
        tree = YAML(typ="safe").load(data.decode())
    except (YAMLError, UnicodeDecodeError):
        return False
    stages = tree.get("stages") if isinstance(tree, dict) else None
    complete = isinstance(stages, dict) and all(isinstance(stage, dict) and "cmd" in stage for stage in stages.values())
    return complete and data.endswith(b"\n")


def mend_rwlock(folder: Path) -> list[str]:
    """Remove an rwlock that is not JSON, while no DVC process writes it; returns lines that say what was done."""
    path, guard = folder / "rwlock", folder / "rwlock.lock"
    if not path.exists():
        return []
    with guard.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # DVC's own lock on it, which the kernel takes from a killed process
        try:
            json.loads(path.read_bytes())
        except ValueError:
            path.unlink()
            return [f"{path}: was half-written, removed"]
    return []


def remove_other_runs(project: Path) -> list[str]:
    """Remove what `report` would count as changed inputs: predictions and curves of runs that are not trained now."""
    try:
        rows = load_params(Params, project / "params.yaml").rows
    except UserError:
        return []  # `plan` says what is wrong with it
    others = [path for kind in ("predictions", "curves") for path in remove_others(project / "data" / kind, rows)]
    return [f"{folder}: of a run that is not among rows, removed; it is in DVC's cache" for folder in others]


def leftovers(project: Path) -> list[str]:
    """Lines on what a killed `dvc exp run` may have left, with the command that leads back. Changes nothing."""
    lines = []
    if git(project, "rev-parse", "HEAD") and git(project, "symbolic-ref", "--quiet", "HEAD") is None:
        lines.append("git is on no branch, perhaps by a killed `dvc exp run`: `git switch BRANCH` leads back")
    if stashed := git(project, "stash", "list"):
        count = len(stashed.splitlines())
        lines.append(
            f"git has {count} stashed changes, perhaps yours from before a killed `dvc exp run`: `git stash pop`"
        )
    for folder in sorted((project / ".dvc/tmp/exps/standalone").glob("tmp*")):
        size = sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6
        lines.append(
            f"{folder}: {size:.0f} MB, of a `dvc exp run --temp` that runs or was killed; if killed, remove it"
        )
    return lines


def git(project: Path, *words: str) -> bytes | None:
    """What git prints; None where it fails, as outside of a repository."""
    done = subprocess.run(["git", *words], cwd=project, capture_output=True)
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    run(main)
