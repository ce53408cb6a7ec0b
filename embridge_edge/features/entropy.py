"""Sample entropy and fuzzy entropy: how rarely two stretches that are alike stay so for one more sample.

Both compare each pattern of a row with each other one: the cost grows with the square of the window's length.
A NaN or an infinity in a row makes its values NaN.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features.rows import Rows
from embridge_edge.features.scratch import scratch
from embridge_edge.machine_code import kernel

Samples = npt.NDArray[np.float32]

NAMES = ("SAMPEN", "FUZZYEN")
LEAST = {"SAMPEN": 4, "FUZZYEN": 5}
"""Samples that a window must have with a dimension of 2; one more for each more (see `least_of`)."""

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_sample = kernel(
    "embridge_edge.features.entropy_lanes:sample",
    "void(float32[::1], int64[::1], int64, int64, float32, float32[::1], float32[:, ::1])",
    **_OPTIONS,
)
_fuzzy = kernel(
    "embridge_edge.features.entropy_lanes:fuzzy",
    "void(float32[::1], int64[::1], int64, int64, float32, int64, float32, float32[::1], float32[:, ::1])",
    **_OPTIONS,
)


def least_of(name: str, options: Mapping[str, Any] | None = None) -> int:
    """Samples that a window must have for SAMPEN or FUZZYEN with these options."""
    return LEAST[name] - 2 + int((options or {}).get(f"{name}_dim", 2))


def entropy(
    rows: Rows, names: Collection[str], options: Mapping[str, Any] | None = None, compat: str | None = None
) -> dict[str, Samples]:
    """Entropies of each row, in nats.

    With patterns of m samples of a row of N, of which the first N − m are compared with all others, and ε = 2⁻⁵²:

    * SAMPEN: log((A_m + ε) / (A_{m+1} + ε)), m being SAMPEN_dim (2, at least) and A_m the mean over the patterns of the count of those
      within SAMPEN_tolerance (0.3) × the standard deviation in each sample, over N − SAMPEN_dim − 1. (Richman and Moorman,
      "Physiological time-series analysis using approximate entropy and sample entropy", American Journal of Physiology 278(6), 2000.)
      Where nothing matches m + 1 times, ε keeps it finite, about 30.
    * FUZZYEN: the same ratio of the mean of exp(−d^w / (r σ)) over all pairs of patterns, d being the largest difference between the
      patterns after their means are taken off, w FUZZYEN_win (2), r FUZZYEN_tolerance (0.3), σ the standard deviation. (Chen, Wang,
      Xie and Yu, "Characterization of surface EMG signal based on fuzzy entropy", IEEE TNSRE 15(2), 2007.) As in LibEMG d is not
      divided by σ: with w above 1 the value depends on the unit. A pattern is not compared with itself; LibEMG does so and takes
      off 1, which rounds away likenesses below 1e-16.

    Of equal samples both are 0; FUZZYEN is NaN with compat="libemg".

    Returns: float32 `[rows, 1]` for each name.

    Raises:
        EdgeError: windows shorter than `least_of`.
    """
    given = options or {}
    found: dict[str, Samples] = {}
    for name in names:
        least = least_of(name, options)
        if rows.length < least:
            raise EdgeError(f"{name} needs windows of {least} samples, not {rows.length}; lengthen the window.")
        out = np.empty((len(rows.offsets), 1), np.float32)
        dimension = int(given.get(f"{name}_dim", 2))
        tolerance = float(given.get(f"{name}_tolerance", 0.3))
        if name == "SAMPEN":
            work = scratch(8 * rows.length)
            _sample(rows.base, rows.offsets, rows.length, dimension, tolerance, work, out)
        else:
            power = int(given.get("FUZZYEN_win", 2))
            undefined = np.nan if compat == "libemg" else 0.0
            work = scratch(8 * 4 * rows.length)
            _fuzzy(rows.base, rows.offsets, rows.length, dimension, tolerance, power, undefined, work, out)
        found[name] = out
    return found
