"""Photographs become upright RGB pixels, or one clear reason why not."""

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.dataset.photos import EXIF_ORIENTATION, BadPhoto, inside, probe_photo, read_photo
from stages.shell.errors import UserError


def encoded(image: Image.Image, format_: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def gradient(size_hw=(20, 30)) -> np.ndarray:
    """No symmetry, so that every turn and flip shows."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.stack([rows * 8, columns * 6, (rows + columns) * 2], -1).astype(np.uint8)


def read(tmp_path, data: bytes) -> np.ndarray:
    (tmp_path / "photo").write_bytes(data)
    probe = probe_photo(data)
    pixels = read_photo(tmp_path, "photo", probe.sha256, probe.exif_orientation)
    assert pixels.shape == (*probe.size_hw, 3), "the probe tells the size of what is read"
    assert pixels.dtype == np.uint8
    return pixels


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright_once(tmp_path, orientation, format_):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    options = {"lossless": True} if format_ == "WEBP" else {}
    found = read(tmp_path, encoded(Image.fromarray(gradient()), format_, exif=exif, **options))
    np.testing.assert_array_equal(found, TURNS[orientation](gradient()))


def test_nonsense_orientations_count_as_upright(tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 77
    assert probe_photo(encoded(Image.fromarray(gradient()), exif=exif)).exif_orientation == 1


def test_sixteen_bit_grey_is_scaled_and_not_cut_off(tmp_path):
    levels = np.array([[0, 32768, 65535], [257, 514, 25700]], dtype=np.uint16)
    found = read(tmp_path, encoded(Image.fromarray(levels)))
    np.testing.assert_array_equal(found[..., 0], [[0, 128, 255], [1, 2, 100]])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    format_ = "TIFF" if mode == "CMYK" else "PNG"
    image = Image.fromarray(gradient()).convert(mode)
    np.testing.assert_array_equal(read(tmp_path, encoded(image, format_)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: b"", "file is empty"),
        (lambda data: b"not an image", "not an image"),
        (lambda data: data[: len(data) // 2], "corrupt image"),
    ],
)
def test_a_broken_photograph_says_why(spoil, reason):
    with pytest.raises(BadPhoto, match=reason):
        probe_photo(spoil(encoded(Image.fromarray(gradient((200, 300))), "JPEG")))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_hostile_bytes_never_raise_anything_else(noise, cut):
    for data in (noise, encoded(Image.fromarray(gradient()))[:cut] + noise):
        try:
            probe_photo(data)
        except BadPhoto:
            continue


def test_a_photograph_that_changed_since_ingest_is_refused(tmp_path):
    data = encoded(Image.fromarray(gradient()))
    (tmp_path / "photo").write_bytes(data + b"x")
    with pytest.raises(UserError, match="changed since it was ingested"):
        read_photo(tmp_path, "photo", hashlib.sha256(data).hexdigest(), 1)
    with pytest.raises(UserError, match="cannot be read"):
        read_photo(tmp_path, "gone", "", 1)


def test_nothing_outside_the_root_is_read(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to(root / "loop")
    for path in ("../secret", "link", str(tmp_path / "secret"), "loop/x", "nul\0"):
        with pytest.raises(UserError, match=r"leads out of the data root|not a usable path"):
            inside(root, path)
