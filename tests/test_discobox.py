"""DiscoBox-lite: mean field against a loop, and what refining does."""

import math
from functools import partial

import pytest
import torch

from stages.losses.batch import Batch, Moment
from stages.losses.terms import OFFSETS_YX
from stages.methods import discobox
from stages.methods.discobox import mean_field
from tests.support.boxed import (
    BOX_LOSS,
    batch_of,
    boxes_of,
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

losses = partial(losses_of, discobox)

NOW = Moment(0.5, torch.ones(3))


def params(**changes) -> discobox.Params:
    return discobox.Params(method="discobox", **{**BOX_LOSS, "refined": 1.0, "steps": 3, "coupling": 4.0, **changes})


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_mean_field_equals_a_loop(steps):
    draw = torch.Generator().manual_seed(steps)
    logits = torch.randn(1, 6, 7, generator=draw)
    similarity = torch.rand(1, 8, 6, 7, generator=draw)
    inside = torch.rand(1, 6, 7, generator=draw) < 0.7
    q = [[inside[0, y, x].item() / (1 + math.exp(-logits[0, y, x])) for x in range(7)] for y in range(6)]
    for _ in range(steps):
        after = [[0.0] * 7 for _ in range(6)]
        for y in range(6):
            for x in range(7):
                message = 0.0
                for number, (dy, dx) in enumerate(OFFSETS_YX):
                    at = (y + dy, x + dx)
                    beside = q[at[0]][at[1]] if 0 <= at[0] < 6 and 0 <= at[1] < 7 else 0.0
                    message += similarity[0, number, y, x].item() * (2 * beside - 1) / 8
                moved = logits[0, y, x].item() + 4.0 * message
                after[y][x] = inside[0, y, x].item() / (1 + math.exp(-moved))
        q = after
    assert torch.equal(mean_field(logits, inside, similarity, params(steps=steps))[0], (torch.tensor(q) > 0.5).float())


def test_cells_of_one_colour_pull_a_doubtful_one_along():
    """A hole in the teacher's mask is filled where the colour goes on, and stays where it does not."""
    logits = torch.full((1, 9, 9), 3.0)
    logits[0, 4, 4] = -1.0
    inside = torch.ones(1, 9, 9, dtype=torch.bool)
    assert mean_field(logits, inside, torch.ones(1, 8, 9, 9), params())[0, 4, 4] == 1
    assert mean_field(logits, inside, torch.zeros(1, 8, 9, 9), params())[0, 4, 4] == 0


def test_a_perfect_teacher_and_student_agree():
    corners = (4, 6, 14, 15)
    batch = batch_of(boxes_of([corners], filled(corners)))
    batch = batch._replace(clean=filled(corners).float()[:, None].repeat(1, 3, 1, 1))
    logits = sure_of(batch.labels)
    found, shown = losses(logits, batch, params(), NOW, frozen(logits))
    assert found["refined"] < 1e-4
    assert shown["refined_share"] == 1


def adjoining() -> Batch:
    """Two boxes of one class side by side, filled by their masks, in an image of one colour."""
    corners = [(2, 2, 10, 12), (10, 2, 18, 12)]
    batch = batch_of(boxes_of(corners, torch.cat([filled(corner) for corner in corners])))
    return batch._replace(clean=torch.full_like(batch.clean, 0.5))


def test_what_lies_in_another_box_of_the_class_is_no_evidence():
    """A doubtful cell beside the other box is filled by its five neighbours in its own, and the student, who fills both
    boxes, pays for neither.
    """
    batch = adjoining()
    teacher = frozen(sure_of(batch.labels, logit=3.0))
    teacher.fine[0, 1, 6, 9] = -0.3
    found, _ = losses(sure_of(batch.labels), batch, params(), NOW, teacher)
    assert found["refined"] < 1e-4


@pytest.mark.parametrize("alike", [True, False])
def test_colours_are_those_of_the_image_without_augmentation(alike):
    """A hole in the teacher's mask is filled where all is of one colour, and not where each pixel is of another."""
    batch = adjoining()
    noise = torch.rand(batch.image.shape, generator=torch.Generator().manual_seed(0))
    batch = batch._replace(image=noise if alike else batch.clean, clean=batch.clean if alike else noise)
    teacher = frozen(sure_of(batch.labels, logit=3.0))
    teacher.fine[0, 1, 6, 6] = -0.3
    found, _ = losses(sure_of(batch.labels), batch, params(), NOW, teacher)
    assert (found["refined"] < 1e-4) == alike


def test_the_refined_term_rises_over_the_warm_up():
    batch, logits, teacher = random_batch(5), random_logits(5), frozen(random_logits(6))
    values = [
        losses(logits, batch, params(warmup=0.2), Moment(progress, torch.ones(3)), teacher)[0]["refined"].item()
        for progress in (0.0, 0.1, 1.0)
    ]
    assert values == pytest.approx([0, values[2] / 2, values[2]])
    assert values[2] > 0


def test_a_teacher_that_sees_nothing_teaches_nothing():
    corners = (4, 6, 14, 15)
    batch = batch_of(boxes_of([corners], filled(corners)))
    found, shown = losses_of(
        discobox, random_logits(0, images=1), batch, params(), NOW, frozen(sure_of(torch.zeros_like(batch.labels)))
    )
    assert found["refined"] == 0
    assert shown["refined_share"] == 0


def test_no_gradient_reaches_the_teacher():
    batch, logits, teacher = random_batch(1), random_logits(1), random_logits(2)
    sum(losses(logits, batch, params(), NOW, teacher)[0].values()).backward()
    assert teacher.fine.grad is None
    assert logits.fine.grad.any()


def test_without_boxes_it_teaches_background():
    logits = random_logits(3)
    found, _ = losses_of(
        discobox, logits, batch_of(no_boxes(), images=2), params(stride=4), NOW, frozen(random_logits(4))
    )
    sum(found.values()).backward()
    assert (logits.fine.grad[:, 0] <= 0).all()
    assert (logits.fine.grad[:, 0] < 0).any()


def test_flipping_everything_changes_nothing():
    batch, logits, teacher = random_batch(5), random_logits(5), frozen(random_logits(6))
    found = losses(logits, batch, params(stride=2), NOW, teacher)[0]
    mirrored = losses_of(
        discobox, flipped_logits(logits), flipped(batch), params(stride=2), NOW, flipped_logits(teacher)
    )[0]
    assert {k: v.item() for k, v in mirrored.items()} == pytest.approx(
        {k: v.item() for k, v in found.items()}, rel=1e-4
    )
