"""COCO's run-length code of parts of an image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from stages.data.boxes import Window
from stages.masks import rle


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.tuples(*[st.integers(0, 5)] * 4))
def test_the_code_of_a_part_is_pycocotools_code_of_the_whole(part, margins):
    left, top, right, bottom = margins
    whole = np.pad(part, ((top, bottom), (left, right)))
    code = rle.encode(part, (left, top), whole.shape)
    assert code == coco.encode(np.asfortranarray(whole, dtype=np.uint8))["counts"]
    np.testing.assert_array_equal(rle.decode(code, whole.shape), whole)


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.data())
def test_a_part_is_decoded_as_pycocotools_decodes_the_whole(mask, data):
    (top, bottom), (left, right) = (
        sorted(data.draw(st.tuples(st.integers(0, side), st.integers(0, side)))) for side in mask.shape
    )
    code = coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    part = rle.decode_part(code, mask.shape, Window(left, top, right, bottom))
    np.testing.assert_array_equal(part, mask[top:bottom, left:right])


def test_long_runs_of_a_large_image_are_decoded():
    """Counts of several characters, rising and falling, so that differences have both signs."""
    whole = np.zeros((3000, 5000), bool)
    whole[100:2900, 40] = whole[7, 41] = whole[20:2999, 4000:4003] = True
    code = coco.encode(np.asfortranarray(whole, dtype=np.uint8))["counts"]
    for part in (Window(0, 0, 5000, 3000), Window(40, 90, 42, 110), Window(3999, 2990, 5000, 3000)):
        found = rle.decode_part(code, whole.shape, part)
        np.testing.assert_array_equal(found, whole[part.y1 : part.y2, part.x1 : part.x2])


@pytest.mark.parametrize("origin_xy", [(18, 0), (0, 10), (-1, 0), (0, -1)])
def test_a_part_that_does_not_fit_is_refused(origin_xy):
    with pytest.raises(ValueError, match="does not fit"):
        rle.encode(np.ones((3, 3), bool), origin_xy, (12, 20))
