"""Folders of runs that are not trained now are removed; where `rows` cannot be read nothing is."""

import pytest

from stages.repair import remove_other_runs


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
