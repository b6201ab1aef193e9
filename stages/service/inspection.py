"""Upload to answer, on threads: how many are at work, how large they may be, and how long each may take."""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from stages.common.errors import lacks_memory
from stages.data.images import rgb_of
from stages.data.tables import encode_label_map
from stages.formats.csv_parquet import row_of
from stages.formats.inputs import Source
from stages.formats.measured_defects import Record, record_of
from stages.formats.overlay_jpeg import overlay
from stages.runtime.network import Network

UPLOAD = Source(Path(), "", "")
"""An upload has no name."""

AT_ONCE = 2
"""Images decoded, measured or encoded at once: one of them while another is in the network."""


class Answer(StrEnum):
    """What a request gets: JSON, or what `predict` writes as `masks` (PNG) or `overlays` (JPEG)."""

    json = "json"
    mask = "mask"
    overlay = "overlay"


MEDIA_TYPES = {Answer.json: "application/json", Answer.mask: "image/png", Answer.overlay: "image/jpeg"}


@dataclass(frozen=True)
class Limits:
    """Of one upload: `upload_bytes`, `pixels` (by its header), and `seconds` from its first byte to the answer;
    `waiting`: uploads at once, those at work included."""

    upload_bytes: int
    pixels: int
    seconds: float
    waiting: int


class Busy(Exception):
    """As many uploads as may wait are waiting."""


Inspected = tuple[bytes, list[str]]
"""The bytes of the answer, and the class name of each defect."""


class Inspector:
    """The network as a function of uploads, for many callers at once.

    The network runs on a thread of its own, one image after another: it uses all cores already, and not every runtime
    allows two calls at once. Raises whatever the network raises on a black tile, so that a model that cannot run fails
    at the start and not at the first request.
    """

    def __init__(self, network: Network, limits: Limits) -> None:
        self.network, self.limits = network, limits
        self._places = threading.BoundedSemaphore(limits.waiting)
        self._workers = ThreadPoolExecutor(AT_ONCE, "inspect")
        self._network_thread = ThreadPoolExecutor(1, "network")
        size = network.view.size_px
        self._network_thread.submit(network.run, np.zeros((1, size, size, 3), np.float32)).result()

    def take_place(self) -> Callable[[], None]:
        """A place among the waiting uploads; the function returned gives it back. Raises Busy where there is none."""
        if not self._places.acquire(blocking=False):
            raise Busy
        return self._places.release

    def submit(self, data: bytes, kind: Answer, mm_per_px: float | None, deadline: float) -> Future[Inspected]:
        """Answer an image file's bytes. `deadline`: of `time.monotonic`; work beyond it stops at the next batch of
        tiles or the next defect and raises TimeoutError. Other results of the future: BadImage, MemoryError."""
        return self._workers.submit(self._inspect, data, kind, mm_per_px, deadline)

    def close(self) -> None:
        """Finish what is at work, and drop what waits."""
        for pool in (self._workers, self._network_thread):
            pool.shutdown(cancel_futures=True)

    def _inspect(self, data: bytes, kind: Answer, mm_per_px: float | None, deadline: float) -> Inspected:
        def in_time() -> None:
            if time.monotonic() > deadline:
                raise TimeoutError

        def on_thread(tiles: np.ndarray) -> np.ndarray:
            in_time()
            return self.network.run(tiles)

        def run(tiles: np.ndarray) -> np.ndarray:
            return self._network_thread.submit(on_thread, tiles).result()

        try:
            image = rgb_of(data, self.network.white_level, self.limits.pixels)
            network = replace(self.network, run=run)
            record = record_of(network, UPLOAD, hashlib.sha256(data).hexdigest(), image, in_time)
            makers = {
                Answer.json: lambda: as_json(record, self.network.names, mm_per_px),
                Answer.mask: lambda: encode_label_map(record.labels()),
                Answer.overlay: lambda: overlay(image, record),
            }
            return makers[kind](), [self.network.names[defect.class_id] for defect in record.defects]
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            raise MemoryError from None  # NumPy's and PyTorch's errors are of other types


def as_json(record: Record, names: list[str], mm_per_px: float | None) -> bytes:
    """The columns of the format `table`, the box as one list, the mask as COCO's compressed RLE: docs/service.md."""
    defects = []
    for defect in record.defects:
        row = row_of(record, defect, names, mm_per_px)
        for column in ("file", "x1", "y1", "x2", "y2"):
            del row[column]
        mask = {"size": list(record.size_hw), "counts": defect.rle}
        defects.append({"box_xyxy": list(defect.box_xyxy), **row, "holes": defect.holes, "rle": mask})
    height, width = record.size_hw
    about = {"model": record.model, "sha256": record.sha256, "width": width, "height": height}
    return (json.dumps(about | {"defects": defects}, ensure_ascii=False) + "\n").encode()
