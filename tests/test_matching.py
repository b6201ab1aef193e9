"""Pairs of regions, and the metrics computed from them: recall and false positives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.components import regions
from stages.evaluation.defect_metrics import (
    counts_by_class,
    counts_of,
    mean_over_seeds,
    outcome,
    summarise_by_class,
    summarise_defects,
)
from stages.evaluation.matching import matched_iou, overlaps

TRUTHS = arrays(np.uint8, (7, 11), elements=st.sampled_from([0, 0, 0, 1, 1, 2, 255]))
PREDICTIONS = arrays(np.uint8, (7, 11), elements=st.sampled_from([0, 0, 1, 2]))
BOOTSTRAP = BootstrapParams(samples=200, seed=1)


def pixels_of(labels: np.ndarray, ignored: np.ndarray) -> list[set[tuple[int, int]]]:
    """Regions as sets of pixels, by class, then first pixel: grown one neighbour at a time."""
    found = []
    for label in (1, 2):
        left = {(int(y), int(x)) for y, x in np.argwhere(labels == label)}
        while left:
            region, edge = set(), {min(left)}
            while edge:
                region |= edge
                left -= edge
                edge = {(y + dy, x + dx) for y, x in edge for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            found.append({(y, x) for y, x in region if not ignored[y, x]})
    return [region for region in found if region]


def slow_pairs(first: list[set], second: list[set]) -> tuple[list[float], list[float]]:
    """The rule of matching.py, word for word."""
    ious = [0.0] * len(first), [0.0] * len(second)
    free = {(a, b) for a in range(len(first)) for b in range(len(second)) if first[a] & second[b]}
    while free:
        iou = {(a, b): len(first[a] & second[b]) / len(first[a] | second[b]) for a, b in free}
        a, b = min(free, key=lambda pair: (-iou[pair], pair))
        ious[0][a] = ious[1][b] = iou[a, b]
        free = {pair for pair in free if pair[0] != a and pair[1] != b}
    return ious


@given(truth=TRUTHS, predicted=PREDICTIONS)
def test_regions_and_pairs_are_those_of_a_slow_reference(truth, predicted):
    ignored = truth == 255
    true, own = pixels_of(truth, ignored), pixels_of(predicted, ignored)
    found = outcome(truth, predicted)
    assert found.true.areas_px.tolist() == [len(region) for region in true]
    assert found.predicted.areas_px.tolist() == [len(region) for region in own]
    expected = slow_pairs(true, own)
    assert found.true_iou.tolist() == expected[0]
    assert found.predicted_iou.tolist() == expected[1]
    assert found.touching.tolist() == [any(region & other for other in true) for region in own]


@given(truth=TRUTHS, predicted=PREDICTIONS)
def test_a_stricter_threshold_detects_no_more_and_every_unmatched_region_is_a_false_positive(truth, predicted):
    found = outcome(truth, predicted)
    true, loose, strict, false, strict_false, no_overlap = counts_of(found)
    assert 0 <= strict <= loose <= true == len(found.true)
    # one match each: the detected defects use as many predicted regions, the others are false positives
    assert loose + false == strict + strict_false == len(found.predicted)
    assert no_overlap <= false


@given(truth=TRUTHS)
def test_the_truth_finds_itself(truth):
    own = np.where(truth == 255, 0, truth)
    assert counts_of(outcome(truth, own)).tolist() == [len(regions(truth))] * 3 + [0, 0, 0]


@given(first=PREDICTIONS, second=PREDICTIONS)
def test_pairs_share_their_iou_and_no_region_has_two(first, second):
    a, b = regions(first), regions(second)
    one, other = matched_iou(overlaps(a, b), len(a), len(b))
    assert sorted(one[one > 0]) == sorted(other[other > 0])
    assert ((one > 0).sum()) <= min(len(a), len(b))


def test_a_defect_in_two_pieces_is_found_by_the_better_one_and_the_other_is_a_false_positive():
    truth, predicted = np.zeros((2, 6, 20), dtype=np.uint8)
    truth[2, 0:10] = 1
    predicted[2, 0:6], predicted[2, 7:10] = 1, 2  # IoU 0.6 and 0.3
    predicted[5, 15] = 1
    found = outcome(truth, predicted)
    assert found.true_iou.tolist() == [0.6]
    assert found.predicted_iou.tolist() == [0.6, 0.0, 0.0]
    assert counts_of(found).tolist() == [1, 1, 1, 2, 2, 1]


def test_per_class_a_defect_is_detected_by_a_region_of_its_own_class_alone():
    truth, predicted = np.zeros((2, 6, 20), dtype=np.uint8)
    truth[0, 0:10], truth[2, 0:10], truth[4, 0:10] = 1, 1, 2
    predicted[0, 0:9] = 2  # nearly all of the first defect, of the wrong class
    predicted[2, 0:7], predicted[2, 7:10] = 2, 1  # the better piece is of the wrong class
    predicted[4, 0:10], predicted[4, 15] = 2, 1
    found = outcome(truth, predicted)
    assert counts_of(found).tolist() == [3, 3, 3, 2, 2, 1]
    assert counts_by_class(found, 3).tolist() == [[2, 1, 1], [1, 1, 2], [0, 0, 0]]


@given(truth=TRUTHS, predicted=PREDICTIONS)
def test_the_counts_of_a_class_are_those_of_its_regions_without_the_others(truth, predicted):
    counts = counts_by_class(outcome(truth, predicted), 3)
    for class_id, own in enumerate(counts.tolist()):
        alone = np.where((truth == class_id + 1) | (truth == 255), truth, 0)
        true, detected, _, false, *_ = counts_of(outcome(alone, np.where(predicted == class_id + 1, predicted, 0)))
        assert own == [true, detected, false]


def test_an_iou_of_exactly_a_tenth_or_a_half_is_enough():
    truth, predicted = np.zeros((2, 4, 24), dtype=np.uint8)
    truth[0, 0:10], predicted[0, 0] = 1, 1
    truth[2, 0:6], predicted[2, 2:8] = 1, 2
    assert outcome(truth, predicted).true_iou.tolist() == [0.1, 0.5]
    assert counts_of(outcome(truth, predicted)).tolist() == [2, 2, 1, 0, 1, 0]
    assert counts_by_class(outcome(truth, predicted), 2).tolist() == [[2, 1, 0], [0, 0, 1]]


def test_a_region_across_ignored_pixels_stays_one_and_counts_outside_them_alone():
    truth, predicted = np.zeros((2, 3, 12), dtype=np.uint8)
    truth[:, 4:8] = 255
    truth[1, 2:4] = 1
    predicted[1, 2:10] = 1  # reaches across: two pixels on the defect, two beyond
    predicted[0, 5] = 2  # ignored
    found = outcome(truth, predicted)
    assert found.predicted.areas_px.tolist() == [4]
    assert found.true_iou.tolist() == [0.5]
    assert found.predicted.places.tolist() == [0]
    later = np.where(predicted == 2, 0, predicted)
    later[0, 0] = 2
    later[0, 5] = 1  # joins the first region, so that there are two
    assert outcome(truth, later).predicted.places.tolist() == [0, 1]


def test_places_tell_which_regions_of_the_whole_map_are_left():
    labels, counted = np.zeros((3, 9), dtype=np.uint8), np.ones((3, 9), dtype=bool)
    labels[0, 0], labels[0, 4], labels[2, 8] = 1, 1, 2
    counted[0, 3:6] = False
    left = regions(labels, counted)
    assert (left.places.tolist(), left.class_ids.tolist(), left.areas_px.tolist()) == ([0, 2], [0, 1], [1, 1])
    assert left.index[2, 8] == 2


def test_the_mean_over_a_region_is_that_of_its_pixels():
    labels = np.array([[1, 1, 0], [0, 0, 2]], dtype=np.uint8)
    values = np.array([[0.5, 1.0, 9.0], [9.0, 9.0, 0.25]], dtype=np.float32)
    assert regions(labels).means(values).tolist() == [0.75, 0.25]
    assert regions(labels * 0).means(values).tolist() == []


def test_recall_is_a_share_of_defects_and_false_positives_are_per_image_over_seeds():
    counts = np.array([[[4, 2, 1, 3, 4, 1], [4, 4, 4, 0, 0, 0]], [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]]])
    metrics = summarise_defects(counts, BOOTSTRAP)
    assert metrics["true_defects"] == 4
    assert (metrics["recall_defects_iou10"], metrics["recall_defects_iou50"]) == (0.75, 0.625)
    assert (
        metrics["false_positives_per_image_iou10"],
        metrics["false_positives_per_image_iou50"],
        metrics["false_positives_per_image_no_overlap"],
    ) == (1.0, 1.25, 0.5)
    assert metrics["false_positives_per_image_iou10_low"] <= 1.0 <= metrics["false_positives_per_image_iou10_high"]


def test_per_class_recall_and_false_positives_are_means_over_seeds_with_intervals():
    first = [[[4, 2, 3], [0, 0, 2]], [[4, 4, 0], [0, 0, 0]]]  # by seed and class
    counts = np.array([first, [[[0, 0, 1], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]]]])
    dirt, damage = summarise_by_class(counts, ["dirt", "damage"], BOOTSTRAP).values()
    assert (dirt["true_defects"], dirt["recall_defects_iou10"]) == (4, 0.75)
    assert dirt["false_positives_per_image_iou10"] == 1
    assert (dirt["recall_defects_iou10_low"], dirt["recall_defects_iou10_high"]) == (0.5, 1.0)
    assert dirt["false_positives_per_image_iou10_low"] < 1 < dirt["false_positives_per_image_iou10_high"]
    assert damage["recall_defects_iou10"] is damage["recall_defects_iou10_low"] is None
    assert damage["false_positives_per_image_iou10"] == 0.75


def test_without_a_defect_recall_is_undefined_and_false_positives_are_not():
    metrics = summarise_defects(np.array([[[0, 0, 0, 2, 2, 2]]]), BOOTSTRAP)
    assert metrics["recall_defects_iou10"] is metrics["recall_defects_iou50_low"] is None
    assert metrics["false_positives_per_image_no_overlap"] == 2


def test_a_metric_undefined_for_one_seed_has_no_mean():
    means = mean_over_seeds([{"ap": 0.5, "by": {"a": 1.0, "b": None}}, {"ap": 0.25, "by": {"a": 0.0, "b": 1.0}}])
    assert means == {"ap": pytest.approx(0.375), "by": {"a": 0.5, "b": None}}
