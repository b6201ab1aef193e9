"""Outlines lie on the edges of pixels: filled at pixel centres they are the mask again, holes apart."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.path import Path as Polygon
from scipy import ndimage

from stages.formats.outlines import Ring, outlines

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 12)))


def filled(ring: Ring, shape: tuple[int, int]) -> np.ndarray:
    """(h, w) bool: pixels with their centre inside `ring`, by the even-odd rule."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    crossings = np.zeros(shape, int)
    for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
        if x1 == x2:
            crossings += (y > min(y1, y2)) & (y < max(y1, y2)) & (x < x1)
    return crossings % 2 == 1


def signed_area(ring: Ring) -> float:
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2


def test_a_pixel_is_a_square():
    assert outlines(np.array([[False, True]])) == ([(2, 0), (2, 1), (1, 1), (1, 0)], [])


def test_corners_in_a_straight_line_are_left_out():
    ring, holes = outlines(np.ones((3, 5), bool))
    assert sorted(ring) == [(0, 0), (0, 3), (5, 0), (5, 3)]
    assert holes == []


def test_pixels_that_touch_at_a_corner_have_one_outline():
    ring, holes = outlines(np.array([[1, 0, 0], [0, 1, 1]], dtype=bool))
    assert signed_area(ring) == 3
    assert ring.count((1, 1)) == 2
    assert holes == []


def test_a_frame_has_one_hole_even_when_it_is_closed_at_a_corner_only():
    frame = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 0]], dtype=bool)
    ring, holes = outlines(frame)
    assert [signed_area(hole) for hole in holes] == [-2]
    assert signed_area(ring) == frame.sum() + 2


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_filling_the_rings_gives_the_mask_back(mask):
    components, count = ndimage.label(mask, np.ones((3, 3)))
    for number in range(1, count + 1):
        part = components == number
        ring, holes = outlines(part)
        solid = filled(ring, part.shape)
        np.testing.assert_array_equal(solid, ndimage.binary_fill_holes(part))
        for hole in holes:
            solid &= ~filled(hole, part.shape)
        np.testing.assert_array_equal(solid, part)
        assert len(holes) == ndimage.label(~np.pad(part, 1))[1] - 1


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_another_reader_of_polygons_agrees(mask):
    components, count = ndimage.label(mask, np.ones((3, 3)))
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    for number in range(1, count + 1):
        part = components == number
        ring, _ = outlines(part)
        inside = Polygon([*ring, ring[0]], closed=True).contains_points(centres).reshape(mask.shape)
        np.testing.assert_array_equal(inside, ndimage.binary_fill_holes(part))
