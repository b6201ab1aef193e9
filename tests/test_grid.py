"""The losses' grid: boxes by any overlap, probabilities pooled as probabilities, boxes that hide each other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.tables import IGNORE
from stages.losses.grid import box_cells, heads, instance_logits, pad, pool_log_probabilities, pool_masks, scene
from tests.support.boxed import batch_of, boxes_of, filled, random_batch, random_logits

SIZE_HW = (13, 22)


def edges_of(length, stride):
    """First and last pixel of each cell, as the padding on both ends puts them."""
    before = (-length % stride) // 2
    cells = -(-length // stride)
    return [(max(i * stride - before, 0), min((i + 1) * stride - before, length)) for i in range(cells)]


@settings(max_examples=60, deadline=None)
@given(
    stride=st.sampled_from([1, 2, 4]),
    x1=st.floats(-8, 24),
    y1=st.floats(-8, 15),
    width=st.floats(0.1, 30),
    height=st.floats(0.1, 30),
)
def test_a_box_has_every_cell_that_it_touches(stride, x1, y1, width, height):
    found = box_cells(torch.tensor([[x1, y1, x1 + width, y1 + height]]), SIZE_HW, stride)[0]
    for row, (top, bottom) in enumerate(edges_of(SIZE_HW[0], stride)):
        for column, (left, right) in enumerate(edges_of(SIZE_HW[1], stride)):
            over_x, over_y = (
                min(right, x1 + width) - max(left, x1),
                min(bottom, y1 + height) - max(top, y1),
            )
            if min(over_x, over_y) > 0.02:
                assert found[row, column]
            if min(over_x, over_y) < -0.001:
                assert not found[row, column]


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_no_box_in_the_window_vanishes_and_one_outside_has_no_cell(stride):
    tiny = torch.tensor([[9.3, 5.2, 9.305, 5.201], [21.98, 12.98, 22.0, 13.0], [0.0, 0.0, 0.4, 0.4]])
    assert (box_cells(tiny, SIZE_HW, stride).flatten(1).sum(1) == 1).all()
    away = torch.tensor([[22.0, 0.0, 30.0, 9.0], [-5.0, 2.0, 0.0, 9.0], [3.0, -9.0, 8.0, 0.0]])
    assert not box_cells(away, SIZE_HW, stride).any()


def test_a_tiny_box_around_an_edge_between_cells_has_the_cell_right_of_it_and_below():
    reach = torch.tensor([-(2**-8), -(2**-9), 2**-8, 2**-9])
    found = box_cells(torch.tensor([[8.0, 4.0, 8.0, 4.0]]) + reach, (16, 24), 4)[0]
    assert found.nonzero().tolist() == [[1, 2]]


def test_whole_corners_touch_no_cell_beyond():
    found = box_cells(torch.tensor([[4.0, 0.0, 12.0, 8.0]]), (16, 24), 4)[0]
    assert found.nonzero().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]


def test_padding_is_even_so_that_flipping_commutes():
    maps = torch.rand(1, 1, 10, 518)
    assert pad(maps, 4).shape == (1, 1, 12, 520)
    assert torch.equal(pad(maps.flip(-1), 4), pad(maps, 4).flip(-1))


def test_the_rim_is_repeated_and_the_odd_pixel_is_below_and_right():
    maps = torch.rand(2, 1, 5, 6)
    wanted = np.pad(maps.numpy(), ((0, 0), (0, 0), (1, 2), (1, 1)), mode="edge")
    assert np.array_equal(pad(maps, 4).numpy(), wanted)


def test_pooled_log_probabilities_are_those_of_the_mean_probability():
    logits = torch.randn(2, 3, 8, 12) * 5
    wanted = torch.nn.functional.avg_pool2d(logits.softmax(1), 4)
    assert torch.allclose(pool_log_probabilities(logits, 4).exp(), wanted, atol=1e-6)
    assert torch.isfinite(pool_log_probabilities(logits * 100, 4)).all()


def test_the_sigmoid_of_an_instance_is_the_softmax_of_its_class():
    log_p = torch.randn(2, 4, 3, 5).log_softmax(1)
    image, channel = torch.tensor([1, 0, 1]), torch.tensor([3, 0, 1])
    found = instance_logits(log_p, image, channel).sigmoid()
    for row, (i, k) in enumerate(zip(image, channel, strict=True)):
        assert torch.allclose(found[row], log_p[i, k].exp(), atol=1e-6)


def test_a_thin_mask_keeps_its_share_of_a_cell():
    masks = torch.zeros(1, 8, 12, dtype=torch.bool)
    masks[0, 3] = True
    assert torch.equal(pool_masks(masks, 4)[0], torch.tensor([[0.25] * 3, [0.0] * 3]))


def test_other_boxes_hide_what_the_same_channel_says_there():
    corners = [(2, 2, 10, 10), (8, 8, 16, 16), (4, 12, 8, 18)]
    masks = torch.cat([filled(corner) for corner in corners])
    batch = batch_of(boxes_of(corners, masks, class_id=[0, 0, 1]))
    on = scene(batch, 1)
    fine, binary = (head.visible for head in heads(random_logits(0, images=1), on, 0.5, 0.5))
    assert torch.equal(fine[0], ~(masks[1] & ~masks[0])), "its own pixels stay visible, also in the overlap"
    assert fine[2].all(), "no other box of its class"
    assert torch.equal(binary[2], ~((masks[0] | masks[1]) & ~masks[2]))


def test_boxes_of_another_image_hide_nothing():
    corners = [(2, 2, 10, 10), (8, 8, 16, 16)]
    boxes = boxes_of(corners, torch.cat([filled(corner) for corner in corners]), image_index=[0, 1])
    on = scene(batch_of(boxes, images=2), 1)
    assert all(head.visible.all() for head in heads(random_logits(0), on, 0.5, 0.5))


def test_a_box_has_no_cell_on_padding():
    batch = batch_of(boxes_of([(4, 4, 20, 12), (17, 2, 23, 9)], torch.cat([filled((4, 4, 20, 12))] * 2)))
    labels = batch.labels.clone()
    labels[0, :, 16:] = IGNORE
    on = scene(batch._replace(labels=labels), 4)
    assert on.kept.tolist() == [True, False]
    assert on.inside[0].nonzero().tolist() == [[row, column] for row in (1, 2) for column in (1, 2, 3)]


def test_a_box_ends_inside_the_window_up_to_rounding():
    """By axis: the window is 24 wide and 20 high."""
    cases = {
        (0.0, 0.0, 24.0, 20.0): [True, True],
        (-0.005, -0.005, 24.005, 20.005): [True, True],
        (-0.02, 1.0, 9.0, 9.0): [False, True],
        (1.0, -0.02, 9.0, 9.0): [True, False],
        (1.0, 1.0, 24.02, 9.0): [False, True],
        (1.0, 1.0, 9.0, 20.02): [True, False],
        (1.0, 1.0, 22.0, 22.0): [True, False],
    }
    masks = torch.cat([filled((2, 2, 8, 8))] * len(cases))
    assert scene(batch_of(boxes_of(list(cases), masks)), 1).whole_xy.tolist() == list(cases.values())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), stride=st.sampled_from([1, 2, 4]))
def test_boxes_without_a_cell_are_left_out(seed, stride):
    batch = random_batch(seed, count=6)
    on = scene(batch, stride)
    assert on.inside.flatten(1).any(1).all()
    assert len(on.boxes.xyxy) == box_cells(batch.boxes.xyxy, (20, 24), stride).flatten(1).any(1).sum()
