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
    for at, run in enumerate(runs or [(1, True, True)]):
        first_behind = math.prod(later[0] for later in runs[at + 1 :] if later[1])
        second_behind = math.prod(later[0] for later in runs[at + 1 :] if later[2])
        axes.append(Axis(run[0], first_behind * run[1], second_behind * run[2]))
    return tuple(axes)
