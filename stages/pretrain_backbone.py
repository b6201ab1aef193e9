"""Make the embedded backbone: a small ViT/14 in DINOv2's form, supervised by the masks the procedural world gives away.

    python -m stages.pretrain_backbone --out data/weights/embedded/backbone --metrics metrics/pretrain_backbone.json

The network is the student itself, without its detail branch (which would do the work instead) and with every weight
of the ViT trained; only the ViT is kept. Two CPU cores take about three quarters of an hour. Not part of the default
pipeline: its result is committed.
"""

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stages.procedural.noise import Draw
from stages.procedural.shapes import KINDS
from stages.procedural.world import scene
from stages.scoring.confusion import confusion
from stages.scoring.metrics import scores
from stages.shell.device import device_of
from stages.shell.errors import run
from stages.shell.files import new_folder, write_json
from stages.shell.progress import progress
from stages.student.backbone import load_backbone
from stages.student.config import BackboneConfig, StudentConfig, StudentParams, ViewParams
from stages.student.model import Student
from stages.supervision.boxes2pixels import losses
from stages.supervision.config import LossParams

SIDE_PX = 168
NAMES = list(KINDS)
HELD_OUT_SEED = 1_000_003
"""Never a training seed: the held-out scenes are the same for every training."""

BACKBONE = BackboneConfig(
    name="embedded",
    timm_kwargs={
        "img_size": SIDE_PX,
        "patch_size": 14,
        "embed_dim": 192,
        "depth": 8,
        "num_heads": 3,
        "init_values": 0.1,
    },
    img_size=SIDE_PX,
    mean=[0.5, 0.5, 0.5],
    std=[0.25, 0.25, 0.25],
    taps=[1, 2, 4, 7],
    source="stages/pretrain_backbone.py: procedural world only, no photograph, no human label",
)
LOSS = LossParams(fine=0.5, binary=0.5, beta=0.4, class_weights="frequency")
CLASS_WEIGHTS = torch.tensor([0.5] + [3.0] * len(NAMES))


class Scenes(Dataset):
    """Scene i of the procedural world under `seed`: image (3, S, S) in [0, 1], labels (S, S) of kinds of shape."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.count = seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        draw = np.random.default_rng([self.seed, number])
        made = scene(draw, (SIDE_PX, SIDE_PX), wanted(draw))
        labels = np.zeros((SIDE_PX, SIDE_PX), np.int64)
        for defect in made.defects:
            labels[defect.mask] = NAMES.index(defect.kind) + 1
        return torch.from_numpy(made.image).permute(2, 0, 1).float() / 255, torch.from_numpy(labels)


def wanted(draw: Draw) -> list[tuple[float, tuple[float, float]]]:
    """None to five defects: long side in pixels (8 to 110, small ones more often) and centre."""
    return [
        (float(np.exp(draw.uniform(np.log(8), np.log(110)))), tuple(draw.uniform(0.05, 0.95, 2) * SIDE_PX))
        for _ in range(draw.integers(0, 6))
    ]


def untrained() -> Student:
    """The student that is trained here: no detail branch, every weight of the ViT trainable."""
    student = Student(
        StudentConfig(
            names=NAMES,
            student=StudentParams(width=96, detail=False, binary=True),
            view=ViewParams(scale="native", size_px=SIDE_PX),
            backbone=BACKBONE,
        )
    )
    student.backbone.requires_grad_(True)
    return student


@torch.no_grad()
def held_out(student: Student, count: int, device: torch.device) -> dict[str, float | None]:
    """Scores on held-out scenes, as evaluate counts them."""
    student.eval()
    total = np.zeros((len(NAMES) + 1,) * 2, np.int64)
    for images, labels in DataLoader(Scenes(HELD_OUT_SEED, count), 16):
        predicted = student(images.to(device), with_binary=False).fine.argmax(1).cpu().numpy()
        for truth, prediction in zip(labels.numpy().astype(np.uint8), predicted.astype(np.uint8), strict=True):
            total += confusion(truth, prediction, len(NAMES) + 1)
    student.train()
    return {key: value and round(value, 4) for key, value in scores(total, NAMES).items()}


def save_backbone(folder: Path, student: Student) -> None:
    """The ViT alone, in half precision, with its configuration."""
    with new_folder(folder) as part:
        weights = {key: value.half().contiguous() for key, value in sorted(student.backbone.vit.state_dict().items())}
        save_file(weights, part / "model.safetensors")
        (part / "config.json").write_text(BACKBONE.model_dump_json(indent=2) + "\n", encoding="utf-8")


def main(
    out: Annotated[Path, typer.Option(help="Folder for the weights.")] = Path("data/weights/embedded/backbone"),
    metrics: Annotated[Path, typer.Option(help="JSON file for the held-out scores.")] = Path(
        "metrics/pretrain_backbone.json"
    ),
    steps: Annotated[int, typer.Option(min=1)] = 3000,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    lr: Annotated[float, typer.Option(min=0)] = 1e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between snapshots.")] = 500,
    held_out_scenes: Annotated[int, typer.Option(min=1)] = 128,
    start: Annotated[Path | None, typer.Option(help="Folder of weights to go on from.")] = None,
    workers: Annotated[int, typer.Option(min=0)] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the embedded backbone on procedural scenes."""
    torch.manual_seed(seed)
    where = device_of(device)
    student = untrained()
    if start is not None:
        student.backbone.load_state_dict(load_backbone(start, SIDE_PX)[0].state_dict())
    student = student.to(where).train()
    optimizer = torch.optim.AdamW(student.trainable().values(), lr=lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 200, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    loader = DataLoader(Scenes(seed, steps * batch_size), batch_size, num_workers=workers)
    bar = progress(loader, "pretrain backbone", "step", total=steps)
    for step, (images, labels) in enumerate(bar, start=1):
        logits = student(images.to(where), with_binary=True)
        named, _ = losses(logits, labels.to(where), CLASS_WEIGHTS.to(where), LOSS, tau=None)
        optimizer.zero_grad(set_to_none=True)
        sum(named.values()).backward()
        torch.nn.utils.clip_grad_norm_(student.trainable().values(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix({name: f"{value.item():.3f}" for name, value in named.items()}, refresh=False)
        if step % save_every == 0 or step == steps:
            found = {"steps": step, "scenes": held_out_scenes, **held_out(student, held_out_scenes, where)}
            bar.write(str(found))
            save_backbone(out, student)
            write_json(metrics, found)


if __name__ == "__main__":
    run(main)
