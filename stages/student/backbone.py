"""The frozen ViT/14 and its taps: timm's DINOv2 form, cut after the deepest tap, only biases and norms trained."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from stages.common.errors import UserError
from stages.common.params import parse
from stages.student.config import BackboneConfig


class Backbone(nn.Module):
    """Features after four blocks of a ViT. Blocks behind the deepest tap are not built: nobody reads them.

    Trainable are the biases and the normalisation parameters (BitFit), the final norm among them: it is
    applied to every tap, as DINOv2's own `get_intermediate_layers` does.
    """

    def __init__(self, config: BackboneConfig, size_px: int) -> None:
        super().__init__()
        if size_px % self.patch_px(config):
            raise ValueError(f"input side {size_px} px is not a multiple of the patch, {self.patch_px(config)} px")
        self.taps = tuple(config.taps)
        self.vit = VisionTransformer(**{**config.timm_kwargs, "img_size": size_px, "num_classes": 0})
        self.vit.prune_intermediate_layers(list(self.taps), prune_norm=False)
        for name, parameter in self.vit.named_parameters():
            parameter.requires_grad = is_bitfit(name)

    @staticmethod
    def patch_px(config: BackboneConfig) -> int:
        return int(config.timm_kwargs["patch_size"])

    @property
    def channels(self) -> int:
        return self.vit.embed_dim

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised float -> four (B, C, H/14, W/14) maps, shallowest first."""
        return self.vit.forward_intermediates(
            images, indices=list(self.taps), norm=True, stop_early=True, intermediates_only=True
        )


def is_bitfit(name: str) -> bool:
    """Whether BitFit trains the ViT parameter called `name`: every bias, and both parameters of every norm."""
    return name.endswith(".bias") or ".norm" in f".{name}"


def read_backbone_config(folder: Path) -> BackboneConfig:
    """The `config.json` of a folder that the weights stage made."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a readable backbone configuration: {error}") from None
    return parse(BackboneConfig, values, where=str(path))


def load_backbone(folder: Path, size_px: int) -> tuple[Backbone, BackboneConfig]:
    """Pre-trained backbone for inputs of `size_px`, its positional embedding resampled to that grid once, here."""
    config = read_backbone_config(folder)
    path = folder / "model.safetensors"
    try:
        weights = {key: value.float() for key, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable weights: {error}") from None
    backbone = Backbone(config, config.img_size)
    wanted = backbone.vit.state_dict()
    if missing := sorted(wanted.keys() - weights.keys()):
        raise UserError(f"{path}: {len(missing)} tensors of {config.name} are missing, the first is {missing[0]}")
    # A full checkpoint also holds the blocks behind the deepest tap; those are what `Backbone` leaves out.
    backbone.vit.load_state_dict({key: weights[key] for key in wanted})
    with torch.no_grad():
        backbone.vit.set_input_size(img_size=(size_px, size_px))
    for name, parameter in backbone.vit.named_parameters():
        parameter.requires_grad = is_bitfit(name)
    return backbone, config
