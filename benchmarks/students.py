"""The student as run by each runtime, its plain reference, and the baselines, as functions of tiles."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from benchmarks.plain import plain_of
from benchmarks.timing import as_pipeline, as_usual
from stages.networks.baseline import Network as Baseline
from stages.networks.student import Network as Student
from stages.runtime.graphs import embed, to_int8, to_onnx, to_openvino
from stages.runtime.metadata import metadata_of
from stages.runtime.network import open_onnx, open_openvino, torch_runner
from stages.student.config import NetworkConfig, ViewParams
from stages.student.decision import ARGMAX
from stages.student.segmenter import save_student
from stages.student.tiling import RunTiles

PLAIN = "plain reference"
BASELINES = {
    "Unet, EfficientNet-B2": {"design": "unet", "encoder": "efficientnet-b2"},
    "DeepLabV3, EfficientNet-B2": {"design": "deeplabv3", "encoder": "efficientnet-b2"},
    "SegFormer, MiT-B2": {"design": "segformer", "encoder": "mit_b2"},
}


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


def baselines(classes: int) -> dict[str, RunTiles]:
    """The paper's baselines at B2 size, with the package's own width of the decoder and random weights."""
    torch.manual_seed(0)
    fixed = {"architecture": "baseline", "encoder_weights": None, "decoder_width": 256}
    names, view = [f"class {number}" for number in range(1, classes)], ViewParams(scale="stretch", size_px=518)
    networks = {
        name: Baseline(NetworkConfig(names=names, network=fixed | own, view=view, backbone=None, plan_sha256="")).eval()
        for name, own in BASELINES.items()
    }
    return {
        name: as_usual(from_torch(lambda images, network=network: network(images, with_binary=False).fine))
        for name, network in networks.items()
    }


def from_torch(network: Callable[[torch.Tensor], torch.Tensor]) -> RunTiles:
    """A network of (B, 3, S, S) in [0, 1] as a function of tiles."""

    @torch.inference_mode()
    def run(tiles: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous() / 255).numpy()

    return run
