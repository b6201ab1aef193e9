"""YOLO rows: taken or rejected one by one, never with a traceback, never outside the image."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.dataset.labels import Box, parse_labels

SIZE_HW = (371, 586)


def parse(text: str | bytes, n_classes: int = 3):
    return parse_labels(text.encode() if isinstance(text, str) else text, SIZE_HW, n_classes)


def test_a_row_becomes_a_box_in_pixels():
    boxes, rejects = parse("1 0.5 0.25 0.5 0.1\n")
    assert rejects == []
    assert boxes == [Box(1, pytest.approx((146.5, 74.2, 439.5, 111.3)), 1, clipped=False)]


def test_byte_order_mark_crlf_tabs_and_blank_lines_are_no_mistakes():
    boxes, rejects = parse(b"\xef\xbb\xbf0 0.5 0.5 0.1 0.1\r\n\r\n1\t0.2\t0.2\t0.1\t0.1\r\n")
    assert [(box.class_id, box.line) for box in boxes] == [(0, 1), (1, 3)]
    assert rejects == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("3 0.5 0.5 0.1 0.1", "label class 3 exceeds dataset class count 3, possible class labels are 0-2"),
        ("-1 0.5 0.5 0.1 0.1", "label class -1 exceeds"),
        ("0.5 0.5 0.5 0.1 0.1", "label class 0.5 is not a whole number"),
        ("0 1.5 0.5 0.1 0.1", "non-normalized or out of bounds coordinates 1.5"),
        ("0 120 40 30 20", "non-normalized or out of bounds coordinates 120"),
        ("0 0.5 -0.5 0.1 0.1", "non-normalized or out of bounds"),
        ("0 0.5 0.5 0 0.1", "box without area"),
        ("0 0.5 0.5 0.1 -0.1", "box without area"),
        ("0 1.005 0.5 0.001 0.1", "box without area inside the image"),
        ("0 nan 0.5 0.1 0.1", "NaN or infinite value"),
        ("0 0.5 0.5 inf 0.1", "NaN or infinite value"),
        ("0 0.5 0.5 0.1", "labels require 5 columns (class cx cy w h), 4 columns detected"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2", "a polygon of 3 points"),
        ("dirt 0.5 0.5 0.1 0.1", "not numbers: 'dirt 0.5"),
        ("0 0.5 0.5 0.1 0_1", "not numbers"),
        (b"0 0.5 \xff 0.1 0.1", "not numbers"),
    ],
)
def test_a_bad_row_is_rejected_alone_with_its_reason(row, reason):
    row = row if isinstance(row, bytes) else row.encode()
    boxes, rejects = parse(b"0 0.5 0.5 0.1 0.1\n" + row + b"\n1 0.4 0.4 0.1 0.1\n")
    assert [box.line for box in boxes] == [1, 3]
    assert [(reject.line, reject.reason.startswith(reason)) for reject in rejects] == [(2, True)], rejects


def test_a_small_overhang_is_clipped_and_counted():
    boxes, rejects = parse("0 0.05 0.5 0.11 0.2\n0 0.05 0.5 0.1000004 0.2\n")
    assert rejects == []
    assert [box.clipped for box in boxes] == [True, False], "six decimals of rounding are no overhang"
    assert boxes[0].xyxy[0] == 0


def test_an_exact_duplicate_is_removed():
    boxes, rejects = parse("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n")
    assert [box.line for box in boxes] == [1, 3]
    assert rejects[0].reason == "duplicate label removed"


@given(st.binary(max_size=300))
def test_any_bytes_are_boxes_or_rejects(data):
    boxes, rejects = parse(data)
    check_inside(boxes)
    lines = [found.line for found in (*boxes, *rejects)]
    assert len(set(lines)) == len(lines)


number = st.floats(allow_nan=True, width=32) | st.floats(-0.2, 1.2)


@given(st.lists(st.tuples(st.integers(-2, 4), number, number, number, number), max_size=6))
def test_accepted_boxes_lie_inside_and_have_an_area(rows):
    boxes, rejects = parse("\n".join(" ".join(map(str, row)) for row in rows))
    check_inside(boxes)
    assert len(boxes) + len(rejects) == len(rows)


unit = st.floats(0.02, 0.98)


@given(st.tuples(unit, unit), st.tuples(unit, unit))
def test_a_box_written_and_read_is_the_same_box(corner_a, corner_b):
    x1, x2 = sorted((corner_a[0], corner_b[0] + 0.01))
    y1, y2 = sorted((corner_a[1], corner_b[1] + 0.01))
    if x2 - x1 < 1e-3 or y2 - y1 < 1e-3:
        return
    boxes, _ = parse(f"0 {(x1 + x2) / 2:.9f} {(y1 + y2) / 2:.9f} {x2 - x1:.9f} {y2 - y1:.9f}")
    height, width = SIZE_HW
    assert boxes[0].xyxy == pytest.approx((x1 * width, y1 * height, x2 * width, y2 * height), abs=1e-5)


def check_inside(boxes):
    for box in boxes:
        x1, y1, x2, y2 = box.xyxy
        assert 0 <= x1 < x2 <= SIZE_HW[1]
        assert 0 <= y1 < y2 <= SIZE_HW[0]
