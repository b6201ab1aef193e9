"""Test IoU_bin against the share of train images whose masks are trusted, chosen at random and by `stages.review`.

    python -m benchmarks.trusted_share OUT --set data/demo --set /sets/crackforest
    python -m benchmarks.trusted_share OUT --set /sets/crackforest --run unet --shares 0,10 --seeds 0

A data set needs index PNGs under the names of its train images: in `trusted/train`, which only this benchmark reads, or
else in `masks/train`, with which pseudo-masks are scored. Copies of them become trusted. Runs the commands of dvc.yaml.
Finished steps are not repeated: stop it at any moment, or ask for a part first and for the rest later. OUT/curve.csv
has a row per set, share, order of choice, run and seed of training, and keeps those of earlier calls. Other code or
parameters need another OUT.

By `review` the images come in the order of its list, in which the student of RANKED_BY without trusted masks takes
part. At random they come in an order of their own for each seed of training.
"""

import csv
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from ruamel.yaml import YAML

from benchmarks.pipeline_copy import ROOT, command, environment
from stages.common.files import write_csv
from stages.data.tables import IMAGES, read_table

EMBEDDED = "data/weights/embedded"
SHARED = ("data/plan", "data/weights", "data/tables", "data/truth")
KEYS = ("set", "share", "images", "order", "run", "seed")
SHOWN = ("iou_bin", "iou_bin_low", "iou_bin_high", "recall_bin", "precision_bin")
RANKED_BY = "boxes2pixels"
ALL = 1_000_000


class Point(NamedTuple):
    """One training: `drawn` are the label maps that it trusts. `folder`: shared by all runs with the same ones."""

    folder: Path
    drawn: list[Path]
    run: str
    seed: int


class Project:
    """What the stages make of one data set, below `home`; all data sets share the cache of SAM's answers."""

    def __init__(self, root: Path, out: Path, params: Path, teacher: str) -> None:
        self.home, self.out = out / root.name, out
        self.params = YAML().load(params.read_text())
        self.params["data"]["root"], self.params["weights"]["teacher"] = str(root.resolve()), teacher
        (out / ".dvc").mkdir(parents=True, exist_ok=True)
        found = (sorted((root / name).glob("*.png")) for name in ("trusted/train", "masks/train"))
        self.drawn = {path.stem: path.resolve() for path in next(filter(None, found), [])}
        if not self.drawn:
            sys.exit(f"{root}: neither trusted/train nor masks/train has an index PNG")

    def call(self, words: list[object], folder: Path, done: str) -> None:
        """Run a command in `folder`, unless the last of its outputs, `done`, is there."""
        if not (folder / done).exists():
            words = [*map(str, words)]
            if subprocess.run(words, cwd=folder, env=environment(self.out)).returncode:
                sys.exit(f"{' '.join(words)}: stopped here; run it again to resume")

    def write_params(self, folder: Path, trusted: Path | None, run: str, seed: int) -> None:
        """params.yaml of `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.params["data"]["trusted"] = None if trusted is None else str(trusted)
        self.params["rows"], self.params["seeds"] = [run], [seed]
        YAML().dump(self.params, folder / "params.yaml")

    def prepare(self) -> None:
        """Weights, plans and tables."""
        self.write_params(self.home, None, RANKED_BY, 0)
        shutil.copytree(ROOT / EMBEDDED, self.home / EMBEDDED, dirs_exist_ok=True)
        self.call(command("weights"), self.home, "data/weights/backbone")
        self.call(command("plan"), self.home, "data/plan")
        self.call(command("ingest"), self.home, "metrics/ingest.json")

    def rasterize(self, point: Point) -> None:
        """The pseudo-masks with the trusted ones in their places, beside what all points of the set share."""
        folder, drawn, last = point.folder, point.folder / "drawn/train", "data/masks/test/shards.json"
        shutil.rmtree(drawn, ignore_errors=True)
        drawn.mkdir(parents=True)
        for path in point.drawn:
            shutil.copyfile(path, drawn / path.name)
        (folder / "data").mkdir(exist_ok=True)
        for name in SHARED:
            if not (folder / name).exists():
                (folder / name).symlink_to(self.home / name)
        self.write_params(folder, drawn.parent if point.drawn else None, point.run, point.seed)
        self.call(command("trust"), folder, last)
        self.call(command("rasterize"), folder, last)

    def metrics(self, point: Point) -> dict:
        """The metrics that `evaluate` writes, after the stages that it needs."""
        folder, run, seed, last = point.folder, point.run, point.seed, f"metrics/{point.run}.json"
        if not (folder / last).exists():
            self.rasterize(point)
            self.call(command("train", run=run, seed=seed), folder, f"data/curves/{run}/{seed}")
            self.call(command("evaluate", item=run), folder, last)
        return json.loads((folder / last).read_text())

    def ranked(self, seed: int) -> list[str]:
        """Paths of the train images in the order of `stages.review`."""
        folder, done = self.home / f"nothing-{seed}", "review/review.csv"
        self.metrics(Point(folder, [], RANKED_BY, seed))
        options = ("--model", f"data/models/{RANKED_BY}", "--first", ALL, "--format", "masks", "--out", "review")
        self.call([sys.executable, "-m", "stages.review", *options], folder, done)
        with (folder / done).open() as file:
            return [row["path"] for row in csv.DictReader(file) if row["split"] == "train"]

    def points(self, runs: list[str], shares: list[float], seed: int) -> Iterator[tuple[tuple, Point]]:
        """The points of one seed, each with the first columns of its row, KEYS."""
        images = read_table(self.home / "data/tables/train/images.parquet", IMAGES)["path"].to_pylist()
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
    """The curve in `path` with `rows` added, which replace earlier ones with the same KEYS; sorted."""
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
