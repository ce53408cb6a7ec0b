"""Which elements of a tensor an op reads or writes, as steps along axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class View:
    """Elements of a tensor that lie at constant steps along each axis.

    Attributes:
        first: position of the first element.
        lengths: elements along each axis.
        steps: positions from one element to the next along each axis.
    """

    first: int
    lengths: tuple[int, ...]
    steps: tuple[int, ...]

    @classmethod
    def of(cls, shape: Sequence[int]) -> View:
        """A whole tensor, the last axis the fastest."""
        steps = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return cls(0, tuple(shape), steps)

    def part(self, axis: int, first: int, count: int, step: int = 1) -> View:
        """Only so many elements of one axis, from `first` in steps of `step`."""
        lengths = (*self.lengths[:axis], count, *self.lengths[axis + 1 :])
        steps = (*self.steps[:axis], self.steps[axis] * step, *self.steps[axis + 1 :])
        return View(self.first + first * self.steps[axis], lengths, steps)

    def order(self, axes: Sequence[int]) -> View:
        """The axes in another order; an axis that is not named is dropped at its first element."""
        return View(self.first, tuple(self.lengths[i] for i in axes), tuple(self.steps[i] for i in axes))

    def split(self, axis: int, inner: int) -> View:
        """One axis as two, the second of length `inner`, which divides the axis."""
        lengths = (*self.lengths[:axis], self.lengths[axis] // inner, inner, *self.lengths[axis + 1 :])
        steps = (*self.steps[:axis], self.steps[axis] * inner, self.steps[axis], *self.steps[axis + 1 :])
        return View(self.first, lengths, steps)
