"""Features of the sorted samples."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features.rows import Rows
from embridge_edge.features.scratch import scratch
from embridge_edge.machine_code import kernel

Samples = npt.NDArray[np.float32]

NAMES = ("LS",)
LEAST = {"LS": 2}

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_scale = kernel(
    "embridge_edge.features.ranks_lanes:scale",
    "void(float32[::1], int64[::1], int64, float32[::1], float32[:, ::1])",
    **_OPTIONS,
)


def ranks(rows: Rows, names: Collection[str]) -> dict[str, Samples]:
    """LS, the L-score: the second L-moment of the samples, half the mean difference of two of them; in the unit of x.

    λ₂ = 1/N Σ_i (2 i / (N − 1) − 1) x_(i), x_(0) ≤ … ≤ x_(N−1); the unbiased estimate. (Hosking, "L-moments: analysis and estimation
    of distributions using linear combinations of order statistics", Journal of the Royal Statistical Society B 52(1), 1990;
    Phinyomark, Quaine, Charbonnier, Serviere, Tarpin-Bernard and Laurillau, "EMG feature evaluation for improving myoelectric pattern
    recognition robustness", Expert Systems with Applications 40(12), 2013.) The same with compat="libemg".

    A NaN or an infinity in a row makes its value NaN.

    Returns: float32 `[rows, 1]`.

    Raises:
        EdgeError: windows of one sample.
    """
    if "LS" not in names:
        return {}
    if rows.length < LEAST["LS"]:
        raise EdgeError(f"LS needs windows of {LEAST['LS']} samples, not {rows.length}; lengthen the window.")
    out = np.empty((len(rows.offsets), 1), np.float32)
    _scale(rows.base, rows.offsets, rows.length, scratch(8 * rows.length), out)
    return {"LS": out}
