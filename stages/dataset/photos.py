"""Photographs from disk: the one place where files become pixels, upright and RGB."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.shell.errors import UserError

EXIF_ORIENTATION = 0x0112


class BadPhoto(ValueError):
    """The bytes are no photograph that we can use; the message says why."""


@dataclass(frozen=True)
class Probe:
    """What ingest keeps of a photograph. `size_hw` is the upright one."""

    sha256: str
    exif_orientation: int
    size_hw: tuple[int, int]


def inside(root: Path, path: str) -> Path:
    """`path` below `root`, links resolved. Raises UserError when it leads out of the root."""
    try:
        resolved = (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # loops of links, NUL in a name
        raise UserError(f"not a usable path: {str(root / path)!r} ({error})") from None
    if not resolved.is_relative_to(root.resolve()):
        raise UserError(f"leads out of the data root: {root / path}")
    return resolved


def probe_photo(data: bytes) -> Probe:
    """Decode a photograph's bytes in full, so that a truncated one is found now. Raises BadPhoto with the reason."""
    image, orientation = _open(data)
    width, height = image.size
    size_hw = (width, height) if orientation >= 5 else (height, width)
    return Probe(hashlib.sha256(data).hexdigest(), orientation, size_hw)


def read_photo(root: Path, path: str, sha256: str, exif_orientation: int) -> np.ndarray:
    """The upright (H, W, 3) uint8 RGB pixels of an ingested photograph; arguments as in the images table.

    Alpha is dropped, 16-bit grey is scaled to 8 bits, everything else is converted as Pillow does.
    Raises UserError when the bytes are not the ingested ones any more: no stage works on a photograph that the
    tables do not describe.
    """
    try:
        data = inside(root, path).read_bytes()
    except OSError as error:
        raise UserError(f"{root / path}: cannot be read ({error.strerror}); run `dvc repro` again") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{root / path}: changed since it was ingested; run `dvc repro` again")
    try:
        image, orientation = _open(data)
    except BadPhoto as error:
        raise UserError(f"{root / path}: {error}") from None
    if orientation != exif_orientation:
        raise UserError(f"{root / path}: EXIF orientation {orientation}, the images table says {exif_orientation}")
    return np.array(_rgb(ImageOps.exif_transpose(image)))


def _open(data: bytes) -> tuple[Image.Image, int]:
    """Decoded image and EXIF orientation (1 where none or nonsense is given)."""
    if not data:
        raise BadPhoto("file is empty")
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        # asked for after loading: Pillow turns TIFFs upright itself while it loads them
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except UnidentifiedImageError:
        raise BadPhoto("not an image that can be identified") from None
    except Exception as error:
        # Pillow's decoders raise nearly anything on hostile bytes (OSError, SyntaxError, struct.error, …), and its own
        # DecompressionBombError beyond 179 megapixels
        raise BadPhoto(f"corrupt image: {error}") from None
    return image, orientation if orientation in range(1, 9) else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image).astype(np.float64)
        high = 65535 if image.mode.startswith("I") else 1.0 if pixels.max(initial=0) <= 1 else 255.0
        return Image.fromarray(np.uint8(np.clip(pixels / high, 0, 1) * 255 + 0.5)).convert("RGB")
    return image.convert("RGB")
