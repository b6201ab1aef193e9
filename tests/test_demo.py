"""The renderer of the demo: exact outlines, boxes near their defects, contrast, shadows, the tone curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.demo.blade_defects import KINDS, SUBTLE_BELOW, Defect, add_defects
from stages.demo.camera import exposed, tone
from stages.demo.defect_outlines import Window, strokes
from stages.demo.scene import drawn_box, yolo_line
from stages.demo.textures import blend, smoothstep
from stages.demo.turbine_parts import Sun, tower

SIZE_HW = (60, 90)
SUN = Sun((0.0, -0.6), 0.8, 0.6, 0.35)


def window(height: int, width: int) -> Window:
    b, a = np.mgrid[:height, :width].astype(np.float32)
    return Window(a - width // 2, b - height // 2, np.full((height, width), 30, np.float32))


def part(seed: int = 0):
    return tower(np.random.default_rng(seed), SIZE_HW, SUN)


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
def test_a_line_one_pixel_wide_leaves_no_gap_in_the_truth(slope, shift):
    ends = np.asarray([[-20.0, -20 * slope + shift], [20.0, 20 * slope + shift]])
    mask = strokes(window(61, 61), [(ends, np.asarray([1.0]))]) >= 0.5
    assert mask[:, 10:51].any(0).all()
    assert mask[:, 10:51].sum(0).max() <= 3


def test_a_straight_line_covers_its_width():
    ends = np.asarray([[-15.0, 0.0], [15.0, 0.0]])
    mask = strokes(window(41, 61), [(ends, np.asarray([3.0]))]) >= 0.5
    assert (mask[:, 20:41].sum(0) == 3).all()
    assert not mask[:18].any()
    assert not mask[23:].any()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_coverage_is_a_share_and_stays_inside_the_window(kind):
    for seed in range(5):
        cover = kind.outline(np.random.default_rng(seed), window(121, 141), 50.0)
        assert cover.shape == (121, 141)
        assert cover.min() >= 0
        assert cover.max() <= 1
        assert (cover >= 0.5).any() or kind.name == "erosion"  # with the edge 30 px away there may be nothing to wear


@given(st.integers(0, 10**6), st.integers(0, 50), st.integers(0, 80), st.integers(1, 40), st.integers(1, 40))
def test_a_drawn_box_is_near_its_defect_and_inside_the_image(seed, top, left, tall, wide):
    mask = np.zeros((60, 90), bool)
    mask[top : top + tall, left : left + wide] = True
    x1, y1, x2, y2 = drawn_box(np.random.default_rng(seed), mask)
    assert 0 <= x1 < x2 <= 90
    assert 0 <= y1 < y2 <= 60
    inside = np.zeros_like(mask)
    inside[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))] = True
    assert (mask & inside).sum() >= 0.55 * mask.sum()
    assert x1 >= left - 9
    assert x2 <= min(left + wide, 90) + 9


def test_boxes_are_loose_or_tight_by_a_pixel_or_more():
    mask = np.zeros((60, 90), bool)
    mask[20:40, 30:60] = True
    lefts = np.asarray([30 - drawn_box(np.random.default_rng(seed), mask)[0] for seed in range(300)])
    assert (lefts > 1).mean() > 0.2
    assert (lefts < 0).mean() > 0.1
    assert lefts.min() >= -30 / 8


def test_yolo_line_normalises_width_by_width():
    assert yolo_line(1, (10, 20, 30, 60), (100, 200)) == "1 0.100000 0.400000 0.100000 0.400000"


def test_defects_darken_the_surface_just_where_they_are():
    only = part()
    sound = only.albedo.copy()
    defects, owner = add_defects(np.random.default_rng(3), [only], SUN, 3, 0.0, 1.0)
    assert defects
    changed = np.abs(only.albedo - sound).max(2) > 0
    assert changed[owner >= 0].all()
    assert set(np.unique(owner[owner >= 0])) == set(range(len(defects)))
    assert (only.visible[owner >= 0] >= 0.5).all()


def test_the_share_of_subtle_defects_is_the_one_asked_for():
    for share in (0.0, 1.0):
        found = []
        for seed in range(12):
            found += add_defects(np.random.default_rng(seed), [part(seed)], SUN, 2, share, 1.0)[0]
        subtle = np.mean([defect.subtle for defect in found])
        assert subtle == 1 if share else subtle < 0.35


def test_a_defect_of_low_contrast_is_subtle():
    assert Defect("chip", 1, SUBTLE_BELOW - 0.1).subtle
    assert not Defect("chip", 1, SUBTLE_BELOW).subtle


def test_nothing_is_drawn_on_a_hidden_part():
    only = part()
    only.visible = np.zeros_like(only.cover)
    defects, owner = add_defects(np.random.default_rng(0), [only], SUN, 4, 0.3, 1.0)
    assert defects == []
    assert (owner == -1).all()


def test_a_shadow_removes_sunlight_and_leaves_ambient_light():
    only = part()
    lit = only.shaded()
    only.sunlit[:] = 0
    assert (only.shaded() <= lit).all()
    np.testing.assert_allclose(only.shaded(), only.albedo * only.ambient)


def test_tone_is_the_srgb_curve():
    np.testing.assert_allclose(tone(np.asarray([0.0, 1.0, 2.0, 0.2140])), [0, 255, 255, 127.5], atol=0.1)


def test_the_camera_keeps_shape_and_brightness():
    scene = np.full((30, 50, 3), 0.2, np.float32)
    rgb = exposed(np.random.default_rng(0), scene)
    assert rgb.shape == (30, 50, 3)
    assert rgb.dtype == np.uint8
    assert abs(rgb.mean() - 124) < 20
    assert rgb.std() > 0.5


def test_blend_and_smoothstep_by_hand():
    image = np.zeros((1, 3, 3), np.float32)
    blend(image, np.asarray([[0, 0.5, 1]], np.float32), (1, 1, 1))
    np.testing.assert_allclose(image[0, :, 0], [0, 0.5, 1])
    np.testing.assert_allclose(smoothstep(0, 2, np.asarray([-1.0, 1.0, 3.0])), [0, 0.5, 1])
