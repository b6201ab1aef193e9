"""Section `weights` of params.yaml."""

from pydantic import Field

from stages.common.params import Section


class WeightsParams(Section):
    """Which pre-trained networks to use.

    `teacher`: embedded, vit_b, vit_l, vit_h, or a local file (an official .pth) or folder (what this stage writes).
    `backbone`: embedded, a timm name such as vit_small_patch14_dinov2.lvd142m, or a local file (timm's
    .safetensors) or folder (what this stage writes).
    """

    teacher: str = Field(min_length=1)
    backbone: str = Field(min_length=1)
