"""Models of one op, the two oracles that run them, and the kernels that the op is lowered to, called through ctypes.

The parameter structures are read out of the kernels' headers, so that a `Step` is run as it stands: a field that the structure
lacks, or a number that does not fit its field, fails here as it would in C.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import embridge_edge.firmware_bridge
from embridge_edge.export.flatbuffer import as_array, pack
from embridge_edge.firmware_bridge.graph import NUMPY_TYPES, Graph, Tensor, read_graph
from embridge_edge.firmware_bridge.lowering import Site, lower_op
from embridge_edge.firmware_bridge.program import Alias, Constant, Layout, Profile, Step

Values = npt.NDArray[Any]

KERNELS = Path(embridge_edge.firmware_bridge.__file__).parent / "kernels"
WARNINGS = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
FLAGS = (*WARNINGS, "-fPIC", "-DEMB_PORTABLE", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
GUARD = 4096
"""Bytes before and behind every buffer, filled with a pattern that a kernel must leave alone."""
PATTERN = 0xA5


@dataclasses.dataclass(frozen=True, eq=False)
class Spec:
    """A tensor of a model that is to be written.

    Attributes:
        shape: length of each axis.
        type: in TFLite's words, lower case.
        scale: one scale, or one per channel along `axis`; None for a tensor that is not quantized.
        zero: zero point.
        data: values of a constant.
    """

    shape: tuple[int, ...]
    type: str = "int8"
    scale: float | Sequence[float] | None = 0.5
    zero: int = 0
    axis: int = 0
    data: Values | None = None
    variable: bool = False


def constant(values: Any, dtype: type[np.generic] = np.int32, scale: Any = None, zero: int = 0, axis: int = 0) -> Spec:
    """A constant tensor: weights with a scale, or indices, axes and shapes without one."""
    array = np.asarray(values, dtype)
    return Spec(array.shape, array.dtype.name, scale, zero, axis, array)


def model_of(
    op: str,
    inputs: Sequence[Spec | None],
    outputs: Sequence[Spec],
    options: tuple[str, Mapping[str, Any]] | None = None,
    *,
    version: int = 1,
    intermediates: Sequence[Spec] = (),
) -> bytes:
    """A `.tflite` of one op; whatever is no constant and no variable is an input of the model.

    Args:
        op: TFLite's builtin name.
        inputs: tensors of the op; None for an optional one that is absent.
        options: name of the option table and its fields.
    """
    from ai_edge_litert import schema_py_generated as schema

    given = list(dict.fromkeys(spec for spec in inputs if spec is not None))
    specs = [*given, *outputs, *intermediates]
    buffers, tensors = [schema.BufferT()], []
    for position, spec in enumerate(specs):
        buffers.append(schema.BufferT(data=None if spec.data is None else as_array(spec.data.tobytes())))
        quantization = None
        if spec.scale is not None:
            scales = [float(scale) for scale in np.atleast_1d(spec.scale)]
            quantization = schema.QuantizationParametersT(
                scale=scales, zeroPoint=[spec.zero] * len(scales), quantizedDimension=spec.axis
            )
        tensors.append(
            schema.TensorT(
                shape=list(spec.shape),
                type=getattr(schema.TensorType, spec.type.upper()),
                buffer=len(buffers) - 1,
                name=f"t{position}",
                quantization=quantization,
                isVariable=spec.variable,
                hasRank=True,
            )
        )
    code = getattr(schema.BuiltinOperator, op)
    table = getattr(schema, f"{options[0]}T")(**options[1]) if options else None
    operator = schema.OperatorT(
        opcodeIndex=0,
        inputs=[-1 if spec is None else given.index(spec) for spec in inputs],
        outputs=list(range(len(given), len(given) + len(outputs))),
        builtinOptionsType=getattr(schema.BuiltinOptions, options[0]) if options else 0,
        builtinOptions=table,
        intermediates=list(range(len(given) + len(outputs), len(specs))) or None,
    )
    model = schema.ModelT(
        version=3,
        operatorCodes=[schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), version=version, builtinCode=code)],
        subgraphs=[
            schema.SubGraphT(
                tensors=tensors,
                inputs=[i for i, spec in enumerate(given) if spec.data is None and not spec.variable],
                outputs=list(range(len(given), len(given) + len(outputs))),
                operators=[operator],
            )
        ],
        buffers=buffers,
    )
    return pack(model)


def by_oracle(model: bytes, profile: Profile, invokes: Sequence[Sequence[Values]]) -> list[list[Values]]:
    """The outputs of each of several inferences in a row, by the runtime that the profile follows."""
    graph = read_graph(model)
    if profile == "tflm":
        from tflite_micro import runtime

        micro = runtime.Interpreter.from_bytes(model, arena_size=1 << 22)
        results = []
        for values in invokes:
            for position, value in enumerate(values):
                micro.set_input(value, position)
            micro.invoke()
            results.append([np.array(micro.get_output(position)) for position in range(len(graph.outputs))])
        return results
    from ai_edge_litert import interpreter as litert

    lite = litert.Interpreter(
        model_content=model, num_threads=1, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF
    )
    lite.allocate_tensors()
    results = []
    for values in invokes:
        for index, value in zip(graph.inputs, values, strict=True):
            lite.set_tensor(index, value)
        lite.invoke()
        results.append([np.array(lite.get_tensor(index)) for index in graph.outputs])
    return results


def lowered(model: bytes, profile: Profile, layout: Layout = "rows") -> tuple[Step | Alias, ...]:
    """What the model's only op becomes."""
    graph = read_graph(model)
    (op,) = graph.ops
    result = lower_op(Site(graph, op, profile, layout))
    return result if isinstance(result, tuple) else (result,)


def by_kernels(
    model: bytes,
    profile: Profile,
    invokes: Sequence[Sequence[Values]],
    layout: Layout = "rows",
    *,
    in_place: bool = False,
) -> list[list[Values]]:
    """The same outputs by the kernels, each buffer exactly as large as the step asks for and guarded on both sides.

    Args:
        in_place: let the output take an input's memory where the step allows it.
    """
    graph = read_graph(model)
    steps = lowered(model, profile, layout)
    calls = [None if isinstance(step, Alias) else _Call(step) for step in steps]
    results = []
    for values in invokes:
        memory = {index: _Guarded(np.asarray(value)) for index, value in zip(graph.inputs, values, strict=True)}
        for step, call in zip(steps, calls, strict=True):
            if call is None:
                memory[step.output] = memory[step.source]  # type: ignore[union-attr]
            else:
                call.run(graph, memory, in_place)
        for buffer in memory.values():
            buffer.check()
        results.append([memory[index].array(graph.tensors[index]) for index in graph.outputs])
    return results


def assert_matches(
    model: bytes,
    invokes: Sequence[Sequence[Values]],
    profiles: Sequence[Profile] = ("litert-ref", "tflm"),
    layouts: Sequence[Layout] = ("rows",),
) -> None:
    """Kernels and oracles give the same bits, in place or not, for every profile and layout."""
    for profile in profiles:
        expected = by_oracle(model, profile, invokes)
        for layout in layouts:
            for in_place in (False, True):
                found = by_kernels(model, profile, invokes, layout, in_place=in_place)
                for wanted, got in zip(expected, found, strict=True):
                    for left, right in zip(wanted, got, strict=True):
                        np.testing.assert_array_equal(right, left, err_msg=f"{profile}, {layout}, in place {in_place}")


def random_values(rng: np.random.Generator, shape: Sequence[int], dtype: type[np.generic] = np.int8) -> Values:
    """Values of the whole range, the extremes among them more often than by chance."""
    limits = np.iinfo(dtype)  # type: ignore[type-var]
    values = rng.integers(limits.min, limits.max, size=tuple(shape), dtype=dtype, endpoint=True)  # type: ignore[arg-type]
    extreme = rng.random(values.shape)
    return np.where(extreme < 0.1, limits.min, np.where(extreme > 0.9, limits.max, values)).astype(dtype)


class _Guarded:
    """Memory with a pattern around it."""

    def __init__(self, content: Values) -> None:
        self.size = content.nbytes
        self.bytes = np.full(self.size + 2 * GUARD, PATTERN, np.uint8)
        self.bytes[GUARD : GUARD + self.size] = np.frombuffer(np.ascontiguousarray(content).tobytes(), np.uint8)

    @property
    def address(self) -> int:
        return self.bytes.ctypes.data + GUARD

    def array(self, tensor: Tensor) -> Values:
        assert tensor.size_bytes <= self.size
        content = self.bytes[GUARD : GUARD + tensor.size_bytes].tobytes()
        return np.frombuffer(content, NUMPY_TYPES[tensor.type]).reshape(tensor.shape)

    def check(self) -> None:
        assert (self.bytes[:GUARD] == PATTERN).all(), "written before the buffer"
        assert (self.bytes[GUARD + self.size :] == PATTERN).all(), "written behind the buffer"


class _Call:
    """A step, ready to run."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.tables: list[_Guarded] = []
        self.function = kernel(step.kernel)
        self.function.restype = None
        self.parameters = self._structure(structures()[step.structure], step.parameters) if step.structure else None
        self.state = _Guarded(np.zeros(step.state_bytes, np.uint8)) if step.state_bytes else None
        if step.reset and self.state:
            kernel(step.reset)(ctypes.byref(self.parameters), ctypes.c_void_p(self.state.address))

    def run(self, graph: Graph, memory: dict[int, _Guarded], in_place: bool) -> None:
        step = self.step
        outputs = []
        for position, index in enumerate(step.outputs):
            tensor = graph.tensors[index]
            taken = memory[step.inputs[step.in_place]] if position == 0 and step.in_place is not None else None
            if in_place and taken is not None:
                assert tensor.size_bytes <= taken.size
                memory[index] = taken
            elif index not in memory:
                memory[index] = _Guarded(np.full(tensor.size_bytes, 0x5A, np.uint8))
            outputs.append(memory[index])
        scratch = _Guarded(np.full(step.scratch_bytes, 0x3C, np.uint8))
        arguments = [memory[index].address for index in step.inputs] + [buffer.address for buffer in outputs]
        arguments += [self.state.address] if self.state else []
        if step.scratch_bytes or "scratch_bytes" in step.parameters:
            arguments.append(scratch.address if step.scratch_bytes else 0)
        first = [ctypes.byref(self.parameters)] if self.parameters is not None else []
        self.function(*first, *(ctypes.c_void_p(address) for address in arguments))
        for buffer in (scratch, *self.tables, *((self.state,) if self.state else ())):
            buffer.check()

    def _structure(self, kind: type[ctypes.Structure], values: Mapping[str, Any]) -> ctypes.Structure:
        fields = dict(kind._fields_)  # type: ignore[misc, arg-type]
        assert not set(values) - set(fields), f"{kind.__name__} lacks {set(values) - set(fields)}"
        made = kind()
        for name, value in values.items():
            wanted = fields[name]
            if isinstance(value, Constant):
                self.tables.append(_Guarded(value.values))
                setattr(made, name, self.tables[-1].address)
            elif isinstance(value, Mapping):
                setattr(made, name, self._structure(wanted, value))
            elif isinstance(value, str):
                numbers = [int(number) for number in value.strip("{}").split(",")] if value != "NULL" else None
                setattr(made, name, wanted(*numbers) if numbers is not None else None)
            else:
                setattr(made, name, value)
                assert getattr(made, name) == value or isinstance(value, float), f"{name} = {value} does not fit"
        return made


@functools.cache
def structures() -> Mapping[str, type[ctypes.Structure]]:
    """The parameter structures of all headers."""
    found: dict[str, type[ctypes.Structure]] = {}
    macros: dict[str, int] = {}
    headers = sorted(KERNELS.glob("*.h"), key=lambda path: (path.name != "emb_core.h", path.name))
    text = re.sub(r"/\*.*?\*/", "", "\n".join(path.read_text() for path in headers), flags=re.DOTALL)
    macros |= {name: int(value) for name, value in re.findall(r"#define\s+(\w+)\s+(\d+)u?\s*$", text, re.MULTILINE)}
    bodies = {name: body for body, name in re.findall(r"typedef struct \{([^}]*)\} (\w+);", text)}

    def structure(name: str) -> type[ctypes.Structure]:
        if name not in found:
            fields = [
                field
                for declaration in bodies[name].split(";")
                if declaration.strip()
                for field in declared(declaration)
            ]
            found[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
        return found[name]

    def declared(declaration: str) -> list[tuple[str, Any]]:
        words = declaration.replace("const ", "").split(None, 1)
        if "*" in declaration:
            return [(part.strip(" *\n"), ctypes.c_void_p) for part in words[1].split(",")]
        plain = words[0] if words[0] == "size_t" else words[0].removesuffix("_t")
        kind = getattr(ctypes, f"c_{plain}", None) or structure(words[0])
        fields = []
        for part in words[1].split(","):
            name, _, length = part.strip().rstrip("]").partition("[")
            fields.append((name, kind * (macros.get(length) or int(length)) if length else kind))
        return fields

    for name in bodies:
        structure(name)
    return found


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="kernels-")


@functools.cache
def library() -> ctypes.CDLL:
    """All kernels, portable, compiled with every warning an error; undefined behaviour traps."""
    folder = Path(_folder().name)
    sources = sorted(KERNELS.glob("*.c"))

    def compiled(source: Path) -> str:
        target = folder / f"{source.stem}.o"
        command = ["cc", *FLAGS, "-c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stderr

    with ThreadPoolExecutor(2) as pool:
        complaints = "".join(pool.map(compiled, sources))
    whole = folder / "libkernels.so"
    subprocess.run(["cc", "-shared", "-o", str(whole), *map(str, sorted(folder.glob("*.o")))], check=True)
    loaded = ctypes.CDLL(str(whole))
    loaded.complaints = complaints  # type: ignore[attr-defined]
    return loaded


def kernel(name: str) -> Any:
    """A kernel as a function; its absence is explained by what the compiler said."""
    assert hasattr(library(), name), f"no kernel {name}: {library().complaints}"
    return getattr(library(), name)
