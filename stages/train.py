"""Train one run's student on the SAM teacher's pseudo-masks and the masks that people drew, with one seed.

    python -m stages.train data/plan/RUN.json --seed 0 --out data/students/RUN/0 --curves data/curves/RUN/0 ...

Reads the shards of train and val only: no test image and no truth mask can reach it. A killed training resumes from
its last checkpoint (see stages/common/workdir.py) and ends at the same bytes.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import timm
import torch
import typer

from stages.common.errors import run
from stages.common.files import new_folder, sha256_file, write_csv
from stages.common.options import Device, ParamsFile
from stages.common.params import Section, load_params, parse, write_digests
from stages.common.workdir import code_fingerprint, files_fingerprint, fingerprint, work_folder
from stages.compute.device import device_of, make_deterministic, model_of
from stages.data.tables import read_dataset
from stages.losses.method import TrainSplit
from stages.losses.train_rows import mapped_tables
from stages.student import plugins
from stages.student.config import NetworkConfig
from stages.student.segmenter import save_student
from stages.training.config import LoadingParams, Plan
from stages.training.loop import History, fit
from stages.training.processes import joined, relaunch
from stages.training.samples import Samples
from stages.training.validation import Validation


class Params(Section):
    """The parameters outside the plan. They are not in dvc.yaml, because no output depends on them."""

    loading: LoadingParams


def main(
    plan: Annotated[Path, typer.Argument(help="The run's resolved configuration.")],
    out: Annotated[Path, typer.Option(help="Folder for the student.")],
    curves: Annotated[Path, typer.Option(help="Folder for the curves.")],
    seed: Annotated[
        int, typer.Option(min=0, max=(1 << 63) - 1, help="Seed of the initial weights and of the samples.")
    ],
    dataset: Annotated[Path, typer.Option(help="JSON file with the data set's root and class names.")],
    train: Annotated[Path, typer.Option(help="Pseudo-masks to learn from.")],
    val: Annotated[Path, typer.Option(help="Pseudo-masks to choose the best weights by.")],
    backbone: Annotated[Path, typer.Option(help="Pre-trained backbone.")],
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
) -> None:
    """Train one run's student."""
    values, source = load_params(Plan, plan), read_dataset(dataset)
    loading = load_params(Params, params).loading
    make_deterministic()
    with joined(device_of(device), values.train.micro_batches) as (processes, place):
        torch.manual_seed(seed)
        network = plugins.load("networks", values.network.get("architecture"), f"{plan}: network.architecture")
        supervision = plugins.load("methods", values.supervision.get("method"), f"{plan}: supervision.method")
        config = NetworkConfig(
            names=list(source.names),
            network=parse(network.Params, values.network, str(plan), "network").model_dump(),
            view=values.view,
            backbone=None,
            white_level=source.white_level,
            plan_sha256=sha256_file(plan),
        )
        student = network.untrained(config, backbone)
        split = TrainSplit(source, *mapped_tables(train), values.view, seed)
        method = supervision.Method(parse(supervision.Params, values.supervision, str(plan), "supervision"), split)
        samples = Samples(split, values.train, method.reads_boxes)
        inputs = [dataset, train, val, *([backbone] if student.config.backbone else [])]
        checkpoint = work_folder() / "training" / f"{fingerprint(identity(values, seed, inputs, place))}.pt"
        validate = Validation(source, val, processes)
        student, history = fit(
            student, samples, values, method, validate, place, checkpoint, loading.workers, processes
        )
        if processes.rank == 0:
            save_student(student, out)
            with new_folder(curves) as part:
                _write_curves(part, history)
                write_digests(part)
            checkpoint.unlink(missing_ok=True)


def identity(plan: Plan, seed: int, inputs: list[Path], device: torch.device) -> dict[str, object]:
    """Everything that a training's result depends on; only a checkpoint with the same identity is resumed."""
    return {
        "plan": plan.model_dump(mode="json"),
        "seed": seed,
        "inputs": files_fingerprint(inputs),
        "code": code_fingerprint(),
        "torch": torch.__version__,
        "timm": timm.__version__,  # the optimiser is timm's
        "device": model_of(device),
        # sums are split among the threads, so their last bits depend on how many there are
        "threads": torch.get_num_threads(),
    }


def _write_curves(folder: Path, history: History) -> None:
    _write_table(folder / "loss.csv", history.epochs, lambda name: name.startswith("loss") or name == "lr")
    _write_table(folder / "method.csv", history.epochs, lambda name: not name.startswith("loss") and name != "lr")
    _write_table(folder / "val.csv", history.validations, lambda name: True)


def _write_table(path: Path, rows: list[dict[str, float]], wanted: Callable[[str], bool]) -> None:
    """Write as CSV the column `epoch` of `rows`, then those for whose name `wanted` is true."""
    columns = ["epoch", *(name for name in rows[0] if name != "epoch" and wanted(name))]
    write_csv(path, columns, ([row[name] for name in columns] for row in rows))


if __name__ == "__main__":
    relaunch("stages.train", sys.argv[1:])
    run(main)
