"""The list of images worth checking, and that what is handed over comes back unchanged from every tool's format."""

import csv
import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from stages import accept
from stages.common.errors import UserError
from stages.common.files import sha256_file
from stages.data.tables import IGNORE, IMAGES, Dataset, decode_label_map, encode_label_map, write_dataset, write_table
from stages.formats.correction import Correction, KnownImages
from stages.formats.corrections_in import read_corrections
from stages.masks import rle
from stages.masks.shards import stream_masks
from stages.review import AUTO, NONE, main
from stages.reviewing.doubts import Doubt, doubts, in_words
from stages.reviewing.handover import Tool, sources_of
from stages.reviewing.ranking import Entry, ranked
from stages.student.tiling import Prediction
from tests.support.mask_shards import write_split
from tests.support.tiny_student import tiny_export

NAMES = ("dirt", "damage")
SIZE_HW = (40, 64)
IMAGE = {"height": SIZE_HW[0], "width": SIZE_HW[1]}


def chosen(class_id: int = 0, **values: float) -> dict:
    """The candidate chosen for a box of 10 x 20 pixels; its mask has a quarter of them."""
    box = {"x1": 10.0, "y1": 5.0, "x2": 30.0, "y2": 15.0}
    return {"class_id": class_id, **box, "area_in_box": 50, "separation": 0.8, "agreement": 0.5} | values


def test_a_mask_is_doubted_by_its_evidence_and_wholly_when_it_is_empty_or_the_box():
    assert doubts(IMAGE, [], NAMES, None, None) == []
    (one,) = doubts(IMAGE, [chosen()], NAMES, None, None)
    assert one.wrong_px == pytest.approx((1 - 0.8 * 0.5) * 50)
    assert one.reason == "dirt at (20, 10): evidence 0.40 (separation 0.80, candidates agree 0.50)"
    (empty,) = doubts(IMAGE, [chosen(1, area_in_box=0)], NAMES, None, None)
    assert empty == Doubt(100, "damage at (20, 10): empty mask")
    (full,) = doubts(IMAGE, [chosen(area_in_box=190)], NAMES, None, None)
    assert full == Doubt(190, "dirt at (20, 10): the mask fills 95% of its box")
    (thin,) = doubts(IMAGE, [chosen(area_in_box=40, y2=7.0)], NAMES, None, None)
    assert thin.wrong_px == pytest.approx(0.6 * 40), "a box of 2 px is filled by rightful masks"


def test_a_student_doubts_masks_that_differ_and_boxes_that_are_missing():
    labels, other, confidence = (np.zeros(SIZE_HW, kind) for kind in (np.uint8, np.uint8, np.float32))
    labels[5:10, 10:20] = 1
    other[5:10, 15:20] = 1
    other[30:36, 40:48] = 2
    other[30:36, 2:10] = 2
    other[20:22, 2:9] = 2
    confidence[other > 0] = 0.95
    confidence[30:36, 2:10] = 0.85
    found = doubts(IMAGE, [chosen(separation=1, agreement=1)], NAMES, labels, Prediction(other, confidence))
    assert found[0].wrong_px == pytest.approx(0.95 * 48)
    assert found[0].reason == "damage at (44, 33): 48 px outside of all boxes, the student is 95% sure"
    assert found[1:] == [Doubt(25, "dirt at (20, 10): student and SAM differ in 25 px")]


def test_in_words_the_heaviest_come_first_and_the_rest_is_counted():
    found = [Doubt(9, "a"), Doubt(8, "b"), Doubt(7, "c")]
    assert in_words(found) == "a; b; c"
    assert in_words(found, most=1) == "a; and 2 more"


def entry(name: str, score: float) -> Entry:
    return Entry(name, f"{name}.png", "", "train", 1, score, "")


def test_near_duplicates_come_last_and_only_hashes_that_are_needed_are_made():
    codes = {
        "a": b"\x00" * 32,
        "b": b"\x01" + b"\x00" * 31,
        "c": b"\xff" * 32,
        "d": None,
        "e": b"\x0f" * 32,
        "old": b"\xff" * 32,
    }
    entries = [entry(name, score) for name, score in {"e": 0.1, "d": 2, "a": 3, "c": 1, "b": 2.5}.items()]
    asked = []

    def hash_of(one: Entry) -> bytes | None:
        asked.append(one.image_id)
        return codes[one.image_id]

    found = ranked(entries, 3, hash_of, 40)
    assert [(one.entry.image_id, one.twin) for one in found] == [("a", None), ("d", None), ("c", None)]
    assert asked == ["a", "b", "d", "c"]
    everything = ranked(entries, 9, hash_of, 40)
    assert [(one.entry.image_id, one.twin) for one in everything[3:]] == [("e", None), ("b", "a.png")]
    checked = ranked([*entries, entry("old", 9)._replace(checked=True)], 9, hash_of, 40)
    assert [(one.entry.image_id, one.twin) for one in checked[-2:]] == [("b", "a.png"), ("c", "old.png")]
    assert "old" not in {one.entry.image_id for one in checked}
    assert [one.entry.image_id for one in ranked(entries, 9, hash_of, None)] == ["a", "b", "d", "c", "e"]


def test_folders_called_images_are_left_out_of_the_names_where_that_is_unambiguous():
    paths = ["images/train/a.jpg", "val/images/b.jpg", "images/c.jpg", "c.jpg", "images/d.png", "images/d.jpg"]
    files = {path: (one.file, one.name) for path, one in sources_of(paths).items()}
    assert files == {
        "images/train/a.jpg": ("train/a.jpg", "train/a"),
        "val/images/b.jpg": ("val/b.jpg", "val/b"),
        "images/c.jpg": ("images/c.jpg", "images/c"),
        "c.jpg": ("c.jpg", "c"),
        "images/d.png": ("d.png", "d.png"),
        "images/d.jpg": ("d.jpg", "d.jpg"),
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Tables and pseudo-masks of four images to check: a sound one, one without boxes, an empty mask, one with a hole.

    A fifth is drawn by a person, a sixth is of test.
    """
    home = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    write_dataset(home / "tables/dataset.json", Dataset(home / "set", NAMES))
    shards = {"train": [], "val": [], "test": []}
    for place in ("train/sound", "train/bare", "train/empty", "train/drawn", "val/hole", "test/never"):
        split, name = place.split("/")
        path = f"images/{split}/{name}.png"
        (home / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)).save(home / "set" / path)
        labels = np.zeros(SIZE_HW, np.uint8)
        if name in ("sound", "hole", "never"):
            labels[5:15, 10:20] = 1
        if name == "hole":
            labels[8:10, 12:15] = 0
            labels[8, 13] = 2
        row = {"image_id": f"{split}/{name}", "path": path, "sha256": sha256_file(home / "set" / path)}
        row |= {"exif_orientation": 1, "label_status": "labelled", "n_boxes": int(name != "bare")} | IMAGE
        labels[30:, 50:] = IGNORE if name == "drawn" else 0
        row |= {"label_map": {"bytes": encode_label_map(labels), "path": None}}
        row |= {"trusted": rle.encode(labels != IGNORE, (0, 0), SIZE_HW) if name == "drawn" else None}
        shards[split].append((row, [] if name == "bare" else [name]))
    for split, images in shards.items():
        rows = [{key: row.get(key, split) for key in IMAGES.names} for row, _ in images]
        write_table(home / "tables" / split / "images.parquet", IMAGES, rows)
        images.sort(key=lambda one: one[0]["image_id"])
        candidates = []
        for row, names in images:
            for name in names:
                values = {"sound": (0.9, 0.9, 100), "empty": (0.0, 0.0, 0), "hole": (0.5, 0.8, 94)}
                separation, agreement, area = values.get(name, (0.0, 0.0, 0))
                candidates.append(
                    chosen(separation=separation, agreement=agreement, area_in_box=area)
                    | {"box_id": f"{row['image_id']}:1", "image_id": row["image_id"], "cand_idx": 1, "chosen": True}
                    | {"rle": rle.encode(np.ones((1, 1), bool), (0, 0), SIZE_HW), "area": area}
                    | dict.fromkeys(("box_iou", "sam_pred_iou", "stability", "mean_prob_in"), 0.5)
                )
        write_split(home / "masks" / split, ([row for row, _ in images], candidates))
    return home


def review(project: Path, out: Path, tool: Tool, first: int = 100, model: Path = NONE) -> None:
    main(out, tool, first, model, project / "tables", project / "masks", Path("params.yaml"), "cpu")


@pytest.mark.parametrize("tool", Tool)
def test_what_is_handed_over_comes_back_as_no_correction(tool, project, tmp_path, capsys):
    out = tmp_path / "to check"
    review(project, out, tool)
    if tool is Tool.label_studio:  # the tasks as somebody submits them
        tasks = json.loads((out / "label_studio.json").read_text())
        places = [unquote(task["data"]["image"].removeprefix("/data/local-files/?d=")) for task in tasks]
        assert all((tmp_path / place).is_file() for place in places), "the document root is the folder above"
        assert [task["data"]["rank"] for task in tasks] == [4, 1, 3, 2]
        for task in tasks:
            task["annotations"] = task.pop("predictions")
        (out / "label_studio.json").write_text(json.dumps(tasks))
    known = KnownImages(known_rows(project))
    found = list(read_corrections(out, known, NAMES))
    assert all(isinstance(one, Correction) for one in found), found
    maps = exported(project)
    assert {one.path for one in found} == set(maps)
    assert all(one.unchanged(maps[one.path]) for one in found)
    said = capsys.readouterr().out
    assert ("1 masks have holes" in said) == (tool is Tool.yolo)
    for path in maps:
        assert (out / path).read_bytes() == (project / "set" / path).read_bytes()


def known_rows(project: Path) -> list[dict]:
    return [row for split in ("train", "val", "test") for row in stream_masks(project / "masks" / split)]


def exported(project: Path) -> dict[str, np.ndarray]:
    rows = known_rows(project)
    wanted = [row for row in rows if "/test/" not in row["path"] and row["trusted"] is None]
    return {row["path"]: decode_label_map(row["label_map"]["bytes"]) for row in wanted}


def test_a_stroke_is_accepted_and_what_was_only_looked_at_is_not(project, tmp_path, capsys):
    review(project, tmp_path / "out", Tool.masks)
    edited = tmp_path / "out/masks/val/hole.png"
    labels = decode_label_map(edited.read_bytes())
    labels[20:22, 5:60] = 2
    Image.fromarray(labels).save(edited)
    accept.main([tmp_path / "out"], tmp_path / "trusted", project / "tables", project / "masks")
    assert "1 accepted, 3 no correction" in capsys.readouterr().out
    taken = decode_label_map((tmp_path / "trusted/masks/images/val/hole.png").read_bytes())
    np.testing.assert_array_equal(taken, labels)


def test_the_table_says_why_and_the_first_are_the_most_doubtful(project, tmp_path):
    review(project, tmp_path / "two", Tool.masks, 2)
    with (tmp_path / "two/review.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["path"], row["wrong_px"]) for row in rows] == [
        ("1", "images/train/empty.png", "100"),
        ("2", "images/val/hole.png", "56"),
    ]
    assert rows[0]["reasons"] == "dirt at (20, 10): empty mask"
    assert sorted(path.name for path in (tmp_path / "two/masks").rglob("*.png")) == ["empty.png", "hole.png"]


def test_a_student_takes_part_once_there_is_one_and_has_to_know_the_classes(project, tmp_path, capsys):
    for name in ("masks", "tables"):
        (tmp_path / name).symlink_to(project / name)
    model = tmp_path / "models/boxes2pixels/0"
    for number, (wanted, asked) in enumerate({"SAM alone is asked": False, "is asked too": True}.items()):
        review(tmp_path, tmp_path / f"out{number}", Tool.masks, model=AUTO)
        said = capsys.readouterr().err
        assert f"{model}: " in said and wanted in said
        assert "doubts: 100%" in said and "5/5" in said, "the time left is told in images"
        assert ("student" in (tmp_path / f"out{number}/review.csv").read_text()) == asked
        tiny_export(model)
    (tmp_path / "tables").unlink()
    shutil.copytree(project / "tables", tmp_path / "tables")
    write_dataset(tmp_path / "tables/dataset.json", Dataset(project / "set", ("rust",)))
    review(tmp_path, tmp_path / "alone", Tool.masks, model=AUTO)
    assert "a student of other classes" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"trained on classes \['dirt', 'damage'\], the data set has \['rust'\]"):
        review(tmp_path, tmp_path / "other", Tool.masks, model=model)


def test_a_folder_that_may_hold_corrections_is_not_written_again(project, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="may hold corrections"):
        review(project, tmp_path / "out", Tool.cvat)


def test_an_image_that_has_changed_ends_the_command_and_leaves_no_folder(project, tmp_path):
    shutil.copytree(project / "tables", tmp_path / "tables")
    write_dataset(tmp_path / "tables/dataset.json", Dataset(tmp_path / "set", NAMES))
    (tmp_path / "masks").symlink_to(project / "masks")
    for row in known_rows(project):
        (tmp_path / "set" / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / row["path"]).write_bytes(b"other")
    with pytest.raises(UserError, match=r"drawn\.png: changed since it was ingested"):
        review(tmp_path, tmp_path / "out", Tool.masks)
    assert not (tmp_path / "out").exists()
