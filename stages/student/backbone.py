"""Pre-trained backbones and their four taps, shallowest first.

Of a ViT only biases and norms are trained (BitFit), as published; a convolutional network is trained as a whole.
Blocks after the deepest tap are left out, because nothing reads them.
"""

from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.common.errors import UserError
from stages.common.params import check_digests, parse, read_json
from stages.student.config import BackboneConfig


class VitBackbone(nn.Module):
    """Features after four blocks of any of timm's ViTs: four maps of resolution H / patch. Frozen except for BitFit.

    The final norm is applied to every tap, as DINOv2's own `get_intermediate_layers` does, and trained with the others.
    """

    def __init__(self, config: BackboneConfig, size_px: int) -> None:
        super().__init__()
        self.vit = timm.create_model(**config.timm_kwargs, img_size=size_px, num_classes=0)
        patch_px = self.vit.patch_embed.patch_size[0]
        if size_px % patch_px:
            raise UserError(f"view.size_px = {size_px}: the backbone {config.name} needs a multiple of {patch_px}")
        self.taps = tuple(config.taps)
        self.vit.prune_intermediate_layers(list(self.taps), prune_norm=False)
        self.channels, self.strides = [self.vit.embed_dim] * 4, [patch_px] * 4
        freeze_but_bitfit(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised float -> four (B, C, H / patch, W / patch) maps, shallowest first."""
        return self.vit.forward_intermediates(
            images, indices=list(self.taps), norm=True, stop_early=True, intermediates_only=True
        )

    def resize_input(self, size_px: int) -> None:
        """Resample the positional embedding to inputs of `size_px`, once."""
        with torch.no_grad():
            self.vit.set_input_size(img_size=(size_px, size_px))
        freeze_but_bitfit(self)


class PyramidBackbone(nn.Module):
    """Feature levels of a convolutional timm network, for inputs of any size. All of it is trained.

    Its batch norms keep the statistics of their pre-training, also in train mode: batches of a few small windows, half
    of them placed around defects, say little about the images.
    """

    def __init__(self, config: BackboneConfig, size_px: int) -> None:
        super().__init__()
        name = str(config.timm_kwargs["model_name"])
        self.net = timm.create_model(name, pretrained=False, features_only=True, out_indices=tuple(config.taps))
        self.channels, self.strides = self.net.feature_info.channels(), self.net.feature_info.reduction()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised float -> four (B, C_i, ceil(H / s_i), ceil(W / s_i)) maps, shallowest first."""
        return self.net(images)

    def train(self, mode: bool = True) -> "PyramidBackbone":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def resize_input(self, size_px: int) -> None:
        """Nothing depends on the size."""


Backbone = VitBackbone | PyramidBackbone


def build_backbone(config: BackboneConfig, size_px: int) -> Backbone:
    """A backbone with random weights, to load others into. Raises UserError for a size that it cannot take."""
    return (VitBackbone if config.family == "vit" else PyramidBackbone)(config, size_px)


def freeze_but_bitfit(network: nn.Module) -> None:
    """Leave trainable what BitFit trains: every bias, and all parameters of every norm."""
    # timm's norms have no base class in common, only this part of their names; some biases are called q_bias, v_bias
    norms = [module for module in network.modules() if "Norm" in type(module).__name__]
    of_norms = {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.endswith("bias") or id(parameter) in of_norms


def read_backbone_config(folder: Path) -> BackboneConfig:
    """The `config.json` of a folder that the weights stage made."""
    path = folder / "config.json"
    return parse(BackboneConfig, read_json(path, "expected that of a backbone"), where=str(path))


def load_backbone(folder: Path, size_px: int) -> tuple[Backbone, BackboneConfig]:
    """Pre-trained backbone for inputs of `size_px`. Raises UserError for unreadable or missing weights."""
    check_digests(folder, "run the weights stage again")
    config = read_backbone_config(folder)
    path = folder / "model.safetensors"
    try:
        weights = {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable weights: {error}") from None
    backbone = build_backbone(config, config.img_size)
    (inner,) = backbone.children()
    wanted = inner.state_dict()
    if missing := sorted(wanted.keys() - weights.keys()):
        raise UserError(f"{path}: {len(missing)} tensors of {config.name} are missing, the first is {missing[0]}")
    # a full checkpoint also holds what comes after the deepest tap
    inner.load_state_dict({key: weights[key] for key in wanted})
    backbone.resize_input(size_px)
    return backbone, config
