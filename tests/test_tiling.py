"""Images of any size: tiles cover everything, blend without seams, and take bounded memory."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.student.config import ViewParams
from stages.student.decision import Decision
from stages.student.tiling import OVERLAP, RunTiles, predict, taper, tile_starts


@given(length=st.integers(56, 6000), tile=st.sampled_from([56, 112, 224, 518]))
def test_tiles_cover_the_length_and_overlap(length, tile):
    length = max(length, tile)
    starts = tile_starts(length, tile)
    assert starts[0] == 0
    assert starts[-1] == length - tile
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= tile * (1 - OVERLAP) + 1).all()


def test_neighbours_share_a_quarter_of_a_tile_in_which_the_weight_rises():
    assert tile_starts(200, 56) == [0, 36, 72, 108, 144]  # steps of at most 42
    assert taper(8)[3].tolist() == [0.25, 0.75, 1, 1, 1, 1, 0.75, 0.25]


@pytest.mark.parametrize("tile", [28, 56, 112, 518])
def test_the_blending_weight_equals_torchs_formula(tile):
    position = torch.arange(tile) + 0.5
    ramp = (torch.minimum(position, tile - position) / (tile * OVERLAP)).clamp(max=1)
    np.testing.assert_array_equal(taper(tile), (ramp[:, None] * ramp[None, :]).numpy())


def by_pixel(images: np.ndarray) -> np.ndarray:
    """Logits (N, 3, H, W) that depend on each pixel alone, so that tiles must not show at all."""
    red, green, blue = np.moveaxis(images.astype(np.float32) / 255, -1, 0)
    return np.stack([red * 2, green - 1, blue * 3], axis=1)


@pytest.mark.parametrize("size_hw", [(56, 56), (57, 200), (131, 56), (30, 170), (13, 9)])
def test_tiles_blend_without_a_seam(size_hw):
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    wanted = torch.from_numpy(by_pixel(image[None])[0]).softmax(0).numpy()
    labels, confidence = predict(by_pixel, image, 2, ViewParams(scale="native", size_px=56))
    assert (labels.shape, labels.dtype, confidence.dtype) == (size_hw, np.uint8, np.float32)
    np.testing.assert_allclose(confidence, wanted.max(0), atol=1e-5)
    # not argmax: where two classes are equal, rounding decides
    np.testing.assert_allclose(np.take_along_axis(wanted, labels[None], 0)[0], wanted.max(0), atol=1e-5)


def red(classes: int) -> RunTiles:
    """Class 1 where a pixel is red, else background."""

    def run(tiles: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(tiles), classes + 1, *tiles.shape[1:3]), np.float32)
        logits[:, 1] = (tiles[..., 0] - 128) / 16
        return logits

    return run


@pytest.mark.parametrize("scale", ["native", "stretch"])
def test_an_output_that_is_not_finite_is_refused(scale):
    def damaged(tiles: np.ndarray) -> np.ndarray:
        logits = by_pixel(tiles)
        logits[-1, 1, 20, 30] = np.nan
        return logits

    with pytest.raises(UserError, match="the network's output is not finite"):
        predict(damaged, np.zeros((57, 200, 3), np.uint8), 2, ViewParams(scale=scale, size_px=56))


def test_regions_are_dropped_by_their_size_in_the_whole_image_not_in_a_strip():
    """One of 2 x 3 pixels, and one of 1 x 9 of which no strip of tiles has more than 6."""
    image = np.zeros((100, 80, 3), np.uint8)
    image[10:12, 5:8, 0] = image[38:47, 60, 0] = 255
    view, large = ViewParams(scale="native", size_px=56), np.zeros((100, 80))
    large[38:47, 60] = 1
    assert tile_starts(100, 56) == [0, 22, 44]
    labels = predict(red(1), image, 1, view, Decision(least_area_px=[7])).labels
    np.testing.assert_array_equal(labels, large)


def test_a_small_defect_on_a_large_image_is_neither_scaled_away_nor_moved():
    image = np.zeros((1485, 2640, 3), np.uint8)
    image[700:720, 1301:1313, 0] = 255
    labels, confidence = predict(red(1), image, 1, ViewParams(scale="native", size_px=518))
    np.testing.assert_array_equal(labels, image[..., 0] > 0)
    assert confidence.min() > 0.99


@pytest.mark.parametrize(
    ("classes", "size_px", "at_once"),
    [(1, 112, 8), (29, 518, 8), (30, 518, 8), (40, 518, 6), (254, 518, 1), (254, 112, 8)],
)
def test_fewer_tiles_run_at_once_where_many_classes_make_them_large(classes, size_px, at_once):
    calls = []

    def run(tiles: np.ndarray) -> np.ndarray:
        calls.append(len(tiles))
        return np.broadcast_to(np.float32(0), (len(tiles), classes + 1, size_px, size_px))

    predict(
        run,
        np.zeros((size_px, (at_once + 1) * size_px, 3), np.uint8),
        classes,
        ViewParams(scale="native", size_px=size_px),
    )
    assert max(calls) == at_once
    assert (
        at_once in (1, 8) or (at_once + 1) * (classes + 1) * size_px**2 > 2**26 >= at_once * (classes + 1) * size_px**2
    )


def test_memory_is_bounded_by_a_strip_not_by_classes_times_the_image():
    image = np.zeros((2000, 900, 3), np.uint8)
    tracemalloc.start()
    predict(red(20), image, 20, ViewParams(scale="native", size_px=112))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    all_classes = 21 * 4 * image.shape[0] * image.shape[1]
    assert peak < all_classes / 3, f"{peak:,} bytes; the probabilities of all classes would take {all_classes:,}"
