"""A student small enough for tests, and images for it."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.tiny import TINY_VIT as TINY
from stages.common.params import write_digests
from stages.networks.student import Network
from stages.runtime.graphs import OPSET, embed
from stages.runtime.metadata import metadata_of
from stages.student.config import BackboneConfig, NetworkConfig, ViewParams
from stages.student.decision import ARGMAX

SIZES_HW = [(56, 56), (57, 200), (131, 56), (30, 170), (13, 11), (150, 190)]
"""Of images for a student of 56 px: one tile, several, and less than one."""


def backbone_config(timm_kwargs=TINY, size_px=56) -> BackboneConfig:
    return BackboneConfig(
        name="test",
        timm_kwargs=timm_kwargs,
        img_size=size_px,
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
            backbone=backbone_config(timm_kwargs, size_px),
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


def tiny_export(folder: Path) -> None:
    """What `stages.export` writes, of one 1 x 1 convolution: quick, where `to_onnx` takes long."""
    weight = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32) / 50
    shapes = {"images": ["batch", 56, 56, 3], "logits": ["batch", 3, 56, 56]}
    images, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, own) for name, own in shapes.items())
    nodes = [
        helper.make_node("Transpose", ["images"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "tiny", [images], [logits], [numpy_helper.from_array(weight, "weight")])
    folder.mkdir(parents=True, exist_ok=True)
    opset = helper.make_opsetid("", OPSET)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), folder / "student.onnx")
    embed(folder / "student.onnx", metadata_of(student().config, ARGMAX, "0123456789ab", False, None, {}))
    write_digests(folder)
