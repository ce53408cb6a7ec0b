"""Convolutions and matrix products: the kernels give the oracles' bits for every shape, option and scale."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.emulated import traces
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import Layout, Profile, Step
from embridge_edge.firmware_bridge.verifying import seeded_inputs, verify_host
from embridge_edge.hardware.boards import find_board
from tests.firmware_bridge.single_op import (
    Spec,
    Values,
    assert_matches,
    constant,
    lowered,
    model_of,
    random_values,
)
from tests.tools import QEMU, needs

EXAMPLES = settings(max_examples=40, derandomize=True, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
FUSED = st.sampled_from([0, 0, 1, 2, 3])
SAME_OR_VALID = st.sampled_from([0, 1])
BOTH: tuple[Profile, ...] = ("litert-ref", "tflm")
LAYOUTS: tuple[Layout, ...] = ("rows", "pairs", "vectors")


def _scales(rng: np.random.Generator, channels: int, per_channel: bool) -> Any:
    scales = np.exp(rng.uniform(-7, -3, channels if per_channel else 1)).astype(np.float32)
    return scales.tolist() if per_channel else float(scales[0])


def _weighted(rng: np.random.Generator, shape: tuple[int, ...], axis: int, per_channel: bool) -> Spec:
    weights = random_values(rng, shape)
    if rng.random() < 0.7:  # what quantizers write; −128 must work all the same
        weights = np.maximum(weights, -127)
    return constant(weights, np.int8, _scales(rng, shape[axis], per_channel), axis=axis)


def _bias(rng: np.random.Generator, weights: Spec, channels: int, input_scale: float) -> Spec:
    scales = np.broadcast_to(np.float32(weights.scale) * np.float32(input_scale), (np.size(weights.scale),))
    limit = int(rng.choice([100, 30_000, 5_000_000]))
    return constant(rng.integers(-limit, limit, channels), np.int32, scales.tolist())


def _output(rng: np.random.Generator, shape: tuple[int, ...], weights: Spec, taps: int, input_scale: float) -> Spec:
    """An output whose scale uses the range, or saturates it, or has a multiplier above one."""
    spread = input_scale * float(np.max(weights.scale)) * math.sqrt(taps) * 50
    return Spec(shape, scale=float(np.float32(spread * np.exp(rng.uniform(-5, 1)))), zero=int(rng.integers(-128, 128)))


def _input(rng: np.random.Generator, shape: tuple[int, ...]) -> Spec:
    return Spec(
        shape,
        scale=float(np.float32(np.exp(rng.uniform(-6, 0)))),
        zero=int(rng.choice([-128, 127, rng.integers(-128, 128)])),
    )


def _length(size: int, reach: int, stride: int, padding: int) -> int:
    return -(-size // stride) if padding == 0 else (size - reach) // stride + 1


def _invokes(rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[list[Values]]:
    lows = [np.full(shape, -128, np.int8) for shape in shapes]
    highs = [np.full(shape, 127, np.int8) for shape in shapes]
    return [[random_values(rng, shape) for shape in shapes] for _ in range(2)] + [lows, highs]


@pytest.mark.slow
@EXAMPLES
@given(
    SEEDS,
    st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([(1, 1), (1, 3), (2, 5), (3, 7), (4, 8), (8, 1)]),
    st.sampled_from([1, 1, 1, 2, 3]),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 2)),
    SAME_OR_VALID,
    FUSED,
    st.booleans(),
    st.booleans(),
)
def test_conv_2d_is_bit_exact(
    seed: int,
    image: tuple[int, int, int],
    channels: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: int,
    fused: int,
    per_channel: bool,
    biased: bool,
) -> None:
    rng = np.random.default_rng(seed)
    depth, out_c = channels[0], channels[1] * groups
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height, width = (max(size, span) for size, span in zip(image[1:], reach, strict=True))
    x = _input(rng, (image[0], height, width, depth * groups))
    weights = _weighted(rng, (out_c, *kernel, depth), 0, per_channel)
    shape = (
        image[0],
        _length(height, reach[0], stride[0], padding),
        _length(width, reach[1], stride[1], padding),
        out_c,
    )
    assert isinstance(x.scale, float)
    model = model_of(
        "CONV_2D",
        [x, weights, *([_bias(rng, weights, out_c, x.scale)] if biased else [])],
        [_output(rng, shape, weights, kernel[0] * kernel[1] * depth, x.scale)],
        (
            "Conv2DOptions",
            {
                "padding": padding,
                "strideH": stride[0],
                "strideW": stride[1],
                "dilationHFactor": dilation[0],
                "dilationWFactor": dilation[1],
                "fusedActivationFunction": fused,
            },
        ),
        version=3,
    )
    # LiteRT wants a bias, TFLM can do without.
    assert_matches(model, _invokes(rng, x.shape), BOTH if biased else ("tflm",), LAYOUTS)


@pytest.mark.slow
@EXAMPLES
@given(
    SEEDS,
    st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 9),
    st.integers(1, 3),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from([(1, 1), (2, 2), (1, 3), (2, 1)]),
    st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 1), (1, 2)]),
    SAME_OR_VALID,
    FUSED,
    st.booleans(),
    st.booleans(),
)
def test_depthwise_conv_2d_is_bit_exact(
    seed: int,
    image: tuple[int, int, int],
    in_c: int,
    depth: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: int,
    fused: int,
    per_channel: bool,
    upright: bool,
) -> None:
    rng = np.random.default_rng(seed)
    if upright:  # the shape of a one-dimensional network
        image, kernel, stride, dilation = (*image[:2], 1), (kernel[0], 1), (stride[0], 1), (dilation[0], 1)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height, width = (max(size, span) for size, span in zip(image[1:], reach, strict=True))
    x = _input(rng, (image[0], height, width, in_c))
    weights = _weighted(rng, (1, *kernel, in_c * depth), 3, per_channel)
    shape = (
        image[0],
        _length(height, reach[0], stride[0], padding),
        _length(width, reach[1], stride[1], padding),
        in_c * depth,
    )
    assert isinstance(x.scale, float)
    model = model_of(
        "DEPTHWISE_CONV_2D",
        [x, weights, _bias(rng, weights, in_c * depth, x.scale)],
        [_output(rng, shape, weights, kernel[0] * kernel[1], x.scale)],
        (
            "DepthwiseConv2DOptions",
            {
                "padding": padding,
                "strideH": stride[0],
                "strideW": stride[1],
                "depthMultiplier": depth,
                "dilationHFactor": dilation[0],
                "dilationWFactor": dilation[1],
                "fusedActivationFunction": fused,
            },
        ),
        version=3,
    )
    assert_matches(model, _invokes(rng, x.shape), layouts=LAYOUTS)


@EXAMPLES
@given(SEEDS, st.integers(1, 5), st.integers(1, 70), st.integers(1, 20), FUSED, st.booleans(), st.booleans())
def test_fully_connected_is_bit_exact(
    seed: int, rows: int, in_c: int, out_c: int, fused: int, per_channel: bool, biased: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = _input(rng, (rows, in_c))
    weights = _weighted(rng, (out_c, in_c), 0, per_channel)
    assert isinstance(x.scale, float)
    model = model_of(
        "FULLY_CONNECTED",
        [x, weights, _bias(rng, weights, out_c, x.scale) if biased else None],
        [_output(rng, (rows, out_c), weights, in_c, x.scale)],
        ("FullyConnectedOptions", {"fusedActivationFunction": fused}),
        version=4,
    )
    assert_matches(model, _invokes(rng, x.shape), layouts=LAYOUTS)


@EXAMPLES
@given(
    SEEDS,
    st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 6), st.integers(1, 5)),
    st.tuples(st.integers(1, 5), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    SAME_OR_VALID,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["int8", "int16"]),
)
def test_transpose_conv_is_bit_exact(
    seed: int,
    image: tuple[int, int, int],
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: int,
    per_channel: bool,
    biased: bool,
    kind: str,
) -> None:
    rng = np.random.default_rng(seed)
    in_c, out_c = channels
    x = _input(rng, (*image, in_c)) if kind == "int8" else _wide_input(rng, (*image, in_c))
    assert isinstance(x.scale, float)
    weights = _weighted(rng, (out_c, *kernel, in_c), 0, per_channel)
    spare = [int(rng.integers(0, step)) for step in stride]  # PyTorch's output_padding
    height, width = (
        size * step - extra if padding == 0 else (size - 1) * step + reach + extra
        for size, step, reach, extra in zip(image[1:], stride, kernel, spare, strict=True)
    )
    shape = (image[0], height, width, out_c)
    taps = kernel[0] * kernel[1] * in_c
    if kind == "int8":
        output, bias = _output(rng, shape, weights, taps, x.scale), _bias(rng, weights, out_c, x.scale)
    else:
        output, bias = _wide_output(rng, shape, weights, taps, x.scale), _wide_bias(rng, weights, out_c, x.scale)
    model = model_of(
        "TRANSPOSE_CONV",
        [constant(shape), weights, x, *([bias] if biased else [])],
        [output],
        ("TransposeConvOptions", {"padding": padding, "strideH": stride[0], "strideW": stride[1]}),
        version=3 if biased else 2,
    )
    invokes = _invokes(rng, x.shape) if kind == "int8" else _wide_invokes(rng, x.shape)
    # TFLM looks at the bias of int16 even where there is none.
    assert_matches(model, invokes, BOTH if biased or kind == "int8" else ("litert-ref",))


@EXAMPLES
@given(
    SEEDS,
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.sampled_from(["both", "left", "right", "none"]), st.sampled_from(["both", "left", "right", "none"])),
    st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 5)),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "left", "right"]),
    st.sampled_from(["int8", "int8", "int16"]),
)
def test_batch_matmul_is_bit_exact(
    seed: int,
    batches: tuple[int, int],
    held_by: tuple[str, str],
    sizes: tuple[int, int, int],
    adj_x: bool,
    adj_y: bool,
    stored: str | None,
    kind: str,
) -> None:
    rng = np.random.default_rng(seed)
    rows, depth, columns = sizes
    dtype = np.dtype(kind).type

    def operand(side: str, matrix: tuple[int, int]) -> Spec:
        held = [n if who in ("both", side) else 1 for n, who in zip(batches, held_by, strict=True)]
        while held and held[0] == 1 and rng.random() < 0.5:
            held.pop(0)
        shape = (*held, *matrix)
        scale = float(np.float32(np.exp(rng.uniform(-6, 0))))
        zero = int(rng.choice([-128, 0, 127, rng.integers(-128, 128)])) if kind == "int8" else 0
        return Spec(shape, kind, scale, zero, data=random_values(rng, shape, dtype) if stored == side else None)

    left = operand("left", (depth, rows) if adj_x else (rows, depth))
    right = operand("right", (columns, depth) if adj_y else (depth, columns))
    lengths = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    assert isinstance(left.scale, float)
    assert isinstance(right.scale, float)
    spread = left.scale * right.scale * math.sqrt(depth) * (40 if kind == "int8" else 9000)
    scale = float(np.float32(spread * np.exp(rng.uniform(-2, 1))))
    output = Spec((*lengths, rows, columns), kind, scale, int(rng.integers(-128, 128)) if kind == "int8" else 0)
    model = model_of(
        "BATCH_MATMUL", [left, right], [output], ("BatchMatMulOptions", {"adjX": adj_x, "adjY": adj_y}), version=4
    )
    asked = [spec.shape for spec in (left, right) if spec.data is None]
    invokes = _invokes(rng, *asked) if kind == "int8" else _wide_invokes(rng, *asked)
    assert_matches(model, invokes, layouts=LAYOUTS)


def _wide_input(rng: np.random.Generator, shape: tuple[int, ...]) -> Spec:
    return Spec(shape, "int16", float(np.float32(np.exp(rng.uniform(-9, -4)))))


def _wide_bias(rng: np.random.Generator, weights: Spec, channels: int, scale: float, kind: str = "int64") -> Spec:
    bias = _bias(rng, weights, channels, scale)
    assert bias.data is not None
    return constant(bias.data, np.dtype(kind).type, bias.scale)


def _wide_output(rng: np.random.Generator, shape: tuple[int, ...], weights: Spec, taps: int, scale: float) -> Spec:
    spread = scale * float(np.max(weights.scale)) * math.sqrt(taps) * 50
    return Spec(shape, "int16", float(np.float32(spread * np.exp(rng.uniform(-3, 1)))))


def _wide_invokes(rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[list[Values]]:
    extremes = [[np.full(shape, value, np.int16) for shape in shapes] for value in (-32768, 32767)]
    return [[random_values(rng, shape, np.int16) for shape in shapes] for _ in range(2)] + extremes


@EXAMPLES
@given(
    SEEDS,
    st.sampled_from(["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"]),
    st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 6), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([1, 1, 2]),
    SAME_OR_VALID,
    FUSED,
    st.booleans(),
    st.sampled_from(["int64", "int64", "int32"]),
)
def test_products_of_16_bit_activations_are_bit_exact(
    seed: int,
    op: str,
    image: tuple[int, int, int],
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    padding: int,
    fused: int,
    per_channel: bool,
    kind: str,
) -> None:
    rng = np.random.default_rng(seed)
    in_c, factor = channels
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if op == "CONV_2D":
        factor *= groups
    out_c = in_c * factor if op == "DEPTHWISE_CONV_2D" else factor
    options: dict[str, Any] = {"fusedActivationFunction": fused, "quantizedBiasType": 2 if kind == "int32" else 4}
    if op == "FULLY_CONNECTED":
        x, shape = _wide_input(rng, (image[1], in_c)), (image[1], out_c)
        weights, taps, name = _weighted(rng, (out_c, in_c), 0, per_channel), in_c, "FullyConnectedOptions"
    else:
        height, width = (max(size, span) for size, span in zip(image[1:], reach, strict=True))
        x = _wide_input(rng, (image[0], height, width, in_c * (groups if op == "CONV_2D" else 1)))
        shape = (
            image[0],
            _length(height, reach[0], stride[0], padding),
            _length(width, reach[1], stride[1], padding),
            out_c,
        )
        options |= {"padding": padding, "strideH": stride[0], "strideW": stride[1]}
        options |= {"dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
        if op == "CONV_2D":
            weights, taps, name = _weighted(rng, (out_c, *kernel, in_c), 0, per_channel), in_c, "Conv2DOptions"
        else:
            weights, taps, name = _weighted(rng, (1, *kernel, out_c), 3, per_channel), 1, "DepthwiseConv2DOptions"
            options |= {"depthMultiplier": factor}
            del options["quantizedBiasType"]
        taps *= kernel[0] * kernel[1]
    assert isinstance(x.scale, float)
    if op == "DEPTHWISE_CONV_2D":
        kind = "int64"
    version = {"CONV_2D": 8, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 11}[op]
    bias = _wide_bias(rng, weights, out_c, x.scale, kind)
    model = model_of(
        op, [x, weights, bias], [_wide_output(rng, shape, weights, taps, x.scale)], (name, options), version=version
    )
    assert_matches(model, _wide_invokes(rng, x.shape))


def _refused_products() -> list[tuple[bytes, Profile, str]]:
    rng = np.random.default_rng(0)
    weights = constant(random_values(rng, (5, 3, 3, 4)), np.int8, 0.01)
    matrix = constant(random_values(rng, (5, 2000)), np.int8, 0.01)

    def transposed(out: tuple[int, ...], named: tuple[int, ...] | None = None, **options: int) -> bytes:
        fields = {"padding": 0, "strideH": 2, "strideW": 2, **options}
        inputs = [constant(named or out), weights, Spec((1, 3, 3, 4))]
        return model_of("TRANSPOSE_CONV", inputs, [Spec(out)], ("TransposeConvOptions", fields))

    def product(left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...], kind: str = "int8") -> bytes:
        specs = [Spec(shape, kind, 0.01) for shape in (left, right, out)]
        return model_of("BATCH_MATMUL", specs[:2], specs[2:], ("BatchMatMulOptions", {}))

    def wide(bias: Spec, scale: float = 0.5) -> bytes:
        inputs = [Spec((2, 2000), "int16", 0.01), matrix, bias]
        return model_of("FULLY_CONNECTED", inputs, [Spec((2, 5), "int16", scale)], ("FullyConnectedOptions", {}))

    bias = constant(np.zeros(5), np.int64, 0.0001)
    return [
        (transposed((1, 6, 6, 5), (1, 6, 7, 5)), "tflm", "shape that it names"),
        (transposed((1, 9, 6, 5)), "tflm", "does not fit"),
        (transposed((1, 6, 6, 4)), "tflm", "do not fit"),
        (transposed((1, 6, 6, 5), strideW=0), "tflm", "strides is 0"),
        (transposed((1, 6, 6, 5), fusedActivationFunction=1), "tflm", "fused activation"),
        (product((2, 3), (4, 5), (2, 5)), "tflm", r"is not \(2, 5\)"),
        (product((2, 3), (3, 5), (2, 4)), "tflm", r"is not \(2, 4\)"),
        (product((2, 2, 3), (3, 3, 5), (3, 2, 5)), "tflm", "its batches"),
        (product((1, 2, 3), (1, 3, 5), (2, 2, 5)), "tflm", "its batches"),
        (product((2, 40000), (40000, 2), (2, 2)), "tflm", "sums 40000 products"),
        (product((2, 3), (3, 5), (2, 5), "int32"), "tflm", "is int32"),
        (wide(constant(np.zeros(4), np.int64, 0.0001)), "tflm", "its bias does not fit"),
        (wide(constant(np.full(5, 1 << 50), np.int64, 0.0001)), "tflm", "needs more than 48 bits"),
        (wide(bias), "litert-ref", "use the profile tflm"),
        (wide(bias, 1e-9), "tflm", "too small"),
    ]


@pytest.mark.parametrize(("model", "profile", "words"), _refused_products())
def test_product_that_lies_or_overflows_is_refused(model: bytes, profile: Profile, words: str) -> None:
    with pytest.raises(EdgeError, match=words):
        lowered(model, profile)


def test_constant_matrix_becomes_a_product_of_rows() -> None:
    rng = np.random.default_rng(0)
    right = constant(random_values(rng, (6, 4)), np.int8, 0.02)
    model = model_of("BATCH_MATMUL", [Spec((2, 3, 6)), right], [Spec((2, 3, 4), scale=0.9)], ("BatchMatMulOptions", {}))
    (step,) = lowered(model, "tflm", "pairs")
    assert isinstance(step, Step)
    assert step.kernel == "emb_pointwise_pairs_s8"


def _vectors(depth: int, kind: str) -> list[bytes]:
    """A product, a convolution and a transposed one whose sums run over `depth` values that lie together."""
    rng = np.random.default_rng(depth)
    zero, wide = (3, False) if kind == "int8" else (0, True)
    x = Spec((1, 4, 5, depth), kind, 0.01, zero)
    output_scale = 0.2 if wide else 0.05
    weights = constant(random_values(rng, (3, 2, 3, depth)), np.int8, 0.02)
    bias = constant(rng.integers(-9, 9, 3), np.int64 if wide else np.int32, 0.0002)
    options: dict[str, Any] = {"padding": 0, "strideH": 1, "strideW": 1}
    output = Spec((1, 4, 5, 3), kind, output_scale, zero)
    right = Spec((1, 4, 3, depth), kind, 0.01, -zero)
    product = Spec((1, 4, 5, 3), kind, output_scale, zero)
    return [
        model_of("CONV_2D", [x, weights, bias], [output], ("Conv2DOptions", options), version=4),
        model_of(
            "TRANSPOSE_CONV",
            [constant((1, 4, 5, 3)), weights, x, bias],
            [output],
            ("TransposeConvOptions", options),
            version=3,
        ),
        model_of(
            "BATCH_MATMUL", [x, right], [product], ("BatchMatMulOptions", {"adjX": False, "adjY": True}), version=4
        ),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("board", "layout"), [("qemu-m4", "pairs"), ("qemu-m55", "vectors")])
@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_emulated_cores_give_the_same_bits(board: str, layout: Layout, kind: str) -> None:
    needs(*QEMU)
    for content in itertools.chain.from_iterable(_vectors(depth, kind) for depth in (3, 21)):
        graph = read_graph(content)
        program = make_program(graph, "net", "tflm", layout)
        inputs = list(seeded_inputs(graph, 6))
        checked, on_host = verify_host(program, content, inputs)
        assert checked.ok
        for wanted, found in zip(on_host, traces(program, find_board(board), inputs), strict=True):
            for index, values in wanted.items():
                np.testing.assert_array_equal(found[index], values)
