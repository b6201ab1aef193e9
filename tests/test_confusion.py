"""Confusion counts against a pixel-by-pixel reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.data.tables import IGNORE
from stages.metrics.confusion import confusion

SHAPE = (4, 7)
TRUTH = arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, IGNORE]))
PREDICTION = arrays(np.uint8, SHAPE, elements=st.integers(0, 2))


def count_one_by_one(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), dtype=np.int64)
    for y in range(truth.shape[0]):
        for x in range(truth.shape[1]):
            if truth[y, x] != IGNORE:
                counts[truth[y, x], prediction[y, x]] += 1
    return counts


@given(truth=TRUTH, prediction=PREDICTION)
def test_equals_counting_pixel_by_pixel(truth, prediction):
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


def test_a_class_that_nobody_names_still_has_its_row_and_column():
    zeros = np.zeros((2, 3), dtype=np.uint8)
    np.testing.assert_array_equal(confusion(zeros, zeros, 3), [[6, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_transposed_prediction_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        confusion(np.zeros((2, 3), dtype=np.uint8), np.zeros((3, 2), dtype=np.uint8), 2)


@pytest.mark.parametrize(("truth", "prediction", "culprit"), [(3, 0, "truth"), (0, 3, "prediction"), (0, 255, "pred")])
def test_labels_outside_the_classes_are_refused(truth, prediction, culprit):
    with pytest.raises(ValueError, match=f"{culprit}.*allowed are 0 to 2"):
        confusion(np.full((1, 2), truth, np.uint8), np.full((1, 2), prediction, np.uint8), 3)
