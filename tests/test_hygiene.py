"""Clean masks: small parts, holes, and the centre line of the box."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from stages.data.boxes import Window, centre_line
from stages.teacher.candidates import Candidate
from stages.teacher.hygiene import clean, parts_on_line, without_small_parts
from tests.support.tiny_teacher import params_of

PLACE = Window(20, 10, 32, 18)


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


MASK = mask_of(
    "######......",
    "######....##",
    "##.###....##",
    "######......",
    "######......",
    "#..###......",
    "#..###....#.",
    "######...#..",
)
"""43 pixels with a hole of 1 and one of 4; 4 pixels; two pixels that touch at a corner."""


def candidate(mask: np.ndarray) -> Candidate:
    return Candidate(PLACE, mask, 0.5, 0.25, 0.75, mask.astype(np.float32))


@pytest.mark.parametrize(
    ("min_part", "pixels", "holes"),
    [(0.0, 49, 5), (0.04, 43 + 1 + 4 + 2, 4), (0.06, 43 + 1 + 4, 4), (0.1, 43 + 4 + 1, 0), (1.0, 43 + 5, 0)],
    ids=["kept", "hole of one", "two at a corner", "parts and holes below 4.3", "only the largest"],
)
def test_parts_and_holes_below_a_share_of_the_largest_part(min_part, pixels, holes):
    found = clean(candidate(MASK), (20.0, 10.0, 32.0, 18.0), params_of(min_part=min_part))
    assert found.mask.sum() == pixels
    assert 48 - found.mask[:, :6].sum() == holes
    assert found[2:5] == (0.5, 0.25, 0.75), "scores are those of the teacher's mask"


def test_the_bounding_box_follows_the_mask():
    found = clean(candidate(MASK), (20.0, 10.0, 32.0, 18.0), params_of(min_part=1.0))
    assert found.tight == Window(20, 10, 26, 18)
    assert found.mask.all()


def test_an_open_bay_is_no_hole():
    bay = mask_of("#.###", "#...#", "#####")
    assert (without_small_parts(bay, 1.0) == bay).all()


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((20.0, 10.0, 32.0, 15.0), 43 + 4),  # wide: row 12
        ((20.0, 15.0, 32.0, 18.0), 43 + 2),  # wide: row 16
        ((28.0, 10.0, 33.0, 18.0), 4 + 2),  # high: column 30
        ((26.0, 10.0, 29.0, 18.0), 49),  # high: column 27, where there is nothing
    ],
    ids=["row", "another row", "column", "nothing there"],
)
def test_parts_on_the_centre_line_of_the_longer_side(box, kept):
    found = clean(candidate(MASK), box, params_of(parts="centre"))
    assert found.mask.sum() == kept


@pytest.mark.parametrize("box", [(0.0, 0.0, 12.0, 4.0), (20.0, 40.0, 32.0, 44.0), (60.0, 10.0, 62.0, 18.0)])
def test_a_centre_line_beside_the_mask_leaves_it(box):
    assert 0 in centre_line(box, PLACE).size_hw
    assert (parts_on_line(MASK, Window(3, 1, 3, 7)) == MASK).all()
    assert clean(candidate(MASK), box, params_of(parts="centre")).mask.sum() == MASK.sum()


@pytest.mark.parametrize(
    ("box", "line"),
    [
        ((22.0, 11.0, 30.0, 16.0), (20, 13, 32, 14)),  # wide: row 13, from border to border
        ((22.0, 11.0, 26.0, 17.0), (24, 10, 25, 18)),  # high: column 24
        ((22.0, 11.0, 26.0, 15.0), (20, 13, 32, 14)),  # square: as a wide one
    ],
)
def test_the_centre_line_runs_along_the_longer_side(box, line):
    assert centre_line(box, PLACE) == line


def test_no_mask_stays_no_mask():
    empty = Candidate(Window(0, 0, 0, 0), np.zeros((0, 0), bool), 0.5, 0.0, 0.0, np.zeros((8, 12), np.float32))
    found = clean(empty, (20.0, 10.0, 32.0, 18.0), params_of(min_part=0.5, parts="centre"))
    assert found.tight == empty.tight and found.mask.size == 0


@settings(max_examples=30, deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)), st.floats(0.01, 1.0))
def test_cleaning_twice_changes_nothing_and_the_largest_part_stays(mask, min_part):
    if not mask.any():
        return
    once = without_small_parts(mask, min_part)
    assert once.any()
    assert (without_small_parts(once, min_part) == once).all()
    assert (without_small_parts(mask.T, min_part) == once.T).all()
