"""Inputs of the benchmarks: the demo's images, and a student of the paper's size that predicts every class."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stages.demo.blade_defects import NAMES
from stages.demo.config import SynthesizeParams
from stages.demo.scene import Sample, make_sample
from stages.losses.batch import Batch, Moment
from stages.losses.config import SelfcorrParams
from stages.losses.method import Named
from stages.methods import boxes2pixels
from stages.networks.student import Network as Student
from stages.student.backbone import VitBackbone
from stages.student.config import BackboneConfig, NetworkConfig, ViewParams
from stages.student.efficientnet_lite0 import TIMM_NAME, load_weights
from stages.student.segmenter import Logits
from stages.student.tiling import to_square

DEMO = SynthesizeParams(seed=0, train=0, val=0, test=0, defect_free=0.0, subtle=0.2, unboxed_subtle=0.25, contrast=1.8)
VIT_S14 = {"model_name": "vit_small_patch14_dinov2", "init_values": 1.0}
"""DINOv2's ViT-S/14, with the order of magnitude of trained layer scales. DINOv2 starts them at 1e-5: random blocks
would do nothing, and rounding errors in them would not show."""

LOSS = boxes2pixels.Params(
    method="boxes2pixels", fine=0.5, binary=0.5, beta=0.4, selfcorr=SelfcorrParams(tau=0.9, warmup=0.5)
)
CLASS_WEIGHTS = (0.4, 4.0, 4.0)
FIT_LR = 3e-3
PATCH_PX = 14
WINDOW = 12
"""Side of the windows on which the branches are fitted, in patches."""


def demo_images(count: int, split: str = "train") -> list[Sample]:
    """Turbine blades with at least one defect each; no image is in both train and test."""
    return [make_sample(DEMO, split, index) for index in range(count)]


def pixels(sample: Sample) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    return np.array(Image.open(io.BytesIO(sample.jpeg)).convert("RGB"))


def squares(samples: list[Sample], size_px: int) -> np.ndarray:
    """(N, S, S, 3) float32 RGB, 0 to 255: whole images, stretched as in the paper."""
    return np.stack([to_square(pixels(sample), size_px) for sample in samples])


def batch_of(samples: list[Sample], size_px: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, S, S) in [0, 1] and labels (N, S, S) int64 from the exact truth."""
    images = torch.from_numpy(squares(samples, size_px)).permute(0, 3, 1, 2).contiguous() / 255
    truth = [Image.fromarray(sample.truth).resize((size_px, size_px), Image.Resampling.NEAREST) for sample in samples]
    return images, torch.from_numpy(np.stack([np.array(one) for one in truth])).long()


LITE0 = {"model_name": TIMM_NAME}
"""The default backbone."""


def make_student(timm_kwargs: dict, size_px: int, width: int, scale: str = "stretch") -> Student:
    """A student with random weights, always the same, on a ViT or a convolutional network; Lite0 with ImageNet's."""
    torch.manual_seed(0)
    vit = timm_kwargs["model_name"].startswith("vit")
    student = Student(
        NetworkConfig(
            names=list(NAMES),
            network={"architecture": "student", "width": width, "detail": True, "binary": True},
            view=ViewParams(scale=scale, size_px=size_px),
            backbone=BackboneConfig(
                name="random",
                family="vit" if vit else "pyramid",
                timm_kwargs=timm_kwargs,
                img_size=size_px,
                mean=[0.485, 0.456, 0.406],
                std=[0.229, 0.224, 0.225],
                taps=[1, 2, 4, 7] if vit else [1, 2, 3, 4],
                source="random",
            ),
            plan_sha256="",
        )
    )
    if timm_kwargs == LITE0:
        weights = load_weights()
        student.backbone.net.load_state_dict({name: weights[name] for name in student.backbone.net.state_dict()})
    return student


def loss_of(logits: Logits, images: Tensor, labels: Tensor, progress: float) -> Named:
    """Both losses of the full method; with self-correction from half of the training on."""
    moment = Moment(progress, torch.tensor(CLASS_WEIGHTS))
    method = boxes2pixels.Method(LOSS, None)
    return method.losses(logits, Batch(images, images, labels, None), moment, None)[0]


def fit_branches(student: Student, samples: list[Sample], steps: int) -> Student:
    """Train all but the backbone for a few steps, so that masks hold every class and compare as a trained student's.

    Each step sees windows around defects of two images. The taps of a ViT, which takes no windows, are computed once
    per image. Returns the student in evaluation mode.
    """
    images, labels = batch_of(samples, student.config.view.size_px)
    frequency = torch.bincount(labels.flatten(), minlength=len(NAMES) + 1).clamp(min=1) / labels.numel()
    student.start_at(frequency)
    backbone, taps = student.backbone, [[] for _ in images]
    if isinstance(backbone, VitBackbone):
        with torch.no_grad():
            taps = [backbone((image[None] - student.mean) / student.std) for image in images]
        student.backbone = Given()
    branches = [value for name, value in student.named_parameters() if not name.startswith("backbone")]
    optimizer = torch.optim.AdamW(branches, lr=FIT_LR)
    draw = np.random.default_rng(0)
    student.train()
    for step in range(steps):
        windows = []
        for index in (2 * step % len(images), (2 * step + 1) % len(images)):
            corner = _corner(draw, labels[index])
            pixels_of = [_cut(whole, corner, PATCH_PX) for whole in (images[index], labels[index])]
            windows.append([*pixels_of, *(_cut(tap[0], corner, 1) for tap in taps[index])])
        seen, truth, *given = (torch.stack(column) for column in zip(*windows, strict=True))
        if given:
            student.backbone.taps = given
        named = loss_of(student(seen, with_binary=True), seen, truth, progress=0.0)
        optimizer.zero_grad(set_to_none=True)
        sum(named.values()).backward()
        optimizer.step()
    student.backbone = backbone
    return student.eval()


def _corner(draw: np.random.Generator, labels: Tensor) -> tuple[int, int]:
    """Top and left, in patches, of a window with a defect pixel in it, if `labels` (S, S) has one."""
    defects = labels.nonzero() if labels.any() else torch.zeros(1, 2, dtype=torch.int64)
    at = defects[int(draw.integers(len(defects)))].numpy() // PATCH_PX - draw.integers(0, WINDOW, 2)
    top, left = np.clip(at, 0, max(0, labels.shape[-1] // PATCH_PX - WINDOW))
    return int(top), int(left)


def _cut(whole: Tensor, corner: tuple[int, int], unit: int) -> Tensor:
    """The window at `corner` of (..., H, W), `unit` elements per patch."""
    top, left = (side * unit for side in corner)
    return whole[..., top : top + WINDOW * unit, left : left + WINDOW * unit]


class Given(torch.nn.Module):
    """Replaces the ViT while the branches are fitted."""

    taps: list[Tensor]

    def forward(self, _images: Tensor) -> list[Tensor]:
        return self.taps
