"""Corrections in every format: what is exported comes back unchanged, and what does not fit is refused by image."""

import contextlib
import json
import zipfile
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from stages.common.errors import UserError
from stages.data.tables import encode_label_map
from stages.formats.coco import coco
from stages.formats.correction import BadDrawing, Correction, KnownImages, Refused, without_holes
from stages.formats.corrections_in import read_corrections
from stages.formats.cvat import cvat
from stages.formats.label_studio import brush_code, brush_mask, label_studio
from stages.formats.yolo import data_yaml, lines, names_of
from tests.support.records import record

NAMES = ["dirt", "damage"]
ROWS = [
    {"path": path, "sha256": "0" * 64, "height": 12, "width": 20}
    for path in ("images/train/a.jpg", "images/val/a.jpg", "images/train/b.c.png", "images/train/d.jpg")
]
FORMATS = ("cvat", "coco", "label_studio", "yolo", "masks")


def rich(size_hw: tuple[int, int] = (12, 20)) -> np.ndarray:
    """Two classes, a hole, an island of each class in the other, and parts that touch at a corner."""
    labels = np.zeros(size_hw, np.uint8)
    labels[1:10, 2:12] = 1
    labels[3:6, 4:7] = 0
    labels[7:9, 8:11] = 2
    labels[8, 9] = 1
    labels[10, 12] = 1
    labels[0:2, 17:20] = 2
    return labels


def write(kind: str, maps: dict[str, np.ndarray], folder) -> None:
    """The files of one format with the label map of each image, as the writers give them."""
    records = [record(labels, file) for file, labels in maps.items()]
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "cvat":
        (folder / "cvat.xml").write_bytes(b"".join(cvat(records, NAMES)))
    elif kind == "coco":
        (folder / "coco.json").write_bytes(b"".join(coco(records, NAMES)))
    elif kind == "label_studio":
        tasks = json.loads(b"".join(label_studio(records, NAMES, "in")["label_studio.json"]))
        for task in tasks:
            (prediction,) = task.pop("predictions")
            task["annotations"] = [{"result": prediction["result"], "updated_at": "2026-11-26T12:00:00Z"}]
        (folder / "export.json").write_text(json.dumps(tasks))
    elif kind == "yolo":
        (folder / "data.yaml").write_bytes(data_yaml(NAMES, {}))
        for one in records:
            path = folder / "labels" / one.file.replace(".jpg", ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(lines(one))
    else:
        for file, labels in maps.items():
            path = folder / file.replace(".jpg", ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_label_map(labels))


def read(path) -> list[Correction | Refused]:
    return list(read_corrections(path, KnownImages(ROWS), NAMES))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_exported_comes_back_unchanged_and_a_stroke_to_the_pixel(kind, packed, tmp_path):
    maps = {"train/a.jpg": rich(), "val/a.jpg": np.zeros((12, 20), np.uint8)}
    stroke = rich()
    stroke[4:6, 14:19] = 2
    stroke[2, 2:5] = 0
    for number, label_map in enumerate((maps["train/a.jpg"], stroke)):
        folder = tmp_path / str(number)
        write(kind, maps | {"train/a.jpg": label_map}, folder)
        if packed:
            with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
                for file in folder.rglob("*.*"):
                    archive.write(file, file.relative_to(folder))
            folder = tmp_path / f"{number}.zip"
        found = {one.path: one for one in read(folder)}
        assert list(found) == ["images/train/a.jpg", "images/val/a.jpg"]
        changed, empty = found.values()
        expected = without_holes(label_map) if kind == "yolo" else label_map
        np.testing.assert_array_equal(changed.label_map, expected)
        assert changed.unchanged(maps["train/a.jpg"]) == (number == 0)
        assert empty.unchanged(maps["val/a.jpg"])


@pytest.mark.parametrize("file", ["datumaro_cvat.xml", "datumaro_coco.json", "label_studio.json"])
def test_what_real_tools_wrote_comes_back_unchanged_and_their_stroke_to_the_pixel(file):
    """Written by datumaro 1.13.12, from our cvat.xml, and by the converter and the brushes of label-studio-sdk 2.1.2,
    from our label_studio.json: image train/a.jpg as exported, in val/a.jpg one stroke drawn there by the tool."""
    exported, drawn = read(Path(__file__).parent / "support/tool_files" / file)
    assert (exported.path, drawn.path) == ("images/train/a.jpg", "images/val/a.jpg")
    assert exported.unchanged(rich())
    stroke = np.zeros((12, 20), np.uint8)
    stroke[4:6, 14:19] = stroke[6, 18] = 2
    np.testing.assert_array_equal(drawn.label_map, stroke)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint8, (12, 20), elements=st.integers(0, 2)))
def test_any_label_map_comes_back_in_every_format(tmp_path_factory, labels):
    for kind in FORMATS:
        folder = tmp_path_factory.mktemp(kind)
        write(kind, {"train/a.jpg": labels}, folder)
        (found,) = read(folder)
        assert found.unchanged(labels), kind


def test_polygons_hold_islands_and_lose_holes_alone():
    filled = rich()
    filled[3:6, 4:7] = 1
    np.testing.assert_array_equal(without_holes(rich()), filled)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("images/train/a.jpg", "images/train/a.jpg"),
        ("train/a", "images/train/a.jpg"),
        ("labels/train/a", "images/train/a.jpg"),
        ("/mnt/set/images/val/a.jpg", "images/val/a.jpg"),
        ("b.c", "images/train/b.c.png"),
        ("d.jpg", "images/train/d.jpg"),
    ],
)
def test_an_image_is_found_with_folders_more_or_fewer_and_without_its_suffix(name, path):
    assert KnownImages(ROWS).find(name)["path"] == path


@pytest.mark.parametrize("name", ["001", "blade2/001"])
def test_an_image_beside_a_folder_with_the_same_name_in_it_is_found(name):
    known = KnownImages({"path": path} for path in ("images/001.jpg", "images/blade2/001.jpg"))
    for written in (f"{name}.jpg", f"masks/{name}", f"masks/images/{name}"):
        assert known.find(written)["path"] == f"images/{name}.jpg"


@pytest.mark.parametrize("ours", ["NFC", "NFD"])
def test_an_image_is_found_by_its_name_as_macs_write_it_and_as_others_do(ours):
    path = normalize(ours, "images/schäden.jpg")
    for theirs in ("NFC", "NFD"):
        assert KnownImages([{"path": path}]).find(normalize(theirs, "masks/schäden"))["path"] == path


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a.jpg", "could be any of 2"), ("test/d.jpg", "no image"), ("b", "no image"), ("d.png", "no image"), ("", "no")],
)
def test_a_name_of_no_image_or_of_several_is_refused(name, reason):
    with pytest.raises(BadDrawing, match=reason):
        KnownImages(ROWS).find(name)


def test_a_file_that_is_a_link_is_of_the_image_that_the_link_names(tmp_path):
    link = tmp_path / "here/d.png"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "0f3a")
    link.resolve().write_bytes(encode_label_map(rich()))
    (found,) = read(link)
    assert (found.path, found.source) == ("images/train/d.jpg", str(link))
    np.testing.assert_array_equal(found.label_map, rich())


def test_masks_of_an_editor_are_refused_one_by_one(tmp_path):
    labels = rich()
    labels[5, 6:8] = 255
    for name, label_map in {"train/a": labels, "val/a": labels.T, "b.c": labels * 3, "nobody": labels}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(label_map)).save(f"{tmp_path / name}.png")
    found = read(tmp_path)
    refused = {one.name: one.reason for one in found if isinstance(one, Refused)}
    assert refused["val/a"] == "mask is 12 x 20, the upright image 20 x 12"
    assert refused["b.c"].startswith("value 3, allowed are 0 (background), 1-2")
    assert refused["nobody"] == "no image of the data set has this name"
    (good,) = (one for one in found if not isinstance(one, Refused))
    assert (good.path, good.size_hw, good.source) == ("images/train/a.jpg", (12, 20), str(tmp_path / "train/a.png"))
    np.testing.assert_array_equal(good.label_map, labels)


def xml(shapes: str, size: str = 'width="20" height="12"') -> str:
    image = f'<image name="d.jpg" {size}>{shapes}</image>'
    return f"<annotations><meta><dumped>2026-11-26</dumped></meta>{image}</annotations>"


def task(kind: str = "brushlabels", **value: object) -> list:
    region = {"type": kind, "original_width": 20, "original_height": 12, "value": value}
    return [{"data": {"image": "/data/upload/1/0123abcd-d.jpg"}, "annotations": [{"result": [region]}]}]


def instances(size_wh: tuple[int, int] = (20, 12), category: str = "dirt", **annotation: object) -> dict:
    return {
        "images": [{"id": 7, "file_name": "d.jpg", "width": size_wh[0], "height": size_wh[1]}],
        "categories": [{"id": 3, "name": category}],
        "annotations": [{"image_id": 7, "category_id": 3} | annotation],
    }


RECTANGLE = np.zeros((12, 20), np.uint8)
RECTANGLE[2:5, 4:10] = 1


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.xml", xml('<polygon label="dirt" points="4,2;10,2;10,5;4,5"/>')),
        ("a.xml", xml('<mask label="dirt" left="4" top="2" width="6" height="3" rle="0, 18"/><tag label="seen"/>')),
        ("a.json", instances(segmentation=[[4, 2, 10, 2, 10, 5, 4, 5]])),
        ("a.json", instances(segmentation={"size": [12, 20], "counts": [50, *[3, 9] * 5, 3, 127]})),
        ("a.json", task("polygonlabels", points=[[20, 100 / 6], [50, 100 / 6], [50, 125 / 3], [20, 125 / 3]],
                        polygonlabels=["dirt"])),
        ("d.txt", "0 0.21 0.17 0.46 0.17 0.46 0.35 0.21 0.35\n"),
    ],
)  # fmt: skip
def test_shapes_that_other_tools_draw_give_the_pixels_that_they_give_them(file, content, tmp_path):
    (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    (found,) = read(tmp_path / file)
    assert isinstance(found, Correction), found
    assert found.path == "images/train/d.jpg"
    np.testing.assert_array_equal(found.label_map, RECTANGLE)


def test_later_shapes_lie_on_top_and_unknown_pixels_are_255(tmp_path):
    shapes = (
        '<polygon label="unknown" points="4,2;10,2;10,5;4,5" z_order="1"/>'
        '<polygon label="damage" points="0,0;20,0;20,12;0,12"/>'
    )
    (tmp_path / "a.xml").write_text(xml(shapes))
    (found,) = read(tmp_path / "a.xml")
    np.testing.assert_array_equal(found.label_map, np.where(RECTANGLE, 255, 2))
    assert found.exported_at == "2026-11-26"


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("a.xml", xml("", 'width="12" height="20"'), "is 12 x 20 pixels there, the upright image 20 x 12"),
        ("a.xml", xml('<polygon label="rust" points="4,2;10,2;10,5"/>'), "label 'rust', allowed are dirt, damage, u"),
        ("a.xml", xml('<box label="dirt" xtl="0" ytl="0" xbr="4" ybr="4"/>'), "a box of 'dirt': only masks and polyg"),
        ("a.xml", xml('<mask label="dirt" left="18" top="2" width="6" height="3" rle="0, 18"/>'), "does not fit"),
        ("a.xml", xml('<mask label="dirt" left="4" top="2" width="6" height="3" rle="0, 17"/>'), "does not fit"),
        ("a.xml", xml('<polygon label="dirt" points="4,2;nan,2;10,5"/>'), "far outside"),
        ("a.json", instances(bbox=[0, 0, 4, 4]), "without segmentation"),
        ("a.json", instances(category="rust", segmentation=[[4, 2, 10, 2, 10, 5]]), "label 'rust'"),
        ("a.json", instances(segmentation={"size": [12, 20], "counts": [5, 5]}), "run lengths of 10 pixels"),
        ("a.json", instances(segmentation={"size": [12, 20], "counts": "z^9"}), "run lengths of"),
        ("a.json", instances(segmentation={"size": [20, 12], "counts": [240]}), "for an image of [20, 12]"),
        ("a.json", instances((12, 20), segmentation=[[4, 2, 10, 2, 10, 5]]), "is 12 x 20 pixels there"),
        ("a.json", task("rectanglelabels", x=1, y=1, width=5, height=5), "a region of rectanglelabels"),
        ("a.json", task("brushlabels", format="rle", rle=[0, 0, 0, 4, 58, 32, 0]), "a brush of 4 values"),
        ("d.txt", "0 0.5 0.5 0.2 0.2\n", "line 1: class 0 and 4 numbers"),
        ("d.txt", "\n3 0.5 0.5 0.2 0.2 0.1 0.1\n", "line 2: class 3 and 6 numbers, needed are a class of 0 to 2"),
        ("d.txt", "1 0.5 0.5 0.2 1.2 0.1 0.1\n", "line 1: a corner outside"),
    ],
)  # fmt: skip
def test_what_does_not_fit_an_image_is_refused_in_one_line(file, content, reason, tmp_path):
    (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    (found,) = read(tmp_path / file)
    assert isinstance(found, Refused), found
    assert reason in found.reason
    assert "\n" not in found.reason


def test_tasks_that_nobody_submitted_are_left_out_and_two_annotations_are_refused(tmp_path):
    empty, twice = {"result": []}, task("brushlabels")[0]
    twice["annotations"] = [empty, empty]
    skipped = {"data": {"image": "x.jpg"}, "annotations": [{"result": [], "was_cancelled": True}]}
    (tmp_path / "a.json").write_text(json.dumps([skipped, {"data": {"image": "y.jpg"}, "annotations": []}, twice]))
    (found,) = read(tmp_path / "a.json")
    assert found.reason == "2 annotations of one image: keep one"


def test_a_second_mask_of_an_image_is_refused(tmp_path):
    for name in ("train/d.png", "d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode_label_map(RECTANGLE))
    assert [type(one) for one in read(tmp_path)] == [Correction, Refused]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("a.xml", "<annotations><image", "not a readable file of CVAT"),
        ("a.xml", "<annotations><track/></annotations>", "is of a video"),
        ("a.json", "{", "not readable JSON"),
        ("a.json", "{}", "holds no corrections; allowed are CVAT"),
        ("a.xml", '<?xml version="1.0" encoding="foo"?><annotations/>', "not a readable .* of CVAT .*encoding: foo"),
        ("a.json", '{"images": [], "annotations": [], "categories": [{"id": 1}]}', "not a readable file .* .KeyError"),
        ("a.json", json.dumps(instances(image_id="7")), "a.json: annotation None: image_id '7', allowed are .* as 7$"),
        ("a.doc", "", "holds no corrections"),
    ],
)
def test_a_file_without_corrections_is_one_error(file, content, reason, tmp_path):
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=reason):
        read(tmp_path / file)


DRAWN = {"data": {"image": "d.jpg"}, "annotations": [{"result": []}]}
SIZED = {"width": 20, "height": 12}


@pytest.mark.parametrize(
    ("file", "content", "refused"),
    [
        (
            "a.json",
            [{"data": {"image": "a/b.c.png"}, "annotations": None}, DRAWN, {"data": 1}, {}],
            {"a/b.c.png": "'NoneType' object is not", "task 3": "has no attribute 'get'", "task 4": "KeyError: 'data'"},
        ),
        (
            "a.json",
            {
                "images": [
                    {"id": 1, "file_name": "b.c.png", "width": 20},
                    {"id": 2, "file_name": "d.jpg"} | SIZED,
                    {"id": 3} | SIZED,
                    {"id": 4, "file_name": "train/a.jpg", "width": "20", "height": 12},
                ],
                "annotations": [],
            },
            {
                "b.c.png": "height None and width 20 there, needed are two numbers",
                "image 3": "no image of the data set",
                "train/a.jpg": "height 12 and width '20' there, needed are two numbers",
            },
        ),
        (
            "a.xml",
            "<annotations><image name='b.c.png' width='20'/><image name='d.jpg' width='20' height='12'/></annotations>",
            {"b.c.png": "cannot be read (ValueError"},
        ),
    ],
)
def test_a_malformed_entry_is_refused_in_a_line_and_the_others_are_taken(file, content, refused, tmp_path):
    (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    found = read(tmp_path / file)
    assert [one.path for one in found if isinstance(one, Correction)] == ["images/train/d.jpg"]
    wrong = {one.name: one for one in found if isinstance(one, Refused)}
    assert list(wrong) == list(refused)
    for name, reason in refused.items():
        assert reason in wrong[name].reason and wrong[name].source == str(tmp_path / file)


def test_a_file_of_cvat_in_utf_16_is_read(tmp_path):
    (tmp_path / "a.xml").write_text('<?xml version="1.0" encoding="utf-16"?>' + xml(""), encoding="utf-16")
    assert [one.path for one in read(tmp_path)] == ["images/train/d.jpg"]


def test_class_names_that_cannot_be_read_are_those_of_a_folder(tmp_path):
    (tmp_path / "data.yaml").write_text("names: {1: a}")
    (tmp_path / "d.txt").touch()
    with pytest.raises(UserError, match=f"^{tmp_path}/data.yaml: names = .*a mapping from 0, 1, 2"):
        read(tmp_path)


def test_the_files_that_macos_adds_to_an_archive_are_left_out(tmp_path):
    for kind in ("coco", "masks"):
        write(kind, {"train/a.jpg": rich()}, tmp_path / kind)
        with zipfile.ZipFile(tmp_path / f"{kind}.zip", "w") as archive:
            for file in (tmp_path / kind).rglob("*.*"):
                name = file.relative_to(tmp_path / kind)
                archive.write(file, f"./{name}")
                archive.writestr(f"__MACOSX/{name.with_name('._' + name.name)}", b"\0\5\x16\7")
                archive.writestr(f".cache/{name}", b"")
        (found,) = read(tmp_path / f"{kind}.zip")
        assert found.unchanged(rich())


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_archive_is_one_error_that_names_it(packed, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("coco.json", json.dumps(instances()) * 50)
    whole = path.read_bytes()
    for start in range(0, len(whole) - 22, 7):  # the last 22 bytes make it a ZIP archive
        path.write_bytes(whole[:start] + bytes(~byte & 255 for byte in whole[start : start + 7]) + whole[start + 7 :])
        try:
            read(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and not str(error).endswith(": ")


@pytest.mark.parametrize(
    ("file", "content", "names"),
    [
        ("classes.txt", b"dirt\r\ndamage\r\n", ["dirt", "damage"]),
        ("classes.txt", b"sch\xe4den\n", None),
        ("data.yaml", b"names: [1, true, ~x, crack]\n", ["1", "true", "~x", "crack"]),
        ("data.yaml", b"names: {0: 2024-99-99, 1: crack}\n", ["2024-99-99", "crack"]),
        ("data.yaml", b"names: {1: crack}\n", None),
        ("data.yaml", b"[" * 9000, None),
    ],
)
def test_class_names_beside_labels_are_texts_as_ingest_reads_them(file, content, names):
    if names is None:
        with pytest.raises(UserError, match=f"^{file}: "):
            names_of(file, content)
    else:
        assert names_of(file, content) == names


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, (3, 5), elements=st.sampled_from([0, 255])), st.binary(max_size=40))
def test_a_brush_comes_back_and_damaged_ones_raise_or_give_a_mask(labels, tail):
    code = brush_code(labels > 0, (0, 0), labels.shape)
    np.testing.assert_array_equal(brush_mask(code, labels.shape), labels > 0)
    with contextlib.suppress(ValueError, IndexError):
        assert brush_mask(code[:7] + tail, labels.shape).shape == labels.shape
