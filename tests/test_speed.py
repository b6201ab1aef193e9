"""The benchmarks: the reference equals the student, and every form of it gives the same masks."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from ruamel.yaml import YAML

from benchmarks import gpu, on_gpu, teachers
from benchmarks.material import batch_of, demo_images, fit_branches, make_student
from benchmarks.pipeline_copy import command
from benchmarks.plain import plain_of
from benchmarks.speed import from_jpeg_to_png
from benchmarks.students import baselines
from benchmarks.timing import in_turns
from benchmarks.training import steps
from stages.demo.scene import SIZE_HW
from stages.masks import rle
from stages.networks.student import Network as Student
from stages.runtime.network import Network
from stages.student.decision import ARGMAX
from stages.teacher.sam import save_sam
from tests.support.tiny_student import TINY
from tests.support.tiny_teacher import TINY as TINY_TEACHER
from tests.support.tiny_teacher import tiny_sam

ROOT = Path(__file__).parent.parent
SIZE_PX = 56
DEEPER = TINY | {"depth": 11}


@pytest.fixture(scope="module")
def fitted() -> Student:
    return fit_branches(make_student(DEEPER, SIZE_PX, width=16), demo_images(2), steps=6)


@pytest.mark.parametrize("train", [True, False])
def test_the_plain_reference_is_the_student(fitted, train):
    ours = copy.deepcopy(fitted).train(train)
    plain = plain_of(ours)
    images = torch.rand(2, 3, SIZE_PX, SIZE_PX)
    wanted, found = ours(images, with_binary=True), plain(images)
    torch.testing.assert_close(found.fine, wanted.fine, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.binary, wanted.binary, atol=1e-5, rtol=1e-4)


def test_the_plain_reference_runs_all_blocks_and_they_change_nothing(fitted):
    plain, ran = plain_of(fitted), []
    for block in plain.backbone.vit.blocks:
        block.register_forward_hook(lambda *_: ran.append(1))
    images = torch.rand(1, 3, SIZE_PX, SIZE_PX)
    before = plain(images).fine
    assert len(ran) == 11
    with torch.no_grad():
        for block in plain.backbone.vit.blocks[8:]:
            block.mlp.fc2.bias.add_(1)
    assert torch.equal(plain(images).fine, before)


def test_a_step_of_both_trains_the_same_parameters_the_same_way(fitted, in_float32):
    # in bfloat16 the two differ in the third digit
    ours = copy.deepcopy(fitted)
    images, labels = batch_of(demo_images(2), SIZE_PX)
    calls = steps(ours, images, labels)
    before = {name: value.clone() for name, value in ours.trainable().items()}
    assert calls["plain reference"]() == pytest.approx(calls["ours"](), rel=1e-4)
    assert all(not torch.equal(value, before[name]) for name, value in ours.trainable().items())
    assert calls["plain reference"]() == pytest.approx(calls["ours"](), rel=1e-2)


def test_baselines_give_logits_of_the_image_s_size():
    tiles = np.zeros((1, 70, 70, 3), np.float32)
    assert {run(tiles).shape for run in baselines(3).values()} == {(1, 3, 70, 70)}


@pytest.mark.parametrize("how", ["whole", "crop"])
def test_the_per_box_loop_finds_the_masks_of_rasterize(how, tmp_path, in_float32):
    """Except for a few pixels at the edge: the order of summation differs."""
    sam, samples = tiny_sam(), demo_images(2)
    save_sam(tmp_path / "teacher", sam, TINY_TEACHER)
    work = teachers.Work(samples, 3, tmp_path / "images")
    store = teachers.fresh_store(sam, tmp_path / "teacher", tmp_path / "cache", how)
    rows, masks = teachers.ours(sam, work, how, store), teachers.loop(sam, work, how)
    height, width = SIZE_HW
    boxes = [box for image in work.images for box in work.corners(image)]
    assert len(boxes) == 6
    for number, (box, mask) in enumerate(zip(boxes, masks, strict=True)):
        window = (0, 0, width, height) if how == "whole" else teachers.window_of(box, (height, width), teachers.PARAMS)
        for multi in range(3):
            ours = rle.decode(rows[5 * number + 1 + multi]["rle"], (height, width))
            cut = ours[window[1] : window[3], window[0] : window[2]]
            assert (cut != mask[multi]).mean() < 1e-3
            assert ours.sum() == cut.sum()


def test_end_to_end_writes_a_mask_per_image_and_spends_time_in_the_network(tmp_path):
    (tmp_path / "images").mkdir()
    for index, sample in enumerate(demo_images(2)):
        (tmp_path / f"images/{index}.jpg").write_bytes(sample.jpeg)
    student = make_student(TINY, SIZE_PX, width=16)
    network = Network(
        student.config.names,
        student.config.view,
        None,
        ARGMAX,
        "x",
        lambda tiles: np.zeros((len(tiles), 3, SIZE_PX, SIZE_PX), np.float32),
    )
    total, inside = from_jpeg_to_png(network, tmp_path / "images", tmp_path / "out")
    assert 0 < inside < total
    assert sorted(path.name for path in (tmp_path / "out/masks").iterdir()) == ["0.png", "1.png"]


def test_no_benchmark_imports_a_test():
    sources = {path.name: path.read_text() for path in (ROOT / "benchmarks").glob("*.py")}
    assert "growth.py" in sources
    assert [name for name, text in sources.items() if "from tests" in text or "import tests" in text] == []


def test_benchmarks_run_the_commands_of_dvc_yaml():
    words = command("evaluate")
    assert words[:4] == [sys.executable, "-m", "stages.evaluate", "data/students/boxes2pixels"]
    assert not any("${" in word for word in words)


def test_what_is_measured_on_a_gpu_runs_on_a_cpu_with_tiny_sizes(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "BATCHES", (1, 2))
    results = {
        "card": "none",
        "seconds": 1,
        "left_out": ["seed 2 (no time left)"],
        "latency": gpu.rows(fitted, 1, "cpu"),
    }
    assert [(row["name"], row["batch"]) for row in results["latency"]] == [
        (f"eager, {kind}, cpu", batch) for batch in (1, 2) for kind in ("float32", "bfloat16")
    ]
    results["rasterize"] = on_gpu.rasterize(TINY_TEACHER, 1, 1, tmp_path, "cpu")
    text = on_gpu.text(results)
    for said in (
        *("| published | 1 | 6.2 | 161 |", "| aim | 1 | at most 2 | – |", "| aim | 32 | – | at least 1000 |"),
        *("| whole | 8 | loop, afresh |", "Not measured: seed 2 (no time left)"),
    ):
        assert said in text


def test_tiny_sizes_go_through_the_command_without_a_gpu(tmp_path, monkeypatch):
    """All but the trainings themselves, whose stages take most of a minute."""
    seen = []

    def trainings(root, params, *_):
        seen.append((len(list(root.glob("images/*/*.jpg"))), params["seeds"], len(params["rows"])))
        return {"seeds": [0], "runs": {}}

    monkeypatch.setattr(on_gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "BATCHES", (1, 2))
    monkeypatch.setattr(on_gpu, "trainings", trainings)
    on_gpu.main(tmp_path / "found", None, 300, 1, tiny=True)
    assert seen == [(12, [0], 2)]
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["card"], len(found["latency"]), len(found["rasterize"])) == ("CPU, tiny sizes", 4, 6)
    with pytest.raises(typer.BadParameter, match="no GPU here; --tiny tries the command"):
        on_gpu.main(tmp_path / "found", None, 300, 1, tiny=False)


def test_without_a_data_set_the_trainings_are_named_as_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(on_gpu.torch.cuda, "get_device_name", lambda: "a card")
    for where, name in ((on_gpu, "make_student"), (on_gpu, "rasterize"), (gpu, "rows")):
        monkeypatch.setattr(where, name, lambda *_: [])
    on_gpu.main(tmp_path / "found", None, 60, 1, tiny=False)
    left_out = ["trainings (no --data-root)", "torch.compile (no time left)"]
    assert json.loads((tmp_path / "found.json").read_text())["left_out"] == left_out


def test_trainings_run_the_commands_of_dvc_yaml_seed_by_seed_until_the_time_is_up(tmp_path, monkeypatch):
    called, now = [], [0.0]

    def run(words, cwd, **_):
        stage = words[2].removeprefix("stages.")
        out = words[words.index("--out") + 1].removeprefix("data/") if stage == "train" else words[3]
        called.append(f"{stage} {out}" if stage in ("train", "evaluate") else stage)
        now[0] += {"train": 10, "evaluate": 4}.get(stage, 1)
        if stage == "evaluate":
            assert YAML().load(cwd / "params.yaml")["seeds"] == [0, 1]
            path = cwd / words[words.index("--metrics") + 1]
            path.parent.mkdir(exist_ok=True)
            scores = {f"{key}{end}": 0.5 for key in on_gpu.SCORES for end in ("", "_low", "_high")}
            path.write_text(json.dumps({"test": scores}))

    monkeypatch.setattr(on_gpu.subprocess, "run", run)
    monkeypatch.setattr(on_gpu.time, "monotonic", lambda: now[0])
    params = YAML().load(ROOT / "params.yaml")
    params.update(seeds=[0, 1, 2], rows=["boxes2pixels", "two_sided"])
    clock = on_gpu.Clock(71, began=0.0)
    found = on_gpu.trainings(tmp_path, params, tmp_path / "project", clock, "cpu")
    train = [f"train students/{run}/{seed}" for seed in (0, 1) for run in ("boxes2pixels", "two_sided")]
    evaluate = [f"evaluate data/students/{run}" for run in ("boxes2pixels", "two_sided")]
    assert called == ["plan", "weights", "ingest", "trust", "rasterize", *train, *evaluate]
    assert (found["seeds"], list(found["runs"])) == ([0, 1], ["boxes2pixels", "two_sided"])
    assert clock.left_out == ["seed 2 (no time left)"]
    assert found["runs"]["two_sided"]["iou_bin"] == [0.5, 0.5, 0.5]


def test_variants_take_turns_and_each_is_warmed_up_once():
    order: list[str] = []
    found = in_turns({name: lambda name=name: order.append(name) for name in "ab"}, rounds=2)
    assert "".join(order) == "ab" + "ab" + "ba"
    assert all(taken.wall_s >= 0 for taken in found.values())
