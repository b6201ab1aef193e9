"""Masks that people drew: which are taken, what they replace, what they rerun, and that none can score."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import fingerprint, rasterize, trust
from stages.common.errors import UserError
from stages.data.tables import IGNORE, decode_label_map, read_table
from stages.teacher.sam import save_sam
from stages.trusted.accepted import COLUMNS, PROVENANCE
from stages.trusted.drawn_masks import TRUSTED
from tests.support.ingesting import images_by_id, ingest
from tests.support.mask_shards import read_candidates, read_masks
from tests.support.tiny_project import ROOT, write_data_set
from tests.support.tiny_teacher import TINY, count_encoded, tiny_sam
from tests.support.tiny_teacher import params_of as teacher_params

SIZE_HW = (60, 84)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A data set with 2 images of train, 1 of val, 1 of test, its tables, and a teacher."""
    folder = tmp_path_factory.mktemp("trust")
    (folder / ".dvc").mkdir()
    write_data_set(folder / "set", {"train": 2, "val": 1, "test": 1}, SIZE_HW)
    ingest(folder / "set")
    save_sam(folder / "weights", tiny_sam(), TINY)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(made))
    return tmp_path / "drawn"


def draw(path: Path, value: int = 1, size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    """An index PNG of one rectangle of `value`, beside an unknown pixel."""
    labels = np.zeros(size_hw, np.uint8)
    labels[10:20, 30:50] = value
    labels[0, 0] = IGNORE
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)
    return labels


def params_of(made: Path, trusted: Path | None) -> Path:
    params = made / "params.yaml"
    values = {"data": {"root": str(made / "set"), "trusted": trusted and str(trusted)}}
    values["rasterize"] = teacher_params(view="crop", shard_size=4).model_dump()
    params.write_text(json.dumps(values))
    return params


def tables_of(made: Path, trusted: Path | None) -> dict[str, list[dict]]:
    out = made / "out/trusted"
    trust.main(made / "out/tables", out, params_of(made, trusted))
    return {split: read_table(out / f"{split}.parquet", TRUSTED).to_pylist() for split in ("train", "val")}


def rasterized(made: Path, name: str, **options) -> Path:
    params = params_of(made, None)
    rasterize.main(made / "out/tables", made / "weights", made / name, params=params, device="cpu", **options)
    return made / name


def test_without_trusted_masks_the_pseudo_masks_are_the_same(made, folder):
    assert tables_of(made, None) == {"train": [], "val": []}
    plain, empty = rasterized(made, "plain"), rasterized(made, "empty", trusted=made / "out/trusted")
    files = [path.relative_to(plain) for path in plain.rglob("*.parquet")]
    assert len(files) == 6
    assert all((plain / path).read_bytes() == (empty / path).read_bytes() for path in files)
    assert read_masks(plain / "train")["trusted"].null_count == 2


def test_a_drawn_mask_replaces_the_teachers_and_no_change_of_it_prompts_again(made, folder, monkeypatch):
    labels = draw(folder / "train/p00000.png")
    found = tables_of(made, folder)
    assert [(row["image_id"], row["source"]) for row in found["train"]] == [("train/p00000", "train/p00000.png")]
    np.testing.assert_array_equal(decode_label_map(found["train"][0]["label_png"]), labels)
    plain = rasterized(made, "plain")
    encoded = count_encoded(monkeypatch)
    for value in (1, 2):
        labels = draw(folder / "train/p00000.png", value)
        tables_of(made, folder)
        masks = rasterized(made, "drawn", trusted=made / "out/trusted")
        first, second = read_masks(masks / "train").to_pylist()
        np.testing.assert_array_equal(decode_label_map(first["label_map"]["bytes"]), labels)
        assert second == read_masks(plain / "train").to_pylist()[1]
        rows = read_candidates(masks / "train").to_pylist()
        mine = [row for row in rows if row["image_id"] == "train/p00000"]
        assert {(row["class_id"], row["x1"], row["y1"], row["x2"], row["y2"]) for row in mine} == {
            (value - 1, 30, 10, 50, 20)
        }
        assert rows[len(mine) :] == [
            row for row in read_candidates(plain / "train").to_pylist() if row["image_id"] == "train/p00001"
        ]
    assert encoded == []


@pytest.mark.parametrize(
    ("file", "size_hw", "value", "reason"),
    [
        ("test/p00000.png", SIZE_HW, 1, "is of a test image"),
        ("train/nobody.png", SIZE_HW, 1, "no image of the data set has this name"),
        ("p00000.png", SIZE_HW, 1, "could be any of 3 images"),
        ("train/p00000.png", (84, 60), 1, "60 x 84"),
        ("train/p00000.png", SIZE_HW, 9, "value 9, allowed are 0"),
    ],
)
def test_a_mask_that_fits_no_image_or_could_score_stops_the_stage_in_a_line(
    made, folder, capsys, file, size_hw, value, reason
):
    draw(folder / file, value, size_hw)
    draw(folder / "val/p00000.png")
    with pytest.raises(UserError, match="1 masks are refused"):
        tables_of(made, folder)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("refused")]
    assert reason in line and Path(file).name in line


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic link", "hard link"])
def test_pixel_truth_cannot_be_trusted_under_any_name(made, folder, capsys, link):
    """A mask that scores val is not taken for training; a copy of its own is another mask."""
    truth = made / "set/masks/val/p00000.png"
    draw(truth)
    try:
        folder.mkdir()
        with pytest.raises(UserError, match="2 masks are refused"):  # that of test, too
            tables_of(made, truth.parent.parent)
        assert "is pixel truth of the data set" in capsys.readouterr().err
        (folder / "val").mkdir()
        link(truth, folder / "val/p00000.png")
        with pytest.raises(UserError, match=r"refused|leads out"):
            tables_of(made, folder)
    finally:
        truth.unlink()


def test_pixel_truth_in_the_masks_dir_of_data_yaml_cannot_be_trusted(made, folder, capsys):
    config, truth = made / "set/data.yaml", made / "set/semantic/val/p00000.png"
    before = config.read_text()
    draw(truth)
    config.write_text(f"{before}masks_dir: semantic\n")
    try:
        with pytest.raises(UserError, match="1 masks are refused"):
            tables_of(made, truth.parent.parent)
        assert "is pixel truth of the data set" in capsys.readouterr().err
    finally:
        config.write_text(before)
        truth.unlink()


def test_provenance_is_kept_and_a_changed_image_is_refused(made, folder, capsys):
    draw(folder / "masks/images/train/p00000.png")
    sha256 = images_by_id(made / "set")["train/p00000"]["sha256"]
    row = ["images/train/p00000.png", sha256, "from_cvat.zip", "2026-11-20", "f" * 64]
    (folder / PROVENANCE).write_text(f"{','.join(COLUMNS)}\n{','.join(row)}\n")
    (found,) = tables_of(made, folder)["train"]
    assert [found[name] for name in ("source", "exported_at", "replaces")] == row[2:]
    (folder / PROVENANCE).write_text(f"{','.join(COLUMNS)}\n{','.join([row[0], '0' * 64, *row[2:]])}\n")
    with pytest.raises(UserError, match="1 masks are refused"):
        tables_of(made, folder)
    assert "has changed since its mask was accepted" in capsys.readouterr().err


@pytest.mark.parametrize("place", [".", "masks"])
def test_the_drawn_masks_are_not_replaced_by_their_tables(made, place):
    drawn, before = made / "own", list(made.rglob("*"))
    (drawn / "masks").mkdir(parents=True)
    with pytest.raises(UserError, match=r"is, holds or lies in data\.trusted = "):
        trust.main(made / "out/tables", drawn / place, params_of(made, drawn))
    (drawn / "masks").rmdir()
    drawn.rmdir()
    assert list(made.rglob("*")) == before


def test_a_path_that_is_not_there_is_named(made, folder):
    with pytest.raises(UserError, match=r"data\.trusted = .*drawn: no such file or folder"):
        tables_of(made, folder)


def test_the_fingerprint_of_the_drawn_masks_is_apart_from_the_data_sets(made, folder):
    def taken(trusted: Path | None) -> tuple[str, str]:
        outs = made / "root.json", made / "trusted.json"
        fingerprint.main(*outs, params_of(made, trusted))
        return tuple(out.read_text() for out in outs)

    draw(folder / "train/p00000.png")
    nothing, first = taken(None), taken(folder)
    assert nothing[1] == "null\n"
    draw(folder / "train/p00000.png", 2)
    second, file = taken(folder), taken(folder / "train/p00000.png")
    assert nothing[0] == first[0] == second[0]
    assert len({nothing[1], first[1], second[1], file[1]}) == 4
    assert taken(folder / "train/p00000.png") == file


def test_the_fingerprint_of_a_drawn_mask_is_that_of_the_file_behind_a_link(made, folder):
    link, found = folder / "links/p00000.png", []
    link.parent.mkdir(parents=True)
    link.symlink_to(folder / "drawn.png")
    for value in (1, 2):
        draw(folder / "drawn.png", value)
        fingerprint.main(made / "root.json", made / "trusted.json", params_of(made, link))
        found.append((made / "trusted.json").read_text())
    assert found[0] != found[1]


def test_the_project_trusts_nothing_by_default():
    assert "  trusted: null  " in (ROOT / "params.yaml").read_text()
