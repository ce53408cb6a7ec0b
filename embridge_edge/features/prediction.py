"""Linear prediction: coefficients of an autoregressive model by Burg's method, and its cepstrum.

The model is x[t] + a_1 x[t−1] + … + a_p x[t−p] = e[t]; the sign of a is LibEMG's. Errors are filtered in float32, powers and
coefficients are float64, so that windows of three times the order or more give what float64 gives within 1e-4.

A NaN or an infinity in a row makes every value of that row NaN.
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

NAMES = ("AR", "AR9", "CC")
LEAST = {"AR": 5, "AR9": 10, "CC": 5}
"""Samples that a window must have with orders of 4: one more than the order (see `order_of`)."""

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_burg = kernel(
    "embridge_edge.features.prediction_lanes:burg",
    "void(float32[::1], int64[::1], int64, int64, boolean, boolean, float32[::1], float64[::1], float32[:, ::1])",
    **_OPTIONS,
)


def order_of(name: str, options: Mapping[str, Any] | None = None) -> int:
    """Columns of AR, AR9 or CC: AR_order and CC_order (4), and 9."""
    return 9 if name == "AR9" else int((options or {}).get(f"{name}_order", 4))


def prediction(
    rows: Rows, names: Collection[str], options: Mapping[str, Any] | None = None, compat: str | None = None
) -> dict[str, Samples]:
    """Coefficients of linear prediction.

    * AR: a_1 to a_p by Burg's method, p being AR_order; without unit. (Burg, "Maximum entropy spectral analysis", PhD thesis,
      Stanford, 1975; in the form of Marple, "A new autoregressive spectrum analysis algorithm", IEEE TASSP 28(4), 1980.)
    * AR9: AR with order 9, which LibEMG leaves out of its group COMB without a word.
    * CC: cepstrum of 1 / (1 + a_1 z⁻¹ + …), c_n = −a_n − Σ_{k=1}^{n−1} (1 − k/n) a_k c_{n−k}, up to CC_order. (Makhoul, "Linear
      prediction: a tutorial review", Proceedings of the IEEE 63(4), 1975, equations 59 and 60.) LibEMG's recursion, which
      compat="libemg" keeps, multiplies by a_n where that one has a_k, leaves c_1 out of the sum, counts n from 0 in the factor,
      and gives 0 for c_2 where the order is 2: only c_1 and, for higher orders, c_2 to third differ from the true ones by little.

    Once the residual's power falls below 1e-10 of the signal's, which is rounding in float32, the further reflection coefficients
    are 0: a silent row has all 0, a constant one a_1 = −1 and 0 beyond.

    Returns: float32 `[rows, order]` for each name.

    Raises:
        EdgeError: a window that is not longer than the order.
    """
    found: dict[str, Samples] = {}
    runs: dict[int, list[str]] = {}
    for name in names:
        runs.setdefault(order_of(name, options), []).append(name)
    for order, wanted in runs.items():
        if rows.length <= order:
            raise EdgeError(
                f"{wanted[0]} of order {order} needs windows of {order + 1} samples, not {rows.length}; "
                "lengthen the window or lower the order."
            )
        cepstral = "CC" in wanted
        out = np.empty((len(rows.offsets), order * (2 if cepstral else 1)), np.float32)
        work = scratch(8 * 2 * rows.length)
        coefficients = scratch(8 * 2 * order, np.float64)
        theirs = compat == "libemg"
        _burg(rows.base, rows.offsets, rows.length, order, cepstral, theirs, work, coefficients, out)
        for name in wanted:
            found[name] = out[:, order:] if name == "CC" else out[:, :order]
    return found
