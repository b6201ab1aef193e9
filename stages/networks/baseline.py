"""Baselines from segmentation-models-pytorch (MIT) behind the student's interface: U-Net, DeepLabV3, SegFormer.

All of them is trained, by the same loop, schedule, learning rate and loss as the student's fine head; they have no
binary head. Departure from the Boxes2Pixels release: there SegFormer's encoder learns at a tenth of the rate.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.common.errors import UserError
from stages.student.decoder import Logits
from stages.student.kinds import BaselineConfig, BaselineParams

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Baseline(nn.Module):
    """RGB in [0, 1], (B, 3, H, W) float, to `Logits`, for any H and W.

    `pretrained` gets the encoder's weights as `config` asks for; without it they are random, for weights of a
    trained one to be loaded.
    """

    binary = None
    """Baselines have no binary head."""

    def __init__(self, config: BaselineConfig, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.net = build(config.network, len(config.names) + 1, pretrained).to(memory_format=torch.channels_last)
        # U-Net's decoder follows the sizes of its encoder's maps, the others need sides that their strides divide
        self.multiple_px = self.net.encoder.output_stride if self.net.requires_divisible_input_shape else 1

    def forward(self, images: Tensor, with_binary: bool) -> Logits:
        """The rim is repeated out to sides that the network can take, and cut off again. There is no binary head."""
        height, width = images.shape[-2:]
        below, right = -height % self.multiple_px, -width % self.multiple_px
        images = (images - self.mean) / self.std
        images = F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images
        logits = self.net(images.contiguous(memory_format=torch.channels_last))
        return Logits(logits[..., :height, :width], None)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name to parameter of everything that training changes: all of it."""
        return dict(self.named_parameters())

    @torch.no_grad()
    def start_at(self, frequency: Tensor) -> None:
        """Let the first prediction be about the classes' `frequency` (K+1,), which becomes the bias."""
        self.net.segmentation_head[0].bias.copy_(frequency.log())


def build(params: BaselineParams, classes: int, pretrained: bool) -> nn.Module:
    """The network itself: (B, 3, H, W) normalised to logits (B, classes, H, W).

    Pre-trained encoders come from the revisions that the package names. Raises UserError when they cannot be had.
    """
    # Imported where a baseline is built: the student's runs do without it.
    import segmentation_models_pytorch as smp

    weights, width = params.encoder_weights if pretrained else None, params.decoder_width
    common = {"encoder_name": params.encoder, "encoder_weights": weights, "classes": classes}
    try:
        if params.architecture == "unet":
            return smp.Unet(**common, decoder_channels=[width // 2**level for level in range(5)])
        if params.architecture == "deeplabv3":
            # 16 as the paper trains it; 8 is the package's default and three times as slow
            return smp.DeepLabV3(**common, decoder_channels=width, encoder_output_stride=16)
        return smp.Segformer(**common, decoder_segmentation_channels=width)
    except OSError as error:  # those of the download are all OSErrors
        raise UserError(
            f"network.encoder_weights = {weights}: the weights of {params.encoder} cannot be had "
            f"({' '.join(str(error).split())[:200]}); null trains from scratch"
        ) from None
