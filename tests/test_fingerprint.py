"""The data set's fingerprint: what changes it, files that must not be opened, and a real `dvc repro` over them."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from stages import fingerprint
from stages.common.errors import UserError
from stages.ingestion import root_states
from stages.ingestion.root_states import states_of
from tests.support.tiny_project import ROOT, write_data_set, write_params


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
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(images / "socket.png"))
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


def test_dvc_repro_passes_hostile_files_and_a_half_written_lock(tmp_path):
    """The route of a user: DVC never opens such a file, ingest lists it, and one command mends what a kill left."""
    repo = tmp_path / "repo"
    shutil.copytree(ROOT / "stages", repo / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, repo / name)
    write_data_set(repo / "set", {"train": 30, "val": 2})
    write_params(repo / "params.yaml", Path("set"))
    params = (repo / "params.yaml").read_text()
    params = re.sub("trusted:.*", "trusted: drawn", params.replace("max_bad_share: 0.05", "max_bad_share: 0.5"))
    (repo / "params.yaml").write_text(params)
    (repo / "drawn/val").mkdir(parents=True)
    Image.new("L", (84, 60), 1).save(repo / "drawn/val/p00000.png")
    make_hostile(repo / "set")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    del environment["DVC_ROOT"]  # that of the tests; here DVC sets it

    def call(*words: str, expected: int = 0) -> str:
        done = subprocess.run(words, cwd=repo, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == expected, done.stdout + done.stderr
        return done.stdout + done.stderr

    def made() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (repo / "data/tables").rglob("*") if path.is_file()}

    call("git", "init", "--quiet")
    call("dvc", "init", "--quiet")
    call("dvc", "repro", "ingest")
    rejects, wanted = (repo / "data/tables/rejects.csv").read_text(), made()
    assert all(name in rejects for name in ("pipe.png", "zero.png", "gone.png", "sparse.png", "socket.png", "dcff.png"))
    assert "Running stage 'ingest'" not in call("dvc", "repro", "ingest")

    for value in (1, 2):  # a mask that people drew: when it is corrected, the data set is not read again
        Image.new("L", (84, 60), value).save(repo / "drawn/val/p00000.png")
        said = call("dvc", "repro", "trust")
        assert "Running stage 'trust'" in said and "Running stage 'ingest'" not in said
    assert "Running stage 'trust'" not in call("dvc", "repro", "trust")

    lock, rwlock = repo / "dvc.lock", repo / ".dvc/tmp/rwlock"
    whole = lock.read_bytes()
    for part in (0, len(whole) // 3):
        lock.write_bytes(whole[:part])
        rwlock.write_bytes(b"")
        said = call(sys.executable, "-m", "stages.repair")
        assert f"{lock}: was half-written, restored from the copy kept by the last stage" in said
        assert f"{rwlock}: was half-written, removed" in said
        call("dvc", "repro", "ingest")
        assert made() == wanted
    for run in ("boxes2pixels", "other"):
        (repo / "data/predictions" / run).mkdir(parents=True)
    said = call(sys.executable, "-m", "stages.repair")
    assert said == f"{repo}/data/predictions/other: of a run that is not among rows, removed; it is in DVC's cache\n"
    assert [path.name for path in (repo / "data/predictions").iterdir()] == ["boxes2pixels"]
    assert call(sys.executable, "-m", "stages.repair") == "nothing to repair\n"

    for delay_s in (0.5, 2):  # bounded: kills while DVC starts, fingerprints, and writes its lock
        killed = subprocess.Popen(["dvc", "repro", "ingest"], cwd=repo, env=environment, start_new_session=True)
        time.sleep(delay_s)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        call(sys.executable, "-m", "stages.repair")
        call("dvc", "repro", "ingest")
        assert made() == wanted
