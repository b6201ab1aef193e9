"""Baselines from segmentation-models-pytorch (MIT) behind the student's interface: U-Net, DeepLabV3, SegFormer.

All of a baseline is trained, by the same loop, schedule, learning rate and loss as the student's fine head; it has no
binary head. Departures from the Boxes2Pixels release: there SegFormer's encoder learns at a tenth of the rate, and the
maps of DeepLabV3's encoder are half as fine.
"""

from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from stages.common.errors import UserError
from stages.student.config import NetworkConfig, NetworkSection
from stages.student.efficientnet_lite0 import MEAN, STD, TIMM_NAME, load_weights
from stages.student.segmenter import Logits, Segmenter

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]

LITE0 = "efficientnet_lite0"
"""Its ImageNet weights come from an installed package, so nothing is downloaded."""

Encoder = Literal[
    "efficientnet_lite0",
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet-b0",
    "efficientnet-b2",
    "mit_b0",
    "mit_b2",
]


class Params(NetworkSection):
    """`encoder_weights`: None trains the encoder from scratch, `imagenet` downloads its weights (paper); those of
    efficientnet_lite0 are installed.

    `decoder_width`: channels of the decoder; for U-Net, of its deepest level (the package's default: 256).
    """

    architecture: Literal["baseline"]
    design: Literal["unet", "deeplabv3", "segformer"]
    encoder: Encoder
    encoder_weights: Literal["imagenet"] | None
    decoder_width: int = Field(ge=16, le=4096, multiple_of=16)

    @model_validator(mode="after")
    def _dilatable(self) -> Self:
        if self.design == "deeplabv3" and self.encoder.startswith("mit_"):
            raise ValueError(f"encoder {self.encoder}: deeplabv3 needs a convolutional encoder")
        return self

    @property
    def least_batch_size(self) -> int:
        # the pooled branch of deeplabv3 normalises one pixel per image over the batch
        return 2 if self.design == "deeplabv3" else 1


class Network(Segmenter):
    """For any H and W. `pretrained`: whether to load the weights that `encoder_weights` names."""

    def __init__(self, config: NetworkConfig, pretrained: bool = False) -> None:
        params = Params.model_validate(config.network)
        lite0 = params.encoder == LITE0
        super().__init__(config, MEAN if lite0 else IMAGENET_MEAN, STD if lite0 else IMAGENET_STD)
        self.net = build(params, len(config.names) + 1, pretrained).to(memory_format=torch.channels_last)
        # U-Net's decoder follows the sizes of its encoder's maps; the others need sides that their stride divides
        self.multiple_px = self.net.encoder.output_stride if self.net.requires_divisible_input_shape else 1

    def forward(self, images: Tensor, with_binary: bool) -> Logits:
        """Pads by repeating the rim to sides that the network accepts, and crops the logits to H and W."""
        height, width = images.shape[-2:]
        below, right = -height % self.multiple_px, -width % self.multiple_px
        images = (images - self.mean) / self.std
        images = F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images
        logits = self.net(images.contiguous(memory_format=torch.channels_last))
        return Logits(logits[..., :height, :width], None)

    @torch.no_grad()
    def start_at(self, frequency: Tensor) -> None:
        self.net.segmentation_head[0].bias.copy_(frequency.log())

    def last_maps(self) -> list[nn.Parameter]:
        return [self.net.segmentation_head[0].weight]


def untrained(config: NetworkConfig, backbone: Path) -> Network:
    """The encoder with the weights that the parameters name, the rest random. A baseline does not read `backbone`."""
    return Network(config, pretrained=True)


def build(params: Params, classes: int, pretrained: bool) -> nn.Module:
    """The network itself: (B, 3, H, W) normalised to logits (B, classes, H, W).

    Pre-trained encoders come from the revisions that the package names. Raises UserError when they are not available.
    """
    # importing it takes a second, which plan and other checks of the parameters should not wait for
    import segmentation_models_pytorch as smp

    lite0, width = params.encoder == LITE0, params.decoder_width
    weights = params.encoder_weights if pretrained else None
    common = {
        "encoder_name": f"timm-{TIMM_NAME}" if lite0 else params.encoder,
        "encoder_weights": None if lite0 else weights,
        "classes": classes,
    }
    try:
        if params.design == "unet":
            net = smp.Unet(**common, decoder_channels=[width // 2**level for level in range(5)])
        elif params.design == "deeplabv3":
            # the package's default; at 16, as in the paper, it is three times as fast and finds no thin crack
            net = smp.DeepLabV3(**common, decoder_channels=width, encoder_output_stride=8)
        else:
            net = smp.Segformer(**common, decoder_segmentation_channels=width)
    except OSError as error:  # every download error is one
        raise UserError(
            f"network.encoder_weights = {weights}: the weights of {params.encoder} are not available "
            f"({' '.join(str(error).split())[:200]}); null trains from scratch"
        ) from None
    if lite0 and weights:
        # the encoder skips the classifier's weights
        net.encoder.load_state_dict(load_weights())
    return net
