"""What SAM said of an image's boxes, kept for the next time: no image is prompted twice for the same answer.

One file an image, in 256 folders by the first letters of its key. The key is made of all that the answer depends
on: the image's bytes, its boxes in order, the teacher's weights, how it is prompted, the code in between and the
libraries below it. Which candidate is chosen, how it is clipped and painted and who wins an overlap come later, so
changing them costs no network; nor do images that were renamed or went to another split, or boxes whose class was
corrected. On a CPU the number of threads may move a last bit: it is no part of the key.
"""

import json
import zlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from stages.compute.workdir import code_fingerprint, files_fingerprint, fingerprint, keep, kept
from stages.data import images as photos
from stages.masks import rle
from stages.teacher import candidates, chunks, prompting, sam
from stages.teacher import windows as views
from stages.teacher.config import RasterizeParams

CODE = (candidates, chunks, photos, prompting, rle, sam, views)
LIBRARIES = ("numpy", "pillow", "pycocotools", "segment-anything", "torch", "torchvision")
PROMPTING = {"view", "context", "min_view_px", "batch_size"}
"""Of section `rasterize`: what reaches the network. The batch size does, in the last bits."""


class Store:
    """Answers of one teacher, prompted in one way, on one kind of device, below `folder`."""

    def __init__(self, folder: Path, weights: Path, params: RasterizeParams, device: str) -> None:
        self.folder = folder
        self.asked = fingerprint(
            {
                "weights": files_fingerprint([weights]),
                "params": params.model_dump(mode="json", include=PROMPTING),
                "code": code_fingerprint(CODE),
                "libraries": {name: version(name) for name in LIBRARIES},
                "device": device,
            }
        )

    def path(self, sha256: str, boxes_xyxy: Sequence[Sequence[float]]) -> Path:
        """Where the answer lies: `sha256` is that of the image's bytes."""
        key = fingerprint([self.asked, sha256, [list(box) for box in boxes_xyxy]])
        return self.folder / key[:2] / key[2:]

    def get(self, path: Path) -> list[dict] | None:
        """The answer at `path`, marked as used; None where there is none, or only a damaged one."""
        payload = kept(path)
        if payload is None:
            return None
        path.touch()
        return [row | {"rle": row["rle"].encode("ascii")} for row in json.loads(zlib.decompress(payload))]

    def put(self, path: Path, rows: Sequence[dict]) -> None:
        """Keep `rows`, as `prompted` makes them. JSON gives back every float to the bit."""
        plain = [row | {"rle": row["rle"].decode("ascii")} for row in rows]
        keep(path, zlib.compress(json.dumps(plain).encode(), level=1))
