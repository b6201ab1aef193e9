"""Make the embedded backbone: a small ViT/14 in DINOv2's form, supervised by the masks the procedural world gives away.

    python -m stages.pretraining.backbone --out data/weights/embedded/backbone --metrics metrics/pretrain_backbone.json

Every weight of the ViT learns to say, patch by patch, which kind of shape each pixel belongs to: a linear map of its
four taps is all that stands between, so that what the student reads is where the knowledge lies. Only the ViT is kept.
"""

from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from safetensors.torch import save_file
from scipy.fft import dct
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stages.common.errors import run
from stages.common.files import new_folder, write_json
from stages.common.params import Section, load_params
from stages.compute.device import device_of
from stages.metrics.scores import confusion, scores
from stages.pretraining.config import PretrainParams
from stages.pretraining.loop import HELD_OUT_SEED, prepare, pretrain
from stages.pretraining.world.noise import Draw
from stages.pretraining.world.shapes import KINDS
from stages.pretraining.world.world import scene
from stages.student.backbone import Backbone
from stages.student.config import BackboneConfig

SIDE_PX = 112
CELL_PX = 2
"""Side of the squares that are told apart inside a patch."""
NAMES = list(KINDS)
CLUTTER = len(NAMES) + 1
"""Label of things that are no defect."""

MEAN, STD = 0.5, 0.25

BACKBONE = BackboneConfig(
    name="embedded",
    timm_kwargs={
        "img_size": SIDE_PX,
        "patch_size": 14,
        "embed_dim": 192,
        "depth": 8,
        "num_heads": 3,
        "init_values": 1.0,
    },
    img_size=SIDE_PX,
    mean=[MEAN] * 3,
    std=[STD] * 3,
    taps=[1, 2, 4, 7],
    source="stages/pretraining/backbone.py: procedural world only, no image, no human label",
)
WEIGHTS = [0.5, *[2.0] * len(NAMES), 2.0]
"""Of sound surface, of each kind of shape, of clutter."""

LETTERED = 0.25
"""Share of scenes with a word on purpose: a backbone that met few of them took letters for defects."""


class Params(Section):
    backbone: PretrainParams


class Scenes(Dataset):
    """Scene i of the procedural world under `seed`: image (3, S, S) in [0, 1], labels (S/2, S/2) of what is there."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        draw = np.random.default_rng([self.seed, number])
        made = scene(draw, (SIDE_PX, SIDE_PX), wanted(draw), LETTERED)
        labels = np.where(made.clutter, CLUTTER, 0)
        for defect in made.defects:
            labels[defect.mask] = NAMES.index(defect.kind) + 1
        cells = labels[CELL_PX // 2 :: CELL_PX, CELL_PX // 2 :: CELL_PX]
        return torch.from_numpy(made.image).permute(2, 0, 1).float() / 255, torch.from_numpy(cells)


def wanted(draw: Draw) -> list[tuple[float, tuple[float, float]]]:
    """None to five defects: long side in pixels (6 to 90, small ones more often) and centre."""
    return [
        (float(np.exp(draw.uniform(np.log(6), np.log(90)))), tuple(draw.uniform(0.02, 0.98, 2) * SIDE_PX))
        for _ in range(draw.integers(0, 6))
    ]


def cosines(count: int, side: int) -> np.ndarray:
    """(count, 3, side, side) first filters: cosines of the lowest frequencies, three quarters of them on brightness and
    the rest on two colour contrasts; the higher the frequency, the louder, as images grow fainter.

    With random filters every channel mostly carries the patch's mean brightness, and a crack is lost beside it.
    """
    waves = dct(np.eye(side), norm="ortho", axis=0)
    order = sorted(product(range(side), repeat=2), key=lambda at: (at[0] ** 2 + at[1] ** 2, at))
    opponents = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])
    shares = [count - 2 * (count // 8), count // 8, count // 8]
    filters = [
        (1 + np.hypot(*at)) / side * opponent[:, None, None] * np.outer(waves[at[0]], waves[at[1]])
        for opponent, share in zip(opponents, shares, strict=True)
        for at in order[:share]
    ]
    return np.stack(filters)


class Reader(nn.Module):
    """The backbone with every weight free, and one linear map from its taps to the cells of each patch."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(BACKBONE, SIDE_PX).requires_grad_(True)
        patch_px = Backbone.patch_px(BACKBONE)
        filters = torch.from_numpy(cosines(self.backbone.channels, patch_px)).float()
        with torch.no_grad():
            self.backbone.vit.patch_embed.proj.weight.copy_(filters)
        cells = patch_px // CELL_PX
        self.cells = nn.Sequential(
            nn.Conv2d(4 * self.backbone.channels, (CLUTTER + 1) * cells**2, 1), nn.PixelShuffle(cells)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> logits (B, kinds + 2, S/2, S/2)."""
        return self.cells(torch.cat(self.backbone((images - MEAN) / STD), dim=1))


def loss(reader: Reader, batch: list[Tensor]) -> Tensor:
    """Cross-entropy of the kinds, plus Dice of defect of any kind against all else."""
    device = next(reader.parameters()).device
    images, labels = (part.to(device) for part in batch)
    logits = reader(images).float()
    named = F.cross_entropy(logits, labels, torch.tensor(WEIGHTS, device=device))
    p = logits.softmax(1)[:, 1:CLUTTER].sum(1)
    defect = ((labels > 0) & (labels < CLUTTER)).float()
    return named + 1 - (2 * (p * defect).sum() + 1) / (p.sum() + defect.sum() + 1)


@torch.no_grad()
def held_out(reader: Reader, count: int) -> dict[str, float | None]:
    """Scores on held-out scenes, as evaluate counts them; clutter is no defect."""
    device = next(reader.parameters()).device
    reader.eval()
    total = np.zeros((len(NAMES) + 1,) * 2, np.int64)
    for images, labels in DataLoader(Scenes(HELD_OUT_SEED), 32, sampler=range(count)):
        predicted = reader(images.to(device)).argmax(1).cpu().numpy()
        for truth, prediction in zip(labels.numpy(), predicted, strict=True):
            truth, prediction = (np.uint8(each * (each != CLUTTER)) for each in (truth, prediction))
            total += confusion(truth, prediction, len(NAMES) + 1)
    reader.train()
    return {"scenes": count, **{key: value and round(value, 4) for key, value in scores(total, NAMES).items()}}


def save_backbone(folder: Path, backbone: Backbone) -> None:
    """The ViT in half precision, with its configuration."""
    with new_folder(folder) as part:
        weights = {key: value.half().contiguous().cpu() for key, value in sorted(backbone.vit.state_dict().items())}
        save_file(weights, part / "model.safetensors")
        (part / "config.json").write_text(BACKBONE.model_dump_json(indent=2) + "\n", encoding="utf-8")


def main(
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    metrics: Annotated[Path, typer.Option(help="JSON file for the held-out scores.")],
    snapshot: Annotated[Path, typer.Option(help="File to go on from after a kill.")] = Path(
        "data/weights/.work/backbone.pt"
    ),
    params: Annotated[Path, typer.Option(help="YAML file with the section backbone.")] = Path(
        "data/weights/params.yaml"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the embedded backbone on procedural scenes."""
    wish = load_params(Params, params).backbone
    prepare(wish)
    reader = Reader().to(device_of(device)).train()

    def judge(average: Reader) -> dict:
        return held_out(average, wish.held_out)

    blocks = [reader.backbone.vit.blocks]
    average = pretrain("pretrain backbone", reader, Scenes(wish.seed), blocks, loss, judge, wish, snapshot)
    save_backbone(out, average.backbone)
    write_json(metrics, {"steps": wish.steps, **judge(average)})


if __name__ == "__main__":
    run(main)
