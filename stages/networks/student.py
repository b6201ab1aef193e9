"""The Boxes2Pixels student: frozen ViT with BitFit, semantic decoder, detail branch, binary and fine head."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from stages.common.errors import UserError
from stages.common.files import new_folder
from stages.networks.baseline import Baseline
from stages.student.backbone import Backbone
from stages.student.config import StudentConfig
from stages.student.decoder import DetailBranch, Head, Logits, SemanticDecoder, conv_bn_relu, upsample2
from stages.student.kinds import parse_config


class Student(nn.Module):
    """RGB in [0, 1], (B, 3, H, W) float, to `Logits`. H = W = view.size_px."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(config.backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.backbone.std).view(1, 3, 1, 1), persistent=False)
        self.backbone = Backbone(config.backbone, config.view.size_px)
        self.semantic = SemanticDecoder(self.backbone.channels, config.student.width)
        self.detail = DetailBranch() if config.student.detail else None
        mixed = self.semantic.channels + (DetailBranch.channels if config.student.detail else 0)
        self.mixer = conv_bn_relu(mixed, 64)
        self.fine = Head(64, len(config.names) + 1)
        self.binary = Head(64, 2) if config.student.binary else None
        # Convolutions at H/4 and H/2 run a good deal faster with channels last.
        for part in (self.detail, self.mixer, self.fine, self.binary):
            if part is not None:
                part.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, with_binary: bool) -> Logits:
        """`with_binary=False` skips the binary head: only its loss reads it, predictions never do."""
        size_hw = images.shape[-2:]
        # The grid of the detail branch, so that leaving the branch out changes no resolution.
        quarter_hw = tuple((side + 3) // 4 for side in size_hw)
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        features = self.semantic(self.backbone(images))
        features = F.interpolate(features, size=quarter_hw, mode="bilinear", align_corners=False)
        if self.detail is not None:
            features = torch.cat([features, self.detail(images)], dim=1)
        mixed = upsample2(self.mixer(features.contiguous(memory_format=torch.channels_last)))
        binary = self.binary(mixed, size_hw) if with_binary and self.binary is not None else None
        return Logits(self.fine(mixed, size_hw), binary)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name to parameter of everything that training changes."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def start_at(self, frequency: Tensor) -> None:
        """Let the first prediction be the classes' `frequency`: (K+1,) shares of the pixels, none of them 0."""
        self.fine.start_at(frequency.log().float())
        if self.binary is not None:
            self.binary.start_at(torch.stack([frequency[0], frequency[1:].sum()]).log().float())


Segmenter = Student | Baseline
"""Whatever learns from the pseudo-masks: what follows treats both alike."""


def save_student(student: Segmenter, folder: Path) -> None:
    """Write `student.safetensors` and `student.json` into `folder`, whole or not at all."""
    with new_folder(folder) as part:
        weights = {key: value.contiguous() for key, value in sorted(student.state_dict().items())}
        # by Python, so that a full disk is an OSError
        (part / "student.safetensors").write_bytes(save(weights))
        (part / "student.json").write_text(student.config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_student(folder: Path) -> Segmenter:
    """A saved student, or baseline, in evaluation mode, on the CPU."""
    path = folder / "student.json"
    try:
        config = parse_config(json.loads(path.read_text(encoding="utf-8")), where=str(path))
        student = Student(config) if isinstance(config, StudentConfig) else Baseline(config)
        student.load_state_dict(load_file(folder / "student.safetensors"))
    except (OSError, json.JSONDecodeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: not a trained student: {' '.join(str(error).split())[:300]}") from None
    return student.eval()
