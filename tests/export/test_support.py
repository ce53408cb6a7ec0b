"""On which runtimes the ops of a file run, by the table, and that the table is true as far as something here can say."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from embridge_edge.errors import EdgeError
from embridge_edge.export.support import OpSupport, op_support
from embridge_edge.firmware_bridge.lowering.table import INSTEAD, LOWERINGS
from embridge_edge.hardware.target import runtimes
from tests.firmware_bridge.single_op import Spec, model_of


def of(op: str, kind: str = "int8") -> dict[str, OpSupport]:
    """By runtime, for a `.tflite` with one op of one input and one output."""
    scales = (None, None) if kind == "float32" else (0.5, 0.25)
    model = model_of(op, [Spec((1, 4), kind, scales[0])], [Spec((1, 4), kind, scales[1])])
    return {one.runtime: one for one in op_support(model)}


def test_an_op_that_every_runtime_has_runs() -> None:
    assert {one.status for one in of("RELU").values()} == {"runs"}
    assert set(of("RELU")) == {"litert", "tflm", "c", "ethos-u"}


def test_what_a_runtime_lacks_comes_first_with_what_to_use() -> None:
    found = of("GELU")
    assert next(iter(found.values())).status == "lacks"
    assert found["tflm"].text() == "1 GELU (int8): not run by TensorFlow Lite Micro; use RELU or HARD_SWISH"
    assert found["litert"].status == found["c"].status == found["ethos-u"].status == "runs"
    assert of("DIV")["ethos-u"].text().startswith("1 DIV (int8): left to the processor by Ethos-U55 and U65")


def test_a_float_op_is_to_be_quantized_where_only_int8_runs() -> None:
    found = of("TANH", "float32")
    assert found["c"].status == found["ethos-u"].status == "lacks"
    assert found["c"].says == "quantize the model to int8"
    assert found["tflm"].status == "runs"


def test_of_sixteen_bits_the_table_says_that_it_knows_nothing() -> None:
    found = of("SOFTMAX", "int16")
    assert found["tflm"].status == found["c"].status == "remark" and found["c"].says.startswith("16-bit kernels")
    assert (
        found["ethos-u"].says.startswith("width times height") and "keep its layer out of wide" in found["ethos-u"].says
    )
    assert found["litert"].status == "runs"


def test_the_table_of_our_own_c_is_what_the_generator_lowers() -> None:
    ops = runtimes()["c"].ops
    assert ops is not None and set(ops) == set(LOWERINGS)


def test_what_is_to_be_used_instead_runs_there_and_is_said_only_of_what_is_lacking() -> None:
    for runtime in runtimes().values():
        assert runtime.source and runtime.title
        assert set(runtime.remarks) <= set(runtime.ops or runtime.remarks)
        for op, instead in runtime.instead.items():
            assert runtime.lacks([op]) == (op,), (runtime.name, op)
            named = [word for word in instead.replace(",", "").split() if word.isupper() and word not in ("LOGRMS",)]
            assert not runtime.lacks(named), (runtime.name, op, instead)
    assert not set(INSTEAD) & set(LOWERINGS)


def test_onnx_runs_on_onnx_runtime() -> None:
    graph = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["y"])], "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    (only,) = op_support(model.SerializeToString())
    assert (only.runtime, only.op, only.status) == ("onnxruntime", "Gelu", "runs")


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(EdgeError, match="no ONNX or TFLite model"):
        op_support(b"nothing of the kind")
