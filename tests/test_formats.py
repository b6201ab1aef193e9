"""The files for other tools, read back as those tools read them: same masks, holes and split parts included."""

import io
import json
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw
from pyarrow import csv
from pycocotools.coco import COCO
from ruamel.yaml import YAML
from scipy import ndimage

from stages.evaluation.palette import colour_of_class
from stages.formats import yolo
from stages.formats.coco import coco
from stages.formats.csv_parquet import schema, tables
from stages.formats.cvat import cvat
from stages.formats.label_studio import brush_code, label_studio
from stages.formats.overlay_jpeg import overlay
from tests.support.records import record

NAMES = ["dirt", "damage & <wear>"]


def maps() -> dict[str, np.ndarray]:
    """Label maps by file: holes, parts that touch at a corner, split parts, thin lines, all edges, and nothing."""
    rich = np.zeros((37, 61), np.uint8)
    rich[3:20, 5:30] = 1
    rich[7:12, 9:15] = 0
    rich[8:10, 11:13] = 2
    rich[15, 20] = 0
    rich[20, 30] = 1
    rich[36, :] = 2
    rich[:, 60] = 2
    rich[25:27, 40:44] = 2
    rich[24, 10] = 1
    full = np.ones((12, 40), np.uint8)
    return {"a/rich one.jpg": rich, "a/full.jpg": full, "b/empty.png": np.zeros((50, 20), np.uint8)}


def records() -> list:
    return [record(labels, file) for file, labels in maps().items()]


def test_coco_opens_in_pycocotools_and_its_masks_are_exact(tmp_path):
    path = tmp_path / "coco.json"
    path.write_bytes(b"".join(coco(records(), NAMES)))
    api = COCO(str(path))
    assert [category["name"] for category in api.loadCats(api.getCatIds())] == NAMES
    for image in api.loadImgs(api.getImgIds()):
        labels = maps()[image["file_name"]]
        found = np.zeros_like(labels)
        assert (image["height"], image["width"]) == labels.shape
        for annotation in api.loadAnns(api.getAnnIds(imgIds=image["id"])):
            mask = api.annToMask(annotation).astype(bool)
            found[mask] = annotation["category_id"]
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box
            assert annotation["area"] == mask.sum()
            assert annotation["iscrowd"] == 0
        np.testing.assert_array_equal(found, labels)


def ultralytics_rows(text: str, class_count: int) -> list[tuple[int, np.ndarray]]:
    """Rows as Ultralytics documents them: `class x1 y1 … xn yn`, three points or more, shares of the sides.

    A row of five numbers would be taken for a box, and a row that stands there twice is dropped.
    """
    rows = [line.split() for line in text.strip().splitlines() if line]
    assert len({tuple(row) for row in rows}) == len(rows)
    found = []
    for row in rows:
        assert len(row) >= 7
        assert len(row) % 2 == 1
        assert row[0].isdigit()
        assert int(row[0]) < class_count
        points = np.array(row[1:], dtype=np.float32).reshape(-1, 2)
        assert ((points >= 0) & (points <= 1)).all()
        found.append((int(row[0]), points))
    return found


def drawn_by_ultralytics(points: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of a polygon (N, 2): coordinates are cut to whole pixels, and its border is drawn too."""
    height, width = size_hw
    corners = (points * [width, height]).astype(np.int32)
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in corners.tolist()], fill=1, outline=1)
    return np.array(canvas)


def test_yolo_rows_parse_and_give_every_part_with_its_holes_filled():
    for one in records():
        height, width = one.size_hw
        labels = maps()[one.file]
        rows = ultralytics_rows(yolo.lines(one), len(NAMES))
        parts = [
            (class_id, ndimage.binary_fill_holes(components == number))
            for class_id in range(len(NAMES))
            for components, count in [ndimage.label(labels == class_id + 1, np.ones((3, 3)))]
            for number in range(1, count + 1)
        ]
        assert len(rows) == len(parts)
        for (class_id, points), (wanted_class, wanted) in zip(rows, parts, strict=True):
            assert class_id == wanted_class
            np.testing.assert_array_equal(drawn_by_ultralytics(points, (height, width)), wanted)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 12))))
def test_an_outline_is_drawn_as_the_mask_by_truncating_and_by_rounding_readers(mask):
    components, count = ndimage.label(mask, np.ones((3, 3)))
    for number in range(1, count + 1):
        part = ndimage.binary_fill_holes(components == number)
        points = yolo.outline(components == number).astype(np.float32)
        assert len(points) >= 3
        np.testing.assert_array_equal(drawn_by_ultralytics(points / mask.shape[::-1], mask.shape), part)
        np.testing.assert_array_equal(np.round(points), np.trunc(points))
        x, y = points.T.astype(float)
        assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0, "also one pixel has an area"


def test_a_single_pixel_lies_in_itself_for_every_reader():
    points = yolo.outline(np.ones((1, 1), bool)).tolist()
    assert sorted(points) == [pytest.approx(corner) for corner in [(0.1, 0.25), (0.25, 0.1), (0.25, 0.4), (0.4, 0.25)]]


def test_corners_in_a_straight_line_are_left_out():
    """Of five pixels, two corners at each end: one in the pixel's row, one beside it."""
    points = yolo.outline(np.ones((3, 5), bool))
    assert len(points) == 8 and {tuple(point) for point in np.trunc(points)} == {(0, 0), (4, 0), (0, 2), (4, 2)}


def test_pixels_that_touch_at_a_corner_have_one_outline_and_a_hole_closed_there_is_filled():
    for drawn in ([[1, 0, 0], [0, 1, 1]], [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 0]]):
        mask = np.array(drawn, dtype=bool)
        points = yolo.outline(mask)
        filled = ndimage.binary_fill_holes(mask)
        assert filled.sum() in (3, 11)
        np.testing.assert_array_equal(drawn_by_ultralytics(points / mask.shape[::-1], mask.shape), filled)


def test_the_labels_come_with_a_data_yaml_that_names_the_classes():
    names = ["dirt: a", 'l\'é "x"']
    assert YAML(typ="safe").load(yolo.data_yaml(names, {}).decode())["names"] == names


def test_an_empty_image_has_an_empty_label_file():
    assert yolo.lines(records()[2]) == ""


def test_cvat_masks_are_exact_as_its_documentation_reads_them():
    """Runs along the rows of the box, background first (CVAT for images 1.1)."""
    root = ElementTree.fromstring(b"".join(cvat(records(), NAMES)))
    assert root.tag == "annotations"
    assert root.findtext("version") == "1.1"
    assert [label.findtext("name") for label in root.iter("label")] == NAMES
    images = root.findall("image")
    assert [int(image.get("id")) for image in images] == [0, 1, 2]
    for image in images:
        labels = maps()[image.get("name")]
        assert (int(image.get("height")), int(image.get("width"))) == labels.shape
        found = np.zeros_like(labels)
        for mask in image.findall("mask"):
            assert {"label", "source", "occluded", "rle", "left", "top", "width", "height", "z_order"} == set(
                mask.keys()
            )
            left, top, width, height = (int(mask.get(key)) for key in ("left", "top", "width", "height"))
            runs = [int(run) for run in mask.get("rle").split(",")]
            assert sum(runs) == width * height
            inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
            found[top : top + height, left : left + width][inside] = NAMES.index(mask.get("label")) + 1
        np.testing.assert_array_equal(found, labels)


LABEL_STUDIO = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "description": "Basic Label Studio JSON with pre-annotations, brush regions: labelstud.io/guide/predictions, "
    "/tags/brushlabels",
    "type": "array",
    "items": {
        "type": "object",
        "required": ["data", "predictions"],
        "additionalProperties": False,
        "properties": {
            "data": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", "minLength": 1, "pattern": "^[!-~]+$"}},
            },
            "predictions": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["result"],
                    "properties": {
                        "model_version": {"type": "string"},
                        "score": {"type": "number"},
                        "result": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": [
                                    "from_name",
                                    "to_name",
                                    "type",
                                    "value",
                                    "original_width",
                                    "original_height",
                                ],
                                "properties": {
                                    "id": {"type": "string"},
                                    "type": {"const": "brushlabels"},
                                    "from_name": {"type": "string"},
                                    "to_name": {"type": "string"},
                                    "original_width": {"type": "integer", "minimum": 1},
                                    "original_height": {"type": "integer", "minimum": 1},
                                    "image_rotation": {"type": "number"},
                                    "score": {"type": "number", "minimum": 0, "maximum": 1},
                                    "value": {
                                        "type": "object",
                                        "required": ["format", "rle", "brushlabels"],
                                        "additionalProperties": False,
                                        "properties": {
                                            "format": {"const": "rle"},
                                            "rle": {
                                                "type": "array",
                                                "items": {"type": "integer", "minimum": 0, "maximum": 255},
                                            },
                                            "brushlabels": {
                                                "type": "array",
                                                "minItems": 1,
                                                "items": {"type": "string"},
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def unpacked(code: bytes) -> np.ndarray:
    """Values of a `rle-pack` stream: 32 bits count, 5 bits word size less one, four run sizes less one; then runs and
    literals."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word, sizes = take(32), take(5) + 1, []
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run, length = take(1), take(sizes[take(2)]) + 1
        values += [take(word)] * length if is_run else [take(word) for _ in range(length)]
    assert len(values) == total
    assert len(bits) - place < 8
    return np.array(values, np.uint8)


def test_label_studio_s_file_fits_its_schema_and_its_brushes_are_exact():
    files = {name: b"".join(text) for name, text in label_studio(records(), NAMES, "inputs").items()}
    tasks = json.loads(files["label_studio.json"])
    jsonschema.validate(tasks, LABEL_STUDIO)
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=inputs/a/rich%20one.jpg"
    view = ElementTree.fromstring(files["label_studio.xml"])
    brush, image = view.find("BrushLabels"), view.find("Image")
    assert [label.get("value") for label in brush] == NAMES
    assert image.get("value") == "$image"
    for task, labels in zip(tasks, maps().values(), strict=True):
        found = np.zeros_like(labels)
        for region in task["predictions"][0]["result"]:
            assert (region["from_name"], region["to_name"]) == (brush.get("name"), image.get("name"))
            size_hw = (region["original_height"], region["original_width"])
            rgba = unpacked(bytes(region["value"]["rle"])).reshape(*size_hw, 4)
            assert set(np.unique(rgba)) <= {0, 255}
            assert (rgba == rgba[..., :1]).all()
            found[rgba[..., 3] > 0] = NAMES.index(region["value"]["brushlabels"][0]) + 1
        np.testing.assert_array_equal(found, labels)


def test_the_schema_refuses_a_polygon():
    tasks = json.loads(b"".join(label_studio(records(), NAMES, "inputs")["label_studio.json"]))
    tasks[0]["predictions"][0]["result"][0]["type"] = "polygonlabels"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tasks, LABEL_STUDIO)


@settings(max_examples=25, deadline=None)
@given(mask=hnp.arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 9))), data=st.data())
def test_a_brush_anywhere_comes_back(mask, data):
    top, left, below, right = (data.draw(st.integers(0, 150)) for _ in range(4))
    whole = np.pad(mask, ((top, below), (left, right)))
    rgba = unpacked(brush_code(mask, (left, top), whole.shape)).reshape(*whole.shape, 4)
    np.testing.assert_array_equal(rgba[..., 0] > 0, whole)


def test_tables_hold_the_same_rows_in_csv_and_parquet():
    files = tables(records(), NAMES, None)
    rows = csv.read_csv(pa.BufferReader(files["defects.csv"])).to_pylist()
    assert rows == pq.read_table(pa.BufferReader(files["defects.parquet"])).to_pylist()
    (full,) = (row for row in rows if row["file"] == "a/full.jpg")
    assert [full[name] for name in ("x1", "y1", "x2", "y2", "area_px", "area_share")] == [0, 0, 40, 12, 480, 1]
    assert full["class"] == "dirt"
    assert full["elongation"] == pytest.approx(40 / 12, abs=1e-3)


def test_tables_without_a_defect_have_columns_and_no_row():
    files = tables(records()[2:], NAMES, None)
    csv_table = csv.read_csv(pa.BufferReader(files["defects.csv"]))
    parquet_table = pq.read_table(pa.BufferReader(files["defects.parquet"]))
    assert csv_table.column_names == parquet_table.column_names == schema(False).names
    assert csv_table.num_rows == parquet_table.num_rows == 0


def test_an_overlay_outlines_defects_and_leaves_the_rest_alone():
    one, labels = records()[0], maps()["a/rich one.jpg"]
    image = np.full((*labels.shape, 3), 128, np.uint8)
    view = np.asarray(Image.open(io.BytesIO(overlay(image, one)))).astype(int)
    assert view.shape == image.shape
    assert (image == 128).all(), "the image itself is not drawn on"
    assert np.abs(view[30:34, 2:8] - 128).max() < 12
    assert np.abs(view[25, 33:37] - 128).max() < 40
    assert np.abs(view[27:29, 41:43] - np.array(colour_of_class(1))).max() < 60


@pytest.mark.parametrize("make", [coco, cvat, lambda *a: label_studio(*a, "in")["label_studio.json"]])
def test_the_same_records_give_the_same_bytes(make):
    assert list(make(records(), NAMES)) == list(make(records(), NAMES))
