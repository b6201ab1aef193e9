"""Ingest from a real S3 server on this machine (moto, Apache-2.0), also when it is killed in the middle."""

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import fsspec
import pytest

from stages.common.errors import UserError
from stages.data.images import read_image
from stages.data.remote import RemotePath, data_root, list_objects
from stages.data.tables import IMAGES, read_dataset, read_table
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

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(monkeypatch):
    ours = Server()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ours.port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    ours.start()
    yield ours
    ours.kill()
    RemotePath.listed = None


def test_s3_gives_the_tables_of_a_disk_and_a_killed_server_one_line(server, tmp_path, monkeypatch):
    root = tmp_path / "set"
    write_data_set(root, {"train": 5, "val": 2, "test": 1})
    (root / "labels/train/p00001.txt").write_text("")
    wanted = ingested(tmp_path / "local", params_of(tmp_path, str(root)))
    with pytest.raises(UserError, match=f"^{URL}: the storage refuses or does not answer; nothing is lost"):
        list_objects(data_root(URL))

    def upload() -> None:
        storage = fsspec.filesystem("s3")
        storage.mkdir("tiles", region_name="eu-central-1")
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
