"""All measurements that need a GPU, in one call of under twelve minutes that downloads nothing.

    python -m benchmarks.on_gpu --data-root /path/to/magnetic_tile --out on_gpu
    python -m benchmarks.on_gpu --tiny --out on_gpu    # tries all but torch.compile, in a minute, also on a CPU

Latency of the paper's student at 518 px, rasterize with the shapes of SAM's vit_b (random weights), and the runs of
`rows` on a data set, three seeds each. What is left out is named; each part is written to on_gpu.json and on_gpu.md as
soon as it is measured. How packages reach a machine without network: benchmarks/README.md.
"""

import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from ruamel.yaml import YAML

from benchmarks import gpu
from benchmarks.growth import write_images
from benchmarks.markdown import table
from benchmarks.material import VIT_S14, demo_images, make_student
from benchmarks.pipeline_copy import ROOT, command, environment
from benchmarks.speed import rasterize_rows, rasterize_table
from benchmarks.tiny import TINY_SAM, TINY_VIT
from stages.teacher.image_encoders import OFFICIAL, SamConfig
from stages.teacher.sam import build_sam, save_sam

NOT_NEEDED = ("synthesize", "appraise")
"""Stages before `train` that are skipped: the demo's, and one whose metrics are not reported here."""

SCORES = ("iou_bin", "miou_anom", "recall_bin", "precision_bin")


@dataclass
class Clock:
    """Seconds that are left of `budget_s`, and what was left out, for lack of them or for the reason in brackets."""

    budget_s: float
    began: float = field(default_factory=time.monotonic)
    left_out: list[str] = field(default_factory=list)

    def left(self) -> float:
        return self.budget_s - (time.monotonic() - self.began)

    def allows(self, what: str, seconds: float) -> bool:
        if self.left() >= seconds:
            return True
        self.left_out.append(f"{what} (no time left)")
        return False


def rasterize(config: SamConfig, images: int, rounds: int, folder: Path, device: str) -> list[dict]:
    """`speed.rasterize_rows` with a teacher of random weights."""
    torch.manual_seed(0)
    save_sam(folder / "teacher", build_sam(config), config)
    return rasterize_rows(folder / "teacher", demo_images(images, "test"), folder / "rasterize", rounds, device)


def before_training() -> list[str]:
    """The stages that a training on a data set of one's own needs, in the order of dvc.yaml."""
    names = list(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])
    return [name for name in names[: names.index("train")] if name not in NOT_NEEDED]


def trainings(root: Path, params: dict, project: Path, clock: Clock, device: str) -> dict:
    """Mean test scores per run of `params`, over as many of its seeds as there is time for, and seconds per stage.

    Runs the commands of dvc.yaml, seed by seed, each run once before any has a second seed.
    """
    for name in (".dvc", "data/weights"):
        (project / name).mkdir(parents=True)
    shutil.copytree(ROOT / "data/weights/embedded", project / "data/weights/embedded")
    params["data"]["root"] = str(root.resolve())
    seconds: dict[str, float] = {}

    def stage(name: str, **item: object) -> None:
        YAML().dump(params, project / "params.yaml")
        words = command(name, **item) + (["--device", device] if name in ("rasterize", "train", "evaluate") else [])
        began = time.monotonic()
        subprocess.run(words, cwd=project, env=environment(project), check=True, timeout=max(1.0, clock.left()))
        seconds[name] = max(seconds.get(name, 0), time.monotonic() - began)

    seeds, rows = params["seeds"], params["rows"]
    for name in before_training():
        stage(name)
    trained: list[int] = []
    for seed in seeds:
        for run in rows:
            # time to evaluate what is trained has to remain; an evaluation is guessed at half a training
            still = len(rows) * seconds.get("train", 0) / 2 * (len(trained) + 1)
            if not clock.allows(f"seed {seed}", seconds.get("train", 0) + still):
                break
            stage("train", run=run, seed=seed)
        else:
            trained.append(seed)
            continue
        break
    params["seeds"] = trained
    found = {}
    for run in rows if trained else []:
        if clock.allows(f"evaluation of {run}", seconds.get("evaluate", 0)):
            stage("evaluate", item=run)
            test = json.loads((project / f"metrics/{run}.json").read_text())["test"]
            found[run] = {key: [test[part] for part in (key, f"{key}_low", f"{key}_high")] for key in SCORES}
    return {"seeds": trained, "runs": found, "seconds": {name: round(value, 1) for name, value in seconds.items()}}


def text(results: dict) -> str:
    """Markdown."""
    lines = [f"{results['card']}, torch {torch.__version__}, {results['seconds']} s in all.", ""]
    lines += gpu.table(results.get("latency", []))
    lines += ["", *rasterize_table("rasterize, random weights", results.get("rasterize", []))]
    trained = results.get("trainings", {"seeds": [], "runs": {}})
    shown = lambda own: "–" if None in own else "{:.3f} [{:.3f}, {:.3f}]".format(*own)  # noqa: E731
    rows = ((run, *map(shown, scores.values())) for run, scores in trained["runs"].items())
    lines += ["", *table((f"run, seeds {trained['seeds']}", *SCORES), rows)]
    return "\n".join([*lines, *(f"\nNot measured: {name}" for name in results["left_out"])]) + "\n"


def planned(tiny: bool) -> dict:
    """Parameters of the trainings."""
    params = YAML().load(ROOT / "params.yaml")
    params["seeds"] = [0] if tiny else [0, 1, 2]
    if tiny:
        params["rows"] = params["rows"][:2]
        params["train"].update(epochs=1, min_steps=2, batch_size=2)
    return params


def main(
    out: Annotated[Path, typer.Option(help="Name of the two files, without suffix.")],
    data_root: Annotated[Path | None, typer.Option(help="Data set to train on; without, nothing is trained.")] = None,
    budget_s: Annotated[float, typer.Option(min=60, max=720, help="Seconds in all.")] = 690,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each variant is run; medians are reported.")] = 5,
    tiny: Annotated[bool, typer.Option("--tiny", help="Tiny networks, noise to train on; a CPU will do.")] = False,
) -> None:
    """Measure everything that there is time for."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not tiny:
        raise typer.BadParameter("no GPU here; --tiny tries the command, benchmarks.speed measures CPUs")
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    clock, results = Clock(budget_s), {"card": f"{card}, tiny sizes" if tiny else card}
    sizes, teacher = ((TINY_VIT, 56, 16), TINY_SAM) if tiny else ((VIT_S14, 518, 256), OFFICIAL["vit_b"])

    def write() -> None:
        results.update(seconds=round(budget_s - clock.left()), left_out=clock.left_out)
        out.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        out.with_suffix(".md").write_text(text(results), encoding="utf-8")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["latency"] = gpu.rows(make_student(*sizes), rounds, device)
        write()
        results["rasterize"] = rasterize(teacher, 1 if tiny else 4, max(1, rounds // 2), folder, device)
        write()
        if tiny and not data_root:
            data_root = folder / "set"
            write_images(data_root, 12)
        if data_root:
            try:
                results["trainings"] = trainings(data_root, planned(tiny), folder / "project", clock, device)
            except subprocess.SubprocessError as error:
                clock.left_out.append(f"trainings ({error})")
        else:
            clock.left_out.append("trainings (no --data-root)")
        write()
        if tiny:
            clock.left_out.append("torch.compile (it takes minutes)")
        elif clock.allows("torch.compile", 120):
            results["latency"] += gpu.rows(make_student(*sizes), rounds, device, compiled=True)
        write()
    typer.echo(text(results))


if __name__ == "__main__":
    typer.run(main)
