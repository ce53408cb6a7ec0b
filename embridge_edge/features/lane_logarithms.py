"""Natural logarithm and exponential of eight float64 at once, and the logarithm of eight ordinary float32.

The float64 ones are for the formulas at the end of a window. As in `logarithm`, with another term or two (Abramowitz and
Stegun, "Handbook of Mathematical Functions", 1964, 4.1.27 and 4.2.1): the relative error is below 10⁻¹⁰, so that a difference of
two nearly equal moments keeps what float32 can hold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from embridge_edge.features.lanes import WIDTH, call_math, float32s, float64s
from embridge_edge.features.logarithm import horner

_WHOLE = ir.VectorType(ir.IntType(64), WIDTH)
_LOG2_HIGH = 0.693147180369123816490
"""log 2 to 32 bits: its product with an exponent is exact."""
_LOG2_LOW = 1.90821492927058770002e-10
_ROOT_HALF_BITS = 0x3FE6A09E667F3BCD
_ONE_BITS = 0x3FF0000000000000
_MANTISSA = (1 << 52) - 1
_BIG_BITS = 0x4330000000000000
"""2⁵²: a whole number in the lower bits of this is that much more."""
_LEAST_NORMAL = 2.0**-1022
_ROOT_HALF_BITS_32 = 0x3F3504F3
_LOG2_HIGH_32 = 0.693359375
_LOG2_LOW_32 = -2.12194440e-4
_COEFFICIENTS = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)


def _real(value: float) -> Any:
    return ir.Constant(float64s.vector, [value] * WIDTH)


def _whole(value: int) -> Any:
    return ir.Constant(_WHOLE, [value] * WIDTH)


@intrinsic
def log64(typing: Any, x: Any) -> Any:
    """Natural logarithm of float64 lanes; −inf at 0 and for subnormal numbers, NaN below, inf at inf."""
    if x != float64s:
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (x,) = args
        lifted = builder.add(builder.bitcast(x, _WHOLE), _whole(_ONE_BITS - _ROOT_HALF_BITS))
        exponent = builder.bitcast(builder.or_(builder.lshr(lifted, _whole(52)), _whole(_BIG_BITS)), float64s.vector)
        k = builder.fsub(exponent, _real(2.0**52 + 1023))
        mantissa = builder.add(builder.and_(lifted, _whole(_MANTISSA)), _whole(_ROOT_HALF_BITS))
        f = builder.fsub(builder.bitcast(mantissa, float64s.vector), _real(1.0))
        s = builder.fdiv(f, builder.fadd(f, _real(2.0)))
        z = builder.fmul(s, s)
        series = builder.fmul(z, horner(builder, _real, z, [2.0 / power for power in range(11, 1, -2)]))
        half = builder.fmul(builder.fmul(f, f), _real(0.5))
        low = builder.fadd(builder.fmul(s, builder.fadd(half, series)), builder.fmul(k, _real(_LOG2_LOW)))
        result = builder.fsub(builder.fmul(k, _real(_LOG2_HIGH)), builder.fsub(builder.fsub(half, low), f))
        edge = builder.select(builder.fcmp_ordered(">=", x, _real(0.0)), _real(-math.inf), _real(math.nan))
        result = builder.select(builder.fcmp_ordered(">=", x, _real(_LEAST_NORMAL)), result, edge)
        return builder.select(builder.fcmp_ordered("==", x, _real(math.inf)), x, result)

    return signature(float64s, x), lower


@intrinsic
def exp64(typing: Any, x: Any) -> Any:
    """Exponential of float64 lanes; 0 below −708 and inf above 709, NaN of NaN."""
    if x != float64s:
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (x,) = args
        held = builder.select(builder.fcmp_ordered(">", x, _real(-708.0)), x, _real(-708.0))
        held = builder.select(builder.fcmp_ordered("<", held, _real(709.0)), held, _real(709.0))
        n = call_math(builder, "llvm.rint", builder.fmul(held, _real(1.0 / math.log(2.0))))
        r = builder.fsub(builder.fsub(held, builder.fmul(n, _real(_LOG2_HIGH))), builder.fmul(n, _real(_LOG2_LOW)))
        series = horner(builder, _real, r, [1.0 / math.factorial(power) for power in range(9, -1, -1)])
        lifted = builder.bitcast(builder.fadd(n, _real(2.0**52 + 1023)), _WHOLE)
        power = builder.bitcast(builder.shl(lifted, _whole(52)), float64s.vector)
        result = builder.fmul(series, power)
        result = builder.select(builder.fcmp_ordered(">=", x, _real(-708.0)), result, _real(0.0))
        result = builder.select(builder.fcmp_ordered(">", x, _real(709.0)), _real(math.inf), result)
        return builder.select(builder.fcmp_unordered("uno", x, x), x, result)

    return signature(float64s, x), lower


@intrinsic
def exponent(typing: Any, x: Any) -> Any:
    """k of positive float64 lanes x = 2^k · m, 1 ≤ m < 2, as float64 lanes; of others, any number."""
    if x != float64s:
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        shifted = builder.lshr(builder.bitcast(args[0], _WHOLE), _whole(52))
        return builder.fsub(
            builder.bitcast(builder.or_(shifted, _whole(_BIG_BITS)), float64s.vector), _real(2.0**52 + 1023)
        )

    return signature(float64s, x), lower


@intrinsic
def mantissa(typing: Any, x: Any) -> Any:
    """m of positive float64 lanes x = 2^k · m, 1 ≤ m < 2; of others, any number from 1 to below 2."""
    if x != float64s:
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kept = builder.and_(builder.bitcast(args[0], _WHOLE), _whole(_MANTISSA))
        return builder.bitcast(builder.or_(kept, _whole(_ONE_BITS)), float64s.vector)

    return signature(float64s, x), lower


@intrinsic
def log_ordinary(typing: Any, x: Any) -> Any:
    """Natural logarithm of float32 lanes that are positive and not subnormal; of others, infinities among them, any number.

    With x = 2^k · m, √½ ≤ m < √2, and f = m − 1: log x = k · log 2 + f − f²/2 + f³ · P(f), P of degree 8, without a division
    (Moshier, "Methods and Programs for Mathematical Functions", 1989: the coefficients of Cephes' logf). Within 1 unit in the last
    place.
    """
    if x != float32s:
        return None
    whole = ir.VectorType(ir.IntType(32), WIDTH)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def real(value: float) -> Any:
            return ir.Constant(float32s.vector, [float(np.float32(value))] * WIDTH)

        def integer(value: int) -> Any:
            return ir.Constant(whole, [value] * WIDTH)

        lifted = builder.sub(builder.bitcast(args[0], whole), integer(_ROOT_HALF_BITS_32))
        k = builder.sitofp(builder.ashr(lifted, integer(23)), float32s.vector)
        mantissa = builder.add(builder.and_(lifted, integer(0x007FFFFF)), integer(_ROOT_HALF_BITS_32))
        f = builder.fsub(builder.bitcast(mantissa, float32s.vector), real(1.0))
        square = builder.fmul(f, f)
        # Halves and halves of halves by themselves: one coefficient after the other would have each wait for the last.
        parts = [real(coefficient) for coefficient in reversed(_COEFFICIENTS)]
        power = f
        while len(parts) > 1:
            pairs = [builder.fadd(builder.fmul(parts[at + 1], power), parts[at]) for at in range(0, len(parts) - 1, 2)]
            parts = pairs + parts[len(pairs) * 2 :]
            power = builder.fmul(power, power)
        (series,) = parts
        low = builder.fmul(builder.fmul(square, f), series)
        low = builder.fadd(low, builder.fmul(k, real(_LOG2_LOW_32)))
        low = builder.fsub(low, builder.fmul(square, real(0.5)))
        return builder.fadd(builder.fadd(f, low), builder.fmul(k, real(_LOG2_HIGH_32)))

    return signature(float32s, x), lower
