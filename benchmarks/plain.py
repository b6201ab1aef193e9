"""The student written plainly after the paper: the reference of `benchmarks.speed`.

All blocks of the ViT run, including those behind the deepest tap; both heads run, also for predictions; the classifier
comes after the second upsampling; tensors have PyTorch's default memory format. The ViT is timm's with fused attention,
as in the student: the reference is plain, not slow on purpose. Parts are named as in the student, so that it can load
the student's weights.
"""

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.networks.student import Network as Student
from stages.student.config import NetworkConfig
from stages.student.decoder import DetailBranch, SemanticDecoder, conv_bn_relu, upsample2
from stages.student.segmenter import Logits


class Backbone(nn.Module):
    """(B, 3, S, S) -> four (B, C, S/14, S/14) taps, each through the final norm."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.taps = config.backbone.taps
        self.vit = timm.create_model(**config.backbone.timm_kwargs, img_size=config.view.size_px, num_classes=0)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.vit._pos_embed(self.vit.patch_embed(images))
        found = []
        for index, block in enumerate(self.vit.blocks):
            x = block(x)
            if index in self.taps:
                found.append(self.vit.norm(x)[:, 1:].transpose(1, 2))
        return [tap.unflatten(2, self.vit.patch_embed.grid_size).contiguous() for tap in found]


class Head(nn.Module):
    """As published: it upsamples what both heads share, and classifies after the second upsampling."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.hidden = conv_bn_relu(64, 32)
        self.logits = nn.Conv2d(32, classes, 1)

    def forward(self, mixed: Tensor, size_hw: tuple[int, int]) -> Tensor:
        return resized(self.logits(upsample2(self.hidden(upsample2(mixed)))), size_hw)


class PlainStudent(nn.Module):
    """RGB in [0, 1], (B, 3, S, S) float, to the logits of both heads."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(config.backbone.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.backbone.std).view(1, 3, 1, 1))
        self.backbone = Backbone(config)
        self.semantic = SemanticDecoder([self.backbone.vit.embed_dim] * 4, [14] * 4, config.network["width"])
        self.detail = DetailBranch()
        self.mixer = conv_bn_relu(self.semantic.channels + self.detail.channels, 64)
        self.fine = Head(len(config.names) + 1)
        self.binary = Head(2)

    def forward(self, images: Tensor) -> Logits:
        size_hw = images.shape[-2:]
        images = (images - self.mean) / self.std
        detail = self.detail(images)
        semantic = resized(self.semantic(self.backbone(images)), detail.shape[-2:])
        mixed = self.mixer(torch.cat([semantic, detail], dim=1))
        return Logits(self.fine(mixed, size_hw), self.binary(mixed, size_hw))


def plain_of(student: Student) -> PlainStudent:
    """The reference with a student's weights; blocks that a student does not have get random weights.

    The student must have both optional parts, `student.detail` and `student.binary`. Raises ValueError when the weights
    do not fit.
    """
    plain = PlainStudent(student.config)
    weights = {name: value.clone(memory_format=torch.contiguous_format) for name, value in student.state_dict().items()}
    missing, unexpected = plain.load_state_dict(weights, strict=False)
    behind = tuple(f"backbone.vit.blocks.{block}." for block in range(max(plain.backbone.taps) + 1, 1000))
    unknown = [name for name in missing if not name.startswith((*behind, "mean", "std"))]
    if unknown or unexpected:
        raise ValueError(f"not the same network: {unknown} are missing, {unexpected} too many")
    trained = set(student.trainable())
    for name, parameter in plain.named_parameters():
        # BitFit also names the norms and biases of the blocks behind the deepest tap; no gradient reaches them
        parameter.requires_grad = name in trained
    return plain.train(student.training)


def resized(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=False)
