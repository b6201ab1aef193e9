"""Mask average precision: hand-computed cases, a slow reference, and what must hold for any detector."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluation import average_precision as average_precision_file
from stages.evaluation.average_precision import AP_IOUS, average_precision, detected
from stages.evaluation.components import regions
from stages.evaluation.defect_metrics import outcome

NAMES = ("dirt", "damage")
SIZE_HW = (12, 30)


def precision_of(*scored: tuple[np.ndarray, np.ndarray, list[float]]) -> dict:
    """AP of (truth, prediction, scores) of every image."""
    found = [(outcome(truth, predicted), scores) for truth, predicted, scores in scored]
    return average_precision([detected(one.true, one.predicted, scores) for one, scores in found], NAMES)


def bars(*parts: tuple[int, int, int, int]) -> np.ndarray:
    """A label map of horizontal bars: (row, first column, length, label)."""
    labels = np.zeros(SIZE_HW, dtype=np.uint8)
    for row, left, length, label in parts:
        labels[row, left : left + length] = label
    return labels


def slow_precision(truths: list[np.ndarray], predictions: list[np.ndarray], scores: list[list[float]]) -> np.ndarray:
    """(11 IoUs, classes with truth): COCO's rule in plain loops, on sets of pixels."""

    def sets(labels: np.ndarray) -> list[tuple[int, set]]:
        own = regions(labels)
        return [(int(own.class_ids[n]), set(map(tuple, np.argwhere(own.index == n + 1)))) for n in range(len(own))]

    result = []
    for class_id in range(len(NAMES)):
        true = [[region for label, region in sets(labels) if label == class_id] for labels in truths]
        total = sum(map(len, true))
        if not total:
            continue
        claims = [
            (score, image, region)
            for image, labels in enumerate(predictions)
            for (label, region), score in zip(sets(labels), scores[image], strict=True)
            if label == class_id
        ]
        claims.sort(key=lambda claim: -claim[0])
        of_class = []
        for threshold in AP_IOUS:
            taken, hits = set(), []
            for _, image, region in claims:
                ious = [len(region & other) / len(region | other) for other in true[image]]
                free = [n for n in range(len(ious)) if (image, n) not in taken and ious[n] >= threshold - 1e-9]
                hits.append(bool(free))
                if free:
                    taken.add((image, max(free, key=lambda n: (ious[n], n))))
            levels = []
            for recall in np.linspace(0, 1, 101):
                reached = [sum(hits[:n]) / n for n in range(1, len(hits) + 1) if sum(hits[:n]) / total >= recall - 1e-9]
                levels.append(max(reached, default=0.0))
            of_class.append(np.mean(levels))
        result.append(of_class)
    return np.array(result).T


def test_by_hand_two_true_positives_around_a_false_positive():
    truth = bars((1, 0, 10, 1), (5, 0, 10, 1))
    predicted = bars((1, 0, 10, 1), (5, 0, 10, 1), (9, 20, 4, 1))
    # by score: true, false, true positive. Precision 1 up to recall 0.5 (51 of 101 levels), 2/3 beyond.
    metrics = precision_of((truth, predicted, [0.9, 0.5, 0.7]))
    expected = (51 + 50 * 2 / 3) / 101
    assert metrics["ap10"] == metrics["ap50"] == metrics["ap"] == pytest.approx(expected, abs=1e-6)


def test_by_hand_a_loose_outline_counts_at_the_smaller_iou_alone():
    # IoU 0.3; at 0.1 it is a hit, at 0.5 it is none
    assert precision_of((bars((1, 0, 10, 1)), bars((1, 0, 3, 1)), [0.9])) == {
        "ap10": 1.0,
        "ap50": 0.0,
        "ap": 0.0,
        "ap50_by_class": {"dirt": 0.0, "damage": None},
    }
    # IoU 0.8: a hit at 0.50 to 0.80, seven of ten
    assert precision_of((bars((1, 0, 10, 1)), bars((1, 0, 8, 1)), [0.9]))["ap"] == pytest.approx(0.7)


def test_a_hit_under_another_classes_name_is_none():
    metrics = precision_of((bars((1, 0, 10, 1), (4, 0, 5, 2)), bars((1, 0, 10, 2), (4, 0, 5, 2)), [0.9, 0.8]))
    assert metrics["ap50_by_class"] == {"dirt": 0.0, "damage": pytest.approx(0.5)}
    assert metrics["ap50"] == pytest.approx(0.25)


def test_a_false_positive_in_an_image_without_a_defect_counts():
    found = (bars((1, 0, 10, 1)), bars((1, 0, 10, 1)), [0.5])
    assert precision_of((bars(), bars((1, 0, 3, 1)), [0.9]), found)["ap50"] == 0.5


def test_a_region_within_the_bounding_box_of_another_is_no_part_of_it():
    """A bent bar of 13 pixels around one of 20, both found but for their last pixels."""
    truth, predicted = bars((1, 0, 10, 1)), bars((1, 0, 10, 1))
    truth[2:5, 0] = predicted[2:4, 0] = 1
    truth[3:5, 2:12] = predicted[3:5, 2:11] = 2
    metrics = precision_of((truth, predicted, [0.9, 0.8]))
    assert metrics["ap"] == pytest.approx((0.9 + 0.9) / 2)


def test_a_class_without_a_true_defect_is_undefined_and_left_out_of_the_mean():
    metrics = precision_of((bars((1, 0, 10, 2)), bars((1, 0, 10, 2), (5, 0, 4, 1)), [0.5, 0.9]))
    assert metrics["ap50_by_class"] == {"dirt": None, "damage": 1.0}
    assert metrics["ap50"] == metrics["ap"] == 1.0


def test_without_any_defect_all_is_undefined_and_without_predictions_it_is_zero():
    nothing = bars()
    assert precision_of((nothing, bars((1, 0, 3, 1)), [0.5])) == {
        "ap10": None,
        "ap50": None,
        "ap": None,
        "ap50_by_class": {"dirt": None, "damage": None},
    }
    assert precision_of((bars((1, 0, 3, 1)), nothing, []))["ap10"] == 0
    assert precision_of((nothing, nothing, []))["ap"] is None


def test_more_than_a_hundred_regions_of_an_image_all_count():
    truth = np.zeros((30, 60), dtype=np.uint8)
    truth[::2, ::2] = 1
    assert len(regions(truth)) == 450
    assert precision_of((truth, truth, list(np.linspace(0.2, 0.9, 450))))["ap"] == 1.0


def test_scores_follow_their_regions_when_ignored_ones_are_left_out():
    truth = bars((1, 0, 10, 1), (5, 0, 10, 1))
    truth[0, :] = 255
    predicted = bars((1, 0, 10, 1), (7, 0, 10, 1))
    predicted[0, 25] = 1  # ignored; it is first in order, and its score is not used
    assert regions(predicted).index[0, 25] == 1
    metrics = precision_of((truth, predicted, [0.1, 0.9, 0.5]))
    assert metrics["ap50"] == pytest.approx(51 / 101, abs=1e-6)
    assert precision_of((truth, predicted, [0.1, 0.5, 0.9]))["ap50"] == pytest.approx(51 / 2 / 101, abs=1e-6)


def random_images(seed: int, count: int = 3) -> tuple[list, list, list]:
    """Bars of truth, predictions near them and elsewhere, and scores of which no two are equal."""
    generator = np.random.default_rng(seed)
    truths, predictions = [], []
    for _ in range(count):
        true = [
            (row, int(generator.integers(0, 12)), int(generator.integers(2, 12)), 1 + row % 4 // 2) for row in (0, 6)
        ]
        moved = [
            (row, left + int(generator.integers(0, 3)), max(1, length - 1), label) for row, left, length, label in true
        ]
        false = [(row, int(generator.integers(0, 25)), 3, int(generator.integers(1, 3))) for row in (3, 9)]
        truths.append(bars(*true, (10, 0, 4, 2)))
        predictions.append(bars(*[part for part in moved + false if generator.random() < 0.7]))
    numbers = [len(regions(labels)) for labels in predictions]
    ranks = generator.permutation(sum(numbers)) / (sum(numbers) + 1)
    return truths, predictions, [own.tolist() for own in np.split(ranks, np.cumsum(numbers)[:-1])]


@given(seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_it_is_what_plain_loops_over_sets_of_pixels_give(seed):
    truths, predictions, scores = random_images(seed)
    metrics, expected = (
        precision_of(*zip(truths, predictions, scores, strict=True)),
        slow_precision(*random_images(seed)),
    )
    assert metrics["ap10"] == pytest.approx(expected[0].mean(), abs=2e-6)
    assert metrics["ap50"] == pytest.approx(expected[1].mean(), abs=2e-6)
    assert metrics["ap"] == pytest.approx(expected[1:].mean(), abs=2e-6)


def test_images_without_any_region_cost_nothing_and_change_nothing(monkeypatch):
    nothing, seen = (bars(), bars(), []), []
    images = list(zip(*random_images(7), strict=True))
    wanted = precision_of(*images)
    real = average_precision_file._coco
    monkeypatch.setattr(
        average_precision_file, "_coco", lambda rows, *rest: seen.append(len(rows)) or real(rows, *rest)
    )
    assert precision_of(nothing, images[0], nothing, *images[1:], nothing) == wanted
    assert seen == [len(images)] * 2


@given(seed=st.integers(0, 2**16), score=st.floats(0.01, 0.99))
@settings(max_examples=25, deadline=None)
def test_one_more_false_positive_never_raises_it(seed, score):
    truths, predictions, scores = random_images(seed)
    before = precision_of(*zip(truths, predictions, scores, strict=True))
    worse, at = predictions[0].copy(), len(regions(predictions[0]))
    worse[11, 28:30] = 2  # touches nothing, and comes last in the order of the regions
    assert (len(regions(worse)), worse[10:, 26:].sum()) == (at + 1, 4)
    after = precision_of(*zip(truths, [worse, *predictions[1:]], [[*scores[0], score], *scores[1:]], strict=True))
    assert all(after[key] <= before[key] + 1e-6 for key in ("ap10", "ap50", "ap"))


@given(seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_a_perfect_prediction_scores_one_whatever_its_scores(seed):
    truths, _, _ = random_images(seed)
    generator = np.random.default_rng(seed)
    scores = [generator.random(len(regions(truth))).tolist() for truth in truths]
    metrics = precision_of(*zip(truths, truths, scores, strict=True))
    assert metrics["ap10"] == metrics["ap50"] == metrics["ap"] == 1
