"""A stage that is killed and run again writes the same bytes as an undisturbed one; errors of a full disk."""

import multiprocessing
import os
import random
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.pipeline_copy import copy_pipeline
from stages import evaluate, ingest, plan, rasterize, train  # noqa: F401  # loaded once, for the children
from tests.support.tiny_project import STEPS_OF_ALL, command, finish, make_project, outputs, start

COUNTS = {"train": 14, "val": 3, "test": 3}
PATIENCE_S = 600
"""Seconds; on a busy machine a process takes minutes to load its libraries."""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make_project(tmp_path_factory.mktemp("crashes"), COUNTS, epochs=16, validate_every=4)


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


class Forked:
    """`python -m stages.STAGE` in a fork of a process that has loaded the libraries and done nothing else; killed for
    real. A fork of this process, with threads of earlier tests, can wait for ever for a lock that one of them held."""

    def __init__(self, project: Path, stage: str) -> None:
        self.log = project / "said"
        self.process = FORKS.Process(target=run_stage, args=(project, stage, self.log))
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.process.pid, number)

    def communicate(self, timeout: float) -> tuple[None, str]:
        self.process.join(timeout)
        assert self.poll() is not None, self.log.read_text()
        return None, self.log.read_text()


def run_stage(project: Path, stage: str, log: Path) -> None:
    """What a fork does; it ends with the stage's status."""
    status = 1
    try:
        os.dup2(os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        os.environ["DVC_ROOT"] = str(project)
        torch.set_num_threads(1)  # OpenMP does not survive a fork
        sys.argv = command(project, stage)[2:]
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def forked_to_the_end(project: Path, stage: str) -> str:
    process = Forked(project, stage)
    said = process.communicate(PATIENCE_S)[1]
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def wanted(project) -> dict[str, bytes]:
    """The outputs of an undisturbed run; they are not left in place, and neither is what was kept for later."""
    for stage in STEPS_OF_ALL:
        forked_to_the_end(project, stage)
    found = outputs(project)
    shutil.rmtree(project / "out")
    shutil.rmtree(project / ".dvc/tmp")
    return found


def files(folder: Path, pattern: str) -> list[Path]:
    return [path for path in folder.rglob(pattern) if path.is_file() or path.suffix == ".part"]


def whole(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part"]


def end(process: subprocess.Popen | Forked, ready: Callable[[], bool], delay_s: float, number: int) -> str:
    """Send signal `number` once the work has begun, `delay_s` later; what the process said."""
    until = time.monotonic() + PATIENCE_S
    while not ready() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(delay_s)
    process.send_signal(number)
    return process.communicate(timeout=PATIENCE_S)[1]


def same_so_far(project: Path, wanted: dict[str, bytes]) -> bool:
    """All that is there is as wanted, with no leftover of a kill beside it nor in the work folder."""
    assert not list(project.rglob("*.part"))
    found = outputs(project)
    return found == {name: wanted[name] for name in found}


def test_killed_stages_that_are_run_again_end_at_the_same_bytes(project, wanted):
    """In the order of the pipeline, each on what the killed and resumed ones before it have made."""
    draw = random.Random(5)
    out, work = project / "out", project / ".dvc/tmp/boxes2pixels"
    for _ in range(3):
        end(Forked(project, "ingest"), lambda: files(out, "*.part"), draw.uniform(0, 0.05), signal.SIGKILL)
    forked_to_the_end(project, "ingest")
    assert same_so_far(project, wanted)

    least = draw.randrange(1, 12)
    answers = work / "candidates"
    end(Forked(project, "rasterize"), lambda: len(whole(answers)) >= least, 0, signal.SIGKILL)
    assert not (out / "masks/test").exists(), "it was to be killed"
    done = {path: path.stat().st_ino for path in whole(answers)}
    assert len(done) >= least
    forked_to_the_end(project, "rasterize")
    assert all(path.stat().st_ino == number for path, number in done.items()), "a finished image was done again"
    assert same_so_far(project, wanted)

    forked_to_the_end(project, "plan")
    said = end(Forked(project, "train"), lambda: files(work, "*.pt"), draw.uniform(0, 0.3), signal.SIGTERM)
    assert said.rstrip().endswith("stopped by SIGTERM; run it again to resume")
    (checkpoint,) = files(work, "*.pt")
    before = checkpoint.stat().st_mtime_ns
    said = end(Forked(project, "train"), lambda: checkpoint.stat().st_mtime_ns > before, 0, signal.SIGKILL)
    assert "resuming at step" in said
    assert not (out / "students").exists(), "it was to be killed"
    assert "resuming at step" in forked_to_the_end(project, "train")
    assert not files(work, "*.pt")
    assert same_so_far(project, wanted)

    end(Forked(project, "evaluate"), lambda: whole(work / "shards"), draw.uniform(0, 0.05), signal.SIGKILL)
    forked_to_the_end(project, "evaluate")
    assert same_so_far(project, wanted)
    assert outputs(project) == wanted


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_stage_with_one_line_and_its_status(tmp_path, number, status):
    project = make_project(tmp_path / "project", {"train": 300, "val": 1})
    process = start(project, "ingest")
    began = []
    said = end(process, lambda: began.append(1) or files(project / "out", "*.part"), 0, number)
    assert process.returncode == status
    assert said.splitlines()[-1] == f"stopped by {signal.Signals(number).name}; run it again to resume"
    assert "Traceback" not in said
    assert not outputs(project)


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path):
    """A limit on the size of a file stands in for the full disk: writing fails in the middle in the same way."""
    project = make_project(tmp_path / "project", {"train": 40, "val": 1})
    finish(project, "ingest")
    before = outputs(project)
    limited = start(project, "ingest", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)))
    said = limited.communicate(timeout=PATIENCE_S)[1]
    assert limited.returncode == 1
    last = said.splitlines()[-1]
    assert last == f"error: {project}/out/tables: File too large", said
    assert "Traceback" not in said
    assert outputs(project) == before


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    project = make_project(tmp_path / "project", {"train": 3, "val": 1})
    (project / "out").write_text("not a folder")
    process = start(project, "ingest")
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 1
    assert said.splitlines()[-1] == f"error: {project}/out: is a file, where a folder is needed"


def test_dvc_repro_after_a_kill_of_everything_gives_the_same_outputs(tmp_path):
    """DVC and its stage are killed together; git sees nothing of what they leave, and the next repro removes it."""
    repo = make_project(tmp_path / "repo", {"train": 80, "val": 2}) / "set/.."
    repo = repo.resolve()
    shutil.rmtree(repo / ".dvc")
    copy_pipeline(repo)
    params = (repo / "params.yaml").read_text()
    (repo / "params.yaml").write_text(params.replace(str(repo / "set"), "set"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}

    def call(*words: str) -> str:
        done = subprocess.run(words, cwd=repo, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def made() -> dict[str, bytes]:
        found = [path for folder in ("tables", "truth") for path in (repo / "data" / folder).rglob("*")]
        return {str(path): path.read_bytes() for path in found if path.is_file()}

    call("git", "init", "--quiet")
    call("dvc", "init", "--quiet")
    call("dvc", "repro", "ingest")
    wanted = made()
    (repo / "data/tables/rejects.csv").unlink()  # so that there is something to do, and nothing to bring back from
    shutil.rmtree(repo / ".dvc/cache")
    killed = subprocess.Popen(["dvc", "repro", "ingest"], cwd=repo, env=environment, start_new_session=True)
    while not list((repo / "data").glob(".t*.part")) and killed.poll() is None:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert list((repo / "data").glob(".*.part"))
    assert ".part" not in call("git", "status", "--porcelain", "--untracked-files=all")
    call("dvc", "repro", "ingest")
    assert made() == wanted
    assert not list(repo.rglob("*.part"))
