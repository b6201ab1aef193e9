"""TIFF files of any number of bands, bits and layout, written by hand: Pillow writes few of them."""

import struct
from collections.abc import Sequence

import numpy as np

KINDS = {"u": 1, "i": 2, "f": 3}
"""numpy's kind of a sample to TIFF's."""


def tiff(pixels: np.ndarray, photometric: int | None = None, planar: bool = False, extra: Sequence[int] = ()) -> bytes:
    """(H, W) or (H, W, B) pixels, uncompressed, one strip, or one per band.

    `photometric`: 0 white is zero, 1 black is zero, 2 RGB; `extra`: meaning of the bands beyond, 0 none, 2 alpha.
    """
    cube = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, bands = cube.shape
    photometric = photometric if photometric is not None else 2 if bands - len(extra) == 3 else 1
    data = np.ascontiguousarray(cube.transpose(2, 0, 1) if planar else cube).tobytes()
    strips = bands if planar else 1
    size = len(data) // strips
    tags = {
        256: ("H", [width]),
        257: ("H", [height]),
        258: ("H", [cube.itemsize * 8] * bands),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [8 + strip * size for strip in range(strips)]),
        277: ("H", [bands]),
        278: ("H", [height]),
        279: ("I", [size] * strips),
        284: ("H", [2 if planar else 1]),
        338: ("H", list(extra)),
        339: ("H", [KINDS[cube.dtype.kind]] * bands),
    }
    tags = {tag: values for tag, values in tags.items() if values[1]}
    entries, values, start = b"", b"", 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, (letter, numbers) in tags.items():
        packed = struct.pack(f"<{len(numbers)}{letter}", *numbers)
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", start + len(values))
        values += packed if len(packed) > 4 else b""
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[letter], len(numbers)) + place
    return (
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4) + values
    )
