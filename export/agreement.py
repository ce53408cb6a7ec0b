"""How far a converted model may be from what it was made from, and which tensors of two graphs hold the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

LARGEST_CONVERSION_ERROR = 1e-4
"""Of one library's float kernels against another's: a student of four convolutions differs by 1e-6 of the largest output."""


def conversion_error(expected: Floats, actual: Floats) -> float:
    """The largest difference as a share of the largest output; infinite where shapes differ, NaN where something is."""
    if actual.shape != expected.shape:
        return float("inf")
    return float(np.abs(actual - expected).max()) / (float(np.abs(expected).max()) or 1.0)


SAME_VALUES = 1e-4
"""Of two tensors, as a share of the largest value."""


def in_order(values: npt.NDArray[Any]) -> Floats:
    """Every window's values in order of size, `[n, values]`: equal for a tensor and whatever only moves it."""
    return np.sort(np.asarray(values, np.float32).reshape(len(values), -1), axis=1)


def alike(one: Floats, other: Floats) -> bool:
    """Whether two tensors in order (`in_order`) hold the same values."""
    largest = float(np.abs(one).max(initial=0)) or 1.0
    return one.shape == other.shape and float(np.abs(one - other).max(initial=0)) <= SAME_VALUES * largest
