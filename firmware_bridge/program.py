"""What a graph becomes on its way to C: steps that call kernels, their constants, and the plan of the arena.

A `Step` is one call of a hand-written kernel: its parameter structure as plain values, its constants, and which tensors it
reads and writes. A `Program` is the list of steps with every buffer placed. All of it is data; `lowering` makes steps,
`passes` changes lists of them, `emit` writes them down as C.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embridge_edge.firmware_bridge.graph import Graph, Tensor

Profile = Literal["litert-ref", "tflm"]
PROFILES: tuple[Profile, ...] = ("litert-ref", "tflm")

Layout = Literal["rows", "pairs", "vectors"]
"""How weights lie in flash: row after row as in the model, two output channels to a 16-bit word (DSP), or row after row with more
working memory for a core with vectors (MVE)."""

Role = Literal["weights", "bias", "requantization", "table"]

ALIGNMENT = 8
"""Bytes that every buffer of the arena is aligned to: a double word load of the M4 wants four, a vector of the M55 one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A read-only table of the library.

    Attributes:
        values: one-dimensional array; its dtype is the type in C.
        role: what the size report counts it as.
    """

    values: npt.NDArray[Any]
    role: Role

    @property
    def size_bytes(self) -> int:
        """Bytes in flash."""
        return self.values.nbytes


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One call of a kernel.

    Attributes:
        op: index of the graph's op.
        layer: name for people, from the graph.
        kernel: C function; it takes the parameters, then inputs, outputs, state and scratch, those that it has.
        source: file of the kernel in `kernels`.
        parameters: fields of the structure `<kernel's structure>`, in C's order of declaration; constants among them.
        structure: C type of the parameters.
        inputs, outputs: tensors, by index.
        comment: shapes and options in a line.
        scratch_bytes: working memory during the call; a kernel whose working memory depends on the step is always handed a
            pointer for it, which is NULL where there is none.
        state_bytes: memory that keeps its value between inferences.
        in_place: index into `inputs` of the tensor whose memory the output may take, or None.
        macs: multiply-accumulates.
        fused: outputs of ops that this step does without writing them.
        reset: C function that brings the state to its beginning, called with parameters and state; "" for zeros.
    """

    op: int
    layer: str
    kernel: str
    source: str
    structure: str
    parameters: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    comment: str = ""
    scratch_bytes: int = 0
    state_bytes: int = 0
    in_place: int | None = None
    macs: int = 0
    fused: tuple[int, ...] = ()
    reset: str = ""


@dataclasses.dataclass(frozen=True)
class Alias:
    """An op that moves no byte: its output is its input under another shape.

    Attributes:
        output, source: tensors, by index.
    """

    output: int
    source: int


@dataclasses.dataclass(frozen=True)
class Program:
    """Everything that the emitter writes.

    Attributes:
        name: prefix of all symbols.
        graph: the model.
        profile: whose rounding is followed.
        layout: how weights are stored.
        steps: calls, in order.
        aliases: tensor → the tensor whose memory it shares.
        offsets: tensor → first byte in the arena; aliases included.
        scratch_offsets: step → first byte of its scratch in the arena, for steps that have any.
        state_offsets: step → first byte of its state, behind the arena.
        arena_bytes, state_bytes: sizes of both.
        live_bytes: most bytes of activations that are alive at once, scratch not counted: the lower bound without in-place ops.
        left_out: tensors of the model that no output depends on, or that are constants.
    """

    name: str
    graph: Graph
    profile: Profile
    layout: Layout
    steps: tuple[Step, ...]
    aliases: Mapping[int, int]
    offsets: Mapping[int, int]
    scratch_offsets: Mapping[int, int]
    state_offsets: Mapping[int, int]
    arena_bytes: int
    state_bytes: int
    live_bytes: int
    left_out: tuple[int, ...] = ()

    def tensor(self, index: int) -> Tensor:
        """The graph's tensor."""
        return self.graph.tensors[index]

    @property
    def fused(self) -> tuple[int, ...]:
        """Tensors of the graph that are never written, because a step does two ops at once."""
        return tuple(index for step in self.steps for index in step.fused)


def int_array(values: Any, dtype: type[np.generic], role: Role) -> Constant:
    """A constant of whole numbers that are known to fit its type."""
    return Constant(np.ascontiguousarray(values).astype(dtype, casting="unsafe").reshape(-1), role)
