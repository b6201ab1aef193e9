"""Trusted pixels in a batch: no method changes their labels, and every method learns them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.params import load_params
from stages.data.tables import IGNORE
from stages.losses.batch import Batch, Moment
from stages.losses.grid import heads, scene
from stages.losses.instance import pixel_loss, projection_and_pairs, pseudo_losses
from stages.losses.pixel import trusted_loss
from stages.losses.pseudo_masks import Pseudo
from stages.methods import two_sided
from stages.methods.boxes2pixels import correct_labels
from stages.plan import Params, resolve
from stages.student import plugins
from stages.student.segmenter import Logits
from tests.support.boxed import batch_of, boxes_of, filled, frozen, losses_of, random_batch, random_logits, sure_of
from tests.support.tiny_project import ROOT

PARAMS = load_params(Params, ROOT / "params.yaml", whole=True)
RUNS = ("boxes2pixels", "two_sided", "boxinst", "discobox", "boxteacher", "boxseg")
LATE = Moment(0.9, torch.ones(3))


def method_params(run: str, **changes):
    module = plugins.load("methods", run, run)
    values = {**resolve(PARAMS, run).supervision, **changes}
    return module, module.Params.model_validate(values | ({"copy_paste": None} if run == "boxseg" else {}))


def some_trusted(batch: Batch, seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return batch._replace(trusted=torch.rand(batch.labels.shape, generator=draw) < 0.5)


@pytest.mark.parametrize("run", RUNS)
def test_a_batch_without_a_trusted_pixel_teaches_as_one_that_knows_of_none(run):
    module, params = method_params(run)
    batch, logits = random_batch(3), random_logits(3)
    ema = frozen(random_logits(5))
    nothing = batch._replace(trusted=torch.zeros_like(batch.labels, dtype=torch.bool))
    expected, found = (losses_of(module, logits, each, params, LATE, ema)[0] for each in (batch, nothing))
    assert {name: value.item() for name, value in found.items()} == {n: v.item() for n, v in expected.items()}
    assert trusted_loss(logits, nothing, LATE.class_weights, 0.5, 0.5) == 0


def test_self_correction_leaves_trusted_background():
    """Three background pixels of which the student is sure that they are class 1; the second is trusted."""
    labels = torch.zeros(1, 1, 3, dtype=torch.long)
    logits = torch.tensor([0.0, 0.0, 9.0]).view(1, 3, 1, 1).expand(1, 3, 1, 3)
    corrected, changed = correct_labels(logits, labels, 0.9, torch.tensor([[[True, False, True]]]))
    assert corrected.tolist() == [[[2, 0, 2]]]
    assert changed.tolist() == [[[True, False, True]]]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_two_sided_changes_labels_and_never_a_trusted_one(seed):
    batch, ema = some_trusted(random_batch(seed), seed), frozen(random_logits(seed))
    _, params = method_params("two_sided")
    doubted = torch.arange(len(batch.boxes.class_id)) % 2 == 0
    always = two_sided.Thresholds(torch.full((2,), 0.99), torch.full((2,), 0.01))
    for found in (two_sided.without(batch, doubted), two_sided.correct(batch, ema, params, 0.9, always).labels):
        assert torch.equal(found[batch.trusted], batch.labels[batch.trusted])
        assert not torch.equal(found, batch.labels), "without a change this would prove nothing"


def test_the_trusted_loss_is_the_cross_entropy_of_the_trusted_pixels_over_all_known_ones():
    """Four pixels: trusted background, trusted class 0, noisy, unknown. Logits of 0: probabilities 1/3 and 1/2."""
    batch = Batch(
        *[torch.zeros(1, 3, 1, 4)] * 2,
        torch.tensor([[[0, 1, 2, IGNORE]]]),
        None,
        torch.tensor([[[True, True, False, False]]]),
    )
    logits = Logits(torch.zeros(1, 3, 1, 4), torch.zeros(1, 2, 1, 4))
    weights = torch.tensor([1.0, 4.0, 9.0])
    expected = (0.5 * (1 + 4) * math.log(3) + 0.25 * 2 * math.log(2)) / 3
    assert trusted_loss(logits, batch, weights, 0.5, 0.25).item() == pytest.approx(expected)
    fine_alone = trusted_loss(logits._replace(binary=None), batch, weights, 0.5, None)
    assert fine_alone.item() == pytest.approx(0.5 * 5 * math.log(3) / 3)


DRAWN = filled((6, 5, 12, 15)) | filled((6, 5, 18, 7))
OTHER = filled((12, 7, 18, 15))


def drawn_batch() -> Batch:
    """A trusted box of which a person drew all but the lower right quarter, where all candidates are that quarter."""
    batch = batch_of(boxes_of([[6.0, 5.0, 18.0, 15.0]], OTHER))
    return batch._replace(labels=DRAWN.long(), trusted=torch.ones_like(DRAWN))


def test_a_trusted_box_has_the_mask_that_was_drawn_with_weight_1():
    on = scene(drawn_batch(), 1)
    assert on.trusted.tolist() == [True]
    assert torch.equal(on.drawn, DRAWN)
    pseudo = Pseudo(OTHER, torch.tensor([0.1]))
    for said, expected in ((DRAWN, 0.0), (OTHER, 1.0)):
        seen = heads(sure_of(said.long()), on, 1.0, None)
        assert pseudo_losses(seen, on, pseudo, 1.0, 0.0)["pixel"].item() == pytest.approx(expected, abs=1e-3)


def beside_a_trusted_box() -> Batch:
    """A trusted box of which nobody drew a pixel, and beside it another, which teaches as ever; colours are alike."""
    corners = [[6.0, 5.0, 18.0, 15.0], [2.0, 16.0, 8.0, 19.0]]
    batch = batch_of(boxes_of(corners, torch.cat([OTHER, filled((2, 16, 8, 19))]), class_id=[0, 1]))
    batch = batch._replace(labels=torch.zeros_like(batch.labels), clean=torch.full_like(batch.clean, 0.5))
    return batch._replace(trusted=filled((0, 0, 24, 15)))


def test_a_trusted_box_without_a_drawn_pixel_has_no_mask_to_teach():
    batch = beside_a_trusted_box()
    on, masks = scene(batch, 1), batch.boxes.candidates[:, 0]
    seen = heads(random_logits(0, images=1), on, 1.0, None)
    found = pseudo_losses(seen, on, Pseudo(masks, torch.tensor([0.9, 0.5])), 1.0, 0.0)["pixel"]
    wanted = pixel_loss(seen[0], masks.float(), torch.tensor([0.0, 0.5]))
    assert found.item() == pytest.approx(wanted.item())


def test_the_pairs_of_a_trusted_box_teach_nothing():
    batch, (_, params) = beside_a_trusted_box(), method_params("boxinst", stride=1, warmup=0.0)
    alone, costs = batch._replace(boxes=batch.boxes.where(torch.tensor([False, True]))), []
    for one in (batch, alone):
        on = scene(one, 1)
        seen = heads(random_logits(0, images=1), on, 1.0, None)
        costs.append(projection_and_pairs(seen, on, one, params, 1.0)["pairwise"].item())
    assert 0 < costs[0] == pytest.approx(costs[1])


@pytest.mark.parametrize(
    ("missing", "trusted"), [((6, 5, 7, 6), False), ((20, 18, 24, 20), True)], ids=["in the box", "beside it"]
)
def test_a_box_with_a_pixel_that_nobody_drew_is_none(missing, trusted):
    batch = drawn_batch()
    batch = batch._replace(trusted=batch.trusted & ~filled(missing))
    assert scene(batch, 1).trusted.tolist() == [trusted]
    unknown = batch._replace(labels=torch.where(filled(missing), IGNORE, batch.labels))
    assert scene(unknown, 1).trusted.tolist() == [True], "an unknown pixel says nothing against it"


@pytest.mark.parametrize("run", RUNS)
def test_what_was_drawn_costs_less_than_what_the_candidates_say(run):
    module, params = method_params(run)
    batch = drawn_batch()
    costs = []
    for said in (DRAWN, OTHER):
        logits = sure_of(said.long())
        named, _ = losses_of(module, logits, batch, params, LATE, frozen(logits))
        assert module.Method.reads_labels == (run in ("boxes2pixels", "two_sided"))
        if not module.Method.reads_labels:
            named = named | {"trusted": trusted_loss(logits, batch, LATE.class_weights, params.fine, params.binary)}
        costs.append(sum(named.values()).item())
    assert costs[0] < 0.1 < 1 < costs[1]
