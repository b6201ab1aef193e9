"""The embedded backbone and how it is pre-trained: a small ViT/14 in DINOv2's form that segments kinds of shapes.

All weights of the ViT are trained, on the exact masks of the procedural world. Between its four taps and the classes
is one linear map only, so that the features of the taps, which the student reads, must hold what is learnt. Only the
ViT is saved.
"""

from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scipy.fft import dct
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stages.common.files import new_folder
from stages.metrics.scores import confusion, scores
from stages.pretraining.pretrain_loop import HELD_OUT_SEED, Task
from stages.pretraining.world.primitives import Draw
from stages.pretraining.world.procedural_scene import scene
from stages.pretraining.world.procedural_shapes import KINDS
from stages.student.backbone import VitBackbone
from stages.student.config import BackboneConfig

SIDE_PX = 112
CELL_PX = 2
"""Side of the square cells that are classified; a patch has 7 x 7."""

NAMES = list(KINDS)
CLUTTER = len(NAMES) + 1
"""Label of clutter: things that are no defect. 0 is the sound surface, 1 and up are the kinds of `NAMES`."""

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
    source="stages/pretrain.py backbone: procedural world only, no image, no human label",
)
WEIGHTS = [0.5, *[2.0] * len(NAMES), 2.0]
"""Class weights of the cross-entropy: sound surface, each kind of shape, clutter."""

LETTERED = 0.25
"""Share of scenes with an additional word: a backbone that saw few of them took letters for defects."""


class Scenes(Dataset):
    """Scene i of the procedural world under `seed`: image (3, S, S) in [0, 1], labels (S/2, S/2) of its cells."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        draw = np.random.default_rng([self.seed, number])
        made = scene(draw, (SIDE_PX, SIDE_PX), random_defects(draw), LETTERED)
        labels = np.where(made.clutter, CLUTTER, 0)
        for defect in made.defects:
            labels[defect.mask] = NAMES.index(defect.kind) + 1
        cells = labels[CELL_PX // 2 :: CELL_PX, CELL_PX // 2 :: CELL_PX]
        return torch.from_numpy(made.image).permute(2, 0, 1).float() / 255, torch.from_numpy(cells)


def random_defects(draw: Draw) -> list[tuple[float, tuple[float, float]]]:
    """None to five defects: long side in px (6 to 90, small ones more often) and centre xy in px."""
    return [
        (float(np.exp(draw.uniform(np.log(6), np.log(90)))), tuple(draw.uniform(0.02, 0.98, 2) * SIDE_PX))
        for _ in range(draw.integers(0, 6))
    ]


def cosines(count: int, side: int) -> np.ndarray:
    """(count, 3, side, side) initial filters of the patch embedding: cosines of the lowest frequencies, three quarters
    of them on brightness and the rest on two colour contrasts. Their gain grows with the frequency, as the amplitude
    in images falls.

    With random filters every channel mostly carries the mean brightness of the patch, and a crack hardly changes it.
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


class CellClassifier(nn.Module):
    """The backbone, all weights trainable, and one linear map from its taps to the classes of each patch's cells."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = VitBackbone(BACKBONE, SIDE_PX).requires_grad_(True)
        patch_px = self.backbone.strides[0]
        filters = torch.from_numpy(cosines(self.backbone.channels[0], patch_px)).float()
        with torch.no_grad():
            self.backbone.vit.patch_embed.proj.weight.copy_(filters)
        cells = patch_px // CELL_PX
        self.cells = nn.Sequential(
            nn.Conv2d(4 * self.backbone.channels[0], (CLUTTER + 1) * cells**2, 1), nn.PixelShuffle(cells)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> logits (B, kinds + 2, S/2, S/2): sound surface, kinds, clutter."""
        return self.cells(torch.cat(self.backbone((images - MEAN) / STD), dim=1))


def loss(classifier: CellClassifier, batch: list[Tensor]) -> Tensor:
    """Scalar: weighted cross-entropy of the classes, plus Dice of all kinds of defects together against all else."""
    device = next(classifier.parameters()).device
    images, labels = (part.to(device) for part in batch)
    logits = classifier(images).float()
    cross_entropy = F.cross_entropy(logits, labels, torch.tensor(WEIGHTS, device=device))
    p = logits.softmax(1)[:, 1:CLUTTER].sum(1)
    defect = ((labels > 0) & (labels < CLUTTER)).float()
    return cross_entropy + 1 - (2 * (p * defect).sum() + 1) / (p.sum() + defect.sum() + 1)


@torch.no_grad()
def held_out(classifier: CellClassifier, count: int) -> dict[str, float | None]:
    """Scores on `count` held-out scenes, as evaluate computes them, with clutter counted as sound surface."""
    device = next(classifier.parameters()).device
    classifier.eval()
    total = np.zeros((len(NAMES) + 1,) * 2, np.int64)
    for images, labels in DataLoader(Scenes(HELD_OUT_SEED), 32, sampler=range(count)):
        predicted = classifier(images.to(device)).argmax(1).cpu().numpy()
        for truth, prediction in zip(labels.numpy(), predicted, strict=True):
            truth, prediction = (np.uint8(each * (each != CLUTTER)) for each in (truth, prediction))
            total += confusion(truth, prediction, len(NAMES) + 1)
    return {"scenes": count, **{key: value and round(value, 4) for key, value in scores(total, NAMES).items()}}


def save_backbone(folder: Path, classifier: CellClassifier) -> None:
    """Write the ViT in half precision and its configuration, whole or not at all."""
    with new_folder(folder) as part:
        vit = classifier.backbone.vit.state_dict()
        weights = {key: value.half().contiguous().cpu() for key, value in sorted(vit.items())}
        save_file(weights, part / "model.safetensors")
        (part / "config.json").write_text(BACKBONE.model_dump_json(indent=2) + "\n", encoding="utf-8")


def backbone_task(device: torch.device) -> Task:
    """The backbone with its first weights, on `device`."""
    classifier = CellClassifier().to(device).train()
    return Task(classifier, [classifier.backbone.vit.blocks], Scenes, loss, held_out, save_backbone)
