"""Section `weights` of params.yaml."""

from pydantic import Field

from stages.common.params import Section


class WeightsParams(Section):
    """Which pre-trained networks to use.

    `teacher`: embedded; SAM's vit_b, vit_l, vit_h; mobile_sam; a name of stages/checkpoints/hub_teacher.py (they need
    the group transformers); a local file (an official .pth or .pt) or folder (what this stage writes, or a promptable
    model that transformers saved).
    `backbone`: efficientnet_lite0, a timm name such as vit_small_patch14_dinov2.lvd142m, or a local file (timm's
    .safetensors) or folder (what this stage writes).
    """

    teacher: str = Field(min_length=1)
    backbone: str = Field(min_length=1)
