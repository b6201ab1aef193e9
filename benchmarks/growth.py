"""Memory and time against the number of images: ingest, rasterize, evaluate, and a `dvc repro` with nothing to do.

    python -m benchmarks.growth 1000 4000 13000 --out growth

Noise images of 586 x 371 px with three boxes each and tiny networks, so that the cost around the networks is measured.
Runs the commands of dvc.yaml. Peak memory is that of the stage's own process. Writes growth.json and growth.md.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from ruamel.yaml import YAML

from benchmarks import markdown
from benchmarks.material import make_student
from benchmarks.pipeline_copy import ROOT, RUN, command, copy_pipeline, environment
from benchmarks.tiny import TINY_SAM, TINY_VIT
from stages.student.segmenter import save_student
from stages.teacher.sam import build_sam, save_sam

SIZE_HW = (371, 586)
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
UNCHANGED = "no-op dvc repro"
STAGES = ("ingest", "trust", "rasterize", "rasterize again", "evaluate", UNCHANGED)

LAUNCHER = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""
"""Starts a command from a small process, because a process inherits the peak memory of the one that starts it."""


def write_images(root: Path, count: int) -> None:
    """`count` different images in three splits, with truth for test."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (SIZE_HW[0] // 4, SIZE_HW[1] // 4, 3), dtype=np.uint8)
    base = np.array(Image.fromarray(coarse).resize(SIZE_HW[::-1], Image.Resampling.BILINEAR))
    for split, share in SHARES.items():
        for folder in ("images", "labels", "masks"):
            (root / folder / split).mkdir(parents=True)
        for number in range(round(share * count)):
            pixels = np.roll(base, (int(rng.integers(SIZE_HW[0])), int(rng.integers(SIZE_HW[1]))), (0, 1))
            pixels[:8, :8] = np.frombuffer(rng.bytes(192), np.uint8).reshape(8, 8, 3)
            Image.fromarray(pixels).save(root / f"images/{split}/p{number:05d}.jpg", quality=80)
            rows = [(rng.integers(2), *rng.uniform(0.2, 0.8, 2), *rng.uniform(0.02, 0.3, 2)) for _ in range(3)]
            text = "".join(f"{class_id} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for class_id, x, y, w, h in rows)
            (root / f"labels/{split}/p{number:05d}.txt").write_text(text)
            if split == "test":  # filled boxes: truth of other classes than the boxes' is refused
                truth = np.zeros(SIZE_HW, np.uint8)
                for class_id, x, y, w, h in rows:
                    left, top = round((x - w / 2) * SIZE_HW[1]), round((y - h / 2) * SIZE_HW[0])
                    truth[top : top + round(h * SIZE_HW[0]), left : left + round(w * SIZE_HW[1])] = class_id + 1
                Image.fromarray(truth).save(root / f"masks/{split}/p{number:05d}.png")
    splits = "".join(f"{split}: images/{split}\n" for split in SHARES)
    (root / "data.yaml").write_text(f"path: .\n{splits}names: [dirt, damage]\n")


def write_project(project: Path, count: int) -> None:
    """Data set, parameters, a tiny teacher and a tiny student, where the commands of dvc.yaml look for them."""
    (project / ".dvc").mkdir(parents=True)
    write_images(project / "set", count)
    params = YAML().load(ROOT / "params.yaml")
    params["data"]["root"] = "set"
    params["runs"], params["rows"], params["seeds"] = {RUN: {}}, [RUN], [0]
    YAML().dump(params, project / "params.yaml")
    torch.manual_seed(0)
    save_sam(project / "data/weights/teacher", build_sam(TINY_SAM), TINY_SAM)
    save_student(make_student(TINY_VIT, 224, 16, "native"), project / f"data/students/{RUN}/0")


def measured(words: list[str], folder: Path, env: dict[str, str]) -> dict[str, float]:
    """Run a command: wall-clock seconds, CPU seconds, and peak resident memory of its own process in MB."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *words], cwd=folder, env=env, capture_output=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr.decode()[-3000:]}")
    cpu_seconds, peak_kb = json.loads(done.stdout)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_mb": round(peak_kb / 1024, 1),
    }


def grown(project: Path, count: int, stages: list[str]) -> dict[str, object]:
    """The measurements of `stages` for one number of images."""
    write_project(project, count)
    measurements: dict[str, object] = {"images": count}
    for stage in stages:
        if stage == UNCHANGED:
            measurements[stage] = unchanged(project)
        else:
            measurements[stage] = measured(command(stage.split()[0]), project, environment(project))
        typer.echo(f"{count} {stage}: {measurements[stage]}", err=True)
    return measurements


def unchanged(project: Path) -> dict[str, float]:
    """The second of two `dvc repro ingest` on the data set."""
    shutil.rmtree(project / ".dvc")
    copy_pipeline(project)
    outside = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    for words in (["init", "--no-scm", "--quiet"], ["repro", "--quiet", "ingest"]):
        measured(["dvc", *words], project, outside)
    return measured(["dvc", "repro", "ingest"], project, outside)


def table(results: list[dict], stages: list[str]) -> str:
    """Markdown: one row per stage and number of images, peak memory also relative to the first number."""
    rows = []
    for stage in stages:
        for result in results:
            one, first = result[stage], results[0][stage]
            each, share = 1000 * one["seconds"] / result["images"], one["peak_mb"] / first["peak_mb"]
            rows.append((stage, result["images"], *one.values(), f"{each:.1f}", f"{share:.2f}"))
    columns = ("stage", "images", "s", "CPU s", "peak MB", "ms per image", "peak MB, of the first")
    return "\n".join(markdown.table(columns, rows)) + "\n"


def main(
    counts: Annotated[list[int], typer.Argument(help="Numbers of images.")],
    out: Annotated[Path, typer.Option(help="Name of the two files, without suffix.")] = Path("growth"),
    stages: Annotated[list[str], typer.Option("--stage", help="Of these stages.")] = STAGES,
) -> None:
    """Measure each number of images in a temporary folder."""
    results = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            results.append(grown(Path(folder) / "project", count, stages))
        out.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        out.with_suffix(".md").write_text(table(results, stages), encoding="utf-8")
    typer.echo(table(results, stages))


if __name__ == "__main__":
    typer.run(main)
