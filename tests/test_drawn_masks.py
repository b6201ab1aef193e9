"""What people drew, in the shards of pseudo-masks: whole images and single boxes."""

import numpy as np

from stages.data.boxes import corners
from stages.data.tables import IGNORE, decode_label_map, encode_label_map
from stages.masks import rle
from stages.masks.labelmap import CANDIDATES_PER_BOX, mask_row
from stages.masks.shards import CANDIDATES, SCORES, apart
from stages.trusted.drawn_masks import trusted_rows, with_drawn

SIZE_HW = (8, 14)
IMAGE = {
    "image_id": "train/a",
    "path": "images/train/a.png",
    "sha256": "0" * 64,
    "exif_orientation": 1,
    "height": SIZE_HW[0],
    "width": SIZE_HW[1],
    "label_status": "missing",
}


def pixels(x1, y1, x2, y2) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def box(line: int, class_id: int, *xyxy: float, mask: np.ndarray | None = None) -> dict:
    row = {"box_id": f"train/a:{line}", "image_id": "train/a", "class_id": class_id}
    row |= dict(zip(("x1", "y1", "x2", "y2"), xyxy, strict=True))
    return row | {"mask": None if mask is None else rle.encode(mask, (0, 0), SIZE_HW)}


def answer(mask: np.ndarray) -> list[dict]:
    """The teacher's candidates for one box, all the same."""
    row = dict.fromkeys(CANDIDATES.names[8:], 0.5) | {"rle": rle.encode(mask, (0, 0), SIZE_HW), "area": 1}
    return [row | {"cand_idx": index} for index in range(CANDIDATES_PER_BOX)]


def test_a_trusted_image_is_its_label_map_and_a_box_per_region():
    """Two regions of class 1, one of them of two pixels that touch at a corner; one of class 0; one unknown pixel."""
    labels = np.zeros(SIZE_HW, np.uint8)
    labels[1, 2] = labels[2, 3] = 2
    labels[5:8, 10:14] = 2
    labels[0:2, 8:10] = 1
    labels[0, 0] = IGNORE
    mask, rows = trusted_rows(IMAGE, encode_label_map(labels))
    np.testing.assert_array_equal(decode_label_map(mask["label_map"]["bytes"]), labels)
    np.testing.assert_array_equal(rle.decode(mask["trusted"], SIZE_HW), labels != IGNORE)
    assert mask["n_boxes"] == 3
    chosen = [row for row in rows if row["chosen"]]
    assert [(row["class_id"], corners(row), row["area"]) for row in chosen] == [
        (0, (8, 0, 10, 2), 4),
        (1, (2, 1, 4, 3), 2),
        (1, (10, 5, 14, 8), 12),
    ]
    assert len({row["box_id"] for row in rows}) * CANDIDATES_PER_BOX == len(rows)
    assert {row[name] for row in rows for name in SCORES} == {1.0}
    drawn = sum(rle.decode(row["rle"], SIZE_HW) * (row["class_id"] + 1) for row in chosen)
    np.testing.assert_array_equal(drawn, np.where(labels == IGNORE, 0, labels))
    assert set(rows[0]) == set(CANDIDATES.names)


def test_an_image_that_a_person_found_free_of_defects_has_no_box():
    mask, rows = trusted_rows(IMAGE, encode_label_map(np.zeros(SIZE_HW, np.uint8)))
    assert (rows, mask["n_boxes"]) == ([], 0)
    assert rle.decode(mask["trusted"], SIZE_HW).all()


def test_a_drawn_box_lies_above_the_teachers_masks_and_its_background_is_known_but_in_other_boxes():
    """A triangle's box at x 2-6, y 1-5 beside SAM's box at x 5-9, y 1-5, whose mask is smaller than the triangle."""
    triangle = np.tri(4, dtype=bool)
    drawn = np.zeros(SIZE_HW, bool)
    drawn[1:5, 2:6] = triangle
    boxes = [box(1, 0, 2.0, 1.0, 6.0, 5.0, mask=drawn), box(2, 1, 5.0, 1.0, 9.0, 5.0)]
    rows = with_drawn(boxes, answer(pixels(5, 3, 7, 5)), SIZE_HW, "best")
    assert [row["box_id"] for row in rows] == ["train/a:1"] * CANDIDATES_PER_BOX + ["train/a:2"] * CANDIDATES_PER_BOX
    mask = mask_row(IMAGE, rows, 0.0, {"train/a:1"})
    labels = decode_label_map(mask["label_map"]["bytes"])
    np.testing.assert_array_equal(labels == 1, drawn)
    np.testing.assert_array_equal(labels == 2, pixels(5, 3, 7, 5) & ~drawn)
    expected = (pixels(2, 1, 6, 5) & ~pixels(5, 1, 9, 5)) | drawn
    np.testing.assert_array_equal(rle.decode(mask["trusted"], SIZE_HW), expected)
    plain = mask_row(IMAGE, rows, 0.0)
    assert plain["trusted"] is None
    # with a margin of half its sides the other box may label x 3-11, y 0-7
    wider = (pixels(2, 1, 6, 5) & ~pixels(3, 0, 11, 7)) | drawn
    np.testing.assert_array_equal(rle.decode(mask_row(IMAGE, rows, 0.5, {"train/a:1"})["trusted"], SIZE_HW), wider)


def test_background_of_a_drawn_box_that_another_boxs_mask_labels_is_not_known():
    """The mask of the box at x 9-12 is not clipped, and spills into rows 1 and 2 of the drawn box, x 2-6, y 1-5."""
    drawn = pixels(2, 3, 6, 5) | pixels(2, 1, 3, 5)
    boxes = [box(1, 0, 2.0, 1.0, 6.0, 5.0, mask=drawn), box(2, 1, 9.0, 1.0, 12.0, 5.0)]
    rows = with_drawn(boxes, answer(pixels(4, 1, 12, 3)), SIZE_HW, "best")
    mask = mask_row(IMAGE, rows, None, {"train/a:1"})
    expected = pixels(2, 1, 6, 5) & ~pixels(4, 1, 6, 3)
    np.testing.assert_array_equal(rle.decode(mask["trusted"], SIZE_HW), expected)
    np.testing.assert_array_equal(decode_label_map(mask["label_map"]["bytes"]) == 2, pixels(4, 1, 12, 3))


def test_labels_come_apart_into_those_that_were_drawn_and_the_others():
    labels = np.array([[0, 1, 2, IGNORE]], np.uint8)
    assert apart(labels, None)[False] is labels
    code = rle.encode(np.array([[True, True, False, False]]), (0, 0), (1, 4))
    found = apart(labels, code)
    assert found[True].tolist() == [[0, 1, IGNORE, IGNORE]]
    assert found[False].tolist() == [[IGNORE, IGNORE, 2, IGNORE]]
    assert {part.dtype for part in found.values()} == {np.dtype(np.uint8)}
