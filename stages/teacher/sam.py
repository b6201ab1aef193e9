"""SAM as the teacher: `segment_anything`'s own modules, built from a configuration, of official size or embedded.

MobileSAM is SAM with another image encoder, a TinyViT; timm's has the same layout (stages/checkpoints/sam_teacher.py).

The proposals equal those of `SamPredictor.predict(box=...)` on the window, box by box. Precision is float32 on a CPU
and bfloat16 autocast on a GPU (float16 overflows in ViT-H).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from stages.common.errors import UserError, lacks_memory
from stages.common.files import write_weights
from stages.common.params import Section, parse, read_json
from stages.teacher.promptable import Proposals
from stages.teacher.windows import InputFrame

OFFICIAL_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
MOBILE_SAM_URL = "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/"


class AnySamConfig(Section):
    """What every Sam has: all but its image encoder. The defaults are those of all official ones."""

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
    """With the vision transformer of `segment_anything`."""

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: list[int]
    window_size: int = 14


class MobileSamConfig(AnySamConfig):
    """With a TinyViT of four stages; the defaults are MobileSAM's."""

    patch_size: Literal[16] = 16
    embed_dims: list[int] = Field(default=[64, 128, 160, 320], min_length=4, max_length=4)
    depths: list[int] = Field(default=[2, 2, 6, 2], min_length=4, max_length=4)
    num_heads: list[int] = Field(default=[2, 4, 5, 10], min_length=4, max_length=4)
    window_sizes: list[int] = Field(default=[7, 7, 14, 7], min_length=4, max_length=4)


def _official(name: str, file: str, embed_dim: int, depth: int, heads: int, global_attention: list[int]) -> SamConfig:
    return SamConfig(
        name=name,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=heads,
        global_attn_indexes=global_attention,
        source=OFFICIAL_URL + file,
    )


OFFICIAL: dict[str, SamConfig | MobileSamConfig] = {
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


def build_sam(config: SamConfig | MobileSamConfig) -> Sam:
    """An untrained Sam of the official classes, assembled as by segment_anything's own builders."""
    grid = config.image_size // config.patch_size
    encoder = TinyVit(config) if isinstance(config, MobileSamConfig) else _vit(config)
    prompts = PromptEncoder(
        embed_dim=config.prompt_dim,
        image_embedding_size=(grid, grid),
        input_image_size=(config.image_size, config.image_size),
        mask_in_chans=config.mask_in_chans,
    )
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(
            depth=config.decoder_depth,
            embedding_dim=config.prompt_dim,
            mlp_dim=config.decoder_mlp_dim,
            num_heads=config.decoder_heads,
        ),
        transformer_dim=config.prompt_dim,
        iou_head_depth=config.iou_head_depth,
        iou_head_hidden_dim=config.iou_head_dim,
    )
    return Sam(encoder, prompts, decoder, config.pixel_mean, config.pixel_std)


def load_sam(folder: Path) -> tuple[Sam, SamConfig | MobileSamConfig]:
    """The Sam of a folder of weights and its configuration: float32, for inference, on the CPU.

    Raises UserError when the folder is not readable, or its weights do not fit its configuration.
    """
    path = folder / "config.json"
    try:
        values = read_json(path, "expected that of a teacher")
        config = parse(MobileSamConfig if "embed_dims" in values else SamConfig, values, where=str(path))
        weights = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
        sam = build_sam(config)
        sam.load_state_dict(weights)
    except Exception as error:
        # numbers that do not fit together raise nearly anything in these networks
        if isinstance(error, UserError) or lacks_memory(error):
            raise
        raise UserError(f"{folder}: not a readable teacher: {' '.join(str(error).split())[:300]}") from None
    return sam.eval().requires_grad_(False), config


def save_sam(folder: Path, sam: Sam, config: AnySamConfig, dtype: torch.dtype = torch.float32) -> None:
    """Write `model.safetensors` (in `dtype`) and `config.json` to the folder, atomically."""
    weights = {key: value.to(dtype).contiguous() for key, value in sorted(sam.state_dict().items())}
    write_weights(folder, weights, config)


class SamTeacher:
    """A Sam as `stages.teacher.promptable.Teacher`."""

    def __init__(self, sam: Sam) -> None:
        self.sam, self.device = sam, sam.device
        timm = ["timm"] if isinstance(sam.image_encoder, TinyVit) else []
        self.libraries = ("segment-anything", "torchvision", *timm)
        self.frame = InputFrame(sam.image_encoder.img_size, "pad")

    def encode(self, windows: Sequence[np.ndarray]) -> Tensor:
        """N windows, (h, w, 3) uint8 RGB -> (N, C, H, W)."""
        resize = ResizeLongestSide(self.frame.side_px)
        pixels = [torch.as_tensor(resize.apply_image(one), device=self.device).permute(2, 0, 1) for one in windows]
        inputs = torch.stack([self.sam.preprocess(one) for one in pixels])
        # on a CPU a batch only makes tensors that no cache holds, in memory that is newly allocated each time
        parts = inputs.split(1) if self.device.type == "cpu" else [inputs]
        with self._autocast():
            return torch.cat([self.sam.image_encoder(part) for part in parts])

    def decode(self, embeddings: Tensor, boxes_xyxy: np.ndarray) -> Proposals:
        """`embeddings`: (N or 1, C, H, W). `boxes_xyxy`: (N, 4) in pixels of the input."""
        boxes = torch.as_tensor(boxes_xyxy, dtype=torch.float32, device=self.device)
        with self._autocast():
            sparse, dense = self.sam.prompt_encoder(points=None, boxes=boxes, masks=None)
            positions = self.sam.prompt_encoder.get_dense_pe()
            logits, predicted_iou = predict_masks(self.sam.mask_decoder, embeddings, positions, sparse, dense)
        return Proposals(logits.float().cpu(), predicted_iou.float().cpu())

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")


def predict_masks(
    decoder: MaskDecoder, embeddings: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """`MaskDecoder.predict_masks` for prompts that may each have an image of their own.

    Returns logits (N, 4, h, w) and predicted IoU (N, 4). The official method repeats every image for every prompt, so N
    prompts on N images would be decoded N x N times.
    """
    count = len(sparse)
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(count, -1, -1)
    image = embeddings + dense
    hidden, image_out = decoder.transformer(image, positions.expand(count, -1, -1, -1), torch.cat([own, sparse], dim=1))
    upscaled = decoder.output_upscaling(image_out.transpose(1, 2).reshape(image.shape))
    mask_tokens = hidden[:, 1 : 1 + decoder.num_mask_tokens].unbind(dim=1)
    filters = [mlp(token) for mlp, token in zip(decoder.output_hypernetworks_mlps, mask_tokens, strict=True)]
    logits = torch.einsum("nmc,nchw->nmhw", torch.stack(filters, dim=1), upscaled)
    return logits, decoder.iou_prediction_head(hidden[:, 0])
