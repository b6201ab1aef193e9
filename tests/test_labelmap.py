"""Chosen masks to one class label map: clipping, overlaps, and COCO's code underneath."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from stages.data.boxes import Window, pixels_of_box
from stages.masks import rle
from stages.masks.labelmap import Chosen, fill_boxes, paint

SIZE_HW = (12, 20)
EVERYWHERE = (0.0, 0.0, 20.0, 12.0)


def chosen(x1, y1, x2, y2, class_id=0, box=EVERYWHERE) -> Chosen:
    """A rectangular mask of pixels [x1, x2) x [y1, y2) for `box`."""
    return Chosen(rle.encode(np.ones((y2 - y1, x2 - x1), bool), (x1, y1), SIZE_HW), class_id, box)


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


def test_a_part_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        rle.encode(np.ones((3, 3), bool), (18, 0), SIZE_HW)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((2.0, 3.0, 5.0, 7.0), Window(2, 3, 5, 7)),
        ((2.2, 3.0, 5.3, 7.9), Window(2, 3, 6, 8)),  # every pixel that it touches
        ((1.999, 3.004, 5.004, 6.999), Window(2, 3, 5, 7)),  # rounding of a label file
        ((2.4, 3.2, 2.9, 3.6), Window(2, 3, 3, 4)),  # less than a pixel
        ((19.999, 11.999, 20.0, 12.0), Window(19, 11, 20, 12)),
    ],
)
def test_pixels_of_a_box(box, expected):
    assert pixels_of_box(box, SIZE_HW) == expected


def test_the_margin_is_a_fraction_of_each_side_and_ends_at_the_image():
    assert pixels_of_box((4.0, 2.0, 14.0, 6.0), SIZE_HW, margin=0.5) == Window(0, 0, 19, 8)


def test_masks_are_clipped_to_the_box_and_its_margin():
    spilling = chosen(0, 0, 20, 12, box=(4.0, 2.0, 14.0, 6.0))
    unclipped, clipped, loose = (paint([spilling], SIZE_HW, margin) for margin in (None, 0.0, 0.5))
    assert unclipped.sum() == 12 * 20
    assert clipped.sum() == 10 * 4 and clipped[2:6, 4:14].all()
    assert loose.sum() == 19 * 8 and loose[0:8, 0:19].all()


def test_the_smaller_mask_stays_visible_whatever_the_order():
    large, small = chosen(0, 0, 10, 10, class_id=0), chosen(3, 3, 6, 6, class_id=1)
    for order in ([large, small], [small, large]):
        labels = paint(order, SIZE_HW, None)
        assert (labels == 2).sum() == 9 and (labels == 1).sum() == 91


def test_size_is_compared_after_clipping():
    spilling = chosen(0, 0, 20, 12, class_id=0, box=(3.0, 3.0, 5.0, 5.0))
    plain = chosen(2, 2, 8, 8, class_id=1)
    assert (paint([spilling, plain], SIZE_HW, 0.0) == 1).sum() == 4
    assert (paint([spilling, plain], SIZE_HW, None) == 2).sum() == 36


def test_of_equal_masks_the_later_box_is_on_top():
    first, second = chosen(0, 0, 4, 4, class_id=0), chosen(2, 0, 6, 4, class_id=1)
    labels = paint([first, second], SIZE_HW, None)
    assert (labels == 2).sum() == 16 and (labels == 1).sum() == 8


def test_an_empty_mask_paints_nothing():
    nothing = Chosen(rle.encode(np.zeros((3, 3), bool), (0, 0), SIZE_HW), 0, (2.0, 2.0, 9.0, 9.0))
    assert not paint([nothing], SIZE_HW, 0.0).any()
    assert not paint([], SIZE_HW, 0.0).any()


masks = st.tuples(arrays(bool, SIZE_HW), st.integers(0, 3))


@settings(max_examples=50)
@given(st.lists(masks, max_size=5))
def test_painting_equals_painting_pixel_by_pixel(masks):
    """Reference: at each pixel the smallest mask wins, of equal ones the last."""
    labels = paint([Chosen(rle.encode(mask, (0, 0), SIZE_HW), k, EVERYWHERE) for mask, k in masks], SIZE_HW, 0.0)
    for y, x in np.ndindex(SIZE_HW):
        covering = [(mask.sum(), -index, k) for index, (mask, k) in enumerate(masks) if mask[y, x]]
        assert labels[y, x] == (min(covering)[2] + 1 if covering else 0)


def test_filled_boxes_follow_the_same_overlap_rule():
    boxes = [(3.0, 3.0, 6.0, 6.0), (0.0, 0.0, 10.0, 10.0)]
    labels = fill_boxes([1, 0], boxes, SIZE_HW)
    np.testing.assert_array_equal(labels, paint([chosen(3, 3, 6, 6, 1), chosen(0, 0, 10, 10, 0)], SIZE_HW, None))
