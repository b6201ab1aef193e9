"""Data and shards on a real S3 server on this machine (moto, Apache-2.0), also when it is killed in the middle."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from importlib.util import find_spec

import fsspec
import pytest

from stages.common.errors import UserError
from stages.common.progress import progress
from stages.common.workdir import files_fingerprint
from stages.data.images import read_image
from stages.data.remote import RemotePath, data_root, list_objects
from stages.data.tables import IMAGES, read_dataset, read_table
from stages.engine import ray_tasks
from stages.engine.engines import Engine, run_jobs
from stages.engine.shard_jobs import DONE, Done, Job, bring, forget
from stages.engine.shard_store import ShardStore
from tests.support.shard_work import Upper, jobs
from tests.support.tiny_project import write_data_set
from tests.test_manifest import ingested, listed, params_of

pytestmark = pytest.mark.skipif(
    not (find_spec("s3fs") and find_spec("moto")), reason="needs uv pip install --group cluster --group cluster-test"
)
PATIENCE_S = 300
URL = "s3://tiles/lines/set"


class Server:
    """`python -m moto.server`; its objects are in its memory and are gone when it is killed."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def start(self) -> None:
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < until:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the server does not start")

    def make_bucket(self, name: str) -> fsspec.AbstractFileSystem:
        storage = fsspec.filesystem("s3")
        storage.mkdir(name, region_name="eu-central-1")
        return storage

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server():
    """One for all tests: s3fs keeps the address that it has seen first."""
    ours, patch = Server(), pytest.MonkeyPatch()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ours.port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in settings.items():
        patch.setenv(name, value)
    ours.start()
    yield ours
    ours.kill()
    patch.undo()


@pytest.fixture(autouse=True)
def nothing_listed():
    yield
    RemotePath.listed = None


def test_s3_gives_the_tables_of_a_disk_and_a_killed_server_one_line(server, tmp_path, monkeypatch):
    root = tmp_path / "set"
    write_data_set(root, {"train": 5, "val": 2, "test": 1})
    (root / "labels/train/p00001.txt").write_text("")
    wanted = ingested(tmp_path / "local", params_of(tmp_path, str(root)))
    with pytest.raises(UserError, match=f"^{URL}: the storage refuses or does not answer; nothing is lost"):
        list_objects(data_root(URL))

    def upload() -> None:
        storage = server.make_bucket("tiles")
        storage.put(f"{root}/", "tiles/lines/set/", recursive=True)

    upload()
    params = params_of(tmp_path, URL, listed(URL, tmp_path / "m.parquet"))
    read, count = RemotePath.read, iter(range(10**6))

    def read_and_kill(path: RemotePath) -> bytes:
        if next(count) == 6:
            server.kill()
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(RemotePath, "read", read_and_kill)
        with pytest.raises(UserError, match="the storage refuses or does not answer; nothing is lost, run it again"):
            ingested(tmp_path / "remote", params)
    assert not list((tmp_path / "remote").rglob("*.parquet"))
    server.start()
    upload()
    assert ingested(tmp_path / "remote", params) == wanted
    RemotePath.listed = None
    (row, *_) = read_table(tmp_path / "remote/tables/val/images.parquet", IMAGES).to_pylist()
    here, there = (read_dataset(tmp_path / place / "tables/dataset.json") for place in ("local", "remote"))
    assert (read_image(here, row) == read_image(there, row)).all()


def test_a_storage_that_lists_no_marks_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("set/data.yaml", "names: [a]")
    root = data_root(f"zip://set::{tmp_path}/set.zip")
    with pytest.raises(UserError, match=r"set.zip/data.yaml: the storage lists no mark .*ETag.*; use one"):
        list_objects(root)


KILLED = """
import sys
from pathlib import Path
from stages.common.progress import progress
from stages.engine.engines import Engine, run_jobs
from tests.support.shard_work import Upper, jobs
folder, url = Path(sys.argv[1]), sys.argv[2]
with progress((), "test", "images") as bar:
    work = Upper(folder / "staging", folder / "log", model=folder / "model")
    run_jobs(work, jobs(["a"], ["kill"]), Engine(url=url), bar)
"""


def done_by(work: Upper, todo: list[Job], url: str) -> list[Done]:
    with progress((), "test", "images") as bar:
        return run_jobs(work, todo, Engine(url=url), bar)


def machine(folder) -> Upper:
    """What has folders of its own."""
    return Upper(folder / "staging", folder / "log", model=folder / "model")


def test_machines_that_share_no_file_system_finish_each_other_s_shards(server, tmp_path, monkeypatch, capsys):
    url = "s3://shared/shards"
    one, two = (machine(tmp_path / name) for name in ("one", "two"))
    (one.model / "part").mkdir(parents=True)
    (one.model / "part/weights").write_bytes(b"0123")
    with pytest.raises(UserError, match=f"^{url}/models/.*: the storage refuses .*bucket"):
        done_by(one, jobs(["a"]), url)
    storage = server.make_bucket("shared")
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "one"), url]).returncode == -signal.SIGKILL
    assert one.attempts() == {"0": 1, "1": 1, "opened": 1}
    two.log.mkdir(parents=True)
    (two.log / "1-0-0").touch()  # of these machines the other one is killed
    store = ShardStore(RemotePath(url), files_fingerprint([one.model]))
    found = [
        ray_tasks._do(two, job, ray_tasks.environment(), store)
        for job in jobs(["a"], ["kill"])  # as in a worker, which lacks the model
    ]
    ray_tasks._worker.clear()
    assert (two.model / "part/weights").read_bytes() == b"0123"
    assert two.attempts() == {"1": 2, "opened": 1}, "the first shard comes from the other machine"
    shutil.rmtree(two.staging)
    for done in found:
        bring(done, store)  # as in a driver
    assert done_by(two, jobs(["a"], ["kill"]), url) == found and two.attempts()["opened"] == 1

    upload = RemotePath.upload

    def upload_and_kill(path: RemotePath, file) -> None:
        server.kill()
        upload(path, file)

    with monkeypatch.context() as patch:
        patch.setattr(RemotePath, "upload", upload_and_kill)
        with pytest.raises(UserError, match="the storage refuses or does not answer; nothing is lost, run it again"):
            done_by(two, jobs(["a"], ["kill"], ["c"]), url)
    forget([replace(found[0], folder=tmp_path / "aa/bb")], store)
    assert f"finished shards are not removed: {url}/aa/bb: the storage refuses" in capsys.readouterr().err
    server.start()
    storage = server.make_bucket("shared")
    found = done_by(two, jobs(["a"], ["kill"], ["c"]), url)
    assert two.attempts() == {"1": 2, "2": 1, "opened": 2}, (
        "what was finished here goes up again, and is not done again"
    )

    def there() -> list[str]:
        storage.invalidate_cache()
        return [path for path in storage.find("shared/shards") if path.endswith(DONE)]

    assert len(there()) == 3
    forget(found, store)
    assert not there() and not any(done.folder.exists() for done in found)


def test_what_is_damaged_on_the_storage_is_done_again_or_refused(server, tmp_path, capsys):
    url = "s3://damaged/shards"
    one, two = (machine(tmp_path / name) for name in ("one", "two"))
    for work in (one, two):
        work.model.mkdir(parents=True)
    storage = server.make_bucket("damaged")
    (done,) = done_by(one, jobs(["a"]), url)
    place = f"damaged/shards/{done.folder.parent.name}/{done.folder.name}"
    for name, spoilt in ((DONE, b'{"../../x": "0"}'), (DONE, b"[1]"), ("upper.parquet", b"PAR")):
        storage.pipe_file(f"{place}/{name}", spoilt)
        assert done_by(two, jobs(["a"]), url)[0].files == done.files
        assert "damaged" in capsys.readouterr().err
        assert storage.cat_file(f"{place}/upper.parquet") == (done.folder / "upper.parquet").read_bytes()
        shutil.rmtree(two.staging)
    storage.pipe_file(f"{place}/upper.parquet", b"PAR")
    shutil.rmtree(done.folder)
    store = ShardStore(RemotePath(url), files_fingerprint([one.model]))
    with pytest.raises(UserError, match=f"^{url}/.*: damaged or lost; remove it and run it again$"):
        bring(done, store)
    (two.model / "other").touch()
    with pytest.raises(UserError, match=f"^{two.model} on .*: not the model that the driver has; remove it$"):
        store.get_model(two.model)
    with pytest.raises(UserError, match=r"^--shards-url tiles/shards: allowed are URLs"):
        Engine(url="tiles/shards").store()
