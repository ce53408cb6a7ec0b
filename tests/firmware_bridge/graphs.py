"""Models of several ops, written op by op, and Hypothesis' strategy for random ones: branches, skips, reads of one tensor twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from embridge_edge.export.flatbuffer import as_array, pack
from tests.firmware_bridge.single_op import Spec, constant

SAME, VALID = 0, 1
NONE, RELU, RELU_N1_TO_1, RELU6 = 0, 1, 2, 3

SCALES = ((0.05, 0), (0.05, 0), (0.11, -20), (0.023, 77))
"""Scale and zero point of activations: few, so that ops that want equal ones find them."""
SOFTMAX = (1 / 256, -128)
TANH = (1 / 128, 0)

Options = tuple[str, Mapping[str, Any]]


@dataclasses.dataclass
class Network:
    """A graph while it is written; a tensor is its index.

    Attributes:
        tensors: what each tensor is.
        names: as the file is to have them.
        ops: name, inputs, outputs, options and version of each.
        intermediates: of ops that have any, by the op's position.
        inputs, outputs: of the model.
    """

    tensors: list[Spec] = dataclasses.field(default_factory=list)
    names: list[str] = dataclasses.field(default_factory=list)
    ops: list[tuple[str, list[int], list[int], Options | None, int]] = dataclasses.field(default_factory=list)
    intermediates: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    inputs: list[int] = dataclasses.field(default_factory=list)
    outputs: list[int] = dataclasses.field(default_factory=list)

    def tensor(self, spec: Spec, name: str | None = None) -> int:
        """A new tensor."""
        self.tensors.append(spec)
        self.names.append(f"t{len(self.names)}" if name is None else name)
        return len(self.tensors) - 1

    def input(self, shape: Sequence[int], scale: float = 0.05, zero: int = 0, kind: str = "int8") -> int:
        """A new input of the model."""
        self.inputs.append(self.tensor(Spec(tuple(shape), kind, scale if kind != "float32" else None, zero)))
        return self.inputs[-1]

    def op(
        self,
        name: str,
        given: Sequence[int | Spec | None],
        output: Spec | Sequence[Spec],
        options: Options | None = None,
        *,
        version: int = 1,
        called: str | None = None,
        intermediates: Sequence[Spec] = (),
    ) -> int:
        """A new op; constants and variables are given as they are, None where an optional input is absent.

        Returns its first output; further ones come right behind it.
        """
        inputs = [-1 if one is None else one if isinstance(one, int) else self.tensor(one) for one in given]
        if intermediates:
            self.intermediates[len(self.ops)] = [self.tensor(one) for one in intermediates]
        outputs = [self.tensor(one, called) for one in ([output] if isinstance(output, Spec) else output)]
        self.ops.append((name, inputs, outputs, options, version))
        return outputs[0]

    def model(self) -> bytes:
        """The `.tflite` file."""
        from ai_edge_litert import schema_py_generated as schema

        buffers, tensors = [schema.BufferT()], []
        for spec, name in zip(self.tensors, self.names, strict=True):
            buffers.append(schema.BufferT(data=None if spec.data is None else as_array(spec.data.tobytes())))
            quantization = None
            if spec.scale is not None:
                scales = [float(scale) for scale in np.atleast_1d(spec.scale)]
                quantization = schema.QuantizationParametersT(
                    scale=scales, zeroPoint=[spec.zero] * len(scales), quantizedDimension=spec.axis
                )
            tensors.append(
                schema.TensorT(
                    shape=list(spec.shape), type=getattr(schema.TensorType, spec.type.upper()), buffer=len(buffers) - 1,
                    name=name, quantization=quantization, isVariable=spec.variable, hasRank=True,
                )
            )  # fmt: skip
        kinds = sorted({(name, version) for name, *_, version in self.ops})
        codes = []
        for name, version in kinds:
            code = getattr(schema.BuiltinOperator, name)
            codes.append(schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), version=version, builtinCode=code))
        operators = [
            schema.OperatorT(
                opcodeIndex=kinds.index((name, version)), inputs=inputs, outputs=outputs,
                builtinOptionsType=getattr(schema.BuiltinOptions, options[0]) if options else 0,
                builtinOptions=getattr(schema, f"{options[0]}T")(**options[1]) if options else None,
                intermediates=self.intermediates.get(at),
            )
            for at, (name, inputs, outputs, options, version) in enumerate(self.ops)
        ]  # fmt: skip
        graph = schema.SubGraphT(tensors=tensors, inputs=self.inputs, outputs=self.outputs, operators=operators)
        return pack(schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=buffers))


def like(spec: Spec, shape: Sequence[int] | None = None, scale: tuple[float, int] | None = None) -> Spec:
    """An activation such as this one, of another shape or scale."""
    to, zero = scale or (spec.scale, spec.zero)
    return Spec(spec.shape if shape is None else tuple(shape), spec.type, to, zero)


def convolution(
    network: Network,
    given: int,
    out_c: int,
    scale: tuple[float, int] = SCALES[0],
    *,
    kernel: tuple[int, int] = (1, 1),
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: int = SAME,
    activation: int = NONE,
    depthwise: bool = False,
    bias: bool = True,
    seed: int = 0,
    called: str | None = None,
) -> int:
    """A CONV_2D, or a DEPTHWISE_CONV_2D whose multiplier is `out_c`, of random weights."""
    rng = np.random.default_rng(seed)
    before = network.tensors[given]
    batches, height, width, in_c = before.shape
    out = [batches]
    for length, reach, step, factor in zip((height, width), kernel, stride, dilation, strict=True):
        over = (reach - 1) * factor + 1
        out.append(-(-length // step) if padding == SAME else (length - over) // step + 1)
    channels = in_c * out_c if depthwise else out_c
    shape = (1, *kernel, channels) if depthwise else (out_c, *kernel, in_c)
    axis = 3 if depthwise else 0
    scales = rng.uniform(0.002, 0.02, channels).astype(np.float32)
    bias_type = np.int64 if before.type == "int16" else np.int32
    inputs: list[int | Spec] = [given, constant(rng.integers(-127, 128, shape), np.int8, scales, axis=axis)]
    if bias:
        inputs.append(constant(rng.integers(-3000, 3000, channels), bias_type, scales * float(before.scale)))  # type: ignore[arg-type]
    options = {
        "padding": padding, "strideH": stride[0], "strideW": stride[1], "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1], "fusedActivationFunction": activation,
    }  # fmt: skip
    if depthwise:
        options["depthMultiplier"] = out_c
    kind = "DepthwiseConv2D" if depthwise else "Conv2D"
    name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    if not bias:
        inputs.append(constant(np.zeros(channels), bias_type, scales * float(before.scale)))  # type: ignore[arg-type]
    return network.op(
        name, inputs, like(before, (*out, channels), scale), (f"{kind}Options", options), version=3, called=called
    )


def dense(
    network: Network,
    given: int,
    out_c: int,
    scale: tuple[float, int] = SCALES[0],
    *,
    activation: int = NONE,
    seed: int = 0,
) -> int:
    """A FULLY_CONNECTED of random weights over the last axis."""
    rng = np.random.default_rng(seed)
    before = network.tensors[given]
    in_c = before.shape[-1]
    rows = int(np.prod(before.shape)) // in_c
    weights = constant(rng.integers(-127, 128, (out_c, in_c)), np.int8, 0.007)
    bias = constant(
        rng.integers(-3000, 3000, out_c), np.int64 if before.type == "int16" else np.int32, 0.007 * float(before.scale)
    )  # type: ignore[arg-type]
    options = ("FullyConnectedOptions", {"fusedActivationFunction": activation})
    return network.op("FULLY_CONNECTED", [given, weights, bias], like(before, (rows, out_c), scale), options, version=4)


def lstm(network: Network, given: int, cells: int, scale: tuple[float, int] = TANH, *, seed: int = 0) -> int:
    """A UNIDIRECTIONAL_SEQUENCE_LSTM of random weights and a state of its own."""
    rng = np.random.default_rng(seed)
    before = network.tensors[given]
    batches, steps, inputs = before.shape
    step = float(np.float32(0.02) * np.float32(before.scale))  # type: ignore[arg-type]

    def weights(columns: int) -> list[Spec | int | None]:
        return [constant(rng.integers(-127, 128, (cells, columns)), np.int8, 0.02) for _ in range(4)]

    biases = [constant(rng.integers(-500, 500, cells), np.int32, step) for _ in range(4)]
    hidden = Spec((batches, cells), "int8", *scale, variable=True)
    cell = Spec((batches, cells), "int16", 2.0**-11, variable=True)
    intermediates = [*(Spec((0,), "int16", 2.0**-12) for _ in range(4)), Spec((0,), "int8", *scale)]
    return network.op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        [given, *weights(inputs), *weights(cells), None, None, None, *biases, None, None, hidden, cell, *[None] * 4],
        Spec((batches, steps, cells), "int8", *scale),
        ("UnidirectionalSequenceLSTMOptions", {"fusedActivationFunction": 4}), intermediates=intermediates,
    )  # fmt: skip


def pad(network: Network, given: int, amounts: Sequence[tuple[int, int]]) -> int:
    """A PAD by so many elements before and behind each axis."""
    before = network.tensors[given]
    shape = [length + sum(amount) for length, amount in zip(before.shape, amounts, strict=True)]
    return network.op("PAD", [given, constant(amounts)], like(before, shape), ("PadOptions", {}), version=2)


def reshape(network: Network, given: int, shape: Sequence[int]) -> int:
    """A RESHAPE."""
    options = ("ReshapeOptions", {"newShape": list(shape)})
    return network.op("RESHAPE", [given, constant(shape)], like(network.tensors[given], shape), options)


def unary(network: Network, name: str, given: int, scale: tuple[float, int] | None = None) -> int:
    """An op of one input and no options."""
    return network.op(name, [given], like(network.tensors[given], scale=scale), version=2 if name == "RELU" else 1)


def sum_of(
    network: Network,
    first: int,
    second: int | Spec,
    scale: tuple[float, int] = SCALES[0],
    name: str = "ADD",
    activation: int = NONE,
) -> int:
    """ADD, SUB or MUL; the second may be a constant."""
    options = (f"{name.capitalize()}Options", {"fusedActivationFunction": activation})
    return network.op(name, [first, second], like(network.tensors[first], scale=scale), options, version=2)


def concatenation(network: Network, given: Sequence[int], axis: int) -> int:
    """A CONCATENATION of tensors that differ in this axis alone."""
    shapes = [network.tensors[one].shape for one in given]
    shape = list(shapes[0])
    shape[axis] = sum(one[axis] for one in shapes)
    options = ("ConcatenationOptions", {"axis": axis})
    return network.op("CONCATENATION", list(given), like(network.tensors[given[0]], shape), options, version=2)


def split(network: Network, given: int, parts: int, axis: int = -1) -> list[int]:
    """A SPLIT into equal parts."""
    before = network.tensors[given]
    shape = list(before.shape)
    shape[axis] //= parts
    first = network.op(
        "SPLIT", [constant(axis % len(shape)), given], [like(before, shape)] * parts, ("SplitOptions", {"numSplits": parts}),
        version=2,
    )  # fmt: skip
    return list(range(first, first + parts))


def pooling(
    network: Network, name: str, given: int, window: tuple[int, int], stride: tuple[int, int], padding: int
) -> int:
    """AVERAGE_POOL_2D or MAX_POOL_2D."""
    before = network.tensors[given]
    batches, height, width, channels = before.shape
    out = [
        -(-length // step) if padding == SAME else (length - reach) // step + 1
        for length, reach, step in zip((height, width), window, stride, strict=True)
    ]
    options = {
        "filterHeight": window[0], "filterWidth": window[1], "strideH": stride[0], "strideW": stride[1], "padding": padding,
    }  # fmt: skip
    return network.op(name, [given], like(before, (batches, *out, channels)), ("Pool2DOptions", options), version=2)


@dataclasses.dataclass
class _Growing:
    """A random network while Hypothesis draws it."""

    draw: st.DrawFn
    network: Network
    alive: list[int]
    """Tensors that may be read, inputs and read ones included."""

    def choose(self, fits: Callable[[Spec], bool] = lambda spec: True) -> int | None:
        """Any tensor that fits."""
        found = [index for index in self.alive if fits(self.network.tensors[index])]
        return self.draw(st.sampled_from(found)) if found else None

    def scale(self) -> tuple[float, int]:
        return self.draw(st.sampled_from(SCALES))

    def sides(self, least: int, most: int) -> tuple[int, int]:
        return self.draw(st.integers(least, most)), self.draw(st.integers(least, most))

    def seed(self) -> int:
        return self.draw(st.integers(0, 999))

    def take(self, *tensors: int | None) -> None:
        self.alive += [tensor for tensor in tensors if tensor is not None]


def _is_image(spec: Spec) -> bool:
    return len(spec.shape) == 4 and spec.type == "int8"


def _convolution(grow: _Growing) -> None:
    given = grow.choose(_is_image)
    if given is None:
        return
    shape = grow.network.tensors[given].shape
    padding = grow.draw(st.sampled_from([SAME, VALID]))
    kernel = grow.sides(1, 3)
    dilation = grow.sides(1, 2) if grow.draw(st.integers(0, 4)) == 0 else (1, 1)
    reach = [(side - 1) * factor + 1 for side, factor in zip(kernel, dilation, strict=True)]
    if padding == VALID and (reach[0] > shape[1] or reach[1] > shape[2]):
        return
    depthwise = grow.draw(st.booleans())
    stride = grow.sides(1, 2) if dilation == (1, 1) else (1, 1)
    grow.take(
        convolution(
            grow.network, given, grow.draw(st.integers(1, 2 if depthwise else 9)), grow.scale(),
            kernel=kernel, stride=stride, dilation=dilation, padding=padding, depthwise=depthwise,
            activation=grow.draw(st.sampled_from([NONE, NONE, RELU, RELU6])), bias=grow.draw(st.booleans()), seed=grow.seed(),
        )
    )  # fmt: skip


def _padded_convolution(grow: _Growing) -> None:
    """PAD and a convolution that may do it itself; the padded tensor is sometimes read by others as well."""
    given = grow.choose(_is_image)
    if given is None:
        return
    margins = [(0, 0), grow.sides(0, 2), grow.sides(0, 2), (0, 0)]
    if grow.draw(st.integers(0, 5)) == 0:
        margins[3] = grow.sides(0, 1)
    padded = pad(grow.network, given, margins)
    shape = grow.network.tensors[padded].shape
    kernel = grow.draw(st.sampled_from([(1, 1), (min(3, shape[1]), min(3, shape[2])), (min(2, shape[1]), 1)]))
    depthwise = grow.draw(st.booleans())
    made = convolution(
        grow.network, padded, grow.draw(st.integers(1, 2 if depthwise else 5)), grow.scale(), kernel=kernel,
        stride=grow.sides(1, 2), padding=grow.draw(st.sampled_from([SAME, VALID, VALID, VALID])), depthwise=depthwise,
        seed=grow.seed(),
    )  # fmt: skip
    grow.take(made, padded if grow.draw(st.booleans()) else None)


def _rectified(grow: _Growing) -> None:
    """A convolution or product with an activation of the same scale, which it may do itself, or of another one."""
    given = grow.choose()
    if given is None:
        return
    network, scale = grow.network, grow.scale()
    if _is_image(network.tensors[given]) and grow.draw(st.booleans()):
        middle = convolution(network, given, grow.draw(st.integers(1, 5)), scale, seed=grow.seed())
    else:
        middle = dense(network, given, grow.draw(st.integers(1, 9)), scale, seed=grow.seed())
    name = grow.draw(st.sampled_from(["RELU", "RELU", "RELU6"]))
    other = scale if name == "RELU6" else grow.draw(st.sampled_from([scale, scale, (1.5 * scale[0], scale[1])]))
    grow.take(unary(network, name, middle, other), middle if grow.draw(st.booleans()) else None)


def _dense(grow: _Growing) -> None:
    given = grow.choose()
    if given is not None:
        activation = grow.draw(st.sampled_from([NONE, RELU, RELU6]))
        out_c = grow.draw(st.integers(1, 9))
        grow.take(dense(grow.network, given, out_c, grow.scale(), activation=activation, seed=grow.seed()))


def _combined(grow: _Growing) -> None:
    first = grow.choose()
    if first is None:
        return
    spec = grow.network.tensors[first]
    name = grow.draw(st.sampled_from(["ADD", "ADD", "SUB", "MUL"]))
    second: int | Spec | None = grow.choose(lambda other: other.shape == spec.shape)
    if grow.draw(st.integers(0, 4)) == 0:
        values = np.random.default_rng(grow.seed()).integers(-128, 128, spec.shape[-1:])
        second = constant(values, np.int8, 0.05)
    assert second is not None
    activation = grow.draw(st.sampled_from([NONE, NONE, RELU]))
    grow.take(sum_of(grow.network, first, second, grow.scale(), name, activation))


def _joined(grow: _Growing) -> None:
    first = grow.choose()
    if first is None:
        return
    spec = grow.network.tensors[first]
    axis = grow.draw(st.integers(0, len(spec.shape) - 1))

    def fits(other: Spec) -> bool:
        alike = [at for at in range(len(spec.shape)) if at != axis]
        return (
            len(other.shape) == len(spec.shape) and (other.scale, other.zero) == (spec.scale, spec.zero)
            and all(other.shape[at] == spec.shape[at] for at in alike)
        )  # fmt: skip

    more = [grow.choose(fits) for _ in range(grow.draw(st.integers(1, 2)))]
    grow.take(concatenation(grow.network, [first, *(one for one in more if one is not None)], axis))


def _parted(grow: _Growing) -> None:
    given = grow.choose(lambda spec: spec.shape[-1] % 2 == 0)
    if given is not None:
        grow.take(*split(grow.network, given, 2))


def _reshaped(grow: _Growing) -> None:
    given = grow.choose()
    if given is None:
        return
    shape = grow.network.tensors[given].shape
    elements = int(np.prod(shape))
    wanted = [(1, elements), shape, (1, shape[0], elements // shape[0] // shape[-1], shape[-1])]
    grow.take(reshape(grow.network, given, grow.draw(st.sampled_from(wanted))))


def _pooled(grow: _Growing) -> None:
    given = grow.choose(_is_image)
    if given is None:
        return
    shape = grow.network.tensors[given].shape
    window = grow.draw(st.integers(1, min(3, shape[1]))), grow.draw(st.integers(1, min(3, shape[2])))
    name = grow.draw(st.sampled_from(["AVERAGE_POOL_2D", "MAX_POOL_2D"]))
    grow.take(pooling(grow.network, name, given, window, grow.sides(1, 2), grow.draw(st.sampled_from([SAME, VALID]))))


def _mapped(grow: _Growing) -> None:
    given = grow.choose()
    if given is None:
        return
    name, scale = grow.draw(
        st.sampled_from([("LOGISTIC", SOFTMAX), ("TANH", TANH), ("RELU", None), ("QUANTIZE", SCALES[2])])
    )
    grow.take(unary(grow.network, name, given, scale))


def _softmax(grow: _Growing) -> None:
    given = grow.choose()
    if given is not None:
        output = like(grow.network.tensors[given], scale=SOFTMAX)
        grow.take(grow.network.op("SOFTMAX", [given], output, ("SoftmaxOptions", {"beta": 1.0}), version=2))


def _transposed(grow: _Growing) -> None:
    given = grow.choose()
    if given is None:
        return
    shape = grow.network.tensors[given].shape
    order = grow.draw(st.permutations(range(len(shape))))
    output = like(grow.network.tensors[given], [shape[axis] for axis in order])
    grow.take(grow.network.op("TRANSPOSE", [given, constant(order)], output, ("TransposeOptions", {}), version=2))


GROWTH: tuple[Callable[[_Growing], None], ...] = (
    _convolution, _convolution, _padded_convolution, _rectified, _dense, _combined, _combined, _joined, _parted, _reshaped,
    _reshaped, _pooled, _mapped, _softmax, _transposed,
)  # fmt: skip


@st.composite
def networks(draw: st.DrawFn, most: int = 9) -> Network:
    """A random network of int8: one to three inputs, ops that read anything before them, and outputs anywhere in it.

    Args:
        most: steps of growth, each of one op or two.
    """
    network = Network()
    for _ in range(draw(st.integers(1, 3))):
        scale, zero = draw(st.sampled_from(SCALES))
        batches = draw(st.sampled_from([1, 1, 1, 2]))
        network.input((batches, draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(st.integers(1, 6))), scale, zero)
    grow = _Growing(draw, network, list(network.inputs))
    for step in draw(st.lists(st.sampled_from(GROWTH), min_size=1, max_size=most)):
        step(grow)
    computed = [index for _, _, outputs, _, _ in network.ops for index in outputs]
    last = unary(network, "RELU", (computed or network.inputs)[-1])  # a graph of nothing but RESHAPE is refused
    network.outputs = sorted(
        {last, *draw(st.lists(st.sampled_from([*computed, last, *computed[-1:] * 4]), max_size=2))}
    )
    return network
