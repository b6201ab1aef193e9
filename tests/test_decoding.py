"""More than 8 bits, many bands, missing ends: right pixels, or dropped with the true reason."""

import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.data.decoding import BadImage, decode
from tests.support.bad_sets import encoded
from tests.support.tiff import tiff

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)
SIZE_HW = (12, 20)


def samples(dtype: str, bands: int = 1, high: float = 256) -> np.ndarray:
    drawn = (RNG.random((*SIZE_HW, bands)) * high).astype(dtype)
    return drawn[..., 0] if bands == 1 else drawn


def rgb(data: bytes, white_level: float | None = None) -> np.ndarray:
    return np.asarray(decode(data, white_level).eight_bits().convert("RGB"))


def grey(data: bytes, white_level: float | None = None) -> np.ndarray:
    found = rgb(data, white_level)
    assert (found == found[..., :1]).all()
    return found[..., 0]


def test_colours_of_a_tiff_are_right_whether_planar_or_not():
    eight, sixteen = samples("uint8", 3), samples("uint16", 3, 65536)
    np.testing.assert_array_equal(rgb(tiff(eight)), eight)
    np.testing.assert_array_equal(rgb(tiff(eight, planar=True)), eight)
    np.testing.assert_array_equal(rgb(tiff(sixteen)), sixteen >> 8)
    np.testing.assert_array_equal(grey(tiff(eight[..., 0], 0)), 255 - eight[..., 0])


def test_a_fourth_band_is_dropped():
    four = samples("uint8", 4)
    for data in (tiff(four, extra=[0]), tiff(np.where(four == 0, 1, four).astype("uint8"), extra=[0])):
        assert rgb(data).shape == (*SIZE_HW, 3)
    np.testing.assert_array_equal(rgb(tiff(four, extra=[0])), four[..., :3])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(samples("uint8", 5), 1, extra=[0] * 4), "TIFF of 5 bands; allowed are 1 to 4"),
        (tiff(samples("uint8", 5), 2, extra=[0] * 2), "TIFF of 5 bands; allowed are 1 to 4"),
        (tiff(samples("uint16", 9), 1, planar=True, extra=[0] * 8), "TIFF of 9 bands; allowed are 1 to 4"),
        (tiff(samples("uint8", 3)).replace(b"\x08\0" * 3, b"\x08\0\x08\0\x04\0"), "3 bands with 8, 8, 4 bits; allowed"),
        (encoded(Image.fromarray(samples("uint16")), "tiff", big_tiff=True, tiffinfo={262: 0}), "with 0 as white"),
        (tiff(samples("int8")), "1 bands of 8 bits, signed; allowed are unsigned"),
        (tiff(samples("float64", 1, 1)), "1 bands of 64 bits, floating-point; allowed are"),
        (tiff(samples("float32", 3, 1)), "3 bands of 32 bits, floating-point; allowed are"),
        (tiff(samples("uint16"), 0), "with 0 as white; allowed is 0 as black"),
        (tiff(samples("uint8", 2), 1, extra=[0]), "2 bands of 8 bits, unsigned: this layout cannot be decoded"),
        (tiff(samples("uint8", 4), 2, planar=True, extra=[0]), "4 bands of 8 bits, unsigned, planar: this layout"),
        (tiff(samples("uint16", 3), planar=True), "3 bands of 16 bits, unsigned, planar: this layout cannot"),
        (tiff(samples("int32")), "32 bits, or with a sign: what is white has to be set by ingest.white_level"),
        (tiff(samples("int16")), "32 bits, or with a sign: what is white has to be set by ingest.white_level"),
        (tiff(np.full(SIZE_HW, 1.5, "float32")), "floating-point values up to 1.5: without ingest.white_level allowed"),
    ],
)
def test_a_tiff_that_cannot_be_read_rightly_says_why(data, reason):
    with pytest.raises(BadImage, match=reason):
        decode(data)


def test_the_white_level_is_the_data_sets():
    """Levels by hand: 255 * value / white, rounded half up, at most 255."""
    values = np.tile(np.array([0, 819, 4095, 5000], "uint16"), (12, 5))
    np.testing.assert_array_equal(grey(encoded(Image.fromarray(values)), 4095)[0, :4], [0, 51, 255, 255])
    np.testing.assert_array_equal(grey(tiff(values), 4095)[0, :4], [0, 51, 255, 255])
    np.testing.assert_array_equal(grey(tiff(values))[0, :4], [0, 3, 16, 19])
    for dtype in ("int32", "uint32", "int16", "float32"):
        np.testing.assert_array_equal(grey(tiff(values.astype(dtype)), 4095)[0, :4], [0, 51, 255, 255])
    np.testing.assert_array_equal(grey(tiff(values.astype("float32") / 5000))[0, :4], [0, 42, 209, 255])
    for dtype in ("int16", "float32"):
        assert grey(tiff(np.full(SIZE_HW, -300, dtype)), 4095).max() == 0, "below black is black"


def wide_png(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W, 3) uint16, which Pillow does not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_white_level_changes_no_image_of_8_bits_and_refuses_colour_of_16():
    eight, sixteen = samples("uint8", 3), samples("uint16", 3, 4096)
    np.testing.assert_array_equal(rgb(encoded(Image.fromarray(eight)), 4095), eight)
    for data in (tiff(sixteen), wide_png(sixteen)):
        np.testing.assert_array_equal(rgb(data), sixteen >> 8)
        with pytest.raises(BadImage, match="colour of 16 bits, of which only the upper 8 are read"):
            decode(data, 4095)


def test_peak_and_spread():
    values = np.full((100, 200), 40, "uint16")
    values[0, :100] = 4095  # 0.5 % of the pixels; one hot pixel does not count
    values[50, 50] = 65535
    found = decode(encoded(Image.fromarray(values)))
    assert found.peak() == (pytest.approx(4095 / 65535), 65535) and found.spread() == 65495
    flat = decode(encoded(Image.fromarray(np.full((12, 20, 3), (9, 99, 199), "uint8"))))
    assert flat.peak() is None and flat.spread() == 0
    palette = Image.fromarray(np.arange(240, dtype=np.uint8).reshape(SIZE_HW), "P")
    palette.putpalette([9, 99, 199] * 256)
    assert decode(encoded(palette)).spread() == 0, "levels, not their numbers"
    nothing = decode(tiff(np.full(SIZE_HW, np.nan, "float32")))
    assert nothing.peak() == (0, 1) and nothing.spread() <= 0
    assert decode(tiff(np.linspace(0.2, 0.7, 240, dtype="float32").reshape(SIZE_HW))).spread() == pytest.approx(127.5)


def test_a_jpeg_without_its_end_marker_is_whole_and_one_without_pixels_is_not():
    data = encoded(Image.fromarray(samples("uint8", 3).repeat(9, 0).repeat(9, 1)), "jpeg")
    assert data.endswith(b"\xff\xd9") and not decode(data).restored
    for cut in (1, 2):
        found = decode(data[:-cut])
        assert found.restored
        np.testing.assert_array_equal(np.asarray(found.image), np.asarray(decode(data).image))
    for cut in (3, 10, len(data) // 2):
        with pytest.raises(BadImage, match="truncated"):
            decode(data[:-cut])


def test_sixteen_bits_are_converted_in_strips():
    """24 megapixels: 48 MB of 16 bits and 24 of 8; as 64-bit floats they were 192."""
    values = np.arange(24_000_000, dtype=np.uint32).astype(np.uint16).reshape(4000, 6000)
    found = decode(encoded(Image.fromarray(values), "tiff"))
    tracemalloc.start()
    found.eight_bits(), found.peak(), found.spread()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 80_000_000


LACK = """
import resource, sys
from pathlib import Path
from stages.data.images import probe_image
data = Path(sys.argv[1]).read_bytes()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20),) * 2)
try:
    probe_image(data)
except MemoryError:
    print("lack of memory")
"""


def test_lack_of_memory_is_never_a_bad_image(tmp_path):
    """A sound JPEG of 42 megapixels, decoded with 60 MB."""
    (tmp_path / "a.jpg").write_bytes(encoded(Image.new("RGB", (7000, 6000)), "jpeg"))
    done = subprocess.run(
        [sys.executable, "-c", LACK, str(tmp_path / "a.jpg")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "lack of memory\n", done.stderr[-500:]
