"""Hudgins' time-domain features and their relatives, one pass over each window.

Hudgins, Parker and Scott, "A new strategy for multifunction myoelectric control", IEEE TBME 40(1), 1993: MAV, WL, ZC
and SSC; RMS as in Phinyomark et al., Expert Systems with Applications 39(8), 2012. LOG variants are natural logarithms, floored
at `LOG_FLOOR` so that a silent channel stays finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from embridge_edge.errors import EdgeError

_BASE = ("MAV", "RMS", "WL", "ZC", "SSC")
_LOGGED = ("LOGMAV", "LOGRMS", "LOGWL")
FEATURES = _BASE + _LOGGED
TIME_DOMAIN = ("LOGMAV", "LOGRMS", "LOGWL", "ZC", "SSC")
"""The five time-domain features that the LDA baseline uses."""

LOG_FLOOR = np.float32(1e-9)

Windows = npt.NDArray[np.float32]


def check_names(names: Sequence[str]) -> None:
    """Refuse a feature name that does not exist.

    Raises:
        EdgeError: names the unknown one and lists what there is.
    """
    for name in names:
        if name not in FEATURES:
            raise EdgeError(f"Unknown feature {name!r}; choose from {', '.join(FEATURES)}.")


def extract(windows: Windows, names: Sequence[str], threshold: float = 0.0) -> Windows:
    """Features of each window and channel.

    * MAV: mean |x|, unit of x. RMS: root mean square, unit of x. WL: sum |x[i] − x[i−1]|, unit of x.
    * ZC: count of i where x[i−1] and x[i] differ in sign and by more than `threshold`.
    * SSC: count of i where the slope changes sign and one of both slopes is steeper than `threshold`.
    * LOGMAV, LOGRMS, LOGWL: natural logarithm of the above.

    Args:
        windows: float32 `[n, samples, channels]`.
        names: from FEATURES.
        threshold: in the unit of x; 0 counts every strict change.

    Returns: float32 `[n, channels × names]`, channel by channel, in the order of `names` within a channel.
    """
    check_names(names)
    if windows.ndim != 3 or windows.shape[1] < 3:
        raise EdgeError(f"Features need windows [n, samples ≥ 3, channels], not {list(windows.shape)}.")
    columns = np.array([_BASE.index(name.removeprefix("LOG")) for name in names], np.int64)
    logged = np.array([name in _LOGGED for name in names], np.bool_)
    out: Windows = _extract(windows, columns, logged, np.float32(threshold), LOG_FLOOR)
    return out


@njit(cache=True, nogil=True)
def _extract(windows, columns, logged, threshold, floor):  # type: ignore[no-untyped-def]
    count, samples, channels = windows.shape
    wanted = columns.shape[0]
    out = np.empty((count, channels * wanted), np.float32)
    base = np.empty(5, np.float32)
    for index in range(count):
        for channel in range(channels):
            total = 0.0
            square = 0.0
            length = 0.0
            crossings = 0
            turns = 0
            before = windows[index, 0, channel]
            slope = np.float32(0.0)
            total += abs(before)
            square += np.float64(before) * before
            for sample in range(1, samples):
                value = windows[index, sample, channel]
                step = value - before
                total += abs(value)
                square += np.float64(value) * value
                length += abs(step)
                if ((before > 0) != (value > 0)) and abs(step) > threshold:
                    crossings += 1
                if sample > 1 and slope * step < 0 and (abs(slope) > threshold or abs(step) > threshold):
                    turns += 1
                before = value
                slope = step
            base[0] = total / samples
            base[1] = np.sqrt(square / samples)
            base[2] = length
            base[3] = crossings
            base[4] = turns
            for column in range(wanted):
                value = base[columns[column]]
                out[index, channel * wanted + column] = np.log(max(value, floor)) if logged[column] else value
    return out
