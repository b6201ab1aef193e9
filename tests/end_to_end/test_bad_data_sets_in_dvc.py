"""A real `dvc repro` over bad data sets, half-written files and a cache of links."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from ruamel.yaml import YAML

from benchmarks import kills
from benchmarks.pipeline_copy import copy_pipeline
from stages.data.tables import REJECTS, read_table
from tests.support.bad_sets import KINDS, make_hostile, sound
from tests.support.ingesting import settings_of
from tests.support.tiny_project import write_data_set, write_params

CORPUS = (
    list(KINDS)
    if os.environ.get("WHOLE_CORPUS")
    else ["label that is a pipe", "list file that is a pipe", "data.yaml that is a pipe"]
)
"""Kinds of bad data sets that pass through DVC; all of them, which takes half an hour, where WHOLE_CORPUS is set."""


class Repository:
    """A DVC repository with the project's code and a small data set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        copy_pipeline(folder)
        write_data_set(folder / "set", {"train": 30, "val": 2})
        write_params(folder / "params.yaml", Path("set"))
        self.call("git", "init", "--quiet")
        self.call("dvc", "init", "--quiet")

    def set_params(self, root: str, **ingest: object) -> None:
        yaml = YAML()
        params = yaml.load((self.folder / "params.yaml").read_text())
        params["data"] = {"root": root, "trusted": "drawn" if root == "set" else None}
        params["synthesize"] |= {"train": 3, "val": 3, "test": 1}
        params["ingest"] = settings_of(**ingest)
        with (self.folder / "params.yaml").open("w") as file:
            yaml.dump(params, file)

    def call(self, *words: str, expected: int = 0) -> str:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "TQDM_DISABLE": "1"}
        environment.pop("DVC_ROOT", None)  # that of the tests; here DVC sets it
        done = subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == expected, done.stdout + done.stderr
        return done.stdout + done.stderr

    def made(self) -> dict[str, bytes]:
        tables = self.folder / "data/tables"
        return {str(path): path.read_bytes() for path in tables.rglob("*") if path.is_file()}

    def findings(self) -> list[tuple]:
        rows = read_table(self.folder / "data/tables/rejects.parquet", REJECTS).to_pylist()
        return [(row["file"], row["line"], row["action"]) for row in rows]


def test_dvc_repro_passes_bad_data_sets_a_half_written_lock_and_a_cache_of_links(tmp_path):
    """The route of a user: DVC never opens such a file, ingest lists it, and one command mends what a kill left."""
    repository = Repository(tmp_path / "repo")
    repo, call = repository.folder, repository.call
    repository.set_params("set", max_bad_share=0.5)
    (repo / "drawn/val").mkdir(parents=True)
    Image.new("L", (84, 60), 1).save(repo / "drawn/val/p00000.png")
    make_hostile(repo / "set")
    call("dvc", "repro", "ingest")
    rejects, wanted = (repo / "data/tables/rejects.csv").read_text(), repository.made()
    assert all(name in rejects for name in ("pipe.png", "zero.png", "gone.png", "sparse.png", "socket.png", "dcff.png"))
    assert "Running stage 'ingest'" not in call("dvc", "repro", "ingest")

    for value in (1, 2):  # a mask that people drew: when it is corrected, the data set is not read again
        Image.new("L", (84, 60), value).save(repo / "drawn/val/p00000.png")
        said = call("dvc", "repro", "trust")
        assert "Running stage 'trust'" in said and "Running stage 'ingest'" not in said
    assert "Running stage 'trust'" not in call("dvc", "repro", "trust")

    lock, rwlock = repo / "dvc.lock", repo / ".dvc/tmp/rwlock"
    whole, other = lock.read_bytes(), repo / "data/dvc.lock"
    for part in (0, whole.index(b": ", len(whole) // 3), len(whole) - 1):  # not at the end of a line: DVC reads that
        lock.write_bytes(whole[:part])
        rwlock.write_bytes(b"")
        other.write_bytes(other.read_bytes()[:-1])
        said = call(sys.executable, "-m", "stages.repair")
        assert f"{lock}: was half-written, restored from the copy kept by the last stage" in said
        assert f"{rwlock}: was half-written, removed" in said
        assert lock.read_bytes() == whole
        assert f"{other}: was half-written, removed" in said
        assert "Running stage 'ingest'" not in call("dvc", "repro", "ingest")
    assert call(sys.executable, "-m", "stages.repair") == "nothing to repair\n"

    draw = random.Random(0)
    for number in range(4):  # bounded: benchmarks.kills has many more
        kills.kill_one(repo, draw, number)
    (repo / "set/labels/train/0.txt").unlink()
    call("dvc", "repro", "ingest")
    assert repository.made() == wanted

    for name in CORPUS:
        kind = KINDS[name]
        shutil.rmtree(repo / "sets", ignore_errors=True)
        kind.build(sound(repo / "sets/set"))
        repository.set_params("sets/set", **kind.settings)
        said = call("dvc", "repro", "ingest", expected=255 if kind.refused else 0)
        assert not kind.refused or kind.refused in said, name
        assert "Traceback" not in said, name
        if kind.findings or not kind.refused:
            assert repository.findings() == [(file, line, action) for file, line, _, action in kind.findings], name

    call("dvc", "config", "--local", "cache.type", "symlink")
    shutil.rmtree(repo / "data/demo")
    repository.set_params("data/demo")
    call("dvc", "repro", "ingest")
    assert all(path.is_symlink() for path in (repo / "data/demo").rglob("*.jpg"))
    assert repository.findings() == []
