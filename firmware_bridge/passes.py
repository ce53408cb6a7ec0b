"""From a graph to a program: a list of passes over the graph, then kernels are picked and memory is planned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge import arena
from embridge_edge.firmware_bridge.emit import C_TYPES
from embridge_edge.firmware_bridge.graph import ABSENT, Graph, Op, Tensor
from embridge_edge.firmware_bridge.lowering import Site, lower_op, refuse
from embridge_edge.firmware_bridge.program import ALIGNMENT, Alias, Layout, Profile, Program, Step

LARGEST_ARENA = 1 << 28
"""Bytes; a graph that needs more is a mistake, not a model for a small device."""

LONGEST_NAME = 80
"""Characters of a tensor's name that a message quotes; a damaged file may hold one of thousands."""

Pass = Callable[[Graph], Graph]


def make_program(graph: Graph, name: str, profile: Profile, layout: Layout) -> Program:
    """The calls, tables and memory plan that a graph becomes.

    Args:
        name: prefix of all symbols, a C identifier.
        profile: whose rounding is followed.
        layout: how weights are stored, by the target's core.

    Raises:
        EdgeError: the graph cannot be compiled; the message names the layer and what to use in its place.
    """
    model = graph
    for change in PASSES:
        graph = change(graph)
    steps, aliases = _lowered(graph, profile, layout)
    return _planned(model, graph, name, profile, layout, steps, aliases)


def check_ports(graph: Graph) -> Graph:
    """Refuse a graph that an application cannot call: without inputs or outputs, or of types that C does not have."""
    if not graph.ops:
        raise EdgeError("The model has no op; export it again.")
    if not graph.inputs or not graph.outputs:
        raise EdgeError("The model has no input or no output; export it again.")
    for index in graph.inputs:
        if graph.tensors[index].is_constant:
            raise EdgeError(f"Input {_name(graph, index)} is a constant; export the model again.")
    for index in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[index]
        if tensor.type not in C_TYPES:
            raise EdgeError(
                f"Input or output {_name(graph, index)} is {tensor.type}, which the library does not have; quantize the "
                "whole graph to int8."
            )
    return graph


def check_order(graph: Graph) -> Graph:
    """Refuse ops out of order, and tensors that are written twice or never."""
    known = set(graph.inputs)
    for op in graph.ops:
        if not op.outputs:
            raise EdgeError(
                f"Op {op.index} ({op.name}) has no output; export a graph without variables, initialisers and assertions."
            )
        for index in op.inputs:
            tensor = graph.tensors[index] if index != ABSENT else None
            if tensor is not None and not (index in known or tensor.is_constant or tensor.variable):
                raise EdgeError(
                    f"Op {op.index} ({op.name}) reads {_name(graph, index)} before any op has written it: a cycle, or a "
                    "damaged file; export the model again."
                )
        for index in op.outputs:
            if index in known or graph.tensors[index].is_constant:
                raise EdgeError(
                    f"Op {op.index} ({op.name}) writes {_name(graph, index)}, which is written already; export the model "
                    "again."
                )
            known.add(index)
    for index in graph.outputs:
        if index not in known or index in graph.inputs:
            raise EdgeError(f"No op computes the output {_name(graph, index)}; export the model again.")
    return graph


def check_shapes(graph: Graph) -> Graph:
    """Refuse activations whose shapes are free or hold nothing."""
    for index in dict.fromkeys((*graph.inputs, *(index for op in graph.ops for index in op.outputs))):
        tensor = graph.tensors[index]
        if tensor.dynamic:
            raise EdgeError(
                f"Tensor {_name(graph, index)} has no fixed shape (axis {tensor.dynamic[0]} is free); export with fixed "
                "shapes."
            )
        if tensor.elements == 0:
            raise EdgeError(f"Tensor {_name(graph, index)} is empty; export the model again.")
    return graph


def _name(graph: Graph, index: int) -> str:
    return repr(graph.tensors[index].name[:LONGEST_NAME])


def fold_constants(graph: Graph) -> Graph:
    """Compute ahead what depends on constants alone and moves values only: RESHAPE, EXPAND_DIMS, SQUEEZE, TRANSPOSE."""
    tensors = list(graph.tensors)
    kept = []
    for op in graph.ops:
        given = [tensors[index] for index in op.inputs if index != ABSENT]
        output = tensors[op.outputs[0]]
        folded = _folded(op, given, output) if given and all(tensor.is_constant for tensor in given) else None
        if folded is None or folded.nbytes != output.size_bytes:
            kept.append(op)
        else:
            if output.index in graph.outputs:
                raise EdgeError(f"Output {_name(graph, output.index)} depends on no input; leave it out of the model.")
            tensors[output.index] = dataclasses.replace(output, data=folded.tobytes())
    return dataclasses.replace(graph, tensors=tuple(tensors), ops=tuple(kept))


def _folded(op: Op, given: list[Tensor], output: Tensor) -> np.ndarray[Any, Any] | None:
    if output.type != given[0].type:
        return None
    if op.name in ("RESHAPE", "EXPAND_DIMS", "SQUEEZE"):
        return given[0].array()
    if op.name == "TRANSPOSE" and len(given) == 2:
        axes = tuple(int(axis) for axis in given[1].array().reshape(-1))
        if sorted(axes) == list(range(len(given[0].shape))):
            return np.ascontiguousarray(given[0].array().transpose(axes))
    return None


def fuse_padding(graph: Graph) -> Graph:
    """Let a convolution pad for itself where a PAD of height and width comes before it."""
    readers = _readers(graph)
    producers = {op.outputs[0]: op for op in graph.ops}
    gone: set[int] = set()
    ops = {op.index: op for op in graph.ops}
    for op in graph.ops:
        if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D") or op.options.get("padding") != 1:
            continue
        pad = producers.get(op.inputs[0])
        if pad is None or pad.name != "PAD" or readers[op.inputs[0]] != 1 or op.inputs[0] in graph.outputs:
            continue
        margins = _margins(graph, pad)
        if margins is None:
            continue
        gone.add(pad.index)
        ops[op.index] = dataclasses.replace(
            op,
            inputs=(pad.inputs[0], *op.inputs[1:]),
            options={**op.options, "margins": margins, "fused": (op.inputs[0],)},
        )
    return dataclasses.replace(graph, ops=tuple(ops[op.index] for op in graph.ops if op.index not in gone))


def _margins(graph: Graph, pad: Op) -> tuple[int, int, int, int] | None:
    """Top, bottom, left and right of a PAD that pads nothing else and keeps the scale."""
    given, output = graph.tensors[pad.inputs[0]], graph.tensors[pad.outputs[0]]
    amounts = graph.tensors[pad.inputs[1]] if len(pad.inputs) == 2 else None
    if amounts is None or not amounts.is_constant or amounts.shape != (4, 2):
        return None
    if not given.type == output.type == "int8":
        return None
    if given.scales != output.scales or given.zero_points != output.zero_points or len(given.shape) != 4:
        return None
    values = amounts.array().astype(np.int64)
    if values.min() < 0 or values[[0, 3]].any():
        return None
    if tuple(np.asarray(given.shape) + values.sum(axis=1)) != output.shape:
        return None
    return int(values[1, 0]), int(values[1, 1]), int(values[2, 0]), int(values[2, 1])


def fuse_relu(graph: Graph) -> Graph:
    """Let a convolution or product clamp its own output where a RELU of the same scale comes after it."""
    readers = _readers(graph)
    producers = {op.outputs[0]: op for op in graph.ops}
    ops = {op.index: op for op in graph.ops}
    gone: set[int] = set()
    for relu in graph.ops:
        code = {"RELU": 1, "RELU6": 3, "RELU_N1_TO_1": 2}.get(relu.name)
        before = producers.get(relu.inputs[0]) if relu.inputs else None
        if code is None or before is None or before.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        middle, output = graph.tensors[relu.inputs[0]], graph.tensors[relu.outputs[0]]
        same = middle.type == output.type == "int8" and middle.scales == output.scales
        if not same or middle.zero_points != output.zero_points or before.options.get("fusedActivationFunction"):
            continue
        if readers[middle.index] != 1 or middle.index in graph.outputs:
            continue
        gone.add(relu.index)
        options = ops[before.index].options
        fused = (*options.get("fused", ()), middle.index)
        ops[before.index] = dataclasses.replace(
            ops[before.index],
            outputs=relu.outputs,
            options={**options, "fusedActivationFunction": code, "fused": fused},
        )
    return dataclasses.replace(graph, ops=tuple(ops[op.index] for op in graph.ops if op.index not in gone))


def drop_unused(graph: Graph) -> Graph:
    """Leave out ops whose outputs nobody reads."""
    wanted = set(graph.outputs)
    kept = []
    for op in reversed(graph.ops):
        if wanted.intersection(op.outputs):
            wanted.update(op.inputs)
            kept.append(op)
    return dataclasses.replace(graph, ops=tuple(reversed(kept)))


PASSES: tuple[Pass, ...] = (
    check_ports, check_order, check_shapes, fold_constants, fuse_padding, fuse_relu, drop_unused,
)  # fmt: skip


def _readers(graph: Graph) -> dict[int, int]:
    counts: dict[int, int] = {}
    for op in graph.ops:
        for index in op.inputs:
            counts[index] = counts.get(index, 0) + 1
    return counts | {index: counts.get(index, 0) for op in graph.ops for index in op.outputs if index not in counts}


def _lowered(graph: Graph, profile: Profile, layout: Layout) -> tuple[list[Step], list[Alias]]:
    steps: list[Step] = []
    aliases: list[Alias] = []
    for op in graph.ops:
        site = Site(graph, op, profile, layout)
        lowered = lower_op(site)
        if isinstance(lowered, Alias):
            _check_tensors(site, [lowered.source], [lowered.output])
            aliases.append(lowered)
            continue
        fused = op.options.get("fused", ())
        parts = lowered if isinstance(lowered, tuple) else (lowered,)
        _check_tensors(site, [i for part in parts for i in part.inputs], [i for part in parts for i in part.outputs])
        steps.extend(dataclasses.replace(step, fused=(*step.fused, *fused)) for step in parts)
    return steps, aliases


def _check_tensors(site: Site, reads: list[int], writes: list[int]) -> None:
    """Refuse what a call would read from memory that nothing has written, and outputs that no call would write."""
    for tensor in (site.graph.tensors[index] for index in reads):
        if tensor.is_constant:
            refuse(site, f"its input {tensor.name!r} is a constant", "fold the op before exporting")
        if tensor.variable:
            refuse(site, f"it reads the variable {tensor.name!r}", "export a graph without variables")
    if set(writes) != set(site.op.outputs):
        refuse(site, f"it has {len(site.op.outputs)} outputs", "export the model again")


def _planned(
    model: Graph,
    graph: Graph,
    name: str,
    profile: Profile,
    layout: Layout,
    steps: list[Step],
    aliases: list[Alias],
) -> Program:
    shared = arena.follow(aliases)
    for index in graph.outputs:
        if shared.get(index, index) in graph.inputs and not steps:
            raise EdgeError("The model computes nothing: its output is its input; export it again.")
    placed = arena.plan(graph, steps, shared)
    if placed.size > LARGEST_ARENA:
        raise EdgeError(f"The model's activations need {placed.size:,} bytes at once; use smaller shapes.")
    states: dict[int, int] = {}
    state_bytes = 0
    for at, step in enumerate(steps):
        if step.state_bytes:
            states[at] = state_bytes
            state_bytes += -(-step.state_bytes // ALIGNMENT) * ALIGNMENT
    fused = {index for step in steps for index in step.fused}
    computed = fused.union(index for op in graph.ops for index in op.outputs)
    return Program(
        name=name,
        graph=graph,
        profile=profile,
        layout=layout,
        steps=tuple(steps),
        aliases=shared,
        offsets=placed.offsets,
        scratch_offsets=placed.scratch,
        state_offsets=states,
        arena_bytes=placed.size,
        state_bytes=state_bytes,
        live_bytes=placed.live,
        left_out=tuple(index for op in model.ops for index in op.outputs if index not in computed),
    )
