"""Human masks (ground truth): 8-bit palette or grey PNG, 0 = background, class id + 1 = defect, 255 = ignored."""

import io

import numpy as np
from PIL import Image

from stages.data.tables import IGNORE

BIT_DEPTH_AT = 24
"""Offset of the bits per sample in a PNG file, whose first chunk is always IHDR."""


class BadMask(ValueError):
    """A mask that is not usable as truth; the message names the value and what is allowed."""


def parse_mask(data: bytes, size_hw: tuple[int, int], class_count: int) -> tuple[np.ndarray, set[int]]:
    """(H, W) uint8 labels of a mask, which has the frame of the upright image, and its values. Raises BadMask."""
    height, width = size_hw
    try:
        # the size is checked before decoding, which a decompression bomb must not reach
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        if image.size != (width, height):
            raise BadMask(f"mask is {image.width} x {image.height}, the upright image {width} x {height}")
        if image.mode not in ("L", "P") or (image.mode == "L" and data[BIT_DEPTH_AT] != 8):
            raise BadMask(
                f"PNG of mode {image.mode} with {data[BIT_DEPTH_AT]} bits a sample, "
                f"allowed are 8-bit grey and palette indices"
            )
        labels = np.array(image)
    except (BadMask, MemoryError):
        raise
    except Exception as error:
        # decoders raise nearly any exception on hostile bytes
        raise BadMask(f"not a readable PNG: {error}") from None
    values = set(np.flatnonzero(np.bincount(labels.ravel())).tolist())
    wrong = sorted(values - {*range(class_count + 1), IGNORE})
    if wrong:
        raise BadMask(f"value {wrong[0]}, allowed are 0 (background), 1-{class_count} (class id + 1), 255 (ignored)")
    return labels, values
