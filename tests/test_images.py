"""Image files become upright RGB pixels, or are refused with a reason."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import stages.data.decoding as module
from stages.common.errors import UserError
from stages.data.decoding import BadImage
from stages.data.images import MIN_SIDE, probe_image, read_image, rgb_of
from stages.data.tables import Dataset
from tests.support.bad_sets import encoded

SIZE_HW = (12, 20)


def pattern() -> np.ndarray:
    """(12, 20, 3) uint8, different after any rotation and reflection."""
    rows, columns = np.mgrid[:12, :20]
    return np.stack([rows * 20, columns * 12, 7 * (rows > 8) * (columns > 14) + 0 * rows], axis=-1).astype(np.uint8)


def read(folder: Path, data: bytes, white_level: float | None = None) -> np.ndarray:
    (folder / "a").write_bytes(data)
    probe = probe_image(data, white_level)
    row = {"path": "a", "sha256": probe.sha256, "exif_orientation": probe.exif_orientation}
    pixels = read_image(Dataset(folder, (), white_level), row)
    assert pixels.shape == (*probe.size_hw, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    return pixels


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_read_upright(tmp_path, orientation, suffix):
    upright = pattern()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[module.EXIF_ORIENTATION] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), suffix, exif=exif)
    np.testing.assert_array_equal(read(tmp_path, data), upright)
    assert probe_image(data).exif_orientation == (orientation if suffix == "png" else 1)


def test_an_invalid_orientation_or_broken_exif_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[module.EXIF_ORIENTATION] = 77
    for data in (
        encoded(Image.fromarray(pattern()), exif=exif),
        encoded(Image.fromarray(pattern()), exif=b"Exif\0\0II*\0\xff\xff\xff\x7fnonsense"),
    ):
        np.testing.assert_array_equal(read(tmp_path, data), pattern())


def test_every_colour_mode_becomes_rgb(tmp_path):
    rgb = Image.fromarray(pattern())
    np.testing.assert_array_equal(read(tmp_path, encoded(rgb)), pattern())
    grey = np.asarray(rgb.convert("L"))
    tripled = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read(tmp_path, encoded(rgb.convert("L"))), tripled)
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(grey))
    np.testing.assert_array_equal(read(tmp_path, encoded(alpha)), pattern())
    palette = Image.fromarray(np.arange(240, dtype=np.uint8).reshape(12, 20), "P")
    palette.putpalette(list(np.arange(256)[:, None].repeat(3, 1).ravel()))
    levels = np.arange(240, dtype=np.uint8).reshape(12, 20)[..., None].repeat(3, -1)
    np.testing.assert_array_equal(read(tmp_path, encoded(palette)), levels)
    np.testing.assert_array_equal(read(tmp_path, encoded(palette, transparency=bytes(range(256)))), levels)
    bilevel = read(tmp_path, encoded(Image.fromarray(grey > 99)))
    np.testing.assert_array_equal(bilevel, np.where(grey > 99, 255, 0)[..., None].repeat(3, -1))
    cmyk = read(tmp_path, encoded(Image.new("CMYK", (20, 12), (0, 255, 255, 0)), "tiff"))
    assert tuple(cmyk[0, 0]) == (255, 0, 0)


def test_sixteen_bit_grey_is_scaled(tmp_path):
    wide = np.linspace(0, 65535, 240).reshape(12, 20).astype(np.uint16)
    expected = np.round(wide / 257.0)[..., None].repeat(3, -1)
    for suffix in ("png", "tiff"):
        np.testing.assert_array_equal(read(tmp_path, encoded(Image.fromarray(wide), suffix)), expected)


def test_a_float_image_with_nan_is_read(tmp_path):
    values = np.full((12, 20), 0.5, dtype=np.float32)
    values[0, 0] = np.nan
    pixels = read(tmp_path, encoded(Image.fromarray(values), "tiff"))
    assert tuple(pixels[1, 1]) == (128, 128, 128)


def test_the_format_is_found_by_content_not_by_suffix(tmp_path):
    data = encoded(Image.fromarray(pattern()), "bmp")
    (tmp_path / "a.jpg").write_bytes(data)
    row = {"path": "a.jpg", "sha256": hashlib.sha256(data).hexdigest(), "exif_orientation": 1}
    pixels = read_image(Dataset(tmp_path, ()), row)
    np.testing.assert_array_equal(pixels, pattern())


def test_unusable_bytes_are_refused_with_a_reason(monkeypatch):
    data = encoded(Image.fromarray(pattern().repeat(9, 0).repeat(9, 1)), "jpeg")
    cases = {
        b"": "file is empty",
        b"hello": "not an image that can be identified",
        data[: len(data) // 2]: "corrupt image: .*truncated",
        encoded(Image.new("RGB", (9, 40))): "9 x 40 <10 pixels",
        encoded(Image.new("RGB", (20, 12)), "gif"): "not an image that can be identified",
        encoded(Image.new("LAB", (20, 12)), "tiff"): "colour mode LAB",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 12\n%%EndComments\n": "not an image that can be identified",
    }
    for bad, reason in cases.items():
        with pytest.raises(BadImage, match=reason):
            probe_image(bad)
    monkeypatch.setattr(module, "MAX_PIXELS", 239)
    with pytest.raises(BadImage, match="20 x 12 pixels, allowed are 239"):
        probe_image(encoded(Image.fromarray(pattern())))


def test_ten_pixels_are_enough_and_as_many_in_all_as_are_allowed(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 300)
    data = encoded(Image.new("RGB", (30, MIN_SIDE)))
    assert probe_image(data).size_hw == (10, 30)
    monkeypatch.setattr(module, "MAX_PIXELS", 299)
    with pytest.raises(BadImage, match="30 x 10 pixels, allowed are 299 in all"):
        rgb_of(data, max_pixels=1000)


def test_a_thumbnail_is_the_mean_of_what_it_shows():
    """Stripes of one pixel, in an image twice as wide as the thumbnail and three times as high, are an even grey."""
    stripes = np.zeros((96, 64), np.uint8)
    stripes[:, ::2] = 200
    thumbnail = probe_image(encoded(Image.fromarray(stripes))).thumbnail
    assert thumbnail.shape == (32, 32) and set(thumbnail.ravel().tolist()) == {100}
    clear = Image.fromarray(np.stack([stripes] * 3 + [stripes], axis=-1), "RGBA")  # transparent where it is black
    np.testing.assert_array_equal(probe_image(encoded(clear)).thumbnail, thumbnail)
    bilevel = probe_image(encoded(Image.fromarray(stripes > 0))).thumbnail
    assert set(bilevel.ravel().tolist()) <= {127, 128}


def test_a_decompression_bomb_is_refused_by_its_header():
    """100,000 x 100,000 pixels: decoding it would take 30 GB."""
    data = bytearray(encoded(Image.new("RGB", (20, 12)), "bmp"))
    data[18:26] = (100_000).to_bytes(4, "little") * 2
    with pytest.raises(BadImage, match="100000 x 100000 pixels, allowed are 500,000,000"):
        probe_image(bytes(data))


@given(st.data())
def test_damaged_files_are_read_or_raise_bad_image(data):
    whole = bytearray(encoded(Image.fromarray(pattern()), data.draw(st.sampled_from(["png", "jpeg", "tiff", "webp"]))))
    for _ in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        probe = probe_image(damaged)
    except BadImage:
        return
    assert probe.exif_orientation in range(1, 9)
    assert min(probe.size_hw) >= MIN_SIDE


def test_a_changed_or_missing_image_is_refused(tmp_path):
    data = encoded(Image.fromarray(pattern()))
    (tmp_path / "a.png").write_bytes(data)
    row = {"path": "a.png", "sha256": hashlib.sha256(b"other").hexdigest(), "exif_orientation": 1}
    with pytest.raises(UserError, match=r"a\.png: changed since it was ingested"):
        read_image(Dataset(tmp_path, ()), row)
    turned = row | {"sha256": hashlib.sha256(data).hexdigest(), "exif_orientation": 6}
    with pytest.raises(UserError, match=r"a\.png: EXIF orientation 1, the images table says 6"):
        read_image(Dataset(tmp_path, ()), turned)
    with pytest.raises(UserError, match=r"b\.png: not found"):
        read_image(Dataset(tmp_path, ()), row | {"path": "b.png"})
