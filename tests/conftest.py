"""What every test needs."""

import pytest

from tests.support.train_split import make_split


@pytest.fixture(autouse=True)
def own_work_folder(tmp_path_factory, monkeypatch):
    """Checkpoints and finished pieces of one test are not found by another, nor left in this project."""
    home = tmp_path_factory.mktemp("home")
    (home / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(home))


@pytest.fixture
def split(tmp_path):
    """Three images whose red channel is 100 x their label, so that a window of one can be told from the other."""
    return make_split(tmp_path)
