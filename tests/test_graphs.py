"""Graphs of a student: which become ONNX, what INT8 leaves in float32, and what TensorRT would refuse."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from stages.common.errors import UserError
from stages.common.params import write_digests
from stages.runtime import graphs
from stages.runtime.metadata import metadata_of, read_metadata
from stages.runtime.network import open_network
from stages.student.decision import ARGMAX, Decision
from tests.support.tiny_student import TINY, image_of, student


def test_in_int8_the_first_and_the_depthwise_convolutions_stay_in_float32(tmp_path):
    """One convolution of each kind, first an ordinary one."""
    kinds = {"first": ((4, 3, 1, 1), 1), "depthwise": ((4, 1, 1, 1), 4), "last": ((3, 4, 1, 1), 1)}
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=shape).astype("f4"), name) for name, (shape, _) in kinds.items()]
    nodes, seen = [helper.make_node("Transpose", ["images"], ["x"], perm=[0, 3, 1, 2])], "x"
    for name, (_, group) in kinds.items():
        out = "logits" if name == "last" else f"{name}_out"
        nodes.append(helper.make_node("Conv", [seen, name], [out], name=f"conv_{name}", group=group))
        seen = out
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", [2, 8, 8, 3]), ("logits", [2, 3, 8, 8]))
    ]
    graph = helper.make_graph(nodes, "kinds", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "x.onnx")
    tiles = [rng.uniform(0, 255, (8, 8, 3)).astype(np.float32) for _ in range(3)]  # the second batch is filled
    graphs.to_int8(tmp_path / "x.onnx", 2, tiles, tmp_path / "int8.onnx")
    made = onnx.load(tmp_path / "int8.onnx").graph
    dequantised = {name for node in made.node if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in made.node if node.op_type == "Conv"]
    assert [node.input[1] in dequantised for node in convolutions] == [False, False, True]


def test_every_side_that_a_student_may_have_becomes_a_graph(tmp_path):
    """With patches of 16 px, or convolutions, it need not be a multiple of 14."""
    ours = student(size_px=64, timm_kwargs=TINY | {"patch_size": 16}).eval()
    graphs.to_onnx(ours, None, tmp_path / "student.onnx")
    graphs.embed(tmp_path / "student.onnx", metadata_of(ours.config, ARGMAX, "0123456789ab", False, None, {}))
    write_digests(tmp_path)
    exported = open_network(tmp_path, "cpu")
    assert exported.view.size_px == 64
    assert exported.predict(image_of((57, 99))).labels.shape == (57, 99)


def test_metadata_come_back_as_they_were_written_and_others_are_refused():
    config = student().config.model_copy(update={"white_level": 4095.0})
    decision = Decision(thresholds=[0.3, 0.4], least_area_px=[2, 3], temperature=2.0)
    about = metadata_of(config, decision, "0123456789ab", True, 3, {"torch": "2"})
    assert (about.white_level, about.identity, about.batch) == (4095, "0123456789ab-int8", 3)
    assert (about.decision, about.view) == (decision, config.view)
    properties = about.as_properties()
    assert read_metadata(properties | {"another": "tool's"}, "it") == about
    for change in ({"metadata_version": "2"}, {"thresholds": "[0.3]"}, {"temperature": "0"}, {"names": "{"}):
        with pytest.raises(UserError, match=r"^it: "):
            read_metadata(properties | change, "it")
    with pytest.raises(UserError, match=r"^it: holds no metadata of this project"):
        read_metadata({"another": "tool's"}, "it")


def test_a_graph_without_an_input_of_the_right_name_is_refused(tmp_path):
    config = student().config
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("pixels", "logits")]
    graph = helper.make_graph([helper.make_node("Relu", ["pixels"], ["logits"])], "x", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "student.onnx")
    graphs.embed(tmp_path / "student.onnx", metadata_of(config, ARGMAX, "0123456789ab", False, None, {}))
    write_digests(tmp_path)
    with pytest.raises(UserError, match=r"student\.onnx: images are missing, by its metadata \(batch, 56, 56, 3\)"):
        open_network(tmp_path, "cpu")


def test_a_network_that_pytorch_cannot_export_is_one_line(tmp_path):
    """Attention over five axes, as timm's Twins has it."""

    class Attention(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.scaled_dot_product_attention(*[x[None]] * 3)[0]

    ours = student().eval()
    ours.mixer = torch.nn.Sequential(ours.mixer, Attention())
    with pytest.raises(UserError, match=r"cannot export this network to ONNX \(AssertionError: only 4D query") as error:
        graphs.to_onnx(ours, None, tmp_path / "student.onnx")
    assert "\n" not in str(error.value)


def test_what_keeps_tensorrt_from_building_an_engine_is_named():
    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def made(opset: int, nodes: list, weights: list = (), side: int | str = 4) -> onnx.ModelProto:
        ends = [[value(name, "batch", side)] for name in ("images", "logits")]
        graph = helper.make_graph(nodes, "x", *ends, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])

    plain = [helper.make_node("Relu", ["images"], ["logits"])]
    scale, zero = (helper.make_tensor(name, kind, [], [1]) for name, kind in (("s", 1), ("z", TensorProto.UINT8)))
    quantised = [
        helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["logits"]),
    ]
    assert graphs.obstacles(made(18, plain)) == []
    for opset in (7, 23):
        assert graphs.obstacles(made(opset, plain)) == [f"opset {opset}; it reads 9 to 22"]
    wide = helper.make_tensor("w", TensorProto.DOUBLE, [1], [1.0])
    assert graphs.obstacles(made(18, plain, [wide])) == ["weights of 64-bit floats"]
    loose = [f"{name}: sizes other than that of the batch are not fixed" for name in ("images", "logits")]
    assert graphs.obstacles(made(18, plain, side="width")) == loose
    assert [found.partition(",")[0] for found in graphs.obstacles(made(18, quantised, [scale, zero]))] == [
        "unsigned 8-bit activations"
    ]
