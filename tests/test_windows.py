"""Windows of an image, and where boxes lie in a network's input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils.transforms import ResizeLongestSide

from stages.data.boxes import Window, pixels_of_box
from stages.teacher.windows import (
    MAX_PIECES,
    InputFrame,
    View,
    crop_window,
    grown,
    input_size_hw,
    to_input,
    views_of,
    whole_window,
    window_of,
)
from tests.support.tiny_teacher import params_of

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


def test_a_strip_keeps_a_row_however_long_it_is():
    """Where segment_anything's own rule rounds its rows to none."""
    assert ResizeLongestSide(160).get_preprocess_shape(16, 8192, 160) == (0, 160)
    assert input_size_hw(Window(5, 7, 8197, 23), InputFrame(160, "pad")) == (1, 160)


def test_a_box_grows_and_shrinks_on_each_side_within_the_image():
    assert grown((10.0, 20.0, 30.0, 60.0), (62, 100), 0.1) == (8.0, 16.0, 32.0, 62.0)
    assert grown((10.0, 20.0, 30.0, 60.0), (62, 100), -0.25) == (15.0, 30.0, 25.0, 50.0)
    assert grown((10.0, 20.0, 30.0, 60.0), (62, 100), 0.0) == (10.0, 20.0, 30.0, 60.0)


@given(images_with_box(), st.floats(0.1, 3.0), st.sampled_from(["crop", "whole"]), st.sampled_from([64, 120, 1024]))
def test_pieces_cover_the_box_at_the_least_scale_in_a_bounded_number(image, min_scale, view, side_px):
    box, size_hw = image
    params = params_of(view=view, min_scale=min_scale)
    views = views_of(box, size_hw, params, InputFrame(side_px, "pad"))
    assert views[0] == View(window_of(box, size_hw, params), box, window_of(box, size_hw, params))
    assert len(views) <= 1 + MAX_PIECES
    if len(views) == 1:
        return
    views = views[1:]
    assert (views[0].box_xyxy[:2], views[-1].box_xyxy[2:]) == (box[:2], pytest.approx(box[2:], abs=1e-6))
    covered = np.zeros(size_hw, bool)
    for window, _, part in views:
        assert window.x1 <= part.x1 < part.x2 <= window.x2 and window.y1 <= part.y1 < part.y2 <= window.y2
        covered[part.y1 : part.y2, part.x1 : part.x2] = True
    inside = pixels_of_box(box, size_hw)
    assert covered[inside.y1 : inside.y2, inside.x1 : inside.x2].all()
    if len(views) < 30:  # far from the bound
        assert side_px / max(max(view.window.size_hw) for view in views) >= min_scale * (1 - 3 / side_px) - 0.05


def test_pieces_of_a_wide_box_by_hand():
    # side 100, so pieces of at most 98 / 1.3 = 75.38 px: 400 px need 1 + ceil(324.62 / 56.54) = 7, 50 px need one
    _, *views = views_of((30, 20, 430, 70), (200, 500), params_of(view="crop", min_scale=1.0), InputFrame(100, "pad"))
    assert len(views) == 7
    assert [view.box_xyxy[0] for view in views] == pytest.approx([30 + 324.615 / 6 * n for n in range(7)], abs=1e-2)
    assert {view.window.size_hw for view in views} == {(100, 100)}


@pytest.mark.parametrize(("min_scale", "count"), [(None, 1), (0.5, 1), (0.51, 5)])
def test_a_box_is_cut_only_where_its_view_is_scaled_below(min_scale, count):
    params = params_of(view="whole", min_scale=min_scale)
    views = views_of((0, 0, 200, 200), (200, 200), params, InputFrame(100, "pad"))
    assert len(views) == count
    assert views[0].window == whole_window((200, 200))
