"""What a converter or a quantizer delivers without an error and is not what was asked for is found by reading it back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.errors import EdgeError
from embridge_edge.export.comparing import RuntimePair, compare_runtimes
from embridge_edge.export.flatbuffer import pack, unpack
from embridge_edge.export.onnx import parsed, quantize_onnx, to_onnx
from embridge_edge.export.quantizing import quantize_tflite, quantized
from embridge_edge.export.ranges import observed, ranges_of
from embridge_edge.export.readback import Asked, faults, refuse_unless_sound
from embridge_edge.export.running import onnx_values, run_onnx, run_tflite
from embridge_edge.export.scales import scale_faults
from embridge_edge.export.shared_scales import shared_scales
from embridge_edge.export.tflite import to_tflite
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.model.transformer_student import TransformerShape, TransformerStudent
from embridge_edge.recipe import OBSERVERS, QuantizePlan

if TYPE_CHECKING:
    from conftest import Exported

FLOAT, INT8 = Asked((80, 8), (64,), int8=False), Asked((80, 8), (64,), int8=True)


@pytest.mark.parametrize(
    ("which", "asked"),
    [("float_tflite", FLOAT), ("int8_tflite", INT8), ("float_onnx", FLOAT), ("int8_onnx", INT8)],
)
def test_every_file_of_a_student_is_what_was_asked_for(exported: Exported, which: str, asked: Asked) -> None:
    assert faults(getattr(exported, which), asked, exported.calibration) == []


@pytest.mark.parametrize("observer", OBSERVERS)
def test_scales_are_those_of_the_ranges(exported: Exported, observer: Any) -> None:
    seen = observed(exported.float_tflite, exported.calibration)
    ranges = ranges_of(exported.float_tflite, seen, QuantizePlan(observer=observer))
    asked = dataclasses.replace(INT8, ranges=ranges, wide=("02_conv_2d",))
    model = quantized(exported.float_tflite, ranges, wide=["02_conv_2d"])
    assert faults(model, asked, exported.calibration) == []


def changed(model: bytes, change: Callable[[Any, dict[str, Any]], None]) -> bytes:
    """The model after a change of its flatbuffer, which gets the graph and its tensors by name."""
    unpacked = unpack(model)
    change(unpacked, {tensor.name.decode(): tensor for tensor in unpacked.subgraphs[0].tensors})
    return pack(unpacked)


def scaled(name: str, by: float) -> Callable[[Any, dict[str, Any]], None]:
    def change(model: Any, tensors: dict[str, Any]) -> None:
        scales = tensors[name].quantization.scale
        tensors[name].quantization.scale = np.asarray(scales, np.float32) * np.float32(by)

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (scaled("02_conv_2d", 0.0), "02_conv_2d has a scale that is not positive"),
        (scaled("02_conv_2d.weights", 0.0), "02_conv_2d.weights has a scale that is not positive"),
        (scaled("02_conv_2d.weights", 2.0), "the bias of 02_conv_2d is not in steps of its input times its weights"),
        (scaled("embedding", 1.3), r"embedding holds -?[\d.]+ to [\d.]+, and -?[\d.]+ to [\d.]+ was asked for"),
    ],
)
def test_wrong_scale_is_found_and_named(
    exported: Exported, change: Callable[[Any, dict[str, Any]], None], fault: str
) -> None:
    ranges = ranges_of(exported.float_tflite, observed(exported.float_tflite, exported.calibration), QuantizePlan())
    assert list(scale_faults(read_graph(exported.int8_tflite), ranges)) == []
    found = list(scale_faults(read_graph(changed(exported.int8_tflite, change)), ranges))
    assert any(re.fullmatch(fault, one) for one in found), found


def shifted(name: str) -> Callable[[Any, dict[str, Any]], None]:
    def change(model: Any, tensors: dict[str, Any]) -> None:
        tensors[name].quantization.zeroPoint = np.asarray(tensors[name].quantization.zeroPoint) + 1

    return change


def test_weights_with_a_zero_point_are_found(exported: Exported) -> None:
    for name in ("02_conv_2d.weights", "12_fully_connected.bias"):
        found = faults(changed(exported.int8_tflite, shifted(name)), INT8, exported.calibration)
        layer = "embedding" if name.startswith("12") else "02_conv_2d"
        assert found == [f"the weights of {layer} have a zero point"]


@pytest.mark.parametrize("query_blocks", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_transformer_student_is_what_was_asked_for_in_every_file(query_blocks: int) -> None:
    torch.manual_seed(1)
    shape = TransformerShape(
        16, 4, width=16, blocks=1, heads=2, halvings=1, queries=2, query_blocks=query_blocks, embedding=8
    )
    student = TransformerStudent(shape).train()
    windows = torch.randn(64, 16, 4)
    student(windows)
    folded = fold_batchnorm(student)
    float_tflite, float_onnx = to_tflite(folded, (1, 16, 4)), to_onnx(folded, (1, 16, 4))
    int8 = quantize_tflite(float_tflite, windows.numpy(), most_transposes=9)
    qdq = quantize_onnx(float_onnx, windows.numpy(), seven_bit_weights=False, like=(float_tflite, int8))
    for model, in_integers in ((float_tflite, False), (float_onnx, False), (int8, True), (qdq, True)):
        assert faults(model, Asked((16, 4), (8,), int8=in_integers), windows.numpy()) == []
    mine, its = run_tflite(int8, windows.numpy(), "litert-ref"), run_onnx(qdq, windows.numpy())
    graph = read_graph(int8)
    assert np.abs(mine - its).max() / graph.tensors[graph.outputs[0]].scales[0] <= 6


def test_float_island_and_layer_that_has_not_its_sixteen_bits_are_found(exported: Exported) -> None:
    ranges = ranges_of(exported.float_tflite, observed(exported.float_tflite, exported.calibration), QuantizePlan())
    island = quantized(exported.float_tflite, ranges, left_float=["02_conv_2d"])
    assert "CONV_2D 02_conv_2d computes in float" in faults(island, INT8, exported.calibration)
    asked = dataclasses.replace(INT8, wide=("02_conv_2d",))
    assert faults(exported.int8_tflite, asked, exported.calibration) == ["02_conv_2d is int8, not int16"]


@pytest.mark.parametrize("name", ["kws_ref_model.tflite", "vww_96_int8.tflite"])
def test_pooling_in_another_scale_than_what_it_reads_is_found(models: Path, name: str) -> None:
    graph = read_graph(models / name)
    assert list(scale_faults(graph, {})) == []
    (pooled,) = (graph.tensors[op.outputs[0]] for op in graph.ops if op.name == "AVERAGE_POOL_2D")
    other = dataclasses.replace(pooled, scales=(2 * pooled.scales[0],))
    tensors = tuple(other if tensor.index == pooled.index else tensor for tensor in graph.tensors)
    assert list(scale_faults(dataclasses.replace(graph, tensors=tensors), {})) == [
        f"{pooled.name} is not in the scale of what AVERAGE_POOL_2D reads"
    ]


@pytest.mark.parametrize("which", ["int8_tflite", "int8_onnx"])
def test_other_ends_are_found(exported: Exported, which: str) -> None:
    found = faults(getattr(exported, which), Asked((8, 80), (63,), int8=True), exported.calibration)
    assert found == ["its input is (80, 8), not (8, 80)", "its output is (64,), not (63,)"]
    if which == "int8_tflite":
        found = faults(exported.int8_tflite, FLOAT, exported.calibration)
        assert found == ["its input is int8, not float32", "its output is int8, not float32"]


def test_saturated_tensor_is_found_and_the_floor_of_a_relu_is_none(exported: Exported) -> None:
    ranges = ranges_of(exported.float_tflite, observed(exported.float_tflite, exported.calibration), QuantizePlan())
    narrow = quantized(exported.float_tflite, ranges | {"02_conv_2d": (0.0, 0.5)})
    found = faults(narrow, INT8, exported.calibration)
    assert len(found) == 1 and "% of 02_conv_2d stand at the end of its range (allowed 5 %)" in found[0]
    with pytest.raises(EdgeError, match=r"student_int8.tflite is not what was asked for: .*; nothing was written\."):
        refuse_unless_sound("student_int8.tflite", narrow, INT8, exported.calibration)


def with_onnx(model: bytes, change: Callable[[Any], None]) -> bytes:
    proto = parsed(model)
    change(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _older(proto: Any) -> None:
    proto.opset_import[0].version = 17


def _fixed_batch(proto: Any) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _unquantized(proto: Any) -> None:
    """Take the pair behind the second convolution away."""
    for node in proto.graph.node:
        node.input[:] = ["relu_1" if name == "relu_1_DequantizeLinear_Output" else name for name in node.input]


def _negative(proto: Any) -> None:
    from onnx import numpy_helper

    for one in proto.graph.initializer:
        if one.name == "relu_1_scale":
            one.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(one), one.name))


def _eighth(proto: Any) -> None:
    """Probabilities above an eighth no longer fit."""
    from onnx import numpy_helper

    for one in proto.graph.initializer:
        if one.name == "softmax_scale":
            one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one) / np.float32(8), one.name))


def _nan(proto: Any) -> None:
    from onnx import numpy_helper

    for one in proto.graph.initializer:
        if one.name == "blocks.0.layers.0.convolution.bias_quantized_scale":
            one.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(one), np.nan), one.name))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_older, "its opset is 17, not 18"),
        (_fixed_batch, "the batch of its input is not free"),
        (_unquantized, "Conv relu_2 computes in float (relu_1 is not quantized)"),
        (_negative, "relu_1 has a scale that is not positive"),
        (_nan, "blocks.0.layers.0.convolution.bias_quantized has a scale that is not positive"),
        (_eighth, "the probabilities of softmax_QuantizeLinear_Output miss the sum of 1 by "),
    ],
)
def test_faults_of_an_onnx_file_are_found(exported: Exported, change: Callable[[Any], None], fault: str) -> None:
    found = faults(with_onnx(exported.int8_onnx, change), INT8, exported.calibration)
    assert any(one.startswith(fault) for one in found), found


def test_both_int8_files_stand_on_one_set_of_ranges(exported: Exported) -> None:
    """The scales of another observer than ONNX Runtime's arrive in the ONNX file, and the outputs are steps apart."""
    seen = observed(exported.float_tflite, exported.calibration)
    ranges = ranges_of(exported.float_tflite, seen, QuantizePlan(observer="percentile", percentile=0.99))
    int8 = quantized(exported.float_tflite, ranges)
    model = quantize_onnx(exported.float_onnx, exported.calibration, like=(exported.float_tflite, int8))
    assert faults(model, INT8, exported.calibration) == []
    scales = shared_scales(exported.float_onnx, exported.float_tflite, int8, exported.calibration)
    assert {"input", "relu", "relu_1", "relu_2", "relu_3", "linear", "softmax", "matmul", "embedding"} <= set(scales)
    from onnx import numpy_helper

    proto = parsed(model)
    constants = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    pairs = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) > 8
    for node in pairs:
        name = node.input[0].removesuffix("_QuantizeLinear_Input")
        scale, zero_point = float(constants[node.input[1]]), int(constants[node.input[2]])
        assert (scale, zero_point) == (pytest.approx(scales[name][0], rel=1e-6), scales[name][1]), name
    mine, its = run_tflite(int8, exported.windows, "litert-ref"), run_onnx(model, exported.windows)
    steps = np.abs(mine - its) / scales["embedding"][0]
    assert steps.max() <= 4 and (exported.decisions(mine) != exported.decisions(its)).mean() <= 0.01


def test_with_eight_bit_weights_onnx_runtime_is_two_steps_from_litert(exported: Exported) -> None:
    """On x86 without VNNI only because the session asks for exact sums; ARM has them anyway."""
    like = (exported.float_tflite, exported.int8_tflite)
    model = quantize_onnx(exported.float_onnx, exported.calibration, seven_bit_weights=False, like=like)
    assert faults(model, INT8, exported.calibration) == []
    mine, its = run_tflite(exported.int8_tflite, exported.windows, "litert-ref"), run_onnx(model, exported.windows)
    graph = read_graph(exported.int8_tflite)
    steps = np.abs(mine - its) / graph.tensors[graph.outputs[0]].scales[0]
    assert steps.max() <= 2.01 and (steps.max(axis=1) <= 1.01).mean() > 0.9
    assert (exported.decisions(mine) != exported.decisions(its)).mean() <= 0.01


def test_corrected_biases_are_those_of_both_files(exported: Exported) -> None:
    """Uncorrected ones would be further away: the ONNX file has no correction of its own."""
    int8 = quantize_tflite(exported.float_tflite, exported.calibration, QuantizePlan(bias_correction=True))
    inputs = exported.windows

    def compared(like: bytes) -> tuple[RuntimePair, npt.NDArray[np.float64]]:
        model = quantize_onnx(
            exported.float_onnx, exported.calibration, seven_bit_weights=False, like=(exported.float_tflite, like)
        )
        (pair,) = compare_runtimes(int8, inputs, others=(), int8_onnx=model, decide=exported.decisions).pairs
        return pair, np.abs(run_onnx(model, inputs) - run_tflite(int8, inputs, "litert-ref"))

    graph = read_graph(int8)
    (pair, apart), (_, uncorrected) = compared(int8), compared(exported.int8_tflite)
    assert pair.runtime == "onnxruntime"
    assert pair.max_steps == round(float(apart.max()) / graph.tensors[graph.outputs[0]].scales[0]) <= 3
    assert pair.within_one_step > 0.9
    assert apart.mean() < 0.8 * uncorrected.mean()


def test_files_of_two_networks_are_not_matched(exported: Exported) -> None:
    def other(proto: Any) -> None:
        from onnx import numpy_helper

        for one in proto.graph.initializer:
            if one.name == "embedding.weight":
                one.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(one), one.name))

    model = with_onnx(exported.float_onnx, other)
    with pytest.raises(EdgeError, match="not of one network; run quantize again"):
        quantize_onnx(model, exported.calibration, like=(exported.float_tflite, exported.int8_tflite))


def test_values_of_an_onnx_graph_are_those_of_its_run(exported: Exported) -> None:
    values = onnx_values(exported.float_onnx, exported.windows[:3])
    assert next(iter(values)) == "input" and list(values)[-1] == "embedding"
    np.testing.assert_allclose(
        values["embedding"], run_onnx(exported.float_onnx, exported.windows[:3]), rtol=1e-4, atol=1e-5
    )
