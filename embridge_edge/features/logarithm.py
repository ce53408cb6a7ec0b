"""Natural logarithm and exponential of float32 without a call or a branch, for scalars and for eight lanes at once.

`math.log` in a compiled loop is a call per number, which keeps the loop from being vectorised. These are polynomials on the
bits of the number: some twenty-five instructions, for one number or for eight, and the same bits either way.

* With x = 2^k · m, √½ ≤ m < √2 and s = (m − 1) / (m + 1): log x = k · log 2 + 2 (s + s³/3 + s⁵/5 + …), and |s| < 0.172, so that
  five terms leave 3·10⁻⁹ (Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, 4.1.27).
* With x = n · log 2 + r, |r| ≤ ½ log 2: exp x = 2^n · (1 + r + r²/2 + … + r⁷/7!), which leaves 6·10⁻⁹ (the same, 4.2.1).

Both are within 1 unit in the last place or little more of the true value; the tests hold them to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.typing import signature
from numba.extending import intrinsic

from embridge_edge.compiled import compiled
from embridge_edge.features.lanes import WIDTH, call_math, float32s

_LOG2_HIGH = 0.693145751953125
"""log 2 to 16 bits: its product with an exponent is exact in float32."""
_LOG2_LOW = math.log(2.0) - _LOG2_HIGH
_LOWEST, _HIGHEST = -87.33, 88.72
"""Where exp x is the smallest normal float32, and the largest."""
_LOWEST_NORMAL = 2.0**-126
_ROOT_HALF_BITS = 0x3F3504F3
_ONE_BITS = 0x3F800000


class _Numbers:
    """Constants in the type of a value: a float, or eight."""

    def __init__(self, value: Any) -> None:
        self.width = WIDTH if isinstance(value.type, ir.VectorType) else 0
        self.real = value.type
        self.whole = ir.VectorType(ir.IntType(32), WIDTH) if self.width else ir.IntType(32)

    def __call__(self, number: float) -> Any:
        # A literal must be a float32 number already.
        exact = float(np.float32(number))
        return ir.Constant(self.real, [exact] * self.width if self.width else exact)

    def integer(self, number: int) -> Any:
        return ir.Constant(self.whole, [number] * self.width if self.width else number)


def horner(builder: Any, constant: Callable[[float], Any], x: Any, coefficients: Sequence[float]) -> Any:
    """A polynomial in x, the highest power's coefficient first; `constant` puts a number into x's type."""
    value = constant(coefficients[0])
    for coefficient in coefficients[1:]:
        value = builder.fadd(builder.fmul(value, x), constant(coefficient))
    return value


@intrinsic
def log32(typing: Any, x: Any) -> Any:
    """Natural logarithm of a float32 or of float32 lanes; −inf at 0, NaN below, inf at inf, also for subnormal numbers."""
    if x != float32s and x != types.float32:
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (x,) = args
        number = _Numbers(x)
        small = builder.fcmp_ordered("<", x, number(_LOWEST_NORMAL))
        normal = builder.select(small, builder.fmul(x, number(2.0**24)), x)
        lifted = builder.add(builder.bitcast(normal, number.whole), number.integer(_ONE_BITS - _ROOT_HALF_BITS))
        exponent = builder.sub(
            builder.ashr(lifted, number.integer(23)),
            builder.select(small, number.integer(127 + 24), number.integer(127)),
        )
        mantissa = builder.add(builder.and_(lifted, number.integer(0x007FFFFF)), number.integer(_ROOT_HALF_BITS))
        f = builder.fsub(builder.bitcast(mantissa, number.real), number(1.0))
        s = builder.fdiv(f, builder.fadd(f, number(2.0)))
        z = builder.fmul(s, s)
        series = builder.fmul(z, horner(builder, number, z, (2 / 9, 2 / 7, 2 / 5, 2 / 3)))
        # 2 s = f − s f, written so that the largest term, f, is added last and unrounded.
        half = builder.fmul(builder.fmul(f, f), number(0.5))
        k = builder.sitofp(exponent, number.real)
        low = builder.fadd(builder.fmul(s, builder.fadd(half, series)), builder.fmul(k, number(_LOG2_LOW)))
        result = builder.fsub(builder.fmul(k, number(_LOG2_HIGH)), builder.fsub(builder.fsub(half, low), f))
        edge = builder.select(builder.fcmp_ordered("==", x, number(0.0)), number(-math.inf), number(math.nan))
        result = builder.select(builder.fcmp_ordered(">", x, number(0.0)), result, edge)
        return builder.select(builder.fcmp_ordered("==", x, number(math.inf)), x, result)

    return signature(x, x), lower


def _exponential(builder: Any, number: _Numbers, x: Any) -> tuple[Any, Any]:
    """exp(r) and n with x = n · log 2 + r, |r| ≤ ½ log 2."""
    n = call_math(builder, "llvm.rint", builder.fmul(x, number(1.0 / math.log(2.0))))
    r = builder.fsub(builder.fsub(x, builder.fmul(n, number(_LOG2_HIGH))), builder.fmul(n, number(_LOG2_LOW)))
    factors = tuple(1.0 / math.factorial(power) for power in range(7, -1, -1))
    return horner(builder, number, r, factors), builder.fptosi(n, number.whole)


def _power_of_two(builder: Any, number: _Numbers, exponent: Any) -> Any:
    bits = builder.shl(builder.add(exponent, number.integer(127)), number.integer(23))
    return builder.bitcast(bits, number.real)


@intrinsic
def exp32(typing: Any, x: Any) -> Any:
    """Exponential of a float32 or of float32 lanes; 0 below −87.3, where the result would be subnormal."""
    if x != float32s and x != types.float32:
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (x,) = args
        number = _Numbers(x)
        above = builder.fcmp_ordered(">", x, number(_LOWEST))
        held = builder.select(above, x, number(_LOWEST))
        held = builder.select(builder.fcmp_ordered("<", held, number(_HIGHEST)), held, number(_HIGHEST))
        series, whole = _exponential(builder, number, held)
        # 2^n in two factors: n is 128 just below the largest number, which no single float32 power of two reaches.
        half = builder.ashr(whole, number.integer(1))
        for part in (half, builder.sub(whole, half)):
            series = builder.fmul(series, _power_of_two(builder, number, part))
        series = builder.select(above, series, number(0.0))
        series = builder.select(builder.fcmp_ordered(">", x, number(_HIGHEST)), number(math.inf), series)
        return builder.select(builder.fcmp_unordered("uno", x, x), x, series)

    return signature(x, x), lower


@intrinsic
def decay32(typing: Any, x: Any) -> Any:
    """Exponential of a float32 or of float32 lanes that are at most 0: two thirds of the instructions of `exp32`.

    Below −87.3 it stays at 1.2e-38; of NaN it is that, too.
    """
    if x != float32s and x != types.float32:
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (x,) = args
        number = _Numbers(x)
        held = builder.select(builder.fcmp_ordered(">", x, number(_LOWEST)), x, number(_LOWEST))
        series, whole = _exponential(builder, number, held)
        return builder.fmul(series, _power_of_two(builder, number, whole))

    return signature(x, x), lower


@compiled("void(float32[::1], float32[::1])")
def log_into(x, out):  # type: ignore[no-untyped-def]
    """Natural logarithms of float32 `x` into `out`, both flat and of one length; they may be the same array."""
    for index in range(len(x)):
        out[index] = log32(x[index])
