"""One student in six worlds: torch, float and int8 LiteRT, TFLM, float and int8 ONNX Runtime."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
import torch

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.errors import EdgeError
from embridge_edge.export import tflite
from embridge_edge.export.bias import corrected
from embridge_edge.export.comparing import compare_runtimes, layer_errors
from embridge_edge.export.flatbuffer import repack_inline
from embridge_edge.export.mixing import Mix, mixes
from embridge_edge.export.onnx import quantize_onnx, to_onnx
from embridge_edge.export.quantizing import can_be_wide, from_quantizer, layers_of, quantize_tflite, touching
from embridge_edge.export.ranges import kinds_of, observed, ranges_of
from embridge_edge.export.reading import dequantize_values
from embridge_edge.export.running import RUNTIMES, Runtime, layer_values, run_onnx, run_tflite, tflm_arena_bytes
from embridge_edge.export.sensitivity import damage_of, sensitivity
from embridge_edge.firmware_bridge.graph import Tensor, float_ops, macs, op_counts, peak_activation_bytes, read_graph
from embridge_edge.model.student import Student, StudentShape
from embridge_edge.model.students import new_student
from embridge_edge.model.transformer_student import TransformerShape
from embridge_edge.progress import Progress
from embridge_edge.recipe import TENSOR_KINDS, MixPlan, QuantizePlan

if TYPE_CHECKING:
    from conftest import Exported


def _mean_removed_error(exact: npt.NDArray[np.float32], got: npt.NDArray[np.float32]) -> float:
    difference = got - exact
    centred, centred_difference = exact - exact.mean(axis=0), difference - difference.mean(axis=0)
    return float(np.sqrt(np.square(centred_difference).sum() / np.square(centred).sum()))


def test_float_files_compute_what_torch_computes(exported: Exported) -> None:
    expected = exported.embeddings()
    for got in (
        run_tflite(exported.float_tflite, exported.windows),
        run_tflite(exported.float_tflite, exported.windows, "litert-ref"),
        run_onnx(exported.float_onnx, exported.windows),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_decides_as_float_does(exported: Exported, runtime: Runtime) -> None:
    expected = exported.embeddings()
    got = run_tflite(exported.int8_tflite, exported.windows, runtime)
    assert (exported.decisions(expected) == exported.labels).mean() > 0.9, "the fixture has not learned"
    assert (exported.decisions(expected) == exported.decisions(got)).mean() >= 0.98
    assert _mean_removed_error(expected, got) < 0.05


def test_int8_onnx_decides_as_float_does(exported: Exported) -> None:
    expected = exported.embeddings()
    got = run_onnx(exported.int8_onnx, exported.windows)
    assert (exported.decisions(expected) == exported.decisions(got)).mean() >= 0.98
    assert _mean_removed_error(expected, got) < 0.05


def test_reference_kernels_and_tflm_differ_by_rounding_only(exported: Exported) -> None:
    comparison = compare_runtimes(exported.int8_tflite, exported.windows)
    by_runtime = {pair.runtime: pair for pair in comparison.pairs}
    assert comparison.inputs == len(exported.windows)
    assert by_runtime["tflm"].max_steps <= 3
    assert by_runtime["tflm"].equal > 0.97
    assert comparison.max_steps <= 3
    assert comparison.within_one_step > 0.99


def test_int8_graph_is_what_a_microcontroller_needs(exported: Exported) -> None:
    graph = read_graph(exported.int8_tflite)
    assert float_ops(graph) == ()
    assert [graph.tensors[index].type for index in (*graph.inputs, *graph.outputs)] == ["int8", "int8"]
    assert op_counts(graph)["TRANSPOSE"] == 1
    assert "PAD" not in op_counts(graph)
    assert macs(graph) == exported.folded.shape.macs
    assert not graph.weights_at_offsets
    assert len(exported.int8_tflite) <= 128_000
    assert peak_activation_bytes(graph) <= tflm_arena_bytes(exported.int8_tflite) <= 16_000


def test_weights_stand_at_multiples_of_sixteen_bytes(exported: Exported) -> None:
    for model in (exported.float_tflite, exported.int8_tflite):
        graph = read_graph(model)
        for op in graph.ops:
            for index in op.inputs[1:]:
                tensor = graph.tensors[index]
                if index >= 0 and tensor.data and tensor.size_bytes >= 256:
                    assert model.find(tensor.data) % 16 == 0, tensor.name


def test_same_input_makes_the_same_bytes_and_prints_nothing(
    exported: Exported, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tflite.to_tflite(exported.folded, (1, 80, 8)) == exported.float_tflite
    assert quantize_tflite(exported.float_tflite, exported.calibration) == exported.int8_tflite
    assert to_onnx(exported.folded, (1, 80, 8)) == exported.float_onnx
    assert quantize_onnx(exported.float_onnx, exported.calibration) == exported.int8_onnx
    tflm_arena_bytes(exported.int8_tflite)
    compare_runtimes(exported.int8_tflite, exported.windows[:2])
    sys.stdout.write("the result\n")
    assert capfd.readouterr() == ("the result\n", "")


def test_onnx_holds_no_path_of_this_machine(exported: Exported) -> None:
    for model in (exported.float_onnx, exported.int8_onnx):
        assert b"site-packages" not in model
        assert b"stack_trace" not in model
        assert str(Path.cwd()).encode() not in model


def test_feature_frames_and_separable_blocks_convert_too() -> None:
    torch.manual_seed(1)
    student = Student(StudentShape.fitting(8, 80, block="separable")).train()
    windows = torch.randn(64, 8, 80)
    student(windows)
    folded = fold_batchnorm(student)
    model = quantize_tflite(tflite.to_tflite(folded, (1, 8, 80)), windows.numpy())
    assert macs(read_graph(model)) == folded.shape.macs
    assert compare_runtimes(model, windows.numpy()[:16], others=("tflm",)).max_steps <= 3


def test_minmax_never_clips_the_calibration_and_the_moving_average_does(exported: Exported) -> None:
    seen = observed(exported.float_tflite, exported.calibration)
    least, most = ranges_of(exported.float_tflite, seen, QuantizePlan())["input"]
    assert (least, most) == (exported.calibration.min(), exported.calibration.max())
    clipped = ranges_of(exported.float_tflite, seen, QuantizePlan(observer="moving_average"))["input"]
    assert least < clipped[0] < clipped[1] < most


def test_observers_go_by_what_writes_a_tensor(exported: Exported) -> None:
    seen = observed(exported.float_tflite, exported.calibration)
    whole = ranges_of(exported.float_tflite, seen, QuantizePlan())
    own = ranges_of(exported.float_tflite, seen, QuantizePlan(observers={"linear": "percentile"}, percentile=0.99))
    kinds = kinds_of(read_graph(exported.float_tflite))
    assert set(kinds.values()) == set(TENSOR_KINDS)
    for name, kind in kinds.items():
        assert (own[name] != whole[name]) == (kind == "linear"), name


def test_wide_layers_have_sixteen_bits_and_the_rest_eight(exported: Exported) -> None:
    plan = QuantizePlan(wide=("0[23]_*",))
    model = quantize_tflite(exported.float_tflite, exported.calibration, plan)
    types = {tensor.name: tensor.type for tensor in read_graph(model).tensors}
    written = {name for name in layers_of(read_graph(exported.float_tflite)) if types[name] == "int16"}
    assert written == {"02_conv_2d", "03_conv_2d", "04_conv_2d"}  # the last reads 16 bits, and hands 8 on
    assert compare_runtimes(model, exported.windows[:16], others=("tflm",)).max_steps <= 3
    with pytest.raises(EdgeError, match=r"No layer that can have 16 bits is named '9\*'; choose among 01_conv_2d"):
        quantize_tflite(exported.float_tflite, exported.calibration, QuantizePlan(wide=("9*",)))


def test_every_layer_that_may_have_sixteen_bits_can_be_given_them(exported: Exported) -> None:
    graph = read_graph(exported.float_tflite)
    names = [name for name in layers_of(graph) if can_be_wide(graph, name)]
    (end,) = (graph.tensors[index].name for index in graph.outputs)
    assert any(end in touching(graph, [name]) for name in names)  # which made the output 16 bits wide as well
    for name in names:
        model = quantize_tflite(exported.float_tflite, exported.calibration, QuantizePlan(wide=(name,)))
        assert run_tflite(model, exported.windows[:2], "litert-ref", raw=True).dtype == np.int8, name


@pytest.mark.slow
def test_every_layer_of_a_transformer_with_layer_norms_can_be_given_them() -> None:
    shape = TransformerShape(
        24, 4, width=16, blocks=1, heads=2, halvings=1, queries=2, query_blocks=1, embedding=8, norm="layer"
    )
    torch.manual_seed(0)
    model = tflite.to_tflite(new_student(shape).eval(), (1, 24, 4))
    windows = np.random.default_rng(0).standard_normal((32, 24, 4)).astype(np.float32)
    graph = read_graph(model)
    names = [name for name in layers_of(graph) if can_be_wide(graph, name)]
    kinds = {layers_of(graph)[name].name for name in names}
    assert {"RSQRT", "MEAN", "SUB"} <= kinds and not {"SQUARED_DIFFERENCE", "SOFTMAX"} & kinds
    for name in names:  # refused where a named layer stays in 8 bits
        assert (
            run_tflite(
                quantize_tflite(model, windows, QuantizePlan(wide=(name,))), windows[:2], "litert-ref", raw=True
            ).dtype
            == np.int8
        )


def test_bias_correction_gives_every_channel_its_mean_back(exported: Exported) -> None:
    plain = quantize_tflite(exported.float_tflite, exported.calibration, QuantizePlan(observer="moving_average"))
    mended = corrected(plain, exported.float_tflite, exported.calibration)
    exact = layer_values(exported.float_tflite, exported.calibration)
    graph = read_graph(plain)
    last = graph.tensors[graph.outputs[0]].name  # without a ReLU
    for name in ("01_conv_2d", "02_conv_2d", "03_conv_2d", last):
        tensor = next(one for one in graph.tensors if one.name == name)

        def shift(model: bytes, tensor: Tensor = tensor) -> float:
            values = dequantize_values(
                layer_values(model, exported.calibration)[tensor.name], tensor.scales[0], tensor.zero_points[0]
            )
            return float(np.abs((values - exact[tensor.name]).mean(axis=(0, 1, 2, 3)[: values.ndim - 1])).mean())

        assert shift(mended) < 0.5 * shift(plain), name


def test_sensitivity_points_at_the_layer_with_a_bad_range(exported: Exported) -> None:
    ranges = ranges_of(exported.float_tflite, observed(exported.float_tflite, exported.calibration), QuantizePlan())
    ranges["02_conv_2d"] = (0.0, 8.0 * ranges["02_conv_2d"][1])  # of 255 steps, 32 are used
    found = sensitivity(exported.float_tflite, ranges, exported.windows[:64], exported.decisions)
    assert {layer.name for layer in found.layers} == set(layers_of(read_graph(exported.float_tflite)))
    worst = max(found.layers, key=lambda layer: layer.alone.mean_removed_error)
    assert worst.name == "02_conv_2d"
    assert found.layers[0].without.mean_removed_error <= found.layers[-1].without.mean_removed_error
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["02_conv_2d"].wide is not None
    assert by_name["02_conv_2d"].wide.mean_removed_error < 0.8 * found.whole.mean_removed_error
    assert found.advice == '[quantize] wide = ["02_conv_2d"]'
    assert replace(found, wide=("01_conv_2d",)).advice == '[quantize] wide = ["01_conv_2d", "02_conv_2d"]'
    assert found.whole.class_flips is not None


def test_mixed_precision_takes_the_bad_layer_first_and_keeps_to_its_budget(exported: Exported) -> None:
    ranges = ranges_of(exported.float_tflite, observed(exported.float_tflite, exported.calibration), QuantizePlan())
    ranges["02_conv_2d"] = (0.0, 8.0 * ranges["02_conv_2d"][1])
    curve = mixes(exported.float_tflite, ranges, exported.windows[:64], plan=MixPlan(layers=2))
    assert curve[0].wide == () and curve[1].wide == ("02_conv_2d",)
    assert [mix.damage.mean_removed_error for mix in curve] == sorted(
        (mix.damage.mean_removed_error for mix in curve), reverse=True
    )
    assert curve[0].wide_macs == 0 < curve[1].wide_macs < curve[1].macs
    tight = MixPlan(size_bytes=curve[0].size_bytes)
    assert mixes(exported.float_tflite, ranges, exported.windows[:64], plan=tight) == curve[:1]
    further = mixes(exported.float_tflite, ranges, exported.windows[:64], plan=MixPlan(layers=2), start=curve[1].wide)
    assert further == curve[1:]
    assert [Mix.from_json(json.loads(json.dumps(mix.to_json()))) for mix in curve] == curve


def test_a_search_that_begins_beyond_its_limits_says_so_and_adds_nothing(
    exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    ranges = ranges_of(exported.float_tflite, observed(exported.float_tflite, exported.calibration), QuantizePlan())
    for plan, start, says in (
        (MixPlan(size_bytes=1), (), "and [quantize.mix] allows 1; allow more"),
        (MixPlan(wide_macs=0), ("02_conv_2d",), "and [quantize.mix] allows 0; name fewer"),
        (
            MixPlan(layers=1),
            ("02_conv_2d", "03_conv_2d"),
            "at its start layers is 2, and [quantize.mix] allows 1; name fewer",
        ),
    ):
        curve = mixes(
            exported.float_tflite, ranges, exported.windows[:8], plan=plan, start=start, progress=Progress(quiet=False)
        )
        assert [mix.wide for mix in curve] == [start]
        assert says in capsys.readouterr().err


def test_the_search_measures_the_model_that_is_written(exported: Exported) -> None:
    windows, plan = exported.windows[:64], QuantizePlan(bias_correction=True)
    ranges = ranges_of(exported.float_tflite, observed(exported.float_tflite, exported.calibration), plan)
    last = mixes(exported.float_tflite, ranges, windows, plan=MixPlan(layers=1), correct_on=exported.calibration)[-1]
    written = quantize_tflite(exported.float_tflite, exported.calibration, replace(plan, wide=last.wide))
    exact = run_tflite(exported.float_tflite, windows)
    assert last.damage == damage_of(exact, run_tflite(written, windows, "litert-ref"))
    assert last.size_bytes == len(written)


def test_given_range_replaces_the_observed_one(exported: Exported) -> None:
    # The Myo's raw byte in units of 1/16: the byte is the quantized input.
    model = quantize_tflite(exported.float_tflite, exported.calibration, ranges={"input": (-8.0, 7.9375)})
    graph = read_graph(model)
    given = graph.tensors[graph.inputs[0]]
    assert given.scales == pytest.approx((1 / 16,), rel=1e-6)
    assert given.zero_points == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"calibration": np.zeros((3, 80, 9), np.float32)}, "windows are"),
        ({"calibration": np.zeros((0, 80, 8), np.float32)}, "no calibration windows"),
        ({"calibration": np.full((1, 80, 8), np.nan, np.float32)}, "NaN"),
        ({"ranges": {"nowhere": (0.0, 1.0)}}, "No activation is named"),
        ({"ranges": {"input": (1.0, 1.0)}}, "smaller and a larger"),
        ({"float_model": b"nothing"}, "no TFLite model"),
    ],
)
def test_quantizing_refuses_in_one_line(exported: Exported, arguments: dict[str, object], message: str) -> None:
    given = {"float_model": exported.float_tflite, "calibration": exported.calibration, **arguments}
    with pytest.raises(EdgeError, match=message) as caught:
        quantize_tflite(**given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_module_that_still_trains_is_refused() -> None:
    for convert in (tflite.to_tflite, to_onnx):
        with pytest.raises(EdgeError, match="training mode"):
            convert(Student(StudentShape(80, 8)), (1, 80, 8))


def test_layer_errors_match_layers_and_sort_the_worst_first(exported: Exported) -> None:
    errors = layer_errors(exported.float_tflite, exported.int8_tflite, exported.windows[:32])
    graph = read_graph(exported.int8_tflite)
    assert {error.name for error in errors} == {graph.tensors[index].name for op in graph.ops for index in op.outputs}
    assert [error.mean_removed_error for error in errors] == sorted(
        (e.mean_removed_error for e in errors), reverse=True
    )
    assert errors[0].mean_removed_error < 0.2
    assert all(error.cosine > 0.98 and error.snr_db > 15 for error in errors)


def test_layer_errors_point_at_a_clipped_layer(exported: Exported) -> None:
    bad = quantize_tflite(exported.float_tflite, exported.calibration, ranges={"02_conv_2d": (0.0, 0.5)})
    by_name = {error.name: error for error in layer_errors(exported.float_tflite, bad, exported.windows[:32])}
    assert by_name["02_conv_2d"].clipped > 0.1
    assert by_name["01_conv_2d"].clipped < 0.01
    assert by_name["02_conv_2d"].mean_removed_error > 3 * by_name["01_conv_2d"].mean_removed_error


class _LearnedQuery(torch.nn.Module):
    """The trap: learned queries of two heads, which fold into a constant left operand of BATCH_MATMUL.

    (Those of one head become the weights of a FULLY_CONNECTED, which is what the student does itself.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.query = torch.nn.Parameter(torch.randn(1, 2, 4, 8) * torch.logspace(-2, 1, 8))
        self.keys = torch.nn.Linear(16, 16)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        keys = self.keys(windows).view(-1, 12, 2, 8).transpose(1, 2)
        scores = torch.softmax(torch.matmul(self.query, keys.transpose(2, 3)), dim=-1)
        return torch.matmul(scores, keys).flatten(1)


def test_constant_operand_of_batch_matmul_has_one_scale() -> None:
    torch.manual_seed(0)
    windows = torch.randn(32, 12, 16).numpy()
    model = quantize_tflite(tflite.to_tflite(_LearnedQuery().eval(), (1, 12, 16)), windows, most_transposes=9)
    graph = read_graph(model)
    operands = [graph.tensors[i] for op in graph.ops if op.name == "BATCH_MATMUL" for i in op.inputs]
    assert any(tensor.is_constant for tensor in operands), "the converter no longer makes the constant that this guards"
    assert all(len(tensor.scales) == 1 for tensor in operands)
    assert compare_runtimes(model, windows, others=("tflm",)).max_steps <= 3


def test_weights_at_offsets_are_refused_by_tflm_and_repacked() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(640, 512), torch.nn.ReLU(), torch.nn.Linear(512, 8)
    )
    windows = torch.randn(32, 80, 8).numpy()
    float_model = tflite.to_tflite(module.eval(), (1, 80, 8))
    as_quantizer_left_it = from_quantizer(
        float_model, ranges_of(float_model, observed(float_model, windows), QuantizePlan())
    )
    assert read_graph(as_quantizer_left_it).weights_at_offsets, "the quantizer no longer does what this guards against"
    with pytest.raises(EdgeError, match="repack"):
        run_tflite(as_quantizer_left_it, windows, "tflm")
    repacked = repack_inline(as_quantizer_left_it)
    assert not read_graph(repacked).weights_at_offsets
    np.testing.assert_array_equal(
        run_tflite(repacked, windows, "litert-ref", raw=True),
        run_tflite(as_quantizer_left_it, windows, "litert-ref", raw=True),
    )
    assert compare_runtimes(repacked, windows, others=("tflm",)).max_steps <= 3
