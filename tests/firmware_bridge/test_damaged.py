"""Damaged and lying models: each is refused in one line, or becomes a library that equals the reference."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.export.flatbuffer import pack, unpack
from embridge_edge.firmware_bridge.emit import library
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import Layout, Program
from embridge_edge.firmware_bridge.verifying import seeded_inputs, verify_host

NAMES = ("ad01_int8", "str_ww_ref_model", "kws_ref_model")
LAYOUTS: tuple[Layout, ...] = ("rows", "pairs", "vectors")
BYTES_EACH = 200
LIES_EACH = 250
COMPARED_EACH = 12
HANGS_S = 60.0

Draw = np.random.Generator


def compiled_or_refused(content: bytes, layout: Layout) -> Program | None:
    """The program, or None where the model is refused in one line; anything else fails the test."""
    try:
        program = make_program(read_graph(content), "model", "litert-ref", layout)
        if content[-1] % 8 == 0:  # Writing hundreds of kilobytes of numbers is the slow part.
            library(program, bytes(32))
    except EdgeError as error:
        assert str(error).strip()
        assert "\n" not in str(error)
        assert len(str(error)) < 600
        return None
    return program


def with_wrong_bytes(content: bytes, draw: Draw) -> bytes:
    """Some bytes changed, cut out or set to extreme words, mostly where the structure lies and not the weights."""
    data = bytearray(content)
    for _ in range(int(draw.integers(1, 6))):
        near = int(draw.choice([draw.integers(4000), len(data) - 1 - draw.integers(30000), draw.integers(len(data))]))
        at = min(max(near, 0), len(data) - 5)
        kind = int(draw.integers(10))
        if kind < 4:
            data[at] = int(draw.integers(256))
        elif kind < 7:
            data[at] ^= 1 << int(draw.integers(8))
        elif kind < 9:
            word = int(draw.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, draw.integers(1 << 32)]))
            data[at : at + 4] = word.to_bytes(4, "little")
        else:
            del data[at : at + int(draw.integers(1, 64))]
    return bytes(data)


def any_tensor(model: Any, draw: Draw) -> Any:
    return draw.choice(model.subgraphs[0].tensors)


def any_op(model: Any, draw: Draw) -> Any:
    return draw.choice(model.subgraphs[0].operators)


def lie_about_shape(model: Any, draw: Draw) -> None:
    shape = any_tensor(model, draw).shape
    if shape is not None and len(shape):
        shape[int(draw.integers(len(shape)))] = draw.choice([0, 1, 2, 3, 7, 64, 65536, 2**31 - 1, -1])


def lie_about_scale(model: Any, draw: Draw) -> None:
    quantization = any_tensor(model, draw).quantization
    if quantization is not None and quantization.scale is not None and len(quantization.scale):
        at = int(draw.integers(len(quantization.scale)))
        quantization.scale[at] = draw.choice([0.0, -0.1, np.nan, np.inf, 1e-30, 1e30, 0.02, 3.0])


def lie_about_zero_point(model: Any, draw: Draw) -> None:
    quantization = any_tensor(model, draw).quantization
    if quantization is not None and quantization.zeroPoint is not None and len(quantization.zeroPoint):
        at = int(draw.integers(len(quantization.zeroPoint)))
        quantization.zeroPoint[at] = draw.choice([-128, 127, 128, -129, 1 << 20, 0, 5])


def lie_about_axis(model: Any, draw: Draw) -> None:
    quantization = any_tensor(model, draw).quantization
    if quantization is not None:
        quantization.quantizedDimension = int(draw.integers(-1, 5))


def lie_about_type(model: Any, draw: Draw) -> None:
    any_tensor(model, draw).type = int(draw.integers(0, 20))


def lie_about_free_axes(model: Any, draw: Draw) -> None:
    tensor = any_tensor(model, draw)
    tensor.shapeSignature = np.asarray(draw.choice([-1, 1], 4), np.int32)


def lie_about_buffer(model: Any, draw: Draw) -> None:
    any_tensor(model, draw).buffer = int(draw.integers(len(model.buffers)))


def lie_about_inputs(model: Any, draw: Draw) -> None:
    inputs = any_op(model, draw).inputs
    inputs[int(draw.integers(len(inputs)))] = int(draw.integers(-1, len(model.subgraphs[0].tensors)))


def lie_about_outputs(model: Any, draw: Draw) -> None:
    any_op(model, draw).outputs[0] = int(draw.integers(len(model.subgraphs[0].tensors)))


def lie_about_op(model: Any, draw: Draw) -> None:
    any_op(model, draw).opcodeIndex = int(draw.integers(len(model.operatorCodes)))


def lie_about_kind(model: Any, draw: Draw) -> None:
    code = draw.choice(model.operatorCodes)
    code.builtinCode = code.deprecatedBuiltinCode = int(draw.integers(0, 120))


def lie_about_order(model: Any, draw: Draw) -> None:
    operators = model.subgraphs[0].operators
    a, b = draw.integers(len(operators), size=2)
    operators[a], operators[b] = operators[b], operators[a]


def lie_about_options(model: Any, draw: Draw) -> None:
    options = any_op(model, draw).builtinOptions
    fields = sorted(vars(options)) if options is not None else []
    numbers = [name for name in fields if isinstance(getattr(options, name), int)]
    if numbers:
        setattr(options, str(draw.choice(numbers)), int(draw.choice([0, 1, 2, 3, 5, 100])))


def lie_about_ports(model: Any, draw: Draw) -> None:
    graph = model.subgraphs[0]
    ports = graph.inputs if draw.integers(2) else graph.outputs
    ports[0] = int(draw.integers(len(graph.tensors)))


LIES: tuple[Callable[[Any, Draw], None], ...] = (
    lie_about_shape, lie_about_scale, lie_about_zero_point, lie_about_axis, lie_about_type, lie_about_free_axes,
    lie_about_buffer, lie_about_inputs, lie_about_outputs, lie_about_op, lie_about_kind, lie_about_order,
    lie_about_options, lie_about_options, lie_about_ports,
)  # fmt: skip


def writable(model: Any) -> Any:
    """The model with arrays that can be changed: the reader's look into the file."""
    graph = model.subgraphs[0]
    graph.inputs, graph.outputs = np.array(graph.inputs), np.array(graph.outputs)
    for op in graph.operators:
        op.inputs, op.outputs = np.array(op.inputs), np.array(op.outputs)
    for tensor in graph.tensors:
        tensor.shape = np.array(tensor.shape if tensor.shape is not None else [], np.int32)
        for name in ("scale", "zeroPoint"):
            values = getattr(tensor.quantization, name, None)
            if values is not None:
                setattr(tensor.quantization, name, np.array(values))
    return model


def with_lies(content: bytes, draw: Draw) -> bytes | None:
    """A well-formed file whose fields do not go together; None where it cannot be written."""
    model = writable(unpack(content))
    for _ in range(int(draw.integers(1, 3))):
        LIES[int(draw.integers(len(LIES)))](model, draw)
    try:
        return bytes(pack(model))
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return None


@pytest.mark.parametrize("name", NAMES)
def test_wrong_bytes_are_one_line(models: Path, name: str) -> None:
    content = (models / f"{name}.tflite").read_bytes()
    refused = 0
    for number in range(BYTES_EACH):
        damaged = with_wrong_bytes(content, np.random.default_rng([1, number]))
        refused += compiled_or_refused(damaged, LAYOUTS[number % 3]) is None
    assert refused > BYTES_EACH // 4


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_anywhere_is_one_line(models: Path, name: str) -> None:
    content = (models / f"{name}.tflite").read_bytes()
    for length in [*range(64), *np.linspace(64, len(content) - 1, 100).astype(int)]:
        compiled_or_refused(content[:length], "rows")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_lies_are_refused_or_computed_as_the_reference_computes_them(models: Path, name: str) -> None:
    """The reference runs in a process of its own: it may die of what it is given."""
    content = (models / f"{name}.tflite").read_bytes()
    accepted: list[tuple[bytes, Layout]] = []
    for number in range(LIES_EACH):
        lie = with_lies(content, np.random.default_rng([2, number]))
        layout = LAYOUTS[number % 3]
        if lie is not None and lie != content and compiled_or_refused(lie, layout) is not None:
            accepted.append((lie, layout))
    assert 0 < len(accepted) < LIES_EACH
    compared = 0
    for lie, layout in accepted:
        said = in_a_process(lie, layout)
        assert said in ("equal", "refused by the reference", "the reference died")
        compared += said == "equal"
        if compared == COMPARED_EACH:
            break
    assert compared > 3


def in_a_process(content: bytes, layout: Layout) -> str:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_compare, args=(content, layout, sender), daemon=True)
    child.start()
    sender.close()
    child.join(HANGS_S)
    if child.is_alive():
        child.kill()
        return "hangs"
    return str(receiver.recv()) if receiver.poll() else "the reference died"


def _compare(content: bytes, layout: Layout, sender: Any) -> None:
    program = make_program(read_graph(content), "model", "litert-ref", layout)
    try:
        found, _ = verify_host(program, content, list(seeded_inputs(program.graph, 6)))
    except EdgeError as error:
        sender.send("refused by the reference" if "LiteRT" in str(error) else f"{error}")
    except (ValueError, RuntimeError):
        sender.send("refused by the reference")
    else:
        sender.send("equal" if found.ok else f"{found.mismatches[0]}")
