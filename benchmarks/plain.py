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


class Semantic(nn.Module):
    """Taps fused from the deepest to the shallowest, then three pixel-shuffle steps."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv(channels, width, 1) for _ in range(4))
        self.fusions = nn.ModuleList(Fusion(width) for _ in range(3))
        self.upsampling = nn.Sequential(*(UpShuffle(width >> step, width >> step + 1) for step in range(3)))

    def forward(self, taps: list[Tensor]) -> Tensor:
        *skips, deep = [lateral(tap) for lateral, tap in zip(self.lateral, taps, strict=True)]
        for fusion, skip in zip(self.fusions, skips[::-1], strict=True):
            deep = fusion(deep, skip)
        return self.upsampling(deep)


class Fusion(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.phi = nn.Sequential(conv(width, width, 3), second, nn.BatchNorm2d(width))

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return F.relu(self.phi(deep + skip) + deep + skip)


class UpShuffle(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(F.pixel_shuffle(self.conv(x), 2)))


class Head(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.hidden = conv(64, 32, 3)
        self.logits = nn.Conv2d(32, classes, 1)

    def forward(self, mixed: Tensor, size_hw: tuple[int, int]) -> Tensor:
        return resized(self.logits(twice(self.hidden(twice(mixed)))), size_hw)


class PlainStudent(nn.Module):
    """RGB in [0, 1], (B, 3, S, S) float, to the logits of both heads."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(config.backbone.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.backbone.std).view(1, 3, 1, 1))
        self.backbone = Backbone(config)
        width = config.network["width"]
        self.semantic = Semantic(self.backbone.vit.embed_dim, width)
        self.detail = nn.Sequential(conv(3, 24, 3, 2), conv(24, 32, 3, 2))
        self.mixer = conv(width // 8 + 32, 64, 3)
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

    The student must have both optional parts, `student.detail` and `student.binary`.
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


def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


def twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def resized(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=False)
