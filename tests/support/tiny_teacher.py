"""A teacher for tests: the official classes, a few thousand random weights."""

import torch
from segment_anything.modeling import ImageEncoderViT, Sam

from benchmarks.tiny import TINY_SAM as TINY
from stages.teacher.config import RasterizeParams
from stages.teacher.sam import build_sam


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


def count_encoded(monkeypatch) -> list[int]:
    """Grows by the number of views at each call of the image encoder from here on."""
    seen, forward = [], ImageEncoderViT.forward
    monkeypatch.setattr(ImageEncoderViT, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    return seen
