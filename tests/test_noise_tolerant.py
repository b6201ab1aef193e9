"""Losses that tolerate wrong labels: by hand, against cross-entropy, and what wrong labels and unknown pixels do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.tables import IGNORE
from stages.losses.batch import Batch, Moment
from stages.losses.pixel import generalised_cross_entropy, weighted_cross_entropy
from stages.methods import gce, nc, sce
from stages.student.segmenter import Logits
from tests.support.boxed import losses_of, random_logits

HEADS = {"fine": 0.5, "binary": 0.1}
PARAMS = {
    gce: gce.Params(method="gce", **HEADS, beta=0.4, q=0.7),
    sce: sce.Params(method="sce", **HEADS, beta=0.4, forward=0.1, reverse=1.0, floor=-4.0),
    nc: nc.Params(method="nc", **HEADS, warmup=0.3),
}
WEIGHTS = torch.tensor([0.5, 2.0, 3.0])
SIZE_HW = (3, 5)


def labels_of(seed: int, unknown: float = 0.0) -> torch.Tensor:
    """(2, 3, 5) labels of two classes, a share of them unknown."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (2, *SIZE_HW), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < unknown] = IGNORE
    return labels


def judged(method, logits: Logits, labels: torch.Tensor, progress: float = 0.5) -> dict[str, torch.Tensor]:
    nothing = torch.zeros(len(labels), 3, *SIZE_HW)
    batch = Batch(nothing, nothing, labels, None)
    return losses_of(method, logits, batch, PARAMS[method], Moment(progress, WEIGHTS), None)[0]


def pixels(logits: torch.Tensor, labels: torch.Tensor):
    """Probabilities and label of each known pixel, as plain numbers."""
    for image, own in zip(logits.softmax(1).tolist(), labels.tolist(), strict=True):
        for row in range(SIZE_HW[0]):
            for column in range(SIZE_HW[1]):
                if (label := own[row][column]) != IGNORE:
                    yield [channel[row][column] for channel in image], label


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), q=st.floats(0.05, 1))
def test_generalised_cross_entropy_equals_a_loop_over_pixels(seed, q):
    logits, labels = random_logits(seed, size_hw=SIZE_HW).fine, labels_of(seed, 0.3)
    each = [WEIGHTS[label].item() * (1 - p[label] ** q) / q for p, label in pixels(logits, labels)]
    wanted = math.fsum(each) / max(1, len(each))
    assert generalised_cross_entropy(logits, labels, WEIGHTS, q).item() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_generalised_cross_entropy_is_cross_entropy_for_a_small_q_and_the_missing_probability_for_one():
    logits, labels = random_logits(0, size_hw=SIZE_HW).fine, labels_of(0)
    wanted = weighted_cross_entropy(logits, labels, WEIGHTS).item()
    assert generalised_cross_entropy(logits, labels, WEIGHTS, 1e-3).item() == pytest.approx(wanted, rel=1e-2)
    missing = [WEIGHTS[label].item() * (1 - p[label]) for p, label in pixels(logits, labels)]
    found = generalised_cross_entropy(logits, labels, WEIGHTS, 1.0).item()
    assert found == pytest.approx(sum(missing) / len(missing), rel=1e-5)


def test_trusted_pixels_learn_by_cross_entropy():
    logits, labels, trusted = random_logits(1, size_hw=SIZE_HW).fine, labels_of(1, 0.3), labels_of(2) == 1
    found = generalised_cross_entropy(logits, labels, WEIGHTS, 0.7, trusted).item()
    known, of_trusted = (labels != IGNORE).sum(), ((labels != IGNORE) & trusted).sum()
    one = weighted_cross_entropy(logits, labels.where(trusted, torch.tensor(IGNORE)), WEIGHTS) * of_trusted
    other = generalised_cross_entropy(logits, labels.where(~trusted, torch.tensor(IGNORE)), WEIGHTS, 0.7)
    assert found == pytest.approx(((one + other * (known - of_trusted)) / known).item(), rel=1e-5)


def test_a_pixel_pulls_less_the_less_its_label_is_believed():
    """The gradient is that of cross-entropy times p[label]^q."""
    labels, q = torch.ones(1, 1, 1, dtype=torch.long), 0.7
    for margin in (-6.0, 0.0, 3.0):
        logits = torch.tensor([0.0, margin]).reshape(1, 2, 1, 1).requires_grad_()
        losses = generalised_cross_entropy(logits, labels, torch.ones(2), q), -logits.log_softmax(1)[:, 1].sum()
        pulls = [torch.autograd.grad(loss, logits)[0][0, 1, 0, 0].item() for loss in losses]
        p = 1 / (1 + math.exp(-margin))
        assert pulls[0] == pytest.approx(p**q * pulls[1], rel=1e-4)


def test_a_wrong_label_costs_a_sure_student_no_more_than_the_floor():
    sure = torch.zeros(1, 3, *SIZE_HW)
    sure[:, 0] = 50.0
    logits, labels = Logits(sure, None), torch.ones(1, *SIZE_HW, dtype=torch.long)
    forward = 0.1 * 50.0 * WEIGHTS[1].item()
    wanted = 0.5 * (forward + 4 * WEIGHTS[1].item())
    assert judged(sce, logits, labels)["fine"].item() == pytest.approx(wanted, rel=1e-4)


def test_symmetric_cross_entropy_is_the_weighted_sum_of_both():
    logits, labels = random_logits(3, size_hw=SIZE_HW), labels_of(3, 0.3)
    forward = weighted_cross_entropy(logits.fine, labels, WEIGHTS)
    reverse = [WEIGHTS[label].item() * 4 * (1 - p[label]) for p, label in pixels(logits.fine, labels)]
    wanted = 0.5 * (0.1 * forward.item() + sum(reverse) / len(reverse))
    assert judged(sce, logits, labels)["fine"].item() == pytest.approx(wanted, rel=1e-4)


def test_noise_correction_by_hand():
    p = torch.tensor([[[0.8, 0.5, 0.1, 0.9]]])
    labels = torch.tensor([[[2, 0, 1, IGNORE]]])
    # |p - g| = 0.2, 0.5, 0.9; sum p = 1.4, sum g = 2, sum p g = 0.9
    assert nc.noise_correction(p, labels, 1).item() == pytest.approx(1.6 / 2.5, abs=1e-5)
    assert nc.noise_correction(p, labels, 2).item() == pytest.approx((0.04 + 0.25 + 0.81) / 2.5, abs=1e-5)


def test_noise_correction_of_a_defect_where_there_is_none_is_bounded():
    labels = torch.tensor([[[0, 0, IGNORE]]])
    found = nc.noise_correction(torch.tensor([[[1.0, 0.5, 1.0]]]), labels, 1).item()
    assert found == pytest.approx((6 * math.log(10) + math.log(2)) / 2, rel=0.01)


def test_the_method_learns_trusted_pixels_by_cross_entropy_times_its_weight():
    logits, labels, trusted = random_logits(4, size_hw=SIZE_HW), labels_of(4), labels_of(5) == 1
    batch = Batch(*[torch.zeros(2, 3, *SIZE_HW)] * 2, labels, None, trusted)
    named, _ = losses_of(gce, logits, batch, PARAMS[gce], Moment(0.5, WEIGHTS), None)
    wanted = 0.5 * generalised_cross_entropy(logits.fine, labels, WEIGHTS, 0.7, trusted).item()
    assert named["fine"].item() == pytest.approx(wanted)


def test_errors_are_squared_until_the_end_of_the_warm_up():
    logits, labels = random_logits(5, size_hw=SIZE_HW), labels_of(5)
    p = 1 - logits.fine.softmax(1)[:, 0]
    for progress, power in ((0.29, 2), (0.3, 1)):
        wanted = 0.5 * nc.noise_correction(p, labels, power).item()
        assert judged(nc, logits, labels, progress)["fine"].item() == pytest.approx(wanted, rel=1e-5)


def test_which_class_a_defect_is_only_labelled_pixels_teach():
    logits, labels = random_logits(6, size_hw=SIZE_HW), labels_of(6)
    each = [
        WEIGHTS[label].item() * -math.log(p[label] / (1 - p[0])) for p, label in pixels(logits.fine, labels) if label
    ]
    assert judged(nc, logits, labels)["class"].item() == pytest.approx(0.5 * sum(each) / len(each), rel=1e-4)


@pytest.mark.parametrize("method", PARAMS)
def test_an_unknown_pixel_changes_nothing(method):
    labels = labels_of(7, 0.4)
    one, two = random_logits(7, size_hw=SIZE_HW), random_logits(8, size_hw=SIZE_HW)
    unknown = (labels == IGNORE)[:, None]
    other = Logits(*(torch.where(unknown, b, a) for a, b in zip(one, two, strict=True)))
    first, second = judged(method, one, labels), judged(method, other, labels)
    assert {key: value.item() for key, value in first.items()} == pytest.approx(
        {key: value.item() for key, value in second.items()}, rel=1e-5
    )


@pytest.mark.parametrize("method", PARAMS)
@pytest.mark.parametrize("value", [0, IGNORE])
def test_a_batch_without_a_defect_teaches_background_or_nothing(method, value):
    logits = random_logits(9, size_hw=SIZE_HW)
    sum(judged(method, logits, torch.full((2, *SIZE_HW), value)).values()).backward()
    for head in logits:
        background, defects = head.grad[:, 0], head.grad[:, 1:].sum(1)
        assert torch.isfinite(head.grad).all()
        assert (background < 0).all() and (defects > 0).all() if value == 0 else (head.grad == 0).all()


def test_without_a_binary_head_there_is_no_loss_of_one():
    logits = random_logits(10, size_hw=SIZE_HW)._replace(binary=None)
    for method in PARAMS:
        assert "binary" not in judged(method, logits, labels_of(10))
