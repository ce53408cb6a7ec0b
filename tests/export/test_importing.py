"""Every op of the table computes what ONNX Runtime computes, and takes the way to int8 where it is said to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from embridge_edge.errors import EdgeError
from embridge_edge.export.importing import ImportedModel, _node, import_onnx, refuse_float_only, run_apart
from embridge_edge.export.onnx_ops import FLOAT_ONLY, INSTEAD, OPS
from embridge_edge.export.onnx_patterns import with_gelu
from embridge_edge.export.quantizing import quantize_tflite
from embridge_edge.export.running import run_onnx
from embridge_edge.export.tflite import to_tflite
from embridge_edge.firmware_bridge.graph import op_counts, read_graph

Floats = npt.NDArray[np.float32]

SIGNAL = (1, 4, 20)
"""Batch, channels, time."""
IMAGE = (1, 3, 6, 10)
RNG = np.random.default_rng(0)


def weights(*shape: int) -> Floats:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


# op, shape of its input, constants behind the input ("" leaves one out), attributes
CASES: list[tuple[str, tuple[int, ...], list[Any], dict[str, Any]]] = [
    *((op, SIGNAL, [], {}) for op in ("Abs", "Elu", "Exp", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSwish", "Identity",
                                      "LeakyRelu", "LogSoftmax", "Neg", "Relu", "Sigmoid", "Softmax", "Tanh")),
    ("Gelu", SIGNAL, [], {"approximate": "tanh"}),
    ("HardSigmoid", SIGNAL, [], {"alpha": 0.25, "beta": 0.4}),
    ("LeakyRelu", SIGNAL, [], {"alpha": 1.5}),
    ("Softmax", SIGNAL, [], {"axis": 1}),
    ("Dropout", SIGNAL, [], {}),
    ("Cast", SIGNAL, [], {"to": TensorProto.FLOAT}),
    *((op, SIGNAL, [weights(4, 1)], {}) for op in ("Add", "Mul", "Sub", "Max", "Min", "Sum", "Mean")),
    ("Add", SIGNAL, [weights(20)], {}),
    ("Div", SIGNAL, [np.abs(weights(1, 4, 1)) + 1.0], {}),
    ("Pow", SIGNAL, [np.float32(2.0)], {}),
    ("Pow", SIGNAL, [np.float32(3.0)], {}),
    ("PRelu", SIGNAL, [weights(4, 1)], {}),
    ("Clip", SIGNAL, [np.float32(-0.5), np.float32(0.75)], {}),
    ("Clip", SIGNAL, [np.float32(0.0), np.float32(6.0)], {}),
    ("Clip", SIGNAL, [np.float32(0.0)], {}),
    ("BatchNormalization", SIGNAL, [weights(4), weights(4), weights(4), np.abs(weights(4)) + 0.5], {"epsilon": 1e-3}),
    ("LayerNormalization", SIGNAL, [weights(20), weights(20)], {"epsilon": 1e-4}),
    ("LayerNormalization", SIGNAL, [weights(4, 20)], {"axis": 1}),
    ("MatMul", SIGNAL, [weights(20, 7)], {}),
    ("MatMul", SIGNAL, [weights(1, 20, 7)], {}),
    ("Gemm", (1, 9), [weights(9, 5), weights(5)], {}),
    ("Gemm", (1, 9), [weights(5, 9), weights(1, 5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Conv", SIGNAL, [weights(6, 4, 5), weights(6)], {"pads": [2, 2]}),
    ("Conv", SIGNAL, [weights(6, 4, 3)], {"pads": [4, 0], "dilations": [2]}),
    ("Conv", SIGNAL, [weights(4, 1, 4)], {"group": 4, "strides": [2], "auto_pad": "SAME_UPPER"}),
    ("Conv", SIGNAL, [weights(4, 1, 4)], {"group": 4, "strides": [3], "auto_pad": "SAME_LOWER"}),
    ("Conv", SIGNAL, [weights(2, 4, 5)], {"auto_pad": "VALID"}),
    ("Conv", IMAGE, [weights(5, 3, 3, 4)], {"pads": [1, 0, 1, 2], "strides": [2, 1]}),
    ("MaxPool", SIGNAL, [], {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ("MaxPool", SIGNAL, [], {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}),
    ("MaxPool", IMAGE, [], {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("AveragePool", SIGNAL, [], {"kernel_shape": [4], "strides": [4]}),
    ("AveragePool", SIGNAL, [], {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}),
    ("AveragePool", SIGNAL, [], {"kernel_shape": [3], "pads": [1, 1], "count_include_pad": 1}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    *((op, SIGNAL, [ints(-1)], {"keepdims": 0}) for op in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")),
    ("ReduceMean", SIGNAL, [], {}),
    ("ReduceMean", IMAGE, [ints(2, 3)], {"keepdims": 1}),
    ("Reshape", SIGNAL, [ints(0, 2, -1)], {}),
    ("Flatten", SIGNAL, [], {}),
    ("Flatten", IMAGE, [], {"axis": 2}),
    ("Transpose", SIGNAL, [], {"perm": [0, 2, 1]}),
    ("Squeeze", (1, 4, 1, 20), [ints(2)], {}),
    ("Unsqueeze", SIGNAL, [ints(1, -1)], {}),
    ("Concat", SIGNAL, [weights(1, 4, 3)], {"axis": 2}),
    ("Concat", SIGNAL, [weights(1, 2, 20)], {"axis": -2}),
    ("Concat", SIGNAL, [weights(1, 4, 3)], {"axis": -1}),
    ("Slice", SIGNAL, [ints(-15, 1), ints(2**62, 3), ints(2, 1), ints(2, 1)], {}),
    ("Slice", SIGNAL, [ints(0), ints(1)], {}),
    ("Split", SIGNAL, [ints(1, 3)], {"axis": 1}),
    ("Gather", SIGNAL, [np.array(-1, np.int64)], {"axis": 2}),
    ("Gather", SIGNAL, [ints(0, 2, 1)], {"axis": 1}),
    ("Pad", SIGNAL, [ints(0, 1, 4, 0, 0, 2), np.float32(0.5)], {}),
    ("Pad", SIGNAL, [ints(3, 0), "", ints(-1)], {}),
    ("Expand", (1, 4, 1), [ints(1, 1, 20)], {}),
    ("Log", SIGNAL, [], {}),
    ("Sqrt", SIGNAL, [], {}),
]  # fmt: skip


def model(op: str, shape: tuple[int, ...], constants: list[Any], attributes: dict[str, Any], *, over_time: bool) -> onnx.ModelProto:  # fmt: skip
    """One op; with `over_time` behind a convolution over time, whose output is kept as an image of one row."""
    nodes, initializers, source = [], [], "x"
    if over_time:
        initializers.append(numpy_helper.from_array(np.eye(shape[1], dtype=np.float32)[:, :, None], "kernel"))
        nodes.append(helper.make_node("Conv", ["x", "kernel"], ["row"]))
        source = "row"
    if op in ("Log", "Sqrt"):
        initializers.append(numpy_helper.from_array(np.float32(4.5), "shift"))
        nodes.append(helper.make_node("Add", [source, "shift"], ["positive"]))
        source = "positive"
    names = [source]
    for at, value in enumerate(constants):
        names.append("" if isinstance(value, str) else f"c{at}")
        if not isinstance(value, str):
            initializers.append(numpy_helper.from_array(np.asarray(value), f"c{at}"))
    outputs = ["other", "y"] if op == "Split" else ["y"]
    nodes.append(helper.make_node(op, names, outputs, name="the_op", **attributes))
    graph = helper.make_graph(
        nodes, "one", [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], initializers,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def imported(made: onnx.ModelProto, shape: tuple[int, ...]) -> ImportedModel:
    """With an input as the graph has it."""
    return import_onnx(made, "x", shape, lambda x: x, "y")


def label(case: tuple[str, tuple[int, ...], list[Any], dict[str, Any]]) -> str:
    return "-".join([case[0], *(f"{key}={value}" for key, value in case[3].items())])


@pytest.mark.parametrize(
    ("case", "over_time"),
    [pytest.param(case, over_time, id=f"{label(case)}{'-over-time' * over_time}")
     for case in CASES for over_time in (False, True) if case[1] == SIGNAL or not over_time],
)  # fmt: skip
def test_op_computes_what_onnx_runtime_computes(case: Any, over_time: bool) -> None:
    made = model(*case, over_time=over_time)
    module = imported(made, case[1])
    x = np.clip(np.random.default_rng(1).standard_normal(case[1]), -4, 4).astype(np.float32)
    with torch.no_grad():
        run_apart(module, torch.from_numpy(x))
        got = module(torch.from_numpy(x)).numpy()
    expected = run_onnx(made.SerializeToString(), x)
    assert got.size == expected.size
    np.testing.assert_allclose(got.reshape(-1), expected.reshape(-1), rtol=1e-4, atol=2e-5)


def test_a_constant_over_a_tensor_is_refused_because_the_converter_turns_it_round() -> None:
    """It makes of c / conv(x) what conv(x) / c is; when this fails, the refusal can go."""

    class Over(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)
            self.two = torch.nn.Buffer(torch.tensor([2.0]))  # of a number torch makes a Reciprocal
            torch.nn.init.constant_(self.conv.bias, 9.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two / self.conv(x)

    with pytest.raises(EdgeError, match="The converted model differs from the torch module"):
        to_tflite(Over().eval(), IMAGE)
    made = exported(Over(), torch.ones(IMAGE))
    module = import_onnx(made, made.graph.input[0].name, IMAGE, lambda x: x, made.graph.output[0].name)
    with pytest.raises(
        EdgeError, match=r"\(Div\) cannot be converted to TFLite here \(it divides a constant by a tensor\)"
    ):
        run_apart(module, torch.ones(IMAGE))


def test_every_op_of_the_table_is_tested() -> None:
    assert {case[0] for case in CASES} == set(OPS)
    assert not set(INSTEAD) & set(OPS)
    assert set(FLOAT_ONLY) <= set(OPS)


@pytest.mark.slow
@pytest.mark.parametrize("op", sorted(set(OPS) - {"Identity", "Dropout", "Cast"}))
def test_op_has_int8_kernels_unless_it_is_said_not_to(op: str) -> None:
    """Between a convolution and a fully connected layer, which a graph has anyhow."""
    op_name, shape, constants, attributes = next(case for case in CASES if case[0] == op)
    made = model(op_name, shape, constants, attributes, over_time=shape == SIGNAL)
    if op == "Pow":
        made = model("Pow", SIGNAL, [np.float32(3.0)], {}, over_time=True)
    module = imported(made, shape)
    tail = torch.nn.Linear(module(torch.ones(shape)).shape[1], 5)
    network = torch.nn.Sequential(module, tail).eval()
    x = np.clip(np.random.default_rng(1).standard_normal((16, *shape[1:])), -4, 4).astype(np.float32)
    bare = to_tflite(network, shape)
    if op in FLOAT_ONLY:
        with pytest.raises(EdgeError, match="has no int8 kernel; use"):
            refuse_float_only(module)
        with pytest.raises(EdgeError, match=r"stayed float|cannot be quantized"):
            quantize_tflite(bare, x, most_transposes=99)
        return
    refuse_float_only(module)
    quantize_tflite(bare, x, most_transposes=99)


def test_convolutions_over_time_need_no_transposition_between_them() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["one"], pads=[2, 2]),
        helper.make_node("Relu", ["one"], ["two"]),
        helper.make_node("MaxPool", ["two"], ["three"], kernel_shape=[2], strides=[2]),
        helper.make_node("Conv", ["three", "b"], ["four"], pads=[1, 1]),
        helper.make_node("Add", ["four", "three"], ["five"]),
        helper.make_node("GlobalAveragePool", ["five"], ["six"]),
        helper.make_node("Flatten", ["six"], ["y"]),
    ]
    constants = [numpy_helper.from_array(weights(8, 4, 5), "a"), numpy_helper.from_array(weights(8, 8, 3), "b")]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    module = import_onnx(made, "x", SIGNAL, lambda windows: windows.permute(0, 2, 1), "y")
    counts = op_counts(read_graph(to_tflite(module, (1, 20, 4))))
    assert counts["CONV_2D"] == 2
    assert counts.get("TRANSPOSE", 0) <= 2  # of the input, and before the residual's sum


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
def test_recurrent_layers_are_refused_with_what_to_use(op: str) -> None:
    net = {"GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM}[op](4, 5, batch_first=True)
    made = exported(net, torch.zeros(1, 20, 4))
    with pytest.raises(
        EdgeError, match=rf"\({op}\) cannot be converted to TFLite here; use convolutions with dilation"
    ):
        import_onnx(made, made.graph.input[0].name, (1, 20, 4), lambda x: x, made.graph.output[0].name)


def exported(net: torch.nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    """A model as torch's older exporter writes it."""
    import io
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (example,), buffer, dynamo=False, opset_version=13)
    return onnx.load_from_string(buffer.getvalue())


def test_what_older_exporters_spell_out_is_found_again() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.LayerNorm(8), torch.nn.GELU(), torch.nn.Linear(8, 3))
    made = exported(net, torch.zeros(1, 6))
    assert {"Erf", "ReduceMean"} <= {node.op_type for node in made.graph.node}
    module = import_onnx(made, made.graph.input[0].name, (1, 6), lambda x: x, made.graph.output[0].name)
    assert [node.op for node in module.nodes] == ["Gemm", "LayerNormalization", "Gelu", "Gemm"]
    x = torch.from_numpy(weights(1, 6))
    torch.testing.assert_close(module(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("divides", [False, True])
@pytest.mark.parametrize("order", ["x(1 + erf), halved", "half x by (1 + erf)", "half (1 + erf) by x"])
def test_gelu_is_found_in_whatever_order_its_factors_come(order: str, divides: bool) -> None:
    """In a model of opset 18, which has no Gelu into which ONNX Runtime could fuse it."""
    products = {
        "x(1 + erf), halved": [("x", "plus", "all"), ("all", "half", "y")],
        "half x by (1 + erf)": [("half", "x", "part"), ("part", "plus", "y")],
        "half (1 + erf) by x": [("plus", "half", "part"), ("x", "part", "y")],
    }[order]
    nodes = [
        helper.make_node("Div" if divides else "Mul", ["x", "root"], ["u"]),
        helper.make_node("Erf", ["u"], ["erf"]),
        helper.make_node("Add", ["one", "erf"], ["plus"]),
        *(helper.make_node("Mul", [a, b], [c]) for a, b, c in products),
    ]
    values = {"root": 2.0**0.5 if divides else 0.5**0.5, "one": 1.0, "half": 0.5}
    graph = helper.make_graph(
        nodes, "gelu", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 9])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 9])],
        [numpy_helper.from_array(np.float32(value), name) for name, value in values.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    raw = [_node(one, {name: np.float32(value) for name, value in values.items()}) for one in graph.node]
    assert [node.op for node in with_gelu(raw, "y")] == ["Gelu"]
    module = imported(made, (1, 9))
    assert [node.op for node in module.nodes] == ["Gelu"]
    x = weights(1, 9)
    np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), run_onnx(made.SerializeToString(), x), atol=1e-6)


def test_what_only_looks_like_gelu_stays_and_is_refused() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "root"], ["u"]), helper.make_node("Erf", ["u"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["plus"]), helper.make_node("Mul", ["x", "plus"], ["all"]),
        helper.make_node("Mul", ["all", "third"], ["y"]),
    ]  # fmt: skip
    values = {"root": 0.5**0.5, "one": 1.0, "third": 1.0 / 3.0}
    raw = [_node(one, {name: np.float32(value) for name, value in values.items()}) for one in nodes]
    assert [node.op for node in with_gelu(raw, "y")] == ["Mul", "Erf", "Add", "Mul", "Mul"]
