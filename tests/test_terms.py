"""Each term against loops over pixels, and what the formulas promise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.losses.terms import (
    DILATION,
    OFFSETS_YX,
    colour_similarity,
    dice,
    edges,
    grow,
    log_same,
    mask_similarity,
    mean_where,
    neighbours,
    projection,
    rgb_to_lab,
)

SIZE_HW = (5, 7)
WHOLE = torch.ones(1, 2, dtype=torch.bool)


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def pairs(size_hw=SIZE_HW):
    """(cell, number of the neighbour, neighbour or None) of the whole grid."""
    for y in range(size_hw[0]):
        for x in range(size_hw[1]):
            for number, (dy, dx) in enumerate(OFFSETS_YX):
                inside = 0 <= y + dy < size_hw[0] and 0 <= x + dx < size_hw[1]
                yield (y, x), number, (y + dy, x + dx) if inside else None


def test_dice_by_hand():
    # 2 (0.5 + 0.25) / (1 + 0.25 + 0.0625 + 1 + 1)
    p, t = torch.tensor([[0.5, 0.25, 1.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert dice(p, t).item() == pytest.approx(1 - 1.5 / 3.3125, abs=1e-5)
    assert dice(p, torch.zeros(1, 3)).item() == 1


def test_dice_with_an_empty_target_has_no_gradient():
    p = torch.full((1, 4), 0.5, requires_grad=True)
    dice(p, torch.zeros(1, 4)).sum().backward()
    assert not p.grad.any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_projection_equals_a_loop(seed):
    p = torch.rand(1, *SIZE_HW, generator=drawn(seed))
    box = torch.rand(1, *SIZE_HW, generator=drawn(seed + 1)) < 0.4
    wanted = 0.0
    for axis in (0, 1):
        lines = range(SIZE_HW[axis])
        take = (lambda m, i: m[0][i]) if axis == 0 else (lambda m, i: m[0][:, i])
        profile = [max(take(p, i).tolist()) for i in lines]
        goal = [float(take(box, i).any()) for i in lines]
        common = sum(a * b for a, b in zip(profile, goal, strict=True))
        wanted += 1 - 2 * common / (sum(a * a for a in profile) + sum(b * b for b in goal) + 1e-5)
    assert projection(p, box, WHOLE).item() == pytest.approx(wanted, abs=1e-6)


def test_projection_is_necessary_and_not_sufficient():
    """A filled box, and a diagonal that touches each of its rows and columns, both cost nothing."""
    box = torch.zeros(1, 9, 12, dtype=torch.bool)
    box[0, 2:7, 3:8] = True
    diagonal = torch.zeros(1, 9, 12)
    diagonal[0, range(2, 7), range(3, 8)] = 1.0
    assert projection(box.float(), box, WHOLE) <= 2e-5
    assert projection(diagonal, box, WHOLE) <= 2e-5


def test_inside_the_box_the_projection_only_ever_asks_for_more():
    box = torch.zeros(1, 9, 12, dtype=torch.bool)
    box[0, 2:7, 3:8] = True
    p = torch.rand(1, 9, 12, generator=drawn(0)).requires_grad_()
    projection(p, box, WHOLE).sum().backward()
    assert (p.grad[box] <= 0).all()


def test_an_axis_that_the_window_cuts_is_not_projected():
    """The visible half of a crack whose box goes on to the right has mask in every column, but not in every row."""
    box = torch.zeros(1, 6, 6, dtype=torch.bool)
    box[0, :, 3:] = True
    crack = torch.zeros(1, 6, 6)
    crack[0, range(3), range(3, 6)] = 1.0
    assert projection(crack, box, torch.tensor([[False, True]])) <= 1e-5
    assert projection(crack, box, WHOLE) > 0.1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), spread=st.floats(0.1, 20))
@example(seed=1, spread=18.0)
def test_log_same_equals_a_loop(seed, spread):
    logits = (torch.randn(1, *SIZE_HW, generator=drawn(seed)) * spread).double()
    found = log_same(logits)
    for (y, x), number, other in pairs():
        if other is None:
            continue
        a, b = (logits[0][at].item() for at in ((y, x), other))
        # 1 - p as the sigmoid of the negative: subtracted from 1, what is left of a sure p is rounding
        same = 1 / ((1 + math.exp(-a)) * (1 + math.exp(-b))) + 1 / ((1 + math.exp(a)) * (1 + math.exp(b)))
        assert found[0, number, y, x].item() == pytest.approx(math.log(same), abs=1e-5, rel=1e-4)


@pytest.mark.parametrize(("logit", "wanted"), [(20.0, 0.0), (-20.0, 0.0), (0.0, math.log(2))])
def test_pairs_of_one_opinion_cost_nothing_and_of_none_log_two(logit, wanted):
    on_grid = neighbours(torch.ones(1, *SIZE_HW, dtype=torch.bool), False)
    found = -log_same(torch.full((1, *SIZE_HW), logit))[on_grid]
    assert torch.allclose(found, torch.full_like(found, wanted), atol=1e-6)


def test_the_pairwise_gradient_stays_within_reach_of_the_box():
    logits = torch.randn(1, 12, 15, generator=drawn(1)).requires_grad_()
    box = torch.zeros(1, 12, 15, dtype=torch.bool)
    box[0, 5:7, 6:9] = True
    mean_where(-log_same(logits), edges(box, torch.ones_like(box))).backward()
    assert not logits.grad[~grow(box, DILATION)].any()
    assert logits.grad[~box].any(), "the neighbours outside are taught too"


def test_pairs_with_hidden_neighbours_are_left_out():
    box, visible = torch.ones(1, *SIZE_HW, dtype=torch.bool), torch.ones(1, *SIZE_HW, dtype=torch.bool)
    visible[0, 2, 4] = False
    found = edges(box, visible)
    for (y, x), number, other in pairs():
        assert found[0, number, y, x] == (other is not None and other != (2, 4) and (y, x) != (2, 4))


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
        ((0.01, 0.01, 0.01), (0.70, 0, 0)),
    ],
)
def test_lab_of_known_colours(rgb, lab):
    found = rgb_to_lab(torch.tensor(rgb, dtype=torch.float64)[None, :, None, None]).flatten()
    assert np.allclose(found, lab, atol=0.05)


def test_colour_similarity_equals_a_loop():
    rgb = torch.rand(2, 3, *SIZE_HW, generator=drawn(2)) * 0.1 + 0.5
    rgb[:, :, 0, 0] = 0  # black, as what is beyond the image might be taken for
    lab, found = rgb_to_lab(rgb), colour_similarity(rgb)
    for image in range(2):
        for (y, x), number, other in pairs():
            wanted = 0.0
            if other is not None:
                apart = lab[image, :, y, x] - lab[image, :, other[0], other[1]]
                wanted = math.exp(-math.sqrt((apart**2).sum().item()) / 2)
            assert found[image, number, y, x].item() == pytest.approx(wanted, abs=1e-4)


def test_the_colour_threshold_is_a_distance_in_lab():
    """S >= 0.3 is a distance of 2.41 and less."""
    assert math.exp(-2.40 / 2) >= 0.3 > math.exp(-2.42 / 2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_mask_similarity_equals_a_loop(seed):
    mask = (torch.rand(1, *SIZE_HW, generator=drawn(seed)) < 0.5).float()
    g = np.zeros(SIZE_HW)
    for y in range(SIZE_HW[0]):
        for x in range(SIZE_HW[1]):
            around = [
                mask[0, j, i].item() if 0 <= j < SIZE_HW[0] and 0 <= i < SIZE_HW[1] else 0.0
                for j in range(y - 1, y + 2)
                for i in range(x - 1, x + 2)
            ]
            g[y, x] = (mask[0, y, x].item() + sum(around) / 9) / 2
    found = mask_similarity(mask)
    for (y, x), number, other in pairs():
        wanted = 0.0 if other is None else g[y, x] * g[other] + (1 - g[y, x]) * (1 - g[other])
        assert found[0, number, y, x].item() == pytest.approx(wanted, abs=1e-6)


def test_a_cell_grows_by_so_many_cells_to_each_side():
    cells = torch.zeros(2, 9, 12, dtype=torch.bool)
    cells[0, 4, 6] = cells[1, 0, 11] = True
    wanted = torch.zeros_like(cells)
    wanted[0, 2:7, 4:9] = wanted[1, :3, 9:] = True
    assert torch.equal(grow(cells, 2), wanted)


def test_the_mean_of_nothing_is_zero_and_has_a_gradient():
    values = torch.randn(3, requires_grad=True)
    found = mean_where(values, torch.zeros(3, dtype=torch.bool))
    found.backward()
    assert found == 0
    assert not values.grad.any()
