"""How far a converted model may be from what it was made from."""

from __future__ import annotations

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
