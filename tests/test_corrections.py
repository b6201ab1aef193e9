"""What students make of the teacher's errors: recovered, lost, removed and added."""

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
    first, second = outcome(truth, teacher), outcome(truth, student)
    return corrected_defects(first, second, overlaps(first.predicted, second.predicted), iou)


def maps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four defects and three false positives; the last rows are ignored."""
    truth, teacher, student = np.zeros((3, 12, 30), dtype=np.uint8)
    truth[0, 0:4] = truth[2, 0:4] = truth[4, 0:4] = truth[6, 0:4] = 1
    teacher[0, 0:4] = teacher[2, 0:4] = 1  # has two of the four
    student[2, 0:4] = student[4, 0:4] = 2  # loses one, recovers one
    teacher[0, 10:15] = teacher[4, 10:14] = 2  # two false positives
    student[4, 10:14] = 1  # keeps one
    student[8, 20:26] = 1  # and has one of its own
    truth[10:, :] = 255
    teacher[11, :], student[11, 3:9] = 1, 2
    return truth, teacher, student


def test_by_hand_in_pixels_and_in_defects():
    truth, teacher, student = maps()
    assert corrected_pixels(truth, teacher, student).tolist() == [[4, 8], [4, 8], [5, 9], [6, 10]]
    for iou in IOUS:
        assert in_defects(truth, teacher, student, iou).tolist() == [[1, 2], [1, 2], [1, 2], [1, 2]]


def test_a_false_positive_is_the_same_in_both_where_regions_match_and_not_in_a_true_positive():
    truth, teacher, student = np.zeros((3, 6, 40), dtype=np.uint8)
    truth[0, 0:10] = 1
    teacher[0, 0:25] = 1  # IoU 0.4: a false positive by the stricter rule
    student[0, 0:14] = 1  # 0.71: a true positive, though it has an IoU of 0.56 with the teacher's region
    teacher[4, 0:20] = 2
    student[4, 0:4] = 2  # a fifth of the false positive
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
        (recovered, undetected), (lost, hits), (removed, false), (added, own) = counts
        assert 0 <= recovered <= undetected
        assert 0 <= lost <= hits
        assert 0 <= removed <= false
        assert 0 <= added <= own
        assert own == false - removed + added
        if iou is not None:
            found = outcome(truth, student)
            assert undetected + hits == len(found.true)
            assert hits + recovered - lost == (found.true_iou >= iou).sum()
            assert own == (found.predicted_iou < iou).sum()


@given(truth=TRUTHS, teacher=MAPS)
def test_a_copy_of_the_teacher_changes_nothing_and_the_truth_repairs_all(truth, teacher):
    counts = [corrected_pixels(truth, teacher, teacher), *(in_defects(truth, teacher, teacher, iou) for iou in IOUS)]
    assert all((own[:, 0] == 0).all() for own in counts)
    exact = np.where(truth == 255, 0, truth)
    counts = [corrected_pixels(truth, teacher, exact), *(in_defects(truth, teacher, exact, iou) for iou in IOUS)]
    for own in counts:
        (recovered, undetected), (lost, _), (removed, false), (_, own) = own
        assert (recovered, lost, removed, own) == (undetected, 0, false, 0)


def test_shares_are_of_sums_over_images_and_means_over_seeds_with_their_interval():
    counts = np.zeros((20, 2, 4, 2), dtype=np.int64)
    counts[:, 0, 0], counts[:, 1, 0] = (2, 4), (1, 4)
    counts[:10, :, 1] = 3, 3
    shares = summarise_corrections(counts, BootstrapParams(samples=200, seed=1))
    assert list(shares) == list(KINDS)
    assert (shares["recovered"]["part"], shares["recovered"]["whole"]) == (30, 80)
    assert shares["recovered"]["share"] == pytest.approx(0.375)
    assert (shares["recovered"]["low"], shares["recovered"]["high"]) == (0.25, 0.5)
    assert (shares["lost"]["share"], shares["lost"]["low"], shares["lost"]["high"]) == (1, 1, 1)
    nothing = {"part": 0, "whole": 0, "share": None, "low": None, "high": None}
    assert shares["removed"] == shares["added"] == nothing
