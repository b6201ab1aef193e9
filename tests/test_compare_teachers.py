"""Comparing teachers on the same boxes: two of tiny random weights, on an image whose truth is one of their masks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from stages import compare_teachers
from stages.common.errors import UserError
from stages.common.files import sha256_file
from stages.data.tables import BOXES, IMAGES, TRUTH, Dataset, encode_label_map, read_table, write_dataset, write_table
from stages.masks import rle
from stages.masks.shards import SCORES
from stages.teacher.prompting import Chunks, prompted
from stages.teacher.sam import SamTeacher, save_sam
from tests.support.tiny_teacher import TINY, params_of, tiny_sam

SIZE_HW = (40, 72)
BOX = (4.0, 5.0, 60.0, 32.0)


@pytest.fixture
def folder(tmp_path):
    """A data set of one image with a box, whose truth is the single mask of the teacher in `first`; and `second`."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write_dataset(tmp_path / "tables/dataset.json", Dataset(tmp_path, ("dirt", "damage")))
    digest = sha256_file(tmp_path / "a.png")
    image = dict(zip(IMAGES.names, ("val/a", "val", "a.png", digest, 1, *SIZE_HW, "labelled"), strict=True))
    box = dict(zip(BOXES.names, ("val/a:1", "val/a", 1, *BOX, "a.txt", 1, None), strict=True))
    first, second = tiny_sam(), tiny_sam()
    with torch.no_grad():
        for parameter in second.mask_decoder.parameters():
            parameter.neg_()
    save_sam(tmp_path / "first", first, TINY)
    save_sam(tmp_path / "second", second, TINY)
    single = prompted(SamTeacher(first), pixels, [BOX], params_of(view="crop", min_view_px=16), Chunks(4))[0]
    truth = np.where(rle.decode(single["rle"], SIZE_HW), np.uint8(2), np.uint8(0))
    assert 20 < (truth > 0).sum() < truth.size - 20
    for split in ("val", "test"):
        write_table(tmp_path / f"tables/{split}/images.parquet", IMAGES, [image] if split == "val" else [])
        write_table(tmp_path / f"tables/{split}/boxes.parquet", BOXES, [box] if split == "val" else [])
        row = {"image_id": "val/a", "height": 40, "width": 72, "mask_png": encode_label_map(truth)}
        write_table(tmp_path / f"truth/{split}.parquet", TRUTH, [row] if split == "val" else [])
    values = params_of(view="crop", candidate="single", clip_margin=None).model_dump()
    (tmp_path / "params.yaml").write_text(json.dumps({"rasterize": values}))
    return tmp_path


def run(folder, *teachers, split="val") -> dict:
    named = [str(folder / name) for name in teachers]
    compare_teachers.main(
        named,
        folder / "tables",
        folder / "truth",
        folder / "out.json",
        split,
        params=folder / "params.yaml",
        device="cpu",
    )
    return json.loads((folder / "out.json").read_text())


def test_each_teacher_is_scored_on_the_same_boxes(folder, capsys):
    found = run(folder, "first", "second")
    first, second = found.values()
    assert [name.rsplit("/", 1)[1] for name in found] == ["first", "second"]
    assert first["per_box"]["mask_iou"] == first["per_box"]["best_candidate_iou"] == 1.0
    assert first["pseudo_masks"]["iou_bin"] == 1.0
    assert second["per_box"]["mask_iou"] < 1.0
    assert first["per_box_by_class"]["damage"]["mask_iou"] == 1.0
    assert first["per_box_by_class"]["dirt"]["mask_iou"] is None
    assert first["filled_boxes"] == second["filled_boxes"]
    assert set(first["rank_correlation"].values()) == {None}, "of a single box"
    assert first["seconds_per_image"] > 0
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")}
    assert rows[0].startswith(f"| {folder / 'first'} | 1.000 | – | 1.000 |")


def test_without_truth_or_with_an_unknown_teacher_it_says_so(folder):
    with pytest.raises(UserError, match=r"truth/test\.parquet: no image of test has both boxes and pixel truth"):
        run(folder, "first", split="test")
    with pytest.raises(UserError, match=r"no such file or folder; allowed are embedded, "):
        run(folder, "third")


def test_an_unknown_teacher_is_refused_before_any_other_is_measured(folder, monkeypatch):
    monkeypatch.setattr(compare_teachers, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(UserError, match=r"third': no such file or folder"):
        run(folder, "first", "third")


def test_an_unknown_split_is_refused_with_what_is_allowed(folder):
    app = typer.Typer()
    app.command()(compare_teachers.main)
    options = [f"--{name}={folder / name}" for name in ("tables", "truth", "metrics")]
    found = CliRunner().invoke(app, ["embedded", *options, "--split", "validation"])
    assert found.exit_code == 2
    assert re.search(r"validation.*train.*val.*test", found.output, re.DOTALL)


def test_a_name_with_a_bar_is_one_column_and_is_no_html():
    numbers = {"mask_iou": 0.5, "filled_box_iou": 0.2, "best_candidate_iou": None}
    found = {"per_box": numbers, "per_box_by_class": {"a|<b>": numbers}, "pseudo_masks": {"iou_bin": 0.25}}
    found |= {"rank_correlation": dict.fromkeys(SCORES), "seconds_per_image": 1.0}
    head, rule, row = compare_teachers.table({"x|y": found}, ("a|<b>",)).splitlines()
    assert r"| a\|&lt;b> |" in head and row.startswith(r"| x\|y |")
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in (head, row)} == {rule.count("|")}


def test_a_user_without_a_home_folder_can_compare(folder, monkeypatch):
    def no_home(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    assert len(run(folder, "first")) == 1


def test_one_truth_at_a_time_is_in_memory(folder, monkeypatch):
    """Of an image that has boxes: the next one's is decoded after it."""
    decoded, real = [], compare_teachers.decode_label_map
    monkeypatch.setattr(compare_teachers, "decode_label_map", lambda png: decoded.append(png) or real(png))
    for path, schema in (("tables/val/images", IMAGES), ("tables/val/boxes", BOXES), ("truth/val", TRUTH)):
        (row,) = read_table(folder / f"{path}.parquet", schema).to_pylist()
        ids = [f"val/{name}" for name in "abc" if (path, name) != ("tables/val/boxes", "b")]
        write_table(folder / f"{path}.parquet", schema, [row | {"image_id": key} for key in ids])
    known = compare_teachers.images_with_truth(folder / "tables", folder / "truth", "val")
    found = [(image["image_id"], len(decoded)) for image, _, _ in known]
    assert found == [("val/a", 1), ("val/c", 2)]
