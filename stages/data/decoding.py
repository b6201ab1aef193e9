"""Bytes of an image file to pixels: what is decoded, what is refused and why, and how levels become 8 bits.

No other module decodes images. 8-bit pixels are taken as they are. More bits need a white level, the value that becomes
255: 65535 for 16-bit grey, 1 for floating-point numbers, unless the data set sets another (`ingest.white_level`).
"""

import io
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

EXIF_ORIENTATION = 0x0112
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""Decoded formats, whatever the suffix; JPEG includes MPO. Pillow's other decoders (one runs Ghostscript) stay off."""

MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I", "F")
MAX_PIXELS = 500_000_000
"""Images with more pixels are rejected as decompression bombs."""

LARGE_PIXELS = 64_000_000
"""Images with more pixels are decoded one at a time, whatever the number of threads; bounds memory."""

STRIP_PIXELS = 1 << 20
"""Pixels of more than 8 bits that are converted at a time; bounds memory."""

FLAT = 3
"""Largest `Decoded.spread` of an image that shows nothing."""

BIT_DEPTH_AT = 24
"""Offset of the bits per sample in a PNG file, whose first chunk is always IHDR."""

END_OF_JPEG = b"\xff\xd9"

# Pillow's own limit only warns; `decode` compares the size in the header with MAX_PIXELS before it decodes.
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

_large = threading.Lock()


class BadImage(ValueError):
    """Bytes that are not a usable image; the message is the reason."""


class TooManyPixels(BadImage):
    """The header promises more pixels than are allowed; nothing was decoded."""


@dataclass(frozen=True)
class Decoded:
    """A decoded image, not yet upright. `orientation` (1 to 8): EXIF's; 1 for TIFF, which Pillow turns itself.

    `white`: value that becomes 255, None for 8 bits. `restored`: it is a JPEG without its end marker, decoded whole.
    `several`: the file has more pages or frames, of which this is the first.
    """

    image: Image.Image
    orientation: int
    white: float | None
    restored: bool
    several: bool

    def upright(self, image: Image.Image) -> Image.Image:
        """`image`, which is this one or made from it, turned upright."""
        return image.transpose(UPRIGHT[self.orientation]) if self.orientation in UPRIGHT else image

    def eight_bits(self) -> Image.Image:
        """The image with 8 bits per sample and without a palette, in one of Pillow's modes."""
        if self.white is None:
            return self.image.convert("RGBA") if self.image.mode == "P" else self.image
        levels = np.empty(self.image.size[::-1], np.uint8)
        for top, strip in _strips(self.image):
            shares = np.clip(np.nan_to_num(strip) / self.white, 0, 1)
            levels[top : top + len(strip)] = np.uint8(shares * 255 + 0.5)
        return Image.fromarray(levels)

    def spread(self) -> float:
        """Highest minus lowest level of the band where this is largest; for floats in levels of 255, else as stored."""
        if self.white is None:
            image = self.image
            plain = image if image.mode in ("L", "RGB", "CMYK", "YCbCr") else image.convert("RGB")
            extrema = plain.getextrema()
            return max(high - low for low, high in (extrema if len(plain.getbands()) > 1 else [extrema]))
        ends = [(strip.min(initial=np.inf), strip.max(initial=-np.inf)) for _, strip in _finite_strips(self.image)]
        spread = max(high for _, high in ends) - min(low for low, _ in ends)
        return spread if self.image.mode != "F" else spread / self.white * 255

    def peak(self) -> tuple[float, float] | None:
        """Level that 0.1 % of the pixels exceed, as a share of white, and white; None for 8 bits.

        A percentile and not the maximum, because of hot pixels.
        """
        if self.white is None:
            return None
        step = 1 + self.image.width * self.image.height // STRIP_PIXELS
        sampled = np.concatenate([strip.ravel()[::step].copy() for _, strip in _finite_strips(self.image)])
        return (float(np.percentile(sampled, 99.9)) / self.white if sampled.size else 0.0), self.white


def decode(data: bytes, white_level: float | None = None, max_pixels: int | None = None) -> Decoded:
    """Decode all bytes of an image file, so that a truncated one is found.

    `white_level`: `ingest.white_level` of the data set; `max_pixels`: a lower limit than MAX_PIXELS.
    Raises BadImage, and MemoryError where memory is lacking: that is never the image's fault.
    """
    if not data:
        raise BadImage("file is empty")
    try:
        # Pillow would read 8-bit signed samples, or the first three of five bands, without an error
        if reason := _unusual_tiff(data):
            raise BadImage(reason)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > (allowed := min(MAX_PIXELS, max_pixels or MAX_PIXELS)):
            raise TooManyPixels(f"{image.width} x {image.height} pixels, allowed are {allowed:,} in all")
        if image.mode not in MODES and not image.mode.startswith("I;16"):
            raise BadImage(f"colour mode {image.mode} cannot be converted to RGB")
        with _large if image.width * image.height > LARGE_PIXELS else nullcontext():
            several = image.tag_v2.next != 0 if image.format == "TIFF" else getattr(image, "is_animated", False)
            image, restored = _loaded(image, data)
        white = _white(image, data, white_level)
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadImage(f"not an image that can be identified ({', '.join(FORMATS)})") from None
    except Exception as error:
        if "out of memory" in str(error):
            raise MemoryError(str(error)) from None
        # Pillow's decoders raise nearly anything on hostile bytes (OSError, SyntaxError, struct.error, ...)
        raise BadImage(f"corrupt image: {error}") from None
    # a phone's MPO is one image, and a preview or a depth map
    return Decoded(image, _orientation(image), white, restored, several and image.format != "MPO")


def _loaded(image: Image.Image, data: bytes) -> tuple[Image.Image, bool]:
    """`image` with its pixels, and whether it is a JPEG that lacks nothing but its end marker."""
    try:
        image.load()
        return image, False
    except OSError as error:
        whole = data.removesuffix(END_OF_JPEG[:1])
        if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
        # where more is missing, the decoder reads the filling as image data, and two fillings give different pixels
        filled = [Image.open(io.BytesIO(whole + filling * 64 + END_OF_JPEG)) for filling in (b"\x55", b"\xaa")]
        for one in filled:
            one.load()
        if filled[0].tobytes() != filled[1].tobytes():
            raise
        return filled[0], True


def _unusual_tiff(data: bytes) -> str | None:
    """Why the samples of a TIFF cannot be read rightly; None if they can, and for any other format."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    header = TiffImagePlugin.ImageFileDirectory_v2(data[:8] if data[2:4] in (b"*\0", b"\0*") else data[:16])
    stream = io.BytesIO(data)
    stream.seek(header.next)
    header.load(stream)
    # 277 samples per pixel, 258 bits per sample, 339 sample format, 262 photometric, 284 planar, 338 extra samples
    bands, bits = header.get(277, 1), header.get(258, (1,))
    kind = {1: "unsigned", 2: "signed", 3: "floating-point"}.get((header.get(339) or (1,))[0], "undefined")
    layout = f"{bands} bands of {bits[0]} bits, {kind}"
    if bands > 4:
        return f"TIFF of {bands} bands; allowed are 1 to 4"
    if len(set(bits)) > 1:
        return f"TIFF of {bands} bands with {', '.join(map(str, bits))} bits; allowed is one number for all"
    if (kind == "signed" and bits[0] < 16) or (kind == "floating-point" and (bits[0] != 32 or bands > 1)):
        return f"TIFF of {layout}; allowed are unsigned samples, signed ones from 16 bits, and grey 32-bit floats"
    if kind == "unsigned" and bits[0] > 8 and header.get(262) == 0:
        return f"TIFF of {layout} with 0 as white; allowed is 0 as black"
    planar = header.get(284) == 2 and bands > 1 and (bits[0] > 8 or bands == 4)
    if planar or (bands == 2 and header.get(338) != (2,)):
        return f"TIFF of {layout}{', planar' * planar}: this layout cannot be decoded; save it as PNG"
    return None


def _white(image: Image.Image, data: bytes, white_level: float | None) -> float | None:
    """The value that becomes 255; None for images of 8 bits."""
    if image.mode.startswith("I;16"):
        return white_level or 65535.0
    if image.mode == "I":
        if white_level is None:
            raise BadImage("integers of 32 bits, or with a sign: what is white has to be set by ingest.white_level")
        return white_level
    if image.mode == "F":
        high = max((float(strip.max(initial=0)) for _, strip in _finite_strips(image)), default=0.0)
        if white_level is None and high > 1:
            raise BadImage(f"floating-point values up to {high:.6g}: without ingest.white_level allowed are 0 to 1")
        return white_level or 1.0
    if white_level is not None and _wide_colour(image, data):
        raise BadImage("colour of 16 bits, of which only the upper 8 are read: ingest.white_level is for grey images")
    return None


def _wide_colour(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[BIT_DEPTH_AT] == 16
    return image.format == "TIFF" and max(image.tag_v2.get(258, (8,))) > 8


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """Row number and rows, (N, W) float64, of an image of one band."""
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield top, np.asarray(image.crop(box)).astype(np.float64)


def _finite_strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """`_strips` with only the finite values, (M,) float64."""
    return ((top, strip[np.isfinite(strip)]) for top, strip in _strips(image))


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:
        # pixels are usable without metadata
        return 1
    return orientation if orientation in UPRIGHT else 1
