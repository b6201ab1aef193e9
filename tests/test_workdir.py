"""The work folder: where it is, what its keys depend on, damaged entries, and pruning."""

import os
import time
from pathlib import Path

import pytest

from stages import cache
from stages.common.workdir import code_fingerprint, files_fingerprint, read_cached, work_folder, write_cached
from stages.ingestion.root_states import remembered
from stages.teacher.answer_store import Store
from stages.training.checkpoint import load_state


def test_experiments_in_copies_share_the_folder_of_their_project(tmp_path, monkeypatch):
    """DVC gives every stage of a temporary experiment the root of the project that it was copied from."""
    copy = tmp_path / "project/.dvc/tmp/exps/standalone/tmp1"
    (copy / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    assert work_folder() == tmp_path / "project/.dvc/tmp/boxes2pixels"


def test_without_dvc_the_project_is_looked_for_upwards(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT")
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    assert work_folder() == tmp_path / "alone/.work"
    (tmp_path / ".dvc").mkdir()
    assert work_folder() == tmp_path / ".dvc/tmp/boxes2pixels"


def test_a_cached_entry_is_read_back_or_reported_as_damaged(tmp_path, capsys):
    write_cached(tmp_path / "a/b", b"payload")
    assert read_cached(tmp_path / "a/b") == b"payload"
    assert read_cached(tmp_path / "a/c") is None
    assert not capsys.readouterr().err
    (tmp_path / "a/b").write_bytes((tmp_path / "a/b").read_bytes()[:-1] + b"D")
    assert read_cached(tmp_path / "a/b") is None
    assert "a/b: damaged, computed again" in capsys.readouterr().err


def test_a_key_depends_on_bytes_and_names_inside_a_folder_but_not_on_its_place(tmp_path):
    for name, text in (("one/f", "x"), ("two/f", "x"), ("three/g", "x"), ("four/f", "y")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    one, two, three, four = (files_fingerprint([tmp_path / name]) for name in ("one", "two", "three", "four"))
    assert one == two
    assert len({one, three, four}) == 3


def test_garbage_with_a_right_checksum_is_no_checkpoint_no_answer_and_no_state(tmp_path, capsys):
    for garbage in (b"garbage", b"", b"[[", b"\x80\x05cos\nsystem\n"):
        path = tmp_path / "kept"
        write_cached(path, garbage)
        assert load_state(path) is None
        assert Store.get(None, path) is None
        assert remembered(path) == {}
    said = capsys.readouterr().err
    assert "no checkpoint" in said and "no answer, computed again" in said


def test_the_code_of_a_process_is_all_that_it_loaded_of_this_project():
    assert code_fingerprint() == code_fingerprint()
    assert code_fingerprint([cache]) not in (code_fingerprint(), code_fingerprint([]))


@pytest.fixture
def entries() -> list[Path]:
    """Three cached candidates and a checkpoint of 1 MB each, last used 4, 3, 2 and 1 days ago."""
    names = ("candidates/aa/1", "candidates/aa/2", "candidates/bb/3", "training/4.pt")
    paths = [work_folder() / name for name in names]
    for age, path in zip((4, 3, 2, 1), paths, strict=True):
        write_cached(path, bytes(10**6 - 32))
        os.utime(path, (time.time() - age * cache.DAY,) * 2)
    return paths


@pytest.mark.parametrize(
    ("wish", "left"), [({}, 4), ({"older_than": 2.5}, 2), ({"larger_than": 0.0015}, 1), ({"larger_than": 0.004}, 4)]
)
def test_pruning_takes_what_was_not_used_for_longest(entries, capsys, wish, left):
    cache.main(**{"older_than": None, "larger_than": None, **wish})
    assert [path.exists() for path in entries] == [False] * (4 - left) + [True] * left
    said = capsys.readouterr().out
    assert f"{work_folder()}: 0.00{left} GB" in said
    assert "training: 1 entries, 0.001 GB, not used for up to 1.0 days" in said
    assert ("removed" in said) == (left < 4)
