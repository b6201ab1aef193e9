"""Which files below a data root are opened, and which are not."""

import os
import socket
from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.data.root_files import Unreadable, inside, read_file


def test_nothing_outside_the_root_is_read(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "inner").symlink_to(root)
    (root / "loop").symlink_to(root / "loop")
    for path in ("../secret", "link", str(tmp_path / "secret"), "inner/../../secret"):
        with pytest.raises(UserError, match="leads out of the data root"):
            inside(root, path)
    for path in ("a\0b", "loop"):
        with pytest.raises(UserError, match="not a usable path"):
            inside(root, path)
    assert inside(root, "inner/a") == (root / "a").resolve()


def test_a_link_into_the_projects_dvc_cache_is_inside_and_no_other_link(tmp_path, monkeypatch):
    """As `dvc config --local cache.type symlink` makes them, with the cache where the configuration says."""
    root, cache = tmp_path / "project/data", tmp_path / "store"
    for folder in (root, cache / "files/md5/ab", tmp_path / "project/.dvc"):
        folder.mkdir(parents=True)
    (cache / "files/md5/ab/cdef").write_bytes(b"cached")
    (cache / "other").write_bytes(b"not a cached file")
    (root / "a").symlink_to(cache / "files/md5/ab/cdef")
    (root / "b").symlink_to(cache / "other")
    (root / "folder").symlink_to(cache / "files/md5")
    monkeypatch.chdir(tmp_path / "project")
    with pytest.raises(Unreadable, match="a leads out of the data root"):
        read_file(root, "a")
    (tmp_path / "project/.dvc/config").write_text("[core]\n    analytics = false\n")
    (tmp_path / "project/.dvc/config.local").write_text("[cache]\n    dir = ../../store\n    type = symlink\n")
    assert read_file(root, "a") == b"cached"
    for path in ("b", "folder/ab/cdef", str(cache / "files/md5/ab/cdef"), "../../store/files/md5/ab/cdef"):
        with pytest.raises(Unreadable, match="leads out of the data root"):
            read_file(root, path)


def test_only_regular_files_of_bounded_size_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server, (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(20 << 30)
        server.bind(str(tmp_path / "socket"))
        for path, reason in {
            "pipe": "is not a regular file",
            "folder": "is not a regular file",
            "socket": "is not a regular file",
            "zero": "leads out of the data root",
            "sparse": "has 21,474,836,480 bytes, allowed are 1,073,741,824",
        }.items():
            with pytest.raises(Unreadable, match=f"^{path} {reason}"):
                read_file(tmp_path, path)
    assert read_file(tmp_path, "gone") is read_file(tmp_path, "sparse/x") is None


def test_what_is_refused_is_closed_again(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(b"abc")
    opened = Path("/proc/self/fd")
    before = sorted(opened.iterdir())
    for path in ("folder", "large"):
        with pytest.raises(Unreadable):
            read_file(tmp_path, path, limit=2)
    assert sorted(opened.iterdir()) == before
