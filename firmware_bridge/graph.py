"""A `.tflite` flatbuffer read into plain values: tensors, ops with options, weights; and what can be counted on it."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.schema import tflite_schema

IDENTIFIER = b"TFL3"
ABSENT = -1
NUMPY_TYPES: dict[str, str] = {
    "float32": "<f4",
    "float16": "<f2",
    "float64": "<f8",
    "int8": "i1",
    "uint8": "u1",
    "int16": "<i2",
    "uint16": "<u2",
    "int32": "<i4",
    "uint32": "<u4",
    "int64": "<i8",
    "uint64": "<u8",
    "bool": "?",
}
FLOAT_TYPES = frozenset({"float32", "float16", "float64", "bfloat16"})
LARGEST_TENSOR = 1 << 40
# What reading a table at a wrong offset raises, in flatbuffers and in numpy.
_READING_ERRORS = (
    struct.error, ValueError, IndexError, TypeError, OverflowError, KeyError, AttributeError, AssertionError,
    MemoryError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of the graph.

    Attributes:
        index: position in the graph's `tensors`.
        name: as the file has it.
        shape: length of each axis; () for a scalar.
        type: "int8", "float32", "int32" …, in TFLite's words, lower case.
        scales: quantization scales, one, one per channel, or none.
        zero_points: as many as scales.
        axis: the axis that several scales run along.
        data: the constant's bytes, or None for an activation.
        variable: whether it keeps its value between inferences.
        dynamic: axes that the file leaves free; a free first axis is a batch of one.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    type: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    data: bytes | None = dataclasses.field(default=None, repr=False)
    variable: bool = False
    dynamic: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of the values."""
        return _size_bytes(self.type, self.elements)

    @property
    def is_constant(self) -> bool:
        """Whether the file holds its values."""
        return self.data is not None

    @property
    def is_float(self) -> bool:
        """Whether its values are floating point."""
        return self.type in FLOAT_TYPES

    def array(self) -> np.ndarray[Any, Any]:
        """The constant's values in the tensor's shape, read only.

        Raises:
            EdgeError: an activation, or a type that numpy lacks.
        """
        if self.data is None:
            raise EdgeError(f"Tensor {self.name!r} is an activation and holds no values; run the model to get them.")
        if self.type not in NUMPY_TYPES:
            raise EdgeError(
                f"Tensor {self.name!r} holds {self.type} values, which cannot be read here; use int8 weights."
            )
        return np.frombuffer(self.data, dtype=NUMPY_TYPES[self.type]).reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        index: position in the order of execution.
        name: TFLite's builtin name, such as "CONV_2D", or "CUSTOM:…".
        inputs: tensor indices; -1 where an optional input is absent.
        outputs: tensor indices.
        options: the fields of the op's option table by TFLite's names (`strideW`, `fusedActivationFunction` …).
        macs: multiply-accumulates.
        version: version of the operator.
        intermediates: tensors that only name scales of values inside the op (LSTM).
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    macs: int = 0
    version: int = 1
    intermediates: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Graph:
    """The main subgraph of a model.

    Attributes:
        tensors: all tensors, by index.
        ops: in order of execution.
        inputs: tensor indices of the model's inputs.
        outputs: tensor indices of the model's outputs.
        size_bytes: of the file.
        subgraphs: how many the file has; only the first is read.
        weights_at_offsets: whether weights stand behind the flatbuffer, where TFLM reads nothing.
    """

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    size_bytes: int = 0
    subgraphs: int = 1
    weights_at_offsets: bool = False

    @property
    def weight_bytes(self) -> int:
        """Bytes of all constants that an op reads."""
        used = {index for op in self.ops for index in op.inputs if index != ABSENT}
        return sum(len(self.tensors[index].data or b"") for index in used)


def read_graph(model: Path | bytes, name: str = "The model") -> Graph:
    """Read a `.tflite` file, or its bytes.

    Args:
        name: of bytes, for errors.

    Raises:
        EdgeError: the file is missing, truncated, damaged or no `.tflite`.
    """
    if isinstance(model, bytes | bytearray | memoryview):
        data = bytes(model)
    else:
        try:
            data, name = Path(model).read_bytes(), str(model)
        except OSError as error:
            raise EdgeError(f"Cannot read {model}: {error.strerror}; name a .tflite file.") from None
    if data[4:8] != IDENTIFIER:
        raise EdgeError(f"{name} is no TFLite model (no {IDENTIFIER.decode()} at byte 4); name a .tflite file.")
    try:
        return _Reader(data).graph()
    except _DamagedError as error:
        raise EdgeError(f"{name} is damaged: {error}; export it again.") from None
    except _READING_ERRORS:
        raise EdgeError(f"{name} is truncated or damaged; export it again.") from None


def ring_seam(graph: Graph) -> Op | None:
    """Where a ring student's tokens of frames under each other, `[1, K, 1, W]`, become a sequence, `[1, 1, K, W]`; None without such a place."""
    for op in graph.ops:
        if op.name == "RESHAPE":
            before, after = graph.tensors[op.inputs[0]].shape, graph.tensors[op.outputs[0]].shape
            if len(before) == 4 and before[1] > 1 and before[::2] == (1, 1) and after == (1, 1, before[1], before[3]):
                return op
    return None


def op_counts(graph: Graph) -> dict[str, int]:
    """How often each op occurs, the most frequent first."""
    return dict(sorted(collections.Counter(op.name for op in graph.ops).items(), key=lambda item: (-item[1], item[0])))


def float_ops(graph: Graph) -> tuple[Op, ...]:
    """Ops that read or write a floating-point tensor."""
    return tuple(
        op
        for op in graph.ops
        if any(index != ABSENT and graph.tensors[index].is_float for index in (*op.inputs, *op.outputs))
    )


def macs(graph: Graph) -> int:
    """Multiply-accumulates of one inference; padding counts as the kernels see it, that is as if it were data."""
    return sum(op.macs for op in graph.ops)


def peak_activation_bytes(graph: Graph) -> int:
    """The largest sum of activations that live at once: what no planner can go below without computing in place."""
    return max(live_activation_bytes(graph), default=0)


def live_activation_bytes(graph: Graph) -> tuple[int, ...]:
    """Bytes of the activations that live while each op runs: its own and those that are still read after it."""
    live = [0] * len(graph.ops)
    for index, (first, last) in activation_lifetimes(graph).items():
        for at in range(first, last + 1):
            live[at] += graph.tensors[index].size_bytes
    return tuple(live)


def activation_lifetimes(graph: Graph) -> dict[int, tuple[int, int]]:
    """First and last op, by position, during which each used activation must stay in memory."""
    last_op = len(graph.ops) - 1
    first: dict[int, int] = dict.fromkeys(graph.inputs, 0)
    last: dict[int, int] = {}
    for at, op in enumerate(graph.ops):
        for index in op.outputs:
            first.setdefault(index, at)
            last[index] = max(last.get(index, 0), at)
        for index in op.inputs:
            if index != ABSENT and not graph.tensors[index].is_constant:
                first.setdefault(index, 0)
                last[index] = at
    for index in graph.outputs:
        last[index] = last_op
    for tensor in graph.tensors:
        if tensor.variable and tensor.index in first:
            first[tensor.index], last[tensor.index] = 0, last_op
    return {index: (begin, last.get(index, begin)) for index, begin in first.items() if last_op >= 0}


class _DamagedError(Exception):
    """The file says something that cannot be."""


class _Reader:
    """Reads one flatbuffer with a budget: no damaged length may make it loop for longer than the file is."""

    def __init__(self, data: bytes) -> None:
        self.schema = tflite_schema()
        self.data = data
        # Every entry of a list costs an honest file four bytes at least; a table may be shared, hence the factor.
        self.budget = 4 * len(data) + 1024

    def graph(self) -> Graph:
        model = self.schema.Model.GetRootAs(self.data)
        subgraphs = self._length(model.SubgraphsLength())
        if subgraphs == 0:
            raise _DamagedError("it holds no graph")
        self.buffers, at_offsets = self._buffers(model)
        self.codes = [self._op_code(model.OperatorCodes(i)) for i in range(self._length(model.OperatorCodesLength()))]
        subgraph = model.Subgraphs(0)
        self.tensors = tuple(
            self._tensor(subgraph.Tensors(i), i) for i in range(self._length(subgraph.TensorsLength()))
        )
        ops = tuple(self._op(subgraph.Operators(i), i) for i in range(self._length(subgraph.OperatorsLength())))
        return Graph(
            tensors=self.tensors,
            ops=ops,
            inputs=self._indices(subgraph.InputsAsNumpy(), optional=False),
            outputs=self._indices(subgraph.OutputsAsNumpy(), optional=False),
            size_bytes=len(self.data),
            subgraphs=subgraphs,
            weights_at_offsets=at_offsets,
        )

    def _length(self, length: int) -> int:
        self.budget -= length
        if length < 0 or self.budget < 0:
            raise _DamagedError("its lists are longer than the file")
        return length

    def _numbers(self, values: Any) -> list[Any]:
        if isinstance(values, int):  # The generated reader answers 0 where a vector is absent.
            return []
        self._length(len(values))
        return list(values.tolist())

    def _buffers(self, model: Any) -> tuple[list[memoryview | None], bool]:
        buffers: list[memoryview | None] = []
        at_offsets = False
        whole = memoryview(self.data)
        for i in range(self._length(model.BuffersLength())):
            buffer = model.Buffers(i)
            offset, size = buffer.Offset(), buffer.Size()
            if offset > 1:  # 0 says inline; 1 is the converter's placeholder for an empty one.
                if offset + size > len(self.data):
                    raise _DamagedError(f"buffer {i} ends behind the end of the file")
                buffers.append(whole[offset : offset + size])
                at_offsets = True
            else:
                values = buffer.DataAsNumpy()
                buffers.append(None if isinstance(values, int) or not len(values) else memoryview(values))
        return buffers, at_offsets

    def _op_code(self, code: Any) -> tuple[str, int]:
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = _names(self.schema.BuiltinOperator).get(number)
        if name is None:
            raise _DamagedError(f"it uses operator {number}, which is unknown")
        if name == "CUSTOM":
            name = f"CUSTOM:{(code.CustomCode() or b'').decode('utf-8', 'replace')}"
        return name, code.Version()

    def _tensor(self, tensor: Any, index: int) -> Tensor:
        name = (tensor.Name() or b"").decode("utf-8", "replace")
        shape = tuple(self._numbers(tensor.ShapeAsNumpy()))
        if any(length < 0 for length in shape) or math.prod(shape) > LARGEST_TENSOR:
            raise _DamagedError(f"tensor {index} has the shape {shape}")
        type_name = _names(self.schema.TensorType).get(tensor.Type())
        if type_name is None:
            raise _DamagedError(f"tensor {index} is of the unknown type {tensor.Type()}")
        type_name = type_name.lower()
        data = self._data(tensor, index, shape, type_name)
        scales, zero_points, axis = self._quantization(tensor.Quantization(), shape, index)
        free = self._numbers(tensor.ShapeSignatureAsNumpy())
        dynamic = tuple(at for at, length in enumerate(free) if length < 0 and at > 0)
        variable = bool(tensor.IsVariable())
        return Tensor(index, name, shape, type_name, scales, zero_points, axis, data, variable, dynamic)

    def _data(self, tensor: Any, index: int, shape: tuple[int, ...], type_name: str) -> bytes | None:
        number = tensor.Buffer()
        if number >= max(len(self.buffers), 1):
            raise _DamagedError(f"tensor {index} names buffer {number} of {len(self.buffers)}")
        if number == 0 or (buffer := self.buffers[number]) is None:
            return None
        if type_name in NUMPY_TYPES and buffer.nbytes != _size_bytes(type_name, math.prod(shape)):
            raise _DamagedError(f"tensor {index} of shape {shape} has {buffer.nbytes} bytes of {type_name}")
        self._length(buffer.nbytes // 4)
        return bytes(buffer)

    def _quantization(
        self, quantization: Any, shape: tuple[int, ...], index: int
    ) -> tuple[tuple[float, ...], tuple[int, ...], int]:
        if quantization is None:
            return (), (), 0
        scales = tuple(self._numbers(quantization.ScaleAsNumpy()))
        zero_points = tuple(self._numbers(quantization.ZeroPointAsNumpy()))
        axis = quantization.QuantizedDimension()
        if not scales:
            return (), (), 0
        if not all(math.isfinite(scale) and scale >= 0 for scale in scales):
            raise _DamagedError(f"tensor {index} has a scale that is no positive number")
        if len(zero_points) not in (0, 1, len(scales)):
            raise _DamagedError(f"tensor {index} has {len(scales)} scales and {len(zero_points)} zero points")
        if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
            raise _DamagedError(f"tensor {index} of shape {shape} has {len(scales)} scales along axis {axis}")
        if len(zero_points) < len(scales):
            zero_points = (zero_points or (0,)) * len(scales)
        return scales, zero_points, axis

    def _indices(self, values: Any, *, optional: bool) -> tuple[int, ...]:
        indices = tuple(self._numbers(values))
        for index in indices:
            if not (ABSENT if optional else 0) <= index < len(self.tensors):
                raise _DamagedError(f"it names tensor {index} of {len(self.tensors)}")
        return indices

    def _op(self, op: Any, index: int) -> Op:
        code = op.OpcodeIndex()
        if code >= len(self.codes):
            raise _DamagedError(f"op {index} names operator code {code} of {len(self.codes)}")
        name, version = self.codes[code]
        inputs = self._indices(op.InputsAsNumpy(), optional=True)
        outputs = self._indices(op.OutputsAsNumpy(), optional=False)
        count = MACS.get(name)
        try:
            op_macs = count(self.tensors, inputs, outputs) if count else 0
        except IndexError:
            raise _DamagedError(f"op {index} ({name}) lacks inputs, or their axes") from None
        intermediates = self._indices(op.IntermediatesAsNumpy(), optional=False)
        return Op(index, name, inputs, outputs, self._options(op), op_macs, version, intermediates)

    def _options(self, op: Any) -> dict[str, Any]:
        options = self.schema.BuiltinOptionsCreator(op.BuiltinOptionsType(), op.BuiltinOptions())
        if options is None:
            options = self.schema.BuiltinOptions2Creator(op.BuiltinOptions2Type(), op.BuiltinOptions2())
        if options is None:
            return {}
        return {key: self._plain(value) for key, value in vars(options).items() if value is not None}

    def _plain(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return tuple(self._numbers(value))
        if isinstance(value, np.generic):
            return value.item()
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


@functools.cache
def _names(enumeration: type) -> dict[int, str]:
    return {
        value: name for name, value in vars(enumeration).items() if isinstance(value, int) and not name.startswith("_")
    }


def _size_bytes(type_name: str, elements: int) -> int:
    bits = {"int4": 4, "uint4": 4, "int2": 2, "bfloat16": 16, "float8_e4m3fn": 8, "float8_e5m2": 8}.get(type_name)
    if bits is not None:
        return -(-elements * bits // 8)
    return elements * np.dtype(NUMPY_TYPES[type_name]).itemsize if type_name in NUMPY_TYPES else 0


_Tensors = tuple[Tensor, ...]
_Indices = tuple[int, ...]


def _convolution(tensors: _Tensors, inputs: _Indices, outputs: _Indices) -> int:
    weights = tensors[inputs[1]].shape  # [out, height, width, in per group]
    return tensors[outputs[0]].elements * weights[1] * weights[2] * weights[3]


def _depthwise(tensors: _Tensors, inputs: _Indices, outputs: _Indices) -> int:
    weights = tensors[inputs[1]].shape  # [1, height, width, out]
    return tensors[outputs[0]].elements * weights[1] * weights[2]


def _transposed_convolution(tensors: _Tensors, inputs: _Indices, outputs: _Indices) -> int:
    weights = tensors[inputs[1]].shape  # [out, height, width, in]; the input comes third
    return tensors[inputs[2]].elements * weights[0] * weights[1] * weights[2]


def _fully_connected(tensors: _Tensors, inputs: _Indices, outputs: _Indices) -> int:
    return tensors[outputs[0]].elements * tensors[inputs[1]].shape[-1]


def _batch_matmul(tensors: _Tensors, inputs: _Indices, outputs: _Indices) -> int:
    left, right, result = tensors[inputs[0]].shape, tensors[inputs[1]].shape, tensors[outputs[0]].shape
    # The length summed over, whichever side is given transposed: left · right = rows · columns · length².
    length = math.isqrt(left[-1] * left[-2] * right[-1] * right[-2] // max(result[-1] * result[-2], 1))
    return tensors[outputs[0]].elements * length


MACS: dict[str, Callable[[_Tensors, _Indices, _Indices], int]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed_convolution,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
}


def activations(graph: Graph) -> Iterator[Tensor]:
    """Tensors that ops write, in order of execution."""
    for op in graph.ops:
        for index in op.outputs:
            yield graph.tensors[index]
