"""Human masks in both ways of writing them: class id + 1, and class ids as Ultralytics reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common.errors import UserError
from stages.data.tables import TRUTH, decode_label_map, read_table
from stages.ingestion.pixel_truth import mask_format, misfits, own_format
from tests.support.ingesting import ingest

HEIGHT, WIDTH = 12, 20
NAMES = ("background", "dirt", "damage")


def write_set(root: Path, values: np.ndarray, names=NAMES, **config) -> Path:
    """One image per split, each with a box of the last class in columns 10 to 18, and a mask of `values` in test."""
    for seed, split in enumerate(("train", "val", "test")):
        pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for folder in ("images", "labels", "truth"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"images/{split}/a.png")
        (root / f"labels/{split}/a.txt").write_text(f"{len(names) - 1} 0.7 0.5 0.4 0.5\n")
    folder = root / config.get("masks_dir", "masks") / "test"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(folder / "a.png")
    splits = {split: f"images/{split}" for split in ("train", "val", "test")}
    (root / "data.yaml").write_text(json.dumps(splits | {"names": list(names)} | config))
    return root


def masked(value: int, rest: int = 0) -> np.ndarray:
    """`value` where the box is, 255 in a corner, `rest` elsewhere."""
    values = np.full((HEIGHT, WIDTH), rest)
    values[4:8, 11:16], values[0, 0] = value, 255
    return values


def truth_of(root: Path) -> np.ndarray:
    (row,) = read_table(root.parent / "out/truth/test.parquet", TRUTH).to_pylist()
    return decode_label_map(row["mask_png"])


def test_with_masks_dir_a_value_is_a_class_id(tmp_path, capsys):
    root = write_set(tmp_path / "set", masked(2), masks_dir="truth")
    assert ingest(root)["test"]["truth"] == 1
    np.testing.assert_array_equal(truth_of(root), masked(3))
    assert "masks hold class ids 0-2 and 255 (ignored), as masks_dir says" in capsys.readouterr().err


def test_label_mapping_is_followed(tmp_path):
    """33 is dirt's raw id and 7 background's, as in Ultralytics' cityscapes8.yaml."""
    mapping = {-1: "ignore_label", 0: "ignore_label", 7: 0, 33: 2}
    values = masked(33, rest=7)
    values[1, 1] = 0
    root = write_set(tmp_path / "set", values, masks_dir="truth", label_mapping=mapping)
    ingest(root)
    expected = masked(3)
    expected[1, 1] = 255
    np.testing.assert_array_equal(truth_of(root), expected)


def test_of_a_single_class_both_ways_are_the_same(tmp_path):
    root = write_set(tmp_path / "set", masked(1), names=("crack",), masks_dir="truth")
    ingest(root)
    np.testing.assert_array_equal(truth_of(root), masked(1))
    assert dict(mask_format({"masks_dir": "x"}, ("crack",), "").labels) == dict(own_format(1).labels)


def test_masks_that_do_not_fit_the_boxes_stop_the_stage(tmp_path):
    """Class ids, read as class id + 1 for want of masks_dir; and the other way round."""
    told = (
        r"1 of 1 boxes hold truth of other classes alone \(.*\): labels/test/a\.txt:1: {}/test/a\.png has defects in "
    )
    told += r"this box, and none of its class 2; masks hold class id \+ 1 or, with masks_dir in data\.yaml, class ids"
    root = write_set(tmp_path / "one", masked(2))
    with pytest.raises(UserError, match=told.format("masks")):
        ingest(root)
    root = write_set(tmp_path / "two", masked(3), names=(*NAMES, "dent"), masks_dir="truth")
    (root / "labels/test/a.txt").write_text("2 0.7 0.5 0.4 0.5\n")
    with pytest.raises(UserError, match=told.format("truth")):
        ingest(root)


def test_a_box_fits_when_one_pixel_of_its_class_is_in_it():
    labels = np.zeros((5, 9), np.uint8)
    labels[1, 2], labels[1, 3], labels[4, 8] = 1, 2, 255
    box = {"x1": 1.0, "y1": 0.5, "x2": 3.1, "y2": 3.0, "class_id": 1}
    beside, narrow, empty = box | {"x2": 3.0}, box | {"class_id": 2}, box | {"y1": 2.0, "y2": 5.0, "x2": 9.0}
    assert misfits(labels, [box, beside, narrow, empty]) == (3, [beside, narrow])


@pytest.mark.parametrize(
    ("config", "names", "message"),
    [
        ({"masks_dir": "m"}, NAMES[1:], "a mask's value is its class id, and no class is called background"),
        ({"masks_dir": "../m"}, NAMES, r"masks_dir = '\.\./m': expected the folder"),
        ({"masks_dir": ".m"}, NAMES, r"masks_dir = '\.m': expected the folder"),
        ({"masks_dir": "/m"}, NAMES, "masks_dir = '/m': expected the folder"),
        ({"masks_dir": "images"}, NAMES, "masks_dir = 'images': expected the folder"),
        ({"masks_dir": ["m"]}, NAMES, r"masks_dir = \['m'\]: expected the folder"),
        ({"label_mapping": {"1": "0"}}, NAMES, "label_mapping needs masks_dir"),
        ({"masks_dir": "m", "label_mapping": {"1": "x"}}, NAMES, "expected value: class id, or value: ignore_label"),
        ({"masks_dir": "m", "label_mapping": ["1"]}, NAMES, r"label_mapping = \['1'\]: expected value: class id"),
    ],
)
def test_what_cannot_be_read_is_one_line(config, names, message):
    with pytest.raises(UserError, match=f"^set: {message}" if "masks_dir =" in message else message):
        mask_format(config, names, "set")


def test_a_value_that_is_no_class_drops_the_mask(tmp_path):
    root = write_set(tmp_path / "set", masked(3), masks_dir="truth")
    with pytest.raises(UserError, match=r"truth/test/a\.png: value 3, allowed are class ids 0-2 and 255 \(ignored\)"):
        ingest(root)
