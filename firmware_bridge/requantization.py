"""Real multipliers as whole numbers, as TFLite makes them."""

from __future__ import annotations

import math

import numpy as np

LEAST_SHIFT = -31


def multiplier_of(factor: float) -> tuple[int, int]:
    """`factor` as (multiplier, shift) with factor ≈ multiplier × 2^(shift − 31), multiplier 0 or 2³⁰ … 2³¹ − 1.

    TFLite's QuantizeMultiplier: the mantissa rounded half away from zero; below 2⁻³² the product is 0.
    """
    if factor == 0.0:
        return 0, 0
    mantissa, shift = math.frexp(factor)
    multiplier = math.floor(abs(mantissa) * 2**31 + 0.5) * (1 if mantissa > 0 else -1)
    if abs(multiplier) == 2**31:
        multiplier //= 2
        shift += 1
    return (0, 0) if shift < LEAST_SHIFT else (multiplier, shift)


def convolution_factor(input_scale: float, weight_scale: float, output_scale: float) -> float:
    """Output steps per step of a convolution's accumulator: float32 scales, multiplied in float64."""
    given, weights, taken = (np.float64(np.float32(scale)) for scale in (input_scale, weight_scale, output_scale))
    return float(given * weights / taken)


def product_factor(input_scale: float, weight_scale: float, output_scale: float) -> float:
    """The same where LiteRT rounds the product of the scales to float32 first: FULLY_CONNECTED per tensor, BATCH_MATMUL.

    TensorFlow Lite Micro multiplies in float64 in its FULLY_CONNECTED, which differs in one output of some ten thousand.
    """
    product = np.float32(input_scale) * np.float32(weight_scale)
    return float(np.float64(product) / np.float64(np.float32(output_scale)))
