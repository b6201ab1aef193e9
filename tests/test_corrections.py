"""What students make of the teacher's errors: rescued, lost, dropped and added."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.defect_metrics import IOUS, outcome
from stages.evaluation.matching import overlaps
from stages.reporting.corrections import KINDS, corrected_defects, corrected_pixels, summarise_corrections

TRUTHS = arrays(np.uint8, (7, 11), elements=st.sampled_from([0, 0, 0, 1, 1, 2, 255]))
MAPS = arrays(np.uint8, (7, 11), elements=st.sampled_from([0, 0, 1, 2]))


def in_defects(truth: np.ndarray, teacher: np.ndarray, student: np.ndarray, iou: float) -> np.ndarray:
    told, found = outcome(truth, teacher), outcome(truth, student)
    return corrected_defects(told, found, overlaps(told.predicted, found.predicted), iou)


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four defects and three inventions; the last rows are ignored."""
    truth, teacher, student = np.zeros((3, 12, 30), dtype=np.uint8)
    truth[0, 0:4] = truth[2, 0:4] = truth[4, 0:4] = truth[6, 0:4] = 1
    teacher[0, 0:4] = teacher[2, 0:4] = 1  # has two of the four
    student[2, 0:4] = student[4, 0:4] = 2  # loses one, rescues one
    teacher[0, 10:15] = teacher[4, 10:14] = 2  # two inventions
    student[4, 10:14] = 1  # keeps one
    student[8, 20:26] = 1  # and has one of its own
    truth[10:, :] = 255
    teacher[11, :], student[11, 3:9] = 1, 2
    return truth, teacher, student


def test_by_hand_in_pixels_and_in_defects():
    truth, teacher, student = scene()
    assert corrected_pixels(truth, teacher, student).tolist() == [[4, 8], [4, 8], [5, 9], [6, 10]]
    for iou in IOUS:
        assert in_defects(truth, teacher, student, iou).tolist() == [[1, 2], [1, 2], [1, 2], [1, 2]]


def test_an_invention_is_kept_by_a_false_alarm_that_is_much_the_same_and_not_by_a_hit():
    truth, teacher, student = np.zeros((3, 6, 40), dtype=np.uint8)
    truth[0, 0:10] = 1
    teacher[0, 0:25] = 1  # IoU 0.4: an invention by the stricter rule
    student[0, 0:14] = 1  # 0.71: a hit, though it has an IoU of 0.56 with the teacher's region
    teacher[4, 0:20] = 2
    student[4, 0:4] = 2  # a fifth of the invention
    assert in_defects(truth, teacher, student, 0.5).tolist() == [[1, 1], [0, 0], [2, 2], [1, 1]]
    assert in_defects(truth, teacher, student, 0.1).tolist() == [[0, 0], [0, 1], [0, 1], [0, 1]]


@given(truth=TRUTHS, teacher=MAPS, student=MAPS)
def test_in_pixels_it_is_what_counting_one_by_one_gives(truth, teacher, student):
    cells = [tuple(map(int, cell)) for cell in zip(truth.flat, teacher.flat, student.flat, strict=True)]
    cells = [(t > 0, a > 0, b > 0) for t, a, b in cells if t != 255]
    expected = [
        [cells.count((True, False, True)), sum(t and not a for t, a, _ in cells)],
        [cells.count((True, True, False)), sum(t and a for t, a, _ in cells)],
        [cells.count((False, True, False)), sum(a and not t for t, a, _ in cells)],
        [cells.count((False, False, True)), sum(b and not t for t, _, b in cells)],
    ]
    assert corrected_pixels(truth, teacher, student).tolist() == expected


@given(truth=TRUTHS, teacher=MAPS, student=MAPS)
def test_parts_are_parts_and_the_sums_come_out(truth, teacher, student):
    by_iou = [(iou, in_defects(truth, teacher, student, iou)) for iou in IOUS]
    for iou, counts in [(None, corrected_pixels(truth, teacher, student)), *by_iou]:
        (rescued, missed), (lost, hits), (dropped, invented), (added, own) = counts
        assert 0 <= rescued <= missed
        assert 0 <= lost <= hits
        assert 0 <= dropped <= invented
        assert 0 <= added <= own
        assert own == invented - dropped + added
        if iou is not None:
            found = outcome(truth, student)
            assert missed + hits == len(found.true)
            assert hits + rescued - lost == (found.true_iou >= iou).sum()
            assert own == (found.predicted_iou < iou).sum()


@given(truth=TRUTHS, teacher=MAPS)
def test_a_copy_of_the_teacher_changes_nothing_and_the_truth_repairs_all(truth, teacher):
    counts = [corrected_pixels(truth, teacher, teacher), *(in_defects(truth, teacher, teacher, iou) for iou in IOUS)]
    assert all((own[:, 0] == 0).all() for own in counts)
    exact = np.where(truth == 255, 0, truth)
    counts = [corrected_pixels(truth, teacher, exact), *(in_defects(truth, teacher, exact, iou) for iou in IOUS)]
    for own in counts:
        (rescued, missed), (lost, _), (dropped, invented), (_, alarms) = own
        assert (rescued, lost, dropped, alarms) == (missed, 0, invented, 0)


def test_shares_are_of_sums_over_images_and_means_over_seeds_with_their_interval():
    counts = np.zeros((20, 2, 4, 2), dtype=np.int64)
    counts[:, 0, 0], counts[:, 1, 0] = (2, 4), (1, 4)
    counts[:10, :, 1] = 3, 3
    figures = summarise_corrections(counts, BootstrapParams(samples=200, seed=1))
    assert list(figures) == list(KINDS)
    assert (figures["rescued"]["part"], figures["rescued"]["whole"]) == (30, 80)
    assert figures["rescued"]["share"] == pytest.approx(0.375)
    assert (figures["rescued"]["low"], figures["rescued"]["high"]) == (0.25, 0.5)
    assert (figures["lost"]["share"], figures["lost"]["low"], figures["lost"]["high"]) == (1, 1, 1)
    nothing = {"part": 0, "whole": 0, "share": None, "low": None, "high": None}
    assert figures["dropped"] == figures["added"] == nothing
