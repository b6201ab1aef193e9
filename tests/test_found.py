"""Defect by defect: regions, groups, what counts as found, what as a false alarm."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.reporting.defects import (
    Defects,
    Group,
    Tally,
    by_class,
    by_size,
    false_alarms,
    gather,
    regions,
    tally,
)

MAPS = arrays(np.uint8, (7, 11), elements=st.sampled_from([0] * 6 + [1, 2, 255]))


def defects_of(areas: list[int]) -> Defects:
    sizes = np.array(areas, dtype=np.int64)
    return Defects(1, np.zeros(len(sizes), np.int64), sizes, {"run": np.zeros((1, len(sizes)))}, {"run": [0]})


def test_touching_corners_are_one_defect_and_touching_classes_are_two():
    truth = np.zeros((5, 9), dtype=np.uint8)
    truth[0, 0] = truth[1, 1] = 1
    truth[1, 2] = 2
    truth[4, 8] = 1
    truth[3, 0] = 255
    index, of_class = regions(truth)
    assert sorted(of_class) == [0, 0, 1]
    assert index[0, 0] == index[1, 1] != index[4, 8]
    assert of_class[index[1, 2] - 1] == 1
    assert index[3, 0] == 0


def test_a_defect_is_found_by_half_of_its_pixels_under_whatever_class():
    truth = np.zeros((6, 10), dtype=np.uint8)
    truth[0, 0:4], truth[2, 0:4], truth[4, 0:4] = 1, 1, 1
    predicted = np.zeros_like(truth)
    predicted[0, 0:2] = 2  # half of it
    predicted[2, 0:1] = 1  # a quarter
    found = gather({"a": truth}, {"run": [{"a": predicted}, {"a": truth}]})
    np.testing.assert_array_equal(found.covered["run"], [[0.5, 0.25, 0], [1, 1, 1]])
    everything = Group("all", np.ones(3, dtype=bool))
    assert tally(found, "run", everything) == Tally(found=4, partly=1, missed=1)
    assert tally(found, "run", everything).total == 6
    assert found.invented["run"] == [0, 0]


def test_a_region_that_touches_no_truth_is_a_false_alarm_unless_it_lies_on_ignored_pixels():
    truth, predicted = np.zeros((2, 8, 12), dtype=np.uint8)
    truth[0:2, 0:2] = 1
    truth[6:8, :] = 255
    predicted[1, 1:5] = 1  # reaches the defect
    predicted[3, 8] = predicted[4, 9] = 2  # one region, by its corner
    predicted[7, 3] = 1  # nobody knows
    assert false_alarms(truth, predicted > 0) == 1


def test_predictions_of_another_size_are_brought_to_the_truths():
    truth = np.zeros((4, 8), dtype=np.uint8)
    truth[:, :4] = 1
    half = np.zeros((2, 2), dtype=np.uint8)
    half[:, 0] = 1
    assert gather({"a": truth}, {"run": [{"a": half}]}).covered["run"].tolist() == [[1.0]]


@given(truth=MAPS, predicted=MAPS)
def test_all_defect_pixels_lie_in_regions_and_the_truth_finds_itself(truth, predicted):
    predicted = np.where(predicted == 255, 0, predicted).astype(np.uint8)
    found = gather({"a": truth}, {"run": [{"a": predicted}], "itself": [{"a": truth * (truth != 255)}]})
    assert found.areas_px.sum() == ((truth > 0) & (truth != 255)).sum()
    assert (found.covered["itself"] == 1).all()
    assert found.invented["itself"] == [0]
    hit = ((truth > 0) & (truth != 255) & (predicted > 0)).sum()
    assert (found.covered["run"][0] * found.areas_px).sum() == pytest.approx(hit)


@given(areas=st.lists(st.integers(1, 50), max_size=40))
def test_every_defect_is_in_one_group_by_size_and_groups_ascend(areas):
    groups = by_size(defects_of(areas))
    assert sum(group.members.astype(int) for group in groups).tolist() == [1] * len(areas) if areas else groups == []
    limits = [(np.array(areas)[group.members].min(), np.array(areas)[group.members].max()) for group in groups]
    assert all(a[1] < b[0] for a, b in pairwise(limits))


def test_groups_by_size_are_quarters_and_say_their_limits():
    groups = by_size(defects_of([1, 2, 3, 4, 50, 60, 700, 1800]))
    assert [group.title for group in groups] == ["1–2 px", "3–4 px", "50–60 px", "700–1,800 px"]
    assert [group.title for group in by_size(defects_of([5, 5, 5]))] == ["5 px"]


def test_a_class_without_a_defect_has_no_group():
    assert [group.title for group in by_class(defects_of([4, 4]), ("dirt", "damage"))] == ["dirt"]


def test_without_a_defect_there_is_nothing_to_group():
    nothing = gather({"a": np.zeros((3, 5), np.uint8)}, {"run": [{"a": np.zeros((3, 5), np.uint8)}]})
    assert nothing.images == 1
    assert by_size(nothing) == by_class(nothing, ("dirt",)) == []
