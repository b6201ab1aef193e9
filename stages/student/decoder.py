"""The student's trained parts: semantic decoder, detail branch and heads (Boxes2Pixels, arXiv 2604.11162)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn_relu(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without a bias (the batch norm would cancel it), batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class UpShuffle(nn.Module):
    """One pixel-shuffle step: 3 x 3 convolution to 4c channels, pixel shuffle x2, batch norm, ReLU.

    This convolution keeps its bias: four sub-pixel biases share one norm channel, so the norm cancels their mean only.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4 * channels_out, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(F.pixel_shuffle(self.conv(x), 2)))


class Fusion(nn.Module):
    """deep <- ReLU(phi(deep + skip) + deep + skip), phi = Conv3-BN-ReLU-Conv3-BN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.phi = nn.Sequential(
            conv_bn_relu(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        total = deep + skip
        return F.relu(self.phi(total) + total)


class SemanticDecoder(nn.Module):
    """Four taps of the backbone, fused from the deepest up, and three pixel-shuffle steps of x2.

    Taps of equal resolution (a ViT's) are first fused and then upsampled, as published. Where a tap has twice the
    resolution of the next deeper one, a step comes between the two, so that each fusion works at its tap's resolution.
    Each step halves the channels.
    """

    def __init__(self, channels: list[int], strides: list[int], width: int) -> None:
        """`channels`, `strides` of the taps, shallowest first; `width`: channels at the deepest."""
        super().__init__()
        self.rises = [deep > skip for skip, deep in pairwise(strides)]
        widths = [width >> sum(self.rises[level:]) for level in range(4)]
        self.lateral = nn.ModuleList(conv_bn_relu(c, w, kernel=1) for c, w in zip(channels, widths, strict=True))
        self.fusions = nn.ModuleList(Fusion(w) for w in reversed(widths[:-1]))
        self.upsampling = nn.ModuleList(UpShuffle(width >> step, width >> step + 1) for step in range(3))
        self.channels = width // 8

    def forward(self, taps: list[Tensor]) -> Tensor:
        """Four (B, C_i, h_i, w_i) taps, shallowest first -> (B, width / 8, h, w), about 8 times the deepest's size;
        with three steps between taps, exactly the shallowest's size.
        """
        *skips, deep = [lateral(tap) for lateral, tap in zip(self.lateral, taps, strict=True)]
        steps = iter(self.upsampling)
        for fusion, skip, rises in zip(self.fusions, reversed(skips), reversed(self.rises), strict=True):
            if rises:
                deep = next(steps)(deep)[..., : skip.shape[-2], : skip.shape[-1]]  # an odd side was rounded up
            deep = fusion(deep, skip)
        for step in steps:
            deep = step(deep)
        return deep


class DetailBranch(nn.Sequential):
    """Two stride-2 convolutions on RGB: (B, 3, H, W) -> (B, 32, H/4, W/4). Keeps what is finer than a patch."""

    channels = 32

    def __init__(self) -> None:
        super().__init__(conv_bn_relu(3, 24, stride=2), conv_bn_relu(24, self.channels, stride=2))


class Head(nn.Module):
    """(B, 64, H/2, W/2) -> logits (B, classes, H, W): Conv3, upsample x2, Conv1, bilinear to H x W.

    The published head starts with an upsampling x2 of what both heads share; the student does that once for both.
    """

    def __init__(self, channels_in: int, classes: int) -> None:
        super().__init__()
        self.hidden = conv_bn_relu(channels_in, 32)
        self.logits = nn.Conv2d(32, classes, 1)

    def forward(self, mixed: Tensor, size_hw: tuple[int, int]) -> Tensor:
        # A 1x1 convolution and bilinear upsampling commute; the published order would run it on 4x the pixels.
        logits = upsample2(self.logits(self.hidden(mixed)))
        if logits.shape[-2:] == size_hw:
            return logits
        return F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def start_at(self, log_prior: Tensor) -> None:
        """Make the first prediction the prior: (classes,) log probabilities become the bias."""
        self.logits.bias.copy_(log_prior)


def upsample2(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, 2h, 2w), bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
