"""A data set on disk becomes tables; what is not used is listed, and the data set is not modified."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common.errors import UserError
from stages.data.tables import BOXES, IMAGES, REJECTS, SPLITS, TRUTH, decode_label_map, read_dataset, read_table
from stages.ingest import main
from stages.ingestion.data_yaml import OUTSIDE
from tests.support.ingesting import ingest

HEIGHT, WIDTH = 12, 20


def save_image(path: Path, seed: int, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def mask(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    """Three images in train (labelled, empty label file, none), one in val and two in test, one with truth."""
    root = tmp_path / "set"
    for seed, name in enumerate(("train/a", "train/b", "train/sub/c", "val/d", "test/e", "test/f")):
        save_image(root / f"images/{name}.png", seed)
    write(root / "labels/train/a.txt", "1 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.1 0.2\n")
    write(root / "labels/train/b.txt", "")
    write(root / "labels/val/d.txt", "0 0.5 0.5 0.1 0.1\n")
    truth = np.zeros((HEIGHT, WIDTH))
    truth[2:4, 5:9], truth[0, 0] = 2, 255
    mask(root / "masks/test/e.png", truth)
    config = {"path": ".", **{split: f"images/{split}" for split in SPLITS}, "names": ["dirt", "damage"]}
    (root / "data.yaml").write_text(json.dumps(config))
    return root


def rows(root: Path, name: str, schema) -> list[dict]:
    return read_table(root.parent / "out" / f"{name}.parquet", schema).to_pylist()


def rejects(root: Path) -> list[tuple]:
    return [tuple(row.values()) for row in rows(root, "tables/rejects", REJECTS)]


def test_a_good_data_set_becomes_tables(root):
    metrics = ingest(root)
    images = rows(root, "tables/train/images", IMAGES)
    assert [(row["image_id"], row["path"], row["label_status"]) for row in images] == [
        ("train/a", "images/train/a.png", "labelled"),
        ("train/b", "images/train/b.png", "empty"),
        ("train/sub/c", "images/train/sub/c.png", "missing"),
    ]
    assert {(row["height"], row["width"], row["exif_orientation"], row["split"]) for row in images} == {
        (HEIGHT, WIDTH, 1, "train")
    }
    boxes = rows(root, "tables/train/boxes", BOXES)
    assert [(row["box_id"], row["class_id"], row["source"], row["line"]) for row in boxes] == [
        ("train/a:1", 1, "labels/train/a.txt", 1),
        ("train/a:2", 0, "labels/train/a.txt", 2),
    ]
    assert [boxes[0][key] for key in ("x1", "y1", "x2", "y2")] == [5, 3, 15, 9]
    assert read_dataset(root.parent / "out/tables/dataset.json").names == ("dirt", "damage")
    assert not rejects(root)
    assert metrics["train"] == {
        "images": 3,
        "labels_labelled": 1,
        "labels_empty": 1,
        "labels_missing": 1,
        "boxes": 2,
        "boxes_by_class": {"dirt": 1, "damage": 1},
        "boxes_by_form": {"confidence": 0, "polygon": 0, "oriented": 0, "pose": 0},
        "restored_images": 0,
        "clipped_boxes": 0,
        "duplicates_removed": 0,
        "rejected_rows": 0,
        "rejected_rows_by_reason": {},
        "labels_without_usable_row": 0,
        "rejected_images": 0,
        "truth": 0,
        "truth_missing": 0,
        "rejected_masks": 0,
    }
    found = ("near_duplicates", "too_plain_to_compare", "cross_split_duplicates", "groups")
    assert [metrics[key] for key in found] == [0, 0, 0, None]


def test_truth_is_written_apart_and_missing_truth_is_counted(root):
    metrics = ingest(root)
    (row,) = rows(root, "truth/test", TRUTH)
    labels = decode_label_map(row["mask_png"])
    assert (row["image_id"], row["height"], row["width"]) == ("test/e", HEIGHT, WIDTH)
    assert [(labels == value).sum() for value in (0, 2, 255)] == [HEIGHT * WIDTH - 9, 8, 1]
    assert not rows(root, "truth/train", TRUTH)
    assert [(metrics[split]["truth"], metrics[split]["truth_missing"]) for split in SPLITS] == [(0, 0), (0, 0), (1, 1)]


def test_each_bad_row_and_file_is_listed_and_rejects_no_other(root):
    write(root / "labels/train/a.txt", "0 .5 .5 .1 .1\n9 .5 .5 .1 .1\n0 .5 .5 .1 .1\n0 nope\n1 .955 .5 .1 .1\n")
    write(root / "labels/val/d.txt", "0 2 2 1 1\n0 .5 .5 .1 .1\n")
    write(root / "labels/train/gone.txt", "0 .5 .5 .1 .1\n")
    write(root / "images/train/bad.jpg", "no image")
    write(root / "images/train/odd.heic", "")
    before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    metrics = ingest(root, max_bad_share=0.8)
    assert {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()} == before
    found = rejects(root)
    assert [(file, line, action) for file, line, _, action in found] == [
        ("images/train/bad.jpg", None, "image dropped"),
        ("images/train/odd.heic", None, "image dropped"),
        ("labels/train/a.txt", 2, "row dropped"),
        ("labels/train/a.txt", 3, "row dropped"),
        ("labels/train/a.txt", 4, "row dropped"),
        ("labels/train/a.txt", 5, "box clipped"),
        ("labels/train/gone.txt", None, "file ignored"),
        ("labels/val/d.txt", 1, "row dropped"),
    ]
    with (root.parent / "out/tables/rejects.csv").open(newline="") as file:
        written = [(row["file"], int(row["line"]) if row["line"] else None) for row in csv.DictReader(file)]
    assert written == [(file, line) for file, line, *_ in found]
    train = metrics["train"]
    assert train["rejected_rows_by_reason"] == {"class": 1, "columns": 1}
    assert [train[key] for key in ("boxes", "rejected_rows", "duplicates_removed", "clipped_boxes")] == [2, 2, 1, 1]
    assert (train["rejected_images"], metrics["orphan_labels"], metrics["ignored_files"]) == (2, 1, 0)
    assert (metrics["val"]["labels_without_usable_row"], metrics["val"]["labels_labelled"]) == (0, 1)


def test_labels_are_in_the_upright_frame(root):
    """Stored 20 x 12 and lying on its side: the box is in the upright, 12 x 20 image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(root / "images/train/a.png", 0, exif=exif)
    ingest(root)
    image = rows(root, "tables/train/images", IMAGES)[0]
    assert (image["height"], image["width"], image["exif_orientation"]) == (WIDTH, HEIGHT, 6)
    box = rows(root, "tables/train/boxes", BOXES)[0]
    assert [box[key] for key in ("x1", "y1", "x2", "y2")] == [3, 5, 9, 15]


def test_an_absent_test_split_is_null_and_has_tables_without_rows(root, capsys):
    config = json.loads((root / "data.yaml").read_text())
    del config["test"]
    (root / "data.yaml").write_text(json.dumps(config))
    assert ingest(root)["test"] is None
    assert not rows(root, "tables/test/images", IMAGES) + rows(root, "tables/test/boxes", BOXES)
    assert not rows(root, "truth/test", TRUTH)
    assert "test: no such split" in capsys.readouterr().err


def test_an_image_in_two_splits_stops_the_stage_unless_told_otherwise(root):
    (root / "images/test/copy.png").write_bytes((root / "images/train/b.png").read_bytes())
    with pytest.raises(UserError, match=r"1 images lie in more.*test: images/test/copy\.png = train: images/train/b"):
        ingest(root)
    found = [("images/train/b.png", None, "same bytes as images/test/copy.png of test", "stage stopped")]
    assert rejects(root) == found
    left = sorted(path.name for path in (root.parent / "out/tables").rglob("*"))
    assert left == ["near_duplicates.csv", "rejects.csv", "rejects.parquet"]
    assert not list((root.parent / "out/truth").iterdir())
    metrics = json.loads((root.parent / "out/ingest.json").read_text())
    assert metrics["cross_split_duplicates"] == 1
    assert metrics["first_duplicates"] == [["images/test/copy.png", "images/train/b.png"]]
    assert ingest(root, duplicates="report")["cross_split_duplicates"] == 1
    assert rejects(root) == [(*found[0][:3], "image kept")]
    assert len(rows(root, "tables/test/images", IMAGES)) == 3


def test_copies_within_a_split_are_no_duplicates(root):
    (root / "images/train/copy.png").write_bytes((root / "images/train/b.png").read_bytes())
    assert ingest(root)["cross_split_duplicates"] == 0


def test_too_large_a_share_of_bad_images_stops_the_stage(root):
    write(root / "images/train/bad.jpg", "no image")
    with pytest.raises(
        UserError, match=r"1 of 7 images are unusable \(ingest.max_bad_share = 0.05\): images/train/bad"
    ):
        ingest(root)
    assert ingest(root, max_bad_share=1 / 7)["train"]["rejected_images"] == 1


def test_a_split_with_bad_images_alone_stops_the_stage(root):
    write(root / "images/val/d.png", "no image")
    with pytest.raises(UserError, match="val has no other"):
        ingest(root, max_bad_share=1.0)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.zeros((WIDTH, HEIGHT)), "mask is 12 x 20, the upright image 20 x 12"),
        (np.full((HEIGHT, WIDTH), 3), r"value 3, allowed are 0 \(background\), 1-2 \(class id \+ 1\), 255"),
        (np.zeros((HEIGHT, WIDTH, 3)), "PNG of mode RGB"),
    ],
)
def test_a_bad_mask_is_left_out_and_too_many_stop_the_stage(root, labels, reason):
    mask(root / "masks/test/f.png", labels)
    assert ingest(root, max_bad_share=0.5)["test"]["rejected_masks"] == 1
    assert [row["image_id"] for row in rows(root, "truth/test", TRUTH)] == ["test/e"]
    with pytest.raises(UserError, match=rf"1 of 2 masks are unusable \(.*0\.05\): masks/test/f\.png: {reason}"):
        ingest(root)


def test_a_mask_with_few_bits_is_not_misread(root):
    """Pillow stretches 2-bit grey: class 3 would become 255, ignored."""
    Image.fromarray(np.full((HEIGHT, WIDTH), True)).save(root / "masks/test/f.png")
    with pytest.raises(UserError, match="PNG of mode 1 with 1 bits a sample, allowed are 8-bit grey and palette"):
        ingest(root)


def test_a_palette_mask_is_read_by_index(root):
    image = Image.fromarray(np.full((HEIGHT, WIDTH), 2, np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(root / "masks/test/f.png")
    ingest(root)
    assert (decode_label_map(rows(root, "truth/test", TRUTH)[1]["mask_png"]) == 2).all()


def test_black_and_white_masks_are_not_taken_for_ignored_pixels(root):
    mask(root / "masks/test/e.png", np.where(np.arange(WIDTH) > 5, 255, 0) * np.ones((HEIGHT, 1)))
    with pytest.raises(UserError, match="no mask holds a defect, though some hold 255"):
        ingest(root)


def test_an_image_with_unreadable_labels_is_rejected(root):
    (root.parent / "outside.txt").write_text("0 .5 .5 .1 .1\n")
    (root / "labels/train/a.txt").unlink()
    (root / "labels/train/a.txt").symlink_to(root.parent / "outside.txt")
    (root / "images/train/link.png").symlink_to(root.parent / "outside.txt")
    (root / "labels/train/b.txt").unlink()
    (root / "labels/train/b.txt").mkdir()
    write(root / "labels/train/sub/c.txt", "0 .5 .5 .1 .1")
    ingest(root, max_bad_share=0.5)
    assert rejects(root) == [
        ("images/train/a.png", None, "labels/train/a.txt leads out of the data root", "image dropped"),
        ("images/train/b.png", None, "labels/train/b.txt is not a regular file", "image dropped"),
        ("images/train/link.png", None, "images/train/link.png leads out of the data root", "image dropped"),
    ]


def test_a_list_line_that_leads_out_or_nowhere_rejects_only_itself(root):
    save_image(root.parent / "out.png", 9)
    write(root.parent / "labels/stray.txt", "")
    lines = ["images/train/a.png", "../out.png", "gone/x.png", str(root.parent / "images/y.png")]
    lines += ['"images/train/b.png"', "images/train/b.png;"]
    write(root / "train.txt", "\n".join(lines))
    config = json.loads((root / "data.yaml").read_text()) | {"train": "train.txt"}
    (root / "data.yaml").write_text(json.dumps(config))
    found = ingest(root, max_bad_share=0.75)
    assert (found["train"]["images"], found["train"]["rejected_images"]) == (1, 5)
    assert sorted((file, reason) for file, _, reason, _ in rejects(root)) == [
        ('"images/train/b.png"', '.png" is not read: convert it to one of .bmp .jpeg .jpg .mpo .png .tif .tiff .webp'),
        ("../out.png", OUTSIDE),
        (str(root.parent / "images/y.png"), OUTSIDE),
        ("gone/x.png", "image file not found"),
        ("images/train/b.png;", ".png; is not read: convert it to one of .bmp .jpeg .jpg .mpo .png .tif .tiff .webp"),
    ]


def test_strict_turns_any_finding_into_a_failure(root):
    ingest(root, strict=True)
    write(root / "labels/train/a.txt", "0 .5 .5 .1 .1\n9 .5 .5 .1 .1\n")
    with pytest.raises(UserError, match=r"--strict: 1 findings, first: labels/train/a\.txt:2: label class 9 exceeds"):
        ingest(root, strict=True)


def test_the_same_data_gives_the_same_bytes_whatever_the_workers_and_the_place(root, monkeypatch):
    write(root / "labels/train/a.txt", "0 .5 .5 .1 .1\n9 .5 .5 .1 .1\n")
    monkeypatch.chdir(root.parent)
    outputs = []
    for out, workers in (("one", 1), ("two", 5)):
        ingest(Path("set"), root.parent / out, workers=workers, max_bad_share=0.5)
        files = (path for path in sorted((root.parent / out).rglob("*")) if path.is_file())
        outputs.append({str(path.relative_to(root.parent / out)): path.read_bytes() for path in files})
    assert outputs[0] == outputs[1]
    assert not [name for name, data in outputs[0].items() if str(root.parent).encode() in data]


def test_rows_are_written_in_pieces_and_in_order(root, monkeypatch):
    expected = ingest(root), rows(root, "tables/train/images", IMAGES), rows(root, "tables/train/boxes", BOXES)
    monkeypatch.setattr("stages.ingest.CHUNK", 2)
    assert (
        ingest(root),
        rows(root, "tables/train/images", IMAGES),
        rows(root, "tables/train/boxes", BOXES),
    ) == expected


def test_names_with_spaces_and_other_letters(root):
    save_image(root / 'images/train/été 1, "x".png', 9)
    write(root / 'labels/train/été 1, "x".txt', "0 .5 .5 .1 .1\nbad\n")
    ingest(root, max_bad_share=0.5)
    assert 'train/été 1, "x":1' in [row["box_id"] for row in rows(root, "tables/train/boxes", BOXES)]
    with (root.parent / "out/tables/rejects.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["file"] == 'labels/train/été 1, "x".txt'


def test_ten_thousand_boxes_in_one_image(root):
    lines = [
        f"0 {0.1 + 0.008 * (index % 100):.6f} {0.1 + 0.008 * (index // 100):.6f} .06 .1" for index in range(10_000)
    ]
    write(root / "labels/train/a.txt", "\n".join(lines))
    assert ingest(root)["train"]["boxes"] == 10_000
    assert [row["line"] for row in rows(root, "tables/train/boxes", BOXES)] == list(range(1, 10_001))


@pytest.mark.parametrize("place", ["link", "link above", "data.yaml", "other.yml"])
def test_a_root_behind_links_and_a_yaml_file_as_root(root, place):
    """Inside or outside is judged by resolved paths, whichever way the root, `path` and a list lead to it."""
    top, config = root.parent, json.loads((root / "data.yaml").read_text())
    (top / "link").symlink_to(root)
    (top / "above").symlink_to(top)
    given = {"link": top / "link", "link above": top / "above/set"}.get(place, root / place)
    if place == "other.yml":
        (root / "data.yaml").rename(root / place)
    ours = ingest(given, out=top / "out")
    assert ours == ingest(root, out=top / "plain")
    (root / "train.txt").write_text(f"{root}/images/train/a.png\n{top}/link/images/train/b.png\n")
    yaml = root / place if given.is_file() else root / "data.yaml"
    yaml.write_text(json.dumps(config | {"path": f"{top}/above/link", "train": "train.txt"}))
    listed = ingest(given, out=top / "out")
    assert listed["train"]["images"] == 2 and listed["orphan_labels"] == 0
    assert [row[:2] for row in rejects(root)] == []


@pytest.mark.parametrize("place", ["set", "set/labels", "set/new", "link", "."])
def test_outputs_replace_nothing_of_the_data_set(root, place):
    top = root.parent
    ingest(root)
    (top / "link").symlink_to(root)
    before = {path: path.read_bytes() for path in top.rglob("*") if path.is_file()}
    outputs = [top / "tables", top / "truth", top / "ingest.json"]
    for number in range(3):
        changed = [top / place if index == number else path for index, path in enumerate(outputs)]
        with pytest.raises(UserError, match=r"is, holds or lies in data\.root = "):
            main(*changed, top / "out/params.yaml")
    assert before == {path: path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_the_command_ends_in_one_clear_line(root):
    (root.parent / "params.yaml").write_text(
        "data: {root: nowhere}\ningest: {duplicates: error, near_duplicates: 40, max_bad_share: 0.05, "
        "polygons: box, confidence: null, white_level: null, split: {group: null, val: 0.15, test: 0.15, seed: 0}}\n"
    )
    command = [sys.executable, "-m", "stages.ingest", "--params", str(root.parent / "params.yaml")]
    command += ["--tables", str(root / "t"), "--truth", str(root / "u"), "--metrics", str(root / "m.json")]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert done.stderr == (
        "error: nowhere/data.yaml: not found; data.root must be the folder that holds Ultralytics' data.yaml\n"
    )
    assert not (root / "t").exists()
