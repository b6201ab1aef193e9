"""Whole data sets in, tables out: every layout that users have, every mistake told, nothing modified."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.dataset.layout import image_id, label_path, mask_path, read_layout
from stages.dataset.photos import EXIF_ORIENTATION
from stages.dataset.tables import BOXES, IMAGES, SPLITS, TRUTH, decode_label_map, read_dataset, read_table
from stages.ingest import main
from stages.shell.errors import UserError

SIZE_HW = (40, 60)


def photo(path: Path, seed: int, size_hw=SIZE_HW, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def label(root: Path, split: str, stem: str, text: str) -> None:
    path = root / "labels" / split / f"{stem}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def mask(root: Path, split: str, stem: str, labels: np.ndarray) -> None:
    path = root / "masks" / split / f"{stem}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    """Two photographs a split, the first with a box, the second with none; masks for test."""
    root = tmp_path / "set"
    for number, split in enumerate(SPLITS):
        for index in range(2):
            photo(root / "images" / split / f"p{index}.png", seed=10 * number + index)
        label(root, split, "p0", "1 0.5 0.5 0.2 0.2\n")
    truth = np.zeros(SIZE_HW, np.uint8)
    truth[18:22, 28:32] = 2
    truth[0, 0] = 255
    mask(root, "test", "p0", truth)
    mask(root, "test", "p1", np.zeros(SIZE_HW, np.uint8))
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\ntest: images/test\nnames: [a, b]\n")
    return root


def ingest(root: Path, strict=False, **values) -> dict:
    """Run the stage on `root`; returns its metrics. Outputs lie beside the root."""
    out = root.parent
    settings = {"duplicates": "error", "max_bad_share": 0.4, **values}
    (out / "params.yaml").write_text(f"data: {{root: {root}}}\ningest: {json.dumps(settings)}\n")
    main(out / "tables", out / "truth", out / "ingest.json", out / "params.yaml", strict)
    return json.loads((out / "ingest.json").read_text())


def images(root: Path, split: str) -> list[dict]:
    return read_table(root.parent / "tables" / split / "images.parquet", IMAGES).to_pylist()


def rejects(root: Path) -> list[tuple[str, str, str]]:
    with (root.parent / "tables/rejects.csv").open() as file:
        return [(row["file"], row["line"], row["reason"]) for row in csv.DictReader(file)]


def test_a_sound_data_set_becomes_tables(root):
    metrics = ingest(root, strict=True)
    assert metrics["test"]["images_with_truth"] == 2
    assert metrics["train"]["boxes_by_class"] == {"a": 0, "b": 1}
    assert metrics["rejects"] == {}
    assert read_dataset(root.parent / "tables/dataset.json").names == ("a", "b")
    row = images(root, "train")[0]
    assert (row["image_id"], row["path"], row["height"], row["width"], row["label_status"]) == (
        "train/p0",
        "images/train/p0.png",
        *SIZE_HW,
        "labelled",
    )
    box = read_table(root.parent / "tables/train/boxes.parquet", BOXES).to_pylist()[0]
    assert (box["x1"], box["y1"], box["x2"], box["y2"]) == pytest.approx((24, 16, 36, 24))
    assert (box["source"], box["line"], box["box_id"]) == ("labels/train/p0.txt", 1, "train/p0:1")
    truth = read_table(root.parent / "truth/test.parquet", TRUTH).to_pylist()[0]
    assert sorted(np.unique(decode_label_map(truth["mask_png"]))) == [0, 2, 255]
    assert read_table(root.parent / "truth/train.parquet", TRUTH).num_rows == 0


def test_running_again_gives_the_same_bytes_and_touches_no_input(root):
    def bytes_below(folder):
        return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    before = bytes_below(root)
    ingest(root)
    first = bytes_below(root.parent / "tables"), bytes_below(root.parent / "truth")
    ingest(root)
    assert (bytes_below(root.parent / "tables"), bytes_below(root.parent / "truth")) == first
    assert bytes_below(root) == before


def test_empty_and_missing_label_files_are_told_apart(root):
    label(root, "train", "p1", "\n")
    metrics = ingest(root)
    assert (metrics["train"]["labels_empty"], metrics["val"]["labels_missing"]) == (1, 1)


def test_a_bad_row_costs_neither_its_file_nor_its_image(root):
    label(root, "train", "p0", "9 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\nx\n")
    metrics = ingest(root)
    assert (metrics["train"]["images"], metrics["train"]["boxes"], metrics["train"]["rejected_rows"]) == (2, 1, 3)
    assert [(file, line) for file, line, _ in rejects(root)] == [("labels/train/p0.txt", n) for n in "134"]
    assert metrics["rejects"] == {
        "duplicate label removed": 1,
        "label class exceeds dataset class count": 1,
        "labels require columns (class cx cy w h)": 1,
    }
    with pytest.raises(UserError, match=r"--strict: 3 rejects, the first in labels/train/p0\.txt"):
        ingest(root, strict=True)


def test_a_bad_photograph_is_listed_and_the_others_go_on(root):
    (root / "images/train/p1.png").write_bytes(b"")
    metrics = ingest(root)
    assert (metrics["train"]["images"], metrics["train"]["rejected_images"]) == (1, 1)
    assert rejects(root) == [("images/train/p1.png", "", "file is empty")]


def test_too_many_bad_photographs_stop_the_stage(root):
    for index in range(2):
        (root / f"images/train/p{index}.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"2 of 6 images are bad, more than ingest\.max_bad_share"):
        ingest(root, max_bad_share=0.3)


def test_two_photographs_of_one_name_share_a_label_file_and_are_rejected(root):
    photo(root / "images/train/p1.jpg", seed=99)
    metrics = ingest(root)
    assert metrics["train"]["images"] == 1
    assert metrics["rejects"] == {"label file shared by images": 2}


def test_a_label_without_a_photograph_is_listed(root):
    label(root, "val", "nobody", "0 0.5 0.5 0.1 0.1\n")
    ingest(root)
    assert rejects(root) == [("labels/val/nobody.txt", "", "label file without an image")]


def test_the_same_photograph_in_two_splits_stops_the_stage(root):
    data = (root / "images/train/p1.png").read_bytes()
    (root / "images/test/p1.png").write_bytes(data)
    with pytest.raises(UserError, match=r"images/test/p1\.png = images/train/p1\.png"):
        ingest(root)
    assert ingest(root, duplicates="report")["cross_split_duplicates"] == 1


def test_a_label_file_that_leads_out_of_the_root_costs_its_image(root):
    outside = root.parent / "outside.txt"
    outside.write_text("0 0.5 0.5 0.1 0.1\n")
    (root / "labels/train/p1.txt").symlink_to(outside)
    metrics = ingest(root)
    assert metrics["train"]["images"] == 1
    assert "unreadable labels: leads out of the data root" in rejects(root)[0][2]


def test_boxes_and_sizes_are_those_of_the_upright_photograph(root):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    photo(root / "images/train/p0.png", seed=5, exif=exif)
    ingest(root)
    assert (images(root, "train")[0]["height"], images(root, "train")[0]["width"]) == SIZE_HW[::-1]
    box = read_table(root.parent / "tables/train/boxes.parquet", BOXES).to_pylist()[0]
    assert (box["x1"], box["y1"], box["x2"], box["y2"]) == pytest.approx((16, 24, 24, 36))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(SIZE_HW[::-1], np.uint8), r"masks/test/p0\.png: mask is 40 x 60, its photograph 60 x 40"),
        (np.full(SIZE_HW, 3, np.uint8), r"mask holds 3; allowed are 0 \(background\), 1 to 2"),
        (np.zeros((*SIZE_HW, 3), np.uint8), "8-bit index or grey PNG, this is of mode RGB"),
    ],
)
def test_a_wrong_mask_is_an_error_and_never_background(root, labels, message):
    mask(root, "test", "p0", labels)
    with pytest.raises(UserError, match=message):
        ingest(root)


def test_a_data_set_without_test_split_or_masks_says_so(root):
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: a, 1: b}\n")
    metrics = ingest(root)
    assert metrics["test"] is None
    assert metrics["val"]["images_with_truth"] == 0
    assert images(root, "test") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\nval: images/val\n", "names = None: expected a list"),
        ("train: images/train\nnames: [a]\n", "no `val`"),
        ("train: images/train\nval: images/nowhere\nnames: [a]\n", r"val = 'images/nowhere': .* does not exist"),
        ("train: ../\nval: images/val\nnames: [a]\n", "leads out of the data root"),
        ("path: /\ntrain: a\nval: b\nnames: [a]\n", "leads out of the data root"),
        ("train: data.yaml\nval: images/val\nnames: [a]\n", "neither a folder nor a .txt list"),
        ("train: [1]\nval: images/val\nnames: [a]\n", "expected a folder"),
        ("train: images/train\nval: images/val\nnames: {0: a, 2: b}\n", "mapping from 0, 1, 2"),
        ("train: images/train\nval: images/val\nnames: [a, [b]]\n", "names ="),
        ("train: images/train\nval: images/val\nnames: [a, a]\n", "two classes have one name"),
        ("train: images/train\nval: images/val\nnames: [a]\nnc: 2\n", "nc = 2, but names has 1"),
        ("- a list", "expected a mapping"),
        ("a: {", "cannot be read as YAML"),
    ],
)
def test_a_wrong_data_yaml_is_one_clear_line(root, text, message):
    (root / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        ingest(root)
    assert "data.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_data_yaml_is_one_clear_line(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match=r"data\.root must be a folder with Ultralytics' data\.yaml"):
        ingest(tmp_path / "set")


def test_lists_of_folders_and_list_files_are_read_as_ultralytics_does(root):
    photo(root / "more/images/train/q.png", seed=77)
    (root / "train.txt").write_text("./images/train/p1.png\nimages/train/p0.png\n")
    (root / "data.yaml").write_text("train: [train.txt, more/images/train]\nval: images/val\nnames: [a, b]\n")
    assert read_layout(root).splits["train"] == [
        "images/train/p0.png",
        "images/train/p1.png",
        "more/images/train/q.png",
    ]


def test_an_empty_split_is_refused(root):
    (root / "images/none").mkdir()
    (root / "data.yaml").write_text("train: images/none\nval: images/val\nnames: [a, b]\n")
    with pytest.raises(UserError, match="not a single photograph in train"):
        ingest(root)


def test_ids_labels_and_masks_follow_the_last_images_folder():
    assert image_id("train", "images/train/site a/01.JPG") == "train/site a/01"
    assert image_id("val", "all/images/01.png") == "val/01"
    assert label_path("images/x/images/train/ä.jpg") == "images/x/labels/train/ä.txt"
    assert mask_path("images/test/b.c.jpg") == "masks/test/b.c.png"
