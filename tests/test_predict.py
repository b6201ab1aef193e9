"""The predict command on real files: what is written, cached, overwritten and skipped."""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from pyarrow import csv

from stages import predict
from stages.common.errors import SOME_LEFT_OUT, UserError
from stages.common.params import read_sealed, write_sealed
from stages.data.tables import decode_label_map
from stages.formats import output_folder
from stages.formats.inputs import find_images
from stages.formats.measured_defects import Record
from stages.formats.output_folder import existing_records
from stages.formats.writers import Format
from stages.runtime.network import Network, OperatingPoint, open_network
from stages.student.decision import DECISION, Decision
from stages.student.segmenter import save_student
from tests.support.tiny_student import decided_student, image_of

SIZES_HW = {"x/a.png": (60, 90), "x/a.bmp": (40, 70), "y/a.png": (91, 57)}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """One run with one seed."""
    folder = tmp_path_factory.mktemp("model")
    save_student(decided_student("native"), folder / "0")
    return folder


@pytest.fixture
def images(tmp_path) -> Path:
    for index, (file, size_hw) in enumerate(SIZES_HW.items()):
        path = tmp_path / "images" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_of(size_hw, seed=index)).save(path)
    return tmp_path / "images"


@pytest.fixture
def runs(monkeypatch) -> list:
    """The images that the network saw."""
    seen = []

    def counting(network, image: np.ndarray):
        seen.append(image.shape[:2])
        return real(network, image)

    real = Network.predict
    monkeypatch.setattr(Network, "predict", counting)
    return seen


def run(
    model: Path, images: Path, out: Path, *formats: Format, force: bool = False, mm_per_px=None, shards=None
) -> None:
    kinds = list(formats or Format)
    predict.main([str(images)], model, out, kinds, "cpu", force, mm_per_px, shards=shards)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_output_is_written_and_they_agree(model, images, tmp_path, capsys):
    run(model, images, tmp_path / "out")
    names = ["x/a.bmp", "x/a.png", "y/a"]
    per_image = {f"{folder}/{name}{suffix}" for name in names for folder, suffix in FOLDERS.items()}
    whole = {
        "coco.json",
        "cvat.xml",
        "label_studio.json",
        "data.yaml",
        "label_studio.xml",
        "defects.csv",
        "defects.parquet",
    }
    assert set(contents(tmp_path / "out")) == per_image | whole
    rows = csv.read_csv(tmp_path / "out/defects.csv").to_pylist()
    network = open_network(model, "cpu")
    for name, (file, size_hw) in zip(("x/a.png", "x/a.bmp", "y/a"), SIZES_HW.items(), strict=True):
        labels = decode_label_map((tmp_path / f"out/masks/{name}.png").read_bytes())
        assert labels.shape == size_hw
        wanted = network.predict(np.asarray(Image.open(images / file))).labels
        np.testing.assert_array_equal(labels, wanted)
        assert sum(row["area_px"] for row in rows if row["file"] == file) == (labels > 0).sum() > 0
    assert "3 images (0 cached)" in capsys.readouterr().out


FOLDERS = {"records": ".json", "masks": ".png", "overlays": ".jpg", "labels": ".txt"}


def test_a_killed_run_resumes(model, images, tmp_path, runs, monkeypatch):
    def stop(*_) -> bytes:
        raise KeyboardInterrupt

    run(model, images, tmp_path / "whole")
    seen = len(runs)
    with monkeypatch.context() as patch:
        patch.setattr(output_folder, "overlay", stop)
        with pytest.raises(KeyboardInterrupt):
            run(model, images, tmp_path / "out")
    run(model, images, tmp_path / "out")
    assert len(runs) - seen == 3, "each image once, before or after the kill"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_shards_of_a_job_array_make_the_images_files_and_a_run_without_completes_them(
    model, images, tmp_path, runs, monkeypatch, capsys
):
    run(model, images, tmp_path / "whole")
    for module in (predict, output_folder):
        monkeypatch.setattr(module, "SHARD_IMAGES", 1)
    for shards in ("2", "0-1"):
        run(model, images, tmp_path / "out", shards=shards)
        assert not (tmp_path / "out/coco.json").exists()
    assert "shards 0-1 of 3; without --shards the command completes the output" in capsys.readouterr().err
    run(model, images, tmp_path / "out")
    assert len(runs) == 6, "each image once in each of the two folders"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_images_behind_links_are_done_once(model, images, tmp_path, runs):
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a.png").symlink_to(images / "y/a.png")
    for _ in range(2):
        run(model, tmp_path / "links", tmp_path / "out", Format.masks)
    assert len(runs) == 1


def test_another_format_and_the_same_command_again_cost_no_prediction(model, images, tmp_path, runs):
    run(model, images, tmp_path / "out", Format.masks)
    run(model, images, tmp_path / "out", Format.cvat, Format.overlays)
    before = contents(tmp_path / "out")
    run(model, images, tmp_path / "out", Format.cvat, Format.overlays, Format.masks)
    assert len(runs) == 3
    assert contents(tmp_path / "out") == before


def test_a_mask_corrected_by_hand_stays_unless_forced(model, images, tmp_path):
    run(model, images, tmp_path / "out", Format.masks)
    path = tmp_path / "out/masks/y/a.png"
    ours = path.read_bytes()
    path.write_bytes(b"mine")
    run(model, images, tmp_path / "out", Format.masks)
    assert path.read_bytes() == b"mine"
    run(model, images, tmp_path / "out", Format.masks, force=True)
    assert path.read_bytes() == ours


def test_a_file_without_a_record_is_not_overwritten(model, images, tmp_path, runs):
    path = tmp_path / "out/masks/y/a.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(
        UserError, match=r"y/a\.png: exists, but there is no record of having written it; use another --out"
    ):
        run(model, images, tmp_path / "out", Format.masks)
    assert runs == [], "refused before any work"
    run(model, images, tmp_path / "out", Format.masks, force=True)
    assert path.read_bytes() != b"mine"


def test_a_file_of_all_images_is_not_changed_without_force(model, images, tmp_path, runs):
    run(model, images / "y", tmp_path / "out", Format.coco)
    Image.fromarray(image_of((33, 71))).save(images / "y/b.png")
    with pytest.raises(
        UserError, match=r"coco\.json: exists and would change; remove it and run again to write it from"
    ):
        run(model, images / "y", tmp_path / "out", Format.coco)
    run(model, images / "y", tmp_path / "out", Format.coco, force=True)
    (tmp_path / "out/coco.json").unlink()
    run(model, images / "y", tmp_path / "out", Format.coco)
    assert len(runs) == 2, "records are written, even when the collection is refused"


def test_no_flipped_byte_of_a_record_is_silent(model, images, tmp_path):
    run(model, images / "y", tmp_path / "out", Format.masks)
    path, draw = tmp_path / "out/records/a.json", random.Random(0)
    whole, ((source,), _) = path.read_bytes(), find_images([str(images / "y")], tmp_path / "out")
    identity = json.loads(whole)["model"]

    def read() -> Record:
        return existing_records([source], tmp_path / "out", ["masks"], identity, force=False)[source.name]

    wanted = read()
    for _ in range(160):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            assert read() == wanted, "white space alone"
        except UserError as error:
            assert "a.json" in str(error) and "\n" not in str(error)


def test_records_of_another_model_or_image_are_not_mixed_in(model, images, tmp_path, runs):
    run(model, images / "y", tmp_path / "out", Format.masks)
    path = tmp_path / "out/records/a.json"
    write_sealed(path, read_sealed(path, "") | {"model": "another"})
    with pytest.raises(UserError, match=r"a\.json: made from another model"):
        run(model, images / "y", tmp_path / "out", Format.masks)
    run(model, images / "y", tmp_path / "out", Format.masks, force=True)
    Image.fromarray(image_of((33, 71))).save(images / "y/a.png")
    with pytest.raises(UserError, match=r"a\.json: made from another image"):
        run(model, images / "y", tmp_path / "out", Format.masks)
    run(model, images / "y", tmp_path / "out", Format.masks, force=True)
    assert runs == [(91, 57), (91, 57), (33, 71)]
    assert decode_label_map((tmp_path / "out/masks/a.png").read_bytes()).shape == (33, 71)


def test_force_replaces_a_damaged_record_and_removes_what_an_unreadable_image_was(model, images, tmp_path, runs):
    run(model, images / "y", tmp_path / "out", Format.masks)
    record = tmp_path / "out/records/a.json"
    record.write_bytes(record.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"a\.json: not readable"):
        run(model, images / "y", tmp_path / "out", Format.masks)
    run(model, images / "y", tmp_path / "out", Format.masks, force=True)
    assert len(runs) == 2 and json.loads(record.read_bytes())
    (images / "y/a.png").write_bytes(b"no image any more")
    with pytest.raises(typer.Exit):
        run(model, images / "y", tmp_path / "out", Format.masks, force=True)
    assert contents(tmp_path / "out") == {}


def test_an_empty_input_is_not_the_working_folder(model, tmp_path):
    with pytest.raises(UserError, match="an input is empty"):
        predict.main([""], model, tmp_path / "out")


def test_bad_images_are_listed_and_the_rest_is_done(model, images, tmp_path, capsys):
    (images / "x/broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    with pytest.raises(typer.Exit) as leaving:
        run(model, images, tmp_path / "out", Format.masks, Format.table)
    assert leaving.value.exit_code == SOME_LEFT_OUT
    error = capsys.readouterr().err
    assert "skipped: x/broken.jpg: " in error
    assert "1 of 4 images were skipped" in error
    assert len(list((tmp_path / "out/masks").rglob("*.png"))) == 3
    assert (tmp_path / "out/defects.csv").is_file()


def test_a_pipe_and_a_huge_file_are_skipped_unread_also_when_there_is_a_record(model, images, tmp_path, capsys):
    run(model, images, tmp_path / "out", Format.masks)
    (images / "y/a.png").unlink()
    os.mkfifo(images / "y/a.png")
    with (images / "x/huge.tif").open("w") as file:
        file.truncate(30 << 30)
    with pytest.raises(UserError, match=r"a\.json: made from another image"):
        run(model, images, tmp_path / "out", Format.masks)
    with pytest.raises(typer.Exit) as leaving:
        run(model, images, tmp_path / "other", Format.masks)
    assert leaving.value.exit_code == SOME_LEFT_OUT
    error = capsys.readouterr().err
    assert "skipped: y/a.png: a.png is not a regular file" in error
    assert f"skipped: x/huge.tif: huge.tif has {30 << 30:,} bytes, allowed are" in error


def test_filled_holes_are_reported(model, images, tmp_path, capsys):
    run(model, images, tmp_path / "out", Format.yolo, Format.table)
    records = [read_sealed(path, "") for path in (tmp_path / "out/records").rglob("*.json")]
    holed = sum(defect["holes"] > 0 for record in records for defect in record["defects"])
    assert holed > 0
    assert f"{holed} defects have holes; polygons cannot hold them" in capsys.readouterr().out


def test_a_folder_without_a_model_is_one_clear_error(model, images, tmp_path):
    save_student(decided_student("native"), tmp_path / "two/0")
    save_student(decided_student("native"), tmp_path / "two/1")
    with pytest.raises(UserError, match=r"holds students of 2 seeds, name one of .*two/0, .*two/1"):
        run(tmp_path / "two", images, tmp_path / "out")
    for folder in (tmp_path, tmp_path / "three"):  # as data/models, and a run's name that is wrong
        with pytest.raises(UserError, match=rf"{folder}: holds no student; name one of {tmp_path}/two; `dvc repro`"):
            run(folder, images, tmp_path / "out")
    with pytest.raises(UserError, match=r"none/RUN: holds no student; .*none has none either; `dvc repro` trains"):
        run(tmp_path / "none/RUN", images, tmp_path / "out")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/student.json").write_bytes((model / "0/student.json").read_bytes())
    with pytest.raises(UserError, match=r"half/student\.safetensors: missing or damaged"):
        open_network(tmp_path / "half", "cpu")
    for name in ("student.onnx", "student.xml"):
        (tmp_path / "half" / name).touch()
    with pytest.raises(UserError, match=r"half: holds student\.onnx and student\.xml: give each model a folder"):
        open_network(tmp_path / "half", "cpu")


def test_an_output_folder_that_is_a_file_is_an_error_before_any_work(model, images, tmp_path, runs):
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        run(model, images, tmp_path / "out")
    assert runs == []


def test_force_leaves_no_file_of_the_previous_model(model, images, tmp_path):
    """A later command for another format, without force, makes the masks again."""
    run(model, images, tmp_path / "out", Format.masks, Format.yolo)
    for path in (tmp_path / "out/records").rglob("*.json"):
        write_sealed(path, read_sealed(path, "") | {"model": "another"})
    for path in (tmp_path / "out/masks").rglob("*.png"):
        path.write_bytes(b"of another model")
    run(model, images, tmp_path / "out", Format.yolo, force=True)
    assert not list((tmp_path / "out/masks").rglob("*.png"))
    run(model, images, tmp_path / "out", Format.masks, Format.yolo)
    run(model, images, tmp_path / "fresh", Format.masks, Format.yolo)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_an_image_whose_suffix_changed_is_reported_by_its_present_name(model, images, tmp_path, runs):
    run(model, images / "y", tmp_path / "out", Format.masks)
    (images / "y/a.png").rename(images / "y/a.PNG")
    run(model, images / "y", tmp_path / "out", Format.table)
    assert len(runs) == 1
    assert set(csv.read_csv(tmp_path / "out/defects.csv")["file"].to_pylist()) == {"a.PNG"}


def test_skipped_images_are_listed_where_a_file_of_all_is_refused(model, images, tmp_path, capsys):
    run(model, images / "y", tmp_path / "out", Format.coco)
    Image.fromarray(image_of((33, 71))).save(images / "y/b.png")
    (images / "y/broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"coco\.json: exists and would change"):
        run(model, images / "y", tmp_path / "out", Format.coco)
    assert "skipped: broken.png: " in capsys.readouterr().err


def test_millimetres_come_with_a_scale_and_cost_no_prediction(model, images, tmp_path, runs):
    run(model, images, tmp_path / "out", Format.table)
    pixels = csv.read_csv(tmp_path / "out/defects.csv")
    scales = tmp_path / "scales.csv"
    scales.write_text("file,mm_per_px\nx/a.png,0.5\nx/a.bmp,2\ny/a.png,0.25\n")
    run(model, images, tmp_path / "out", Format.table, force=False, mm_per_px=None)
    with pytest.raises(UserError, match=r"defects\.csv: exists and would change"):
        run(model, images, tmp_path / "out", Format.table, mm_per_px=str(scales))
    assert len(runs) == 3
    run(model, images, tmp_path / "mm", Format.table, mm_per_px=str(scales))
    millimetres = csv.read_csv(tmp_path / "mm/defects.csv")
    assert millimetres.column_names[: len(pixels.column_names)] == pixels.column_names
    by_file = {"x/a.png": 0.5, "x/a.bmp": 2, "y/a.png": 0.25}
    for row in millimetres.to_pylist():
        assert row["mm_per_px"] == by_file[row["file"]]
        assert row["area_mm2"] == pytest.approx(row["area_px"] * by_file[row["file"]] ** 2)
        assert (row["diameter_mm"] is None) == (row["diameter_px"] is None) != (row["length_px"] is None)


def test_an_image_without_a_scale_is_an_error_before_any_work(model, images, tmp_path, runs):
    scales = tmp_path / "scales.csv"
    scales.write_text("file,mm_per_px\nx/a.png,0.5\n")
    with pytest.raises(UserError, match=r"scales\.csv: no line for 2 of the images, the first is x/a\.bmp"):
        run(model, images, tmp_path / "out", Format.table, mm_per_px=str(scales))
    assert runs == []


@pytest.mark.parametrize("wrong", ["m\xfcller.png,0.5\n".encode("cp1252"), b'"' + b"x" * 200_000])
def test_scales_that_are_no_csv_in_utf8_are_one_line(model, images, tmp_path, runs, wrong):
    (tmp_path / "scales.csv").write_bytes(b"file,mm_per_px\n" + wrong)
    with pytest.raises(UserError, match=r"scales\.csv: not readable as CSV in UTF-8"):
        run(model, images, tmp_path / "out", Format.table, mm_per_px=str(tmp_path / "scales.csv"))


def test_a_scale_without_the_table_that_it_is_for_is_refused(model, images, tmp_path, runs):
    with pytest.raises(UserError, match=r"^--mm-per-px adds columns to the table: add --format table$"):
        run(model, images, tmp_path / "out", Format.masks, mm_per_px="0.5")
    assert runs == []


def test_the_operating_point_beside_the_weights_is_used_unless_argmax_is_asked_for(model, images, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    decision = Decision(thresholds=[0.3, 0.98], least_area_px=[40, 1], temperature=2.0)
    write_sealed(tmp_path / "model/0" / DECISION, decision.model_dump())
    network = open_network(tmp_path / "model", "cpu")
    assert network.decision == decision
    by_argmax = open_network(tmp_path / "model", "cpu", OperatingPoint.argmax)
    assert by_argmax.decision == Decision(temperature=2.0), "labels by argmax, confidences as calibrated"
    identities = [each.identity for each in (open_network(model, "cpu"), network, by_argmax)]
    assert len(set(identities)) == 3 and {identity[:12] for identity in identities} == {identities[0]}
    for name, point in (("saved", OperatingPoint.saved), ("argmax", OperatingPoint.argmax)):
        words = [str(images)], tmp_path / "model", tmp_path / name, [Format.masks], "cpu"
        predict.main(*words, False, None, point)
    run(model, images, tmp_path / "plain", Format.masks)
    for name, file in (("x/a.png", "x/a.png"), ("y/a", "y/a.png")):
        image = np.asarray(Image.open(images / file))
        saved, argmax, plain = (
            (tmp_path / f"{out}/masks/{name}.png").read_bytes() for out in ("saved", "argmax", "plain")
        )
        wanted = network.predict(image).labels
        np.testing.assert_array_equal(decode_label_map(saved), wanted)
        assert argmax == plain != saved
    with pytest.raises(UserError, match=r"made from another model"):
        run(model, images, tmp_path / "saved", Format.masks)


def test_an_operating_point_for_other_classes_is_an_error(model, images, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    write_sealed(tmp_path / "model/0" / DECISION, Decision(thresholds=[0.3]).model_dump())
    with pytest.raises(UserError, match=r"operating_point\.json: thresholds holds 1 values, the student has 2 classes"):
        run(tmp_path / "model", images, tmp_path / "out")


def test_what_looks_like_an_image_and_is_not_read_is_listed_with_status_3(model, images, tmp_path, capsys):
    (images / "x/phone.HEIC").write_bytes(b"x")
    with pytest.raises(typer.Exit) as caught:
        run(model, images, tmp_path / "out", Format.masks)
    assert caught.value.exit_code == 3
    said = capsys.readouterr().err
    assert f"skipped: {images}/x/phone.HEIC: .HEIC is not read: convert it" in said
    assert "1 of 4 images were skipped" in said
