"""A teacher for tests: the official classes, a few thousand random weights."""

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

INPUT_PX = 64


def tiny_sam() -> Sam:
    """A Sam of the official classes with random weights, its mask logits spread around 0."""
    torch.manual_seed(0)
    grid = INPUT_PX // 8
    sam = Sam(
        ImageEncoderViT(
            img_size=INPUT_PX,
            patch_size=8,
            embed_dim=24,
            depth=2,
            num_heads=2,
            out_chans=16,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(16, (grid, grid), (INPUT_PX, INPUT_PX), 4),
        MaskDecoder(transformer_dim=16, transformer=TwoWayTransformer(2, 16, 2, 32), iou_head_hidden_dim=16),
    )
    with torch.no_grad():
        for parameter in sam.mask_decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return sam.eval()
