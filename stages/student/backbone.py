"""Pre-trained backbones and their four taps, shallowest first.

Of a ViT only biases and norms are trained (BitFit), as published; a convolutional network is trained as a whole.
Blocks after the deepest tap are left out, because nothing reads them.
"""

from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import Format
from torch import Tensor, nn

from stages.common.errors import UserError, lacks_memory
from stages.common.params import check_digests, parse, read_json
from stages.student.config import BackboneConfig


class VitBackbone(nn.Module):
    """Features after four blocks of any of timm's ViTs: four maps of resolution H / patch. Frozen except for BitFit.

    The final norm is applied to every tap, as DINOv2's own `get_intermediate_layers` does, and trained with the others.
    """

    def __init__(self, config: BackboneConfig, size_px: int) -> None:
        super().__init__()
        self.vit = timm.create_model(**config.timm_kwargs, img_size=size_px, num_classes=0)
        self.name, self.taps = config.name, tuple(config.taps)
        # the stride of the patches, together with that of a convolutional stem
        self.channels, self.strides = [self.vit.embed_dim] * 4, [self.vit.patch_embed.feat_ratio()] * 4
        self._check_size(size_px)
        self.vit.prune_intermediate_layers(list(self.taps), prune_norm=False)
        freeze_but_bitfit(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised float -> four (B, C, H / patch, W / patch) maps, shallowest first."""
        return self.vit.forward_intermediates(
            images, indices=list(self.taps), norm=True, stop_early=True, intermediates_only=True
        )

    def resize_input(self, size_px: int) -> None:
        """Resample the positional embedding to inputs of `size_px`, once. Raises UserError like the constructor."""
        self._check_size(size_px)
        with torch.no_grad():
            self.vit.set_input_size(img_size=(size_px, size_px))
        freeze_but_bitfit(self)

    def _check_size(self, size_px: int) -> None:
        if size_px % self.strides[0]:
            raise UserError(f"view.size_px = {size_px}: the backbone {self.name} needs a multiple of {self.strides[0]}")


class PyramidBackbone(nn.Module):
    """Feature levels of a timm network with several, for inputs of the sizes that it takes. All of it is trained.

    Its batch norms keep the statistics of their pre-training, also in train mode: batches of a few small windows, half
    of them placed around defects, say little about the images.
    """

    def __init__(self, config: BackboneConfig, size_px: int) -> None:
        super().__init__()
        name = str(config.timm_kwargs["model_name"])
        self.net = timm.create_model(name, pretrained=False, features_only=True, out_indices=tuple(config.taps))
        self.channels, self.strides = self.net.feature_info.channels(), self.net.feature_info.reduction()
        self.channels_last = getattr(self.net, "output_fmt", Format.NCHW) == Format.NHWC

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised float -> four (B, C_i, ceil(H / s_i), ceil(W / s_i)) maps, shallowest first."""
        taps = self.net(images)
        return [tap.permute(0, 3, 1, 2) for tap in taps] if self.channels_last else taps

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


def check_taps(backbone: Backbone, size_px: int, where: str) -> None:
    """Raises UserError, beginning with `where`, if inputs of `size_px` do not give the maps that the decoder reads."""
    asked = [(c, *[-(-size_px // stride)] * 2) for c, stride in zip(backbone.channels, backbone.strides, strict=True)]
    fits = f"a multiple of {backbone.strides[-1]} px, or the size that it was published for, may fit"
    try:
        with torch.no_grad():
            found = [tuple(tap.shape[1:]) for tap in backbone.eval()(torch.zeros(1, 3, size_px, size_px))]
    except (AssertionError, RuntimeError) as error:  # timm's own for a size that its windows do not divide
        if lacks_memory(error):
            raise
        raise UserError(f"{where} fails ({' '.join(str(error).split())[:200]}); {fits}") from None
    if found != asked:
        raise UserError(f"{where} gives the taps {found}, expected {asked}; {fits}")


def read_backbone_config(folder: Path) -> BackboneConfig:
    """The `config.json` of a folder that the weights stage made."""
    path = folder / "config.json"
    return parse(BackboneConfig, read_json(path, "expected that of a backbone"), where=str(path))


def load_backbone(folder: Path, size_px: int) -> tuple[Backbone, BackboneConfig]:
    """Pre-trained backbone for inputs of `size_px`, in evaluation mode.

    Raises UserError for unreadable or missing weights, and for a size that the network does not take.
    """
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
    check_taps(backbone, size_px, f"view.size_px = {size_px}: the backbone {config.name}")
    return backbone, config
