"""Both losses against brute force, and the properties that the method's claims rest on."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.tables import IGNORE
from stages.losses.batch import Batch, Moment
from stages.losses.config import SelfcorrParams
from stages.losses.pixel import EPS, asymmetric_dice, binary_loss, weighted_cross_entropy
from stages.methods import boxes2pixels
from stages.methods.boxes2pixels import correct_labels
from stages.student.segmenter import Logits
from tests.support.boxed import losses_of

losses = partial(losses_of, boxes2pixels)

PARAMS = boxes2pixels.Params(method="boxes2pixels", fine=0.5, binary=0.5, beta=0.4, selfcorr=None)


def judged(logits: Logits, labels, class_weights=None, params=PARAMS, tau=None, warmup=0.0, progress=0.0):
    """Named losses and the corrected share; None where labels are not corrected."""
    if tau is not None:
        params = params.model_copy(update={"selfcorr": SelfcorrParams(tau=tau, warmup=warmup)})
    weights = torch.ones(logits.fine.shape[1]) if class_weights is None else class_weights
    nothing = torch.zeros(len(labels), 3, *labels.shape[1:])
    named, shown = losses_of(
        boxes2pixels, logits, Batch(nothing, nothing, labels, None), params, Moment(progress, weights), None
    )
    return named, shown.get("corrected_share")


def random_case(seed: int, classes: int = 3, size_hw=(3, 5), ignore: bool = False):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *size_hw, generator=generator) * 3
    labels = torch.randint(0, classes, (2, *size_hw), generator=generator)
    if ignore:
        labels[torch.rand(labels.shape, generator=generator) < 0.3] = IGNORE
    return logits, labels


def test_asymmetric_dice_by_hand():
    p, g = torch.tensor([0.8, 0.5, 0.1]), torch.tensor([1.0, 0.0, 1.0])
    # <p,g> = 0.9, <p,1-g> = 0.5, <1-p,g> = 1.1
    assert asymmetric_dice(p, g, beta=0.4).item() == pytest.approx(1 - 0.9 / (0.9 + 0.4 * 0.5 + 1.1), abs=1e-6)


def test_a_missed_pixel_costs_more_than_an_invented_one():
    g = torch.tensor([1.0, 1.0, 0.0, 0.0])
    false_negative = asymmetric_dice(torch.tensor([1.0, 0.0, 0.0, 0.0]), g, beta=0.4)
    false_positive = asymmetric_dice(torch.tensor([1.0, 1.0, 1.0, 0.0]), g, beta=0.4)
    assert false_negative > false_positive


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0, 2))
def test_binary_loss_equals_a_loop_over_pixels(seed, beta):
    logits, labels = random_case(seed, classes=2, ignore=True)
    labels[0, 0, 0] = 1
    hit = false_positive = false_negative = 0.0
    for image in range(2):
        for row in range(3):
            for column in range(5):
                label = labels[image, row, column].item()
                if label == IGNORE:
                    continue
                z0, z1 = logits[image, :, row, column].tolist()
                p = math.exp(z1) / (math.exp(z0) + math.exp(z1))
                hit += p * label
                false_positive += p * (1 - label)
                false_negative += (1 - p) * label
    wanted = 1 - (hit + EPS) / (hit + beta * false_positive + false_negative + EPS)
    assert binary_loss(logits, labels, beta).item() == pytest.approx(wanted, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_cross_entropy_equals_a_loop_over_pixels(seed):
    logits, labels = random_case(seed, ignore=True)
    labels[0, 0, 0] = 2
    weights, total, pixels = [0.4, 4.0, 2.0], 0.0, 0
    for image in range(2):
        for row in range(3):
            for column in range(5):
                label = labels[image, row, column].item()
                if label == IGNORE:
                    continue
                z = logits[image, :, row, column].tolist()
                total += weights[label] * (math.log(sum(map(math.exp, z))) - z[label])
                pixels += 1
    found = weighted_cross_entropy(logits, labels, torch.tensor(weights)).item()
    assert found == pytest.approx(total / pixels, rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), tau=st.floats(0.05, 0.95))
def test_self_correction_is_one_sided(seed, tau):
    logits, labels = random_case(seed, classes=4, ignore=True)
    corrected, changed = correct_labels(logits, labels, tau)
    assert (labels[changed] == 0).all(), "only background changes"
    assert (corrected[changed] > 0).all(), "and only into a defect class"
    assert torch.equal(corrected[~changed], labels[~changed])
    probabilities = logits.softmax(1)
    confidence, best = probabilities[:, 1:].max(1)
    assert torch.equal(changed, (labels == 0) & (confidence > tau))
    assert torch.equal(corrected[changed], best[changed] + 1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), low=st.floats(0.1, 0.5), more=st.floats(0.0, 0.4))
def test_a_higher_tau_corrects_a_subset(seed, low, more):
    logits, labels = random_case(seed)
    _, often = correct_labels(logits, labels, low)
    _, seldom = correct_labels(logits, labels, low + more)
    assert not (seldom & ~often).any()


def test_the_switch_changes_nothing_where_nothing_is_corrected():
    """The release divides by another number with self-correction off; ours must not."""
    logits, labels = random_case(1)
    outputs = Logits(fine=logits, binary=None)
    weights = torch.tensor([0.4, 4.0, 4.0])
    on, share = judged(outputs, labels, weights, tau=0.99999)
    off, _ = judged(outputs, labels, weights)
    assert share == 0
    assert torch.equal(on["fine"], off["fine"])


def test_no_gradient_flows_through_the_corrected_label():
    logits, labels = random_case(2)
    logits.requires_grad_()
    corrected, _ = correct_labels(logits, labels, 0.3)
    assert not corrected.requires_grad


def test_a_probability_of_just_tau_corrects_nothing():
    assert not correct_labels(torch.zeros(1, 2, 1, 3), torch.zeros(1, 1, 3, dtype=torch.long), 0.5)[1].any()


def test_the_binary_head_learns_the_labels_as_they_were_and_trusted_background_stays():
    logits, labels = random_case(8)
    batch = Batch(*[torch.zeros(2, 3, 3, 5)] * 2, labels, None, labels == 0)
    binary = random_case(9, classes=2)[0]
    params = PARAMS.model_copy(update={"selfcorr": SelfcorrParams(tau=0.01, warmup=0.0)})
    named, shown = losses_of(boxes2pixels, Logits(logits, binary), batch, params, Moment(0.5, torch.ones(3)), None)
    assert shown["corrected_share"] == 0
    found, shown = judged(Logits(logits, binary), labels, tau=0.01)
    assert shown > 0.5
    assert found["binary"] == named["binary"]
    assert named["binary"].item() == pytest.approx(PARAMS.binary * binary_loss(binary, labels, PARAMS.beta).item())


def test_the_corrected_share_counts_background_pixels_only():
    fine = torch.zeros(1, 3, 1, 4)
    fine[0, 2, 0, 0] = fine[0, 2, 0, 1] = 20.0  # sure of class 2 on two pixels, one of them labelled class 1
    labels = torch.tensor([[[0, 1, 0, IGNORE]]])
    _, share = judged(Logits(fine, None), labels, tau=0.9)
    assert share.item() == pytest.approx(1 / 2)


@pytest.mark.parametrize("others_have_defects", [True, False])
def test_defect_free_images_teach_the_binary_head_background(others_have_defects):
    logits = torch.zeros(2, 2, 4, 6, requires_grad=True)
    labels = torch.zeros(2, 4, 6, dtype=torch.long)
    labels[1, :2] = int(others_have_defects)
    binary_loss(logits, labels, beta=0.4).backward()
    defect_gradient = logits.grad[0, 1]
    assert (defect_gradient > 1e-4).all(), "descent lowers the defect logit on every pixel of the empty image"


def test_without_a_defect_the_binary_loss_is_the_mean_over_the_known_pixels():
    logits, labels = random_case(7, classes=2)[0], torch.zeros(2, 3, 5, dtype=torch.long)
    labels[:, 1] = IGNORE
    wanted = -logits.log_softmax(1)[:, 0][labels == 0].mean().item()
    assert binary_loss(logits, labels, beta=0.4).item() == pytest.approx(wanted, rel=1e-5)


def test_a_perfect_student_has_no_loss():
    labels = random_case(3)[1]
    fine = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2) * 40.0
    binary = torch.nn.functional.one_hot((labels > 0).long(), 2).permute(0, 3, 1, 2) * 40.0
    named, _ = judged(Logits(fine, binary), labels, tau=0.9)
    assert {name: value.item() for name, value in named.items()} == pytest.approx({"fine": 0, "binary": 0}, abs=1e-5)


def test_ignored_pixels_teach_nothing():
    logits, labels = random_case(4, ignore=True)
    fine, binary = logits.clone().requires_grad_(), logits[:, :2].clone().requires_grad_()
    named, _ = judged(Logits(fine, binary), labels, tau=0.4)
    sum(named.values()).backward()
    for gradient in (fine.grad, binary.grad):
        assert gradient.permute(0, 2, 3, 1)[labels == IGNORE].abs().max() == 0


def test_a_run_without_a_binary_head_has_no_binary_loss():
    logits, labels = random_case(5)
    params = PARAMS.model_copy(update={"binary": None, "beta": None})
    assert set(judged(Logits(logits, None), labels, params=params)[0]) == {"fine"}


def test_self_correction_waits_for_its_share_of_the_steps():
    logits, labels = random_case(6)
    shares = [judged(Logits(logits, None), labels, tau=0.3, warmup=0.5, progress=at)[1] for at in (0.49, 0.5)]
    assert shares[0] == 0 < shares[1]
