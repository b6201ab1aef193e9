"""A student small enough for tests, and images for it."""

import numpy as np
import torch

from stages.networks.student import Network
from stages.student.config import BackboneConfig, NetworkConfig, ViewParams

TINY = {"img_size": 56, "patch_size": 14, "embed_dim": 24, "depth": 9, "num_heads": 2, "init_values": 0.1}
SIZES_HW = [(56, 56), (57, 200), (131, 56), (30, 170), (13, 11), (150, 190)]
"""Of images for a student of 56 px: one tile, several, and less than one."""


def backbone_config(timm_kwargs=TINY) -> BackboneConfig:
    return BackboneConfig(
        name="test",
        timm_kwargs=timm_kwargs,
        img_size=timm_kwargs["img_size"],
        mean=[0.5, 0.4, 0.3],
        std=[0.2, 0.2, 0.2],
        taps=[1, 2, 4, 7],
        source="random",
    )


def student(
    detail=True, binary=True, size_px=56, width=16, timm_kwargs=TINY, names=("dirt", "damage"), scale="native"
) -> Network:
    """Random weights, the same every time."""
    torch.manual_seed(0)
    return Network(
        NetworkConfig(
            names=list(names),
            network={"architecture": "student", "width": width, "detail": detail, "binary": binary},
            view=ViewParams(scale=scale, size_px=size_px),
            backbone=backbone_config(timm_kwargs),
            plan_sha256="0" * 64,
        )
    )


def decided_student(scale: str) -> Network:
    """A student of random weights whose head is scaled up, so that it predicts every class."""
    ours = student(scale=scale).eval()
    with torch.no_grad():
        ours.fine.logits.weight.mul_(30)
    return ours


def image_of(size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 noise in blocks of 7 px: large and small structures."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (-(-size_hw[0] // 7), -(-size_hw[1] // 7), 3))
    return np.kron(coarse, np.ones((7, 7, 1), int))[: size_hw[0], : size_hw[1]].astype(np.uint8)
