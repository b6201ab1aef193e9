"""What prevents TensorRT from building an engine from an ONNX model, as far as the model itself shows it.

Limits are those of the parser of TensorRT 10 (github.com/onnx/onnx-tensorrt, docs/operators.md). An empty list does
not prove that trtexec builds an engine.
"""

import onnx
from onnx import TensorProto, shape_inference

OPSETS = range(9, 23)
UNSUPPORTED = frozenset({"Loop", "Scan", "If", "SequenceAt", "SequenceConstruct", "StringNormalizer", "Unique"})
"""Operators that PyTorch's exporter may write and that TensorRT does not support, or only in part."""


def obstacles(model: onnx.ModelProto) -> list[str]:
    """One sentence per finding; empty where there is none."""
    found = []
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            if any(node.domain == entry.domain for node in model.graph.node):
                found.append(f"operators of the domain {entry.domain}")
        elif entry.version not in OPSETS:
            found.append(f"opset {entry.version}; it reads {OPSETS[0]} to {OPSETS[-1]}")
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
