"""BoxTeacher: confidence and both pseudo-mask losses against loops, and where its masks come from."""

import math
from functools import partial

import pytest
import torch

from stages.data.tables import IGNORE
from stages.losses.batch import Moment
from stages.losses.grid import heads, pool_masks, scene
from stages.losses.instance import affinity_loss, pixel_loss
from stages.losses.pseudo_masks import (
    box_pixels,
    choose,
    ema_masks,
    fit_of,
    pairwise_box_iou,
    sam_masks,
    tight_boxes,
)
from stages.losses.terms import OFFSETS_YX, mask_similarity
from stages.methods import boxteacher
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

losses = partial(losses_of, boxteacher)

NOW = Moment(0.5, torch.ones(3))
SOURCES = ("ema", "sam", "sam_then_ema")
CORNERS = (4, 6, 14, 15)


def params(**changes) -> boxteacher.Params:
    values = {**BOX_LOSS, "source": "ema", "pixel": 0.5, "affinity": 0.1, **changes}
    return boxteacher.Params(method="boxteacher", **values)


def one_box(**scores):
    return batch_of(boxes_of([CORNERS], filled(CORNERS), **scores))


def test_tight_boxes_by_hand():
    masks = torch.zeros(2, 6, 9, dtype=torch.bool)
    masks[0, 1, 3] = masks[0, 4, 7] = True
    assert tight_boxes(masks).tolist() == [[3, 1, 8, 5], [0, 0, 0, 0]]


def test_box_iou_by_hand():
    first = torch.tensor([[0, 0, 4, 2], [0, 0, 4, 2], [0, 0, 4, 2], [1, 1, 1, 1]]).float()
    second = torch.tensor([[2, 1, 6, 5], [5, 0, 6, 2], [5, 3, 7, 5], [1, 1, 1, 1]]).float()
    assert pairwise_box_iou(first, second).tolist() == pytest.approx([2 / (8 + 16 - 2), 0, 0, 0])


def test_the_pixels_of_a_box_are_the_images_own():
    batch = one_box()
    labels = batch.labels.clone()
    labels[0, :, 12:] = IGNORE
    assert torch.equal(box_pixels(batch._replace(labels=labels), batch.boxes), filled((4, 6, 12, 15)))


def test_the_confidence_of_the_teachers_mask_is_the_root_of_its_mean_probability():
    batch = one_box()
    fine = torch.zeros(1, 3, 20, 24)
    fine[0, 1, 5:16, 3:15] = 2.0  # p = e^2 / (e^2 + 2)
    fine[0, 1, 8, 8] = 5.0
    fine[0, 1, 9, 9] = 0.6  # p = 0.48: no pixel of the mask
    pseudo, fit = ema_masks(random_logits(0, images=1)._replace(fine=fine), batch.boxes, box_pixels(batch, batch.boxes))
    low, high = (math.exp(z) / (math.exp(z) + 2) for z in (2, 5))
    assert torch.equal(pseudo.mask, filled(CORNERS) & ~filled((9, 9, 10, 10))), "cut to the box"
    assert pseudo.score.item() == pytest.approx(math.sqrt((88 * low + high) / 89), abs=1e-6)
    assert fit.item() == 1


def test_a_mask_that_does_not_reach_its_box_does_not_count():
    batch = one_box()
    labels = torch.zeros_like(batch.labels)
    labels[0, 6:11, 4:12] = 1  # 5 x 8 of 9 x 10
    pseudo, fit = ema_masks(frozen(sure_of(labels)), batch.boxes, box_pixels(batch, batch.boxes))
    assert fit.item() == pytest.approx(40 / 90)
    assert pseudo.score.item() == 0
    labels[0] = filled((4, 6, 9, 15))[0]  # 9 x 5, just half
    pseudo, fit = ema_masks(frozen(sure_of(labels)), batch.boxes, box_pixels(batch, batch.boxes))
    assert fit.item() == 0.5
    assert pseudo.score.item() == pytest.approx(1)


def test_a_box_that_the_window_cuts_is_compared_by_what_shows_of_it():
    batch = batch_of(boxes_of([(-20, 6, 6, 15)], filled((0, 6, 6, 15))))
    inside = box_pixels(batch, batch.boxes)
    assert fit_of(filled((0, 6, 6, 15)), inside).item() == 1


def test_the_confidence_of_sams_mask():
    batch = one_box(predicted_iou=1.2, mean_prob=0.81)
    assert sam_masks(batch.boxes, box_pixels(batch, batch.boxes)).score.item() == pytest.approx(0.9)
    empty = boxes_of([CORNERS], torch.zeros(1, 20, 24, dtype=torch.bool))
    assert sam_masks(empty, filled(CORNERS)).score.item() == 0


def test_sam_until_the_teachers_are_better():
    batch = one_box(predicted_iou=0.8, mean_prob=0.8)
    inside = box_pixels(batch, batch.boxes)
    for labels, wanted in ((torch.zeros_like(batch.labels), False), (batch.labels, True)):
        pseudo, from_ema = choose("sam_then_ema", frozen(sure_of(labels)), batch.boxes, inside)
        assert from_ema.item() == wanted
        assert pseudo.score.item() == pytest.approx(1.0 if wanted else 0.8, abs=1e-4)
    # sure, and of the box's size in one direction alone: it counts, but is no better than SAM's
    labels = torch.zeros_like(batch.labels)
    labels[0, 6:15, 4:10] = 1
    pseudo, from_ema = choose("sam_then_ema", frozen(sure_of(labels)), batch.boxes, inside)
    assert not from_ema.item()
    assert pseudo.score.item() == pytest.approx(0.8)


@pytest.mark.parametrize("source", SOURCES)
def test_a_box_without_any_mask_has_none_of_the_teachers(source):
    batch = batch_of(boxes_of([CORNERS], torch.zeros(1, 20, 24, dtype=torch.bool)))
    pseudo, from_ema = choose(source, frozen(sure_of(batch.labels)), batch.boxes, filled(CORNERS))
    assert (pseudo.score.item(), from_ema.item()) == (0, False)


def test_the_pixel_loss_equals_a_loop():
    batch, logits = random_batch(3, count=4, images=1), random_logits(3, images=1)
    on = scene(batch, 1)
    head = heads(logits, on, 0.5, 0.5)[0]
    masks = pool_masks(box_pixels(batch, on.boxes) & (torch.rand(on.inside.shape) < 0.6), 1)
    score = torch.tensor([0.0, 0.7, 0.4, 0.9])[: len(masks)]
    wanted = 0.0
    for i in range(len(masks)):
        common = squares = 0.0
        for y in range(20):
            for x in range(24):
                p = head.logits[i, y, x].sigmoid().item() * head.visible[i, y, x].item()
                t = masks[i, y, x].item()
                common, squares = common + p * t, squares + p * p + t * t
        wanted += score[i].item() * (1 - 2 * common / (squares + 1e-5))
    assert pixel_loss(head, masks, score).item() == pytest.approx(wanted / (score > 0).sum().item(), rel=1e-4)


def test_the_affinity_loss_is_a_mean_per_box():
    batch, logits = random_batch(4, count=3, images=1), random_logits(4, images=1)
    on = scene(batch, 1)
    head = heads(logits, on, 0.5, 0.5)[0]
    masks = (torch.rand(on.inside.shape, generator=torch.Generator().manual_seed(0)) < 0.6) & on.inside
    score = torch.tensor([0.5, 0.0, 0.8])[: len(masks)]
    similarity, wanted = mask_similarity(masks.float()), 0.0
    for i in range(len(masks)):
        values = []
        for y, x in on.inside[i].nonzero().tolist():
            for number, (dy, dx) in enumerate(OFFSETS_YX):
                at = (y + dy, x + dx)
                if not (0 <= at[0] < 20 and 0 <= at[1] < 24) or not head.visible[i][at]:
                    continue
                if similarity[i, number, y, x] >= 0.5:
                    a, b = head.logits[i, y, x].sigmoid(), head.logits[i][at].sigmoid()
                    values.append(-(a * b + (1 - a) * (1 - b)).log().item())
        wanted += score[i].item() * sum(values) / max(len(values), 1)
    assert affinity_loss(head, on, masks.float(), score).item() == pytest.approx(
        wanted / max((score > 0).sum().item(), 1), rel=1e-3
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_perfect_student_of_perfect_masks_has_next_to_no_pixel_loss(source, stride):
    batch = one_box(predicted_iou=1.0, mean_prob=1.0)
    logits = sure_of(batch.labels)
    found, shown = losses(logits, batch, params(source=source, stride=stride), NOW, frozen(logits))
    assert found["pixel"] < 1e-4
    assert shown["mask_score"] == pytest.approx(1.0, abs=1e-4)


def test_scores_scale_the_pseudo_losses_and_zero_silences_them():
    batch, logits = random_batch(5, count=3), random_logits(5)
    on = scene(batch, 1)
    head = heads(logits, on, 0.5, 0.5)[0]
    masks, score = on.inside.float(), torch.full((len(on.inside),), 0.8)
    for loss in (lambda s: pixel_loss(head, masks, s), lambda s: affinity_loss(head, on, masks, s)):
        assert loss(score / 2).item() == pytest.approx(loss(score).item() / 2, rel=1e-5)
        (gradient,) = torch.autograd.grad(loss(score * 0), logits.fine, retain_graph=True)
        assert not gradient.any()


@pytest.mark.parametrize("source", SOURCES)
def test_without_boxes_it_teaches_background(source):
    logits = random_logits(6)
    batch = batch_of(no_boxes(), images=2)
    found, shown = losses_of(boxteacher, logits, batch, params(source=source, stride=4), NOW, frozen(random_logits(7)))
    assert all(torch.isfinite(value) for value in [*found.values(), *shown.values()])
    sum(found.values()).backward()
    assert (logits.fine.grad[:, 0] <= 0).all()
    assert (logits.fine.grad[:, 0] < 0).any()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("seed", range(3))
def test_awkward_boxes_stay_finite_and_the_teacher_gets_no_gradient(source, seed):
    batch, logits, teacher = random_batch(seed, count=6), random_logits(seed), random_logits(seed + 50)
    found, _ = losses(logits, batch, params(source=source, stride=4), NOW, teacher)
    sum(found.values()).backward()
    assert torch.isfinite(logits.fine.grad).all()
    assert teacher.fine.grad is None


def test_flipping_everything_changes_nothing():
    batch, logits, teacher = random_batch(8), random_logits(8), frozen(random_logits(9))
    found = losses(logits, batch, params(stride=2), NOW, teacher)[0]
    mirrored = losses_of(
        boxteacher, flipped_logits(logits), flipped(batch), params(stride=2), NOW, flipped_logits(teacher)
    )[0]
    assert {k: v.item() for k, v in mirrored.items()} == pytest.approx(
        {k: v.item() for k, v in found.items()}, rel=1e-4
    )


def test_the_mask_losses_rise_over_the_warm_up_each_by_its_weight():
    check_mask_losses_rise(boxteacher, partial(params, source="sam"))


def test_shares_are_of_all_boxes():
    """Two boxes, of which the teacher sees the first."""
    corners = [(2, 2, 10, 10), (12, 8, 20, 18)]
    batch = batch_of(boxes_of(corners, torch.cat([filled(corner) for corner in corners])))
    teacher = frozen(sure_of(filled(corners[0]).long()))
    _, shown = losses(random_logits(0, images=1), batch, params(), NOW, teacher)
    assert shown["ema_share"] == 0.5
    assert shown["mask_score"] == pytest.approx(0.5)
