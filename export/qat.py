"""What quantization-aware training has learnt, carried into a `.tflite`: ranges, integer weights, scales and biases, to the step.

No converter takes a fake-quantized torch model to an int8 graph. So the plain float student is converted, and what every tensor of it
became is looked up in the quantizers that training used. Which quantizer belongs to which tensor is found by values: the same windows go
through torch and through LiteRT, without rounding, and what is equal there is the same tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from embridge_edge.compression.observers import Range
from embridge_edge.compression.qat import FakeQuantized, Grid
from embridge_edge.errors import EdgeError
from embridge_edge.export.agreement import alike, in_order
from embridge_edge.export.bias import biased, corrected
from embridge_edge.export.flatbuffer import as_array, pack, unpack
from embridge_edge.export.quantizing import quantized, refuse_unless_as_asked
from embridge_edge.export.ranges import checked_windows, ends_of
from embridge_edge.export.reading import dequantize_values, quantize_values
from embridge_edge.export.running import layer_values, run_tflite
from embridge_edge.export.tflite import to_tflite
from embridge_edge.firmware_bridge.graph import Graph, Tensor, read_graph

Floats = npt.NDArray[np.float32]

MATCHED_WINDOWS = 8

SAME_GRID = 1e-5
"""Share by which the quantizer's scale may differ from the learnt one: it computes in 32 bits from the range's ends."""

INT32 = 2**31 - 1

ROUNDED_TWICE = ("CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL")
"""Ops whose reference kernel multiplies the accumulator by 31 bits, rounds, shifts, and rounds again."""

MOST_BEYOND = 0.001
"""Share of outputs that may be more than a step away. What is left to part the graphs is a softmax, which the kernel reads from a table."""

CHECKED_WINDOWS = 64


@dataclass(frozen=True)
class Placement:
    """Which quantizer each tensor of the int8 graph has.

    Attributes:
        activations, constants: tensor name → quantizer name.
        ops: activation → the operation in torch that computes it.
        structure: the graph's ops with their tensors, to know it again.
    """

    activations: Mapping[str, str]
    constants: Mapping[str, str]
    ops: Mapping[str, str]
    structure: tuple[tuple[str, ...], ...]


def placed(fake: FakeQuantized, ranges: Mapping[str, Range], windows: Floats, float_model: bytes) -> Placement:
    """Find the quantizer of every tensor that the int8 graph rounds, add those that NNCF left out, and give all the ranges to begin with.

    Args:
        ranges: of every activation (`export.ranges.ranges_of`). windows: float32 `[n, T, C]`, real ones.
        float_model: converted from `fake.folded`.

    Raises:
        EdgeError: a tensor with no quantizer and no place for one, with several, or a quantizer without a tensor.
    """
    graph = read_graph(float_model)
    types = {tensor.name: tensor.type for tensor in read_graph(quantized(float_model, ranges)).tensors}
    rounded = [tensor for tensor in graph.tensors if types.get(tensor.name) == "int8"]
    some = checked_windows(graph, windows)[:: max(1, len(windows) // MATCHED_WINDOWS)][:MATCHED_WINDOWS]
    given, put_out = fake.heard(some)
    values = layer_values(float_model, some)
    activations, origins = _activations(
        fake, graph, {t.name: values[t.name] for t in rounded if not t.is_constant}, given, put_out
    )
    constants = _constants(fake, [tensor for tensor in rounded if tensor.is_constant], given)
    used = {*activations.values(), *constants.values()}
    if idle := sorted(set(fake.quantizers) - used):
        raise EdgeError(
            f"The quantizer {idle[0]} rounds what the int8 graph does not have; leave out [quantize.qat] for this student."
        )
    for tensor in rounded:
        if not tensor.is_constant:
            fake.start_at(activations[tensor.name], ranges[tensor.name])
    for op in graph.ops:
        if op.name == "SOFTMAX":
            fake.hold(activations[graph.tensors[op.outputs[0]].name], SOFTMAX_GRID)
    return Placement(activations, constants, origins, _structure(graph))


SOFTMAX_GRID = Grid(np.array([1 / 256], np.float32), np.array([-128]))
"""TFLite fixes what a softmax puts out, so that 0 and almost 1 are the ends of int8."""


def _activations(
    fake: FakeQuantized,
    graph: Graph,
    values: Mapping[str, Floats],
    given: Mapping[str, list[Floats]],
    put_out: Mapping[str, Floats],
) -> tuple[dict[str, str], dict[str, str]]:
    """Tensor name → quantizer name, in order of execution, with quantizers added where there were none; tensor name → operation."""
    sorted_given = {name: [in_order(one) for one in each] for name, each in given.items()}
    sorted_out = {name: in_order(one) for name, one in put_out.items()}
    writers = {graph.tensors[op.outputs[0]].name: op for op in graph.ops}
    found: dict[str, str] = {}
    origins: dict[str, str] = {}
    added: dict[str, str] = {}  # operation → quantizer
    for name, exact in values.items():
        mine = in_order(exact)
        ops = [op for op, theirs in sorted_out.items() if alike(mine, theirs)]
        if not ops:
            raise EdgeError(
                f"Nothing in the torch student computes the tensor {name} of the int8 graph; leave out [quantize.qat]."
            )
        matching = [one for one, each in sorted_given.items() if any(alike(mine, theirs) for theirs in each)]
        matching += [one for op, one in added.items() if op in ops]
        if len(matching) > 1:
            raise EdgeError(
                f"The tensor {name} of the int8 graph has two quantizers, {' and '.join(matching)}; leave out [quantize.qat]."
            )
        writer = writers.get(name)
        if not matching and writer is not None and writer.name == "CONCATENATION":
            # It moves values of one grid: whoever reads them parted or together sees the same integers.
            matching = sorted({found[graph.tensors[index].name] for index in writer.inputs})
            if len(matching) != 1:
                raise EdgeError(
                    f"The parts of {name} in the int8 graph have grids of their own; leave out [quantize.qat]."
                )
        elif not matching:
            added[ops[0]] = fake.add(ops[0])
            matching = [added[ops[0]]]
        elif not fake.quantizes(matching[0], ops[0]):
            # NNCF rounds in front of one reader; int8 has the tensor once, for all readers.
            moved = fake.move(matching[0], ops[0])
            sorted_given[moved] = sorted_given.pop(matching[0])
            found = {tensor: moved if name == matching[0] else name for tensor, name in found.items()}
            matching = [moved]
        found[name], origins[name] = matching[0], ops[0]
    return found, origins


def _constants(fake: FakeQuantized, constants: Iterable[Tensor], given: Mapping[str, list[Floats]]) -> dict[str, str]:
    """Tensor name → quantizer name: of the same values, whatever the layout."""
    heard = {name: [np.sort(one, axis=None) for one in each] for name, each in given.items()}
    parameters = {
        name: np.sort(parameter.detach().numpy(), axis=None)
        for name, parameter in fake.network.named_parameters()
        if name.startswith("student.")
    }
    found = {}
    for tensor in constants:
        mine = np.sort(tensor.array(), axis=None)
        matching = [name for name, each in heard.items() if any(np.array_equal(mine, theirs) for theirs in each)]
        if not matching:
            owners = [name for name, theirs in parameters.items() if np.array_equal(mine, theirs)]
            if len(owners) == 1:
                matching = [fake.add(owners[0])]
                fake.start_at(matching[0], (min(0.0, float(mine[0])), max(0.0, float(mine[-1]))))
        if len(matching) != 1:
            raise EdgeError(
                f"The constant {tensor.name} of the int8 graph is {len(matching) or 'no'} parameters of the torch student; "
                "leave out [quantize.qat]."
            )
        found[tensor.name] = matching[0]
    return found


def start_corrected(
    fake: FakeQuantized, placement: Placement, ranges: Mapping[str, Range], windows: Floats, float_model: bytes
) -> None:
    """Begin training with the biases that bias correction gives the int8 graph of these ranges (`export.bias`).

    Args:
        ranges, windows, float_model: those of `placed`.
    """
    plain = quantized(float_model, ranges)
    graph, moved = read_graph(plain), read_graph(corrected(plain, float_model, windows))
    for op in biased(graph):
        read, weights, bias = (graph.tensors[index] for index in op.inputs[:3])
        learnt = _bias(fake, placement, weights, bias)
        steps = moved.tensors[bias.index].array().astype(np.float64) - bias.array()
        step = np.float64(read.scales[0]) * np.asarray(weights.scales, np.float64)
        with torch.no_grad():
            learnt.add_(torch.from_numpy(steps * step))


def _bias(fake: FakeQuantized, placement: Placement, weights: Tensor, bias: Tensor) -> torch.Tensor:
    """The torch student's parameter that became a bias of the int8 graph."""
    learnt = fake.bias_of(placement.constants[weights.name])
    if learnt is None or learnt.numel() != bias.array().size:
        raise EdgeError(f"{bias.name} of the int8 graph is no bias of the torch student; leave out [quantize.qat].")
    return learnt


def _structure(graph: Graph) -> tuple[tuple[str, ...], ...]:
    names = [tensor.name for tensor in graph.tensors]
    return tuple((op.name, *(names[index] for index in (*op.inputs, *op.outputs) if index >= 0)) for op in graph.ops)


@dataclass(frozen=True)
class Carried:
    """A trained student as TFLite.

    Attributes:
        int8: with what was learnt. float32: the same weights without rounding.
    """

    int8: bytes
    float32: bytes


def carried(fake: FakeQuantized, placement: Placement, windows: Floats) -> Carried:
    """The int8 `.tflite` that computes with the grids, the integer weights and the biases that training saw.

    Args:
        windows: float32 `[n, T, C]`, real ones, on some of which the result is compared with the torch network.

    Raises:
        EdgeError: a tensor got another grid, or outputs are more than a step from the torch network's.
    """
    float_model = to_tflite(fake.trained(), (1, *windows.shape[1:]))
    graph = read_graph(float_model)
    if _structure(graph) != placement.structure:
        raise EdgeError(
            "The trained student converts to another graph than before; run quantize again, or leave out [quantize.qat]."
        )
    grids = {name: fake.grid(quantizer) for name, quantizer in placement.activations.items()}
    fake.settle()
    ranges = {name: ends_of(float(grid.step[0]), int(grid.zero[0])) for name, grid in grids.items()}
    model = _with_constants(quantized(float_model, ranges), graph, fake, placement)
    made = read_graph(model)
    for tensor in made.tensors:
        if tensor.name in grids:
            _refuse_other_grid(tensor, grids[tensor.name])
    refuse_unless_as_asked(made, ())
    checked = windows[:: max(1, len(windows) // CHECKED_WINDOWS)][:CHECKED_WINDOWS]
    beyond = float(np.mean(steps_apart(fake, model, checked) > 1))
    if beyond > MOST_BEYOND:
        raise EdgeError(
            f"{100 * beyond:.2g} % of the int8 graph's outputs are more than a step from the torch network that was trained "
            f"(allowed {100 * MOST_BEYOND:g} %); leave out [quantize.qat]."
        )
    return Carried(model, float_model)


def steps_apart(fake: FakeQuantized, model: bytes, windows: Floats) -> npt.NDArray[np.int64]:
    """How many output steps LiteRT's reference kernels are from the fake-quantized torch network, `[n, D]`.

    Both are given the same integers: a sample in the middle between two of them may go either way, by the last bit of a division.
    """
    graph = read_graph(model)
    taken, out = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    inputs = quantize_values(windows, taken.scales[0], taken.zero_points[0])
    got = run_tflite(model, inputs, "litert-ref", raw=True).astype(np.int64)
    exact = fake.embed(dequantize_values(inputs, taken.scales[0], taken.zero_points[0]))
    wanted = np.rint(exact / out.scales[0]).astype(np.int64) + out.zero_points[0]
    return np.asarray(np.abs(got.reshape(wanted.shape) - wanted))


def _refuse_other_grid(tensor: Tensor, grid: Grid) -> None:
    same = tensor.zero_points == tuple(grid.zero.tolist()) and np.allclose(
        tensor.scales, grid.step, rtol=SAME_GRID, atol=0
    )
    if not same:
        raise EdgeError(
            f"{tensor.name} has scale {tensor.scales[0]:g} and zero point {tensor.zero_points[0]} in the int8 graph, and learnt "
            f"{grid.step[0]:g} and {grid.zero[0]}; leave out [quantize.qat]."
        )


def _with_constants(model: bytes, float_graph: Graph, fake: FakeQuantized, placement: Placement) -> bytes:
    """The model with the integers, scales and zero points of the quantizers, and biases that go with them.

    The torch network is settled with them: its biases go where their integers are, and where reference kernels round twice, so does it.
    Both move a value by half a step of an accumulator at most, of which an output step has a hundred or more.
    """
    floats = {tensor.name: tensor for tensor in float_graph.tensors}
    graph, unpacked = read_graph(model), unpack(model)
    scales = {tensor.index: np.asarray(tensor.scales) for tensor in graph.tensors}

    def write(tensor: Tensor, integers: npt.NDArray[np.generic], grid: Grid) -> None:
        mutable = unpacked.subgraphs[0].tensors[tensor.index]
        unpacked.buffers[mutable.buffer].data = as_array(integers.tobytes())
        mutable.quantization.scale = grid.step.astype(np.float32).tolist()
        mutable.quantization.zeroPoint = grid.zero.tolist()
        scales[tensor.index] = grid.step

    for tensor in graph.tensors:
        if tensor.name in placement.constants:
            quantizer = placement.constants[tensor.name]
            grid = fake.grid(quantizer)
            if len(grid.step) != len(tensor.scales):
                raise EdgeError(
                    f"{tensor.name} has {len(tensor.scales)} scales in the int8 graph and {len(grid.step)} in training; leave out [quantize.qat]."
                )
            axis = tensor.axis if len(grid.step) > 1 else None
            write(tensor, fake.integers(quantizer, floats[tensor.name].array(), axis), grid)
    for op in biased(graph):
        read, weights, bias = (graph.tensors[index] for index in op.inputs[:3])
        step = np.float64(read.scales[0]) * scales[weights.index].astype(np.float64)
        exact, learnt = floats[bias.name].array(), _bias(fake, placement, weights, bias)
        if not np.array_equal(learnt.detach().numpy(), exact):
            raise EdgeError(
                f"{bias.name} of the int8 graph is not what the torch student learnt; leave out [quantize.qat]."
            )
        integers = np.rint(exact.astype(np.float64) / step).clip(-INT32, INT32)
        with torch.no_grad():
            learnt.copy_(torch.from_numpy(integers * step))
        write(bias, integers.astype(np.int32), Grid(step.astype(np.float32), np.zeros(len(step), np.int64)))
    for op in graph.ops:
        if op.name in ROUNDED_TWICE:
            one, other, out = (graph.tensors[index] for index in (*op.inputs[:2], op.outputs[0]))
            _, exponent = np.frexp(np.float64(one.scales[0]) * scales[other.index].astype(np.float64) / out.scales[0])
            part = np.float64(out.scales[0]) * np.exp2(np.minimum(exponent, 0))
            fake.round_before(placement.ops[out.name], part.reshape(-1, 1, 1) if len(part) > 1 else part)
    return pack(unpacked)
