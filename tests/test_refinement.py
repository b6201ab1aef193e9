"""The refined candidate: masks and brightness weighed together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.teacher.evidence import surroundings
from stages.teacher.refinement import BINS, LEAST, log_ratio, refine

BOX = (12.0, 8.0, 52.0, 32.0)


def image_with_crack(noise: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """A dark line of two pixels through the box on noisy ground, (40, 70, 3), and its pixels."""
    truth = np.zeros((40, 70), bool)
    truth[18:20, 12:52] = True
    ground = 140 + noise * np.random.default_rng(0).standard_normal(truth.shape)
    return np.clip(np.where(truth, 80, ground), 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2), truth


def on_image(candidate, size_hw) -> np.ndarray:
    mask, tight = np.zeros(size_hw, bool), candidate.tight
    mask[tight.y1 : tight.y2, tight.x1 : tight.x2] = candidate.mask
    return mask


def in_box(mask: np.ndarray) -> np.ndarray:
    """The part of a mask of the image on the pixels of BOX, as probabilities of 0 and 1."""
    return mask[8:32, 12:52].astype(np.float32)


def refined(image: np.ndarray, votes: list[np.ndarray], predicted_iou: list[float], min_part: float = 0) -> np.ndarray:
    """The refined mask on the image; `votes` on the image too, bool or probabilities."""
    found = refine(surroundings(image, BOX), [in_box(vote) for vote in votes], predicted_iou, min_part)
    return on_image(found, image.shape[:2])


def test_a_mask_that_is_too_fat_and_too_short_comes_nearer_to_the_crack():
    image, truth = image_with_crack()
    fat = np.zeros(truth.shape, bool)
    fat[16:22, 20:45] = True
    thin = fat & (np.arange(40) >= 18)[:, None]
    found = refined(image, [fat, fat, thin, thin], [0.5] * 4)
    iou = [(mask & truth).sum() / (mask | truth).sum() for mask in (fat, thin, found)]
    assert iou[2] > 1.3 * max(iou[:2]), iou
    assert (found & truth).sum() > 0.95 * truth.sum(), "its whole length"


def test_where_brightness_tells_nothing_the_vote_decides():
    """On an even surface odds are the vote's alone: half of the predicted IoU and more is the defect."""
    image = np.full((40, 70, 3), 90, np.uint8)
    wide, narrow = np.zeros((40, 70), bool), np.zeros((40, 70), bool)
    wide[8:32, 12:52], narrow[8:32, 14:50] = True, True
    assert (refined(image, [wide, narrow, narrow, narrow], [0.9, 0.1, 0.1, 0.1]) == wide).all()
    assert (refined(image, [wide, narrow, narrow, narrow], [0.1, 0.9, 0.9, 0.9]) == narrow).all()


def test_a_probability_just_below_one_half_counts_where_the_image_speaks_for_it():
    image, truth = image_with_crack()
    unsure = np.where(truth, 0.4, 0.02)
    assert (refined(image, [unsure] * 4, [0.5] * 4) == truth).mean() > 0.99


@pytest.mark.parametrize(
    ("middle", "ends", "whole"),
    [(20, 0.3, True), (20, 0.05, False), (28, 0.3, False)],
    ids=["ends within reach", "nothing there", "wide enough"],
)
def test_a_mask_that_does_not_span_its_box_takes_lower_odds(middle, ends, whole):
    """On an even surface; the box has 24 x 40 px."""
    image, votes = np.full((40, 70, 3), 90, np.uint8), np.zeros((40, 70))
    votes[8:32, 12:52] = ends
    votes[8:32, 22 : 22 + middle] = 0.9
    wanted = np.zeros((40, 70), bool)
    wanted[8:32, slice(12, 52) if whole else slice(22, 22 + middle)] = True
    assert (refined(image, [votes] * 4, [0.5] * 4) == wanted).all()


def test_a_speck_does_not_make_a_mask_span_its_box():
    image, votes = np.full((40, 70, 3), 90, np.uint8), np.zeros((40, 70))
    votes[8:32, 12:52] = 0.3
    votes[8:32, 22:42] = 0.9
    votes[8, [12, 51]] = 0.9
    assert refined(image, [votes] * 4, [0.5] * 4).sum() == 24 * 20 + 2
    assert refined(image, [votes] * 4, [0.5] * 4, min_part=0.05).sum() == 24 * 40


def test_scores_of_the_refined_mask():
    image, _ = image_with_crack(noise=0)
    mask = np.zeros((40, 70), bool)
    mask[18:20, 12:52] = True
    found = refine(surroundings(image, BOX), [in_box(mask)] * 4, [0.2, 0.6, 0.4, 0.4], 0.05)
    assert found.tight == (12, 18, 52, 20) and found.mask.all()
    assert found.predicted_iou == pytest.approx(0.6), "that of the candidate that equals it"
    assert 0 < found.stability <= 1 and 0.5 < found.mean_probability <= 1
    assert found.probability.shape == (24, 40)
    assert found.probability[10:12].mean() == pytest.approx(found.mean_probability)


def test_no_mask_stays_no_mask():
    image, _ = image_with_crack()
    found = refine(surroundings(image, BOX), [np.zeros((24, 40), np.float32)] * 4, [0.0] * 4, 0.05)
    assert found.mask.size == 0 and found.predicted_iou == 0 and found.mean_probability == 0


def test_a_mask_of_low_odds_is_told_by_its_probability():
    image = np.full((40, 70, 3), 90, np.uint8)
    found = refine(surroundings(image, BOX), [np.full((24, 40), 0.3, np.float32)] * 4, [0.5] * 4, 0.05)
    assert found.tight == (12, 8, 52, 32) and 0 < found.mean_probability <= 0.5


def test_log_ratio_by_hand():
    """Two far values: smoothing over bins does not reach from the first bin to the last."""
    values, vote = np.array([[0.0, 0.0, 0.0, 255.0]]), np.array([[0.0, 0.5, 0.0, 1.0]])
    found = log_ratio(values, vote)
    peak = {"defect": (0.5 / 1.5, 1 / 1.5), "sound": (2.5 / 2.5, 0.0)}
    assert BINS == 16
    # both bins lie on a border, where the histogram is mirrored: each keeps the same share of its count
    low, high = found[0, 0], found[0, 3]
    assert found[0, 1] == low and low < 0 < high
    share = (np.exp(low) * (peak["sound"][0] * 0.7 + LEAST) - LEAST) / (peak["defect"][0] * 0.7)
    assert share == pytest.approx(1, abs=0.02)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_it_lies_in_the_box_and_does_not_know_left_from_right_or_dark_from_bright(seed):
    draw = np.random.default_rng(seed)
    image = draw.integers(20, 230, (40, 70, 1), dtype=np.uint8).repeat(3, axis=2)
    masks = [draw.random((40, 70)) < share for share in (0.1, 0.3, 0.5, 0.7)]
    scores = draw.random(4).tolist()
    found = refined(image, masks, scores)
    inside = np.zeros((40, 70), bool)
    inside[8:32, 12:52] = True
    assert not (found & ~inside).any()
    negative = refined(250 - image, masks, scores)
    assert (found == negative).mean() > 0.98, "bins may break ties at their borders differently"
