"""Configurations of the Sam networks that can be the teacher, and their image encoders.

MobileSAM is SAM with another image encoder, a TinyViT; timm's has the same layout (stages/checkpoints/sam_teacher.py).
The embedded teacher's encoder is EfficientNet-Lite0, frozen with its ImageNet weights, and an early map for thin
structures.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

from stages.common.params import Section

OFFICIAL_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
MOBILE_SAM_URL = "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/"


class AnySamConfig(Section):
    """The settings of every Sam, without those of its image encoder. The defaults are those of all official ones.
    `source`: where the weights come from."""

    name: str
    image_size: int = 1024
    patch_size: int = 16
    prompt_dim: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    iou_head_depth: int = 3
    iou_head_dim: int = 256
    mask_in_chans: int = 16
    pixel_mean: list[float] = Field(default=[123.675, 116.28, 103.53], min_length=3, max_length=3)
    pixel_std: list[float] = Field(default=[58.395, 57.12, 57.375], min_length=3, max_length=3)
    source: str


class SamConfig(AnySamConfig):
    """A Sam with the vision transformer of `segment_anything`."""

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: list[int]
    window_size: int = 14


class MobileSamConfig(AnySamConfig):
    """A Sam with a TinyViT of four stages; the defaults are MobileSAM's."""

    patch_size: Literal[16] = 16
    embed_dims: list[int] = Field(default=[64, 128, 160, 320], min_length=4, max_length=4)
    depths: list[int] = Field(default=[2, 2, 6, 2], min_length=4, max_length=4)
    num_heads: list[int] = Field(default=[2, 4, 5, 10], min_length=4, max_length=4)
    window_sizes: list[int] = Field(default=[7, 7, 14, 7], min_length=4, max_length=4)


class LiteSamConfig(AnySamConfig):
    """A Sam with EfficientNet-Lite0 and an early map: the embedded teacher. `blocks`: number of blocks after it."""

    patch_size: Literal[8] = 8
    blocks: int


def _official(name: str, file: str, embed_dim: int, depth: int, heads: int, global_attention: list[int]) -> SamConfig:
    return SamConfig(
        name=name,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=heads,
        global_attn_indexes=global_attention,
        source=OFFICIAL_URL + file,
    )


OFFICIAL: dict[str, AnySamConfig] = {
    "vit_b": _official("vit_b", "sam_vit_b_01ec64.pth", 768, 12, 12, [2, 5, 8, 11]),
    "vit_l": _official("vit_l", "sam_vit_l_0b3195.pth", 1024, 24, 16, [5, 11, 17, 23]),
    "vit_h": _official("vit_h", "sam_vit_h_4b8939.pth", 1280, 32, 16, [7, 15, 23, 31]),
    "mobile_sam": MobileSamConfig(name="mobile_sam", source=MOBILE_SAM_URL + "mobile_sam.pt"),
}


class TinyVit(nn.Module):
    """MobileSAM's image encoder: (N, 3, S, S) -> (N, prompt_dim, S / 16, S / 16)."""

    def __init__(self, config: MobileSamConfig) -> None:
        super().__init__()
        from timm.models import tiny_vit  # here: importing timm takes seconds, and no other teacher needs it

        net = tiny_vit.TinyVit(
            embed_dims=config.embed_dims,
            depths=config.depths,
            num_heads=config.num_heads,
            window_sizes=config.window_sizes,
            num_classes=0,
            drop_path_rate=0.0,
        )
        net.stages[3].downsample.conv2.conv.stride = (1, 1)  # MobileSAM's last stage keeps the size of the third
        width = config.prompt_dim
        self.img_size = config.image_size
        self.patch_embed, self.stages = net.patch_embed, net.stages
        self.neck = nn.Sequential(
            nn.Conv2d(config.embed_dims[3], width, 1, bias=False),
            LayerNorm2d(width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            LayerNorm2d(width),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.neck(self.stages(self.patch_embed(pixels)))


class Embedding(NamedTuple):
    """Encoded images. `image`: (N, D, H, W); `early`: (N, D / 8, 4 H, 4 W) for thin structures, of a `LiteEncoder`."""

    image: Tensor
    early: Tensor | None = None


class LiteEncoder(nn.Module):
    """EfficientNet-Lite0: (N, 3, S, S) -> the embedding (N, D, S / 8, S / 8) and an early map (N, D / 8, S / 2, S / 2).

    The three deeper levels become the embedding. A crack two pixels wide is lost there, so the two finer levels become
    features of the masks themselves, as in SAM-HQ (arXiv 2306.01567).
    """

    def __init__(self, config: LiteSamConfig) -> None:
        super().__init__()
        import timm  # here: importing timm takes seconds, and official teachers do not need it
        from timm.models.convnext import ConvNeXtBlock

        width = config.prompt_dim
        self.img_size = config.image_size
        self.net = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(0, 1, 2, 3, 4))
        self.net.to(memory_format=torch.channels_last)  # faster on a CPU
        self.net.requires_grad_(False)
        half, quarter, *deep = self.net.feature_info.channels()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in deep)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width, mlp_ratio=2, conv_mlp=False) for _ in range(config.blocks)))
        self.norm = LayerNorm2d(width)
        self.early = nn.Sequential(
            nn.Conv2d(half + quarter, width // 4, 3, padding=1),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.Conv2d(width // 4, width // 8, 3, padding=1),
        )

    def forward(self, pixels: Tensor) -> Embedding:
        half, quarter, *deep = self.net(pixels.contiguous(memory_format=torch.channels_last))
        maps = [lateral(level) for lateral, level in zip(self.lateral, deep, strict=True)]
        image = sum(_resized(one, maps[0]) for one in maps)
        early = torch.cat([half, _resized(quarter, half)], dim=1)
        return Embedding(self.norm(self.blocks(image)), self.early(early))

    def train(self, mode: bool = True) -> "LiteEncoder":
        """As in any module, but the batch norms of the frozen network keep their statistics of ImageNet."""
        super().train(mode)
        self.net.eval()
        return self


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)


def _vit(config: SamConfig) -> ImageEncoderViT:
    return ImageEncoderViT(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=4,
        out_chans=config.prompt_dim,
        qkv_bias=True,
        norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
        use_rel_pos=True,
        window_size=config.window_size,
        global_attn_indexes=tuple(config.global_attn_indexes),
    )


def image_encoder(config: AnySamConfig) -> nn.Module:
    """The untrained image encoder of a configuration. It returns an `Embedding`, or its field `image` alone."""
    if isinstance(config, SamConfig):
        return _vit(config)
    return TinyVit(config) if isinstance(config, MobileSamConfig) else LiteEncoder(config)
