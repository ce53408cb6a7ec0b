"""Where each activation lives: one block of memory, planned ahead from what is alive when.

Tensors that share memory (an op that moves no byte, an op that may write over its input) are one buffer. Buffers are placed
one by one at the lowest offset where nothing alive at the same time lies, in several orders; the best plan wins.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence

from embridge_edge.firmware_bridge.graph import Graph
from embridge_edge.firmware_bridge.program import ALIGNMENT, Alias, Step

TRIES = 200
"""Random orders tried after the systematic ones; a plan that reaches the lower bound ends the search."""
MOST_PAIRS = 8_000_000
"""Pairs of buffers that all orders together may look at, some two seconds: graphs of more than 200 buffers get fewer orders."""


@dataclasses.dataclass(frozen=True)
class Buffer:
    """Memory that is in use from one step to another.

    Attributes:
        key: what it is for.
        size: bytes.
        first, last: steps, both included.
    """

    key: int
    size: int
    first: int
    last: int

    def overlaps(self, other: Buffer) -> bool:
        """Whether both are in use during some step."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where everything lies.

    Attributes:
        offsets: tensor → first byte.
        scratch: step → first byte of its working memory.
        size: bytes of the arena.
        live: most bytes of activations alive at once if nothing were computed in place.
    """

    offsets: Mapping[int, int]
    scratch: Mapping[int, int]
    size: int
    live: int


def plan(graph: Graph, steps: Sequence[Step], aliases: Mapping[int, int]) -> Plan:
    """Place all activations and the working memory of all steps.

    Args:
        aliases: tensor → tensor whose bytes it is, already followed to the end.
    """
    lifetimes = _lifetimes(graph, steps, aliases)
    owner = _merged(graph, steps, aliases, lifetimes)
    buffers: dict[int, Buffer] = {}
    for tensor, (first, last) in lifetimes.items():
        key = owner[tensor]
        size = _aligned(graph.tensors[tensor].size_bytes)
        known = buffers.get(key, Buffer(key, 0, first, last))
        buffers[key] = Buffer(key, max(known.size, size), min(known.first, first), max(known.last, last))
    scratch = {
        -1 - index: Buffer(-1 - index, _aligned(step.scratch_bytes), index, index)
        for index, step in enumerate(steps)
        if step.scratch_bytes
    }
    placed = _placed([*buffers.values(), *scratch.values()])
    ends = [placed[buffer.key] + buffer.size for buffer in (*buffers.values(), *scratch.values())]
    offsets = {tensor: placed[owner[tensor]] for tensor in lifetimes}
    offsets |= {tensor: offsets[source] for tensor, source in aliases.items() if source in offsets}
    alone = [Buffer(t, graph.tensors[t].size_bytes, *span) for t, span in lifetimes.items()]
    return Plan(
        offsets=offsets,
        scratch={-1 - key: placed[key] for key in scratch},
        size=max(ends, default=0),
        live=_peak(alone),
    )


def follow(aliases: Iterable[Alias]) -> dict[int, int]:
    """Each alias with the tensor that really holds its bytes."""
    direct = {alias.output: alias.source for alias in aliases}
    found = {}
    for output in direct:
        source = output
        while source in direct:
            source = direct[source]
        found[output] = source
    return found


def _lifetimes(graph: Graph, steps: Sequence[Step], aliases: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """First and last step that each tensor with memory of its own must survive."""
    first = {aliases.get(index, index): 0 for index in graph.inputs}
    last: dict[int, int] = dict.fromkeys(first, 0)
    for at, step in enumerate(steps):
        for index in (*step.inputs, *step.outputs):
            root = aliases.get(index, index)
            if not graph.tensors[root].is_constant:
                first.setdefault(root, at)
                last[root] = at
    for index in graph.outputs:
        root = aliases.get(index, index)
        if root in first:
            last[root] = max(len(steps) - 1, 0)
    return {index: (begin, last[index]) for index, begin in first.items()}


def _merged(
    graph: Graph, steps: Sequence[Step], aliases: Mapping[int, int], lifetimes: Mapping[int, tuple[int, int]]
) -> dict[int, int]:
    """Each tensor with the first of those whose memory it takes over, where a step may compute in place."""
    owner = {index: index for index in lifetimes}
    kept = {aliases.get(index, index) for index in graph.outputs}
    for at, step in enumerate(steps):
        if step.in_place is None:
            continue
        source = aliases.get(step.inputs[step.in_place], step.inputs[step.in_place])
        output = aliases.get(step.outputs[0], step.outputs[0])
        read_twice = sum(aliases.get(index, index) == source for index in step.inputs) > 1
        if source not in lifetimes or source in kept or read_twice or lifetimes[source][1] != at:
            continue
        if lifetimes[output][0] == at and graph.tensors[output].size_bytes <= graph.tensors[source].size_bytes:
            owner[output] = owner[source]
    return owner


def writes_in_place(step: Step, offsets: Mapping[int, int]) -> bool:
    """Whether the plan made the step's output overlap the input that it may take over."""
    return step.in_place is not None and offsets[step.outputs[0]] == offsets[step.inputs[step.in_place]]


def _placed(buffers: Sequence[Buffer]) -> dict[int, int]:
    bound = _peak(buffers)
    orders = [
        sorted(buffers, key=lambda buffer: (-buffer.size, buffer.first)),
        sorted(buffers, key=lambda buffer: (buffer.first - buffer.last, -buffer.size)),
        sorted(buffers, key=lambda buffer: (buffer.first, -buffer.size)),
    ]
    shuffled = random.Random(0)
    tries = min(TRIES, MOST_PAIRS // max(len(buffers), 1) ** 2)
    best: dict[int, int] = {}
    least = None
    for attempt in range(len(orders) + tries):
        order = orders[attempt] if attempt < len(orders) else shuffled.sample(list(buffers), len(buffers))
        offsets = _first_fit(order)
        size = max((offsets[buffer.key] + buffer.size for buffer in buffers), default=0)
        if least is None or size < least:
            best, least = offsets, size
        if least == bound:
            break
    return best


def _first_fit(order: Sequence[Buffer]) -> dict[int, int]:
    offsets: dict[int, int] = {}
    done: list[Buffer] = []
    for buffer in order:
        offset = 0
        for start, end in sorted(
            (offsets[other.key], offsets[other.key] + other.size) for other in done if other.overlaps(buffer)
        ):
            if offset + buffer.size <= start:
                break
            offset = max(offset, end)
        offsets[buffer.key] = offset
        done.append(buffer)
    return offsets


def _peak(buffers: Iterable[Buffer]) -> int:
    changes: dict[int, int] = {}
    for buffer in buffers:
        changes[buffer.first] = changes.get(buffer.first, 0) + buffer.size
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - buffer.size
    most = now = 0
    for at in sorted(changes):
        now += changes[at]
        most = max(most, now)
    return most


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
