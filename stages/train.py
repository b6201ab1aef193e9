"""Train one run's student on the teacher's pseudo-masks, once for one seed.

    python -m stages.train data/plan/RUN.json --seed 0 --out data/models/RUN/0 --curves metrics/curves/RUN/0

Reads the shards of train and val only: neither a test image nor any human mask can reach it. A killed training
goes on from its last checkpoint (stages/compute/workdir.py says where) and ends at the same bytes.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer

from stages.common.errors import UserError, run
from stages.common.files import new_folder
from stages.common.params import Section, load_params
from stages.compute.device import device_of, make_deterministic
from stages.compute.workdir import code_fingerprint, files_fingerprint, fingerprint, work_folder
from stages.data.images import read_image
from stages.data.tables import decode_label_map, read_dataset
from stages.losses.bank import paster
from stages.masks.shards import read_candidates, read_masks
from stages.methods.config import BoxSegParams
from stages.methods.methods import METHODS
from stages.metrics.scores import confusion, scores
from stages.networks.baseline import Baseline
from stages.networks.student import Segmenter, Student, save_student
from stages.student.backbone import load_backbone
from stages.student.config import StudentConfig
from stages.student.inference import predict
from stages.student.kinds import BaselineConfig
from stages.training.config import LoadingParams, Plan
from stages.training.loop import fit
from stages.training.samples import Crops


class Params(Section):
    """All that is not in the plan. DVC is not told of it: no byte depends on it."""

    loading: LoadingParams


def main(
    plan: Annotated[Path, typer.Argument(help="The run's resolved configuration.")],
    out: Annotated[Path, typer.Option(help="Folder for the student.")],
    curves: Annotated[Path, typer.Option(help="Folder for the curves.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and of the samples.")],
    dataset: Annotated[Path, typer.Option(help="Root and class names.")] = Path("data/tables/dataset.json"),
    train: Annotated[Path, typer.Option(help="Pseudo-masks to learn from.")] = Path("data/masks/train"),
    val: Annotated[Path, typer.Option(help="Pseudo-masks to choose by.")] = Path("data/masks/val"),
    backbone: Annotated[Path, typer.Option(help="Pre-trained backbone.")] = Path("data/weights/backbone"),
    params: Annotated[Path, typer.Option(help="The parameters, for `loading` alone.")] = Path("params.yaml"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train one run's student."""
    values, source = load_params(Plan, plan), read_dataset(dataset)
    workers = load_params(Params, params).loading.workers
    make_deterministic()
    torch.manual_seed(seed)
    student = untrained(values, list(source.names), backbone)
    train_masks, candidates = read_masks(train), read_candidates(train)
    crops = Crops(
        source.root,
        train_masks,
        candidates,
        view=values.view,
        augment=values.train.augment,
        defect_share=values.train.defect_share,
        seed=seed,
        with_boxes=METHODS[values.supervision.method].boxes,
    )
    val_masks = read_masks(val)

    def validate(candidate: Segmenter) -> float:
        """miou_anom against the noisy teacher: no human mask takes part in choosing."""
        total = np.zeros((len(source.names) + 1,) * 2, dtype=np.int64)
        for row in val_masks.to_pylist():
            photo = read_image(source.root, row["path"], row["sha256"], row["exif_orientation"])
            predicted = predict(candidate, photo).labels
            total += confusion(decode_label_map(row["label_map"]["bytes"]), predicted, len(source.names) + 1)
        score = scores(total, source.names)["miou_anom"]
        if score is None:
            raise UserError(f"{val}: no defect pixel in any pseudo-mask, so there is nothing to choose a model by")
        return score

    place = device_of(device)
    identity = {
        "plan": values.model_dump(mode="json"),
        "seed": seed,
        "inputs": files_fingerprint([dataset, train, val, *([] if values.student is None else [backbone])]),
        "code": code_fingerprint(),
        "torch": torch.__version__,
        "device": str(place),
        # sums are split among the threads, and their last bits with them
        "threads": torch.get_num_threads(),
    }
    checkpoint = work_folder() / "training" / f"{fingerprint(identity)}.pt"
    paste = None
    if isinstance(values.supervision, BoxSegParams) and values.supervision.copy_paste:
        paste = paster(source.root, train_masks, candidates, values.supervision, values.view, seed)
    student, history = fit(student, crops, values, validate, place, checkpoint, paste, workers)
    save_student(student, out)
    with new_folder(curves) as part:
        epochs = pd.DataFrame(history.epochs).set_index("epoch")
        losses = [name for name in epochs if name.startswith("loss") or name == "lr"]
        epochs[losses].to_csv(part / "loss.csv")
        epochs.drop(columns=losses).to_csv(part / "corrected.csv")
        pd.DataFrame(history.validations).to_csv(part / "val.csv", index=False)
    checkpoint.unlink(missing_ok=True)


def untrained(plan: Plan, names: list[str], backbone: Path) -> Segmenter:
    """The run's network before its first step. A baseline does not read the student's `backbone`."""
    if plan.student is None:
        return Baseline(BaselineConfig(names=names, network=plan.network, view=plan.view), pretrained=True)
    pretrained, config = load_backbone(backbone, plan.view.size_px)
    student = Student(StudentConfig(names=names, student=plan.student, view=plan.view, backbone=config))
    student.backbone = pretrained
    return student


if __name__ == "__main__":
    run(main)
