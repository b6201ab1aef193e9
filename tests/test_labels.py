"""YOLO rows become boxes inside the image, or are rejected with a reason."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stages.ingestion.labels import OVERHANG, BadRow, RowFormat, count_rows, parse_labels, parse_row
from stages.masks import rle

SIZE_HW = (100, 200)
FOUR = RowFormat(4)


def kinds(data: bytes, class_count: int = 4) -> list[tuple[int, str]]:
    return [(line, bad.kind) for line, bad in parse_labels(data, SIZE_HW, RowFormat(class_count)).bad]


def test_a_row_becomes_upright_pixels():
    assert parse_row("2 0.5 0.25 0.1 0.3", SIZE_HW, FOUR).xyxy == pytest.approx((90, 10, 110, 40))
    assert parse_row("2 0.5 0.25 0.1 0.3", SIZE_HW, FOUR).class_id == 2


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ("7 0.5 0.5 0.1 0.1", "class", "label class 7 exceeds dataset class count 4, possible class labels are 0-3"),
        ("-1 0.5 0.5 0.1 0.1", "class", "negative label class -1"),
        ("1.5 0.5 0.5 0.1 0.1", "class", "label class 1.5 is not an integer"),
        ("-1.5 0.5 0.5 0.1 0.1", "class", "label class -1.5 is not an integer"),
        ("1 0.5 0.5 0.1", "columns", "labels require 5 columns, 4 columns detected"),
        ("1 0.5 0.5 0.1 0.1 0.9", "confidence", "6 columns detected: the last, 0.9, looks like a confidence"),
        ("1 .1 .1 .9 .1 .9 .9 .1", "confidence", "8 columns detected: the last, .1, looks like a confidence"),
        ("4 .5 .5 .1 .1", "class_one_more", "label class 4 exceeds dataset class count 4"),
        ("1 0.5 0.5 abc 0.1", "not_a_number", "'abc' is not a number"),
        ("1 0.5 0.5 1_0 0.1", "not_a_number", "'1_0'"),
        ("1 0.5 ٣ 0.1 0.1", "not_a_number", "'٣'"),
        ("1 nan 0.5 0.1 0.1", "not_finite", "nan is not a finite number"),
        ("inf 0.5 0.5 0.1 0.1", "not_finite", "inf"),
        ("1 0.5 0.5 0 0.1", "zero_area", "box size 0 x 0.1 is not positive"),
        ("1 0.5 0.5 0.1 -0.1", "zero_area", "box size 0.1 x -0.1"),
        ("1 1.004 0.5 0.006 0.1", "zero_area", "no area inside the image"),
        ("1 0.5 1.004 0.1 0.006", "zero_area", "no area inside the image"),
        ("1 0.5 0.5 1e-300 0.1", "zero_area", "no area inside the image"),
        ("1 0.5 0.5 0.1 " + "9" * 41, "out_of_bounds", "coordinates 0.5 0.5 0.1 " + "9" * 40 + "…: the box"),
        ("1 100 50 20 10", "out_of_bounds", "non-normalized or out of bounds coordinates 100 50 20 10"),
        ("1 0.5 0.96 0.1 0.11", "out_of_bounds", "allowed is 0 to 1, and 0.01 beyond is clipped"),
    ],
)
def test_a_bad_row_is_refused_with_its_value_and_what_is_allowed(row, kind, message):
    with pytest.raises(BadRow) as caught:
        parse_row(row, SIZE_HW, FOUR)
    assert caught.value.kind == kind
    assert message in str(caught.value)


def test_overhang_up_to_one_per_cent_is_clipped():
    box = parse_row("0 0.955 0.5 0.11 0.2", SIZE_HW, RowFormat(1))
    assert box.xyxy == pytest.approx((180, 40, 200, 60))
    assert box.xyxy[2] == 200
    assert box.overhang == pytest.approx(OVERHANG)
    with pytest.raises(BadRow):
        parse_row("0 0.9551 0.5 0.11 0.2", SIZE_HW, RowFormat(1))


@pytest.mark.parametrize(
    "beyond",
    ["0.045 .5 .11 .2", ".5 0.045 .2 .11", "0.955 .5 .11 .2", ".5 0.955 .2 .11"],
    ids=["left", "above", "right", "below"],
)
def test_no_side_may_overhang_further(beyond):
    assert parse_row(f"0 {beyond}", SIZE_HW, FOUR).overhang == pytest.approx(OVERHANG)
    with pytest.raises(BadRow, match="out of bounds"):
        parse_row(f"0 {beyond.replace('.11', '.1102')}", SIZE_HW, FOUR)


def test_byte_order_mark_crlf_tabs_and_blank_lines_are_tolerated():
    labels = parse_labels(b"\xef\xbb\xbf0 .5 .5 .1 .1\r\n\r\n1\t.5\t.5\t.1\t.1 \n   \n2 .5 .5 .1 .1", SIZE_HW, FOUR)
    assert [(line, box.class_id) for line, box in labels.boxes] == [(1, 0), (3, 1), (5, 2)]
    assert not labels.bad


def test_a_bad_row_rejects_no_other():
    data = b"0 .5 .5 .1 .1\n9 .5 .5 .1 .1\n\xff\xfe .5 .5 .1 .1\n1 .5 .5 .1 .1\n"
    assert [line for line, _ in parse_labels(data, SIZE_HW, FOUR).boxes] == [1, 4]
    assert kinds(data) == [(2, "class"), (3, "not_a_number")]


def test_a_repeated_row_is_removed_and_another_class_there_is_not():
    data = b"0 .5 .5 .1 .1\n1 .5 .5 .1 .1\n0 0.50 .5 .1 .1\n"
    labels = parse_labels(data, SIZE_HW, FOUR)
    assert [line for line, _ in labels.boxes] == [1, 2]
    assert [(line, str(bad)) for line, bad in labels.bad] == [(3, "duplicate label removed, same as line 1")]


def test_an_empty_file_has_neither_boxes_nor_bad_rows():
    for data in (b"", b"\n\n", b"\xef\xbb\xbf", b" \t\r\n"):
        labels = parse_labels(data, SIZE_HW, FOUR)
        assert not labels.boxes and not labels.bad


numbers = st.one_of(
    st.floats(-0.1, 1.2).map(str),
    st.floats().map(str),
    st.integers(-2, 12).map(str),
    st.text(max_size=4),
    st.sampled_from(["nan", "-inf", "1e400", "0x1", "1e-320", "-0.0"]),
)
rows = st.lists(numbers, max_size=9).map(" ".join)
sizes_hw = st.tuples(st.integers(10, 5000), st.integers(10, 5000))


@given(st.one_of(st.binary(max_size=300), st.lists(rows, max_size=6).map("\n".join).map(str.encode)), sizes_hw)
def test_any_bytes_give_boxes_inside_the_image_or_reasons(data, size_hw):
    labels = parse_labels(data, size_hw, RowFormat(3))
    height, width = size_hw
    for _, box in labels.boxes:
        x1, y1, x2, y2 = box.xyxy
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert box.class_id in range(3)
    lines = [line for line, _ in labels.boxes] + [line for line, _ in labels.bad]
    assert len(lines) == len(set(lines))
    assert len(lines) == sum(bool(row.decode(errors="replace").strip()) for row in _rows(data))


def _rows(data: bytes) -> list[bytes]:
    return data.removeprefix(b"\xef\xbb\xbf").splitlines()


@given(st.integers(0, 2), st.tuples(*[st.floats(0, 1)] * 4), sizes_hw)
def test_a_written_box_is_read_back(class_id, corners, size_hw):
    (left, right), (top, bottom) = sorted(corners[:2]), sorted(corners[2:])
    assume(right - left > 1e-6 and bottom - top > 1e-6)
    height, width = size_hw
    row = f"{class_id} {(left + right) / 2!r} {(top + bottom) / 2!r} {right - left!r} {bottom - top!r}"
    box = parse_row(row, size_hw, RowFormat(3))
    expected = (left * width, top * height, right * width, bottom * height)
    assert all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(box.xyxy, expected, strict=True))
    assert box.class_id == class_id
    assert box.overhang < 1e-12


def test_rows_of_other_tasks_give_their_box():
    """By hand, in 200 x 100 pixels: corners from (.2, .1) to (.8, .5) are (40, 10, 160, 50)."""
    polygon = parse_row("1 .2 .5 .8 .4 .5 .1", SIZE_HW, FOUR)
    assert (polygon.form, polygon.xyxy) == ("polygon", pytest.approx((40, 10, 160, 50)))
    oriented = parse_row("1 .2 .3 .5 .1 .8 .3 .5 .5", SIZE_HW, FOUR)
    assert (oriented.form, oriented.xyxy) == ("oriented", pytest.approx((40, 10, 160, 50)))
    pose = parse_row("1 .5 .3 .6 .4 .1 .1 2 .9 .9 1", SIZE_HW, RowFormat(4, keypoints=6))
    assert (pose.form, pose.xyxy) == ("pose", pytest.approx((40, 10, 160, 50)))
    sure = parse_row("1 .5 .3 .6 .4 .87", SIZE_HW, RowFormat(4, confidence=0.5))
    assert (sure.form, sure.xyxy) == ("confidence", pytest.approx((40, 10, 160, 50)))
    for confidence, least in ((".02", 0.0), (".5", 0.5)):
        assert parse_row(f"1 .5 .3 .6 .4 {confidence}", SIZE_HW, RowFormat(4, confidence=least)).form == "confidence"
    corners = parse_row("1 .2 .5 .8 .4 .5 .1 .9", SIZE_HW, RowFormat(4, confidence=0.5))
    assert (corners.form, corners.xyxy) == ("polygon", pytest.approx((40, 10, 160, 50)))
    found = parse_row("1 .5 .3 .6 .4 .3 .3 2 .7 .3 1 .9", SIZE_HW, RowFormat(4, keypoints=6, confidence=0.5))
    assert (found.form, found.xyxy) == ("pose", pytest.approx((40, 10, 160, 50)))


def test_keypoints_without_kpt_shape_are_told_by_their_visibility_or_look_like_corners():
    """Three keypoints in the box from (.2, .1) to (.8, .5): the numbers are corners as well, if none says visible."""
    seen = parse_row("1 .5 .3 .6 .4 .3 .3 2 .7 .3 1 0 0 0", SIZE_HW, FOUR)
    assert (seen.form, seen.xyxy) == ("pose", pytest.approx((40, 10, 160, 50)))
    assert parse_row("1 .5 .3 .6 .4 .3 .3 .7 .3 0 0", SIZE_HW, FOUR).keypoints == 11
    for corners in ("1 .5 .3 .6 .4 .3 .3 .7 .3", "1 .5 .3 .6 .4 .3 .3 .7 .3 0 0 .9"):  # four; and a confidence
        assert parse_row(corners, SIZE_HW, RowFormat(4, confidence=0.5)).keypoints == 0
    for polygon in ("1 .5 .3 .6 .4 .3 .3 .7 .3 .9 .3", "1 .8 .8 .9 .8 .9 .9 .8 .9 .8 .85", "1 0 0 1 0 1 1 0 1 0 0"):
        row = parse_row(polygon, SIZE_HW, FOUR)
        assert (row.form, row.keypoints) == ("polygon", 0)


def test_a_polygon_with_corners_on_two_borders_is_no_pose():
    """Every third number after the first four is 1, as if two keypoints were occluded; the second is not in the box."""
    row = parse_row("1 .6 .6 .5 .5 .8 .4 1 .7 .9 1", SIZE_HW, FOUR)
    assert (row.form, row.xyxy) == ("polygon", pytest.approx((100, 40, 200, 100)))
    for corners in (".8 .5 .9 .6 .9 .6 1 .7 .4 1", ".5 .5 .6 .2 .5 .7 1 .6 .5 0"):  # the box of a pose is in the image
        assert parse_row(f"1 {corners}", SIZE_HW, FOUR).form == "polygon"
    occluded = parse_row("1 .5 .3 .6 .4 .3 .3 1 .7 .3 1 0 0 0", SIZE_HW, FOUR)
    assert (occluded.form, occluded.xyxy) == ("pose", pytest.approx((40, 10, 160, 50)))


@pytest.mark.parametrize("row", ["x " * 40, "9" * 79 + " .5 .5 .1 .1", "0 7 7 7 7" + " " * 70, "0 " + ".5 " * 27])
def test_a_byte_of_labels_costs_a_bounded_number_of_bytes(row):
    """Label files are bounded, so that this bounds memory: 8 MiB, the most that are read, take 100 MB."""
    data = "".join(f"{row}\n" for _ in range(2000)).encode()
    tracemalloc.start()
    try:
        parse_labels(data, SIZE_HW, FOUR)
        assert tracemalloc.get_traced_memory()[1] < 12 * len(data)
    finally:
        tracemalloc.stop()


def test_a_trusted_polygon_is_a_mask_and_its_box_is_that_of_its_pixels():
    """In 20 x 10 pixels: a triangle from (2, 1) to (6, 1) and (6, 5), with its border, and no other pixel."""
    trusted = RowFormat(4, polygons="trust")
    box = parse_row("1 .1 .1 .3 .1 .3 .5", (10, 20), trusted)
    expected = np.zeros((10, 20), bool)
    for row in range(1, 6):
        expected[row, row + 1 : 7] = True
    np.testing.assert_array_equal(rle.decode(box.mask, (10, 20)), expected)
    assert (box.form, box.xyxy) == ("polygon", (2.0, 1.0, 7.0, 6.0))
    beyond = parse_row("1 -.008 .5 1 .5 .5 1.008", SIZE_HW, trusted)
    assert beyond.xyxy == (0.0, 50.0, 200.0, 100.0), "corners on the border and beyond are in the last pixel"
    assert parse_row("1 .1 .1 .3 .1 .3 .5", (10, 20), FOUR).mask is None
    oriented = parse_row("1 .2 .3 .5 .1 .8 .3 .5 .5", SIZE_HW, trusted)
    assert (oriented.form, oriented.mask) == ("oriented", None), "four corners are an oriented box"
    assert parse_row("1 .5 .3 .6 .4", SIZE_HW, trusted).mask is None


def test_rows_of_one_file_may_mix_and_two_polygons_may_have_one_box():
    rows = b"0 .5 .5 .2 .2\n1 .1 .1 .3 .1 .3 .5\n1 .1 .1 .1 .5 .3 .5\n1 .1 .1 .3 .1 .3 .5\n"
    labels = parse_labels(rows, (10, 20), RowFormat(4, polygons="trust"))
    assert [(line, box.form) for line, box in labels.boxes] == [(1, "box"), (2, "polygon"), (3, "polygon")]
    assert [(line, bad.kind) for line, bad in labels.bad] == [(4, "duplicate")]


@pytest.mark.parametrize("row", ["1 .2 .5 .8 .4 .5 .1", "1 .2 .3 .5 .1 .8 .3 .5 .5"])
def test_corners_are_lost_where_they_are_to_be_rejected(row):
    with pytest.raises(BadRow, match=r"ingest\.polygons") as caught:
        parse_row(row, SIZE_HW, RowFormat(4, polygons="reject"))
    assert caught.value.kind == "polygon"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("1 .5 .3 .6 .4 .49", "below_confidence"),
        ("1 .5 .3 .6 .4 7", "columns"),
        ("1 .5 .3 .6 .4 nan", "not_finite"),
        ("1 .2 .5 .8 .5 .5 .5", "zero_area"),
        ("1 .2 .5 1.2 .4 .5 .1", "out_of_bounds"),
    ],
)
def test_a_row_of_another_task_without_a_usable_box_is_refused(row, kind):
    with pytest.raises(BadRow) as caught:
        parse_row(row, SIZE_HW, RowFormat(4, confidence=0.5))
    assert caught.value.kind == kind


def test_rows_are_counted_in_any_format_and_prose_is_not():
    assert count_rows(b"0 .5 .5 .1 .1\r\n\n1,.5,.5,.1,.1\n 2\t.1 .1 .9 .1 .9 .9") == 3
    assert count_rows(b"This data set\nwas exported in 2024 by a tool\n2024 a b c\n") == 0
