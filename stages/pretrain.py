"""Pre-train the embedded teacher on the procedural world; `make weights` runs it.

    python -m stages.pretrain --params data/weights/params.yaml --out data/weights/embedded/teacher \\
        --metrics metrics/pretrain_teacher.json

The results are committed. Run the command again after a kill to resume; a finished training is not repeated, only its
results are written again. For times and scores see data/weights/README.md.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from stages.common.errors import run
from stages.common.files import write_json
from stages.common.options import Device, Metrics, ParamsFile
from stages.common.params import Section, load_params
from stages.common.workdir import work_folder
from stages.compute.device import device_of, make_deterministic
from stages.pretraining.config import PretrainParams
from stages.pretraining.embedded_teacher import CONFIG, first_teacher, held_out
from stages.pretraining.pretrain_loop import pretrain
from stages.teacher.sam import save_sam


class Params(Section):
    teacher: PretrainParams


def main(
    params: ParamsFile,
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    metrics: Metrics,
    device: Device = "auto",
) -> None:
    """Train the embedded teacher and write its weights and its metrics on held-out samples."""
    values = load_params(Params, params).teacher
    # before the first weights are drawn: the same machine gives the same bytes
    torch.set_num_threads(values.threads)
    make_deterministic()
    torch.manual_seed(values.seed)
    average = pretrain(first_teacher(device_of(device)), values, work_folder() / "training" / "pretrain_teacher.pt")
    save_sam(out, average, CONFIG, torch.float16)
    write_json(metrics, {"steps": values.steps, **held_out(average, values.held_out)})


if __name__ == "__main__":
    run(main)
