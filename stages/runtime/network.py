"""A trained student as a function of tiles, run by PyTorch, ONNX Runtime, OpenVINO or TensorRT, imported when used."""

import hashlib
import importlib
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from stages.common.errors import UserError
from stages.common.params import DIGESTS, check_digests, read_json
from stages.runtime.metadata import SECTION, Metadata, read_metadata
from stages.student.config import ViewParams, read_student
from stages.student.decision import ARGMAX, Decision, read_decision
from stages.student.tiling import Prediction, RunTiles, predict


@dataclass(frozen=True)
class Network:
    """A network ready to run. `white_level`: see `Metadata`. `identity`: of weights, precision and decision,
    equal for a student and its float32 exports. `batch`: tiles in each call of its graph, None: any number; `run`
    takes any number in both cases."""

    names: list[str]
    view: ViewParams
    white_level: float | None
    decision: Decision
    identity: str
    run: RunTiles
    batch: int | None = None

    def predict(self, image: np.ndarray) -> Prediction:
        """Labels and confidence of `image`, (H, W, 3) uint8 RGB."""
        return predict(self.run, image, len(self.names), self.view, self.decision, batch=self.batch or 1)


class OperatingPoint(StrEnum):
    """How probabilities become masks: as was chosen for the student, or by argmax."""

    saved = "saved"
    argmax = "argmax"


PointOption = Annotated[OperatingPoint, typer.Option(help="Thresholds chosen for the student, or argmax.")]


def open_network(folder: Path, device: str, point: OperatingPoint = OperatingPoint.saved) -> Network:
    """The network in `folder`, ready to run: a trained student by PyTorch, an export by ONNX Runtime, OpenVINO or
    TensorRT, whichever its file is for. Raises UserError where the folder holds none, several, or a damaged one.

    `device`: auto, cpu or cuda. TensorRT uses the GPU, ONNX Runtime and OpenVINO the CPU; another one is refused.
    """
    exported = [name for name in (*OPENERS, "student.safetensors") if (folder / name).is_file()]
    if len(exported) > 1:
        raise UserError(f"{folder}: holds {' and '.join(exported)}: give each model a folder of its own")
    check_digests(folder, "export the student again")
    if exported and exported[0] in OPENERS:
        if device not in ("auto", own := "cuda" if exported == ["student.engine"] else "cpu"):
            raise UserError(f"--device {device}: {folder / exported[0]} runs on {own}; allowed are auto and {own}")
        about, run = OPENERS[exported[0]](folder)
        # an engine is not built by `export`; a student holds the SHA-256 of its weights itself
        if exported != ["student.engine"] and not (folder / DIGESTS).is_file():
            told = "missing; a damaged export is known by it: copy it too, or export again"
            raise UserError(f"{folder / DIGESTS}: {told}")
        names, view, white = about.names, about.view, about.white_level
        decision, identity, batch = about.decision, about.identity, about.batch
    else:
        folder = student_folder(folder)
        config, weights_sha256 = read_student(folder)
        decision, identity = read_decision(folder, len(config.names)), weights_sha256[:12]
        names, view, white = config.names, config.view, config.white_level
        run, batch = torch_runner(folder, device), None
    if point is OperatingPoint.argmax:
        decision = Decision(temperature=decision.temperature)
    if decision != ARGMAX:
        identity += "-" + hashlib.sha256(decision.model_dump_json().encode()).hexdigest()[:6]
    return Network(names, view, white, decision, identity, run, batch)


def student_folder(folder: Path) -> Path:
    """`folder` itself, or the only student below it. Raises UserError where it holds several seeds, an export,
    or none."""
    if (folder / "student.json").is_file():
        return folder
    for exported in OPENERS:
        if (folder / exported).is_file():
            raise UserError(f"{folder}: holds an export, {exported}; needed is its student, such as data/models/RUN")
    seeds = sorted(path.parent for path in folder.glob("*/student.json"))
    if len(seeds) != 1:
        found = f"students of {len(seeds)} seeds, name one of {', '.join(map(str, seeds))}" if seeds else _none(folder)
        raise UserError(f"{folder}: holds {found}")
    return seeds[0]


def _none(folder: Path) -> str:
    """That `folder` has no student, and which runs in it, or else beside it, have some, as in data/models."""
    runs = sorted({path.parent.parent for path in folder.glob("*/*/student.json")})
    runs = runs or sorted({path.parent.parent for path in folder.parent.glob("*/*/student.json")})
    named = f"name one of {', '.join(map(str, runs))}" if runs else f"{folder.parent} has none either"
    return f"no student; {named}; `dvc repro` trains the rows of params.yaml into data/models"


def torch_runner(folder: Path, device: str) -> RunTiles:
    """The student in `folder`, run by PyTorch."""
    # Imported here and nowhere else between images and masks: the other runtimes work without PyTorch.
    try:
        from stages.compute.device import device_of, make_deterministic
        from stages.student.inference import tile_runner
        from stages.student.segmenter import load_student
    except ImportError as error:
        export = "run `python -m stages.export` there, and predict with what it writes"
        raise UserError(f"{folder}: needs PyTorch, as in the pipeline's environment ({error}); {export}") from None
    make_deterministic()
    return tile_runner(load_student(folder).to(device_of(device)))


def open_onnx(folder: Path) -> tuple[Metadata, RunTiles]:
    """The export in `folder`, run by ONNX Runtime on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{folder}: needs the package onnxruntime: {error}") from None
    path = folder / "student.onnx"
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime's errors have no common base class
        raise UserError(f"{path}: not a readable ONNX model: {' '.join(str(error).split())[:300]}") from None
    about = read_metadata(session.get_modelmeta().custom_metadata_map, str(path))
    ends = {end.name: end.shape for end in (*session.get_inputs(), *session.get_outputs())}
    _check_ends(ends.get("images", []), ends.get("logits", []), about, str(path))
    return about, in_batches_of(about.batch, lambda tiles: session.run(["logits"], {"images": tiles})[0])


def open_openvino(folder: Path) -> tuple[Metadata, RunTiles]:
    """The export in `folder`, run by OpenVINO on the CPU."""
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"{folder}: needs the package openvino: {error}") from None
    path = folder / "student.xml"
    # By default OpenVINO computes in bfloat16 where the processor has it: other masks on another machine.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    try:
        model = openvino.Core().read_model(path)
        compiled = openvino.Core().compile_model(model, "CPU", exact)
    except RuntimeError as error:
        raise UserError(f"{path}: not a readable OpenVINO model: {' '.join(str(error).split())[:300]}") from None
    embedded = model.get_rt_info(SECTION).value if model.has_rt_info(SECTION) else {}
    about = read_metadata(embedded, str(path))
    ends = [
        [size.get_length() if size.is_static else "any" for size in end[0].get_partial_shape()] if len(end) == 1 else []
        for end in (compiled.inputs, compiled.outputs)
    ]
    _check_ends(*ends, about, str(path))
    return about, in_batches_of(about.batch, lambda tiles: compiled(tiles)[0])


def _check_ends(images: list, logits: list, about: Metadata, where: str) -> None:
    """Raises UserError where the shapes of a graph's input and output, except for the batch, contradict its metadata.

    Sizes that are not fixed are given as text; any is allowed."""
    side, classes = about.size_px, len(about.names)
    for name, own, wanted in (("images", images, (side, side, 3)), ("logits", logits, (classes + 1, side, side))):
        fits = [not isinstance(size, int) or size == want for size, want in zip(own[1:], wanted, strict=False)]
        if len(own) != 4 or not all(fits):
            told = f"{name} are {own or 'missing'}, by its metadata (batch, {', '.join(map(str, wanted))})"
            raise UserError(f"{where}: {told}; export the student again")


def open_tensorrt(folder: Path) -> tuple[Metadata, RunTiles]:
    """The engine in `folder`, which trtexec built from an ONNX export, on the GPU; `export.json` beside it is that
    export's. Not tested yet: see docs/predict.md."""
    try:
        # NVIDIA's package, under a licence of its own, is no dependency of this project
        tensorrt, torch = importlib.import_module("tensorrt"), importlib.import_module("torch")
    except ImportError as error:
        raise UserError(f"{folder}: needs the packages tensorrt and torch: {error}") from None
    path, described = folder / "student.engine", folder / "export.json"
    values = read_json(described, "copy that of the ONNX export")
    about = read_metadata({name: json.dumps(value) for name, value in values.items()}, str(described))
    engine = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise UserError(f"{path}: not an engine for this GPU and this version of TensorRT; build it here by trtexec")
    context = engine.create_execution_context()

    def run(tiles: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(np.ascontiguousarray(tiles)).cuda()
        shape = len(tiles), len(about.names) + 1, about.size_px, about.size_px
        logits = torch.empty(shape, dtype=torch.float32, device="cuda")
        context.set_input_shape("images", tuple(images.shape))
        for name, tensor in (("images", images), ("logits", logits)):
            context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream()
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return logits.cpu().numpy()

    batch = about.batch or engine.get_tensor_profile_shape("images", 0)[2][0]
    return about.model_copy(update={"batch": batch}), in_batches_of(batch, run)


def in_batches_of(batch: int | None, run: RunTiles) -> RunTiles:
    """`run`, which takes exactly `batch` tiles, for any number of tiles: the last batch is filled with copies."""
    if batch is None:
        return run

    def run_any(tiles: np.ndarray) -> np.ndarray:
        missing = -len(tiles) % batch
        filled = np.concatenate([tiles, np.repeat(tiles[-1:], missing, axis=0)])
        parts = [run(filled[start : start + batch]) for start in range(0, len(filled), batch)]
        return np.concatenate(parts)[: len(tiles)]

    return run_any


OPENERS = {"student.onnx": open_onnx, "student.xml": open_openvino, "student.engine": open_tensorrt}
"""The file that an export holds, and what opens its folder."""
