"""What every test needs."""

import os

import pytest
from hypothesis import HealthCheck, settings

import stages  # noqa: F401  before ONNX Runtime and OpenVINO, which report on the computer unless it tells them not to
from tests.support.browser import browser  # noqa: F401  a fixture


def pytest_configure(config):
    # on a busy machine an example takes as long as it takes
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")
    if config.getoption("numprocesses", None):
        os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the workers, which have a core each


def pytest_collection_modifyitems(items):
    if "PYTEST_XDIST_WORKER" in os.environ:  # the slowest first, so that no worker is alone with them in the end
        items.sort(key=lambda item: item.path.parent.name != "end_to_end")


@pytest.fixture(autouse=True)
def own_work_folder(tmp_path_factory, monkeypatch):
    """Checkpoints and finished pieces of one test are not found by another, nor left in this project."""
    home = tmp_path_factory.mktemp("home")
    (home / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(home))


@pytest.fixture
def in_float32(monkeypatch):
    """Networks compute in float32, also on a CPU that multiplies in bfloat16: for comparisons up to last bits."""
    from stages.compute import device  # here, so that no thread is counted before the number is set

    monkeypatch.setattr(device, "multiplies_in_bf16", lambda _: False)


@pytest.fixture
def split(tmp_path):
    """Three images whose red channel is 100 x their label, so that a window of one can be told from the other."""
    from tests.support.train_split import make_split  # here, so that no thread is counted before the number is set

    return make_split(tmp_path)
