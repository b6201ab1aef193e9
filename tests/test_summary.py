"""Scores with their intervals over images and seeds, and the paired difference between two runs."""

import numpy as np
import pytest

from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.summary import Difference, adjusted_for_all, paired_differences, summarise

NAMES = ("dirt", "damage")
BOOTSTRAP = BootstrapParams(samples=200, seed=1)


def test_a_run_does_not_differ_from_itself():
    counts = np.random.default_rng(0).integers(0, 50, (9, 2, 3, 3))
    assert paired_differences(counts, counts, NAMES, ["iou_bin"], BOOTSTRAP) == {"iou_bin": Difference(0, 0, 0, 1)}


def test_pairing_sees_a_small_difference_that_separate_intervals_hide():
    generator = np.random.default_rng(0)
    hits = generator.integers(10, 90, size=60)
    better, worse = np.zeros((2, 60, 1, 2, 2), dtype=np.int64)
    better[:, 0, 1, 1], better[:, 0, 1, 0] = hits + 2, 98 - hits
    worse[:, 0, 1, 1], worse[:, 0, 1, 0] = hits, 100 - hits
    point, low, high, p, _ = paired_differences(better, worse, ["crack"], ["iou_bin"], BOOTSTRAP)["iou_bin"]
    assert point == pytest.approx(0.02)
    assert 0 < low <= point <= high
    assert p == pytest.approx(2 / 201, abs=1e-6)
    apart = [summarise(counts, ["crack"], BOOTSTRAP) for counts in (better, worse)]
    assert apart[0]["iou_bin_low"] < apart[1]["iou_bin_high"]


def test_a_difference_between_seeds_widens_the_interval_and_pairing_takes_it_out():
    counts = np.zeros((30, 3, 2, 2), dtype=np.int64)
    for seed, found in enumerate((20, 50, 80)):
        counts[:, seed, 1, 1], counts[:, seed, 1, 0] = found, 100 - found
    scores = summarise(counts, ["crack"], BOOTSTRAP)
    assert scores["iou_bin"] == pytest.approx(0.5)
    assert scores["iou_bin_by_seed"] == pytest.approx([0.2, 0.5, 0.8])
    assert (scores["iou_bin_low"], scores["iou_bin_high"]) == (pytest.approx(0.2), pytest.approx(0.8))
    better = counts.copy()
    better[..., 1, 1] += 10
    better[..., 1, 0] -= 10
    difference = paired_differences(better, counts, ["crack"], ["iou_bin"], BOOTSTRAP)["iou_bin"]
    assert difference[:3] == pytest.approx((0.1, 0.1, 0.1))


def test_the_iou_of_images_counts_each_with_a_defect_once():
    """A large defect found whole, a small one missed, and false positives on a sound image."""
    counts = np.array([[[900, 0], [0, 100]], [[996, 2], [2, 0]], [[990, 10], [0, 0]]])[:, None]
    scores = summarise(counts, ["crack"], BOOTSTRAP)
    assert scores["iou_image"] == 0.5 and scores["iou_bin"] == pytest.approx(100 / 114, abs=1e-6)
    assert (scores["iou_image_low"], scores["iou_image_high"]) == (0, 1)
    better = counts.copy()
    better[1, 0] = [[998, 0], [1, 1]]
    assert paired_differences(better, counts, ["crack"], ["iou_image"], BOOTSTRAP)["iou_image"].point == 0.25
    assert summarise(counts[2:], ["crack"], BOOTSTRAP)["iou_image"] is None, "no image has a defect"


def test_a_score_undefined_for_one_seed_is_undefined():
    counts = np.zeros((4, 2, 2, 2), dtype=np.int64)
    counts[:, :, 1, 0] = 5  # nothing is found, so there is no precision
    counts[:, 1, 1, 1] = 5
    scores = summarise(counts, ["crack"], BOOTSTRAP)
    assert scores["precision_bin"] is scores["precision_bin_low"] is None
    assert scores["iou_bin_by_seed"] == [0, 0.5]


def test_every_score_of_every_run_is_a_comparison_and_an_undefined_one_is_none():
    one, undefined = Difference(0.1, 0.0, 0.2, 0.01), Difference(None, None, None, None)
    adjusted = adjusted_for_all({"a": {"x": one, "y": undefined}, "b": {"x": one._replace(p=0.2), "y": undefined}})
    assert adjusted["a"]["x"].adjusted == pytest.approx(0.02)
    assert adjusted["b"]["x"].adjusted == pytest.approx(0.2)
    assert adjusted["a"]["y"] == undefined
