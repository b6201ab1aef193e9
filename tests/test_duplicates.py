"""Images that look alike across splits are found and listed."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.data.images import probe_image
from stages.ingestion import duplicates
from stages.ingestion.duplicates import (
    HashedImage,
    Pair,
    exact_duplicates,
    near_duplicates,
    perceptual_hash,
    write_near_duplicates,
)
from tests.support.bad_sets import encoded, put, sound
from tests.support.ingesting import ingest


def surface(seed: int, size_wh: tuple[int, int] = (300, 200)) -> Image.Image:
    """A texture by `seed` with the shading that all images of one camera share."""
    across, down = np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 20))
    levels = 150 - 60 * (across**2 + down**2) + np.random.default_rng(seed).normal(0, 12, across.shape)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).resize(size_wh, Image.Resampling.BICUBIC)


def phash_of(data: bytes) -> bytes | None:
    return perceptual_hash(probe_image(data).thumbnail)


def distance(one: bytes, other: bytes) -> int:
    return int(np.unpackbits(np.frombuffer(one, np.uint8) ^ np.frombuffer(other, np.uint8)).sum())


def hashed(split: str, name: str, bits: bytes | None, sha256: str = "") -> HashedImage:
    return HashedImage(split, name, sha256 or name, bits)


def bits(*on: int) -> bytes:
    """A hash with just these of its bits set."""
    flags = np.zeros(256, bool)
    flags[list(on)] = True
    return np.packbits(flags).tobytes()


def test_a_changed_copy_differs_in_few_bits_and_another_image_in_many():
    """All share one shading, so that 8 x 8 coefficients would not tell them apart."""
    image = surface(0)
    original = phash_of(encoded(image))
    copies = [
        encoded(image, "jpeg", quality=40),
        encoded(image.resize((150, 100), Image.Resampling.BICUBIC)),
        encoded(image.point(lambda level: min(255, int(level * 1.15)))),
        encoded(image.convert("RGB"), "webp", quality=50),
    ]
    assert max(distance(original, phash_of(copy)) for copy in copies) <= 40
    assert min(distance(original, phash_of(encoded(surface(seed)))) for seed in range(1, 30)) > 60


def test_images_are_compared_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = encoded(surface(0).transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert distance(phash_of(lying), phash_of(encoded(surface(0)))) <= 8
    assert distance(phash_of(lying), phash_of(encoded(surface(0).transpose(Image.Transpose.ROTATE_90)))) > 60


def test_an_image_without_detail_has_no_hash():
    shading = Image.fromarray(np.tile(np.linspace(90, 140, 300), (200, 1)).astype(np.uint8))
    for plain in (Image.new("L", (30, 20)), shading, Image.new("RGB", (30, 20), (255, 0, 0))):
        assert phash_of(encoded(plain)) is None


def test_a_hash_has_255_bits_of_which_127_are_above_the_median():
    for seed in range(8):
        flags = np.unpackbits(np.frombuffer(phash_of(encoded(surface(seed))), np.uint8))
        assert (len(flags), flags.sum(), flags[-1]) == (256, 127, 0)


@pytest.mark.parametrize(("contrast", "enough"), [(1.4, True), (0.7, False)])
def test_detail_is_counted_in_grey_levels(contrast, enough):
    """Waves of 8 periods across, whose RMS is their height over the root of 2."""
    wave = np.cos((np.arange(32) + 0.5) * np.pi * 8 / 32) * contrast * 2**0.5
    thumbnail = np.round(np.tile(100 + wave, (32, 1)) + np.random.default_rng(0).uniform(-0.5, 0.5, (32, 32)))
    assert (perceptual_hash(thumbnail.astype(np.uint8)) is not None) == enough


def test_exact_duplicates_are_groups_in_several_splits_by_path():
    images = [
        hashed("val", "v/z", None, "S"),
        hashed("train", "t/y", None, "S"),
        hashed("train", "t/b", None, "T"),
        hashed("train", "t/c", None, "T"),
        hashed("test", "s/a", None, "U"),
        hashed("train", "t/x", None, "U"),
        hashed("val", "t/x", None, "U"),
        hashed("test", "s/only", None, "V"),
    ]
    found = [[(image.split, image.path) for image in group] for group in exact_duplicates(images)]
    assert found == [[("test", "s/a"), ("train", "t/x"), ("val", "t/x")], [("train", "t/y"), ("val", "v/z")]]


def test_pairs_are_the_nearest_of_each_earlier_split_up_to_the_limit_and_no_exact_copy():
    images = [
        hashed("train", "a", bits(1, 2, 3)),
        hashed("train", "b", bits(1)),
        hashed("train", "same", bits(9), sha256="S"),
        hashed("val", "c", bits(1, 2)),
        hashed("val", "far", bits(*range(100, 140))),
        hashed("test", "d", bits(1, 5)),
        hashed("test", "copy", bits(9), sha256="S"),
        hashed("test", "plain", None),
    ]
    found = [(pair.distance, pair.image.path, pair.twin.path) for pair in near_duplicates(images, 2)]
    assert found == [(1, "c", "a"), (1, "d", "b"), (2, "copy", "b"), (2, "d", "c")]
    assert not near_duplicates(images, 0)
    assert not near_duplicates(images[:3], 255)


HASH = st.sets(st.integers(0, 254), max_size=3).map(lambda on: bits(*on))


@given(st.lists(HASH, max_size=7), st.lists(HASH, max_size=7), st.integers(0, 5))
def test_pairs_are_those_of_a_search_for_one_image_at_a_time(earlier, later, limit):
    """In blocks, too; equal hashes are images with the same bytes where they start with a set bit."""
    train, val = (
        [hashed(split, f"{split}{at}", value, value.hex() if value[0] else "") for at, value in enumerate(hashes)]
        for split, hashes in (("train", earlier), ("val", later))
    )
    expected = []
    for image in val:
        near = [(distance(image.phash, one.phash), at) for at, one in enumerate(train) if one.sha256 != image.sha256]
        if near and min(near)[0] <= limit:
            expected.append((min(near)[0], image.path, train[min(near)[1]].path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK", 3)
        found = near_duplicates(train + val, limit)
    assert [(pair.distance, pair.image.path, pair.twin.path) for pair in found] == sorted(expected)


def test_random_hashes_of_more_than_a_block_are_compared():
    rng = np.random.default_rng(0)
    train = [hashed("train", f"t{index}", rng.bytes(32)) for index in range(5000)]
    twin = bytes([train[4321].phash[0] ^ 7]) + train[4321].phash[1:]
    (pair,) = near_duplicates([*train, hashed("val", "v", twin)], 40)
    assert (pair.distance, pair.twin.path) == (3, "t4321")


def test_pairs_are_written_nearest_first(tmp_path):
    pairs = [
        Pair(
            distance,
            HashedImage("test", f"test/{distance}.jpg", "a", bits(1)),
            HashedImage("train", "x, y", "b", bits(1)),
        )
        for distance in (3, 17)
    ]
    write_near_duplicates(tmp_path / "pairs.csv", pairs)
    assert (tmp_path / "pairs.csv").read_text().splitlines() == [
        "distance,split,path,other_split,other_path",
        '3,test,test/3.jpg,train,"x, y"',
        '17,test,test/17.jpg,train,"x, y"',
    ]
    write_near_duplicates(tmp_path / "none.csv", [])
    assert (tmp_path / "none.csv").read_text() == "distance,split,path,other_split,other_path\n"


def test_the_stage_lists_changed_copies_in_other_splits(tmp_path):
    root = sound(tmp_path / "set")
    for index in range(20):
        for split, quality in (("train", 95), ("test", 50)):
            put(root / f"images/{split}/copy{index}.jpg", encoded(surface(index), "jpeg", quality=quality))
    assert ingest(root)["near_duplicates"] == 20
    with (tmp_path / "out/tables/near_duplicates.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert {(row["split"], row["path"], row["other_split"], row["other_path"]) for row in listed} == {
        ("test", f"images/test/copy{index}.jpg", "train", f"images/train/copy{index}.jpg") for index in range(20)
    }
    distances = [int(row["distance"]) for row in listed]
    assert distances == sorted(distances) and max(distances) <= 40
