"""Tables of functions as C++ computes them: in float or double, by this machine's C library, which the oracles call as well.

Another C library may differ in the last bit of a function, and then, seldom, in one step of an entry; so do the oracles there.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.floating[Any]]
Function = Callable[[Reals], Reals]

STEPS = 512
"""Straight lines in TFLite's table of a function of an int16."""


@functools.cache
def c_function(name: str) -> Function:
    """A function of one float (`expf`) or double (`exp`), applied to each element."""
    function = getattr(ctypes.CDLL(None), name)
    single = name.endswith("f")
    kind = ctypes.c_float if single else ctypes.c_double
    function.argtypes, function.restype = [kind], kind
    dtype: type[np.float32] | type[np.float64] = np.float32 if single else np.float64

    def apply(values: Reals) -> Reals:
        given = values.astype(dtype)
        found: Reals = np.array([function(float(value)) for value in given.reshape(-1)], dtype)
        return found.reshape(given.shape)

    return apply


def round_half_away(values: Reals) -> Reals:
    """std::round."""
    whole = np.trunc(values)
    return np.where(np.abs(values - whole) >= 0.5, whole + np.sign(values), whole).astype(values.dtype)


def interpolation_points(
    function: Function, scale: float, zero: int, out_scale: float, kind: type[np.float32] | type[np.float64]
) -> Reals:
    """LUTPopulateInt16: outputs at each 128th int16 and behind the last one, `[513]`, whole, not yet clamped.

    Each point is moved by half of what the straight line to the next one misses in the middle. Outputs have the zero point 0.

    Args:
        scale, zero: of the input.
        kind: what everything is computed in.
    """
    real: Any = kind
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        least, most = real(scale) * real(-32768 - zero), real(scale) * real(32767 - zero)
        step = (most - least) / real(STEPS)
        inverse = real(65536) / (real(out_scale) * real(32767) - real(out_scale) * real(-32768))
        at: Reals = np.arange(STEPS).astype(kind)
        value = function(least + at * step)
        middle = function(least + at * step + step / real(2))
        following = function(least + (at + real(1)) * step)
        sample = round_half_away(value * inverse)
        line = round_half_away((following * inverse + sample) / real(2))
        bias = round_half_away((line - round_half_away(middle * inverse)) / real(2))
        last = round_half_away(function(np.atleast_1d(most)) * inverse)
        return np.append(sample - bias, last)
