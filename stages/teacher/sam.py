"""The teacher: `segment_anything`'s own `Sam` built from a configuration, of official size or small and embedded."""

import json
from pathlib import Path

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from stages.common.errors import UserError
from stages.common.files import new_folder
from stages.common.params import Section, parse

OFFICIAL_URL = "https://dl.fbaipublicfiles.com/segment_anything/"


class TeacherConfig(Section):
    """All numbers of a Sam. The defaults are those that the three official sizes share."""

    name: str
    image_size: int = 1024
    patch_size: int = 16
    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: list[int]
    window_size: int = 14
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


def _official(name: str, file: str, embed_dim: int, depth: int, heads: int, global_attention: list[int]):
    return TeacherConfig(
        name=name,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=heads,
        global_attn_indexes=global_attention,
        source=OFFICIAL_URL + file,
    )


OFFICIAL = {
    "vit_b": _official("vit_b", "sam_vit_b_01ec64.pth", 768, 12, 12, [2, 5, 8, 11]),
    "vit_l": _official("vit_l", "sam_vit_l_0b3195.pth", 1024, 24, 16, [5, 11, 17, 23]),
    "vit_h": _official("vit_h", "sam_vit_h_4b8939.pth", 1280, 32, 16, [7, 15, 23, 31]),
}


def build_teacher(config: TeacherConfig) -> Sam:
    """An untrained Sam of the official classes, put together as segment_anything's own builders do."""
    grid = config.image_size // config.patch_size
    encoder = ImageEncoderViT(
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


def load_teacher(folder: Path) -> tuple[Sam, TeacherConfig]:
    """The teacher of a folder that the weights stage made, in float32, for inference, on the CPU."""
    path = folder / "config.json"
    try:
        config = parse(TeacherConfig, json.loads(path.read_text(encoding="utf-8")), where=str(path))
        weights = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
        sam = build_teacher(config)
        sam.load_state_dict(weights)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: not a readable teacher: {' '.join(str(error).split())[:300]}") from None
    return sam.eval().requires_grad_(False), config


def save_teacher(folder: Path, sam: Sam, config: TeacherConfig, dtype: torch.dtype = torch.float32) -> None:
    """Write `model.safetensors` (in `dtype`) and `config.json`, whole or not at all."""
    with new_folder(folder) as part:
        weights = {key: value.to(dtype).contiguous() for key, value in sorted(sam.state_dict().items())}
        save_file(weights, part / "model.safetensors")
        (part / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
