"""The teacher's answers, cached on disk: no image is prompted twice for the same answer.

One file per image, in 256 folders named by the first two hex digits of its key. The key covers all that the answer
depends on: the image's bytes and white level, its boxes in order, the teacher's weights, how it is prompted, the code
and libraries that compute the answer, and the GPU model. The choice of a candidate, clipping and the overlap rule are
applied later, so changing them needs no network; neither does renaming an image, moving it to another split, or
correcting the class of a box. The number of CPU threads may change last bits, but is not part of the key.
"""

import json
import sys
import zlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from stages.common.workdir import code_fingerprint, files_fingerprint, fingerprint, read_cached, write_cached
from stages.compute import device
from stages.data import boxes, decoding, images
from stages.data.boxes import Box
from stages.masks import rle
from stages.teacher import candidates, evidence, hygiene, image_encoders, promptable, prompting, refinement, windows
from stages.teacher.config import RasterizeParams
from stages.teacher.promptable import Teacher

CODE = (
    boxes,
    candidates,
    decoding,
    device,
    evidence,
    hygiene,
    image_encoders,
    images,
    promptable,
    prompting,
    refinement,
    rle,
    windows,
)
"""Modules that an answer depends on, in addition to that of the teacher's class."""

LIBRARIES = ("numpy", "pillow", "pycocotools", "scipy", "torch")
"""Distributions that an answer depends on, in addition to `Teacher.libraries`."""

PROMPTING = set(RasterizeParams.model_fields) - {"candidate", "clip_margin", "shard_size"}
"""The keys of section `rasterize` that an answer depends on. The batch size changes last bits."""


class Store:
    """Answers of `teacher`, stored below `folder`. `weights`: folder of its weights; `params`: how it is prompted."""

    def __init__(self, folder: Path, teacher: Teacher, weights: Path, params: RasterizeParams) -> None:
        self.folder = folder
        self.identity = fingerprint(
            {
                "weights": files_fingerprint([weights]),
                "params": params.model_dump(mode="json", include=PROMPTING),
                "code": code_fingerprint([*CODE, sys.modules[type(teacher).__module__]]),
                "libraries": {name: version(name) for name in (*LIBRARIES, *teacher.libraries)},
                "device": device.model_of(teacher.device),
            }
        )

    def path(self, sha256: str, boxes_xyxy: Sequence[Box], white_level: float | None = None) -> Path:
        """The file of the answer for these boxes of the image whose bytes have this SHA-256."""
        key = fingerprint([self.identity, sha256, [list(box) for box in boxes_xyxy], white_level])
        return self.folder / key[:2] / key[2:]

    def get(self, path: Path) -> list[dict] | None:
        """The answer at `path`, as the rows that `prompted` makes; None where there is none, or only a damaged one.

        Updates the file's time, by which `stages.cache` knows when it was last used.
        """
        payload = read_cached(path)
        if payload is None:
            return None
        path.touch()
        try:
            return self._rows(payload)
        except (zlib.error, ValueError, KeyError, TypeError, AttributeError):
            print(f"{path}: no answer, computed again", file=sys.stderr)
            return None

    @staticmethod
    def _rows(payload: bytes) -> list[dict]:
        return [row | {"rle": row["rle"].encode("ascii")} for row in json.loads(zlib.decompress(payload))]

    def put(self, path: Path, rows: Sequence[dict]) -> None:
        """Write `rows` as `prompted` makes them. JSON restores every float to the bit."""
        plain = [row | {"rle": row["rle"].decode("ascii")} for row in rows]
        write_cached(path, zlib.compress(json.dumps(plain).encode(), level=1))
