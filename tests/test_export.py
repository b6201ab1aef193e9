"""Exports predict what the student predicts, without PyTorch, or are refused."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import typer
from onnx import numpy_helper
from PIL import Image

from stages import compare as compare_command
from stages import export, predict
from stages.common.errors import UserError
from stages.common.params import write_digests
from stages.data.images import probe_image
from stages.data.tables import IMAGES, Dataset, write_dataset, write_table
from stages.export import Format
from stages.formats.writers import Format as Written
from stages.runtime import graphs
from stages.runtime.calibration import sample_tiles, spread
from stages.runtime.network import Network, in_batches_of, open_network
from stages.runtime.parity import EXACT, INT8, Parity, Tolerance, check, compare
from stages.student.config import ViewParams
from stages.student.decision import ARGMAX
from stages.student.segmenter import save_student
from stages.student.tiling import TILES_AT_ONCE
from tests.support.tiny_student import decided_student, image_of, tiny_export
from tests.support.wall import behind_wall, not_in

ROOT = Path(__file__).parent.parent
RANDOM_INT8 = Tolerance(agreement=0.96, defect_iou=0.9, logit=None)
"""Random weights are sure of nothing, so that rounding tips more pixels than in a trained student."""


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A student, images with their tables, and an export of each kind."""
    root = tmp_path_factory.mktemp("export")
    save_student(decided_student("native"), root / "student")
    write_dataset(root / "tables/dataset.json", Dataset(root / "images", ("dirt", "damage")))
    for split, sizes in {"train": [(60, 90), (75, 56)], "val": [(57, 99), (40, 70)]}.items():
        rows = []
        for index, size_hw in enumerate(sizes):
            path = root / "images" / split / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image_of(size_hw, seed=index + 10 * len(split))).save(path)
            rows.append(
                {
                    "image_id": f"{split}/{index}",
                    "split": split,
                    "path": f"{split}/{index}.png",
                    "sha256": probe_image(path.read_bytes()).sha256,
                    "exif_orientation": 1,
                    "height": size_hw[0],
                    "width": size_hw[1],
                    "label_status": "missing",
                }
            )
        write_table(root / f"tables/{split}/images.parquet", IMAGES, rows)
    make(root, "onnx", Format.onnx)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "INT8", RANDOM_INT8)
        make(root, "openvino8", Format.openvino, int8=True, batch=3)
    return root


def make(root: Path, name: str, format: Format, int8: bool = False, batch: int | None = None, force=False) -> None:
    export.main(root / "student", root / name, format, int8, batch, root / "tables", force)


def about(root: Path, name: str) -> dict:
    return json.loads((root / name / "export.json").read_text())


def test_an_exact_export_is_the_student(work):
    found = about(work, "onnx")
    assert found["parity"]["mask_agreement"] >= EXACT.agreement
    assert found["parity"]["largest_logit_difference"] <= EXACT.logit
    assert (found["precision"], found["batch"]) == ("float32", None)
    assert found["identity"] == open_network(work / "student", "cpu").identity


def test_int8_is_calibrated_with_a_fixed_batch_and_close_enough(work):
    found = about(work, "openvino8")
    assert found["parity"]["mask_agreement"] >= RANDOM_INT8.agreement
    assert found["parity"]["defect_iou"] >= RANDOM_INT8.defect_iou
    assert open_network(work / "openvino8", "cpu").batch == 3
    with pytest.raises(UserError, match=r"--device cuda: .*student\.xml runs on cpu; allowed are auto and cpu"):
        open_network(work / "openvino8", "cuda")
    assert (found["precision"], found["batch"]) == ("int8", 3)
    assert found["identity"].endswith("-int8")
    assert (work / "openvino8/student.bin").stat().st_size < (work / "onnx/student.onnx").stat().st_size / 2


def test_a_batch_beyond_all_memory_is_refused_by_its_option():
    app = typer.Typer()
    app.command()(export.main)
    with pytest.raises(typer.BadParameter, match="1024"):
        app(["--batch", "99999999999999999999"], standalone_mode=False)


def test_int8_is_not_calibrated_on_another_data_set(work, tmp_path):
    write_dataset(tmp_path / "tables/dataset.json", Dataset(work / "images", ("dirt", "crack")))
    told = r"tables: has the classes \['dirt', 'crack'\], the student \['dirt', 'damage'\]: --int8 needs"
    with pytest.raises(UserError, match=told):
        export.main(work / "student", tmp_path / "out", Format.onnx, True, None, tmp_path / "tables")
    assert not (tmp_path / "out").exists()


def test_an_image_with_any_number_of_tiles_goes_through_a_fixed_batch(work):
    ours, int8 = (open_network(work / name, "cpu") for name in ("onnx", "openvino8"))
    image = image_of((60, 190), seed=5)
    ours, int8 = (network.predict(image).labels for network in (ours, int8))
    agreement = (ours == int8).mean()
    assert agreement > 0.9


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_a_fixed_batch_takes_any_number_of_tiles(count):
    sizes = []

    def run(tiles):
        sizes.append(len(tiles))
        return tiles * 2

    tiles = np.random.default_rng(0).random((count, 2, 3), dtype=np.float32)
    np.testing.assert_array_equal(in_batches_of(3, run)(tiles), tiles * 2)
    assert set(sizes) == {3}


@pytest.mark.parametrize(("batch", "calls"), [(None, 3), (1, 17), (3, 6), (8, 3), (32, 1)])
def test_a_graph_of_a_fixed_batch_is_filled_once_per_image(batch, calls):
    """17 tiles, at most 8 at once where their number is free."""
    seen = []

    def run(tiles):
        seen.append(len(tiles))
        return np.zeros((len(tiles), 2, 56, 56), np.float32)

    view = ViewParams(scale="native", size_px=56)
    network = Network(["dirt"], view, None, ARGMAX, "graph", in_batches_of(batch, run), batch)
    network.predict(np.zeros((56, 56 + 16 * 42, 3), np.uint8))
    assert len(seen) == calls and (batch is None or set(seen) == {batch})


def test_an_export_that_differs_is_refused_and_nothing_is_written(work, monkeypatch, capsys):
    def another(_student, _batch, path: Path) -> None:
        onnx.save(model, path)

    model = onnx.load(work / "onnx/student.onnx")
    largest = max(model.graph.initializer, key=lambda weight: len(weight.raw_data))
    largest.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(largest) * 1.5, largest.name))
    monkeypatch.setattr(export, "to_onnx", another)
    with pytest.raises(UserError, match="not written: differs from the student"):
        make(work, "refused", Format.onnx)
    assert not (work / "refused").exists()
    assert re.search(r"mask agreement [\d.]+ % of [\d,]+ pixels, .*largest logit difference", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["onnx", "openvino8"])
def test_an_export_is_not_exported_again(work, tmp_path, name):
    with pytest.raises(UserError, match=rf"{name}: holds an export, student\.\w+; needed is its student"):
        export.main(work / name, tmp_path / "out", Format.onnx, tables=work / "tables")


def test_nothing_is_overwritten_but_an_export_by_force(work):
    with pytest.raises(UserError, match="--force replaces an export"):
        make(work, "onnx", Format.onnx)
    with pytest.raises(UserError, match="it is not an export"):
        make(work, "images", Format.onnx, force=True)
    assert (work / "images/train/0.png").is_file()


@pytest.mark.parametrize("name", ["onnx", "openvino8"])
def test_a_flipped_byte_of_an_export_is_one_line(work, tmp_path, name):
    shutil.copytree(work / name, tmp_path / "export")
    for path in sorted((tmp_path / "export").iterdir()):
        whole = path.read_bytes()
        for place in (len(whole) // 3, len(whole) // 2):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            with pytest.raises(UserError, match=rf"/{path.name}: .*; export the student again$"):
                open_network(tmp_path / "export", "cpu")
        path.write_bytes(whole)
    (tmp_path / "export/student.xml").unlink(missing_ok=True)
    (tmp_path / "export/student.onnx").unlink(missing_ok=True)
    with pytest.raises(UserError, match="missing or damaged"):
        open_network(tmp_path / "export", "cpu")


@pytest.mark.parametrize("name", ["onnx", "openvino8"])
def test_an_export_without_its_digests_is_refused(work, tmp_path, name):
    shutil.copytree(work / name, tmp_path / "export")
    (tmp_path / "export/sha256.json").unlink()
    with pytest.raises(UserError, match=r"export/sha256\.json: missing; .*, or export again$"):
        open_network(tmp_path / "export", "cpu")


@pytest.mark.parametrize(("name", "told"), [("names", ["a"]), ("size_px", 112)])
def test_a_graph_of_other_sizes_than_its_metadata_is_refused(tmp_path, name, told):
    tiny_export(tmp_path)
    model = onnx.load(tmp_path / "student.onnx")
    next(one for one in model.metadata_props if one.key == name).value = json.dumps(told)
    onnx.save(model, tmp_path / "student.onnx")
    write_digests(tmp_path)
    with pytest.raises(UserError, match=r"student\.onnx: (images|logits) are \[.*, by its metadata \(batch, "):
        open_network(tmp_path, "cpu")


def test_an_export_fits_tensorrt(work):
    assert graphs.obstacles(onnx.load(work / "onnx/student.onnx")) == []


def test_an_export_is_compared_with_its_student_again_and_with_another_it_fails(work, tmp_path, capsys):
    compare_command.main(work / "student", work / "onnx", work / "tables")
    assert "mask agreement 100.000 %" in capsys.readouterr().out
    other = decided_student("native")
    with torch.no_grad():
        other.fine.logits.weight.mul_(-1)
    save_student(other, tmp_path / "other")
    with pytest.raises(UserError, match=r"differs from the student: mask agreement under .*difference \S+\)$"):
        compare_command.main(tmp_path / "other", work / "onnx", work / "tables")


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_an_engine_without_tensorrt_is_one_line(work, tmp_path):
    (tmp_path / "student.engine").write_bytes(b"")
    with pytest.raises(UserError, match="needs the packages tensorrt and torch: No module named 'tensorrt'"):
        compare_command.main(work / "student", tmp_path, work / "tables")


def logits_of(labels: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[labels].transpose(0, 3, 1, 2)


def test_parity_is_counted_by_hand():
    ours, theirs = np.zeros((1, 4, 5), int), np.zeros((1, 4, 5), int)
    ours[0, 0, :4], theirs[0, 0, 1:5] = 1, 1
    theirs[0, 0, 2] = 2
    found = compare(lambda _: logits_of(ours), lambda _: logits_of(theirs) * 3, [np.zeros((4, 5, 3), np.float32)])
    assert found == Parity(20, 17 / 20, 3 / 5, 3.0)
    nothing = compare(lambda _: logits_of(ours * 0), lambda _: logits_of(ours * 0), [np.zeros((4, 5, 3), np.float32)])
    assert nothing.defect_iou is None
    check(nothing, EXACT, "it")


def test_a_nan_in_any_batch_is_refused():
    tiles = [np.zeros((4, 5, 3), np.float32)] * (TILES_AT_ONCE + 1)
    sound = lambda batch: logits_of(np.zeros((len(batch), 4, 5), int))  # noqa: E731
    broken = lambda batch: sound(batch) * (np.nan if len(batch) == 1 else 1)  # noqa: E731
    for theirs in (broken, lambda batch: broken(batch[:1]).repeat(len(batch), 0) if len(batch) > 1 else sound(batch)):
        with pytest.raises(UserError, match="logits that are not finite"):
            check(compare(sound, theirs, tiles), INT8, "it")


@pytest.mark.parametrize(
    ("found", "allowed", "message"),
    [
        (Parity(10**6, 0.9998, 1.0, 0.0), EXACT, "mask agreement under 99.99 %"),
        (Parity(10**6, 1.0, 0.998, 0.0), EXACT, "IoU of the defects under 0.999"),
        (Parity(100, 0.98, 1.0, 0.0), INT8, "mask agreement under 99 %"),
        (Parity(100, 0.999, 0.1, 0.0), INT8, "IoU of the defects under 0.9"),
        (Parity(100, 1.0, 1.0, 0.1), EXACT, "logits further apart than 0.01"),
        (Parity(100, 1.0, 1.0, float("nan")), INT8, "logits that are not finite"),
    ],
)
def test_what_is_beyond_a_tolerance_is_named(found, allowed, message):
    with pytest.raises(UserError, match=message):
        check(found, allowed, "it")


def test_what_a_tolerance_just_allows_is_allowed():
    for tolerance in (EXACT, INT8):
        check(Parity(10**6, tolerance.agreement, tolerance.defect_iou, tolerance.logit or 9.0), tolerance, "it")


def test_samples_are_spread_evenly_and_always_the_same(work):
    assert spread(list(range(10)), 3) == [1, 5, 8]
    assert spread([4, 5], 3) == [4, 5]
    view = decided_student("native").config.view
    first, again = (list(sample_tiles(work / "tables", "val", view)) for _ in range(2))
    assert len(first) == 4 + 2
    assert all(tile.shape == (56, 56, 3) and tile.dtype == np.float32 for tile in first)
    np.testing.assert_array_equal(first, again)


def command(root: Path, out: str, model: str, *words: str) -> list[str]:
    kinds = [word for kind in Written for word in ("--format", kind.value)]
    return [str(root / "images"), "--model", str(root / model), "--out", str(root / out), *kinds, *words]


def test_without_pytorch_the_same_files_come_out(work):
    """In a process where nothing can be imported but what `edge` installs; the wall itself is tried, too."""
    blocked = not_in("edge")
    assert {"torch", "timm", "dvc", "onnx", "segment_anything"} <= set(blocked)
    start = behind_wall("stages.predict", blocked)
    refused = subprocess.run([*start, *command(work, "no", "student")], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "torch is not installed here" in refused.stderr
    words = command(work, "edge", "onnx")
    done = subprocess.run([*start, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kinds = list(Written)
    predict.main([str(work / "images")], work / "student", work / "torch", kinds, "cpu", False)
    for folder in ("masks", "labels"):
        for path in sorted((work / "torch" / folder).rglob("*.*")):
            assert (
                work / "edge" / folder / path.relative_to(work / "torch" / folder)
            ).read_bytes() == path.read_bytes()
    assert (work / "edge/cvat.xml").read_bytes() == (work / "torch/cvat.xml").read_bytes()
    ours, theirs = (json.loads((work / name / "coco.json").read_text()) for name in ("torch", "edge"))
    for a, b in zip(ours["annotations"], theirs["annotations"], strict=True):
        assert a.pop("score") == pytest.approx(b.pop("score"), abs=2e-4)
    assert ours == theirs
