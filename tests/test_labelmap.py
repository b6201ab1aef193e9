"""Chosen masks to one class label map: choice, clipping, overlaps."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.masks import rle
from stages.masks.labelmap import Chosen, candidate_rows, choose, draw_label_map, fill_boxes

SIZE_HW = (12, 20)
EVERYWHERE = (0.0, 0.0, 20.0, 12.0)


def chosen(x1, y1, x2, y2, class_id=0, box=EVERYWHERE) -> Chosen:
    """A rectangular mask of pixels [x1, x2) x [y1, y2) for `box`."""
    return Chosen(rle.encode(np.ones((y2 - y1, x2 - x1), bool), (x1, y1), SIZE_HW), class_id, box)


def test_best_leaves_the_single_output_aside():
    assert choose(np.array([0.9, 0.2, 0.5, 0.5]), "best") == 2
    assert choose(np.array([0.1, 0.2, 0.5, 0.5]), "single") == 0
    assert choose(np.array([0.1, 0.2, 0.5, 0.5, 0.9]), "best") == 2, "the refined mask is not the teacher's own"
    assert choose(np.array([0.1, 0.2, 0.5, 0.5, 0.1]), "refined") == 4


def test_each_box_gets_the_next_five_candidates_and_one_of_them_is_chosen():
    keys = ("box_id", "image_id", "class_id", "x1", "y1", "x2", "y2")
    boxes = [dict.fromkeys(keys, number) | {"mask": None} for number in range(2)]
    found = [{"cand_idx": index, "sam_pred_iou": score} for index, score in enumerate([0.9, 0.2, 0.5, 0.1, 0.9] * 2)]
    rows = candidate_rows(boxes, found, "best")
    assert [row["box_id"] for row in rows] == [0] * 5 + [1] * 5
    assert [row["cand_idx"] for row in rows] == list(range(10))
    assert [index for index, row in enumerate(rows) if row["chosen"]] == [2, 7]
    assert set(rows[0]) == {*keys, "cand_idx", "sam_pred_iou", "chosen"}


def test_masks_are_clipped_to_the_box_and_its_margin():
    spilling = chosen(0, 0, 20, 12, box=(4.0, 2.0, 14.0, 6.0))
    unclipped, clipped, loose = (draw_label_map([spilling], SIZE_HW, margin) for margin in (None, 0.0, 0.5))
    assert unclipped.sum() == 12 * 20
    assert clipped.sum() == 10 * 4 and clipped[2:6, 4:14].all()
    assert loose.sum() == 19 * 8 and loose[0:8, 0:19].all()


def test_the_smaller_mask_stays_visible_whatever_the_order():
    large, small = chosen(0, 0, 10, 10, class_id=0), chosen(3, 3, 6, 6, class_id=1)
    for order in ([large, small], [small, large]):
        labels = draw_label_map(order, SIZE_HW, None)
        assert (labels == 2).sum() == 9 and (labels == 1).sum() == 91


def test_size_is_compared_after_clipping():
    spilling = chosen(0, 0, 20, 12, class_id=0, box=(3.0, 3.0, 5.0, 5.0))
    plain = chosen(2, 2, 8, 8, class_id=1)
    assert (draw_label_map([spilling, plain], SIZE_HW, 0.0) == 1).sum() == 4
    assert (draw_label_map([spilling, plain], SIZE_HW, None) == 2).sum() == 36


def test_of_equal_masks_the_later_box_is_on_top():
    first, second = chosen(0, 0, 4, 4, class_id=0), chosen(2, 0, 6, 4, class_id=1)
    labels = draw_label_map([first, second], SIZE_HW, None)
    assert (labels == 2).sum() == 16 and (labels == 1).sum() == 8


def test_an_empty_mask_labels_no_pixel():
    nothing = Chosen(rle.encode(np.zeros((3, 3), bool), (0, 0), SIZE_HW), 0, (2.0, 2.0, 9.0, 9.0))
    assert not draw_label_map([nothing], SIZE_HW, 0.0).any()
    assert not draw_label_map([], SIZE_HW, 0.0).any()


masks = st.tuples(arrays(bool, SIZE_HW), st.integers(0, 3))


@settings(max_examples=50)
@given(st.lists(masks, max_size=5))
def test_the_label_map_equals_a_rule_pixel_by_pixel(masks):
    """Reference: at each pixel the smallest mask wins, of equal ones the last."""
    each = [Chosen(rle.encode(mask, (0, 0), SIZE_HW), k, EVERYWHERE) for mask, k in masks]
    labels = draw_label_map(each, SIZE_HW, 0.0)
    for y, x in np.ndindex(SIZE_HW):
        covering = [(mask.sum(), -index, k) for index, (mask, k) in enumerate(masks) if mask[y, x]]
        assert labels[y, x] == (min(covering)[2] + 1 if covering else 0)


def test_filled_boxes_follow_the_same_overlap_rule():
    boxes = [(3.0, 3.0, 6.0, 6.0), (0.0, 0.0, 10.0, 10.0)]
    labels = fill_boxes([1, 0], boxes, SIZE_HW)
    masks = [chosen(3, 3, 6, 6, 1), chosen(0, 0, 10, 10, 0)]
    np.testing.assert_array_equal(labels, draw_label_map(masks, SIZE_HW, None))
