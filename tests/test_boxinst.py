"""BoxInst on the semantic student: terms against loops, and boxes of every awkward kind."""

from functools import partial

import pytest
import torch

from stages.data.tables import IGNORE
from stages.losses.batch import Moment
from stages.losses.grid import heads, scene
from stages.losses.terms import OFFSETS_YX, colour_similarity, grow
from stages.methods import boxinst
from tests.support.boxed import (
    BOX_LOSS,
    batch_of,
    boxes_of,
    filled,
    flipped,
    flipped_logits,
    losses_of,
    no_boxes,
    random_batch,
    random_logits,
    sure_of,
)

losses = partial(losses_of, boxinst)

NOW = Moment(0.5, torch.ones(3))


def params(**changes) -> boxinst.Params:
    return boxinst.Params(method="boxinst", **{**BOX_LOSS, **changes})


def named(logits, batch, **changes):
    return losses(logits, batch, params(**changes), NOW, None)[0]


def test_the_pairwise_term_equals_a_loop_over_boxes_cells_and_neighbours():
    corners = [(2, 2, 8, 9), (6, 5, 12, 11), (9, 1, 15, 4)]
    batch = batch_of(boxes_of(corners, torch.cat([filled(c) for c in corners]), class_id=[0, 0, 1]))
    batch = batch._replace(clean=batch.clean * 0.02 + 0.5)
    logits = random_logits(1, images=1)
    alike = colour_similarity(batch.clean)[0] >= 0.3
    inside = [filled(c)[0] for c in corners]
    probabilities = logits.fine.softmax(1)[0]
    total, count = 0.0, 0
    for i, class_id in enumerate([0, 0, 1]):
        p = probabilities[class_id + 1]
        rivals = [inside[j] for j in range(3) if j != i and [0, 0, 1][j] == class_id]
        hidden = torch.stack(rivals).any(0) & ~inside[i] if rivals else torch.zeros_like(inside[i])
        for y, x in inside[i].nonzero().tolist():
            for number, (dy, dx) in enumerate(OFFSETS_YX):
                other = (y + dy, x + dx)
                if not (0 <= other[0] < 20 and 0 <= other[1] < 24) or not alike[number, y, x] or hidden[other]:
                    continue
                total -= (p[y, x] * p[other] + (1 - p[y, x]) * (1 - p[other])).log().item()
                count += 1
    assert count > 100
    found = named(logits, batch, binary=None, fine=1.0)["pairwise"].item()
    assert found == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize(
    ("corners", "count"),
    [
        ((4, 4, 9, 10), 8),  # a quarter of the box's 30 cells, rounded up
        ((4, 4, 9, 18), 14),  # a quarter of its 55 known cells
        ((4, 4, 6, 5), 7),  # a fiftieth of the 330 cells out of reach, rounded up
        ((0, 0, 20, 14), 30),  # all that are out of reach: a quarter of the box are 70
    ],
)
def test_the_outside_term_is_the_mean_over_the_hardest_cells_out_of_reach(corners, count):
    batch = batch_of(boxes_of([corners], filled(corners)))
    labels = batch.labels.clone()
    labels[0, 15:] = IGNORE
    logits = random_logits(2, images=1)
    far = ~grow(filled(corners), 2)[0]
    far[15:] = False
    wanted = 0.0
    for head in (logits.fine, logits.binary):
        each = sorted((-head.log_softmax(1)[0, 0][far]).tolist(), reverse=True)
        wanted += sum(each[:count]) / count / 2
    assert named(logits, batch._replace(labels=labels))["outside"].item() == pytest.approx(wanted, rel=1e-5)


def test_where_no_cell_is_outside_the_outside_term_is_0_with_a_gradient():
    batch = batch_of(boxes_of([(0, 0, 24, 20)], filled((0, 0, 24, 20))))
    logits = random_logits(2, images=1)
    outside = named(logits, batch)["outside"]
    outside.backward()
    assert outside.item() == 0 and not logits.fine.grad.any()


def test_a_student_that_fills_its_boxes_costs_nothing():
    """Pairs across the box's rim are of another colour."""
    corners = (4, 6, 14, 15)
    batch = batch_of(boxes_of([corners], filled(corners)))
    clean = filled(corners).float()[:, None].repeat(1, 3, 1, 1)
    found = named(sure_of(batch.labels), batch._replace(clean=clean))
    assert sum(found.values()) < 1e-4


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_batch_without_boxes_teaches_background(stride):
    batch, logits = batch_of(no_boxes(), images=2), random_logits(3)
    found = named(logits, batch, stride=stride)
    assert all(torch.isfinite(value) for value in found.values())
    sum(found.values()).backward()
    for head in (logits.fine, logits.binary):
        background = head.grad[:, 0]
        assert (background <= 0).all(), "descent lowers background nowhere"
        share = (background < 0).float().mean()
        assert 0.02 <= share < 0.5, "the hardest fiftieth of the cells, and the pixels beside them"


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_overlapping_tiny_and_cut_boxes_stay_finite(seed, stride):
    batch, logits = random_batch(seed, count=6, size_hw=(19, 26)), random_logits(seed, size_hw=(19, 26))
    found = named(logits, batch, stride=stride)
    sum(found.values()).backward()
    assert torch.isfinite(sum(found.values()))
    assert torch.isfinite(logits.fine.grad).all()


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_flipping_everything_changes_nothing(stride):
    batch, logits = random_batch(7, count=5), random_logits(7)
    found = named(logits, batch, stride=stride)
    mirrored = named(flipped_logits(logits), flipped(batch), stride=stride)
    assert {k: v.item() for k, v in mirrored.items()} == pytest.approx(
        {k: v.item() for k, v in found.items()}, rel=1e-4
    )


def test_a_crack_under_a_cell_is_taught():
    batch = batch_of(boxes_of([(9.2, 3.0, 10.1, 17.0)], filled((9, 3, 10, 17))))
    logits = random_logits(8, images=1)
    named(logits, batch, stride=4, outside=0.0)["projection"].backward()
    assert logits.fine.grad[0, 1, 3:17, 9].abs().sum() > 0


def test_ignored_cells_teach_nothing():
    batch, logits = random_batch(9), random_logits(9)
    labels = batch.labels.clone()
    labels[:, :, 12:] = IGNORE
    sum(named(logits, batch._replace(labels=labels)).values()).backward()
    assert not logits.fine.grad[..., 12:].any()
    assert logits.fine.grad[..., :12].any()


def test_the_pairwise_term_rises_over_the_warm_up():
    batch, logits = random_batch(10), random_logits(10)
    batch = batch._replace(clean=torch.full_like(batch.clean, 0.5))
    values = [
        losses(logits, batch, params(warmup=0.2), Moment(progress, torch.ones(3)), None)[0]["pairwise"].item()
        for progress in (0.0, 0.1, 0.2, 1.0)
    ]
    assert values == pytest.approx([0.0, values[3] / 2, values[3], values[3]])
    assert values[3] > 0


def test_each_weight_scales_its_own_loss():
    batch, logits = random_batch(12), random_logits(12)
    batch = batch._replace(clean=torch.full_like(batch.clean, 0.5))
    once, weighted = named(logits, batch), named(logits, batch, projection=2.0, pairwise=3.0, outside=4.0)
    for name, weight in {"projection": 2, "pairwise": 3, "outside": 4}.items():
        assert 0 < weighted[name].item() == pytest.approx(weight * once[name].item(), rel=1e-5)


def test_a_run_without_a_binary_head_learns_by_the_fine_one():
    batch, logits = random_batch(11), random_logits(11)
    on = scene(batch, 1)
    assert len(heads(logits, on, 0.5, None)) == 1
    assert len(heads(logits._replace(binary=None), on, 0.5, 0.5)) == 1
