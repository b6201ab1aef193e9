"""The student as a file that runs without PyTorch: ONNX or OpenVINO.

Both hold `stages.student.inference.TileNetwork`: `images` (B, S, S, 3) float32 RGB, 0 to 255, to `logits`
(B, K+1, S, S) float32, with the positional embedding fixed for S. Left to the caller: blending of overlapping tiles,
softmax and argmax (`stages.student.tiling`); the embedded `stages.runtime.metadata` says how.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import openvino
import torch
from onnx import TensorProto, shape_inference
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from stages.common.errors import UserError
from stages.runtime.calibration import stacks
from stages.runtime.metadata import SECTION, Metadata
from stages.student.inference import TileNetwork
from stages.student.segmenter import Segmenter

OPSET = 18

TENSORRT_OPSETS = range(9, 23)
UNSUPPORTED = frozenset({"Loop", "Scan", "If", "SequenceAt", "SequenceConstruct", "StringNormalizer", "Unique"})
"""Operators that PyTorch's exporter may write and that TensorRT does not support, or only in part."""


def to_onnx(student: Segmenter, batch: int | None, path: Path) -> None:
    """Write an ONNX model, weights inside, for `batch` tiles at once (None: any number). Same student, same bytes.

    Raises UserError for a network with an operation that PyTorch cannot write as ONNX.
    """
    try:
        with _quiet():
            exported = torch.onnx.export(
                _program(student, batch),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        while error.__cause__:  # the first says what is missing
            error = error.__cause__
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UserError(f"PyTorch cannot export this network to ONNX ({reason})") from None
    model = exported.model_proto
    # PyTorch adds where each node comes from: file names and line numbers of this machine.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def to_int8(path: Path, batch: int | None, tiles: Iterable[np.ndarray], into: Path) -> None:
    """Quantise the ONNX model at `path` for CPUs, with ranges calibrated on (S, S, 3) float32 `tiles`.

    Only convolutions and matrix products with weights are quantised. The two products of attention stay in float32:
    quantised, they no longer match the runtimes' fused attention, which costs more time than eight bits save. So do
    convolutions with one filter per channel, whose channels have ranges too different for one scale, and the first
    one, which sees the image. Weights are quantised per channel to seven bits: with eight, CPUs without VNNI overflow.
    """
    with _quiet():
        prepared = into.with_suffix(".prepared.onnx")
        quant_pre_process(path, prepared)
        quantize_static(
            prepared,
            into,
            _Tiles(tiles, batch or 1),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=_in_float32(onnx.load(prepared).graph),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        prepared.unlink()


def _in_float32(graph: onnx.GraphProto) -> list[str]:
    """Names of the matrix products without a weight, the first convolution, and those of one filter per channel."""
    weights = {weight.name for weight in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and weights.isdisjoint(node.input)]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    groups = [next((one.i for one in node.attribute if one.name == "group"), 1) for node in convolutions]
    depthwise = [node for node, count in zip(convolutions, groups, strict=True) if count > 1]
    return [node.name for node in (*products, *convolutions[:1], *depthwise)]


def embed(path: Path, about: Metadata) -> None:
    """Replace the metadata of the ONNX model at `path`."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, about.as_properties())
    path.write_bytes(model.SerializeToString(deterministic=True))


def to_openvino(onnx_path: Path, about: Metadata, path: Path) -> None:
    """Write `path`, an .xml, and its .bin from an ONNX model, in its own precision."""
    model = openvino.convert_model(onnx_path)
    for name, value in about.as_properties().items():
        model.set_rt_info(value, [SECTION, name])
    openvino.save_model(model, path, compress_to_fp16=False)


def obstacles(model: onnx.ModelProto) -> list[str]:
    """What prevents TensorRT from building an engine from `model`, as far as it shows: one sentence per finding.

    Limits are those of the parser of TensorRT 10 (github.com/onnx/onnx-tensorrt, docs/operators.md). Without a finding
    it is not proven that trtexec builds an engine.
    """
    found = []
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            if any(node.domain == entry.domain for node in model.graph.node):
                found.append(f"operators of the domain {entry.domain}")
        elif entry.version not in TENSORRT_OPSETS:
            found.append(f"opset {entry.version}; it reads {TENSORRT_OPSETS[0]} to {TENSORRT_OPSETS[-1]}")
    kinds = sorted({node.op_type for node in model.graph.node} & UNSUPPORTED)
    found += [f"operator {kind}" for kind in kinds]
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    for value in (*inferred.input, *inferred.output):
        loose = [place for place, size in enumerate(value.type.tensor_type.shape.dim) if not size.HasField("dim_value")]
        if set(loose) - {0} or not value.type.tensor_type.HasField("shape"):
            found.append(f"{value.name}: sizes other than that of the batch are not fixed")
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    if TensorProto.DOUBLE in types.values():
        found.append("weights of 64-bit floats")
    quantised = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if any(types.get(node.input[2]) == TensorProto.UINT8 for node in quantised if len(node.input) > 2):
        found.append("unsigned 8-bit activations, which are for CPUs; it quantises to signed ones itself")
    return found


class _Tiles(CalibrationDataReader):
    def __init__(self, tiles: Iterable[np.ndarray], batch: int) -> None:
        self.batch, self.stacks = batch, stacks(tiles, batch)

    def get_next(self) -> dict[str, np.ndarray] | None:
        stack = next(self.stacks, None)
        # the last batch repeats its own tiles: the ranges stay the same
        return None if stack is None else {"images": np.resize(stack, (self.batch, *stack.shape[1:]))}


def _program(student: Segmenter, batch: int | None) -> torch.export.ExportedProgram:
    size = student.config.view.size_px
    # two images, because a batch of one would be taken for a constant
    images = torch.zeros(batch or 2, size, size, 3)
    dynamic = None if batch else {"images": {0: torch.export.Dim("batch", min=1)}}
    return torch.export.export(TileNetwork(student).eval(), (images,), dynamic_shapes=dynamic)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' warnings and prints about their own internals; errors are raised."""
    levels = {name: logging.getLogger(name).level for name in ("", "torch.onnx")}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
