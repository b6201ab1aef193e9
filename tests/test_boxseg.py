"""BoxSeg's Quality-Aware Module: ranking, both fusions, scores, by hand and by their properties."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.losses.batch import Moment
from stages.losses.fusion import Peers, fuse, how_many, judge, mask_quality, peers, rank
from stages.methods import boxseg
from tests.support.boxed import (
    BOX_LOSS,
    batch_of,
    boxes_of,
    check_mask_losses_rise,
    filled,
    flipped,
    flipped_logits,
    frozen,
    losses_of,
    no_boxes,
    random_batch,
    random_logits,
    sure_of,
)

losses = partial(losses_of, boxseg)

NOW = Moment(0.5, torch.ones(3))
FUSIONS = ("published", "released")
LARGE = torch.tensor([10_000.0])


def params(**changes) -> boxseg.Params:
    values = {**BOX_LOSS, "quality_aware": True, "fusion": "published", "copy_paste": None, "pixel": 0.5}
    return boxseg.Params(method="boxseg", **{**values, "affinity": 0.1, **changes})


def random_peers(seed, count=5, size_hw=(4, 6)) -> Peers:
    draw = torch.Generator().manual_seed(seed)
    masks = torch.rand(1, count, *size_hw, generator=draw) < 0.6
    mean = 0.55 + 0.4 * torch.rand(1, count, generator=draw)
    score, iou = (torch.rand(1, count, generator=draw) for _ in range(2))
    return Peers(masks, masks * mean[..., None, None], score, iou)


def test_ranking_needs_extent_and_score():
    none = torch.zeros(1, 4, 2, 2)
    found = Peers(none > 0, none, torch.tensor([[0.9, 0.1, 0.2, 0.9]]), torch.tensor([[0.5, 0.9, 0.6, 0.8]]))
    assert rank(found).tolist() == [[False, False, True, True]]


def test_candidates_are_cut_to_the_box_and_the_teachers_own_comes_last():
    """The teacher is sure with 0.8 left of x = 9, outside the box too: half of the box, which is 10 x 9."""
    inside, mask = filled((4, 6, 14, 15)), filled((2, 6, 14, 12))
    boxes = boxes_of([(4, 6, 14, 15)], mask, candidates=mask[:, None].repeat(1, 2, 1, 1), mean_prob=0.7, box_iou=0.6)
    boxes = boxes._replace(predicted_iou=torch.tensor([[1.2, -0.1]]))
    p = torch.full((20, 24), 0.3)
    p[:, :9] = 0.8
    fine = torch.stack([(1 - p).log(), p.log(), torch.full_like(p, -30.0)])[None]
    found = peers(boxes, inside, random_logits(0, images=1)._replace(fine=fine))
    cut, half = filled((4, 6, 14, 12))[0], filled((4, 6, 9, 15))[0]
    assert torch.equal(found.mask[0], torch.stack([cut, cut, half]))
    torch.testing.assert_close(found.soft[0], torch.stack([0.7 * cut, 0.7 * cut, p * inside[0]]))
    torch.testing.assert_close(found.score[0], torch.tensor([1.0, 0.0, 0.8]))
    torch.testing.assert_close(found.iou[0], torch.tensor([0.6, 0.6, 0.5]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_published_fusion_equals_a_loop(seed):
    found, kept = random_peers(seed), torch.tensor([[True, True, False, True, True]])
    weights = [math.sqrt(s * i) if k else 0.0 for s, i, k in zip(found.score[0], found.iou[0], kept[0], strict=True)]
    fused = fuse(found, kept, LARGE, "published")[0]
    for y in range(4):
        for x in range(6):
            value = sum(w * found.soft[0, n, y, x].item() for n, w in enumerate(weights)) / sum(weights)
            if abs(value - 0.5) > 1e-5:
                assert fused[y, x] == (value > 0.5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_released_fusion_is_a_strict_majority(seed):
    found, kept = random_peers(seed), torch.tensor([[True, True, False, True, True]])
    votes = found.mask[0][kept[0]].sum(0)
    assert torch.equal(fuse(found, kept, LARGE, "released")[0], votes > 2), "two of four are background"


def test_how_many_by_hand():
    area = torch.tensor([4.0, 32.0**2, 64.0**2, 96.0**2, 1e6])
    assert how_many(area, 5).tolist() == [2, 2, 4, 5, 5]
    assert how_many(area, 1).tolist() == [1] * 5


def test_small_boxes_fuse_the_best_alone():
    masks = torch.zeros(1, 3, 2, 3, dtype=torch.bool)
    masks[0, 0, 0], masks[0, 1, 0], masks[0, 2, 1] = True, True, True
    found = Peers(masks, 0.9 * masks, torch.tensor([[0.9, 0.8, 0.7]]), torch.ones(1, 3))
    kept = torch.ones(1, 3, dtype=torch.bool)
    assert fuse(found, kept, torch.tensor([9.0]), "published")[0].tolist() == [[True] * 3, [False] * 3]


@pytest.mark.parametrize("fusion", FUSIONS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_candidates_does_not_matter(fusion, seed):
    found = random_peers(seed)
    inside = torch.ones(1, 4, 6, dtype=torch.bool)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    shuffled = Peers(*(part[:, order] for part in found))
    first, second = judge(found, inside, fusion), judge(shuffled, inside, fusion)
    assert first.score.item() == pytest.approx(second.score.item(), abs=1e-6)
    assert torch.equal(first.mask, second.mask)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_identical_candidates_are_returned_and_scored_by_formula(fusion):
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    masks = mask.expand(1, 5, 4, 6)
    found = Peers(masks, 0.8 * masks, torch.full((1, 5), 0.81), torch.full((1, 5), 0.64))
    pseudo = judge(found, torch.ones(1, 4, 6, dtype=torch.bool), fusion)
    assert torch.equal(pseudo.mask[0], mask)
    assert pseudo.score.item() == pytest.approx(math.sqrt((0.72 + 1) / 2 * 0.8), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_quality_equals_a_loop_and_never_exceeds_one(seed):
    found, kept = random_peers(seed), torch.tensor([[True, False, True, True, True]])
    fused = fuse(found, kept, LARGE, "published")
    each = []
    for n in (0, 2, 3, 4):
        own = found.mask[0, n]
        iou = (own & fused[0]).sum().item() / max((own | fused[0]).sum().item(), 1)
        a = iou * (found.soft[0, n] * own).sum().item() / max(fused.sum().item(), 1)
        assert a <= 1 + 1e-6
        each.append(math.sqrt((math.sqrt(found.score[0, n] * found.iou[0, n]) + 1) / 2 * a))
    assert mask_quality(found, kept, fused).item() == pytest.approx(sum(each) / 4, abs=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_candidates_that_are_not_valid_change_nothing(fusion):
    boxes = boxes_of([(1, 1, 9, 9)], filled((2, 2, 8, 8)))
    candidates, valid = boxes.candidates.clone(), boxes.valid.clone()
    candidates[0, 3], valid[0, 3] = False, False
    inside = filled((1, 1, 9, 9))
    without = judge(peers(boxes._replace(candidates=candidates, valid=valid), inside, None), inside, fusion)
    of_three = boxes.where(torch.tensor([0]))
    names = ("candidates", "valid", "predicted_iou", "mean_prob", "box_iou")
    of_three = of_three._replace(**{name: getattr(boxes, name)[:, :3] for name in names})
    wanted = judge(peers(of_three, inside, None), inside, fusion)
    assert torch.equal(without.mask, wanted.mask)
    assert without.score.item() == pytest.approx(wanted.score.item())


def test_a_candidate_of_pixels_of_low_probability_votes_for_its_mask_and_counts_for_the_quality():
    """The refined mask may take lower odds, down to a mean probability below 0.5; here all candidates are of that."""
    mask, inside = filled((2, 2, 8, 8)), filled((1, 1, 9, 9))
    pseudo = judge(peers(boxes_of([(1, 1, 9, 9)], mask, mean_prob=0.4), inside, None), inside, "released")
    assert torch.equal(pseudo.mask, mask)
    assert pseudo.score.item() == pytest.approx(math.sqrt((0.9 + 1) / 2 * 0.4))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_empty_candidates_score_nothing(fusion):
    boxes, inside = boxes_of([(1, 1, 9, 9)], torch.zeros(1, 20, 24, dtype=torch.bool)), filled((1, 1, 9, 9))
    pseudo = judge(peers(boxes, inside, frozen(sure_of(torch.zeros(1, 20, 24, dtype=torch.long)))), inside, fusion)
    assert pseudo.score.item() == 0
    assert not pseudo.mask.any()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_candidates_that_disagree_with_the_student_score_less(fusion):
    inside, agreed, shifted = (filled(corners) for corners in ((4, 4, 14, 14), (4, 4, 12, 14), (10, 4, 14, 14)))
    teacher = frozen(sure_of(agreed.long()))
    good, bad = (
        judge(peers(boxes_of([(4, 4, 14, 14)], masks), inside, teacher), inside, fusion).score.item()
        for masks in (agreed, shifted)
    )
    assert bad < good - 0.05


def test_a_candidate_that_contains_the_fused_mask_costs_nothing():
    """A property of the published score: a = |M| / |B| * |B| / |M|."""
    fused, larger = filled((6, 6, 10, 10)), filled((4, 4, 14, 14))
    found = Peers(larger[:, None], larger[:, None].float(), torch.ones(1, 1), torch.ones(1, 1))
    assert mask_quality(found, torch.ones(1, 1, dtype=torch.bool), fused).item() == pytest.approx(1)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("quality_aware", [True, False])
def test_losses_are_near_zero_for_perfect_masks_and_finite_for_awkward_ones(fusion, quality_aware):
    setting = params(fusion=fusion, quality_aware=quality_aware)
    corners = (4, 6, 14, 15)
    batch = batch_of(boxes_of([corners], filled(corners), mean_prob=1.0, predicted_iou=1.0, box_iou=1.0))
    logits = sure_of(batch.labels)
    found, shown = losses(logits, batch, setting, NOW, frozen(logits))
    assert found["pixel"] < 1e-4
    assert shown["mask_score"] == pytest.approx(1, abs=1e-4)
    for boxed in (random_batch(1, count=6), batch_of(no_boxes(), images=2)):
        logits = random_logits(2)
        found, shown = losses(logits, boxed, setting, NOW, frozen(random_logits(3)))
        sum(found.values()).backward()
        assert torch.isfinite(logits.fine.grad).all()
        assert all(torch.isfinite(value) for value in shown.values())
    assert (logits.fine.grad[:, 0] <= 0).all(), "without boxes it teaches background"
    assert (logits.fine.grad[:, 0] < 0).any()


def test_flipping_everything_changes_nothing():
    batch, logits, teacher = random_batch(8), random_logits(8), frozen(random_logits(9))
    found = losses(logits, batch, params(stride=2), NOW, teacher)[0]
    mirrored = losses_of(
        boxseg, flipped_logits(logits), flipped(batch), params(stride=2), NOW, flipped_logits(teacher)
    )[0]
    assert {k: v.item() for k, v in mirrored.items()} == pytest.approx(
        {k: v.item() for k, v in found.items()}, rel=1e-4
    )


def test_the_mask_losses_rise_over_the_warm_up_each_by_its_weight():
    check_mask_losses_rise(boxseg, params)


@pytest.mark.parametrize("quality_aware", [True, False])
def test_shares_are_of_all_boxes(quality_aware):
    """Two boxes, of which neither SAM nor the teacher has a mask in the second."""
    corners = [(2, 2, 10, 10), (12, 8, 20, 18)]
    masks = torch.cat([filled(corners[0]), torch.zeros(1, 20, 24, dtype=torch.bool)])
    batch = batch_of(boxes_of(corners, masks))
    teacher = frozen(sure_of(batch.labels))
    _, shown = losses(random_logits(0, images=1), batch, params(quality_aware=quality_aware), NOW, teacher)
    assert shown["ranked_share"] == 0.5
    assert 0.4 < shown["mask_score"] <= 0.5
