"""Which images the report shows, in which order, and the error of each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.reporting.cases import agreement, split_sizes, spread, worst_first


def test_worst_first_orders_by_error_then_by_wrong_pixels_with_clean_images_last():
    fn_small, fn_large = [[90, 0], [3, 0]], [[80, 0], [20, 0]]
    half, clean, false_positive = [[80, 5], [0, 5]], [[99, 0], [0, 0]], [[98, 1], [0, 0]]
    counts = np.array([clean, half, fn_small, fn_large, false_positive])
    assert worst_first(["clean", "half", "small", "large", "false_positive"], counts) == [
        "large",
        "small",
        "false_positive",
        "half",
        "clean",
    ]


@given(length=st.integers(0, 60), count=st.integers(0, 24))
def test_a_spread_keeps_order_starts_at_the_front_and_reaches_the_end(length, count):
    items = [f"{index:02d}" for index in range(length)]
    chosen = spread(items, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(length, count)
    assert chosen[: len(chosen) // 2] == items[: len(chosen) // 2]
    if 2 <= count <= length:
        assert chosen[-1] == items[-1]


@given(test=st.integers(0, 40), val=st.integers(0, 40), total=st.integers(0, 24))
def test_both_splits_together_use_every_image_that_there_is(test, val, total):
    chosen = split_sizes({"test": test, "val": val}, total)
    assert 0 <= chosen["test"] <= test
    assert 0 <= chosen["val"] <= val
    assert sum(chosen.values()) == min(total, test + val)


def test_the_error_is_against_truth_where_there_is_any_else_against_the_teacher():
    teacher, student, truth = (np.zeros((4, 6), dtype=np.uint8) for _ in range(3))
    truth[0, :4], teacher[0, :2], student[0, 1:5] = 1, 1, 2
    with_truth = agreement(teacher, student, truth, 2)
    assert with_truth == (True, 3 / 5, 2 / 4, 1, 1)
    assert with_truth.error == pytest.approx(0.4)
    without = agreement(teacher, student, None, 2)
    assert without == (False, 1 / 5, None, 1, 3)
    assert agreement(truth * 0, truth * 0, None, 2).error is None


def test_pixels_that_a_person_left_unknown_say_nothing_about_the_teacher():
    teacher, student, truth = (np.zeros((4, 6), dtype=np.uint8) for _ in range(3))
    truth[0, :4], teacher[0, :2], teacher[0, 2:] = 1, 1, 255
    assert agreement(teacher, student, truth, 2) == (True, 0, 1, 4, 0)
    assert agreement(teacher, student, None, 2) == (False, 0, None, 2, 0)
