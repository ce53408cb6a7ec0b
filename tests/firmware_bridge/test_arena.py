"""Where activations lie: nothing that is alive together overlaps, and the plan comes near to what is alive."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.firmware_bridge.arena import Plan, follow, plan, writes_in_place
from embridge_edge.firmware_bridge.graph import Graph, Op, Tensor
from embridge_edge.firmware_bridge.program import ALIGNMENT, Alias, Step


def step(index: int, inputs: tuple[int, ...], outputs: tuple[int, ...], *, scratch: int, in_place: int | None) -> Step:
    return Step(
        index, f"layer {index}", "kernel", "kernel.c", "", {}, inputs, outputs, scratch_bytes=scratch, in_place=in_place
    )


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, list[Step]]:
    """A random network: each step reads up to three of the tensors that exist and writes a new one."""
    count = draw(st.integers(1, 12))
    sizes = draw(st.lists(st.integers(1, 300), min_size=count + 1, max_size=count + 1))
    tensors = tuple(Tensor(at, f"t{at}", (size,), "int8", (1.0,), (0,)) for at, size in enumerate(sizes))
    steps = []
    for at in range(count):
        reads = draw(st.lists(st.integers(0, at), min_size=1, max_size=3))
        place = draw(st.sampled_from([None, *range(len(reads))]))
        steps.append(step(at, tuple(reads), (at + 1,), scratch=draw(st.sampled_from([0, 0, 5, 64])), in_place=place))
    ops = tuple(Op(one.op, "ADD", one.inputs, one.outputs) for one in steps)
    outputs = tuple(draw(st.sets(st.integers(1, count), min_size=1, max_size=2)) | {count})
    return Graph(tensors, ops, (0,), outputs), steps


def spans(graph: Graph, steps: list[Step]) -> dict[int, tuple[int, int]]:
    """First and last step at which each tensor's bytes matter, found the slow way."""
    found = {}
    for tensor in graph.tensors:
        times = [at for at, one in enumerate(steps) if tensor.index in (*one.inputs, *one.outputs)]
        times += [0] if tensor.index in graph.inputs else []
        times += [len(steps) - 1] if tensor.index in graph.outputs else []
        if times:
            found[tensor.index] = (min(times), max(times))
    return found


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


@settings(max_examples=300, deadline=None)
@given(graphs())
def test_what_is_alive_together_never_shares_bytes_but_where_a_step_computes_in_place(
    case: tuple[Graph, list[Step]],
) -> None:
    graph, steps = case
    placed = plan(graph, steps, {})
    alive = spans(graph, steps)
    for (a, life_a), (b, life_b) in itertools.combinations(alive.items(), 2):
        together = life_a[0] <= life_b[1] and life_b[0] <= life_a[1]
        bytes_of = [(placed.offsets[i], placed.offsets[i] + graph.tensors[i].size_bytes) for i in (a, b)]
        if together and overlap(*bytes_of):
            handed_over = [
                one for one in steps
                if writes_in_place(one, placed.offsets) and one.outputs[0] in (a, b) and one.inputs[one.in_place or 0] in (a, b)
            ]  # fmt: skip
            assert len(handed_over) == 1
            assert max(life_a[0], life_b[0]) == min(life_a[1], life_b[1]) == handed_over[0].op


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_scratch_shares_bytes_with_nothing_that_its_step_or_later_ones_need(case: tuple[Graph, list[Step]]) -> None:
    graph, steps = case
    placed = plan(graph, steps, {})
    alive = spans(graph, steps)
    for at, offset in placed.scratch.items():
        own = (offset, offset + steps[at].scratch_bytes)
        for index, (first, last) in alive.items():
            if first <= at <= last:
                assert not overlap(
                    own, (placed.offsets[index], placed.offsets[index] + graph.tensors[index].size_bytes)
                )


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_everything_lies_aligned_inside_the_arena(case: tuple[Graph, list[Step]]) -> None:
    graph, steps = case
    placed = plan(graph, steps, {})
    ends = [offset + graph.tensors[index].size_bytes for index, offset in placed.offsets.items()]
    ends += [offset + steps[at].scratch_bytes for at, offset in placed.scratch.items()]
    assert max(ends) <= placed.size
    assert all(offset % ALIGNMENT == 0 for offset in (*placed.offsets.values(), *placed.scratch.values()))


def chain_of(sizes: list[int], in_place: int | None) -> Plan:
    tensors = tuple(Tensor(at, f"t{at}", (size,), "int8", (1.0,), (0,)) for at, size in enumerate(sizes))
    steps = [step(at, (at,), (at + 1,), scratch=0, in_place=in_place) for at in range(len(sizes) - 1)]
    ops = tuple(Op(one.op, "ADD", one.inputs, one.outputs) for one in steps)
    return plan(Graph(tensors, ops, (0,), (len(sizes) - 1,)), steps, {})


def test_a_chain_needs_two_neighbours_and_in_place_one() -> None:
    sizes = [64, 128, 256, 256, 64]
    assert chain_of(sizes, None).size == chain_of(sizes, None).live == 512
    assert chain_of([256, 256, 128, 64], 0).size == 256


def test_an_input_that_is_read_again_is_not_overwritten() -> None:
    tensors = tuple(Tensor(at, f"t{at}", (64,), "int8", (1.0,), (0,)) for at in range(4))
    steps = [
        step(0, (0,), (1,), scratch=0, in_place=0),
        step(1, (1,), (2,), scratch=0, in_place=0),
        step(2, (2, 0), (3,), scratch=0, in_place=1),
    ]
    ops = tuple(Op(one.op, "ADD", one.inputs, one.outputs) for one in steps)
    placed = plan(Graph(tensors, ops, (0,), (3,)), steps, {})
    assert placed.offsets[1] != placed.offsets[0]
    assert placed.offsets[2] == placed.offsets[1]
    assert placed.offsets[3] == placed.offsets[0]


def test_aliases_of_aliases_lead_to_the_tensor_that_holds_the_bytes() -> None:
    assert follow([Alias(2, 1), Alias(3, 2), Alias(5, 4)]) == {2: 1, 3: 1, 5: 4}
