"""Tiles of the data set's images: INT8 exports are calibrated on train, and every export is compared on val."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from stages.common.errors import UserError
from stages.data.images import read_image
from stages.data.tables import IMAGES, read_dataset, read_table
from stages.student.config import ViewParams
from stages.student.tiling import tiles_of, to_square

IMAGES_USED = 32
TILES_PER_IMAGE = 4


def sample_tiles(tables: Path, split: str, view: ViewParams) -> Iterator[np.ndarray]:
    """(S, S, 3) float32 RGB, 0 to 255, as the network gets them: spread evenly over the split's images, sorted by id,
    and over each image; always the same. With view.scale `stretch` each image is one tile. Raises UserError when the
    split has no image."""
    source = read_dataset(tables / "dataset.json")
    rows = read_table(tables / split / "images.parquet", IMAGES).sort_by("image_id").to_pylist()
    if not rows:
        raise UserError(f"{tables / split}: no image to compare the export on")
    for row in spread(rows, IMAGES_USED):
        image = read_image(source, row)
        if view.scale == "stretch":
            yield to_square(image, view.size_px)
        else:
            corners, cut = tiles_of(image, view.size_px)
            yield from (cut(corner).astype(np.float32) for corner in spread(corners, TILES_PER_IMAGE))


def stacks(tiles: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Arrays (count, S, S, 3) of `tiles`; the last one may be shorter."""
    tiles = iter(tiles)
    while stack := list(islice(tiles, count)):
        yield np.stack(stack)


def spread(items: list, count: int) -> list:
    """At most `count` of `items`: the middle ones of equal shares."""
    count = min(count, len(items))
    return [items[(2 * index + 1) * len(items) // (2 * count)] for index in range(count)]
