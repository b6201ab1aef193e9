"""What every test needs."""

import pytest


@pytest.fixture(autouse=True)
def own_work_folder(tmp_path_factory, monkeypatch):
    """Checkpoints and finished pieces of one test are not found by another, nor left in this project."""
    home = tmp_path_factory.mktemp("home")
    (home / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(home))
