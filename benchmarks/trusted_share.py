"""Test IoU_bin against the share of train images whose masks are trusted, chosen at random and by `stages.review`.

    python -m benchmarks.trusted_share /sets/crackforest --drawn /sets/crackforest/trusted/train --out curve

`--drawn` holds index PNGs under the names of the train images: masks for this purpose alone, or a copy of those with
which the demo scores its pseudo-masks (data/demo/masks/train). Runs the commands of dvc.yaml; what is done is not
repeated, so it can be stopped. Writes OUT/curve.csv: a row per share, order of choice, run and seed of training.

By `review` the images come in the order of its list, which the first run's student without trusted masks takes part
in. At random they come in an order of their own for each seed of training.
"""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ruamel.yaml import YAML

from stages.common.files import write_csv
from stages.data.tables import IMAGES, read_table

ROOT = Path(__file__).parent.parent
SHOWN = ("iou_bin", "iou_bin_low", "iou_bin_high", "recall_bin", "precision_bin")
COLUMNS = ("share", "images", "order", "run", "seed", *SHOWN)
ALL = 1_000_000


class Project:
    """What the stages make of a data set, below `out`: a folder for what all points share, and one per point."""

    def __init__(self, root: Path, out: Path, runs: list[str], teacher: str) -> None:
        self.out, self.common, self.runs = out.resolve(), out.resolve() / "common", runs
        self.params = YAML().load((ROOT / "params.yaml").read_text())
        self.params["data"]["root"], self.params["weights"]["teacher"] = str(root.resolve()), teacher
        (self.out / ".dvc").mkdir(parents=True, exist_ok=True)  # SAM's answers are cached there

    def call(self, stage: str, folder: Path, *words: object) -> None:
        """Run a stage with the parameters of `folder`."""
        call = [sys.executable, "-m", f"stages.{stage}", *map(str, words), "--params", str(folder / "params.yaml")]
        subprocess.run(call, cwd=ROOT, env=os.environ | {"DVC_ROOT": str(self.out)}, check=True)

    def write_params(self, folder: Path, trusted: Path | None, seed: int) -> None:
        """params.yaml of `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.params["data"]["trusted"] = None if trusted is None else str(trusted)
        self.params["rows"], self.params["seeds"] = self.runs, [seed]
        with (folder / "params.yaml").open("w") as file:
            YAML().dump(self.params, file)

    def prepare(self) -> None:
        """Weights and tables."""
        if (self.common / "done").exists():
            return
        self.write_params(self.common, None, 0)
        weights, tables = self.common / "weights", ("--tables", self.common / "tables")
        embedded = ("--embedded", ROOT / "data/weights/embedded/teacher")
        self.call(
            "weights", self.common, *embedded, "--teacher", weights / "teacher", "--backbone", weights / "backbone"
        )
        outs = ("--truth", self.common / "truth", "--metrics", self.common / "ingest.json")
        self.call("ingest", self.common, *tables, *outs)
        (self.common / "done").touch()

    def point(self, folder: Path, drawn: list[Path], seed: int) -> dict[str, dict]:
        """Metrics of each run, trained with the label maps `drawn` trusted, by name of the run."""
        weights, tables = self.common / "weights", ("--tables", self.common / "tables")
        if not (folder / "masks").exists():
            trusted = folder / "drawn/train"
            shutil.rmtree(trusted, ignore_errors=True)
            trusted.mkdir(parents=True)
            for path in drawn:
                shutil.copyfile(path, trusted / path.name)
            self.write_params(folder, trusted.parent if drawn else None, seed)
            self.call("trust", folder, *tables, "--out", folder / "trusted")
            self.call("plan", folder, "--out", folder / "plan", "--checked", folder / "checked.txt")
            inputs = (*tables, "--trusted", folder / "trusted", "--weights", weights / "teacher")
            self.call("rasterize", folder, *inputs, "--out", folder / "masks")
        found = {}
        for run in self.runs:
            metrics, masks = folder / f"{run}.json", folder / "masks"
            if not metrics.exists():
                inputs = ("--dataset", self.common / "tables/dataset.json", "--backbone", weights / "backbone")
                inputs += ("--train", masks / "train", "--val", masks / "val", "--seed", seed)
                outs = ("--out", folder / f"students/{run}/{seed}", "--curves", folder / f"curves/{run}/{seed}")
                self.call("train", folder, folder / f"plan/{run}.json", *inputs, *outs)
                inputs = (*tables, "--masks", masks, "--truth", self.common / "truth", "--metrics", metrics)
                outs = ("--predictions", folder / f"predictions/{run}", "--models", folder / f"models/{run}")
                self.call("evaluate", folder, folder / f"students/{run}", *inputs, *outs)
            found[run] = json.loads(metrics.read_text())
        return found

    def ranked(self, folder: Path) -> list[str]:
        """Paths of the train images in the order of `stages.review`, with the first run's student in `folder`."""
        list_ = folder / "review/review.csv"
        if not list_.exists():
            shutil.rmtree(list_.parent, ignore_errors=True)
            inputs = ("--tables", self.common / "tables", "--masks", folder / "masks")
            inputs += ("--model", folder / f"models/{self.runs[0]}", "--first", ALL, "--format", "masks")
            self.call("review", folder, *inputs, "--out", list_.parent)
        with list_.open() as file:
            return [row["path"] for row in csv.DictReader(file) if row["split"] == "train"]


def main(
    root: Annotated[Path, typer.Argument(help="Data set with truth of test.")],
    drawn: Annotated[Path, typer.Option(help="Folder of index PNGs of train images.")],
    out: Annotated[Path, typer.Option(help="Folder for everything.")],
    shares: Annotated[str, typer.Option(help="Percentages.")] = "0,5,10,20,100",
    runs: Annotated[str, typer.Option(help="Runs of params.yaml.")] = "boxes2pixels,two_sided,unet",
    seeds: Annotated[str, typer.Option(help="Seeds of training.")] = "0,1,2",
    teacher: Annotated[str, typer.Option(help="weights.teacher.")] = "embedded",
) -> None:
    """Train and score each point of the curve."""
    project, rows = Project(root, out, runs.split(","), teacher), []
    project.prepare()
    masks = {path.stem: path for path in sorted(drawn.glob("*.png"))}
    images = read_table(project.common / "tables/train/images.parquet", IMAGES)["path"].to_pylist()
    known = [path for path in images if Path(path).stem in masks]
    typer.echo(f"{len(known)} of {len(images)} train images have a mask in {drawn}", err=True)
    for seed in map(int, seeds.split(",")):
        base = project.out / f"nothing-{seed}"
        nothing = project.point(base, [], seed)
        at_random = np.random.default_rng(seed).permutation(known).tolist()
        orders = {"random": at_random, "review": [path for path in project.ranked(base) if path in set(known)]}
        for share in map(float, shares.split(",")):
            count = min(math.ceil(len(images) * share / 100), len(known))
            for order, paths in orders.items():
                folder = project.out / f"{order}-{count}-{seed}"
                if count in (0, len(known)):  # the same images in whatever order
                    folder = project.out / f"all-{seed}"
                chosen = [masks[Path(path).stem] for path in paths[:count]]
                found = project.point(folder, chosen, seed) if count else nothing
                for run, metrics in found.items():
                    test = metrics["test"]
                    rows.append([share, count, order, run, seed, *(test[name] for name in SHOWN)])
                write_csv(project.out / "curve.csv", COLUMNS, rows)


if __name__ == "__main__":
    typer.run(main)
