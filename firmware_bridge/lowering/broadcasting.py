"""Which elements of two operands meet: axes merged until a kernel needs few loops."""

from __future__ import annotations

import dataclasses
import math

Shape = tuple[int, ...]

MOST_ROWS = 3
"""Axes beside the row that `emb_operands_t` holds."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """A run of axes along which each operand steps, or is broadcast, all the way.

    Attributes:
        length: elements of the output.
        first, second: elements of the operand from one to the next; 0 where it is broadcast.
    """

    length: int
    first: int
    second: int


def broadcast(first: Shape, second: Shape, output: Shape) -> tuple[Axis, ...] | None:
    """The axes of the output, the slowest first, without those of length one; at least one.

    None where the operands do not give this output.
    """
    rank = len(output)
    if max(len(first), len(second)) != rank:
        return None
    padded = [(1,) * (rank - len(shape)) + shape for shape in (first, second)]
    runs: list[tuple[int, bool, bool]] = []
    for length, a, b in zip(output, *padded, strict=True):
        if a not in (1, length) or b not in (1, length) or length != max(a, b):
            return None
        if length == 1:
            continue
        steps = (a != 1, b != 1)
        if runs and runs[-1][1:] == steps:
            runs[-1] = (runs[-1][0] * length, *steps)
        else:
            runs.append((length, *steps))
    axes = []
    for at, (length, *steps) in enumerate(runs or [(1, True, True)]):
        behind = [math.prod(run[0] for run in runs[at + 1 :] if run[1 + operand]) for operand in (0, 1)]
        axes.append(Axis(length, behind[0] * steps[0], behind[1] * steps[1]))
    return tuple(axes)
