"""Pre-train one of the two embedded networks on the procedural world; `make weights` runs it for both.

    python -m stages.pretrain teacher --params data/weights/params.yaml --out data/weights/embedded/teacher \\
        --metrics metrics/pretrain_teacher.json

The results are committed. Run it again after a kill to resume; after the end it writes the same results again in a
minute. For times and scores see data/weights/README.md.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.common.errors import run
from stages.common.files import write_json
from stages.common.options import Device, Metrics, ParamsFile
from stages.common.params import Section, load_params
from stages.common.workdir import work_folder
from stages.compute.device import device_of
from stages.pretraining.config import PretrainParams
from stages.pretraining.embedded_backbone import backbone_task
from stages.pretraining.embedded_teacher import teacher_task
from stages.pretraining.pretrain_loop import prepare, pretrain

TASKS = {"teacher": teacher_task, "backbone": backbone_task}


class Params(Section):
    teacher: PretrainParams
    backbone: PretrainParams


def main(
    network: Annotated[Literal["teacher", "backbone"], typer.Argument(help="Which network.")],
    params: ParamsFile,
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    metrics: Metrics,
    device: Device = "auto",
) -> None:
    """Train an embedded network and write its weights and its metrics on held-out samples."""
    values: PretrainParams = getattr(load_params(Params, params), network)
    prepare(values)
    task = TASKS[network](device_of(device))
    snapshot = work_folder() / "training" / f"pretrain_{network}.pt"
    average = pretrain(f"pretrain {network}", task, values, snapshot)
    task.save(out, average)
    write_json(metrics, {"steps": values.steps, **task.score(average, values.held_out)})


if __name__ == "__main__":
    run(main)
