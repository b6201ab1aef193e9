"""Windows of an image, and where boxes lie in a network's input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils.transforms import ResizeLongestSide

from stages.data.boxes import Window
from stages.teacher.windows import InputFrame, crop_window, input_size_hw, to_input, whole_window

SIZE_HW = (371, 586)


@st.composite
def images_with_box(draw):
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


@given(images_with_box(), st.floats(1.0, 4.0), st.integers(1, 200))
def test_a_crop_lies_in_the_image_and_holds_the_box(image, context, min_px):
    (x1, y1, x2, y2), (height, width) = image
    window = crop_window((x1, y1, x2, y2), (height, width), context, min_px)
    assert 0 <= window.x1 < window.x2 <= width
    assert 0 <= window.y1 < window.y2 <= height
    assert window.x1 <= x1 and x2 <= window.x2 and window.y1 <= y1 and y2 <= window.y2


@given(images_with_box(), st.integers(16, 1024), st.sampled_from(["pad", "stretch"]))
def test_a_box_in_the_window_is_in_the_input_and_its_corners_invert(image, side_px, resize):
    box, size_hw = image
    window = crop_window(box, size_hw, 1.8, 16)
    frame = InputFrame(side_px, resize)
    (height, width) = input_size_hw(window, frame)
    if 0 in (height, width):
        return  # thinner than half an input pixel
    [there] = to_input(np.array([box]), window, frame)
    assert there.min() >= -1e-6 and (there <= np.array([width, height] * 2) + 1e-6).all()
    back = there * ([window.size_hw[1] / width, window.size_hw[0] / height] * 2) + ([window.x1, window.y1] * 2)
    np.testing.assert_allclose(back, box, atol=1e-6)


def test_a_stretched_window_fills_the_input():
    window, frame = Window(10, 20, 60, 45), InputFrame(100, "stretch")
    assert input_size_hw(window, frame) == (100, 100)
    np.testing.assert_array_equal(to_input(np.array([[15, 30, 35, 45]]), window, frame), [[10, 40, 50, 100]])


@pytest.mark.parametrize("size_hw", [(371, 586), (586, 371), (64, 64), (1024, 300), (33, 250)])
def test_the_whole_window_is_resized_as_by_segment_anything(size_hw):
    window, frame = whole_window(size_hw), InputFrame(160, "pad")
    boxes = np.array([[3.5, 4.0, 20.25, 30.0], [0.0, 0.0, 33.0, 33.0]])
    official = ResizeLongestSide(160)
    assert input_size_hw(window, frame) == official.get_preprocess_shape(*size_hw, 160)
    np.testing.assert_allclose(to_input(boxes, window, frame), official.apply_boxes(boxes, size_hw))
