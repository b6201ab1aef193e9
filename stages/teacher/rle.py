"""Binary masks as COCO's compressed run-length code (pycocotools), at the photograph's native size."""

import numpy as np
from pycocotools import mask as coco


def encode(mask: np.ndarray, origin_xy: tuple[int, int], size_hw: tuple[int, int]) -> bytes:
    """Code of a photograph of `size_hw` that is empty but for `mask`, (h, w) bool, its top left pixel at `origin_xy`.

    Time grows with the part, not with the photograph. Raises ValueError when the part does not fit.
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
    if len(counts) > 1 and counts[-1] == 0:  # the background after a mask that ends in the last pixel
        counts.pop()
    return coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]


def decode(code: bytes, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of `code`."""
    return coco.decode({"size": list(size_hw), "counts": code}).view(bool)
