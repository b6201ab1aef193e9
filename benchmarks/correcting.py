"""Time and memory of the list to check, and of taking corrections back, against the number of images.

    python -m benchmarks.correcting 2000 13000 --out correcting

Images of 160 x 240 px with label maps of three regions each, made here without SAM. `stages.review --first 100`; then
1,000 images in each format, all of which `stages.accept` takes: the label maps that it compares them with lack a
region. Writes OUT.md. Peak memory is that of the command's own process.
"""

import hashlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from benchmarks.growth import measured
from benchmarks.pipeline_copy import ROOT
from stages.data.tables import IMAGES, SPLITS, Dataset, encode_label_map, write_dataset, write_table
from stages.masks import rle
from stages.masks.shards import CANDIDATE_ROWS, CANDIDATES, LABEL_MAPS, MASKS, SCORES, Shard, shard_path, write_index
from stages.reviewing.handover import Tool

SIZE_HW = (160, 240)
SHARD, FIRST, CORRECTED = 256, 100, 1000


def write_project(home: Path, count: int) -> None:
    """Images, tables, pseudo-masks, and below `before` the same pseudo-masks with the last region of each missing."""
    rng, images = np.random.default_rng(0), []
    (home / "set/images/train").mkdir(parents=True)
    coarse = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    base = np.array(Image.fromarray(coarse).resize(SIZE_HW[::-1], Image.Resampling.BILINEAR))
    for number in range(count):
        pixels, file = np.roll(base, rng.integers(0, SIZE_HW), (0, 1)), io.BytesIO()
        pixels[:8, :8] = np.frombuffer(rng.bytes(192), np.uint8).reshape(8, 8, 3)
        Image.fromarray(pixels).save(file, "JPEG", quality=80)
        path = f"images/train/p{number:05d}.jpg"
        (home / "set" / path).write_bytes(file.getvalue())
        about = {"sha256": hashlib.sha256(file.getvalue()).hexdigest(), "height": SIZE_HW[0], "width": SIZE_HW[1]}
        about |= {"path": path, "split": "train", "exif_orientation": 1, "label_status": "labelled"}
        images.append({"image_id": f"train/p{number:05d}"} | about)
    for split in SPLITS:
        write_table(home / f"tables/{split}/images.parquet", IMAGES, images if split == "train" else [])
    write_dataset(home / "tables/dataset.json", Dataset(home / "set", ("dirt", "damage")))
    masked = [_masked(row, rng) for row in images]
    shards = [masked[start : start + SHARD] for start in range(0, count, SHARD)]
    for name, kept in (("masks", 3), ("before", 2)):
        for split in SPLITS:
            found = []
            for index, part in enumerate(shards if split == "train" else [[]]):
                rows = [row | {"label_map": {"bytes": _map_of(boxes[:kept]), "path": None}} for row, boxes, _ in part]
                write_table(shard_path(home / name / split, LABEL_MAPS, index), MASKS, rows)
                candidates = [row for *_, own in part for row in own]
                write_table(shard_path(home / name / split, CANDIDATE_ROWS, index), CANDIDATES, candidates)
                found.append(Shard(index, len(rows), {}))
            write_index(home / name / split, found)


def _masked(image: dict, rng: np.random.Generator) -> tuple[dict, list[tuple], list[dict]]:
    """The row of MASKS without its label map, the boxes as (class id, x1, y1, x2, y2), and their rows of CANDIDATES."""
    boxes, rows = [], []
    for line, left in enumerate((0, 80, 160), start=1):
        x1, y1 = left + int(rng.integers(1, 20)), int(rng.integers(1, 60))
        boxes.append((int(rng.integers(2)), x1, y1, x1 + int(rng.integers(10, 58)), y1 + int(rng.integers(10, 90))))
        box = dict(zip(("class_id", "x1", "y1", "x2", "y2"), boxes[-1], strict=True))
        mask = _ellipse(*boxes[-1][1:])
        known = {"rle": rle.encode(mask, (x1, y1), SIZE_HW), "area": int(mask.sum()), "area_in_box": int(mask.sum())}
        box |= {"box_id": f"{image['image_id']}:{line}", "image_id": image["image_id"]} | known
        scores = dict(zip(SCORES, rng.uniform(0, 1, len(SCORES)).tolist(), strict=True))
        rows += [box | scores | {"cand_idx": index, "chosen": index == 4} for index in range(5)]
    return {key: image[key] for key in MASKS.names if key in image} | {"n_boxes": 3, "trusted": None}, boxes, rows


def _ellipse(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    down, across = np.ogrid[-1 : 1 : (y2 - y1) * 1j, -1 : 1 : (x2 - x1) * 1j]
    return down**2 + across**2 <= 1


def _map_of(boxes: list[tuple]) -> bytes:
    labels = np.zeros(SIZE_HW, np.uint8)
    for class_id, x1, y1, x2, y2 in boxes:
        labels[y1:y2, x1:x2][_ellipse(x1, y1, x2, y2)] = class_id + 1
    return encode_label_map(labels)


def submit(file: Path) -> None:
    """Turn the predictions of Label Studio's tasks into what somebody submitted."""
    tasks = json.loads(file.read_bytes())
    for task in tasks:
        task["annotations"] = task.pop("predictions")
    file.write_text(json.dumps(tasks))


def grown(home: Path, count: int, tools: list[Tool]) -> list[str]:
    """Rows of the table for one number of images."""
    write_project(home, count)
    environment, lines = {**os.environ, "DVC_ROOT": str(home), "PYTHONPATH": str(ROOT)}, []

    def call(name: str, stage: str, masks: str, *words: object) -> None:
        words = (sys.executable, "-m", f"stages.{stage}", *words, "--tables", home / "tables", "--masks", home / masks)
        found = measured([*map(str, words)], ROOT, environment).values()
        lines.append(f"| {name} | {count:,} | {' | '.join(map(str, found))} |")
        typer.echo(lines[-1], err=True)

    for tool, first in ((Tool.masks, FIRST), *((tool, CORRECTED) for tool in tools)):
        out = home / f"first_{first}_{tool}"
        name = f"review --format {tool} --first {first}"
        call(name, "review", "masks", "--out", out, "--format", tool, "--first", first, "--model", "none")
        if tool is Tool.label_studio:
            submit(out / "label_studio.json")
        if first == CORRECTED:
            call(f"accept, {first:,} of {tool}", "accept", "before", out, "--out", home / f"accepted_{tool}")
    return lines


def main(
    counts: Annotated[list[int], typer.Argument(help="Numbers of images.")],
    tools: Annotated[list[Tool], typer.Option("--tool", help="Whose formats are taken back.")] = tuple(Tool),
    out: Annotated[Path, typer.Option(help="Name of the table, without suffix.")] = Path("correcting"),
) -> None:
    """Measure each number of images in a temporary folder."""
    lines = ["| command | images | s | CPU s | peak MB |", "|---|---|---|---|---|"]
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            lines += grown(Path(folder), count, tools)
        out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    typer.echo("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
