"""Requests per second of the service, against `predict`; and the time that further fields of an answer take."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np
import uvicorn
from fastapi import FastAPI

from benchmarks.timing import in_turns
from stages.formats import measured_defects
from stages.formats.measured_defects import defects_of
from stages.formats.measurements import Size
from stages.runtime.network import Network
from stages.service.application import application
from stages.service.inspection import Limits
from stages.student.decision import ARGMAX, Decision

AT_ONCE, REQUESTS = 16, 4
"""Requests at a time; requests per image."""
LIMITS = Limits(upload_bytes=10**8, pixels=10**8, seconds=600.0, waiting=2 * AT_ONCE)
NOT_MEASURED = Size(length=None, mean_width=None, max_width=None, diameter=None, elongation=1.0, orientation_deg=None)


def requests_a_second(network: Network, jpegs: list[bytes]) -> float:
    """Over HTTP, masks as answers, AT_ONCE at a time, every image REQUESTS times."""
    with served(application(network, LIMITS, ["*"])) as port, ThreadPoolExecutor(AT_ONCE) as pool:

        def ask(jpeg: bytes) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("POST", "/predict?answer=mask", jpeg)
            answer = connection.getresponse()
            assert answer.status == 200 and answer.read(), answer.status
            connection.close()

        list(pool.map(ask, jpegs))
        began = time.perf_counter()
        list(pool.map(ask, jpegs * REQUESTS))
        return len(jpegs) * REQUESTS / (time.perf_counter() - began)


@contextmanager
def served(app: FastAPI) -> Iterator[int]:
    """The port of a server of `app` on a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def field_rows(network: Network, image: np.ndarray, rounds: int) -> list[dict]:
    """Milliseconds per image, without the network, of the sizes in an answer, and of ways to decide labels."""
    logits: dict[bytes, np.ndarray] = {}

    def known(tiles: np.ndarray) -> np.ndarray:
        key = tiles.tobytes()
        if key not in logits:
            logits[key] = network.run(tiles)
        return logits[key].copy()

    still = replace(network, run=known, decision=ARGMAX)
    labels, confidence = still.predict(image)
    thresholds = Decision(thresholds=[0.5] * len(network.names), least_area_px=[20] * len(network.names))
    warm = thresholds.model_copy(update={"temperature": 1.5})

    def without() -> object:
        with mock.patch.object(measured_defects, "size_of", lambda mask: NOT_MEASURED):
            return defects_of(labels, confidence)

    def decided(decision: Decision) -> Callable[[], object]:
        return lambda: replace(still, decision=decision).predict(image)

    calls = {
        "defects, without sizes": without,
        "defects, with sizes": lambda: defects_of(labels, confidence),
        "labels by argmax": decided(ARGMAX),
        "labels by thresholds and least areas": decided(thresholds),
        "the same with a temperature": decided(warm),
    }
    count = len(defects_of(labels, confidence))
    times = in_turns(calls, rounds)
    return [
        {"name": name, "defects": count, "ms": round(1000 * taken.wall_s, 2), "cpu_ms": round(1000 * taken.cpu_s, 2)}
        for name, taken in times.items()
    ]
