"""Corrected masks are taken in once, with where they came from; what is no correction, or fits nothing, is not."""

import csv
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from stages import accept, trust
from stages.common.errors import UserError
from stages.common.files import write_json
from stages.data.tables import IGNORE, IMAGES, Dataset, decode_label_map, read_table, write_dataset, write_table
from stages.formats.correction import Correction
from stages.masks.labelmap import row_of
from stages.trusted.accepted import COLUMNS, PROVENANCE, AcceptedMasks, read_provenance
from stages.trusted.drawn_masks import TRUSTED
from tests.support.mask_shards import write_split

SIZE_HW = (24, 40)
PSEUDO = np.zeros(SIZE_HW, np.uint8)
PSEUDO[4:9, 6:30] = 1


def tables_of(root: Path, count: int) -> None:
    """Tables and pseudo-masks, all alike, of `count` train images, one of val and one of test; images are not read."""
    write_dataset(root / "tables/dataset.json", Dataset(root / "set", ("dirt", "damage")))
    for split, number in (("train", count), ("val", 1), ("test", 1)):
        names = [f"{split}/{index:04d}" for index in range(number)]
        images = [
            {
                "image_id": name,
                "split": split,
                "path": f"images/{name}.jpg",
                "sha256": hashlib.sha256(name.encode()).hexdigest(),
                "exif_orientation": 1,
                "height": SIZE_HW[0],
                "width": SIZE_HW[1],
                "label_status": "missing",
            }
            for name in names
        ]
        write_table(root / f"tables/{split}/images.parquet", IMAGES, images)
        rows = [row_of(image, PSEUDO, []) for image in images]
        write_split(root / f"masks/{split}", *((part, []) for part in (rows[:1], rows[1:]) if part))


def corrected(row: int) -> np.ndarray:
    """The pseudo-mask with a stroke of the other class in one row, and an unknown pixel."""
    labels = PSEUDO.copy()
    labels[row, 3:37] = 2
    labels[0, 0] = IGNORE
    return labels


def save(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def run(root: Path, *files: Path) -> int:
    """Exit status."""
    try:
        accept.main(list(files), root / "trusted", root / "tables", root / "masks")
    except typer.Exit as left:
        return left.exit_code
    return 0


def provenance(root: Path) -> list[dict]:
    with (root / "trusted/provenance.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def root(tmp_path) -> Path:
    tables_of(tmp_path, 3)
    return tmp_path


def test_a_stroke_comes_back_to_the_pixel_with_its_provenance_and_trains(root, capsys):
    save(root / "edited/train/0001.png", corrected(12))
    save(root / "edited/val/0000.png", corrected(15))
    save(root / "edited/train/0002.png", PSEUDO)
    assert run(root, root / "edited") == 0
    assert capsys.readouterr().out.splitlines()[0] == "2 accepted, 1 no correction"
    pseudo = row_of(read_table(root / "tables/val/images.parquet", IMAGES).to_pylist()[0], PSEUDO, [])
    replaced = hashlib.sha256(pseudo["label_map"]["bytes"]).hexdigest()
    assert [(row["path"], row["source"], row["replaces"]) for row in provenance(root)] == [
        ("images/train/0001.jpg", "0001.png", replaced),
        ("images/val/0000.jpg", "0000.png", replaced),
    ]
    write_json(root / "params.yaml", {"data": {"root": str(root / "set"), "trusted": str(root / "trusted")}})
    trust.main(root / "tables", root / "out", root / "params.yaml")
    for split, name, row in (("train", "train/0001", 12), ("val", "val/0000", 15)):
        (found,) = read_table(root / f"out/{split}.parquet", TRUSTED).to_pylist()
        assert (found["image_id"], found["replaces"]) == (name, replaced)
        np.testing.assert_array_equal(decode_label_map(found["label_png"]), corrected(row))


def test_nothing_is_overwritten_and_a_second_time_changes_nothing(root, capsys):
    save(root / "edited/train/0001.png", corrected(12))
    run(root, root / "edited")
    files = {path: path.read_bytes() for path in (root / "trusted").rglob("*") if path.is_file()}
    assert run(root, root / "edited") == 0
    assert "1 accepted before" in capsys.readouterr().out
    save(root / "edited/train/0001.png", corrected(13))
    assert run(root, root / "edited") == 3
    assert "0001.png holds another mask of it, accepted from 0001.png: remove it first" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (root / "trusted").rglob("*") if path.is_file()} == files
    (root / "trusted/masks/images/train/0001.png").unlink()
    assert run(root, root / "edited") == 0
    labels = np.array(Image.open(root / "trusted/masks/images/train/0001.png"))
    np.testing.assert_array_equal(labels, corrected(13))


def test_what_does_not_fit_is_refused_in_a_line_each_and_the_others_are_taken(root, capsys):
    save(root / "edited/train/0000.png", corrected(12))
    save(root / "edited/train/0001.png", corrected(12).T)
    save(root / "edited/train/0002.png", np.full(SIZE_HW, 3, np.uint8))
    save(root / "edited/train/9999.png", corrected(12))
    save(root / "edited/test/0000.png", corrected(12))
    assert run(root, root / "edited") == 3
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "1 accepted, 4 refused"
    reasons = ("24 x 40", "value 3", "no image of the data set has this name", "is of a test image")
    lines = said.err.splitlines()
    assert len(lines) == 4
    assert all(any(reason in line for line in lines) for reason in reasons)
    assert [row["path"] for row in provenance(root)] == ["images/train/0000.jpg"]


@pytest.mark.parametrize("labels", [PSEUDO, corrected(12).T])
def test_where_nothing_is_accepted_nothing_is_written(root, labels):
    save(root / "edited/train/0000.png", labels)
    (root / "edited.json").write_text("{")
    run(root, root / "edited")
    with pytest.raises(UserError, match="not readable JSON"):
        run(root, root / "edited.json", root / "edited")
    assert not (root / "trusted").exists()


def test_holes_that_a_format_cannot_hold_are_said(root, capsys):
    """A ring as pseudo-mask: polygons of YOLO fill it; a change elsewhere is taken, with a note."""
    ring = PSEUDO.copy()
    ring[6:8, 10:20] = 0
    images = read_table(root / "tables/train/images.parquet", IMAGES).to_pylist()
    write_split(root / "masks/train", ([row_of(image, ring, []) for image in images], []))
    box = "0 .15 .1667 .15 .3541 .7375 .3541 .7375 .1667\n"
    for name, rows in (("0000", box), ("0001", box + "1 .1 .6 .5 .6 .5 .9\n")):
        path = root / f"yolo/labels/train/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rows)
    assert run(root, root / "yolo") == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "1 accepted, 1 no correction"
    assert "images/train/0001.jpg" in said.err and "its format holds no holes" in said.err


def test_accepted_masks_without_a_defect_are_counted(root, capsys):
    """Two that a COCO file lists and nobody has annotated, and one with an unknown pixel."""
    image = {"width": SIZE_HW[1], "height": SIZE_HW[0]}
    images = [{"id": number, "file_name": f"train/000{number}.jpg"} | image for number in range(2)]
    write_json(root / "coco.json", {"images": images, "annotations": [], "categories": []})
    save(root / "edited/train/0002.png", np.where(corrected(12) == IGNORE, IGNORE, 0).astype(np.uint8))
    save(root / "edited/val/0000.png", corrected(12))
    assert run(root, root / "coco.json", root / "edited") == 0
    assert capsys.readouterr().out.splitlines()[0] == "4 accepted (3 without a defect)"


def test_masks_that_were_accepted_under_other_classes_are_not_read_as_those_of_today(root):
    save(root / "edited/train/0001.png", corrected(12))
    assert run(root, root / "edited") == 0
    write_json(root / "params.yaml", {"data": {"root": str(root / "set"), "trusted": str(root / "trusted")}})
    write_dataset(root / "tables/dataset.json", Dataset(root / "set", ("damage", "dirt")))
    said = r"classes\.json: the masks are of the classes \['dirt', 'damage'\], the data set has \['damage', 'dirt'\]"
    with pytest.raises(UserError, match=said):
        trust.main(root / "tables", root / "out", root / "params.yaml")
    with pytest.raises(UserError, match=said):
        run(root, root / "edited")
    (root / "trusted/classes.json").unlink()  # a folder of masks without it is taken as it is
    trust.main(root / "tables", root / "out", root / "params.yaml")
    assert read_table(root / "out/train.parquet", TRUSTED).num_rows == 1


def test_masks_that_are_accepted_at_once_all_keep_their_provenance(tmp_path):
    paths = [f"images/{number:02d}.jpg" for number in range(24)]
    several = [AcceptedMasks(tmp_path, ("dirt", "damage")) for _ in paths]
    for accepted, path in zip(several, paths, strict=True):
        accepted.take(Correction(path, None, SIZE_HW, PSEUDO, "a.xml"), "0" * 64, None)
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(AcceptedMasks.save, several))
    assert sorted(read_provenance(tmp_path, ("dirt", "damage"))) == paths


def test_provenance_that_a_spreadsheet_saved_is_read_or_refused_in_a_line(tmp_path):
    text = f"{','.join(COLUMNS)}\r\nimages/ä.jpg,x,y,,\r\n"
    (tmp_path / PROVENANCE).write_bytes(text.encode("utf-8-sig"))
    assert read_provenance(tmp_path, ())["images/ä.jpg"]["source"] == "y"
    (tmp_path / PROVENANCE).write_bytes(text.encode("cp1252"))
    with pytest.raises(UserError, match=r"provenance\.csv: not readable as CSV in UTF-8"):
        read_provenance(tmp_path, ())


def test_a_thousand_corrections_take_seconds(tmp_path):
    tables_of(tmp_path, 1000)
    for index in range(1000):
        save(tmp_path / f"edited/train/{index:04d}.png", corrected(10 + index % 10))
    before = time.process_time()
    assert run(tmp_path, tmp_path / "edited") == 0
    assert time.process_time() - before < 20
    assert len(provenance(tmp_path)) == 1000
