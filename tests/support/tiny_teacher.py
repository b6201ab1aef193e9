"""A teacher for tests: the official classes, a few thousand random weights."""

import torch
from segment_anything.modeling import Sam

from stages.teacher.config import RasterizeParams
from stages.teacher.sam import SamConfig, build_sam

TINY = SamConfig(
    name="tiny",
    image_size=64,
    patch_size=8,
    embed_dim=24,
    depth=2,
    num_heads=2,
    global_attn_indexes=[1],
    window_size=3,
    prompt_dim=16,
    decoder_heads=2,
    decoder_mlp_dim=32,
    iou_head_dim=16,
    pixel_mean=[100.0, 110.0, 120.0],
    pixel_std=[50.0, 60.0, 70.0],
    source="test",
)


def tiny_sam() -> Sam:
    """A Sam of the official classes with random weights, its mask logits spread around 0."""
    torch.manual_seed(0)
    sam = build_sam(TINY)
    with torch.no_grad():
        for parameter in sam.mask_decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return sam.eval()


def params_of(**changed) -> RasterizeParams:
    """Section `rasterize` with `changed` values."""
    values = {
        "view": "whole",
        "context": 1.8,
        "min_view_px": 16,
        "min_scale": None,
        "grow": 0.0,
        "parts": "all",
        "min_part": 0.0,
        "candidate": "best",
        "clip_margin": 0.1,
        "batch_size": 4,
        "shard_size": 2,
    }
    return RasterizeParams(**(values | changed))
