"""A project of seconds for tests that run the real commands: noise images with boxes, tiny networks."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file

from stages.teacher.sam import save_sam
from tests.support.tiny_student import TINY, backbone_config
from tests.support.tiny_teacher import TINY as TINY_TEACHER
from tests.support.tiny_teacher import tiny_sam

ROOT = Path(__file__).parents[2]
STEPS_OF_ALL = ("ingest", "rasterize", "plan", "train", "evaluate")


def write_data_set(root: Path, counts: dict[str, int], size_hw: tuple[int, int] = (60, 84), boxes: int = 3) -> None:
    """Images of noise with a bright block in every box; the same arguments, the same bytes. Truth in test."""
    rng = np.random.default_rng(0)
    height, width = size_hw
    for split, count in counts.items():
        for folder in ("images", "labels", "masks"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels, truth = rng.integers(0, 120, (*size_hw, 3), dtype=np.uint8), np.zeros(size_hw, np.uint8)
            rows = []
            for _ in range(boxes):
                class_id, (h, w) = int(rng.integers(2)), rng.integers(8, 20, 2)
                top, left = rng.integers(height - h), rng.integers(width - w)
                pixels[top : top + h, left : left + w, class_id] += 110
                truth[top : top + h, left : left + w] = class_id + 1
                rows.append((class_id, (left + w / 2) / width, (top + h / 2) / height, w / width, h / height))
            Image.fromarray(pixels).save(root / f"images/{split}/p{number:05d}.png")
            (root / f"labels/{split}/p{number:05d}.txt").write_text(
                "".join(f"{class_id} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for class_id, x, y, w, h in rows)
            )
            if split == "test":
                Image.fromarray(truth).save(root / f"masks/{split}/p{number:05d}.png")
    splits = "".join(f"{split}: images/{split}\n" for split in counts)
    (root / "data.yaml").write_text(f"path: .\n{splits}names: [dirt, damage]\n")


def write_weights(folder: Path) -> None:
    """A tiny teacher and a tiny backbone with random weights."""
    save_sam(folder / "teacher", tiny_sam(), TINY_TEACHER)
    (folder / "backbone").mkdir(parents=True)
    torch.manual_seed(0)
    save_file(timm.create_model(**TINY, img_size=56, num_classes=0).state_dict(), folder / "backbone/model.safetensors")
    (folder / "backbone/config.json").write_text(backbone_config().model_dump_json())


def write_params(path: Path, data_root: Path, **train: int) -> None:
    """params.yaml of the project with runs that take seconds; `train` changes its section."""
    yaml = YAML()
    params = yaml.load((ROOT / "params.yaml").read_text())
    params["data"]["root"] = str(data_root)
    params["synthesize"] |= {"train": 1, "val": 1, "test": 1}
    params["view"]["size_px"] = 56
    params["network"]["width"] = 16
    params["train"] |= {"epochs": 4, "min_steps": 0, "batch_size": 2, "validate_every": 1} | train
    params["rasterize"] |= {"shard_size": 4}
    params["evaluate"]["bootstrap"]["samples"] = 200
    params["runs"], params["rows"] = {"boxes2pixels": {}}, ["boxes2pixels"]
    with path.open("w") as file:
        yaml.dump(params, file)


def make_project(folder: Path, counts: dict[str, int], **train: int) -> Path:
    """Data set, weights and parameters in `folder`."""
    (folder / ".dvc").mkdir(parents=True)  # to stages, the root of a project
    write_data_set(folder / "set", counts)
    write_weights(folder / "weights")
    write_params(folder / "params.yaml", folder / "set", **train)
    return folder


def command(project: Path, stage: str) -> list[str]:
    """The command line of a stage, its outputs in `project`/out."""
    out = project / "out"
    params = ["--params", f"{project}/params.yaml"]
    tables, masks = ["--tables", f"{out}/tables"], f"{out}/masks"
    learn = ["--seed", "0", "--train", f"{masks}/train", "--val", f"{masks}/val"]
    learn += [*params, "--backbone", f"{project}/weights/backbone"]
    learn += ["--out", f"{out}/students/0", "--curves", f"{out}/curves"]
    score = ["--metrics", f"{out}/scores.json", "--predictions", f"{out}/predictions", "--models", f"{out}/models"]
    words = {
        "ingest": [*tables, "--truth", f"{out}/truth", "--metrics", f"{out}/ingest.json", *params],
        "rasterize": [*tables, "--weights", f"{project}/weights/teacher", "--out", masks, *params],
        "plan": ["--out", f"{out}/plan", "--checked", f"{out}/checked.txt", *params],
        "train": [f"{out}/plan/boxes2pixels.json", "--dataset", f"{out}/tables/dataset.json", *learn],
        "evaluate": [f"{out}/students", *tables, "--masks", masks, "--truth", f"{out}/truth", *score, *params],
    }
    return [sys.executable, "-m", f"stages.{stage}", *words[stage]]


def start(project: Path, stage: str, **popen) -> subprocess.Popen:
    """Start a stage as a process of its own, its work folder below `project`."""
    environment = {**os.environ, "DVC_ROOT": str(project), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(project, stage), cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE, **popen
    )


def finish(project: Path, stage: str) -> str:
    """Run a stage to its end; what it said."""
    process = start(project, stage)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    return said


def outputs(project: Path) -> dict[str, bytes]:
    """Every file below `project`/out with its bytes, hidden ones included."""
    out = project / "out"
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
