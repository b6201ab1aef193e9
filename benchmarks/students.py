"""The student as run by each runtime, its plain reference, and the baselines, as functions of tiles."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import nn

from benchmarks.plain import plain_of
from benchmarks.timing import as_pipeline, as_usual
from stages.networks.student import Network as Student
from stages.runtime.graphs import embed, to_int8, to_onnx, to_openvino
from stages.runtime.metadata import metadata_of
from stages.runtime.network import open_onnx, open_openvino, torch_runner
from stages.student.decision import ARGMAX
from stages.student.inference import TileNetwork
from stages.student.segmenter import save_student
from stages.student.tiling import RunTiles

PLAIN = "plain reference"
BASELINES = {
    "Unet, EfficientNet-B2": (smp.Unet, "efficientnet-b2"),
    "DeepLabV3, EfficientNet-B2": (smp.DeepLabV3, "efficientnet-b2"),
    "SegFormer, MiT-B2": (smp.Segformer, "mit_b2"),
}
STRIDE = 32
"""Image sides must be multiples of it for the baselines; 518 px are padded to 544."""


def forms(student: Student, calibration: Iterable[np.ndarray], folder: Path) -> dict[str, RunTiles]:
    """`student` as each runtime runs it (see `RunTiles`), by name, eager first.

    Writes into `folder` what the pipeline's own commands would: a student and its exports.
    """
    save_student(student, folder / "student")
    for name in ("onnx", "onnx_int8", "openvino", "openvino_int8"):
        (folder / name).mkdir()
    to_onnx(student, None, folder / "onnx/student.onnx")
    to_int8(folder / "onnx/student.onnx", None, calibration, folder / "onnx_int8/student.onnx")
    for name, int8 in (("", False), ("_int8", True)):
        path = folder / f"onnx{name}/student.onnx"
        about = metadata_of(student.config, ARGMAX, "benchmark", int8, None, {})
        embed(path, about)
        to_openvino(path, about, folder / f"openvino{name}/student.xml")
    return {
        "eager": as_pipeline(torch_runner(folder / "student", "cpu")),
        "ONNX Runtime": open_onnx(folder / "onnx")[1],
        "OpenVINO": open_openvino(folder / "openvino")[1],
        "ONNX Runtime, INT8": open_onnx(folder / "onnx_int8")[1],
        "OpenVINO, INT8": open_openvino(folder / "openvino_int8")[1],
    }


def plain(student: Student) -> RunTiles:
    """The reference with the student's weights."""
    network = plain_of(student)
    return as_usual(from_torch(lambda images: network(images).fine))


def compiled(student: Student) -> tuple[dict[str, RunTiles], dict[str, str]]:
    """The student through torch.compile, or why not, by name."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return {}, {"compiled": "torch.compile needs a C++ compiler, and none is installed"}
    return {"compiled": as_usual(no_grad(torch.compile(TileNetwork(student))))}, {}


def baselines(classes: int) -> dict[str, RunTiles]:
    """The paper's baselines at B2 size with random weights; images are padded, logits cropped back."""
    torch.manual_seed(0)
    return {
        name: as_usual(from_torch(Padded(make(encoder, encoder_weights=None, classes=classes)).eval()))
        for name, (make, encoder) in BASELINES.items()
    }


class Padded(nn.Module):
    """`network` for sides that are not multiples of STRIDE."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        padded = nn.functional.pad(images, (0, -width % STRIDE, 0, -height % STRIDE))
        return self.network(padded)[..., :height, :width]


def from_torch(network: Callable[[torch.Tensor], torch.Tensor]) -> RunTiles:
    """A network of (B, 3, S, S) in [0, 1] as a function of tiles."""
    return no_grad(lambda tiles: network(tiles.permute(0, 3, 1, 2).contiguous() / 255))


def no_grad(network: Callable[[torch.Tensor], torch.Tensor]) -> RunTiles:
    """A network of (B, S, S, 3) tensors as a function of arrays."""

    @torch.inference_mode()
    def run(tiles: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(tiles)).numpy()

    return run
