"""Binary masks as COCO's compressed run-length code (pycocotools), at the image's native size."""

import numpy as np
from pycocotools import mask as coco

from stages.data.boxes import Window


def encode(mask: np.ndarray, origin_xy: tuple[int, int], size_hw: tuple[int, int]) -> bytes:
    """Code of an image of `size_hw` that is empty but for `mask`, (h, w) bool, its top left pixel at `origin_xy`.

    Time grows with the part, not with the image. Raises ValueError when the part does not fit.
    """
    (left, top), (height, width) = origin_xy, size_hw
    if left < 0 or top < 0 or left + mask.shape[1] > width or top + mask.shape[0] > height:
        raise ValueError(f"a mask of {mask.shape} at {origin_xy} does not fit into {size_hw}")
    columns, rows = np.nonzero(mask.T)  # COCO counts down the columns
    pixels = (columns + left) * height + rows + top
    breaks = np.flatnonzero(np.diff(pixels) != 1)
    starts = pixels[np.concatenate([[0], breaks + 1])] if len(pixels) else pixels
    ends = pixels[np.concatenate([breaks, [-1]])] + 1 if len(pixels) else pixels
    edges = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [height * width]])
    counts = np.diff(edges).tolist()
    if counts[-1] == 0:  # the background after a mask that ends in the last pixel
        counts.pop()
    return coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]


def decode(code: bytes, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of `code`."""
    return coco.decode({"size": list(size_hw), "counts": code}).view(bool)


def area(code: bytes, size_hw: tuple[int, int]) -> int:
    """Pixels of the mask of `code`."""
    return int(coco.area({"size": list(size_hw), "counts": code}))


def decode_part(code: bytes, size_hw: tuple[int, int], part: Window) -> np.ndarray:
    """(h, w) bool: `decode(code, size_hw)` in the window `part` of the image.

    Time and memory grow with the part's width and with the runs, not with the image: hundreds of small boxes of a
    large image are read without decoding the whole image for each.
    """
    height, width = size_hw[0], part.x2 - part.x1
    edges = (np.cumsum(counts_of(code)) - part.x1 * height).clip(0, width * height)
    lengths = np.diff(edges, prepend=0)
    columns = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height)
    return columns[:, part.y1 : part.y2].T


def counts_of(code: bytes) -> np.ndarray:
    """Lengths of the runs down the columns, background first, in int64.

    As pycocotools' `rleFrString` reads them: each character has 5 bits of a number, the lowest first, and a sixth that
    says that more follow; the highest bit is the sign. From the fourth run on, the number is the run's length minus
    that of the run two before it.
    """
    digits = np.frombuffer(code, np.uint8).astype(np.int64) - 48
    last = digits & 32 == 0
    first = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    length = np.flatnonzero(last) + 1 - first
    place = np.arange(len(digits)) - np.repeat(first, length)
    values = np.add.reduceat((digits & 31) << 5 * place, first)
    values -= np.where(digits[last] & 16, 1 << 5 * length, 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
