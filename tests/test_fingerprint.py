"""The data set's fingerprint: what changes it, files that must not be opened, and a real `dvc repro` over them."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

from benchmarks import kills
from benchmarks.pipeline_copy import copy_pipeline
from stages import fingerprint
from stages.common.errors import UserError
from stages.data.tables import REJECTS, read_table
from stages.ingestion import root_states
from stages.ingestion.root_states import states_of
from tests.support.bad_sets import KINDS, sound
from tests.support.ingesting import settings_of
from tests.support.tiny_project import write_data_set, write_params


def taken(root: Path, out: Path) -> dict:
    params = out.with_suffix(".yaml")
    params.write_text(f"data: {{root: {json.dumps(str(root))}}}\n")
    fingerprint.main(out, out.with_suffix(".trusted"), params)
    return json.loads(out.read_text())


def make_hostile(root: Path) -> None:
    """Files beside the images that a reader would wait for, never finish, or stop at."""
    images = root / "images/train"
    os.mkfifo(images / "pipe.png")
    (images / "zero.png").symlink_to("/dev/zero")
    (images / "gone.png").symlink_to("nowhere")
    with (images / "sparse.png").open("w") as file:
        file.truncate(20 << 30)
    # A socket's address holds 107 bytes, the path of a test's folder may be longer.
    with socket.socket(socket.AF_UNIX) as server, chdir(images):
        server.bind("socket.png")
    Path(os.fsdecode(os.fsencode(images) + b"/\xff.png")).write_bytes(b"no image")
    (images / "folder").symlink_to(root / "labels")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / ".dvc").mkdir()
    write_data_set(tmp_path / "set", {"train": 3, "val": 2})
    return tmp_path / "set"


def test_content_changes_it_and_nothing_else(root, tmp_path):
    out = tmp_path / "fingerprint.json"
    first = taken(root, out)
    assert first["files"] == 11
    image = root / "images/train/p00000.png"
    os.utime(image, (1, 1))
    (root / "images/train/.hidden").write_text("x")
    assert taken(root, out) == first
    data = image.read_bytes()
    image.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    second = taken(root, out)
    assert second["sha256"] != first["sha256"]
    image.rename(image.with_name("q.png"))
    assert taken(root, out)["sha256"] not in (first["sha256"], second["sha256"])
    image.with_name("q.png").rename(image)
    image.write_bytes(data)
    assert taken(root, out) == first


def test_a_file_that_has_not_changed_is_not_read_again(root, monkeypatch):
    known = states_of(root, {})
    monkeypatch.setattr(root_states, "open_file", None)
    assert states_of(root, known) == known


def test_files_that_ingest_refuses_are_their_reasons(root):
    make_hostile(root)
    found = {Path(path).name: own[0] for path, own in states_of(root, {}).items() if len(own) == 1}
    assert found == {
        "pipe.png": "images/train/pipe.png is not a regular file",
        "zero.png": "images/train/zero.png leads out of the data root",
        "gone.png": "not found",
        "sparse.png": f"images/train/sparse.png has {20 << 30:,} bytes, allowed are {1 << 30:,}",
        "socket.png": "images/train/socket.png is not a regular file",
        "folder": "link to a folder",
    }


def test_a_root_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.root = .*gone: no such folder"):
        taken(tmp_path / "gone", tmp_path / "fingerprint.json")


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
