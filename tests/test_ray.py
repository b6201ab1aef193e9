"""The Ray engine on a real cluster of two nodes: nothing that fails needs a person, nothing finished is done again."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.common.progress import progress
from stages.engine import ray_tasks
from stages.engine.engines import Engine, EngineName, run_jobs
from stages.engine.shard_jobs import Done
from tests.support.shard_work import Upper, jobs

ROOT = Path(__file__).parents[1]
HEAD, SECOND = "127.0.0.2", "127.0.0.3"
SETTINGS = {"health_check_period_ms": 1000, "health_check_failure_threshold": 15}
TOKEN = "only-on-this-machine-and-only-for-this-test"
DRIVER = """
import sys
from pathlib import Path
from stages.common.progress import progress
from stages.engine.engines import Engine, EngineName, run_jobs
from tests.support.shard_work import Upper, jobs
staging, log, address = sys.argv[1:]
with progress((), "test", "images") as bar:
    run_jobs(Upper(Path(staging), Path(log)), jobs(["a"], ["b"], ["hang"]), Engine(EngineName.ray, address), bar)
"""


@pytest.fixture(scope="module")
def cluster():
    """One slot on each of two nodes, both on the loopback."""
    # read when Ray is loaded
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    ray = pytest.importorskip("ray", reason="needs the group cluster: uv pip install --group cluster")
    from ray.cluster_utils import Cluster

    how = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    found = Cluster(True, head_node_args={**how, "node_ip_address": HEAD, "_system_config": SETTINGS})
    ray.init(address=found.address, logging_level="warning")  # the driver's node, which no test may remove
    found.second = lambda: found.add_node(**how, node_ip_address=SECOND)
    found.last = found.second()
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def work(tmp_path) -> Upper:
    return Upper(tmp_path / "staging", tmp_path / "log")


def run(work, todo: list, engine: Engine) -> list[Done]:
    with progress((), "test", "images") as bar:
        return run_jobs(work, todo, engine, bar)


def wait_for(ready: Callable[[], bool], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_cluster_reports_nothing(cluster):
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()


def test_a_killed_worker_and_a_corrupt_image_cost_no_more_than_their_shards(cluster, work, tmp_path):
    todo = jobs(["a", "b"], ["kill"], ["bad", "c"], ["d"], ["e"])
    found = run(work, todo, Engine(EngineName.ray, cluster.address))
    local = Upper(tmp_path / "local", tmp_path / "local_log")
    (local.log).mkdir()
    (local.log / "1-0-0").touch()  # in this process it must not be killed
    wanted = run(local, todo, Engine())
    assert [(one.index, one.rows, one.files, one.failures) for one in found] == [
        (one.index, one.rows, one.files, one.failures) for one in wanted
    ]
    assert [one.failures for one in found][2] == [("bad", "is bad")]
    attempts = work.attempts()
    assert {key: attempts[key] for key in "01234"} == {"0": 1, "1": 2, "2": 1, "3": 1, "4": 1}
    opened = [path.name.split("-")[1] for path in work.log.glob("opened-*")]
    assert len(set(opened)) == len(opened), "once per process"
    again = run(work, todo, Engine(EngineName.ray, cluster.address))
    assert again == found
    assert work.attempts()["0"] == 1 and work.attempts()["2"] == 2, "only what failed is tried again"


def test_the_tasks_of_a_dead_node_move_to_another(cluster, work):
    """Every shard on the second node hangs; it is taken away, and the first does them all."""
    found: list[Done] = []
    todo = jobs(["hang"], ["hang", "x"], ["a"], ["b"])
    thread = threading.Thread(target=lambda: found.extend(run(work, todo, Engine(EngineName.ray, cluster.address))))
    thread.start()
    wait_for(lambda: len(list(work.log.glob("[01]-*"))) == 2)  # one on each node
    cluster.remove_node(cluster.last, allow_graceful=False)
    hung = {int(path.name.split("-")[1]) for path in work.log.glob("[01]-*")}
    wait_for(lambda: len(hung & running()) == 1)
    os.kill((hung & running()).pop(), signal.SIGKILL)  # the other one, on the node that is left
    thread.join(90)
    assert [one.index for one in found] == [0, 1, 2, 3]
    assert {key: count for key, count in work.attempts().items() if key != "opened"} == {"0": 2, "1": 2, "2": 1, "3": 1}
    cluster.last = cluster.second()


def running() -> set[int]:
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()}


def test_a_lost_driver_loses_no_finished_shard(cluster, work):
    words = [sys.executable, "-c", DRIVER, str(work.staging), str(work.log), cluster.address]
    driver = subprocess.Popen(words, cwd=ROOT, env=os.environ)
    wait_for(lambda: len(list(work.staging.rglob("done.json"))) == 2 and list(work.log.glob("2-*")))
    driver.kill()
    driver.wait()
    found = run(work, jobs(["a"], ["b"], ["hang"]), Engine(EngineName.ray, cluster.address))
    assert [one.rows for one in found] == [1, 1, 1]
    assert {key: count for key, count in work.attempts().items() if key != "opened"} == {"0": 1, "1": 1, "2": 2}


def test_a_worker_that_cannot_do_the_work_says_so_in_one_line(cluster, tmp_path):
    work = Upper(tmp_path / "staging", Path("/proc/nowhere/log"))
    with pytest.raises(OSError, match="nowhere"):
        run(work, jobs(["a"]), Engine(EngineName.ray, cluster.address))


def test_more_gpus_than_there_are_is_one_line(cluster):
    with pytest.raises(UserError, match=r"--gpus-per-task 1: the Ray cluster has no node with so much"):
        run(None, jobs(["a"]), Engine(EngineName.ray, cluster.address, 1))


def test_a_worker_with_other_versions_is_refused(work):
    driver = ray_tasks.environment() | {"numpy": "1.0"}
    with pytest.raises(UserError, match=r"the worker on .* has numpy [\d.]+ instead of 1.0: install the same"):
        ray_tasks._do(work, jobs(["a"])[0], driver)


def test_without_the_package_the_engine_says_what_to_install(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="--engine ray needs the group cluster: uv pip install --group cluster"):
        run(work, jobs(["a"]), Engine(EngineName.ray))
