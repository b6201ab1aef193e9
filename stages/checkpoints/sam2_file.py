"""The authors' own files of SAM 2.1, sam2.1_hiera_<size>.pt, in the layout of `transformers`' Sam2Model.

Both have the same tensors under different names. Those that track objects through a video are left out.
"""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from stages.common.errors import UserError
from stages.common.files import new_folder, write_json
from stages.teacher.loading import load_teacher


def _config(width: int, heads: int, blocks: list[int], attend_all: list[int], windows: list[int], cells: int) -> dict:
    """`attend_all`: blocks of global attention. `windows`: sides by stage. `cells`: side of the position embedding."""
    widths = [width, 2 * width, 4 * width, 8 * width]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": width,
        "num_attention_heads": heads,
        "blocks_per_stage": blocks,
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [heads, 2 * heads, 4 * heads, 8 * heads],
        "window_size_per_stage": windows,
        "window_positional_embedding_background_size": [cells, cells],
        "global_attention_blocks": attend_all,
    }
    return {"model_type": "sam2", "vision_config": {"backbone_config": backbone, "backbone_channel_list": widths[::-1]}}


CONFIGS = {
    "sam2.1_tiny": _config(96, 1, [1, 2, 7, 2], [5, 7, 9], [8, 4, 14, 7], 7),
    "sam2.1_small": _config(96, 1, [1, 2, 11, 2], [7, 10, 13], [8, 4, 14, 7], 7),
    "sam2.1_base_plus": _config(112, 2, [2, 3, 16, 3], [12, 16, 20], [8, 4, 14, 7], 14),
    "sam2.1_large": _config(144, 2, [2, 6, 36, 4], [23, 33, 43], [8, 4, 16, 8], 7),
}
"""config.json by name; what is not in it has the default of `transformers`."""

RULES = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_(mask_decoder|prompt_encoder)\.", r"\1."),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"(_mlps\.\d|_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(_mlps\.\d|_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(_mlps\.\d|_head)\.layers\.2\.", r"\1.proj_out."),
)
"""Pattern and replacement, one after the other, from a tensor's name in the file to that in `transformers`."""

IMAGE_ONLY = r"image_encoder\.|sam_mask_decoder\.|sam_prompt_encoder\.|no_mem_embed$"
POINTS = "prompt_encoder.point_embeddings."
POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"


def convert_sam2(path: Path, name: str, out: Path) -> None:
    """Convert an official file, already verified, to a folder of weights. Raises UserError if a tensor is missing."""
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["model"]
    weights = {renamed(key): value.contiguous() for key, value in state.items() if re.match(IMAGE_ONLY, key)}
    points = [weights.pop(key) for key in sorted(weights) if key.startswith(POINTS)]
    weights["prompt_encoder.point_embed.weight"] = torch.cat(points)
    weights["shared_image_embedding.positional_embedding"] = weights[POSITIONS].clone()
    with new_folder(out) as part:
        write_json(part / "config.json", CONFIGS[name])
        save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
        try:
            load_teacher(part, torch.device("cpu"))
        except UserError as error:
            raise UserError(f"{path}: not a {name} checkpoint: {error}") from None


def renamed(key: str) -> str:
    """The name in `transformers` of a tensor of the file, by RULES."""
    for pattern, replacement in RULES:
        key = re.sub(pattern, replacement, key)
    return key
