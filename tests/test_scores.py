"""Confusion counts against a pixel-by-pixel reference; scores by hand, undefined ones, and their identities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.data.tables import IGNORE
from stages.metrics.scores import HEADLINES, class_keys, confusion, score_arrays, scores

NAMES = ["dirt", "damage"]
COUNTS = arrays(np.int64, (3, 3), elements=st.integers(0, 50))
SHAPE_HW = (4, 7)
TRUTH = arrays(np.uint8, SHAPE_HW, elements=st.sampled_from([0, 1, 2, IGNORE]))
PREDICTION = arrays(np.uint8, SHAPE_HW, elements=st.integers(0, 2))


def count_one_by_one(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), dtype=np.int64)
    for y in range(truth.shape[0]):
        for x in range(truth.shape[1]):
            if truth[y, x] != IGNORE:
                counts[truth[y, x], prediction[y, x]] += 1
    return counts


@given(truth=TRUTH, prediction=PREDICTION)
def test_confusion_equals_counting_pixel_by_pixel(truth, prediction):
    counts = confusion(truth, prediction, classes=3)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, count_one_by_one(truth, prediction, classes=3))


def test_rows_are_truth_and_columns_prediction():
    truth = np.array([[1, 1, 0]], dtype=np.uint8)
    prediction = np.array([[2, 2, 1]], dtype=np.uint8)
    np.testing.assert_array_equal(confusion(truth, prediction, 3), [[0, 1, 0], [0, 0, 2], [0, 0, 0]])


def test_a_wholly_ignored_image_counts_nothing():
    truth = np.full((3, 5), IGNORE, dtype=np.uint8)
    assert confusion(truth, np.ones((3, 5), dtype=np.uint8), 2).sum() == 0


def test_the_label_before_the_ignored_one_counts():
    counts = confusion(np.array([[254, IGNORE]], np.uint8), np.array([[254, 0]], np.uint8), 255)
    assert counts[254, 254] == counts.sum() == 1


def test_an_absent_class_still_has_its_row_and_column():
    zeros = np.zeros((2, 3), dtype=np.uint8)
    np.testing.assert_array_equal(confusion(zeros, zeros, 3), [[6, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_transposed_prediction_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        confusion(np.zeros((2, 3), dtype=np.uint8), np.zeros((3, 2), dtype=np.uint8), 2)


@pytest.mark.parametrize(("truth", "prediction", "culprit"), [(3, 0, "truth"), (0, 3, "prediction"), (0, 255, "pred")])
def test_labels_outside_the_classes_are_refused(truth, prediction, culprit):
    with pytest.raises(ValueError, match=f"{culprit}.*allowed are 0 to 2"):
        confusion(np.full((1, 2), truth, np.uint8), np.full((1, 2), prediction, np.uint8), 3)


def test_a_label_below_0_is_refused():
    with pytest.raises(ValueError, match=r"prediction.*allowed are 0 to 2"):
        confusion(np.ones((1, 2), np.uint8), np.array([[1, -1]], np.int16), 3)


def test_hand_computed_scores():
    counts = np.array([[90, 4, 6], [10, 20, 5], [0, 5, 60]])
    iou = [90 / (100 + 100 - 90), 20 / (35 + 29 - 20), 60 / (65 + 71 - 60)]
    found, true, predicted = 20 + 5 + 5 + 60, 35 + 65, 4 + 6 + 20 + 5 + 5 + 60
    expected = {
        "miou": sum(iou) / 3,
        "miou_anom": sum(iou[1:]) / 2,
        "f1_anom": 2 * found / (true + predicted),
        "iou_bin": found / (true + predicted - found),
        "recall_bin": found / true,
        "precision_bin": found / predicted,
        "iou_dirt": iou[1],
        "iou_damage": iou[2],
    }
    assert scores(counts, NAMES) == pytest.approx(expected, abs=1e-6)


def test_a_defect_under_another_defects_name_is_found_but_its_class_is_not():
    result = scores(np.array([[50, 0, 0], [0, 0, 8], [0, 0, 0]]), NAMES)
    assert (result["iou_bin"], result["recall_bin"], result["precision_bin"]) == (1, 1, 1)
    assert result["iou_dirt"] == result["miou_anom"] == 0


def test_a_class_without_truth_is_undefined_and_left_out_of_means_though_its_false_positives_count():
    result = scores(np.array([[80, 0, 10], [0, 10, 0], [0, 0, 0]]), NAMES)
    assert result["iou_damage"] is None
    assert result["miou_anom"] == result["iou_dirt"] == 1
    assert result["miou"] == pytest.approx((80 / 90 + 1) / 2, abs=1e-6)
    assert result["iou_bin"] == result["precision_bin"] == 0.5


def test_no_defect_in_truth_but_some_predicted():
    result = scores(np.array([[80, 20, 0], [0, 0, 0], [0, 0, 0]]), NAMES)
    assert (result["miou_anom"], result["recall_bin"]) == (None, None)
    assert (result["iou_bin"], result["f1_anom"], result["precision_bin"]) == (0, 0, 0)
    assert result["miou"] == 0.8


def test_neither_true_nor_predicted_defects_leave_binary_scores_undefined():
    result = scores(np.array([[7, 0, 0], [0, 0, 0], [0, 0, 0]]), NAMES)
    assert [key for key, value in result.items() if value is not None] == ["miou"]


def test_undetected_defects_have_no_precision_and_zero_recall():
    result = scores(np.array([[7, 0, 0], [3, 0, 0], [0, 0, 0]]), NAMES)
    assert result["precision_bin"] is None
    assert result["recall_bin"] == result["iou_bin"] == 0


def test_no_scored_pixel_leaves_everything_undefined():
    assert set(scores(np.zeros((3, 3), int), NAMES).values()) == {None}


@given(counts=COUNTS)
def test_every_defined_score_is_a_share_and_f1_follows_from_binary_iou(counts):
    result = scores(counts, NAMES)
    assert all(0 <= value <= 1 for value in result.values() if value is not None)
    if result["iou_bin"] is None:
        assert result["f1_anom"] is None
    else:
        assert result["f1_anom"] == pytest.approx(2 * result["iou_bin"] / (1 + result["iou_bin"]), abs=2e-6)


@given(counts=COUNTS)
def test_renaming_the_classes_changes_no_mean(counts):
    order = [0, 2, 1]
    swapped = scores(counts[np.ix_(order, order)], NAMES[::-1])
    assert swapped == pytest.approx(scores(counts, NAMES), abs=2e-6, nan_ok=True)


@given(counts=arrays(np.int64, (4, 2, 3, 3), elements=st.integers(0, 5)))
def test_many_matrices_at_once_equal_one_by_one(counts):
    at_once = score_arrays(counts, NAMES)
    for i, j in np.ndindex(4, 2):
        alone = score_arrays(counts[i, j], NAMES)
        for key, values in at_once.items():
            np.testing.assert_array_equal(values[i, j], alone[key])


def test_as_many_names_as_classes_are_demanded():
    with pytest.raises(ValueError, match="3 classes need 4 a side"):
        scores(np.zeros((3, 3), int), ["a", "b", "c"])


@given(names=st.lists(st.sampled_from(["bin", "bin_", "bin_low", "a", "a_low", "a_low_", "anom"]), unique=True))
def test_no_class_name_overwrites_another_figure(names):
    keys = [key + end for key in [*HEADLINES, *class_keys(names)] for end in ("", "_low", "_high")]
    assert len(set(keys)) == len(keys)


def test_ordinary_class_names_are_not_changed():
    assert class_keys(["dirt", "bin"]) == ["iou_dirt", "iou_bin_"]
