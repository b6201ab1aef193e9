"""Outlines lie on the edges of pixels: filled at pixel centres they are the mask with its holes filled."""

from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as cocomask
from scipy import ndimage

from stages.formats.yolo import Ring, outline

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
    assert outline(np.array([[False, True]])) == [(2, 0), (2, 1), (1, 1), (1, 0)]


def test_corners_in_a_straight_line_are_left_out():
    assert sorted(outline(np.ones((3, 5), bool))) == [(0, 0), (0, 3), (5, 0), (5, 3)]


def test_pixels_that_touch_at_a_corner_have_one_outline():
    ring = outline(np.array([[1, 0, 0], [0, 1, 1]], dtype=bool))
    assert signed_area(ring) == 3
    assert ring.count((1, 1)) == 2


def test_a_hole_is_filled_even_when_it_is_closed_at_a_corner_only():
    frame = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 0]], dtype=bool)
    assert signed_area(outline(frame)) == frame.sum() + 2


def parts_of(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Each 8-connected region of (h, w) bool `mask`."""
    components, count = ndimage.label(mask, np.ones((3, 3)))
    yield from (components == number for number in range(1, count + 1))


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_a_filled_outline_is_the_mask_with_its_holes_filled(mask):
    for part in parts_of(mask):
        np.testing.assert_array_equal(filled(outline(part), part.shape), ndimage.binary_fill_holes(part))


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_pycocotools_fills_an_outline_alike(mask):
    for part in parts_of(mask):
        polygon = np.array(outline(part), dtype=float).ravel().tolist()
        (code,) = cocomask.frPyObjects([polygon], *mask.shape)
        np.testing.assert_array_equal(cocomask.decode(code), ndimage.binary_fill_holes(part))
