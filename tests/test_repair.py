"""Folders of runs that are not trained now are removed, where `rows` can be read; a conflict of git is left alone."""

import pytest

from stages.common.errors import UserError
from stages.repair import mend_lock, remove_other_runs


@pytest.fixture
def project(tmp_path):
    for kind in ("predictions", "curves"):
        for run in ("kept", "other"):
            (tmp_path / "data" / kind / run).mkdir(parents=True)
    return tmp_path


def folders(project) -> set[str]:
    return {str(path.relative_to(project / "data")) for path in (project / "data").glob("*/*")}


def test_folders_of_runs_that_are_not_among_rows_are_removed_and_named(project):
    (project / "params.yaml").write_text("rows: [kept]\n")
    said = remove_other_runs(project)
    assert folders(project) == {"predictions/kept", "curves/kept"}
    assert [line.split(":")[0] for line in said] == [
        str(project / f"data/{kind}/other") for kind in ("predictions", "curves")
    ]


@pytest.mark.parametrize("params", ["rows: kept\n", "rows: null\n", "rows: [2026-13-99]\n", "{", ""])
def test_nothing_is_removed_or_raised_where_rows_cannot_be_read(project, params):
    (project / "params.yaml").write_text(params)
    before = folders(project)
    assert remove_other_runs(project) == []
    assert folders(project) == before


@pytest.mark.parametrize("before", ["", "schema: '2.0'\nstages:\n  a:\n    cmd: x\n"])
def test_a_lock_with_a_conflict_is_left_alone_and_the_conflict_named(tmp_path, before):
    lock = tmp_path / "dvc.lock"
    conflict = f"{before}<<<<<<< HEAD\n    outs: [mine]\n=======\n    outs: [theirs]\n>>>>>>> other\n"
    lock.write_text(conflict)
    with pytest.raises(UserError, match=r"dvc\.lock: holds a conflict of git, nothing changed; resolve it"):
        mend_lock(tmp_path, "dvc.lock")
    assert lock.read_text() == conflict
