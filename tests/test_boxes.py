"""Boxes and windows in pixels."""

import pytest

from stages.data.boxes import Window, box_iou, centre_line, pixels_of_box

SIZE_HW = (12, 20)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((2.0, 3.0, 5.0, 7.0), Window(2, 3, 5, 7)),
        ((2.2, 3.0, 5.3, 7.9), Window(2, 3, 6, 8)),  # every pixel that it touches
        ((1.98, 3.0, 5.02, 7.0), Window(1, 3, 6, 7)),
        ((1.999, 3.004, 5.004, 6.999), Window(2, 3, 5, 7)),  # rounding of a label file
        ((2.4, 3.2, 2.9, 3.6), Window(2, 3, 3, 4)),  # less than a pixel
        ((19.999, 11.999, 20.0, 12.0), Window(19, 11, 20, 12)),
    ],
)
def test_pixels_of_a_box(box, expected):
    assert pixels_of_box(box, SIZE_HW) == expected


def test_the_margin_is_a_fraction_of_each_side_and_ends_at_the_image():
    assert pixels_of_box((4.0, 2.0, 14.0, 6.0), SIZE_HW, margin=0.5) == Window(0, 0, 19, 8)


@pytest.mark.parametrize(
    ("box", "place", "expected"),
    [
        ((2.0, 3.0, 8.0, 6.9), Window(1, 2, 9, 8), Window(1, 4, 9, 5)),
        ((2.0, 3.0, 5.7, 9.0), Window(1, 2, 7, 10), Window(3, 2, 4, 10)),
        ((2.0, 3.0, 6.0, 7.0), Window(2, 3, 6, 7), Window(2, 5, 6, 6)),  # a square: its row
        ((2.0, 3.0, 8.0, 6.0), Window(2, 5, 8, 9), Window(2, 4, 8, 4)),  # the middle is above the place
        ((2.0, 3.0, 8.0, 6.0), Window(2, 1, 8, 4), Window(2, 4, 8, 4)),  # and just below it
        ((2.0, 3.0, 5.0, 9.0), Window(4, 3, 7, 9), Window(3, 3, 3, 9)),
        ((2.0, 3.0, 5.0, 9.0), Window(1, 3, 3, 9), Window(3, 3, 3, 9)),
    ],
)
def test_the_middle_of_a_box_along_its_longer_side(box, place, expected):
    assert centre_line(box, place) == expected


def test_box_iou_by_hand():
    assert box_iou((0, 0, 4, 2), (2, 1, 6, 5)) == pytest.approx(2 / (8 + 16 - 2))
    assert box_iou((0, 0, 4, 2), (5, 0, 6, 2)) == 0
    assert box_iou((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.25)) == 0.5
    assert box_iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0
