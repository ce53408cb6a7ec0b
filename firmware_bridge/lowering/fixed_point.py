"""The fixed-point functions that TensorFlow Lite's integer kernels are made of, on whole arrays, for tables computed ahead.

Qi.f is a number with i bits above the point and f below, in 32 bits. The definitions are those of gemmlowp's fixedpoint.h and of
TFLite's common.h. Arrays are int64 and hold what the references keep in int32.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

INT32_MAX = 2**31 - 1


def ints(values: npt.ArrayLike) -> Ints:
    """The values as the arrays that these functions take."""
    return np.asarray(values, np.int64)


def doubling_high_multiply(a: npt.ArrayLike, b: npt.ArrayLike) -> Ints:
    """SaturatingRoundingDoublingHighMul: a × b / 2³¹, halves up."""
    return ints(np.minimum((ints(a) * ints(b) + 2**30) >> 31, INT32_MAX))


def divide_by_power(values: npt.ArrayLike, exponent: npt.ArrayLike) -> Ints:
    """RoundingDivideByPOT: values / 2^exponent, halves away from zero."""
    wide, power = ints(values), ints(exponent)
    half = np.where(power > 0, ints(1) << np.maximum(power - 1, 0), 0)
    return ints(np.sign(wide) * ((np.abs(wide) + half) >> power))


def scale(values: npt.ArrayLike, multiplier: npt.ArrayLike, shift: npt.ArrayLike) -> Ints:
    """MultiplyByQuantizedMultiplier: values × multiplier × 2^(shift − 31), rounded twice."""
    shifted = ints(values) << np.maximum(ints(shift), 0)
    return divide_by_power(doubling_high_multiply(shifted, multiplier), np.maximum(-ints(shift), 0))


def shift_left(values: npt.ArrayLike, exponent: int) -> Ints:
    """SaturatingRoundingMultiplyByPOT to the left."""
    return ints(np.clip(ints(values) << exponent, -(2**31), INT32_MAX))


def exponential(values: Ints, integer_bits: int) -> Ints:
    """exp of Q`integer_bits` numbers that are not positive, in Q0.31."""
    fraction = 31 - integer_bits
    quarter = 1 << (fraction - 2)
    in_quarter = (values & (quarter - 1)) - quarter
    x = shift_left(in_quarter, integer_bits) + 2**28
    x2 = doubling_high_multiply(x, x)
    x3 = doubling_high_multiply(x2, x)
    x4 = doubling_high_multiply(x2, x2)
    third, at_eighth = round(2**31 / 3), round(2**31 * math.exp(-1 / 8))
    upper = divide_by_power(doubling_high_multiply(divide_by_power(x4, 2) + x3, third) + x2, 1)
    result = at_eighth + doubling_high_multiply(at_eighth, x + upper)
    rest = in_quarter - values
    for exponent in range(-2, integer_bits):
        factor = round(2**31 * math.exp(-(2.0**exponent)))
        result = np.where(rest & (1 << (fraction + exponent)), doubling_high_multiply(result, factor), result)
    return np.where(values == 0, INT32_MAX, result)


def _newton(a: Ints) -> Ints:
    """2 / (1 + a) in Q2.29, a in Q0.31 between 0 and 1."""
    half = (a + 2**31) >> 1
    x = round(2**29 * 48 / 17) + doubling_high_multiply(half, -round(2**29 * 32 / 17))
    for _ in range(3):
        x = x + shift_left(doubling_high_multiply(x, 2**29 - doubling_high_multiply(half, x)), 2)
    return x


def logistic(values: Ints, integer_bits: int) -> Ints:
    """1 / (1 + exp(−x)) of Q`integer_bits` numbers, in Q0.31."""
    positive = shift_left(_newton(exponential(-np.abs(values), integer_bits)), 1)
    return np.where(values == 0, 2**30, np.where(values > 0, positive, INT32_MAX - positive))


def tanh(values: Ints, integer_bits: int) -> Ints:
    """Hyperbolic tangent of Q`integer_bits` numbers, in Q0.31."""
    a = exponential(-np.abs(values), integer_bits + 1)  # The same bits with one more above the point: twice the number.
    return np.sign(values) * shift_left(_newton(a) - 2**29, 2)


def inverse_square_root(values: Ints) -> tuple[Ints, Ints]:
    """GetInvSqrtQuantizedMultiplierExp: 1 / √value as (multipliers, shifts), for whole numbers from 1 to 2¹⁶."""
    bits = np.frexp(values)[1].astype(np.int64)
    pairs = (31 - bits) // 2 - 1
    given = (values << (2 * pairs)) >> 1  # Q3.28
    half = divide_by_power(given, 1)
    x = np.full_like(values, 1 << 28)
    for _ in range(5):
        cube = shift_left(doubling_high_multiply(doubling_high_multiply(x, x), x), 6)
        x = shift_left(doubling_high_multiply(3 << 27, x) - doubling_high_multiply(half, cube), 3)
    multipliers = doubling_high_multiply(x, round(2**31 * math.sqrt(0.5)))
    one = values == 1
    return np.where(one, INT32_MAX, multipliers), np.where(one, 0, pairs - 11)


def input_radius(integer_bits: int, shift: int) -> int:
    """CalculateInputRadius: inputs this far from the zero point are beyond what a Q`integer_bits` number holds."""
    return math.floor(((1 << integer_bits) - 1) * 2.0 ** (31 - integer_bits - shift))
