"""Test IoU_bin against the share of train images whose masks are trusted, chosen at random and by `stages.review`.

    python -m benchmarks.trusted_share OUT --set data/demo --set /sets/crackforest
    python -m benchmarks.trusted_share OUT --set /sets/crackforest --run unet --shares 0,10 --seeds 0

A set has index PNGs under the names of its train images in `trusted/train`, for this purpose alone, or in
`masks/train`, with which it scores its pseudo-masks; copies of them become trusted. Runs the commands of dvc.yaml. What
is done is not repeated: stop it at any moment, or ask for a part first and for the rest later. OUT/curve.csv has a row
per set, share, order of choice, run and seed of training, and keeps those of earlier calls. Other code or parameters
need another OUT.

By `review` the images come in the order of its list, in which the student of RANKED_BY without trusted masks takes
part. At random they come in an order of their own for each seed of training.
"""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from ruamel.yaml import YAML

from stages.common.files import write_csv
from stages.data.tables import IMAGES, read_table

ROOT = Path(__file__).parent.parent
KEYS = ("set", "share", "images", "order", "run", "seed")
SHOWN = ("iou_bin", "iou_bin_low", "iou_bin_high", "recall_bin", "precision_bin")
RANKED_BY = "boxes2pixels"
ALL = 1_000_000


class Point(NamedTuple):
    """One training: `drawn` are the label maps that it trusts. `folder`: of all points with the same ones."""

    folder: Path
    drawn: list[Path]
    run: str
    seed: int


class Project:
    """What the stages make of one data set, below `home`; weights and cached answers of SAM are those of all sets."""

    def __init__(self, root: Path, out: Path, params: Path, teacher: str) -> None:
        self.home, self.out, self.tables = out / root.name, out, out / root.name / "tables"
        self.params = YAML().load(params.read_text())
        self.params["data"]["root"], self.params["weights"]["teacher"] = str(root.resolve()), teacher
        (out / ".dvc").mkdir(parents=True, exist_ok=True)
        found = (sorted((root / name).glob("*.png")) for name in ("trusted/train", "masks/train"))
        self.drawn = {path.stem: path.resolve() for path in next(filter(None, found), [])}
        if not self.drawn:
            sys.exit(f"{root}: neither trusted/train nor masks/train has an index PNG")

    def call(self, stage: str, params: Path, *words: object, done: Path) -> None:
        """Run a stage with the parameters of the folder `params`, unless the last of its outputs, `done`, is there."""
        if not done.exists():
            words = [sys.executable, "-m", f"stages.{stage}", *map(str, words), "--params", str(params / "params.yaml")]
            if subprocess.run(words, cwd=ROOT, env=os.environ | {"DVC_ROOT": str(self.out)}).returncode:
                sys.exit(f"{' '.join(words)}: stopped here; run it again to resume")

    def write_params(self, folder: Path, trusted: Path | None, run: str, seed: int) -> None:
        """params.yaml of `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.params["data"]["trusted"] = None if trusted is None else str(trusted)
        self.params["rows"], self.params["seeds"] = [run], [seed]
        with (folder / "params.yaml").open("w") as file:
            YAML().dump(self.params, file)

    def prepare(self) -> None:
        """Weights, plans and tables."""
        self.write_params(self.home, None, RANKED_BY, 0)
        weights, plan, scores = self.out / "weights", self.out / "plan", self.home / "ingest.json"
        inputs = ("--embedded", ROOT / "data/weights/embedded/teacher", "--teacher", weights / "teacher")
        self.call("weights", self.home, *inputs, "--backbone", weights / "backbone", done=weights / "backbone")
        self.call("plan", self.home, "--out", plan, "--checked", self.out / "checked.txt", done=plan)
        outs = ("--tables", self.tables, "--truth", self.home / "truth", "--metrics", scores)
        self.call("ingest", self.home, *outs, done=scores)

    def rasterized(self, point: Point) -> Path:
        """The pseudo-masks with the trusted ones in their places."""
        folder, masks, drawn = point.folder, point.folder / "masks", point.folder / "drawn/train"
        shutil.rmtree(drawn, ignore_errors=True)
        drawn.mkdir(parents=True)
        for path in point.drawn:
            shutil.copyfile(path, drawn / path.name)
        self.write_params(folder, drawn.parent if point.drawn else None, point.run, point.seed)
        last = masks / "test/shards.json"
        self.call("trust", folder, "--tables", self.tables, "--out", folder / "trusted", done=last)
        inputs = ("--tables", self.tables, "--trusted", folder / "trusted", "--weights", self.out / "weights/teacher")
        self.call("rasterize", folder, *inputs, "--out", masks, done=last)
        return masks

    def metrics(self, point: Point) -> dict:
        """Those of `evaluate`, after all that has to be done for them."""
        folder, run, seed, last = point.folder, point.run, point.seed, point.folder / f"{point.run}.json"
        if not last.exists():
            masks = self.rasterized(point)
            inputs = ("--dataset", self.tables / "dataset.json", "--backbone", self.out / "weights/backbone")
            inputs += ("--train", masks / "train", "--val", masks / "val", "--seed", seed)
            outs = ("--out", folder / f"students/{run}/{seed}", "--curves", (curves := folder / f"curves/{run}/{seed}"))
            self.call("train", folder, self.out / f"plan/{run}.json", *inputs, *outs, done=curves)
            inputs = ("--tables", self.tables, "--masks", masks, "--truth", self.home / "truth", "--metrics", last)
            outs = ("--predictions", folder / f"predictions/{run}", "--models", folder / f"models/{run}")
            self.call("evaluate", folder, folder / f"students/{run}", *inputs, *outs, done=last)
        return json.loads(last.read_text())

    def ranked(self, seed: int) -> list[str]:
        """Paths of the train images in the order of `stages.review`."""
        folder = self.home / f"nothing-{seed}"
        self.metrics(Point(folder, [], RANKED_BY, seed))
        list_, inputs = folder / "review/review.csv", ("--tables", self.tables, "--masks", folder / "masks")
        inputs += ("--model", folder / f"models/{RANKED_BY}", "--first", ALL, "--format", "masks")
        self.call("review", folder, *inputs, "--out", list_.parent, done=list_)
        with list_.open() as file:
            return [row["path"] for row in csv.DictReader(file) if row["split"] == "train"]

    def points(self, runs: list[str], shares: list[float], seed: int) -> Iterator[tuple[tuple, Point]]:
        """The points of one seed, each with what its row of the curve begins with."""
        images = read_table(self.tables / "train/images.parquet", IMAGES)["path"].to_pylist()
        known = [path for path in images if Path(path).stem in self.drawn]
        counts = [min(math.ceil(len(images) * share / 100), len(known)) for share in shares]
        orders = {"random": np.random.default_rng(seed).permutation(known).tolist(), "review": known}
        if any(0 < count < len(known) for count in counts):
            orders["review"] = [path for path in self.ranked(seed) if path in set(known)]
        for share, count in zip(shares, counts, strict=True):
            for order, paths in orders.items():
                same = {0: "nothing", len(known): "all"}.get(count)  # the same images in whatever order
                folder = self.home / (f"{same}-{seed}" if same else f"{order}-{count}-{seed}")
                drawn = [self.drawn[Path(path).stem] for path in paths[:count]]
                for run in runs:
                    yield (self.home.name, f"{share:g}", count, order, run, seed), Point(folder, drawn, run, seed)


def with_earlier(path: Path, rows: dict[tuple, list]) -> list[list]:
    """Rows of the curve in `path`, and `rows`, by KEYS, in the places of those with the same ones."""
    if path.exists():
        with path.open() as file:
            earlier = [list(row.values()) for row in csv.DictReader(file)]
        rows = {tuple(row[: len(KEYS)]): row for row in earlier} | rows
    return [rows[keys] for keys in sorted(rows, key=lambda keys: (keys[0], keys[4], keys[3], float(keys[1]), keys[5]))]


def main(
    out: Annotated[Path, typer.Argument(help="Folder for everything.")],
    sets: Annotated[list[Path], typer.Option("--set", help="Data sets with truth of test.")],
    runs: Annotated[list[str], typer.Option("--run", help="Runs of params.yaml.")] = (RANKED_BY, "two_sided", "unet"),
    shares: Annotated[str, typer.Option(help="Percentages.")] = "0,5,10,20,100",
    seeds: Annotated[str, typer.Option(help="Seeds of training.")] = "0,1,2",
    params: Annotated[Path, typer.Option(help="Parameters.")] = ROOT / "params.yaml",
    teacher: Annotated[str, typer.Option(help="weights.teacher.")] = "embedded",
) -> None:
    """Train and score each point of the curve."""
    for root in sets:
        project = Project(root, out.resolve(), params, teacher)
        project.prepare()
        for seed in map(int, seeds.split(",")):
            for keys, point in project.points(runs, [float(share) for share in shares.split(",")], seed):
                typer.echo(" ".join(map(str, keys)), err=True)
                test = project.metrics(point)["test"]
                row = {tuple(map(str, keys)): [*keys, *(test[name] for name in SHOWN)]}
                write_csv(out / "curve.csv", (*KEYS, *SHOWN), with_earlier(out / "curve.csv", row))


if __name__ == "__main__":
    typer.run(main)
