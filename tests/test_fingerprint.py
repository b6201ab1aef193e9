"""The data set's fingerprint: what changes it, and files that must not be opened."""

import json
import os
from pathlib import Path

import pytest

from stages import fingerprint
from stages.common.errors import UserError
from stages.ingestion import root_states
from stages.ingestion.root_states import states_of
from tests.support.bad_sets import make_hostile
from tests.support.tiny_project import write_data_set


def taken(root: Path, out: Path) -> dict:
    params = out.with_suffix(".yaml")
    params.write_text(f"data: {{root: {json.dumps(str(root))}}}\n")
    fingerprint.main(out, out.with_suffix(".trusted"), params)
    return json.loads(out.read_text())


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


def test_a_change_is_seen_where_size_time_of_modification_and_inode_are_kept(root, tmp_path):
    first = taken(root, tmp_path / "fingerprint.json")
    label = root / "labels/train/p00000.txt"
    before, data = label.stat(), label.read_bytes()
    label.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert label.stat().st_ino == before.st_ino
    assert taken(root, tmp_path / "fingerprint.json") != first


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
