"""The teacher's answers for many images, in order: cached ones from the store, the others from the network."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from stages.common.errors import cancelling
from stages.data.boxes import Box, corners
from stages.data.images import ImageError, read_image
from stages.data.tables import Dataset
from stages.teacher.answer_store import Store
from stages.teacher.config import RasterizeParams
from stages.teacher.promptable import Teacher
from stages.teacher.prompting import Chunks, prompted

READ_AHEAD = 4
"""Images that are read and decoded in advance, each in a thread of its own."""

SMALL_INPUT_PX = 256
"""A teacher with an input side of at most this runs on one CPU core per image, and other cores process other images.
Splitting such small operations among cores costs more than it gains, and the bytes would depend on their number."""

MAX_IMAGES_AT_ONCE = 8
"""Most images that are prompted in parallel: with more, threads wait for Python's global lock."""

Answer = list[dict] | ImageError
"""Five candidates per box, or the reason why the image cannot be read."""


class Answers:
    """Answers of `teacher`, cached in `store`, for images of `source`.

    With a small teacher, PyTorch's number of threads is set to one for the whole process.
    """

    def __init__(self, teacher: Teacher, store: Store, source: Dataset, params: RasterizeParams) -> None:
        self.teacher, self.store, self.source, self.params = teacher, store, source, params
        self.chunks = Chunks(params.batch_size)
        small = teacher.frame.side_px <= SMALL_INPUT_PX
        if small:
            torch.set_num_threads(1)
        # one at a time on a GPU, or where a single image keeps all cores busy
        parallel = small and teacher.device.type == "cpu"
        self.at_once = min(os.cpu_count() or 1, MAX_IMAGES_AT_ONCE) if parallel else 1

    def of(self, images: Sequence[dict], boxes: Mapping[str, Sequence[dict]]) -> Iterator[tuple[dict, Answer]]:
        """Each row of the images table, in order, with its answer: an empty list for an image without boxes.

        `boxes`: image id -> its rows of the boxes table. Each image is prompted alone, so no answer depends on how
        many are processed at once.
        """
        if self.at_once == 1:  # threads read, this one prompts
            begin, threads = self._read, ThreadPoolExecutor(READ_AHEAD)
        else:
            threads = ThreadPoolExecutor(self.at_once, initializer=torch.set_num_threads, initargs=(1,))
            begin = self._answered
        rows = [(image, boxes.get(image["image_id"], [])) for image in images]
        ahead = max(READ_AHEAD, self.at_once)
        with cancelling(threads):
            waiting = [threads.submit(begin, *one) for one in rows[:ahead]]
            for position, (image, _) in enumerate(rows):
                answer = waiting.pop(0).result()
                waiting += [threads.submit(begin, *later) for later in rows[position + ahead :][:1]]
                yield image, answer()

    def _answered(self, image: dict, rows: Sequence[dict]) -> Callable[[], Answer]:
        answer = self._read(image, rows)()
        return lambda: answer

    def _read(self, image: dict, rows: Sequence[dict]) -> Callable[[], Answer]:
        """Do all that needs no network. Returns a function that gives the answer, by the network where it is needed."""
        boxes_xyxy = [corners(row) for row in rows]
        path = self.store.path(image["sha256"], boxes_xyxy, self.source.white_level)
        cached = self.store.get(path) if rows else []
        if cached is not None:
            return lambda: cached
        try:
            rgb = read_image(self.source, image)
        except ImageError as error:
            failed = error
            return lambda: failed
        return partial(self._prompt, rgb, boxes_xyxy, path)

    def _prompt(self, rgb: np.ndarray, boxes_xyxy: Sequence[Box], path: Path) -> list[dict]:
        found = prompted(self.teacher, rgb, boxes_xyxy, self.params, self.chunks)
        self.store.put(path, found)
        return found
