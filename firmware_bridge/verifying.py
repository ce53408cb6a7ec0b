"""The generated code against its oracle: every tensor, every input, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.firmware_bridge.graph import Graph, Tensor
from embridge_edge.firmware_bridge.harness import HostLibrary
from embridge_edge.firmware_bridge.lowering.site import RANGES
from embridge_edge.firmware_bridge.oracle import Oracle, oracle_for
from embridge_edge.firmware_bridge.program import Program

Values = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """A tensor that differs from the oracle's.

    Attributes:
        where: "host", or the emulated target.
        input: number of the seeded input.
        tensor: name of the tensor.
        at: flat index of the first element that differs.
        expected, found: its values there.
        count: elements that differ.
    """

    where: str
    input: int
    tensor: str
    at: int
    expected: float
    found: float
    count: int


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was compared.

    Attributes:
        inputs_checked: inputs.
        tensors_checked: tensors compared, over all inputs and places.
        fused: names of tensors that the library never writes, because a call does two ops at once.
        left_out: names of tensors that the library never writes, because no output depends on them or they are constants.
        mismatches: the first one of each input and place, in order.
    """

    inputs_checked: int
    tensors_checked: int
    fused: tuple[str, ...]
    left_out: tuple[str, ...]
    mismatches: tuple[Mismatch, ...]

    @property
    def ok(self) -> bool:
        """Whether something was compared and all of it was equal."""
        return self.tensors_checked > 0 and not self.mismatches


def seeded_inputs(graph: Graph, count: int, seed: int = 0) -> Iterator[list[Values]]:
    """Inputs for the graph: the extremes first, then smooth walks, noise around the zero point, and uniform noise."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        yield [_seeded(graph.tensors[index], number, draw) for index in graph.inputs]


def _seeded(tensor: Tensor, number: int, draw: np.random.Generator) -> Values:
    if tensor.is_float:
        return (draw.normal(size=tensor.shape) * (0.1, 1.0, 10.0)[number % 3]).astype(np.float32)
    if tensor.type not in RANGES:
        return draw.integers(0, 2, tensor.shape).astype(tensor.type)
    least, most = RANGES[tensor.type]
    kind = np.dtype(tensor.type)
    zero = tensor.zero_points[0] if tensor.zero_points else 0
    if number < 3:
        return np.full(tensor.shape, (least, most, zero)[number], kind)
    if number == 3:
        return np.where(np.arange(tensor.elements).reshape(tensor.shape) % 2, least, most).astype(kind)
    span = most - least
    if number % 3 == 0:
        return draw.integers(least, most, tensor.shape, kind, endpoint=True)
    if number % 3 == 1:
        noise = draw.normal(zero, span / draw.uniform(4, 64), tensor.shape)
    else:
        noise = zero + np.cumsum(draw.normal(0, span / 64, tensor.elements)).reshape(tensor.shape)
    return np.clip(np.rint(noise), least, most).astype(kind)


def verify_host(
    program: Program,
    content: bytes,
    inputs: Sequence[Sequence[Values]],
    *,
    flags: Sequence[str] = ("-O2",),
    oracle: Oracle | None = None,
) -> tuple[Verification, list[dict[int, Values]]]:
    """Run the library on this machine and compare each tensor.

    Returns: the comparison, and the library's tensors for each input.
    """
    expected_of = oracle or oracle_for(content, program.graph, program.profile)
    built = HostLibrary(program, flags)
    mismatches: list[Mismatch] = []
    checked = 0
    traces = []
    for number, values in enumerate(inputs):
        built.reset()
        found, expected = built.run(values), expected_of(values)
        traces.append(found)
        checked += len(found)
        first = _first_mismatch(program, number, expected, found)
        if first is not None:
            mismatches.append(first)
    fused, left_out = (
        tuple(program.tensor(index).name for index in indices) for indices in (program.fused, program.left_out)
    )
    return Verification(len(inputs), checked, fused, left_out, tuple(mismatches)), traces


def verify_board(
    program: Program,
    host: Verification,
    expected: Sequence[Mapping[int, Values]],
    found: Sequence[Mapping[int, Values]],
    where: str,
) -> Verification:
    """The comparison on this machine, with that of another place added to it.

    Args:
        expected: this machine's tensors for each input; what differs from the oracle is counted there already.
        found: the other place's.
    """
    mismatches = list(host.mismatches)
    checked = host.tensors_checked
    for number, (wanted, values) in enumerate(zip(expected, found, strict=True)):
        checked += len(values)
        first = _first_mismatch(program, number, wanted, values, where)
        if first is not None:
            mismatches.append(first)
    return dataclasses.replace(host, tensors_checked=checked, mismatches=tuple(mismatches))


def together(found: Sequence[Verification]) -> Verification:
    """The comparisons of programs that make one network together, each on as many inputs."""
    return Verification(
        inputs_checked=max(one.inputs_checked for one in found),
        tensors_checked=sum(one.tensors_checked for one in found) if all(one.tensors_checked for one in found) else 0,
        fused=tuple(name for one in found for name in one.fused),
        left_out=tuple(name for one in found for name in one.left_out),
        mismatches=tuple(mismatch for one in found for mismatch in one.mismatches),
    )


def representative_input(graph: Graph, seed: int = 0) -> list[Values]:
    """One seeded input that is neither constant nor extreme: what instructions are counted on."""
    return list(seeded_inputs(graph, 7, seed))[-1]


def _first_mismatch(
    program: Program, number: int, expected: Mapping[int, Values], found: Mapping[int, Values], where: str = "host"
) -> Mismatch | None:
    for index, values in found.items():
        wanted = expected[index].reshape(values.shape)
        different = np.flatnonzero(~_same(wanted, values))
        if len(different):
            at = int(different[0])
            want, have = float(wanted.reshape(-1)[at]), float(values.reshape(-1)[at])
            return Mismatch(where, number, program.tensor(index).name, at, want, have, len(different))
    return None


def _same(wanted: Values, found: Values) -> npt.NDArray[np.bool_]:
    """Bit for bit: a negative zero is no zero, but any NaN is as good as another."""
    if wanted.dtype.kind != "f":
        return np.asarray(wanted == found).reshape(-1)
    equal = wanted.astype(np.float32).view(np.uint32) == found.astype(np.float32).view(np.uint32)
    return np.asarray(equal | (np.isnan(wanted) & np.isnan(found))).reshape(-1)
