"""Defects of a label map: connected regions of a class, measured; the map comes back from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.formats.measured_defects import Record, defects_of
from tests.support.records import record

LABELS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 9)), elements=st.integers(0, 3))


def test_a_hand_made_map_is_measured():
    labels = np.zeros((7, 12), np.uint8)
    labels[1:3, 2:8] = 2
    labels[5, 9] = labels[4, 10] = 1
    confidence = np.full((7, 12), 0.5, np.float16)
    confidence[1, 2:8] = 1
    dirt, damage = defects_of(labels, confidence)
    assert (dirt.class_id, dirt.box_xyxy, dirt.area_px, dirt.confidence) == (0, (9, 4, 11, 6), 2, 0.5)
    assert (damage.class_id, damage.box_xyxy, damage.area_px, damage.confidence) == (1, (2, 1, 8, 3), 12, 0.75)
    assert (damage.size.elongation, damage.holes) == (3, 0)


def test_a_hole_is_counted_and_not_filled():
    labels = np.zeros((9, 6), np.uint8)
    labels[1:8, 1:5] = 1
    labels[3:5, 2:4] = 0
    (frame,) = defects_of(labels, np.ones(labels.shape, np.float16))
    assert (frame.holes, frame.area_px) == (1, 24)
    assert not frame.mask((9, 6))[2:4, 1:3].any()


@settings(max_examples=40, deadline=None)
@given(LABELS)
def test_the_label_map_comes_back(labels):
    again = Record.model_validate_json(record(labels).model_dump_json())
    np.testing.assert_array_equal(again.labels(), labels)
    assert sum(defect.area_px for defect in again.defects) == (labels > 0).sum()


def test_confidence_is_summed_exactly_on_large_defects():
    labels = np.ones((300, 400), np.uint8)
    (defect,) = defects_of(labels, np.full(labels.shape, 0.9, np.float16))
    assert defect.confidence == pytest.approx(0.9, abs=1e-3)
