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
    dtype = np.float32 if single else np.float64

    def apply(values: Reals) -> Reals:
        flat = [function(float(value)) for value in np.asarray(values, dtype).reshape(-1)]
        return np.array(flat, dtype).reshape(np.shape(values))

    return apply


def round_half_away(values: Reals) -> Reals:
    """std::round."""
    whole = np.trunc(values)
    return np.where(np.abs(values - whole) >= 0.5, whole + np.sign(values), whole).astype(values.dtype)


def interpolation_points(function: Function, in_scale: Reals, in_zero: int, out_scale: Reals) -> Reals:
    """LUTPopulateInt16: outputs at each 128th int16 and behind the last one, `[513]`, whole, not yet clamped.

    Each point is moved by half of what the straight line to the next one misses in the middle. Outputs have the zero point 0.

    Args:
        in_scale, out_scale: of the type that everything is computed in, float32 or float64.
    """
    kind = in_scale.dtype.type
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        least, most = in_scale * kind(-32768 - in_zero), in_scale * kind(32767 - in_zero)
        step = (most - least) / kind(STEPS)
        inverse = kind(65536) / (out_scale * kind(32767) - out_scale * kind(-32768))
        at = np.arange(STEPS, dtype=kind)
        value = function(least + at * step)
        middle = function(least + at * step + step / kind(2))
        following = function(least + (at + kind(1)) * step)
        sample = round_half_away(value * inverse)
        line = round_half_away((following * inverse + sample) / kind(2))
        bias = round_half_away((line - round_half_away(middle * inverse)) / kind(2))
        last = round_half_away(function(np.atleast_1d(most)) * inverse)
        return np.append(sample - bias, last)
