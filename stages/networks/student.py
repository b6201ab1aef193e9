"""The Boxes2Pixels student (arXiv 2604.11162): backbone, decoder, detail branch and two heads."""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stages.student.backbone import build_backbone, load_backbone
from stages.student.config import NetworkConfig, NetworkSection
from stages.student.decoder import DetailBranch, Head, SemanticDecoder, conv_bn_relu, upsample2
from stages.student.segmenter import Logits, Segmenter


class Params(NetworkSection):
    """`width`: channels of the semantic decoder (paper: 256). `detail`, `binary`: whether it has branch and head."""

    architecture: Literal["student"]
    width: int = Field(ge=8, le=4096, multiple_of=8)
    detail: bool
    binary: bool

    @property
    def has_binary_head(self) -> bool:
        return self.binary


class Network(Segmenter):
    """Takes images of H = W = view.size_px."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, config.backbone.mean, config.backbone.std)
        params = Params.model_validate(config.network)
        self.backbone = build_backbone(config.backbone, config.view.size_px)
        self.semantic = SemanticDecoder(self.backbone.channels, self.backbone.strides, params.width)
        self.detail = DetailBranch() if params.detail else None
        mixed = self.semantic.channels + (DetailBranch.channels if params.detail else 0)
        self.mixer = conv_bn_relu(mixed, 64)
        self.fine = Head(64, len(config.names) + 1)
        self.binary = Head(64, 2) if params.binary else None
        # Convolutions at H/4 and H/2 run much faster with channels last.
        for part in (self.detail, self.mixer, self.fine, self.binary):
            if part is not None:
                part.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, with_binary: bool) -> Logits:
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

    def start_at(self, frequency: Tensor) -> None:
        self.fine.start_at(frequency.log().float())
        if self.binary is not None:
            self.binary.start_at(torch.stack([frequency[0], frequency[1:].sum()]).log().float())

    def last_maps(self) -> list[nn.Parameter]:
        return [head.logits.weight for head in (self.fine, self.binary) if head is not None]


def untrained(config: NetworkConfig, backbone: Path) -> Network:
    """Random weights, except for the pre-trained backbone from the folder `backbone`."""
    pretrained, backbone_config = load_backbone(backbone, config.view.size_px)
    student = Network(config.model_copy(update={"backbone": backbone_config}))
    student.backbone = pretrained
    return student
