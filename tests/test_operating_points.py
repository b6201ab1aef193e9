"""Decisions by threshold, what thresholds find and cost, the choice among them, and calibration: by hand."""

import tracemalloc

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.common.params import parse
from stages.evaluation import operating_points, probabilities
from stages.evaluation.confidence import BINS, TEMPERATURES, Confidence, confidence_of
from stages.evaluation.config import EvaluateParams, Wish
from stages.evaluation.defect_metrics import counts_by_class, outcome
from stages.evaluation.operating_points import THRESHOLDS, Counts, Watch, choose, curves, reached
from stages.evaluation.probabilities import decode_shares, encode_shares
from stages.evaluation.scored_shards import Scored
from stages.evaluation.tally import operating_points as tallied
from stages.student.decision import ARGMAX, Decision, decide, drop_small
from stages.student.inference import tile_runner
from stages.student.tiling import predict
from tests.support.tiny_student import decided_student, image_of

NAMES = ("dirt", "damage")


def logits_of(*probabilities: float) -> np.ndarray:
    """(K+1, 1, 1) logits of the probabilities of one pixel."""
    return np.log(np.array(probabilities, np.float32))[:, None, None]


@pytest.mark.parametrize(
    ("probabilities", "thresholds", "label", "confidence"),
    [
        ((0.6, 0.3, 0.1), None, 0, 0.6),
        ((0.6, 0.3, 0.1), [0.25, 0.5], 1, 0.3),
        ((0.6, 0.3, 0.1), [0.35, 0.5], 0, 0.6),
        ((0.1, 0.5, 0.4), [0.5, 0.2], 2, 0.4),
        ((0.1, 0.5, 0.4), [0.9, 0.9], 0, 0.1),
    ],
)
def test_of_the_classes_that_reach_their_threshold_the_largest_ratio_wins(probabilities, thresholds, label, confidence):
    labels, sure = decide(logits_of(*probabilities), Decision(thresholds=thresholds))
    assert labels.item() == label
    assert sure.item() == pytest.approx(confidence)


def test_a_threshold_that_is_just_reached_is_reached_and_no_logit_is_too_large():
    labels, sure = decide(np.array([[[0.0, 1000.0]], [[0.0, 0.0]]], np.float32), Decision(thresholds=[0.5]))
    assert (labels.tolist(), sure.tolist()) == ([[1, 0]], [[0.5, 1.0]])


def test_a_temperature_changes_the_confidence_and_no_label():
    labels, sure = decide(logits_of(0.8, 0.2), Decision(temperature=2.0))
    assert labels.item() == 0
    assert sure.item() == pytest.approx(0.8**0.5 / (0.8**0.5 + 0.2**0.5))


def test_small_regions_are_dropped_per_class_and_touching_corners_belong_together():
    labels = np.zeros((6, 9), np.uint8)
    labels[0, 0] = labels[1, 1] = labels[2, 2] = 1
    labels[4, 4:6] = 1
    labels[0, 7] = 2
    drop_small(labels, Decision(least_area_px=[3, 1]))
    assert np.argwhere(labels == 1).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert (labels == 2).sum() == 1
    drop_small(labels, Decision(least_area_px=[1, 2]))
    assert (labels == 2).sum() == 0
    mostly = np.array([[1, 1, 2], [1, 1, 1]], np.uint8)  # of other pixels there are fewer than the least area
    drop_small(mostly, Decision(least_area_px=[3, 1]))
    assert mostly.tolist() == [[1, 1, 2], [1, 1, 1]]


def watched(probabilities: np.ndarray, truth: np.ndarray, decision: Decision | None = None) -> tuple[Watch, Counts]:
    """From (K+1, H, W), given in two strips."""
    watch = Watch(truth.shape, len(probabilities) - 1, decision)
    for rows in (slice(0, 4), slice(4, truth.shape[0])):
        watch(rows, np.log(probabilities[:, rows]).astype(np.float32))
    return watch, watch.counts(truth)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """One class. True defects: 2 x 3 px said with 0.86, 1 x 4 px with 0.46. Not true: 2 px with 0.66; 1 px ignored."""
    truth, sure = np.zeros((7, 12), np.uint8), np.full((7, 12), 0.01)
    truth[1:3, 1:4], sure[1:3, 1:4] = 1, 0.86
    truth[5, 2:6], sure[5, 2:6] = 1, 0.46
    sure[3:5, 9] = 0.66
    truth[0, 11], sure[0, 11] = 255, 0.99
    return np.stack([1 - sure, sure]), truth


def test_pixels_and_defects_are_counted_at_every_threshold():
    _, counts = watched(*scene())
    by = {threshold: place for place, threshold in enumerate(THRESHOLDS)}
    for threshold, pixels, defects in (
        (0.02, [10, 2], [2, 1]),
        (0.4, [10, 2], [2, 1]),
        (0.5, [6, 2], [1, 1]),
        (0.7, [6, 0], [1, 0]),
        (0.9, [0, 0], [0, 0]),
    ):
        assert counts.pixels[0, by[threshold]].tolist() == pixels, threshold
        assert counts.defects[0, by[threshold]].tolist() == defects, threshold
    assert (counts.true_px[0], counts.true_defects[0]) == (10, 2)
    assert (counts.smallest_px[0, by[0.4]], counts.smallest_px[0, by[0.7]], counts.smallest_px[0, by[0.9]]) == (
        *(4, 6),
        np.inf,
    )
    drawn = curves(counts + counts, ["dirt"])
    assert drawn["images"] == 2
    assert drawn["classes"]["dirt"]["precision_px"][by[0.5]] == 0.75
    assert drawn["classes"]["dirt"]["recall_px"][by[0.5]] == 0.6
    assert drawn["classes"]["dirt"]["precision_defects"][by[0.4]] == pytest.approx(2 / 3, abs=1e-6)
    assert drawn["classes"]["dirt"]["recall_defects"][by[0.5]] == 0.5
    assert drawn["classes"]["dirt"]["false_positives_per_image"][by[0.5]] == 1
    assert drawn["classes"]["dirt"]["precision_px"][by[0.9]] is None


@pytest.mark.parametrize(
    ("wish", "threshold", "least_area_px"),
    [
        ({"recall": 1.0}, 0.45, 2),
        ({"recall": 0.5}, 0.85, 3),
        ({"false_positives_per_image": 0.0}, 0.7, 3),
        ({"false_positives_per_image": 1.0}, 0.02, 2),
        ({"cost": 10.0}, 0.45, 2),
        ({"cost": 0.75}, 0.85, 3),
    ],
)
def test_the_wish_decides(wish, threshold, least_area_px):
    _, counts = watched(*scene())
    for several in (counts, counts + counts):
        decision = choose(several, Wish(**wish), 1)
        assert (decision.thresholds, decision.least_area_px) == ([threshold], [least_area_px])


def test_a_defect_of_an_iou_of_exactly_a_tenth_is_detected_and_one_said_nowhere_is_counted():
    truth, sure = np.zeros((7, 12), np.uint8), np.full((7, 12), 0.01)
    truth[1, 1:11], sure[1, 4], truth[6, 2:5] = 1, 0.8, 1
    _, counts = watched(np.stack([1 - sure, sure]), truth)
    assert counts.true_defects.tolist() == [2]
    assert counts.defects[0, THRESHOLDS.index(0.5)].tolist() == [1, 0]


def test_where_every_threshold_has_too_many_false_positives_the_fewest_are_taken():
    truth, sure = np.zeros((7, 12), np.uint8), np.full((7, 12), 0.01)
    truth[1:3, 1:4], sure[1:3, 1:4] = 1, 0.86
    sure[5, 2:6] = 0.999
    sure[4, 10] = 0.32
    _, counts = watched(np.stack([1 - sure, sure]), truth)
    assert choose(counts, Wish(false_positives_per_image=0.0), 1).thresholds == [0.35]


def test_a_threshold_at_which_all_regions_are_one_is_not_chosen_for_its_few_false_positives():
    truth, sure = np.zeros((9, 60), np.uint8), np.full((9, 60), 0.12)  # up to 0.1 one region, of the whole image
    truth[3:5, 4::16], sure[3:5, 4::16] = 1, 0.6
    _, counts = watched(np.stack([1 - sure, sure]), truth)
    assert counts.defects[0, THRESHOLDS.index(0.1)].tolist() == [0, 1]
    assert choose(counts, Wish(false_positives_per_image=1.0), 1).thresholds == [0.15]


def decided(probabilities: np.ndarray, truth: np.ndarray, wish: Wish) -> tuple[Decision, dict]:
    """The decision chosen on one image, and what it reaches there."""
    names = NAMES[: len(probabilities) - 1]
    decision = choose(watched(probabilities, truth)[1], wish, len(names))
    watch, _ = watched(probabilities, truth, decision)
    return decision, reached([counts_by_class(outcome(truth, watch.decided()), len(names))], wish, names)


def two_that_compete() -> tuple[np.ndarray, np.ndarray]:
    """A dirt said to be dirt with 0.42 and damage with 0.32; a damage said with 0.22. Both of 2 x 3 px."""
    truth, probabilities = np.zeros((7, 12), np.uint8), np.zeros((3, 7, 12))
    probabilities[:] = np.array([0.98, 0.01, 0.01])[:, None, None]
    for label, columns, said in ((1, slice(1, 4), (0.26, 0.42, 0.32)), (2, slice(7, 10), (0.76, 0.02, 0.22))):
        truth[1:3, columns] = label
        probabilities[:, 1:3, columns] = np.array(said)[:, None, None]
    return probabilities, truth


def test_of_classes_that_compete_for_pixels_the_wish_is_fulfilled_for_those_that_get_them():
    """By itself each class reaches its recall; together 0.32 / 0.2 beats 0.42 / 0.4, and the dirt becomes damage."""
    decision, found = decided(*two_that_compete(), Wish(recall=1.0))
    assert decision.thresholds == [0.4, 0.2]
    assert found["fulfilled"] == {"dirt": False, "damage": True}
    assert found["on_val"] == {
        "dirt": {"recall_defects_iou10": 0, "false_positives_per_image_iou10": 0},
        "damage": {"recall_defects_iou10": 1, "false_positives_per_image_iou10": 1},
    }


def test_false_positives_are_those_that_the_classes_leave_together():
    """By itself dirt has the damage as false positive at all thresholds up to 0.3, and damage the dirt."""
    probabilities, truth = two_that_compete()
    probabilities[:, 1:3, 7:10] = np.array([0.05, 0.32, 0.63])[:, None, None]
    decision, found = decided(probabilities, truth, Wish(false_positives_per_image=1.0))
    assert decision.thresholds == [0.35, 0.35]
    assert found["fulfilled"] == {"dirt": True, "damage": True}
    assert [own["false_positives_per_image_iou10"] for own in found["on_val"].values()] == [0, 0]
    classes = [np.array([[1, 1, 2], [0, 0, 1]]), np.array([[0, 0, 1], [0, 0, 0]])]  # of two images
    found = reached(classes, Wish(false_positives_per_image=0.5), NAMES)
    assert found["fulfilled"] == {"dirt": False, "damage": True}
    assert found["on_val"]["damage"] == {"recall_defects_iou10": None, "false_positives_per_image_iou10": 0.5}
    assert reached(classes, Wish(recall=0.5), NAMES)["fulfilled"] == {"dirt": True, "damage": False}
    assert reached(classes, Wish(cost=2.0), NAMES)["fulfilled"] == {"dirt": None, "damage": None}
    assert reached([], "argmax", NAMES) == {"on_val": None, "fulfilled": {"dirt": True, "damage": True}}


def test_a_wish_that_cannot_be_fulfilled_gets_the_best_there_is_and_says_so():
    probabilities, truth = scene()
    truth[6, 9:11] = 1  # nothing is said there
    decision, found = decided(probabilities, truth, Wish(recall=0.9))
    assert (decision.thresholds, found["fulfilled"]) == ([0.45], {"dirt": False})
    assert found["on_val"]["dirt"]["recall_defects_iou10"] == pytest.approx(2 / 3, abs=1e-6)
    _, empty = watched(probabilities, np.zeros_like(truth))
    decision = choose(empty, Wish(recall=0.9), 1)
    assert (decision.thresholds, decision.least_area_px) == ([0.5], [1])
    with pytest.raises(UserError, match=r"operating_point: no image of val has a mask"):
        choose(None, Wish(recall=0.9), 1)
    assert choose(None, "argmax", 1) == ARGMAX


ONE = r" = \{.*\}: exactly one of recall, false_positives_per_image and cost is needed$"


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({}, ONE),
        ({"recall": 0.5, "cost": 2.0}, ONE),
        ({"recall": None}, ONE),
        ({"cost": None}, ONE),
        ({"recall": 1.5}, r"\.recall = 1\.5: Input should be less than or equal to 1$"),
        ({"cost": 0.0}, r"\.cost = 0\.0: Input should be greater than 0$"),
        ({"precision": 0.5}, r"\.precision = 0\.5: Extra inputs are not permitted$"),
        ("recall", r" = 'recall': allowed are argmax, \{recall: R\}, \{false_positives_per_image: F\} and "),
        (None, r" = None: allowed are argmax, "),
    ],
)
def test_a_wish_is_exactly_one_and_its_error_names_key_value_and_what_is_allowed(point, message):
    values = {"resolution": "native", "operating_point": point, "bootstrap": {"samples": 100, "seed": 0}}
    with pytest.raises(UserError, match=f"^p: evaluate.operating_point{message}"):
        parse(EvaluateParams, values, "p", "evaluate")


def test_argmax_and_a_wish_beside_nulls_are_taken():
    values = {"resolution": "native", "bootstrap": {"samples": 100, "seed": 0}}
    for point, wanted in (("argmax", "argmax"), ({"recall": 0.5, "cost": None}, Wish(recall=0.5))):
        assert parse(EvaluateParams, values | {"operating_point": point}, "p").operating_point == wanted


def test_the_decision_of_the_strips_is_that_of_the_whole_image():
    decision = Decision(thresholds=[0.3, 0.6], least_area_px=[5, 9])
    student = decided_student("native")
    for size_hw in ((57, 200), (300, 90)):
        image, run = image_of(size_hw), tile_runner(student)
        watch = Watch(size_hw, 2, decision)
        predict(run, image, 2, student.config.view, watch=watch)
        np.testing.assert_array_equal(watch.decided(), predict(run, image, 2, student.config.view, decision).labels)


def test_many_classes_take_bounded_memory_and_change_nothing(monkeypatch, tmp_path):
    """Bounds below the image's size stand in for an image of many megapixels."""
    logits = np.random.default_rng(0).normal(0, 3, (121, 60, 90)).astype(np.float32)
    decision = Decision(thresholds=[0.1] * 120)

    def watched_at_once() -> tuple[Watch, int]:
        tracemalloc.start()
        try:
            watch = Watch((60, 90), 120, decision, tmp_path)
            watch(slice(0, 60), logits)
            return watch, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    monkeypatch.setattr(operating_points, "SAMPLED_PX", 50)
    wanted, unbounded = watched_at_once()
    for name in ("IN_MEMORY", "AT_ONCE"):
        monkeypatch.setattr(operating_points, name, 1)
    found, bounded = watched_at_once()
    assert unbounded > 2 * logits.nbytes > 20 * bounded
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(found.shares, wanted.shares)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    monkeypatch.setattr(probabilities, "LONGEST_PX", 40)
    assert encode_shares(found.shares) == encode_shares(wanted.shares)
    assert decode_shares(encode_shares(found.shares), 120).shape == (120, 27, 40)


def test_calibration_is_counted_by_hand_on_predicted_defects():
    """Four defect pixels said with 0.9, three of them right: an error of 0.15. Background does not count."""
    probabilities = np.array([[0.1] * 4 + [0.99] * 4, [0.9] * 4 + [0.01] * 4])[:, None, :]
    truth = np.array([[1, 1, 1, 0, 0, 0, 0, 255]], np.uint8)
    found = confidence_of(np.log(probabilities), truth)
    place = TEMPERATURES.index(1.0)
    assert found.bins[place].sum(0).tolist() == pytest.approx([4, 3.6, 3])
    assert found.error(1.0) == pytest.approx(0.15)
    assert found.likelihood[place] == pytest.approx(-3 * np.log(0.9) - np.log(0.1) - 3 * np.log(0.99))
    assert found.curve(1.0)["pixels"][BINS - 1] == 4
    assert (found + found).error(1.0) == pytest.approx(0.15)


def test_the_calibration_error_is_that_of_each_tenth_of_the_confidence():
    """Four defect pixels in three bins: 0.62 and 0.68 of which one is right, 0.75 right, 0.85 wrong."""
    sure = np.array([0.62, 0.68, 0.75, 0.85])
    found = confidence_of(np.log(np.stack([1 - sure, sure]))[:, None], np.array([[0, 1, 1, 0]], np.uint8))
    curve = found.curve(1.0)
    assert curve["confidence"] == [None] * 6 + [0.65, 0.75, 0.85, None]
    assert curve["correct"] == [None] * 6 + [0.5, 1.0, 0.0, None]
    assert curve["expected_calibration_error"] == pytest.approx((2 * 0.15 + 0.25 + 0.85) / 4)


def test_calibration_is_computed_on_every_nth_pixel_of_the_whole_image(monkeypatch):
    """In strips whose rows are no multiple of the step, and whose logits the caller overwrites."""
    monkeypatch.setattr(operating_points, "SAMPLED_PX", 21)  # of 11 x 15: every third row and column
    generator = np.random.default_rng(0)
    logits, truth = generator.normal(0, 2, (3, 11, 15)).astype(np.float32), generator.integers(0, 3, (11, 15), np.uint8)
    watch, given = Watch(truth.shape, 2), logits.copy()
    for rows in (slice(0, 4), slice(4, 9), slice(9, 11)):
        watch(rows, given[:, rows])
        given[:, rows] = 0
    found, wanted = watch.counts(truth).confidence, confidence_of(logits[:, ::3, ::3], truth[::3, ::3])
    np.testing.assert_allclose(found.likelihood, wanted.likelihood)
    np.testing.assert_allclose(found.bins, wanted.bins)


@pytest.mark.parametrize("factor", [0.5, 4.0])
def test_temperatures_from_a_half_to_four_are_tried(factor):
    sure = np.linspace(0.55, 0.9, 8)  # as many of a hundred are right
    truth = np.concatenate([np.arange(100) < round(100 * share) for share in sure])[None].astype(np.uint8)
    margin = np.log(sure / (1 - sure)).repeat(100)[None] * factor
    watch = Watch(truth.shape, 1)
    watch(slice(0, 1), np.stack([0 * margin, margin]))
    for wish in ("argmax", Wish(cost=1.0)):
        assert choose(watch.counts(truth), wish, 1).temperature == factor


def test_the_temperature_that_made_the_logits_too_sure_is_found():
    generator = np.random.default_rng(0)
    honest = generator.normal(0, 2, (3, 200, 150))
    probabilities = np.exp(honest) / np.exp(honest).sum(0)
    truth = (generator.random((200, 150)) > probabilities.cumsum(0)[:, :, :]).sum(0).astype(np.uint8)
    found = confidence_of(honest * 2, truth)
    assert found.best_temperature() == 2.0
    assert found.error(2.0) < 0.02 < found.error(1.0)
    assert confidence_of(honest, truth).best_temperature() == 1.0


def test_no_predicted_defect_leaves_the_temperature_alone():
    found = confidence_of(np.log(np.array([[[0.9]], [[0.1]]])), np.zeros((1, 1), np.uint8))
    assert isinstance(found, Confidence)
    assert np.isnan(found.error(1.0))
    assert found.best_temperature() == 1.0


def test_of_several_students_errors_are_means_at_their_own_temperatures_and_counts_are_summed():
    probabilities, truth = scene()
    one, other = watched(probabilities, truth)[1], watched(probabilities, np.where(truth == 1, 0, truth))[1]
    tallies = {"val": [Scored(counts=one), Scored(counts=other)], "test": [Scored(), Scored()]}
    values = {"resolution": "native", "operating_point": "argmax", "bootstrap": {"samples": 100, "seed": 0}}
    decisions = [Decision(temperature=2.0), Decision()]
    found, drawn = tallied(tallies, decisions, "val", ["dirt"], parse(EvaluateParams, values, "p"))
    one, other = one.confidence, other.confidence
    assert found["val_expected_calibration_error"] == {
        "before": pytest.approx((one.error(1.0) + other.error(1.0)) / 2, abs=1e-6),
        "after": pytest.approx((one.error(2.0) + other.error(1.0)) / 2, abs=1e-6),
    }
    assert drawn["val"]["images"] == 2
    assert drawn["val"]["classes"]["dirt"]["precision_px"][THRESHOLDS.index(0.5)] == 6 / 16
    assert (found["test_expected_calibration_error"], found["test"], drawn["test"]) == (None, None, None)
