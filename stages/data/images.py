"""Image files: found in folders, checked, and decoded to upright RGB pixels. No other module decodes images."""

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from stages.common.errors import UserError
from stages.data.root_files import Unreadable, read_file

EXIF_ORIENTATION = 0x0112
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""Decoded formats, whatever the suffix; JPEG includes MPO. Pillow's other decoders (one runs Ghostscript) stay off."""

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
"""Suffixes, in lower case, by which images are found in folders."""

MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I", "F")
MIN_SIDE = 10
"""Images with a shorter side, in pixels, are rejected; Ultralytics' limit."""

MAX_PIXELS = 500_000_000
"""Images with more pixels are rejected as decompression bombs."""

THUMBNAIL_PX = 32
"""Side of the square thumbnail by which images are compared."""

# Pillow's own limit only warns; `_open` compares the size in the header with MAX_PIXELS before it decodes.
Image.MAX_IMAGE_PIXELS = None

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the operation that turns the decoded image upright."""


class BadImage(ValueError):
    """Bytes that are not a usable image; the message is the reason."""


@dataclass(frozen=True)
class Probe:
    """Properties of a decoded image. `size_hw`: pixels of the upright image.

    `exif_orientation` (1 to 8): what is to be applied after decoding; 1 for TIFF, to which Pillow applies it itself.
    `thumbnail`: the whole image, upright and grey, resized to (32, 32) uint8.
    """

    sha256: str
    exif_orientation: int
    size_hw: tuple[int, int]
    thumbnail: np.ndarray = field(compare=False)


def probe_image(data: bytes) -> Probe:
    """Decode all of an image file's bytes, so that a truncated one is found. Raises BadImage."""
    image, orientation = _open(data)
    width, height = image.size
    if min(image.size) < MIN_SIDE:
        raise BadImage(f"image size {width} x {height} <{MIN_SIDE} pixels")
    size_hw = (width, height) if orientation >= 5 else (height, width)
    return Probe(hashlib.sha256(data).hexdigest(), orientation, size_hw, _thumbnail(image, orientation))


def read_image(root: Path, path: str, sha256: str, exif_orientation: int) -> np.ndarray:
    """The upright (H, W, 3) uint8 RGB pixels of an ingested image; arguments as in the images table.

    Alpha is dropped; 16-bit grey is scaled to 8 bits (65535 is white); floats have the range 0 to 1, or 0 to 255 if
    one exceeds 1; other modes are converted by Pillow. Of several pages or frames the first is read.
    Raises UserError when the file has changed since it was ingested, because the tables do not describe it then.
    """
    try:
        data = read_file(root, path)
    except Unreadable as error:
        raise UserError(f"{root}: {error}; run `dvc repro` again") from None
    if data is None:
        raise UserError(f"{root / path}: not found; run `dvc repro` again")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{root / path}: changed since it was ingested; run `dvc repro` again")
    try:
        image, orientation = _open(data)
    except BadImage as error:
        raise UserError(f"{root / path}: {error}") from None
    if orientation != exif_orientation:
        raise UserError(f"{root / path}: EXIF orientation {orientation}, the images table says {exif_orientation}")
    image = _rgb(image)
    return np.array(image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image)


def _open(data: bytes) -> tuple[Image.Image, int]:
    """The decoded image and the EXIF orientation that is to be applied to it (1 if absent or invalid)."""
    if not data:
        raise BadImage("file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise BadImage(f"{image.width} x {image.height} pixels, allowed are {MAX_PIXELS:,} in all")
        if image.mode not in MODES and not image.mode.startswith("I;16"):
            raise BadImage(f"colour mode {image.mode} cannot be converted to RGB")
        image.load()
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(f"not an image that can be identified ({', '.join(FORMATS)})") from None
    except Exception as error:
        # Pillow's decoders raise nearly anything on hostile bytes (OSError, SyntaxError, struct.error, ...)
        raise BadImage(f"corrupt image: {error}") from None
    return image, _orientation(image)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:
        # pixels are usable without metadata
        return 1
    return orientation if orientation in UPRIGHT else 1


def _thumbnail(image: Image.Image, orientation: int) -> np.ndarray:
    try:
        # resized before conversion where the result is the same: saves a copy of a large image
        plain = image if image.mode in ("L", "RGB") else _rgb(image)
        small = plain.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX).convert("L")
    except Exception as error:
        raise BadImage(f"cannot be converted to RGB: {error}") from None
    return np.asarray(small.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else small)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.nan_to_num(np.asarray(image).astype(np.float64))
        high = 65535 if image.mode.startswith("I") else 1.0 if pixels.max(initial=0) <= 1 else 255.0
        return Image.fromarray(np.uint8(np.clip(pixels / high, 0, 1) * 255 + 0.5)).convert("RGB")
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")
