"""The bootstrap over images: properties that any correct one has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluation import bootstrap
from stages.evaluation.bootstrap import BootstrapParams, holm, percentile_interval, resampled_sums, two_sided_p
from stages.metrics.scores import score_arrays

PARAMS = BootstrapParams(samples=400, seed=7)


def random_counts(images: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 40, size=(images, 2, 2))


def interval(counts: np.ndarray, params: BootstrapParams = PARAMS) -> tuple[float, float]:
    return percentile_interval(score_arrays(resampled_sums(counts, params), ["crack"])["iou_bin"])


def test_equals_drawing_images_one_by_one():
    counts = np.array([[[3, 1], [2, 9]], [[8, 0], [1, 4]], [[5, 5], [0, 1]]])
    totals = resampled_sums(counts, PARAMS)
    # Every total must be a sum of three images drawn with replacement, and each such draw must come up.
    possible = {
        tuple((counts[i] + counts[j] + counts[k]).ravel()) for i in range(3) for j in range(3) for k in range(3)
    }
    assert {tuple(total.ravel()) for total in totals} == possible


def test_one_image_gives_an_interval_of_no_width():
    counts = random_counts(1, seed=0)
    point = float(score_arrays(counts[0], ["crack"])["iou_bin"])
    assert interval(counts) == (point, point)


def test_equal_images_give_an_interval_of_no_width():
    counts = np.repeat(random_counts(1, seed=3), 9, axis=0)
    low, high = interval(counts)
    assert low == high == pytest.approx(float(score_arrays(counts[0], ["crack"])["iou_bin"]))


@given(images=st.integers(8, 40), seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_a_symmetrical_sample_has_its_point_estimate_inside(images, seed):
    # Each image has a mirror image whose errors are the other's hits: pooled, half of 20 pixels is found.
    hits = np.random.default_rng(seed).integers(0, 21, size=images)
    hits = np.concatenate([hits, 20 - hits])
    counts = np.zeros((len(hits), 2, 2), dtype=np.int64)
    counts[:, 1, 1], counts[:, 1, 0] = hits, 20 - hits
    low, high = interval(counts)
    assert 0 <= low <= 0.5 <= high <= 1


@given(images=st.integers(2, 30), seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_images_does_not_matter(images, seed):
    counts = random_counts(images, seed)
    shuffled = np.random.default_rng(seed + 1).permutation(counts)
    assert interval(counts) == interval(shuffled)


def test_the_same_seed_repeats_and_another_differs():
    counts = random_counts(12, seed=5)
    assert interval(counts) == interval(counts)
    assert interval(counts) != interval(counts, BootstrapParams(samples=400, seed=8))


def test_more_images_narrow_the_interval():
    few, many = random_counts(20, seed=1), random_counts(2000, seed=1)
    (low_few, high_few), (low_many, high_many) = interval(few), interval(many)
    assert (high_many - low_many) < 0.3 * (high_few - low_few)


def test_the_interval_covers_the_expected_share_of_repeated_samples():
    generator = np.random.default_rng(11)
    covered = 0
    for _ in range(200):
        hits = generator.binomial(50, 0.6, size=60)
        counts = np.zeros((60, 2, 2), dtype=np.int64)
        counts[:, 1, 1], counts[:, 1, 0] = hits, 50 - hits
        low, high = interval(counts)
        covered += low <= 0.6 <= high
    assert 176 <= covered <= 199


def test_runs_stacked_together_share_their_draws():
    counts = random_counts(15, seed=2)
    totals = resampled_sums(np.stack([counts, counts], axis=1), PARAMS)
    np.testing.assert_array_equal(totals[:, 0], totals[:, 1])


@pytest.mark.parametrize("at_once", [30, 3], ids=["four at a time", "fewer than there are images"])
def test_drawing_in_small_portions_resamples_as_many_images(monkeypatch, at_once):
    monkeypatch.setattr(bootstrap, "COUNTS_AT_ONCE", at_once)
    counts = np.ones((7, 1, 1), dtype=np.int64)
    totals = resampled_sums(counts, PARAMS)
    assert totals.shape == (400, 1, 1)
    assert (totals == 7).all()


def test_an_interval_leaves_out_a_fortieth_at_either_end():
    assert percentile_interval(np.random.default_rng(0).permutation(1001).astype(float)) == pytest.approx((25, 975))


def test_undefined_resamples_are_left_out():
    assert percentile_interval(np.array([np.nan, 0.25, 0.25, np.nan])) == (0.25, 0.25)


def test_a_metric_undefined_in_every_resample_has_no_interval():
    assert np.isnan(percentile_interval(np.full(5, np.nan))).all()


def test_a_p_value_is_twice_the_share_on_the_rarer_side_with_one_more_on_either():
    assert two_sided_p(np.array([-1.0, 2.0, 3.0, 4.0])) == pytest.approx(2 * 2 / 5)
    assert two_sided_p(np.full(1999, 0.5)) == pytest.approx(0.001)
    assert two_sided_p(np.full(1999, -0.5)) == pytest.approx(0.001)
    assert two_sided_p(np.zeros(9)) == 1
    assert two_sided_p(np.array([np.nan, 1.0, 1.0, 1.0])) == pytest.approx(0.5)
    assert np.isnan(two_sided_p(np.full(3, np.nan)))


def test_p_values_without_a_difference_are_even():
    generator = np.random.default_rng(3)
    p = [two_sided_p(generator.normal(generator.normal(), 1, size=400)) for _ in range(400)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09


def test_holm_by_hand():
    # sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2, and 0.5, never under the one before it
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.04, np.nan, 0.9]) == pytest.approx([0.08, np.nan, 0.9], nan_ok=True)
    assert holm([]) == []


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_lowers_nothing_and_is_never_harder_than_bonferroni(p):
    adjusted = np.array(holm(p))
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
