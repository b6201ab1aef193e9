"""The service over real HTTP: the bytes of `predict` under load, one line for what is wrong, and its limits."""

import base64
import hashlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import parquet
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks import service
from stages import predict, serve
from stages.common.errors import UserError
from stages.data.tables import decode_label_map
from stages.formats.writers import Format
from stages.masks import rle
from stages.runtime.network import Network, open_network
from stages.service import exchange
from stages.service.application import application
from stages.service.inspection import Limits
from stages.student.config import ViewParams
from stages.student.decision import ARGMAX
from stages.student.segmenter import save_student
from stages.student.tiling import TILES_AT_ONCE
from tests.support.browser import requested
from tests.support.tiny_student import decided_student, image_of, tiny_export
from tests.support.wall import behind_wall, not_in

ROOT = Path(__file__).parent.parent
LIMITS = Limits(upload_bytes=200_000, pixels=40_000, seconds=30.0, waiting=32)
SIZES_HW = {"a.png": (57, 70), "b.jpg": (40, 56), "c.png": (56, 31), "d.bmp": (30, 45)}
MM_PER_PX = 0.25


def served(network: Network, limits: Limits = LIMITS) -> AbstractContextManager[int]:
    """The port of a server on a thread."""
    return service.served(application(network, limits, serve.HOSTS))


def ask(port: int, path: str, body=None, headers=(), chunked=False, get="GET") -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    method = get if body is None else "POST"
    connection.request(method, path, body, dict(headers), encode_chunked=chunked)
    answer = connection.getresponse()
    found = answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return found


def metrics(port: int) -> dict[tuple, float]:
    text = ask(port, "/metrics")[1].decode()
    families = text_string_to_metric_families(text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A student, images, and what `predict` makes of them."""
    root = tmp_path_factory.mktemp("serve")
    save_student(decided_student("native"), root / "model/0")
    (root / "images").mkdir()
    for seed, (name, size_hw) in enumerate(SIZES_HW.items()):
        Image.fromarray(image_of(size_hw, seed)).save(root / "images" / name)
    formats = [Format.masks, Format.overlays, Format.table]
    inputs = [str(root / "images")]
    predict.main(inputs, root / "model", root / "out", formats, "cpu", mm_per_px=str(MM_PER_PX))
    return root


@pytest.fixture(scope="module")
def port(work) -> Iterator[int]:
    """Of a server whose network fails when it is called twice at once."""
    network, calls = open_network(work / "model", "cpu"), []

    def alone(tiles):
        calls.append(tiles)
        assert len(calls) == 1
        try:
            return network.run(tiles)
        finally:
            calls.pop()

    with served(replace(network, run=alone)) as found:
        yield found


def test_two_hundred_requests_sixteen_at_a_time_get_the_bytes_of_predict(work, port):
    before = metrics(port).get(("boxes2pixels_requests_total", "/predict", "200"), 0)
    bodies = {name: (work / "images" / name).read_bytes() for name in SIZES_HW}
    wanted = {
        (name, answer): (work / "out" / folder / name).with_suffix(suffix).read_bytes()
        for name in SIZES_HW
        for answer, folder, suffix in (("mask", "masks", ".png"), ("overlay", "overlays", ".jpg"))
    }
    todo = [list(wanted)[index % len(wanted)] for index in range(200)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda one: ask(port, f"/predict?answer={one[1]}", bodies[one[0]]), todo))
    for one, (status, body, headers) in zip(todo, found, strict=True):
        assert (status, body) == (200, wanted[one])
        assert headers["content-type"] == {"mask": "image/png", "overlay": "image/jpeg"}[one[1]]
    counted = metrics(port)
    assert counted["boxes2pixels_requests_total", "/predict", "200"] == before + 200
    assert counted[("boxes2pixels_uploads",)] == 0


def test_json_holds_the_table_of_predict_and_the_masks(work, port):
    rows = parquet.read_table(work / "out/defects.parquet").to_pylist()
    assert {row["file"] for row in rows} == set(SIZES_HW)
    before = metrics(port)
    for name, size_hw in SIZES_HW.items():
        body = (work / "images" / name).read_bytes()
        found = json.loads(ask(port, f"/predict?mm_per_px={MM_PER_PX}", body)[1])
        record = json.loads((work / "out/records" / name).with_suffix(".json").read_text())
        assert (found["height"], found["width"]) == size_hw
        assert (found["sha256"], found["model"]) == (record["sha256"], record["model"])
        labels = np.zeros(size_hw, np.uint8)
        own = [{**row, "file": None} for row in rows if row["file"] == name]
        for defect, row in zip(found["defects"], own, strict=True):
            box = [row.pop(corner) for corner in ("x1", "y1", "x2", "y2")]
            assert defect.pop("box_xyxy") == box
            mask = rle.decode(defect["rle"]["counts"].encode(), tuple(defect.pop("rle")["size"]))
            labels[mask > 0] = ["dirt", "damage"].index(row["class"]) + 1
            assert mask.sum() == row["area_px"]
            assert defect.pop("holes") >= 0
            assert {**defect, "file": None} == row
        np.testing.assert_array_equal(
            labels, decode_label_map((work / "out/masks" / name).with_suffix(".png").read_bytes())
        )
    for name, count in Counter(row["class"] for row in rows).items():
        key = "boxes2pixels_defects_total", name
        assert metrics(port)[key] == before.get(key, 0) + count


def png(size_wh: tuple[int, int]) -> bytes:
    Image.new("RGB", size_wh).save(buffer := io.BytesIO(), format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("path", "body", "status", "line"),
    [
        ("/predict", b"", 400, "file is empty"),
        ("/predict", b"hello", 400, "not an image that can be identified (BMP, JPEG, PNG, TIFF, WEBP)"),
        ("/predict", png((80, 90))[:-30], 400, "corrupt image: .*"),
        ("/predict", png((9, 90)), 400, "image size 9 x 90 <10 pixels"),
        ("/predict", png((400, 101)), 413, "400 x 101 pixels, allowed are 40,000 in all"),
        ("/predict", b"x" * 200_000, 400, "not an image that can be identified (BMP, JPEG, PNG, TIFF, WEBP)"),
        ("/predict", b"x" * 200_001, 413, "upload above 200,000 bytes"),
        ("/predict?answer=tiff", b"", 422, "answer = tiff: Input should be 'json', 'mask' or 'overlay'"),
        ("/predict?answer=a%0Ab", b"", 422, "answer = a b: Input should be 'json', 'mask' or 'overlay'"),
        ("/predict?mm_per_px=0", b"", 422, "mm_per_px = 0: Input should be greater than 0"),
        ("/predict?mm_per_px=inf", b"", 422, "mm_per_px = inf: Input should be a finite number"),
        ("/predict?mm_per_px=1e200", b"", 422, "mm_per_px = 1e200: Input should be less than or equal to 1000000"),
        ("/predict?mm_per_pixel=0.1", b"", 422, "mm_per_pixel = 0.1: Extra inputs are not permitted"),
        ("/predict", None, 405, "Method Not Allowed"),
        ("/elsewhere", None, 404, "Not Found"),
        ("/docs", None, 404, "Not Found"),
        ("/redoc", None, 404, "Not Found"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(port, path, body, status, line):
    found, text, headers = ask(port, path, body)
    assert (found, headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert re.fullmatch(line.replace("(", r"\(").replace(")", r"\)") + "\n", text.decode()), text


def test_a_client_that_is_still_sending_hears_that_it_is_too_much(port):
    """8 MB, where 0.2 are allowed: with its length in the head, and in chunks without. The connection is to be closed
    after the answer, which with unread bytes would reset it.
    """
    close = ("Connection", "close")
    assert ask(port, "/predict", b"x" * 8_000_000, [close])[0] == 413
    chunked = [close, ("Transfer-Encoding", "chunked")]
    status, text, _ = ask(port, "/predict", iter([b"x" * 1_000_000] * 8), chunked, True)
    assert (status, text) == (413, b"upload above 200,000 bytes\n")


def test_an_upload_as_a_form_is_told_how(port):
    status, text, _ = ask(port, "/predict", b"--x", [("Content-Type", "multipart/form-data; boundary=x")])
    assert (status, text.count(b"\n")) == (415, 1) and b"--data-binary" in text


def test_only_names_of_this_machine_are_answered_and_strangers_add_no_metric(port):
    for own in ("localhost", "127.0.0.1:8000", "[::1]:8000"):
        assert ask(port, "/healthz", headers=[("Host", own)])[0] == 200
    assert ask(port, "/healthz", headers=[("Host", "attacker.example")])[0] == 400
    assert all("*" not in serve.answered(host) for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"))
    assert serve.answered("0.0.0.0") == serve.answered("::") == serve.answered("blade.example") == ("*",)
    with pytest.raises(UserError, match="--host is empty"):
        serve.answered("")
    ask(port, "/some/other/path")
    assert {key[1] for key in metrics(port) if key[0] == "boxes2pixels_requests_total"} <= {
        "/predict",
        "/healthz",
        "/metrics",
        "other",
        "/",
    }


def test_health_names_the_model(work, port):
    found = json.loads(ask(port, "/healthz")[1])
    record = json.loads((work / "out/records/a.json").read_text())
    assert found == {"status": "ok", "model": record["model"], "classes": ["dirt", "damage"]}


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics"])
def test_head_is_answered_where_get_is(port, path):
    status, text, headers = ask(port, path, get="HEAD")
    assert (status, text) == (200, b"") and int(headers["content-length"]) > 0
    assert "head" not in json.loads(ask(port, "/openapi.json")[1])["paths"][path]


def test_the_white_level_of_the_model_is_that_of_the_uploads():
    """Levels up to 4095 of 65535: a network that finds what is white finds nothing without it."""

    def white(tiles: np.ndarray) -> np.ndarray:
        return np.stack([200 - tiles[..., 0], tiles[..., 0] - 200], axis=1)

    image = np.zeros((60, 70), np.uint16)
    image[5:7, 10:13] = 4095
    Image.fromarray(image).save(buffer := io.BytesIO(), format="PNG")
    for level, areas in ((4095.0, [6]), (None, [])):
        network = Network(["dirt"], ViewParams(scale="native", size_px=56), level, ARGMAX, "white", white)
        with served(network) as port:
            found = json.loads(ask(port, "/predict", buffer.getvalue())[1])
        assert [defect["area_px"] for defect in found["defects"]] == areas


def test_the_page_may_load_nothing_but_its_own_style_and_script(port):
    _, page, headers = ask(port, "/")
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    own = {"connect-src": "'self'", "img-src": "blob: data:"}
    for tag in ("style", "script"):
        (text,) = re.findall(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), page, re.DOTALL)
        own[f"{tag}-src"] = f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
    nothing = ("default-src", "base-uri", "form-action", "frame-ancestors")
    assert policy == own | dict.fromkeys(nothing, "'none'")


class Gate:
    """A network that waits in its second call and later ones until it is opened."""

    def __init__(self) -> None:
        self.calls, self.opened = 0, threading.Event()

    def network(self) -> Network:
        return Network(["dirt"], ViewParams(scale="native", size_px=56), None, ARGMAX, "gate", self.run)

    def run(self, tiles: np.ndarray) -> np.ndarray:
        self.calls += 1
        assert self.calls == 1 or self.opened.wait(20)
        return np.zeros((len(tiles), 2, 56, 56), np.float32)


def test_one_upload_more_than_may_wait_is_refused_and_places_are_given_back():
    gate = Gate()
    with served(gate.network(), replace(LIMITS, waiting=3)) as port, ThreadPoolExecutor(3) as pool:
        first = [pool.submit(ask, port, "/predict", png((56, 56))) for _ in range(3)]
        while metrics(port)[("boxes2pixels_uploads",)] < 3:
            time.sleep(0.01)
        status, text, headers = ask(port, "/predict", png((56, 56)))
        assert (status, text) == (503, b"3 uploads are waiting already; try again\n")
        assert headers["retry-after"] == "1"
        assert ask(port, "/healthz")[0] == 200
        gate.opened.set()
        assert [one.result()[0] for one in first] == [200] * 3
        assert ask(port, "/predict", png((56, 56)))[0] == 200


def test_what_takes_too_long_is_said_and_keeps_its_place_until_it_ends():
    gate = Gate()
    with served(gate.network(), replace(LIMITS, waiting=1, seconds=0.3)) as port:
        assert ask(port, "/predict", png((56, 56)))[:2] == (504, b"not answered within 0.3 s\n")
        assert ask(port, "/predict", png((56, 56)))[0] == 503
        gate.opened.set()
        while metrics(port)[("boxes2pixels_uploads",)] > 0:
            time.sleep(0.01)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
            while metrics(port)[("boxes2pixels_uploads",)] < 1:
                time.sleep(0.01)
            began = time.monotonic()
            assert slow.recv(12) == b"HTTP/1.1 408"
            assert time.monotonic() - began < exchange.DRAINED_S, "it waits for no rest"


def test_work_that_is_late_stops_at_the_next_tiles():
    """An image of more tiles than are run at once: of its batches only the first is run."""
    gate = Gate()
    with served(gate.network(), replace(LIMITS, waiting=1, seconds=0.3)) as port:
        assert ask(port, "/predict", png((56 * TILES_AT_ONCE, 56)))[0] == 504
        gate.opened.set()
        while metrics(port)[("boxes2pixels_uploads",)] > 0:
            time.sleep(0.01)
    assert gate.calls == 2, "the black tile at the start, and one batch"


@pytest.mark.parametrize(("most", "seconds", "sent"), [(1 << 26, 0.2, 0), (100_000, 30.0, 300_000)])
def test_a_refused_upload_is_read_for_a_while_and_not_for_ever(monkeypatch, most, seconds, sent):
    monkeypatch.setattr(exchange, "DRAINED_BYTES", most)
    monkeypatch.setattr(exchange, "DRAINED_S", seconds)
    with served(Gate().network()) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n" + b"x" * sent)
        assert slow.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize("torch_says", [False, True])
def test_too_little_memory_is_told_whichever_library_has_too_little(torch_says):
    def greedy(tiles: np.ndarray) -> np.ndarray:
        if tiles.any() and torch_says:
            torch.empty(1 << 50)
        return np.zeros((len(tiles), 2, 56, 56 << 40 if tiles.any() else 56), np.float32)

    Image.fromarray(image_of((57, 70))).save(image := io.BytesIO(), format="PNG")
    with served(replace(Gate().network(), run=greedy)) as port:
        assert ask(port, "/predict", image.getvalue())[:2] == (503, b"out of memory; try a smaller image\n")
        assert metrics(port)[("boxes2pixels_uploads",)] == 0


def test_a_network_that_fails_is_a_counted_500_and_nothing_of_a_closed_service_stays():
    def failing(tiles: np.ndarray) -> np.ndarray:
        assert not tiles.any(), "broken"
        return np.zeros((len(tiles), 2, 56, 56), np.float32)

    image, threads = io.BytesIO(), set(threading.enumerate())
    Image.fromarray(image_of((57, 70))).save(image, format="PNG")
    with served(replace(Gate().network(), run=failing)) as port:
        assert ask(port, "/predict", image.getvalue())[0] == 500
        counted = metrics(port)
        assert {one.name.split("_")[0] for one in set(threading.enumerate()) - threads} >= {"network", "inspect"}
    assert counted["boxes2pixels_requests_total", "/predict", "500"] == 1
    assert counted["boxes2pixels_request_seconds_sum", "/predict"] > 0
    assert not set(threading.enumerate()) - threads


def test_the_command_runs_without_pytorch_listens_on_loopback_and_ends_on_sigterm(work, tmp_path):
    """In a process where nothing can be imported but what `edge` and `serve` install, as in the container."""
    tiny_export(tmp_path / "model")
    blocked = not_in("edge", "serve")
    assert {"torch", "openvino", "dvc", "selenium"} <= set(blocked)
    words = ["--model", str(tmp_path / "model"), "--port", "0"]
    started = subprocess.Popen(
        [*behind_wall("stages.serve", blocked), *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    address = next((found for line in started.stderr if (found := re.search(r"http://([\d.]+):(\d+)", line))), None)
    assert address and address[1] == "127.0.0.1"
    image = work / "images/a.png"
    predict.main([str(image)], tmp_path / "model", tmp_path / "out", [Format.masks], "cpu")
    mask = ask(int(address[2]), "/predict?answer=mask", image.read_bytes())[1]
    assert mask == (tmp_path / "out/masks/a.png").read_bytes()
    assert decode_label_map(mask).any()
    started.send_signal(signal.SIGTERM)
    assert started.stderr.read().splitlines()[-1].startswith("stopped by SIGTERM")
    assert started.wait() == 143


def test_without_its_packages_it_says_which_group_to_install(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match="needs the group serve, `uv pip install --group serve`: "):
        serve.main(work / "model")


def test_an_image_chosen_on_the_page_is_shown_with_its_defects(work, port, browser):
    wait, said = WebDriverWait(browser, 20), lambda: browser.find_element(By.ID, "said").text
    requested(browser)
    browser.get(f"http://127.0.0.1:{port}/")
    browser.get_log("browser")
    field = browser.find_element(By.ID, "file")
    field.send_keys(str(work / "images/a.png"))
    count = len(json.loads((work / "out/records/a.json").read_text())["defects"])
    wait.until(lambda _: said() == f"a.png: {count} defects")
    shape = "const i = document.getElementById('overlay'); return [i.complete, i.naturalHeight, i.naturalWidth]"
    wait.until(lambda _: browser.execute_script(shape) == [True, *SIZES_HW["a.png"]])
    assert len(browser.find_elements(By.CSS_SELECTOR, "tbody tr")) == count
    assert "mm" not in browser.find_element(By.TAG_NAME, "thead").text
    scale = browser.find_element(By.ID, "scale")
    scale.send_keys("0.5\t")
    wait.until(lambda _: "area_mm2" in browser.find_element(By.TAG_NAME, "thead").text)
    assert {url.partition("?")[0] for url in requested(browser) if url.startswith("http")} == {
        f"http://127.0.0.1:{port}/",
        f"http://127.0.0.1:{port}/predict",
    }
    assert browser.get_log("browser") == []
    (work / "no image.png").write_bytes(b"hello")
    field.send_keys(str(work / "no image.png"))
    wait.until(lambda _: said().startswith("no image.png: not an image"))
    assert not browser.find_element(By.ID, "result").is_displayed()
