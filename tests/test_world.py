"""The procedural world: reproducible by seed, masks that show, boxes as humans draw them."""

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from stages.pretraining.world import clutter as clutter_module
from stages.pretraining.world.clutter import clutter
from stages.pretraining.world.materials import light, material
from stages.pretraining.world.primitives import blend, fractal, rotated, smooth
from stages.pretraining.world.procedural_scene import FREQUENCIES, MIN_PIXELS, _blended, camera, scene
from stages.pretraining.world.procedural_shapes import KINDS, blob, crack, speck
from stages.pretraining.world.prompt_samples import THIN, drawn_box, piece, prompt

SIZE_HW = (60, 97)
SEEDS = st.integers(0, 2**32 - 1)
WANTED = [(30.0, (20.0, 20.0)), (25.0, (40.0, 30.0)), (40.0, (70.0, 35.0)), (10.0, (500.0, 500.0))]


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_the_procedural_world_imports_nothing_else_of_the_project():
    folder = Path(__file__).parents[1] / "stages/pretraining/world"
    found = {
        node.module
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("stages")
    }
    assert found
    assert all(module.startswith("stages.pretraining.world.") for module in found)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_the_same_seed_gives_the_same_scene(seed):
    one, two = (scene(draw(seed), SIZE_HW, WANTED) for _ in range(2))
    assert one.image.shape == (*SIZE_HW, 3)
    assert one.image.dtype == np.uint8
    assert np.array_equal(one.image, two.image)
    assert [each.kind for each in one.defects] == [each.kind for each in two.defects]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(one.defects, two.defects, strict=True))


def test_other_seeds_give_other_scenes():
    images = {scene(draw(seed), SIZE_HW, WANTED).image.tobytes() for seed in range(5)}
    assert len(images) == 5


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_masks_have_a_minimum_size_and_never_share_a_pixel(seed):
    made = scene(draw(seed), SIZE_HW, WANTED)
    assert len(made.defects) < len(WANTED)  # the last one wanted lies outside the image
    for defect in made.defects:
        assert defect.kind in KINDS
        assert defect.mask.shape == SIZE_HW
        assert defect.mask.dtype == bool
        assert defect.mask.sum() >= MIN_PIXELS
    assert sum((defect.mask.astype(int) for defect in made.defects), np.zeros(SIZE_HW, int)).max() <= 1


def test_a_scene_may_have_no_defect():
    assert scene(draw(0), SIZE_HW, []).defects == []


def test_a_defect_lies_where_it_is_wanted():
    centres = []
    for seed in range(40):
        for defect in scene(draw(seed), SIZE_HW, [(16.0, (75.0, 20.0))]).defects:
            x1, y1, x2, y2 = extent(defect.mask)
            centres.append(((x1 + x2) / 2, (y1 + y2) / 2))
    assert len(centres) > 30
    assert np.median(centres, axis=0) == pytest.approx([75, 20], abs=1.5)


def test_a_defect_can_be_seen():
    """Only the pixels around the mask differ from the same surface without the defect, and those do."""
    surface = np.full((*SIZE_HW, 3), 0.5, np.float32)
    coverage = blob(draw(1), SIZE_HW, 24)
    for seed in range(20):
        change = np.abs(_blended(draw(seed), surface, coverage, "blob") - surface).mean(-1)
        assert change[coverage >= 0.5].mean() > 0.02
        assert change[distance_transform_edt(coverage == 0) > 8].max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_hw", [(40, 90), (90, 40)])
def test_a_shape_is_a_coverage_about_as_long_as_wanted(kind, size_hw):
    sides = []
    for seed in range(12):
        coverage = KINDS[kind](draw(seed), size_hw, 24.0)
        assert coverage.shape == size_hw
        assert 0 <= coverage.min() <= coverage.max() <= 1
        if (coverage >= 0.5).any():
            x1, y1, x2, y2 = extent(coverage >= 0.5)
            sides.append(max(x2 - x1, y2 - y1))
    assert len(sides) >= 10
    assert 10 <= np.median(sides) <= 36


def test_cracks_are_thin_and_blobs_are_not():
    def thickness(shape):
        masks = [shape(draw(seed), (120, 160), 100.0) >= 0.5 for seed in range(10)]
        return np.median([2 * np.median(distance_transform_edt(mask)[mask]) for mask in masks])

    assert thickness(crack) <= 4
    assert thickness(blob) > 15


def test_a_speck_is_as_long_as_wanted():
    x1, y1, x2, y2 = extent(speck(draw(3), SIZE_HW, 20.0) >= 0.5)
    assert max(x2 - x1, y2 - y1) == pytest.approx(20, abs=4)


def test_noise_has_the_size_and_the_scale_asked_for():
    field = smooth(draw(0), SIZE_HW, (4, 4))
    assert field.shape == SIZE_HW
    assert fractal(draw(0), SIZE_HW, 16).std() == pytest.approx(1, abs=1e-5)
    drawn_out = fractal(draw(0), SIZE_HW, 4, stretch=20)
    assert np.abs(np.diff(drawn_out, axis=1)).mean() < 0.5 * np.abs(np.diff(drawn_out, axis=0)).mean()
    assert fractal(draw(0), SIZE_HW, 1).tolist() == np.zeros(SIZE_HW).tolist()  # no octave fits
    assert rotated(draw(0), SIZE_HW, lambda d, size: smooth(d, size, (5, 5)), 30).shape == SIZE_HW


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_surfaces_have_the_size_asked_for_and_no_holes(seed):
    surface = clutter(draw(seed), material(draw(seed), SIZE_HW))
    assert surface.shape == (*SIZE_HW, 3)
    assert np.isfinite(surface).all()
    assert light(draw(seed), SIZE_HW).shape == SIZE_HW


KINDS_OF_CLUTTER = ["_line", "_cable", "_letters", "_rivets", "_fins", "_fitting", "_shadow", "_cast", "_edge", "_band"]


@pytest.mark.parametrize("kind", KINDS_OF_CLUTTER)
def test_clutter_changes_the_surface(kind):
    plain = np.full((*SIZE_HW, 3), 0.5, np.float32)
    made = [getattr(clutter_module, kind)(draw(seed), plain) for seed in range(12)]
    assert sum(np.abs(surface - plain).max() > 0.02 for surface in made) >= 6, "some lie outside of the image"


def test_every_kind_of_shape_is_drawn():
    assert set(FREQUENCIES) == set(KINDS)


def test_blend_by_hand():
    surface = np.array([[[0.2, 0.4, 0.6], [0.2, 0.4, 0.6]]])
    half = blend(surface, np.array([[0.5, 0.0]]), np.array([1.0, 0.0, 0.6]))
    np.testing.assert_allclose(half, [[[0.6, 0.2, 0.6], [0.2, 0.4, 0.6]]])


def test_half_of_the_images_are_grey():
    surface = np.zeros((8, 8, 3), np.float32) + np.float32([0.2, 0.5, 0.8])
    grey = sum(np.ptp(camera(draw(seed), surface).astype(float).mean((0, 1))) < 5 for seed in range(60))
    assert 15 <= grey <= 45


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, left=st.integers(0, 30), top=st.integers(0, 20), width=st.integers(1, 60), height=st.integers(1, 35))
def test_drawn_boxes_are_off_by_a_tenth_or_a_pixel_and_inside(seed, left, top, width, height):
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + height, left : left + width] = True
    tight = np.array(extent(mask))
    box = drawn_box(draw(seed), mask)
    slack = np.maximum(0.1 * (tight[2:] - tight[:2]), 1)
    assert (np.abs(box - tight) <= np.tile(slack, 2) + 1e-9).all()
    assert (box[:2] >= 0).all()
    assert (box[2:] <= SIZE_HW[::-1]).all()
    assert (box[2:] > box[:2]).all()


def test_some_boxes_are_exact_some_loose_some_tight():
    mask = np.zeros(SIZE_HW, bool)
    mask[10:50, 20:80] = True
    offsets = np.array([(drawn_box(draw(seed), mask) - [20, 10, 80, 50]) * [-1, -1, 1, 1] for seed in range(90)])
    assert (offsets == 0).all(1).any()
    assert (offsets > 2).any()
    assert (offsets < -1).any()


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_a_prompt_has_its_mask_and_its_box_inside_the_image(seed):
    made = prompt(draw(seed), 64)
    height, width = made.size_hw
    assert made.image.shape == (64, 64, 3)
    assert made.mask.shape == (64, 64)
    assert max(height, width) == 64
    assert not made.image[height:].any()
    assert not made.image[:, width:].any()
    assert made.mask.any()
    assert not made.mask[height:].any()
    assert not made.mask[:, width:].any()
    x1, y1, x2, y2 = made.box_xyxy
    assert 0 <= x1 < x2 <= width + 1e-4
    assert 0 <= y1 < y2 <= height + 1e-4
    rows, columns = np.nonzero(made.mask)
    inside = (columns + 1 > x1) & (columns < x2) & (rows + 1 > y1) & (rows < y2)
    assert inside.mean() > 0.5


def test_prompts_show_every_kind_and_some_are_not_square():
    made = [prompt(draw(seed), 32) for seed in range(120)]
    assert {each.kind for each in made} == set(KINDS)
    assert 10 < sum(each.size_hw != (32, 32) for each in made) < 60
    again = prompt(draw(7), 32)
    assert np.array_equal(again.image, made[7].image)
    assert np.array_equal(again.box_xyxy, made[7].box_xyxy)


@pytest.mark.parametrize("seed", range(12))
def test_a_piece_has_its_mask_inside_its_box_and_shows_the_defect_beyond_it(seed):
    made = piece(draw(seed), 64)
    assert made.image.shape == (64, 64, 3) and made.size_hw == (64, 64)
    x1, y1, x2, y2 = made.box_xyxy
    assert 0 <= x1 < x2 <= 64 and 0 <= y1 < y2 <= 64
    outside = made.mask.copy()
    outside[max(int(y1) - 1, 0) : int(y2) + 2, max(int(x1) - 1, 0) : int(x2) + 2] = False
    assert not outside.any()


def test_some_pieces_are_empty_most_are_thin_and_all_are_repeatable():
    made = [piece(draw(seed), 48) for seed in range(80)]
    empty = [not one.mask.any() for one in made]
    assert 0.1 < np.mean(empty) < 0.5
    assert np.mean([one.kind in THIN for one in made]) > 0.5
    assert np.array_equal(piece(draw(3), 48).image, made[3].image)
