"""The largest student within a budget of flash, RAM and multiply-accumulates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from embridge_edge.errors import EdgeError
from embridge_edge.model.student import Block, StudentShape, convolution_plan
from embridge_edge.recipe import StudentBudget

WIDTHS = (*range(8, 64, 4), *range(64, 129, 8), *range(144, 257, 16))
"""Widths that are tried: int8 kernels take four channels at a time, and past 64 finer steps make no other network."""

DEPTHS = range(2, 7)
KERNEL = 5
LAST_KERNELS = 3
NEARLY = 0.9
STEPS_LEFT = (4, 8, 16)
"""Down to how many time steps the first blocks halve the window: fewer leave operations for more weights."""
BYTES_PER_CHANNEL = 9
"""Beside its weights an output channel has a bias of four bytes, a multiplier of four and a shift of one."""


@dataclass(frozen=True)
class StudentCost:
    """What a student takes in int8."""

    flash_bytes: int
    ram_bytes: int
    macs: int

    def over(self, budget: StudentBudget) -> tuple[str, ...]:
        """Which limits it exceeds."""
        limits = {name: getattr(budget, name) for name in ("flash_bytes", "ram_bytes", "macs")}
        return tuple(name for name, limit in limits.items() if limit is not None and getattr(self, name) > limit)


def cost_of(shape: StudentShape) -> StudentCost:
    """What a student takes in int8: exact for multiply-accumulates and weights; RAM is the largest input and output of a layer
    together, which a planner that computes in place stays below.
    """
    layers = convolution_plan(shape)
    outputs = sum(layer.outputs for layer in layers) + shape.embedding
    weights = shape.parameters_count - outputs
    alive = max(layer.steps_in * layer.inputs + layer.steps_out * layer.outputs for layer in layers)
    return StudentCost(weights + BYTES_PER_CHANNEL * outputs, alive, shape.macs)


def largest_student(
    steps: int, channels: int, embedding: int, budget: StudentBudget, *, queries: int = 4, block: Block = "conv"
) -> StudentShape:
    """Of the students that keep to the budget and have nearly the most parameters (`NEARLY`), the one with the most operations.

    Parameters first: on ten feature frames, the student of 63,456 parameters that is picked for 0.3 million operations was at .431, one of
    36,184 with as many operations at .417 (simulated wearers, one seed; docs/numbers.md). Then operations, because a shallow student with
    long strides meets a limit on parameters alone.

    Args:
        steps, channels: shape of the window (samples, or feature frames by columns).

    Raises:
        EdgeError: not even the smallest fits; says what it takes.
    """
    fitting: list[tuple[int, int, StudentShape]] = []
    smallest: tuple[StudentShape, StudentCost] | None = None
    for shape in _shapes(steps, channels, embedding, queries, block):
        cost = cost_of(shape)
        if smallest is None or cost.flash_bytes + cost.macs < smallest[1].flash_bytes + smallest[1].macs:
            smallest = shape, cost
        if not cost.over(budget):
            fitting.append((cost.macs, shape.parameters_count, shape))
    if fitting:
        most = max(parameters for _, parameters, _ in fitting)
        return max((one for one in fitting if one[1] >= NEARLY * most), key=lambda one: one[:2])[-1]
    if smallest is None:
        raise EdgeError(f"No student reads a window of {steps} steps; lengthen it.")
    over = smallest[1].over(budget)
    taken = " and ".join(f"{name} {getattr(smallest[1], name):,} (budget {getattr(budget, name):,})" for name in over)
    raise EdgeError(f"No student keeps to the budget: the smallest takes {taken}; raise it, or shorten the window.")


def _shapes(steps: int, channels: int, embedding: int, queries: int, block: Block) -> Iterator[StudentShape]:
    """A ladder of students: the first block half as wide as the others, short kernels where the window has been halved twice."""
    for depth, left, width in product(DEPTHS, STEPS_LEFT, WIDTHS):
        kernels = tuple(KERNEL if index < 2 else LAST_KERNELS for index in range(depth))
        widths = (max(8, width // 2), *[width] * (depth - 1))
        with contextlib.suppress(EdgeError):  # too few steps for its strides
            yield StudentShape.fitting(
                steps,
                channels,
                at_least=left,
                widths=widths,
                kernels=kernels,
                queries=queries,
                embedding=embedding,
                block=block,
            )
