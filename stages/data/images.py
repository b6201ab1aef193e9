"""Image files of a data set: checked when it is ingested, and read as upright RGB pixels by every later stage."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from stages.common.errors import UserError
from stages.data.decoding import BadImage, Decoded, decode
from stages.data.root_files import Unreadable, read_file
from stages.data.tables import Dataset

MIN_SIDE = 10
"""Images with a shorter side, in pixels, are rejected; Ultralytics' limit."""

THUMBNAIL_PX = 32
"""Side of the square thumbnail by which images are compared."""


class ImageError(UserError):
    """An ingested image that cannot be used any more."""


@dataclass(frozen=True)
class Probe:
    """Properties of a decoded image. `size_hw`: pixels of the upright image; others as in `Decoded`.

    `thumbnail`: the whole image, upright and grey, resized to (32, 32) uint8.
    """

    sha256: str
    exif_orientation: int
    size_hw: tuple[int, int]
    thumbnail: np.ndarray = field(compare=False)
    spread: float
    peak: tuple[float, float] | None
    restored: bool
    several: bool


def probe_image(data: bytes, white_level: float | None = None) -> Probe:
    """Decode all of an image file's bytes. Raises BadImage, and MemoryError as `decode`."""
    decoded = _large_enough(decode(data, white_level))
    width, height = decoded.image.size
    size_hw = (width, height) if decoded.orientation >= 5 else (height, width)
    sha256, thumbnail = hashlib.sha256(data).hexdigest(), _thumbnail(decoded)
    spread, peak = decoded.spread(), decoded.peak()
    return Probe(sha256, decoded.orientation, size_hw, thumbnail, spread, peak, decoded.restored, decoded.several)


def rgb_of(data: bytes, white_level: float | None = None, max_pixels: int | None = None) -> np.ndarray:
    """The upright (H, W, 3) uint8 RGB pixels of an image file's bytes, as `read_image` gives them.

    Raises BadImage, and MemoryError as `decode`.
    """
    return _rgb(_large_enough(decode(data, white_level, max_pixels)))


def image_bytes(source: Dataset, row: Mapping) -> bytes:
    """The file of an ingested image; `row`: with `path` and `sha256`, as in the images table.

    Raises ImageError when the file has changed since it was ingested, because the tables do not describe it then.
    """
    where = source.root / row["path"]
    try:
        data = read_file(source.root, row["path"])
    except Unreadable as error:
        raise ImageError(f"{source.root}: {error}; run `dvc repro` again") from None
    if data is None:
        raise ImageError(f"{where}: not found; run `dvc repro` again")
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise ImageError(f"{where}: changed since it was ingested; run `dvc repro` again")
    return data


def read_image(source: Dataset, row: Mapping) -> np.ndarray:
    """The upright (H, W, 3) uint8 RGB pixels of an ingested image; `row` is of the images table.

    Alpha is dropped; more than 8 bits are scaled by the data set's white level; other modes are converted by Pillow.
    Of several pages or frames the first is read. Raises ImageError as `image_bytes`.
    """
    where = source.root / row["path"]
    try:
        decoded = decode(image_bytes(source, row), source.white_level)
        if decoded.orientation != row["exif_orientation"]:
            expected = f"the images table says {row['exif_orientation']}"
            raise BadImage(f"EXIF orientation {decoded.orientation}, {expected}")
        return _rgb(decoded)
    except BadImage as error:
        raise ImageError(f"{where}: {error}") from None


def _large_enough(decoded: Decoded) -> Decoded:
    width, height = decoded.image.size
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"image size {width} x {height} <{MIN_SIDE} pixels")
    return decoded


def _rgb(decoded: Decoded) -> np.ndarray:
    with _converting():
        return np.array(decoded.upright(decoded.eight_bits().convert("RGB")))


def _thumbnail(decoded: Decoded) -> np.ndarray:
    with _converting():
        # resized before conversion where the result is the same: saves a copy of a large image
        plain = decoded.eight_bits()
        plain = plain if plain.mode in ("L", "RGB") else plain.convert("RGB")
        small = plain.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX).convert("L")
        return np.asarray(decoded.upright(small))


@contextmanager
def _converting() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise BadImage(f"cannot be converted to RGB: {error}") from None
