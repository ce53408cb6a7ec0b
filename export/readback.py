"""Every exported file, read back: is it what was asked for, and does what must hold hold?

A converter or a quantizer may deliver something else than it was asked for without an error (int8 where 16 bits were named, a float
island, a scale of zero). So nothing is written before the bytes that would be written have been opened, looked through and run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.compression.observers import Range
from embridge_edge.errors import EdgeError
from embridge_edge.export.metadata import is_tflite
from embridge_edge.export.onnx import OPSET, parsed
from embridge_edge.export.reading import dequantize_values
from embridge_edge.export.running import layer_values, onnx_values
from embridge_edge.export.scales import BOUNDED, MOVING, scale_faults
from embridge_edge.firmware_bridge.graph import float_ops, read_graph

Floats = npt.NDArray[np.float32]

MOST_PINNED = 0.05
"""Share of an activation's values that may stand at an end of its range that is not the floor of a ReLU: an observer that clips on
purpose takes 0.01 % (percentile) to 1 % (entropy, on a student's tensors); one value in twenty is a range that does not fit."""

SUM_ERROR = 1e-4
"""Of float probabilities. Integer ones may miss 1 by one step each: they are rounded one by one."""

MOVING_IN_ONNX = frozenset(
    {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Pad", "Slice", "QuantizeLinear", "DequantizeLinear"}
)
RUN_WINDOWS = 64


@dataclass(frozen=True)
class Asked:
    """What a file was asked to be.

    Attributes:
        input_shape, output_shape: without the batch axis.
        int8: whether its graph computes in integers. wide: tensors that have 16 bits.
        ranges: what activations were to hold, by name, where that is known.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    int8: bool
    wide: Sequence[str] = ()
    ranges: Mapping[str, Range] = field(default_factory=dict)


def refuse_unless_sound(name: str, model: bytes, asked: Asked, windows: Floats) -> None:
    """Refuse a file that is not what was asked for, or in which something does not hold that must.

    Args:
        name: of the file, for the message. model: `.tflite` or `.onnx`. windows: float32 `[n, T, C]`, for calibration.

    Raises:
        EdgeError: says the first fault, and how many there are.
    """
    found = faults(model, asked, windows)
    if found:
        more = f" and {len(found) - 1} more faults" if len(found) > 1 else ""
        raise EdgeError(f"{name} is not what was asked for: {found[0]}{more}; nothing was written.")


def faults(model: bytes, asked: Asked, windows: Floats) -> list[str]:
    """What is wrong with an exported model: ends, types and scales; and where these are right, what shows when it runs on some windows."""
    some = windows[:: -(-len(windows) // RUN_WINDOWS)]
    if is_tflite(model):
        return list(_tflite_faults(model, asked)) or list(_values_faults(_run_tflite(model, some)))
    return list(_onnx_faults(model, asked)) or list(_values_faults(_run_onnx(model, some)))


def _tflite_faults(model: bytes, asked: Asked) -> Iterator[str]:
    graph = read_graph(model)
    wanted = "int8" if asked.int8 else "float32"
    for what, index, shape in (
        ("input", graph.inputs[0], asked.input_shape),
        ("output", graph.outputs[0], asked.output_shape),
    ):
        end = graph.tensors[index]
        if end.shape[1:] != tuple(shape):
            yield f"its {what} is {end.shape[1:]}, not {tuple(shape)}"
        if end.type != wanted:
            yield f"its {what} is {end.type}, not {wanted}"
    if asked.int8:
        yield from (f"{op.name} {graph.tensors[op.outputs[0]].name} computes in float" for op in float_ops(graph))
        yield from scale_faults(graph, asked.ranges)
    types = {tensor.name: tensor.type for tensor in graph.tensors}
    yield from (f"{name} is {types.get(name)}, not int16" for name in asked.wide if types.get(name) != "int16")


@dataclass(frozen=True)
class _Seen:
    """An activation after a run: what writes it (through ops that only move values), its real values, and its integers where it has
    some; the axis is that along which a softmax sums to 1."""

    name: str
    source: str
    is_softmax: bool
    real: npt.NDArray[Any]
    integers: npt.NDArray[Any] | None = None
    scale: float = 0.0
    zero_point: int = 0
    limits: tuple[int, int] = (-128, 127)
    axis: int = -1


def _run_tflite(model: bytes, windows: Floats) -> Iterator[_Seen]:
    graph = read_graph(model)
    source: dict[int, str] = {}
    for op in graph.ops:
        source |= dict.fromkeys(op.outputs, source.get(op.inputs[0], "") if op.name in MOVING else op.name)
    softmax = {op.outputs[0] for op in graph.ops if op.name == "SOFTMAX"}
    by_name = {tensor.name: tensor for tensor in graph.tensors}
    for name, values in layer_values(model, windows).items():
        tensor = by_name[name]
        about = (name, source.get(tensor.index, ""), tensor.index in softmax)
        if tensor.is_float:
            yield _Seen(*about, values)
        elif tensor.type in ("int8", "int16") and tensor.scales:
            scale, zero = tensor.scales[0], tensor.zero_points[0]
            limits = np.iinfo(tensor.type)
            real = dequantize_values(values, scale, zero)
            yield _Seen(*about, real, values, scale, zero, (int(limits.min), int(limits.max)))


def _values_faults(seen: Iterator[_Seen]) -> Iterator[str]:
    for one in seen:
        if not np.isfinite(one.real).all():
            yield f"{one.name} holds NaN or infinity on calibration windows"
            continue
        if one.is_softmax:
            allowed = SUM_ERROR if one.integers is None else one.real.shape[one.axis] * one.scale
            apart = float(np.abs(one.real.sum(axis=one.axis) - 1.0).max())
            if apart > allowed:
                yield f"the probabilities of {one.name} miss the sum of 1 by {apart:.3g} (allowed {allowed:.3g})"
        if one.integers is not None and one.source not in BOUNDED:
            at_floor = 0.0 if one.zero_point == one.limits[0] else float(np.mean(one.integers == one.limits[0]))
            pinned = max(at_floor, float(np.mean(one.integers == one.limits[1])))
            if pinned > MOST_PINNED:
                yield f"{100 * pinned:.0f} % of {one.name} stand at the end of its range (allowed {100 * MOST_PINNED:.0f} %)"


def _onnx_faults(model: bytes, asked: Asked) -> Iterator[str]:
    import onnx
    from onnx import checker

    proto = parsed(model)
    try:
        checker.check_model(proto, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield f"onnx's checker refuses it ({' '.join(str(error).split())[:120]})"
    opset = next((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), None)
    if opset != OPSET:
        yield f"its opset is {opset}, not {OPSET}"
    for what, value, shape in (
        ("input", proto.graph.input[0], asked.input_shape),
        ("output", proto.graph.output[0], asked.output_shape),
    ):
        tensor = value.type.tensor_type
        axes = tuple(axis.dim_value for axis in tensor.shape.dim)
        if axes[1:] != tuple(shape):
            yield f"its {what} is {axes[1:]}, not {tuple(shape)}"
        if axes[:1] != (0,):
            yield f"the batch of its {what} is not free"
        if tensor.elem_type != onnx.TensorProto.FLOAT:
            yield f"its {what} is not float32"
    if asked.int8:
        yield from _qdq_faults(proto)


def _constants_and_writers(proto: Any) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    from onnx import numpy_helper

    constants = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    return constants, {name: node for node in proto.graph.node for name in node.output}


def _qdq_faults(proto: Any) -> Iterator[str]:
    """Scales and zero points of the pairs, and ops whose operands do not come out of one: ONNX Runtime computes these in float."""
    constants, writers = _constants_and_writers(proto)
    operands = (
        name for node in proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul") for name in node.input[1:]
    )
    weights = {writers[name].input[0] for name in operands if name in writers} & constants.keys()
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scales, zeros = (np.atleast_1d(constants[name]) for name in node.input[1:3])
            if not (np.isfinite(scales).all() and (scales > 0).all()):
                yield f"{node.input[0]} has a scale that is not positive"
            if zeros.dtype not in (np.int8, np.int32):
                yield f"{node.input[0]} is {zeros.dtype}, not int8"
            if node.input[0] in weights and zeros.any():
                yield f"{node.input[0]} holds weights with a zero point"
            continue
        if node.op_type in MOVING_IN_ONNX:
            continue
        for name in filter(None, node.input):
            dequantized = name in writers and writers[name].op_type == "DequantizeLinear"
            integer = name in constants and constants[name].dtype.kind != "f"
            if not dequantized and not integer:
                yield f"{node.op_type} {node.output[0]} computes in float ({name} is not quantized)"


def _run_onnx(model: bytes, windows: Floats) -> Iterator[_Seen]:
    constants, writers = _constants_and_writers(parsed(model))

    def source(name: str) -> str:
        node = writers.get(name)
        while node is not None and node.op_type in MOVING_IN_ONNX:
            node = writers.get(node.input[0])
        return "" if node is None else str(node.op_type)

    for name, values in onnx_values(model, windows).items():
        node = writers.get(name)
        quantizes = node is not None and node.op_type == "QuantizeLinear"
        softmax = writers.get(node.input[0]) if quantizes and node is not None else node
        about = (name, source(name), softmax is not None and softmax.op_type == "Softmax")
        axis = _axis(softmax) if softmax is not None and about[2] else -1
        if quantizes and node is not None:
            scale, zero = float(constants[node.input[1]]), int(constants[node.input[2]])
            yield _Seen(*about, dequantize_values(values, scale, zero), values, scale, zero, axis=axis)
        elif values.dtype.kind == "f":
            yield _Seen(*about, values, axis=axis)


def _axis(softmax: Any) -> int:
    return next((int(one.i) for one in softmax.attribute if one.name == "axis"), -1)
