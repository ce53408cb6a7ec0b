"""Elementwise ops, functions of one element, reductions, pools, SOFTMAX and QUANTIZE: the oracles' bits for every input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.export.flatbuffer import pack, unpack
from embridge_edge.firmware_bridge.emulated import traces
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.lowering.broadcasting import broadcast
from embridge_edge.firmware_bridge.lowering.fixed_point import divide_by_power, doubling_high_multiply
from embridge_edge.firmware_bridge.oracle import oracle_for
from embridge_edge.firmware_bridge.program import Profile
from embridge_edge.hardware.boards import BOARDS
from tests.firmware_bridge.single_op import (
    Spec,
    Values,
    assert_matches,
    by_kernels,
    by_oracle,
    constant,
    lowered,
    model_of,
    random_values,
)
from tests.firmware_bridge.small_models import program_of
from tests.tools import QEMU, needs

BOTH: tuple[Profile, ...] = ("litert-ref", "tflm")
LITERT: tuple[Profile, ...] = ("litert-ref",)
TFLM: tuple[Profile, ...] = ("tflm",)
FEW = settings(max_examples=10, derandomize=True, deadline=None)
SOME = settings(max_examples=40, derandomize=True, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)

ALL_INT8 = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
ALL_INT16 = np.arange(-32768, 32768).astype(np.int16).reshape(256, 256)

PAIRWISE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ADD": ("AddOptions", {}),
    "SUB": ("SubOptions", {}),
    "MUL": ("MulOptions", {}),
    "SQUARED_DIFFERENCE": ("SquaredDifferenceOptions", {}),
    "MAXIMUM": ("MaximumMinimumOptions", {}),
    "MINIMUM": ("MaximumMinimumOptions", {}),
}
ACTIVATED = ("ADD", "SUB", "MUL")


def _scale(rng: np.random.Generator, least: float, most: float) -> float:
    return float(np.float32(math.exp(rng.uniform(math.log(least), math.log(most)))))


def _zero(rng: np.random.Generator, type_name: str) -> int:
    return int(rng.choice([-128, 127, rng.integers(-128, 128)])) if type_name == "int8" else 0


def _tensor(rng: np.random.Generator, shape: Sequence[int], type_name: str, scale: float) -> Spec:
    return Spec(tuple(shape), type_name, scale, _zero(rng, type_name))


def _pairwise_scales(rng: np.random.Generator, op: str, type_name: str) -> tuple[float, float, float]:
    """Scales of both operands and of the output, which the results overflow, fit or hardly use."""
    least = 1e-3 if type_name == "int8" else 1e-5
    first = _scale(rng, least, 1000 * least)
    second = first if rng.random() < 0.2 else _scale(rng, least, 1000 * least)
    if op in ("MAXIMUM", "MINIMUM"):
        return first, first, first
    if op == "MUL":
        return first, second, first * second * _scale(rng, 0.01 if type_name == "int8" else 1.01, 1e4)
    return first, second, max(first, second) * _scale(rng, 0.1, 10.0)


def _pairwise(
    rng: np.random.Generator, op: str, type_name: str, shapes: Sequence[Sequence[int]]
) -> tuple[list[Spec], Spec, tuple[str, dict[str, Any]]]:
    scales = _pairwise_scales(rng, op, type_name)
    tensors = [_tensor(rng, shape, type_name, scale) for shape, scale in zip(shapes, scales, strict=True)]
    if op in ("MAXIMUM", "MINIMUM"):
        tensors = [Spec(tensor.shape, type_name, scales[0], tensors[0].zero) for tensor in tensors]
    table, fields = PAIRWISE[op]
    options: dict[str, Any] = dict(fields)
    if op in ACTIVATED:
        options["fusedActivationFunction"] = int(rng.integers(0, 4))
    if op in ("ADD", "SUB") and type_name == "int16":
        options["potScaleInt16"] = False
    return tensors[:2], tensors[2], (table, options)


@pytest.mark.parametrize("op", PAIRWISE)
@FEW
@given(seed=SEEDS)
def test_every_pair_of_int8_gives_the_oracles_bits(op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (grid.astype(np.int8) for grid in np.meshgrid(ALL_INT8, ALL_INT8))
    inputs, output, options = _pairwise(rng, op, "int8", [(256, 256)] * 3)
    assert_matches(model_of(op, inputs, [output], options), [[first, second]])


@pytest.mark.parametrize("op", PAIRWISE)
@pytest.mark.parametrize("type_name", ["int8", "int16"])
@SOME
@given(seed=SEEDS, lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_operands_of_any_shape_are_broadcast(op: str, type_name: str, seed: int, lengths: list[int]) -> None:
    if (op, type_name) == ("SQUARED_DIFFERENCE", "int16"):
        return
    rng = np.random.default_rng(seed)
    shapes = [[1 if rng.random() < 0.3 else length for length in lengths] for _ in range(2)]
    output_shape = [max(pair) for pair in zip(*shapes, strict=True)]
    shorter = int(rng.integers(2))
    while len(shapes[shorter]) > 1 and shapes[shorter][0] == 1 and rng.random() < 0.5:
        del shapes[shorter][0]
    inputs, output, options = _pairwise(rng, op, type_name, [*shapes, output_shape])
    kind = np.int8 if type_name == "int8" else np.int16
    values = [random_values(rng, shape, kind) for shape in shapes]
    stored = int(rng.integers(3))  # The first operand, the second, or none is a constant.
    if stored < 2:
        spec = inputs[stored]
        inputs[stored] = constant(values.pop(stored), kind, spec.scale, spec.zero)
    lows, highs = (
        [np.full_like(value, limit) for value in values] for limit in (np.iinfo(kind).min, np.iinfo(kind).max)
    )
    assert_matches(model_of(op, inputs, [output], options), [values, lows, highs])


@pytest.mark.parametrize("op", PAIRWISE)
def test_a_tensor_may_meet_itself(op: str) -> None:
    inputs, output, options = _pairwise(np.random.default_rng(3), op, "int8", [(1, 256)] * 3)
    assert_matches(model_of(op, [inputs[0], inputs[0]], [output], options), [[ALL_INT8]])


@SOME
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=5), st.integers(0, 4))
def test_merged_axes_meet_the_elements_that_numpy_broadcasts(axes: list[tuple[int, bool, bool]], dropped: int) -> None:
    shapes = [tuple(1 if axis[1 + operand] else axis[0] for axis in axes) for operand in (0, 1)]
    output = tuple(max(pair) for pair in zip(*shapes, strict=True))
    while dropped and len(shapes[1]) > 1 and shapes[1][0] == 1:
        shapes[1], dropped = shapes[1][1:], dropped - 1
    merged = broadcast(shapes[0], shapes[1], output)
    assert merged is not None
    for operand in (0, 1):
        values = np.arange(math.prod(shapes[operand])).reshape(shapes[operand])
        steps = [(axis.first, axis.second)[operand] for axis in merged]
        walked = sum(
            step * index for step, index in zip(steps, np.indices([axis.length for axis in merged]), strict=True)
        )
        np.testing.assert_array_equal(np.ravel(walked), np.broadcast_to(values, output).ravel())


def test_axes_that_do_not_fit_are_no_broadcast() -> None:
    assert broadcast((2, 3), (3,), (2, 3)) is not None
    for first, second, output in [
        ((2, 3), (2,), (2, 3)),
        ((2, 3), (2, 3), (3, 2)),
        ((1,), (1,), (4,)),
        ((2,), (2,), (1, 2)),
    ]:
        assert broadcast(first, second, output) is None


@SOME
@given(seed=SEEDS, shape=st.tuples(*[st.integers(1, 5)] * 4))
def test_prelu_multiplies_what_is_negative(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    alpha_shape = [1 if rng.random() < 0.5 else length for length in shape[1:]]
    alpha = constant(random_values(rng, alpha_shape), np.int8, _scale(rng, 1e-3, 1.0), _zero(rng, "int8"))
    tensors = [_tensor(rng, shape, "int8", _scale(rng, 1e-2, 1.0)) for _ in range(2)]
    assert_matches(model_of("PRELU", [tensors[0], alpha], tensors[1:]), [[random_values(rng, shape)]])


UNARY: list[tuple[str, tuple[str, Mapping[str, Any]] | None, tuple[Profile, ...]]] = [
    ("ABS", ("AbsOptions", {}), BOTH),
    ("ELU", None, TFLM),
    ("EXP", ("ExpOptions", {}), LITERT),
    ("GELU", ("GeluOptions", {}), LITERT),
    ("GELU", ("GeluOptions", {"approximate": True}), LITERT),
    ("HARD_SWISH", ("HardSwishOptions", {}), BOTH),
    ("LEAKY_RELU", ("LeakyReluOptions", {"alpha": 0.1}), BOTH),
    ("LEAKY_RELU", ("LeakyReluOptions", {"alpha": -1.7}), BOTH),
    ("LOG", None, LITERT),
    ("LOGISTIC", None, BOTH),
    ("NEG", ("NegOptions", {}), LITERT),
    ("RELU", None, BOTH),
    ("RELU6", None, LITERT),
    ("RELU_0_TO_1", None, LITERT),
    ("RELU_N1_TO_1", None, LITERT),
    ("RSQRT", None, BOTH),
    ("TANH", None, BOTH),
]
"""Ops with their options and the oracles that compute them for int8."""


@pytest.mark.parametrize(("op", "options", "profiles"), UNARY)
@SOME
@given(seed=SEEDS)
def test_every_int8_gives_the_oracles_bits(
    op: str, options: tuple[str, Mapping[str, Any]] | None, profiles: tuple[Profile, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    given_ = _tensor(rng, (1, 256), "int8", _scale(rng, 1e-3, 0.3))
    output = _tensor(rng, (1, 256), "int8", _scale(rng, 1e-3, 0.3))
    if op == "EXP":  # Results beyond 2³¹ output steps are refused.
        given_ = _tensor(rng, (1, 256), "int8", _scale(rng, 1e-3, 0.03))
    if op == "HARD_SWISH":  # The references demand an output scale that is not much smaller.
        output = _tensor(rng, (1, 256), "int8", given_.scale * _scale(rng, 0.02, 10.0))
    if op == "LOGISTIC":
        output = Spec((1, 256), "int8", 1 / 256, -128)
    if op == "TANH":
        output = Spec((1, 256), "int8", 1 / 128, 0)
    if op == "RSQRT":  # Anything below the zero point stops the oracles.
        given_ = Spec((1, 256), "int8", given_.scale, -128)
    if op == "NEG":
        given_ = output = Spec((1, 256), "int8", given_.scale, 0)
        output = Spec((1, 256), "int8", given_.scale, 0)
    if op.startswith("RELU") and rng.random() < 0.5:
        output = Spec((1, 256), "int8", given_.scale, given_.zero)
    assert_matches(model_of(op, [given_], [output], options), [[ALL_INT8]], profiles)


@FEW
@given(seed=SEEDS)
def test_relu6_of_tflm_keeps_the_scale(seed: int) -> None:
    tensor = _tensor(np.random.default_rng(seed), (1, 256), "int8", 0.05)
    model = model_of("RELU6", [tensor], [Spec((1, 256), "int8", tensor.scale, tensor.zero)])
    assert_matches(model, [[ALL_INT8]], TFLM)


@FEW
@given(seed=SEEDS)
def test_tanh_of_litert_takes_any_output_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tensors = [_tensor(rng, (1, 256), "int8", _scale(rng, 1e-3, 0.1)) for _ in range(2)]
    assert_matches(model_of("TANH", tensors[:1], tensors[1:]), [[ALL_INT8]], LITERT)


UNARY_16: list[tuple[str, tuple[str, Mapping[str, Any]] | None, tuple[Profile, ...]]] = [
    ("ABS", ("AbsOptions", {}), BOTH),
    ("EXP", ("ExpOptions", {}), LITERT),
    ("GELU", ("GeluOptions", {}), LITERT),
    ("LEAKY_RELU", ("LeakyReluOptions", {"alpha": -0.3}), BOTH),
    ("LOG", None, LITERT),
    ("LOGISTIC", None, BOTH),
    ("RELU", None, BOTH),
    ("RELU6", None, LITERT),
    ("TANH", None, BOTH),
]


@pytest.mark.parametrize(("op", "options", "profiles"), UNARY_16)
@FEW
@given(seed=SEEDS)
def test_every_int16_gives_the_oracles_bits(
    op: str, options: tuple[str, Mapping[str, Any]] | None, profiles: tuple[Profile, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scale, out_scale = _scale(rng, 1e-5, 1e-2), _scale(rng, 1e-5, 1e-2)
    if op == "EXP":
        scale = _scale(rng, 1e-6, 1e-4)
    if op in ("LOGISTIC", "TANH"):
        scale, out_scale = (2.0 ** -int(rng.integers(10, 15)) if rng.random() < 0.5 else scale), 1 / 32768
    if op in ("RELU", "RELU6") and rng.random() < 0.5:
        out_scale = scale
    tensors = [Spec((256, 256), "int16", scale), Spec((256, 256), "int16", out_scale)]
    assert_matches(model_of(op, tensors[:1], tensors[1:], options), [[ALL_INT16]], profiles)


def _softmax(given_type: str, output_type: str, shape: tuple[int, ...], scale: float, zero: int, beta: float) -> bytes:
    output = {"int8": (1 / 256, -128), "int16": (1 / 65536, -32768)}[output_type]
    if given_type == "int16":
        output = (1 / 32768, 0)
    tensors = [Spec(shape, given_type, scale, zero), Spec(shape, output_type, *output)]
    return model_of("SOFTMAX", tensors[:1], tensors[1:], ("SoftmaxOptions", {"beta": beta}))


@pytest.mark.parametrize(("given_type", "output_type"), [("int8", "int8"), ("int8", "int16"), ("int16", "int16")])
@SOME
@given(
    seed=SEEDS,
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    beta=st.sampled_from([1.0, 0.5, 3.0]),
)
def test_softmax_gives_the_oracles_bits(
    given_type: str, output_type: str, seed: int, shape: list[int], beta: float
) -> None:
    rng = np.random.default_rng(seed)
    kind = np.int8 if given_type == "int8" else np.int16
    scale = _scale(rng, 1e-3, 2.0) / (1 if given_type == "int8" else 100)
    values = random_values(rng, shape, kind)
    near = (values // 16).astype(kind)  # Shares that are not all in one place.
    model = _softmax(given_type, output_type, tuple(shape), scale, _zero(rng, given_type), beta)
    assert_matches(model, [[values], [near], [np.full_like(values, np.iinfo(kind).min)]])


def test_softmax_of_a_long_row_does_not_overflow() -> None:
    model = _softmax("int8", "int8", (1, 4095), 0.05, 0, 1.0)
    values = np.minimum(random_values(np.random.default_rng(0), (1, 4095)), 60)
    values[0, ::16] = 127
    assert_matches(model, [[values]])
    short = _softmax("int8", "int8", (1, 511), 0.05, 0, 1.0)
    assert_matches(short, [[np.full((1, 511), 127, np.int8)]])


def test_shares_of_very_many_equal_inputs_are_zero() -> None:
    """The oracles abort: 1/512 and less is beyond the shift that they allow."""
    model = _softmax("int8", "int8", (1, 512), 0.05, 0, 1.0)
    assert (by_kernels(model, "tflm", [[np.full((1, 512), 5, np.int8)]])[0][0] == -128).all()


def test_exponentials_of_every_difference_are_the_oracles() -> None:
    rows = np.stack([np.full(256, 127, np.int8), ALL_INT8[0]], axis=1)
    for scale in (1e-3, 0.01, 0.0625, 0.1, 0.5, 3.0):
        assert_matches(_softmax("int8", "int16", (256, 2), scale, 0, 1.0), [[rows]])


REDUCTIONS: list[tuple[str, str, tuple[Profile, ...]]] = [
    ("MEAN", "int8", BOTH),
    ("MEAN", "int16", BOTH),
    ("SUM", "int8", TFLM),
    ("SUM", "int16", TFLM),
    ("REDUCE_MAX", "int8", BOTH),
    ("REDUCE_MAX", "int16", LITERT),
    ("REDUCE_MIN", "int8", BOTH),
    ("REDUCE_MIN", "int16", LITERT),
]


def _reduction(
    rng: np.random.Generator, op: str, type_name: str, shape: Sequence[int], axes: Sequence[int], keep: bool
) -> bytes:
    reduced = {axis % len(shape) for axis in axes}
    output_shape = [
        1 if axis in reduced else length for axis, length in enumerate(shape) if keep or axis not in reduced
    ]
    given_ = _tensor(rng, shape, type_name, _scale(rng, 1e-3, 1.0))
    output = Spec(tuple(output_shape), type_name, given_.scale, given_.zero)
    if op in ("MEAN", "SUM") and rng.random() < 0.7:
        output = _tensor(rng, output_shape, type_name, given_.scale * _scale(rng, 0.1, 10.0))
    listed = constant(np.asarray(axes), np.int32)
    return model_of(op, [given_, listed], [output], ("ReducerOptions", {"keepDims": keep}))


@pytest.mark.parametrize(("op", "type_name", "profiles"), REDUCTIONS)
@SOME
@given(seed=SEEDS, shape=st.lists(st.integers(1, 9), min_size=1, max_size=4), keep=st.booleans())
def test_reductions_along_any_axes_give_the_oracles_bits(
    op: str, type_name: str, profiles: tuple[Profile, ...], seed: int, shape: list[int], keep: bool
) -> None:
    rng = np.random.default_rng(seed)
    axes = rng.choice(len(shape), int(rng.integers(1, len(shape) + 1)), replace=False)
    axes = np.where(rng.random(len(axes)) < 0.3, axes - len(shape), axes)
    kind = np.int8 if type_name == "int8" else np.int16
    values = random_values(rng, shape, kind)
    lows = np.full_like(values, np.iinfo(kind).min)
    assert_matches(_reduction(rng, op, type_name, shape, axes.tolist(), keep), [[values], [lows]], profiles)


@pytest.mark.parametrize(("shape", "axes"), [((1, 700, 9), (1,)), ((1, 6, 1031), (2,)), ((1, 30, 20, 8), (1, 2))])
def test_long_means_do_not_overflow_their_lanes(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    model = _reduction(rng, "MEAN", "int8", shape, axes, True)
    ends = [[np.full(shape, limit, np.int8)] for limit in (-128, 127)]
    assert_matches(model, [[random_values(rng, shape)], *ends])


def _pool(
    rng: np.random.Generator, op: str, type_name: str, shape: tuple[int, int, int, int], window: tuple[int, int],
    strides: tuple[int, int], valid: int,
) -> bytes:  # fmt: skip
    lengths = [
        (length - reach) // stride + 1 if valid else -(-length // stride)
        for length, reach, stride in zip(shape[1:3], window, strides, strict=True)
    ]
    given_ = _tensor(rng, shape, type_name, _scale(rng, 1e-3, 1.0))
    output = Spec((shape[0], *lengths, shape[3]), type_name, given_.scale, given_.zero)
    fields = {"padding": valid, "filterHeight": window[0], "filterWidth": window[1]}
    fields |= {"strideH": strides[0], "strideW": strides[1], "fusedActivationFunction": int(rng.integers(0, 4))}
    return model_of(op, [given_], [output], ("Pool2DOptions", fields))


@pytest.mark.parametrize("op", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize("type_name", ["int8", "int16"])
@SOME
@given(
    seed=SEEDS,
    shape=st.tuples(st.integers(1, 2), st.integers(1, 11), st.integers(1, 11), st.integers(1, 11)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    valid=st.integers(0, 1),
)
def test_pools_give_the_oracles_bits(
    op: str, type_name: str, seed: int, shape: tuple[int, int, int, int], strides: tuple[int, int], valid: int
) -> None:
    rng = np.random.default_rng(seed)
    window = (int(rng.integers(1, shape[1] + 1)), int(rng.integers(1, shape[2] + 1)))
    kind = np.int8 if type_name == "int8" else np.int16
    values = random_values(rng, shape, kind)
    lows = np.full_like(values, np.iinfo(kind).min)
    assert_matches(_pool(rng, op, type_name, shape, window, strides, valid), [[values], [lows]])


def test_average_of_a_whole_plane_gives_the_oracles_bits() -> None:
    rng = np.random.default_rng(2)
    shape = (1, 25, 13, 67)
    model = _pool(rng, "AVERAGE_POOL_2D", "int8", shape, (25, 13), (25, 13), 1)
    assert_matches(
        model, [[random_values(rng, shape)], [np.full(shape, -128, np.int8)], [np.full(shape, 127, np.int8)]]
    )


RESCALED: list[tuple[str, str, tuple[Profile, ...]]] = [
    ("int8", "int8", BOTH),
    ("int8", "int16", BOTH),
    ("int16", "int8", BOTH),
    ("int16", "int16", BOTH),
    ("int8", "int32", TFLM),
    ("int16", "int32", BOTH),
]


@pytest.mark.parametrize(("given_type", "output_type", "profiles"), RESCALED)
@FEW
@given(seed=SEEDS)
def test_quantize_between_whole_numbers(
    given_type: str, output_type: str, profiles: tuple[Profile, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = ALL_INT8 if given_type == "int8" else ALL_INT16
    given_ = _tensor(rng, values.shape, given_type, _scale(rng, 1e-3, 1.0))
    output = _tensor(rng, values.shape, output_type, given_.scale * _scale(rng, 0.01, 10.0))
    assert_matches(model_of("QUANTIZE", [given_], [output]), [[values]], profiles)


@pytest.mark.parametrize("type_name", ["int8", "int16"])
@SOME
@given(seed=SEEDS)
def test_float_inputs_are_quantized_and_outputs_dequantized(type_name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tensor = _tensor(rng, (1, 64), type_name, _scale(rng, 1e-3, 1.0))
    real = (rng.standard_normal((1, 64)) * tensor.scale * 200).astype(np.float32)
    real[0, :16] = np.arange(-4, 4, 0.5, np.float32) * np.float32(tensor.scale)  # Halves, as far as they are halves.
    real[0, 16:20] = np.float32([1e6, -1e6, 0.0, -0.0]) * np.float32(tensor.scale)
    assert_matches(model_of("QUANTIZE", [Spec((1, 64), "float32", None)], [tensor]), [[real]])
    kind = np.int8 if type_name == "int8" else np.int16
    back = model_of("DEQUANTIZE", [tensor], [Spec((1, 64), "float32", None)])
    assert_matches(back, [[random_values(rng, (1, 64), kind)]])


def test_floats_beyond_any_integer_saturate_and_nan_is_the_zero_point() -> None:
    model = model_of("QUANTIZE", [Spec((1, 5), "float32", None)], [Spec((1, 5), "int8", 0.5, 7)])
    real = np.array([[np.inf, -np.inf, np.nan, 3e38, -3e38]], np.float32)
    assert by_kernels(model, "tflm", [[real]])[0][0].tolist() == [[127, -128, 7, 127, -128]]


def test_fixed_point_functions_round_as_their_names_say() -> None:
    values = np.arange(-12, 13)
    assert divide_by_power(values, 2).tolist() == [math.copysign(1, v) * ((abs(v) + 2) // 4) for v in values.tolist()]
    assert divide_by_power(values, 0).tolist() == values.tolist()
    halves = doubling_high_multiply(values, 2**30)
    assert halves.tolist() == [math.floor(v / 2 + 0.5) for v in values.tolist()]
    assert int(doubling_high_multiply(-(2**31), -(2**31))) == 2**31 - 1


def _int8(shape: tuple[int, ...] = (1, 4), scale: Any = 0.5, zero: int = 0) -> Spec:
    return Spec(shape, "int8", scale, zero)


def _int16(scale: float = 0.5, zero: int = 0) -> Spec:
    return Spec((1, 4), "int16", scale, zero)


_FLOAT = Spec((1, 4), "float32", None)
_AXIS = constant([1], np.int32)
_POOL = {"padding": 1, "filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2}

REFUSED: list[tuple[str, list[Spec | None], Spec, tuple[str, Mapping[str, Any]] | None, Profile, str]] = [
    ("ADD", [_FLOAT, _FLOAT], _FLOAT, None, "tflm", "is float32"),
    ("ADD", [_int8(), _int16()], _int8(), None, "tflm", "second input is int16"),
    ("ADD", [_int8(), None], _int8(), None, "tflm", "missing"),
    ("ADD", [Spec((1, 4), "int8", [0.5] * 4, axis=1), _int8()], _int8(), None, "tflm", "per channel"),
    ("ADD", [_int8(scale=None), _int8()], _int8(), None, "tflm", "no scale"),
    ("ADD", [_int8(zero=300), _int8()], _int8(), None, "tflm", "zero point 300"),
    ("ADD", [_int16(zero=5), _int16()], _int16(), None, "tflm", "zero point 5"),
    ("ADD", [_int8((2, 4)), _int8((3, 4))], _int8((3, 4)), None, "tflm", "do not give"),
    ("ADD", [_int8((2, 4)), _int8((1, 4))], _int8((8,)), None, "tflm", "do not give"),
    ("ADD", [_int8((2, 4)), _int8((1, 4))], _int8((4, 4)), None, "tflm", "do not give"),
    ("ADD", [_int8(), _int8()], _int8(scale=1e-9), None, "tflm", "too small"),
    ("ADD", [_int8(), _int8()], _int8(), ("AddOptions", {"fusedActivationFunction": 4}), "tflm", "TANH"),
    ("ADD", [_int16(), _int16()], _int16(), ("AddOptions", {"potScaleInt16": True}), "litert-ref", "powers of two"),
    ("ADD", [constant(np.zeros((1, 4)), np.int8, 0.5)] * 2, _int8(), None, "tflm", "both of its inputs are constants"),
    ("ADD", [_int8((2, 1, 2, 1, 2)), _int8((1, 2, 1, 2, 1))], _int8((2,) * 5), None, "tflm", "alternate"),
    ("MUL", [_int8(), _int8()], _int8(scale=1e-6), None, "tflm", "too small"),
    ("MUL", [_int16(), _int16()], _int16(scale=1e-3), None, "tflm", "too small"),
    ("SQUARED_DIFFERENCE", [_int16(), _int16()], _int16(), None, "tflm", "is int16"),
    ("SQUARED_DIFFERENCE", [_int8(), _int8()], _int8(scale=1e-6), None, "tflm", "too small"),
    ("MAXIMUM", [_int8(), _int8(scale=0.25)], _int8(), None, "tflm", "not all of one scale"),
    ("PRELU", [_int8((1, 1)), _int8()], _int8(), None, "tflm", "should be"),
    ("RELU", [_int8()], _int8((4, 1)), None, "tflm", "should be"),
    ("RELU6", [_int8()], _int8(scale=0.25), None, "tflm", "ignores"),
    ("RELU_N1_TO_1", [_int8()], _int8(), None, "tflm", "use the profile litert-ref"),
    ("GELU", [_int8()], _int8(), None, "tflm", "use the profile litert-ref"),
    ("ELU", [_int8()], _int8(), None, "litert-ref", "use the profile tflm"),
    ("NEG", [_int8(zero=3)], _int8(zero=3), None, "litert-ref", "zero point"),
    ("EXP", [_int8(scale=0.5)], _int8(scale=1e-3), None, "litert-ref", "leave the range"),
    ("HARD_SWISH", [_int8(scale=1.0)], _int8(scale=1e-3), None, "tflm", "out of the range"),
    ("LOGISTIC", [_int8()], _int8(scale=1 / 128, zero=-128), None, "tflm", "1/256"),
    ("LOGISTIC", [_int16()], _int16(scale=1 / 256), None, "tflm", "1/32768"),
    ("TANH", [_int8()], _int8(), None, "tflm", "1/128"),
    ("RSQRT", [_int8()], _int8(scale=1e5), None, "tflm", "does not fit"),
    ("MUL", [_int8(scale=1e30), _int8(scale=1e30)], _int8(scale=1e-30), None, "litert-ref", "has the scale"),
    ("SQRT", [_int8()], _int8(), None, "litert-ref", "RSQRT"),
    ("LEAKY_RELU", [_int8()], _int8(), ("LeakyReluOptions", {"alpha": math.nan}), "tflm", "slope"),
    ("SOFTMAX", [_int8()], _int8(), ("SoftmaxOptions", {"beta": 1.0}), "tflm", "has not the scale"),
    ("SOFTMAX", [_int8()], _int8(scale=1 / 256), ("SoftmaxOptions", {"beta": 1.0}), "tflm", "zero point -128"),
    ("SOFTMAX", [_int8()], _int8(scale=1 / 256, zero=-128), ("SoftmaxOptions", {"beta": 0.0}), "tflm", "beta"),
    ("SOFTMAX", [_int8((1, 4096))], _int8((1, 4096), 1 / 256, -128), ("SoftmaxOptions", {"beta": 1.0}), "tflm", "4096"),
    ("MEAN", [_int8(), _int8()], _int8((1,)), None, "tflm", "list of axes is int8"),
    ("MEAN", [_int8(), Spec((1,), "int32", None)], _int8((1,)), None, "tflm", "computed at run time"),
    ("MEAN", [_int8(), constant([2], np.int32)], _int8((1,)), None, "tflm", "do not fit"),
    ("MEAN", [_int8(), _AXIS], _int8((1, 1)), ("ReducerOptions", {"keepDims": False}), "tflm", "should be"),
    ("SUM", [_int8(), _AXIS], _int8((1,)), None, "litert-ref", "use MEAN"),
    ("REDUCE_MAX", [_int8(), _AXIS], _int8((1,), 0.25), None, "tflm", "another scale"),
    ("REDUCE_MAX", [_int16(), _AXIS], Spec((1,), "int16", 0.5), None, "tflm", "litert-ref"),
    ("QUANTIZE", [Spec((1, 4), "uint8", 0.5)], _int8(), None, "tflm", "is uint8"),
    ("QUANTIZE", [_int8()], Spec((1, 4), "int32", 0.5), None, "litert-ref", "int32"),
    ("QUANTIZE", [_int16()], Spec((1, 4), "uint8", 0.5), None, "tflm", "is uint8"),
    ("DEQUANTIZE", [_int8()], Spec((1, 4), "float16", None), None, "tflm", "is float16"),
    ("DEQUANTIZE", [_int8()], Spec((4, 1), "float32", None), None, "tflm", "should be"),
    ("AVERAGE_POOL_2D", [_int8((1, 4, 4, 1))], _int8((1, 2, 2, 1), 0.25), ("Pool2DOptions", _POOL), "tflm", "scale"),
    ("AVERAGE_POOL_2D", [_int8((1, 4, 4, 1))], _int8((1, 3, 2, 1)), ("Pool2DOptions", _POOL), "tflm", "should be"),
    ("MAX_POOL_2D", [_int8((1, 4, 4, 1))], _int8((1, 2, 2, 1)), ("Pool2DOptions", _POOL | {"padding": 7}), "tflm", "padding"),
    ("MAX_POOL_2D", [_int8((1, 4, 4, 1))], _int8((1, 2, 2, 1)), ("Pool2DOptions", _POOL | {"strideH": 0}), "tflm", "empty"),
    ("MAX_POOL_2D", [_int8((4, 4))], _int8((2, 2)), ("Pool2DOptions", _POOL), "tflm", "four axes"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "output", "options", "profile", "message"), REFUSED)
def test_what_cannot_be_computed_is_refused_in_one_line(
    op: str,
    inputs: list[Spec | None],
    output: Spec,
    options: tuple[str, Mapping[str, Any]] | None,
    profile: Profile,
    message: str,
) -> None:
    with pytest.raises(EdgeError, match=message) as caught:
        lowered(model_of(op, inputs, [output], options), profile)
    text = str(caught.value)
    assert "\n" not in text
    assert op in text
    assert ";" in text, "what to do next is missing"


def _joined(models: Sequence[bytes]) -> bytes:
    """One model of all their ops beside each other, with all their inputs and outputs."""
    whole = unpack(models[0])
    graph = whole.subgraphs[0]
    for content in models[1:]:
        part = unpack(content)
        other = part.subgraphs[0]
        base, buffers, code = len(graph.tensors), len(whole.buffers), len(whole.operatorCodes)
        for tensor in other.tensors:
            tensor.buffer += buffers
        for op in other.operators:
            op.opcodeIndex += code
            op.inputs = [index + base if index >= 0 else -1 for index in op.inputs]
            op.outputs = [index + base for index in op.outputs]
        graph.tensors += other.tensors
        graph.operators += other.operators
        graph.inputs = [*graph.inputs, *(index + base for index in other.inputs)]
        graph.outputs = [*graph.outputs, *(index + base for index in other.outputs)]
        whole.buffers += part.buffers
        whole.operatorCodes += part.operatorCodes
    for number, tensor in enumerate(graph.tensors):
        tensor.name = f"t{number}"
    return pack(whole)


def _many_ops(rng: np.random.Generator) -> bytes:
    """Every kernel of this file with an int8 or int16 input, in shapes that leave odd ends."""
    models = []
    for type_name in ("int8", "int16"):
        for op in PAIRWISE:
            if (op, type_name) == ("SQUARED_DIFFERENCE", "int16"):
                continue
            for shapes in ([(2, 5, 7)] * 3, [(2, 5, 7), (7,), (2, 5, 7)], [(2, 5, 7), (2, 5, 1), (2, 5, 7)]):
                inputs, output, options = _pairwise(rng, op, type_name, shapes)
                models.append(model_of(op, inputs, [output], options))
        for op in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
            models.append(_pool(rng, op, type_name, (1, 9, 7, 11), (3, 2), (2, 1), 0))
            models.append(_pool(rng, op, type_name, (1, 9, 7, 11), (9, 7), (1, 1), 1))
    for axes in ((1,), (2,), (1, 2), (0, 1, 2)):
        models += [_reduction(rng, op, "int8", (3, 13, 11), axes, False) for op in ("MEAN", "SUM", "REDUCE_MAX")]
    models.append(_softmax("int8", "int8", (3, 17), 0.1, 0, 1.0))
    models.append(_softmax("int8", "int16", (3, 17), 0.1, 0, 1.0))
    models.append(_softmax("int16", "int16", (3, 17), 1e-3, 0, 1.0))
    models.append(model_of("LOGISTIC", [_int8((1, 256), 0.05)], [_int8((1, 256), 1 / 256, -128)]))
    models.append(model_of("TANH", [_int16(1e-3)], [_int16(1 / 32768)]))
    models.append(model_of("RELU", [_int8()], [_int8()]))
    models.append(model_of("QUANTIZE", [_int8(scale=0.01)], [_int16(0.001)]))
    models.append(model_of("QUANTIZE", [_FLOAT], [_int8()]))
    models.append(model_of("DEQUANTIZE", [_int8()], [_FLOAT]))
    return _joined(models)


@pytest.mark.slow
@pytest.mark.parametrize("board", ["qemu-m0", "qemu-m4", "qemu-m55"])
@pytest.mark.parametrize("optimise", ["-O3", "-Os"])
def test_emulated_cores_give_the_oracles_bits(board: str, optimise: str) -> None:
    needs(*QEMU)
    rng = np.random.default_rng(11)
    content = _many_ops(rng)
    program = program_of(content, "arithmetic")
    inputs: list[list[Values]] = []
    for _ in range(6):
        tensors = [program.graph.tensors[index] for index in program.graph.inputs]
        inputs.append(
            [
                rng.standard_normal(tensor.shape).astype(np.float32)
                if tensor.is_float
                else random_values(rng, tensor.shape, np.int8 if tensor.type == "int8" else np.int16)
                for tensor in tensors
            ]
        )
    expected_of = oracle_for(content, read_graph(content), "tflm")
    found = traces(program, BOARDS[board], inputs, optimise)
    for values, trace in zip(inputs, found, strict=True):
        for index, wanted in expected_of(values).items():
            op = next(op for op in program.graph.ops if index in op.outputs)
            np.testing.assert_array_equal(trace[index], wanted, err_msg=f"{op.name} {program.graph.tensors[index]}")


def test_the_oracles_disagree_about_logistic() -> None:
    """A float in LiteRT, fixed point in TFLM: one entry differs in 4 of 1,500 random models, such as this one."""
    tensors = [_int8((1, 256), 0.08690798282623291, 108), _int8((1, 256), 1 / 256, -128)]
    model = model_of("LOGISTIC", tensors[:1], tensors[1:])
    litert, tflm = (by_oracle(model, profile, [[ALL_INT8]])[0][0] for profile in BOTH)
    assert (litert != tflm).sum() == 1
    assert_matches(model, [[ALL_INT8]])
