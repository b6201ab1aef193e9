"""A COCO data set becomes one that ingest reads: boxes, masks to trust, truth of test; itself it stays as it was."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from pycocotools.coco import COCO

from stages import from_coco
from stages.common.errors import UserError
from stages.data.tables import BOXES, IGNORE, IMAGES, TRUTH, decode_label_map, read_table
from stages.formats.correction import KnownImages
from stages.formats.corrections_in import read_corrections
from tests.support.ingesting import ingest

SIZE_HW = (24, 40)
CATEGORIES = [{"id": 7, "name": "damage"}, {"id": 3, "name": "dirt"}]
TRIANGLE = {"category_id": 7, "bbox": [4, 2, 12, 10], "segmentation": [[4, 2, 16, 2, 16, 12]]}
BOX = {"category_id": 3, "bbox": [20.5, 3, 10, 8]}
CROWD = {"category_id": 3, "bbox": [30, 18, 8, 4], "segmentation": {"size": [24, 40], "counts": [0, 960]}, "iscrowd": 1}


def ring() -> dict:
    """A frame of 2 pixels around a hole, as run lengths."""
    mask = np.zeros(SIZE_HW, np.uint8)
    mask[10:20, 2:14] = 1
    mask[12:18, 4:12] = 0
    edges = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=0))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    segmentation = {"size": list(SIZE_HW), "counts": counts.tolist()}
    return {"category_id": 3, "bbox": [2, 10, 12, 10], "segmentation": segmentation}


def write(root: Path, split: str, images: list[list[dict]], size_hw: tuple[int, int] = SIZE_HW) -> Path:
    """An instances file and the images beside it."""
    rng = np.random.default_rng(len(split))
    (root / split).mkdir(parents=True)
    tree = {"categories": CATEGORIES, "images": [], "annotations": []}
    for number, annotations in enumerate(images):
        name = f"p{number}.png"
        Image.fromarray(rng.integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)).save(root / split / name)
        tree["images"].append({"id": number, "file_name": name, "height": size_hw[0], "width": size_hw[1]})
        for annotation in annotations:
            identity = {"id": len(tree["annotations"]) + 1, "image_id": number}
            tree["annotations"].append({"iscrowd": 0, "area": 1, **annotation, **identity})
    file = root / split / "_annotations.coco.json"
    file.write_text(json.dumps(tree))
    return file


def files_of(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_boxes_masks_and_truth_come_out_and_nothing_goes_in(tmp_path):
    root = tmp_path / "coco"
    train = write(root, "train", [[TRIANGLE, BOX], [BOX], [], [ring(), CROWD]])
    val, test = write(root, "val", [[BOX]]), write(root, "test", [[TRIANGLE], []])
    before = files_of(root)
    from_coco.main(train, val, tmp_path / "set", test)
    metrics = ingest(tmp_path / "set", strict=True)
    assert files_of(root) == before
    assert metrics["train"]["boxes_by_class"] == {"dirt": 3, "damage": 1}, "classes by the order of their ids"
    boxes = read_table(tmp_path / "out/tables/train/boxes.parquet", BOXES).to_pylist()
    first, second = ([row[key] for key in ("x1", "y1", "x2", "y2")] for row in boxes[:2])
    assert first == pytest.approx([4, 2, 16, 12], abs=1e-6) and second == pytest.approx([20.5, 3, 30.5, 11], abs=1e-6)

    masks = {path.name: np.array(Image.open(path)) for path in (tmp_path / "set/trusted/train").iterdir()}
    assert sorted(masks) == ["p0.png", "p3.png"]
    official = COCO(train)
    for name, number, value in (("p0.png", 1, 2), ("p3.png", 4, 1)):
        np.testing.assert_array_equal(masks[name] == value, official.annToMask(official.anns[number]))
    assert (masks["p0.png"] == IGNORE).sum() == 11 * 8, "pixels 20 to 30 of a box without segmentation"
    assert (masks["p3.png"] == IGNORE).sum() == 8 * 4, "the crowd"
    truth = read_table(tmp_path / "out/truth/test.parquet", TRUTH).to_pylist()
    assert [decode_label_map(row["mask_png"]).max() for row in truth] == [2, 0]
    assert not (tmp_path / "set/trusted/val").exists()


def test_an_image_with_crowds_alone_is_no_background(tmp_path):
    train, val = write(tmp_path, "train", [[CROWD], [BOX], []]), write(tmp_path, "val", [[BOX]])
    from_coco.main(train, val, tmp_path / "set")
    (path,) = (tmp_path / "set/trusted").rglob("*.png")
    mask = np.array(Image.open(path))
    assert path.name == "p0.png" and (mask[18:22, 30:38] == IGNORE).all() and (mask > 0).sum() == 8 * 4


def test_a_crowd_beside_boxes_without_segmentation_is_no_background(tmp_path):
    train, val = write(tmp_path, "train", [[CROWD, BOX], [BOX]]), write(tmp_path, "val", [[BOX]])
    from_coco.main(train, val, tmp_path / "set")
    (path,) = (tmp_path / "set/trusted").rglob("*.png")
    mask = np.array(Image.open(path))
    assert path.name == "p0.png" and (mask[18:22, 30:38] == IGNORE).all() and (mask[3:11, 21:30] == IGNORE).all()
    assert set(np.unique(mask)) == {0, IGNORE}


def test_crowds_alone_are_no_truth_of_a_test_split(tmp_path):
    files = {split: write(tmp_path, split, [[BOX, CROWD], [BOX]]) for split in ("train", "val", "test")}
    from_coco.main(**files, out=tmp_path / "set")
    assert not (tmp_path / "set/masks").exists()


def test_it_ends_with_counts_and_the_next_command(tmp_path, capsys):
    train, val = write(tmp_path, "train", [[TRIANGLE, BOX], [BOX]]), write(tmp_path, "val", [[BOX]])
    from_coco.main(train, val, tmp_path / "set")
    *counts, command = capsys.readouterr().out.splitlines()
    assert counts == ["train: 2 images, 3 boxes, 1 masks", "val: 1 images, 1 boxes, 0 masks"]
    assert command.endswith(f"dvc exp run -S data.root={tmp_path}/set -S data.trusted={tmp_path}/set/trusted")
    from_coco.main(val, val, tmp_path / "boxed set")
    assert capsys.readouterr().out.endswith(f"-S 'data.root={tmp_path}/boxed set'\n")


def test_where_every_image_of_a_split_is_refused_nothing_is_written(tmp_path, capsys):
    train, val = write(tmp_path, "train", [[BOX]]), write(tmp_path, "val", [[BOX]], size_hw=(1, 1))
    with pytest.raises(UserError, match=f"set: not written: all images of {val} are refused$"):
        from_coco.main(train, val, tmp_path / "set")
    assert capsys.readouterr().err.count("refused p0.png") == 1
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("empty", ["train", "val", "test"])
def test_a_split_without_images_is_refused_before_anything_is_written(tmp_path, capsys, empty):
    files = {split: write(tmp_path, split, [[BOX]] * (split != empty)) for split in ("train", "val", "test")}
    with pytest.raises(UserError, match=f"^{files[empty]}: `images` is empty: the split {empty} needs one or more$"):
        from_coco.main(**files, out=tmp_path / "set")
    assert capsys.readouterr().err == "" and not (tmp_path / "set").exists()


def test_backslashes_in_file_name_separate_folders_unless_a_file_has_that_name(tmp_path):
    train, val = write(tmp_path, "train", [[TRIANGLE], [BOX]]), write(tmp_path, "val", [[BOX]])
    (tmp_path / "train/sub").mkdir()
    (tmp_path / "train/p0.png").rename(tmp_path / "train/sub/p0.png")
    (tmp_path / "train/p1.png").rename(tmp_path / r"train/sub\p1.png")
    train.write_text(train.read_text().replace('"p', r'"sub\\p'))
    from_coco.main(train, val, tmp_path / "set")
    images = tmp_path / "set/images/train"
    assert {str(path.relative_to(images)) for path in images.rglob("*.png")} == {"sub/p0.png", r"sub\p1.png"}


@pytest.mark.parametrize("folder", ["images", "site/images", "images/masks"])
def test_a_folder_images_in_file_name_loses_no_label_mask_or_truth(tmp_path, folder):
    files = {split: write(tmp_path / "coco", split, [[TRIANGLE], [BOX]]) for split in ("train", "val", "test")}
    for file in files.values():
        (file.parent / folder).mkdir(parents=True)
        (file.parent / "p0.png").rename(file.parent / folder / "p0.png")
        file.write_text(file.read_text().replace("p0.png", f"{folder}/p0.png"))
    from_coco.main(**files, out=tmp_path / "set")
    metrics = ingest(tmp_path / "set", strict=True)
    assert [metrics[split]["boxes"] for split in files] == [2, 2, 2]
    assert metrics["test"]["truth"] == 2
    known = KnownImages(read_table(tmp_path / "out/tables/train/images.parquet", IMAGES).to_pylist())
    (mask,) = read_corrections(tmp_path / "set/trusted/train", known, ["dirt", "damage"])
    assert Path(mask.path).name == "p0.png" and mask.label_map.any()


def test_a_linked_image_keeps_its_mode(tmp_path):
    """It may lie in DVC's cache, whose files are read-only."""
    train, val = write(tmp_path / "coco", "train", [[BOX]]), write(tmp_path / "coco", "val", [[BOX]])
    image = tmp_path / "coco/train/p0.png"
    image.chmod(0o444)
    from_coco.main(train, val, tmp_path / "set")
    assert image.samefile(tmp_path / "set/images/train/p0.png")
    assert image.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (BOX | {"category_id": 9}, "category 9 (None), allowed are dirt, damage"),
        (BOX | {"bbox": [1, 1, 0, 5]}, "needed are x, y, width and height"),
        (BOX | {"bbox": [50, 1, 5, 5]}, "outside of the image of 40 x 24 pixels"),
        (TRIANGLE | {"segmentation": {"size": [40, 24], "counts": [960]}}, "run lengths for an image of [40, 24]"),
    ],
)
def test_an_image_with_a_wrong_annotation_is_refused_in_a_line_and_the_others_are_taken(
    tmp_path, capsys, annotation, reason
):
    train, val = write(tmp_path, "train", [[annotation], [BOX]]), write(tmp_path, "val", [[BOX]])
    with pytest.raises(typer.Exit):
        from_coco.main(train, val, tmp_path / "set")
    assert [path.name for path in (tmp_path / "set/images/train").iterdir()] == ["p1.png"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("refused")]
    assert reason in line and line.startswith(f"refused p0.png ({train}): ")


def test_images_of_another_size_or_in_no_folder_are_refused(tmp_path, capsys):
    train, val = write(tmp_path, "train", [[BOX]], SIZE_HW[::-1]), write(tmp_path, "val", [[BOX], [BOX]])
    val.write_text(val.read_text().replace('"width": 40', '"width": "40"', 1))
    (tmp_path / "val/p1.png").unlink()
    with pytest.raises(UserError, match=f"all images of {train} and {val} are refused"):
        from_coco.main(train, val, tmp_path / "set")
    said = capsys.readouterr().err
    assert "is 24 x 40 pixels there, the upright image 40 x 24" in said
    assert "height 24 and width '40' there, needed are two numbers" in said
    assert f"found in 0 of the folders {tmp_path / 'val'} (--images)" in said


def test_a_folder_of_images_that_is_not_there_is_one_line(tmp_path, capsys):
    train, val = write(tmp_path, "train", [[BOX]]), write(tmp_path, "val", [[BOX]])
    with pytest.raises(UserError, match=f"^--images {tmp_path}/image: no such folder$"):
        from_coco.main(train, val, tmp_path / "set", images=[tmp_path / "train", tmp_path / "image"])
    assert not capsys.readouterr().err and not (tmp_path / "set").exists()


@pytest.mark.parametrize("form", ["tiff", "jpeg"])
def test_a_turned_image_has_its_upright_size(tmp_path, form, capsys):
    """Pillow turns a TIFF's size itself."""
    file = write(tmp_path / "coco", "train", [[BOX]])
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.new("RGB", SIZE_HW)
    lying.save(tmp_path / f"coco/train/p0.{form}", exif=exif)
    file.write_text(file.read_text().replace("p0.png", f"p0.{form}"))
    from_coco.main(file, write(tmp_path / "coco", "val", [[BOX]]), tmp_path / "out")
    assert (tmp_path / f"out/images/train/p0.{form}").is_file(), capsys.readouterr()


def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path, capsys):
    train, val = write(tmp_path, "train", [[BOX], [BOX]]), write(tmp_path, "val", [[BOX]])
    train.write_text(train.read_text().replace("p0.png", "../val/p0.png"))
    with pytest.raises(typer.Exit):
        from_coco.main(train, val, tmp_path / "set")
    assert "leads out of the data root" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["p0.png", "p0.jpg"])
def test_a_second_image_of_a_name_is_refused(tmp_path, capsys, name):
    """The same file, or one of another suffix, whose label file would be the same."""
    train, val = write(tmp_path, "train", [[TRIANGLE], [BOX]]), write(tmp_path, "val", [[BOX]])
    Image.new("RGB", SIZE_HW[::-1]).save(tmp_path / "train/p0.jpg")
    train.write_text(train.read_text().replace("p1.png", name))
    with pytest.raises(typer.Exit):
        from_coco.main(train, val, tmp_path / "set")
    assert f"refused {name} ({train}): a second image called p0" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "set/images/train").iterdir()] == ["p0.png"]
    assert (tmp_path / "set/labels/train/p0.txt").read_text().startswith("1 "), "of the first"


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": [1], "categories": []}'])
def test_what_is_no_instances_file_is_named(tmp_path, text):
    val = write(tmp_path, "val", [[BOX]])
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json: (not readable JSON|no list)"):
        from_coco.main(tmp_path / "x.json", val, tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (CATEGORIES[0]["name"], "two classes have one name"),
        (f" {CATEGORIES[0]['name']} ", "two classes have one name"),
        (None, "expected a list of class names"),
        ("a\nb", "holds a control character"),
    ],
)
def test_categories_that_ingest_would_not_take_are_refused(tmp_path, name, reason):
    train, val = write(tmp_path, "train", [[BOX]]), write(tmp_path, "val", [[BOX]])
    tree = json.loads(train.read_text())
    tree["categories"][1]["name"] = name
    train.write_text(json.dumps(tree))
    with pytest.raises(UserError) as wrong:
        from_coco.main(train, val, tmp_path / "set")
    assert str(wrong.value).startswith(f"{train}: categories: names") and reason in str(wrong.value)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("key", "number", "own", "reason"),
    [
        (
            "annotations",
            1,
            {"image_id": "1"},
            "annotation 2: image_id '1', allowed are the ids of the images, such as 0",
        ),
        ("annotations", 1, {"image_id": 77}, "annotation 2: image_id 77, allowed are the ids of the images, such as 0"),
        ("annotations", 1, {"image_id": []}, "unhashable"),
        ("images", 1, {"id": 0}, "images: id 0, allowed are numbers alone or texts alone, each once"),
        ("categories", 1, {"id": "x"}, "categories: id 7, allowed are numbers alone or texts alone, each once"),
        ("categories", 1, {"id": None}, "categories: id None, allowed are numbers alone or texts alone, each once"),
        ("categories", 1, {"id": 7}, "categories: id 7, allowed are numbers alone or texts alone, each once"),
    ],
)
def test_ids_that_do_not_fit_together_are_refused_in_one_line(tmp_path, key, number, own, reason):
    train, val = write(tmp_path, "train", [[BOX], [BOX]]), write(tmp_path, "val", [[BOX]])
    tree = json.loads(train.read_text())
    tree[key][number] |= own
    train.write_text(json.dumps(tree))
    with pytest.raises(UserError) as wrong:
        from_coco.main(train, val, tmp_path / "set")
    assert str(wrong.value).startswith(f"{train}: {reason}") and "\n" not in str(wrong.value)
