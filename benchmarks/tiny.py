"""The smallest networks, where the cost or the behaviour around them is what counts; the tests use them too."""

from stages.teacher.image_encoders import SamConfig

TINY_SAM = SamConfig(
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
    source="random",
)
TINY_VIT = {"model_name": "vit_small_patch14_dinov2", "embed_dim": 24, "depth": 9, "num_heads": 2, "init_values": 0.1}
