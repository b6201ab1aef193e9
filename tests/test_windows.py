"""Windows of an image, and boxes on the way into and out of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils.transforms import ResizeLongestSide

from stages.data.boxes import Window
from stages.teacher.windows import crop_window, from_view, input_size_hw, to_view, whole_window

SIZE_HW = (371, 586)


@st.composite
def photos_with_box(draw):
    """(box_xyxy, size_hw) with the box inside the image."""
    height, width = draw(st.integers(1, 900)), draw(st.integers(1, 900))
    xs = sorted(draw(st.tuples(st.floats(0, width), st.floats(0, width))))
    ys = sorted(draw(st.tuples(st.floats(0, height), st.floats(0, height))))
    return (xs[0], ys[0], xs[1], ys[1]), (height, width)


def test_a_crop_is_a_square_around_the_box():
    window = crop_window((100, 200, 140, 220), SIZE_HW, context=2.0, min_px=16)
    assert window == Window(80, 170, 161, 251)  # side 2 * 40 + 1 for a centre between pixels


def test_a_small_box_gets_the_least_side():
    assert crop_window((100, 200, 104, 202), SIZE_HW, context=2.0, min_px=32).size_hw == (32, 32)


def test_a_crop_at_the_border_is_shifted_inside():
    window = crop_window((570, 0, 586, 16), SIZE_HW, context=3.0, min_px=16)
    assert window == Window(586 - 49, 0, 586, 49)


def test_a_crop_larger_than_the_image_is_cut_on_that_axis_alone():
    window = crop_window((100, 10, 400, 20), SIZE_HW, context=1.5, min_px=16)
    assert (window.y1, window.y2) == (0, 371)
    assert window.x2 - window.x1 == 451


@given(photos_with_box(), st.floats(1.0, 4.0), st.integers(1, 200))
def test_a_crop_lies_in_the_image_and_holds_the_box(photo, context, min_px):
    (x1, y1, x2, y2), (height, width) = photo
    window = crop_window((x1, y1, x2, y2), (height, width), context, min_px)
    assert 0 <= window.x1 < window.x2 <= width
    assert 0 <= window.y1 < window.y2 <= height
    assert window.x1 <= x1 and x2 <= window.x2 and window.y1 <= y1 and y2 <= window.y2


@given(photos_with_box(), st.integers(16, 1024))
def test_there_and_back_is_the_same_box(photo, image_size):
    box, size_hw = photo
    window = crop_window(box, size_hw, 1.8, 16)
    if 0 in input_size_hw(window, image_size):
        return  # thinner than half an input pixel: nothing to see
    there = to_view(np.array([box]), window, image_size)
    assert there.min() >= -1e-6 and there.max() <= image_size + 1e-6
    np.testing.assert_allclose(from_view(there, window, image_size)[0], box, atol=1e-6)


@pytest.mark.parametrize("size_hw", [(371, 586), (586, 371), (64, 64), (1024, 300), (33, 250)])
def test_the_whole_view_is_what_segment_anything_sees(size_hw):
    window, boxes = whole_window(size_hw), np.array([[3.5, 4.0, 20.25, 30.0], [0.0, 0.0, 33.0, 33.0]])
    official = ResizeLongestSide(160)
    assert input_size_hw(window, 160) == official.get_preprocess_shape(*size_hw, 160)
    np.testing.assert_allclose(to_view(boxes, window, 160), official.apply_boxes(boxes, size_hw))
