"""Features of a wavelet decomposition: energy, variance, path length and entropy of each level.

Khushaba, Takruri, Miro and Kodagoda, "Towards limb position invariant myoelectric pattern recognition using time-dependent
spectral features", Neural Networks 55, 2014, take a symlet of eight vanishing moments; the filter bank is that of Mallat, "A theory
for multiresolution signal decomposition", IEEE PAMI 11(7), 1989, with rows mirrored at both ends. It is run in float32.

A NaN or an infinity in a row makes every value of that row NaN.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features.rows import Rows
from embridge_edge.features.scratch import scratch
from embridge_edge.machine_code import kernel

Samples = npt.NDArray[np.float32]

NAMES = ("WENG", "WV", "WWL", "WENT")
LEAST = {"WENG": 2, "WV": 2, "WWL": 2, "WENT": 2}

LOW = (
    -0.0033824159510061256,
    -0.0005421323317911481,
    0.03169508781149298,
    0.007607487324917605,
    -0.1432942383508097,
    -0.061273359067658524,
    0.4813596512583722,
    0.7771857517005235,
    0.3644418948353314,
    -0.05194583810770904,
    -0.027219029917056003,
    0.049137179673607506,
    0.003808752013890615,
    -0.01495225833704823,
    -0.0003029205147213668,
    0.0018899503327594609,
)
"""Low-pass filter of the symlet with eight vanishing moments (Daubechies, "Ten lectures on wavelets", 1992, table 6.3)."""

_LOW = np.array(LOW, np.float32)
_HIGH = (_LOW[::-1] * np.where(np.arange(len(LOW)) % 2 == 0, -1, 1)).astype(np.float32)
"""The other half of the bank: reversed, every second sign changed, the first one too."""

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_describe = kernel(
    "embridge_edge.features.wavelets_lanes:describe",
    "void(float32[::1], int64[::1], int64, int64, float32[::1], float32[::1], boolean, boolean, float32, float32[::1], "
    "float32[:, ::1])",
    **_OPTIONS,
)


def levels(rate_hz: float) -> int:
    """Levels of the decomposition, ⌊log2(rate / 2) − 1⌋: 5 at 200 Hz, 7 at 1 kHz, 8 at 2 kHz, whatever the window's length.

    Raises:
        EdgeError: below 8 Hz there is none.
    """
    found = math.floor(math.log2(rate_hz / 2) - 1) if rate_hz > 0 else 0
    if found < 1:
        raise EdgeError(f"At {rate_hz:g} Hz a wavelet decomposition has no level; it needs 8 Hz or more.")
    return found


def wavelet(rows: Rows, names: Collection[str], rate_hz: float, compat: str | None = None) -> dict[str, Samples]:
    """Features of the coefficients c of each level, one decomposition for all of them.

    * WENG: log(Σ c² + 1e-10), the energy.
    * WV: log(Var(c²) + 1e-10). WWL: log(Σ |c²[i] − c²[i−1]| + 1e-10). Both are of the squares, as in LibEMG.
    * WENT: −Σ p log p with p = c² / Σ c², in nats; 0 · log 0 is 0, and so is the entropy of a level without energy. With
      compat="libemg" either is NaN. Of a constant window the details are nothing but rounding, and their entropy means nothing.

    All logarithms are natural; the floor of 1e-10 is in unit² (WV: unit⁴), so that signals in volts want scaling first.

    Returns: float32 `[rows, levels + 1]` for each name: the smooth part first, then details from the coarsest level to the finest.

    Raises:
        EdgeError: windows of one sample, or a rate below 8 Hz.
    """
    for name in names:
        if rows.length < LEAST[name]:
            raise EdgeError(f"{name} needs windows of {LEAST[name]} samples, not {rows.length}; lengthen the window.")
    if not names:
        return {}
    depth = levels(rate_hz)
    columns = depth + 1
    out = np.empty((len(rows.offsets), 4 * columns), np.float32)
    work = scratch(8 * 3 * (max(rows.length, 15) + 32))
    nothing = np.nan if compat == "libemg" else 0.0
    _describe(
        rows.base, rows.offsets, rows.length, depth, _LOW, _HIGH, "WV" in names, "WENT" in names, nothing, work, out
    )
    return {name: out[:, columns * at : columns * (at + 1)] for at, name in enumerate(NAMES) if name in names}
