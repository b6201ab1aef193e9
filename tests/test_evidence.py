"""Evidence for a mask: how its pixels differ from what surrounds them, and what the other candidates say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.teacher.evidence import evidence, separation, surroundings


def test_separation_by_hand():
    levels = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    brightest = levels >= 50
    assert separation(levels, brightest) == 1
    assert separation(levels, ~brightest) == 1, "darker counts like brighter"
    # of 2 x 4 pairs the mask is brighter in 1 + 2
    assert separation(levels, np.isin(levels, (20, 40))) == pytest.approx(abs(2 * 3 / 8 - 1))
    assert separation(levels, np.isin(levels, (20, 60))) == pytest.approx(2 * (1 + 4) / 8 - 1)


def test_separation_is_0_for_equal_pixels_and_where_a_side_is_empty():
    flat = np.full((4, 5), 7, np.uint8)
    half = np.arange(20).reshape(4, 5) < 10
    assert separation(flat, half) == 0
    assert separation(np.arange(20, dtype=np.uint8).reshape(4, 5), np.zeros((4, 5), bool)) == 0
    assert separation(np.arange(20, dtype=np.uint8).reshape(4, 5), np.ones((4, 5), bool)) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 255))
def test_separation_equals_all_pairs_compared(seed, span):
    draw = np.random.default_rng(seed)
    levels, mask = draw.integers(0, span, (6, 9)).astype(np.uint8), draw.random((6, 9)) < 0.3
    mask.flat[:2] = True, False
    inside, outside = levels[mask].astype(int), levels[~mask].astype(int)
    wins = (inside[:, None] > outside).sum() + (inside[:, None] == outside).sum() / 2
    assert separation(levels, mask) == pytest.approx(abs(2 * wins / (len(inside) * len(outside)) - 1))


def test_candidates_are_compared_inside_the_box_with_its_surroundings():
    """A bright block of 6 x 8 in a box of 10 x 12; the second candidate is half of the first, the third is empty."""
    image = np.zeros((40, 50, 3), np.uint8)
    image[12:18, 22:30] = 200
    masks = [np.ones((6, 8), bool), np.ones((3, 8), bool), np.zeros((0, 0), bool)]
    origins = [(22, 12), (22, 12), (0, 0)]
    place = surroundings(image, (20.0, 10.0, 32.0, 20.0))
    found = evidence(place.levels, [place.show(mask, origin) for mask, origin in zip(masks, origins, strict=True)])
    assert [one["separation"] for one in found] == [1, pytest.approx(1 - 24 / (16 * 18 - 24)), 0]
    assert [one["agreement"] for one in found] == [pytest.approx(0.5), pytest.approx(0.5), 0]


def test_mask_pixels_outside_the_box_count_as_surroundings():
    image = np.zeros((40, 50, 3), np.uint8)
    image[10:20, 20:32] = 200
    place = surroundings(image, (20.0, 10.0, 32.0, 20.0))
    larger, exact = place.show(np.ones((30, 40), bool), (5, 5)), place.show(np.ones((10, 12), bool), (20, 10))
    assert (larger == exact).all()
    assert evidence(place.levels, [exact]) == [{"separation": 1.0, "agreement": 1.0}], "a filled box"
