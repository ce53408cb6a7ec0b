"""Functions of one element. Those of an int8 become a table of 256 outputs, computed here as the profile's reference computes
each of them; those of an int16 become a table of 513 points, or two factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.firmware_bridge.graph import Tensor
from embridge_edge.firmware_bridge.lowering import fixed_point
from embridge_edge.firmware_bridge.lowering.c_math import (
    Function,
    Reals,
    c_function,
    interpolation_points,
    round_half_away,
)
from embridge_edge.firmware_bridge.lowering.site import LARGEST_SCALE, RANGES, Site, refuse, table
from embridge_edge.firmware_bridge.program import Step
from embridge_edge.firmware_bridge.requantization import multiplier_of

Ints = npt.NDArray[np.int64]

INPUTS = np.arange(-128, 128, dtype=np.int64)
"""What an int8 can be, in the order of the tables."""

LARGEST_RAW = 2.0**31
"""The references convert to int32 before they clamp; beyond it C++ leaves the result open."""


def relu(site: Site) -> Step:
    """RELU, RELU6, RELU_N1_TO_1, RELU_0_TO_1."""
    given, output = _operands(site, ("int8", "int16"))
    least, most = _relu_range(site, output)
    if given.scales == output.scales and given.zero_points == output.zero_points:
        suffix = "s8" if given.type == "int8" else "s16"
        parameters = {"count": given.elements, "min": least, "max": most}
        return _step(site, f"emb_clip_{suffix}", "emb_clip_t", parameters)
    if site.op.name == "RELU6" and site.profile == "tflm":
        what = "TensorFlow Lite Micro ignores that its output has another scale than its input"
        refuse(site, what, "give both one scale, or use the profile litert-ref")
    factor = _ratio(site, given.scales[0], output.scales[0])
    if given.type == "int16":
        return _slopes(site, (factor, factor), least, most)
    multiplier, shift = _multiplier(site, factor, 255)
    values = fixed_point.scale(INPUTS - given.zero_points[0], multiplier, shift) + output.zero_points[0]
    return _lookup(site, np.clip(values, least, most))


def leaky_relu(site: Site) -> Step:
    """LEAKY_RELU: a factor for what is positive, another for what is negative."""
    given, output = _operands(site, ("int8", "int16"))
    alpha = np.float32(site.option("alpha", 0.0))
    if not abs(alpha) <= LARGEST_SCALE:
        refuse(site, f"its slope is {alpha}", "export the model again")
    positive = _ratio(site, given.scales[0], output.scales[0])
    if site.profile == "litert-ref":
        negative = float(np.float32(given.scales[0]) * alpha / np.float32(output.scales[0]))
    else:
        negative = given.scales[0] * float(alpha) / output.scales[0]
    if given.type == "int16":
        return _slopes(site, (positive, negative), *RANGES["int16"])
    values = INPUTS - given.zero_points[0]
    scaled = np.where(
        values >= 0,
        fixed_point.scale(values, *_multiplier(site, positive, 255)),
        fixed_point.scale(values, *_multiplier(site, negative, 255)),
    )
    return _lookup(site, scaled + output.zero_points[0])


def absolute(site: Site) -> Step:
    """ABS."""
    given, output = _operands(site, ("int8", "int16"))
    factor = _ratio(site, given.scales[0], output.scales[0])
    if given.type == "int16":
        return _slopes(site, (factor, factor), *RANGES["int16"], magnitude=1)
    values = np.abs(INPUTS - given.zero_points[0])
    if given.scales != output.scales:
        values = fixed_point.scale(values, *_multiplier(site, factor, 255))
    return _lookup(site, values + output.zero_points[0])


def negate(site: Site) -> Step:
    """NEG, which the reference does on the stored numbers: they must mean the same before and after."""
    _only(site, "litert-ref")
    given, output = _operands(site, ("int8",))
    if given.scales != output.scales or given.zero_points[0] or output.zero_points[0]:
        refuse(site, "its scales differ or a zero point is not 0, which the reference ignores", "subtract from 0 (SUB)")
    return _lookup(site, -INPUTS, wraps=True)


def reciprocal_root(site: Site) -> Step:
    """RSQRT of an int8. What is not above the zero point gives the largest output; the references stop below it."""
    given, output = _operands(site, ("int8",))
    if site.profile == "litert-ref":
        factor = 1.0 / float(np.sqrt(np.float32(given.scales[0])) * np.float32(output.scales[0]))
    else:
        factor = 1.0 / (math.sqrt(given.scales[0]) * output.scales[0])
    multiplier, shift = multiplier_of(factor)
    if not -31 <= shift - _RSQRT_BITS <= 0:
        refuse(site, "its output scale does not fit its input scale", "quantize the model again")
    values = INPUTS - given.zero_points[0]
    roots, root_shifts = fixed_point.inverse_square_root(np.maximum(values, 1))
    raised = fixed_point.scale(1, roots, root_shifts + _RSQRT_BITS)
    outputs = fixed_point.scale(raised, multiplier, shift - _RSQRT_BITS) + output.zero_points[0]
    return _lookup(site, np.where(values > 0, outputs, 127))


_RSQRT_BITS = 20
"""Below the point of the reciprocal root, in the references."""


def hard_swish(site: Site) -> Step:
    """HARD_SWISH of an int8: x × relu6(x + 3) / 6 in 16 bits, as reference_ops::HardSwish."""
    given, output = _operands(site, ("int8",))
    hires = np.float32(1.0 / 128.0) * np.float32(given.scales[0])
    out_multiplier, out_shift = _half_multiplier(float(hires / np.float32(output.scales[0])))
    in_multiplier, in_shift = _half_multiplier(float(hires / (np.float32(3.0) / np.float32(32768.0))))
    if not (-15 <= out_shift <= 0 and abs(in_shift) <= 15):
        refuse(site, "its scales are out of the range of its 16-bit arithmetic", "quantize the model again")
    value = (INPUTS - given.zero_points[0]) * 128
    before_shift = _half_doubling(value, out_multiplier)
    gate = _half_saturated(value << max(in_shift - 1, 0)) if in_shift > 0 else value
    gate = _half_doubling(gate, in_multiplier)
    if in_shift > 0:
        gate = _half_saturated(gate << 1)
    if in_shift < 0:
        gate = fixed_point.divide_by_power(gate, -in_shift)
    gate = (gate + 2**15) >> 1
    product = gate * before_shift
    toward_zero = np.sign(product) * (np.abs(product) >> 15)
    return _lookup(site, fixed_point.divide_by_power(toward_zero, -out_shift) + output.zero_points[0])


def _half_multiplier(factor: float) -> tuple[int, int]:
    """DownScaleInt32ToInt16Multiplier."""
    multiplier, shift = multiplier_of(factor)
    return min((multiplier + 2**15) >> 16, 2**15 - 1), shift


def _half_doubling(a: Ints, b: int) -> Ints:
    """SaturatingRoundingDoublingHighMul of 16 bits."""
    return fixed_point.ints(np.minimum((a * b + 2**14) >> 15, 2**15 - 1))


def _half_saturated(a: Ints) -> Ints:
    return np.clip(a, -(2**15), 2**15 - 1)


def logistic(site: Site) -> Step:
    """LOGISTIC."""
    given, output = _operands(site, ("int8", "int16"))
    if given.type == "int16":
        return _sigmoid16(site, "emb_logistic_s16", (0,))
    if output.scales != (1 / 256,) or output.zero_points != (-128,):
        refuse(site, "its output has not the scale 1/256 and the zero point −128", "quantize the model again")
    if site.profile == "litert-ref":
        return _float_table(site, _logistic)
    return _fixed_table(site, fixed_point.logistic, 23, -128)


def hyperbolic_tangent(site: Site) -> Step:
    """TANH."""
    given, output = _operands(site, ("int8", "int16"))
    if given.type == "int16":
        return _sigmoid16(site, "emb_tanh_s16", (0, 1))
    if site.profile == "litert-ref":
        return _float_table(site, c_function("tanhf"))
    if output.scales != (1 / 128,) or output.zero_points != (0,):
        refuse(site, "its output has not the scale 1/128 and the zero point 0", "quantize the model again")
    return _fixed_table(site, fixed_point.tanh, 24, 0)


def _fixed_table(site: Site, function: Callable[[Ints, int], Ints], right: int, zero: int) -> Step:
    """TFLM's LOGISTIC and TANH of an int8: the input in Q4.27; what is beyond it saturates."""
    given = site.input(0)
    multiplier, shift = multiplier_of(given.scales[0] * 2**27)
    if shift < 0 or shift > 30:
        refuse(site, f"its input scale {given.scales[0]:g} is out of range", "quantize the model again")
    radius = fixed_point.input_radius(4, shift)
    values = INPUTS - given.zero_points[0]
    inside = np.clip(values, 1 - radius, radius - 1) if radius > 0 else np.zeros_like(values)
    outputs = fixed_point.divide_by_power(function(fixed_point.scale(inside, multiplier, shift), 4), right) + zero
    return _lookup(site, np.where(values <= -radius, -128, np.where(values >= radius, 127, outputs)))


def gelu(site: Site) -> Step:
    """GELU of an int8 or int16, by erfc or by the approximation with tanh."""
    _only(site, "litert-ref")
    return _float_table(site, _gelu_approximate if site.option("approximate", False) else _gelu, ("int8", "int16"))


def elu(site: Site) -> Step:
    """ELU of an int8."""
    _only(site, "tflm")
    exponential = c_function("expm1f")
    return _float_table(site, lambda x: np.where(x < 0, exponential(np.minimum(x, np.float32(0))), x))


def exponential(site: Site) -> Step:
    """EXP."""
    _only(site, "litert-ref")
    return _float_table(site, c_function("expf"), ("int8", "int16"))


def logarithm(site: Site) -> Step:
    """LOG; what is not positive gives the smallest output."""
    _only(site, "litert-ref")
    _, output = _operands(site, ("int8", "int16"))
    smallest = np.float32(RANGES[output.type][0] - output.zero_points[0]) * np.float32(output.scales[0])
    of = c_function("logf")
    one = np.float32(1)
    return _float_table(site, lambda x: np.where(x > 0, of(np.where(x > 0, x, one)), smallest), ("int8", "int16"))


def _float_table(site: Site, function: Function, types: tuple[str, ...] = ("int8",)) -> Step:
    """TFLite's LUTPopulate: the function in float32."""
    given, output = _operands(site, types)
    if given.type == "int16":
        return _float_table16(site, function)
    scale, inverse = np.float32(given.scales[0]), np.float32(1) / np.float32(output.scales[0])
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        values = function(scale * (INPUTS - given.zero_points[0]).astype(np.float32))
        rescaled = round_half_away(values * inverse) + np.float32(output.zero_points[0])
    return _lookup(site, _whole(site, rescaled))


def _float_table16(site: Site, function: Function) -> Step:
    """513 points, in float32."""
    given, output = site.input(0), site.output()
    points = interpolation_points(function, given.scales[0], 0, output.scales[0], np.float32)
    if np.isnan(points).any():
        refuse(site, "its function leaves float32 for some inputs", "quantize the model again")
    parameters = {"table": table(np.clip(points, -32768, 32767), np.int16), "count": given.elements}
    return _step(site, "emb_interpolate_s16", "emb_interpolate_t", parameters)


def _sigmoid16(site: Site, kernel: str, plain_shifts: tuple[int, ...]) -> Step:
    """LOGISTIC and TANH of an int16: the input in steps of 1 / (24 × 512), by a shift where its scale is a power of two."""
    given, output = site.input(0), site.output()
    if output.scales != (1 / 32768,):
        refuse(site, f"its output has the scale {output.scales[0]:g}, not 1/32768", "quantize the model again")
    mantissa, exponent = math.frexp(given.scales[0])
    if mantissa == 0.5 and 12 + exponent - 1 in plain_shifts:
        multiplier, right = 3 << (12 + exponent - 1), 0
    else:
        factor, right = given.scales[0] * 4096.0 * 3.0, 0
        while factor <= 32767.0 / 2.0 and right <= 30:
            factor, right = factor * 2.0, right + 1
        if factor >= 32768.0:
            refuse(site, f"its input scale {given.scales[0]:g} is too large", "quantize the model again")
        multiplier = int(factor)
    parameters = {
        "table": table(sigmoid_points(), np.uint16),
        "count": given.elements,
        "multiplier": multiplier,
        "right": right,
    }
    return _step(site, kernel, "emb_sigmoid_t", parameters)


def sigmoid_points() -> Ints:
    """TFLite's `sigmoid_table_uint16`: 65536 × logistic(i / 24), lowered by half of the error of a line to the next point.

    int64 `[256]`; the last is the largest of 16 bits.
    """
    at = np.arange(256)

    def curve(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(65536 / (1 + np.exp(-x / 24)))

    error = (curve(at) + curve(at + 1)) / 2 - curve(at + 0.5)
    points = fixed_point.ints(np.floor(curve(at) - error / 2 + 0.5).astype(np.int64))
    points[-1] = 65535
    return points


def _slopes(site: Site, factors: tuple[float, float], least: int, most: int, *, magnitude: int = 0) -> Step:
    positive, negative = (_multiplier(site, factor, 32768) for factor in factors)
    parameters = {
        "count": site.input(0).elements,
        "positive_multiplier": positive[0],
        "negative_multiplier": negative[0],
        "positive_shift": positive[1],
        "negative_shift": negative[1],
        "magnitude": magnitude,
        "min": least,
        "max": most,
    }
    return _step(site, "emb_slopes_s16", "emb_slopes_t", parameters)


def lookup_step(site: Site, outputs: Ints) -> Step:
    """A table of the outputs for −128 … 127, saturated to int8."""
    return _lookup(site, outputs)


def _lookup(site: Site, outputs: npt.ArrayLike, *, wraps: bool = False) -> Step:
    values = np.asarray(outputs, np.int64)
    stored = values if wraps else np.clip(values, -128, 127)
    parameters = {"table": table(stored, np.int8), "count": site.input(0).elements}
    return _step(site, "emb_lookup_s8", "emb_lookup_t", parameters)


def _step(site: Site, kernel: str, structure: str, parameters: Mapping[str, Any]) -> Step:
    given, output = site.input(0), site.output()
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel=kernel,
        source="emb_unary.c",
        structure=structure,
        parameters=parameters,
        inputs=(given.index,),
        outputs=(output.index,),
        comment=f"{site.op.name} of {list(given.shape)}",
        in_place=0,
    )


def _operands(site: Site, types: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Input and output, of one shape and type."""
    given, output = site.activation_only(site.input(0), "input"), site.output()
    site.quantized(given, "input", types)
    site.quantized(output, "output", (given.type,))
    if given.shape != output.shape:
        refuse(site, f"its output {output.shape} should be {given.shape}", "export the model again")
    return given, output


def _only(site: Site, profile: str) -> None:
    """Refuse a profile whose oracle has no kernel: nothing could be compared with it."""
    if site.profile != profile:
        whose = "TensorFlow Lite Micro has" if site.profile == "tflm" else "LiteRT's reference kernels have"
        refuse(site, f"{whose} no integer kernel for it to compare with", f"use the profile {profile}")


def _relu_range(site: Site, output: Tensor) -> tuple[int, int]:
    """Bounds in steps of the output, rounded in float32; RELU has no upper one."""
    if site.op.name in ("RELU_N1_TO_1", "RELU_0_TO_1"):
        _only(site, "litert-ref")
        site.typed(output, "output", ("int8",))
    lower = -1.0 if site.op.name == "RELU_N1_TO_1" else 0.0
    upper = {"RELU": math.inf, "RELU6": 6.0}.get(site.op.name, 1.0)
    least, most = RANGES[output.type]
    scale, zero = np.float32(output.scales[0]), output.zero_points[0]

    def steps(bound: float) -> int:
        return zero + int(round_half_away(np.asarray(np.float32(bound) / scale)))

    least = max(least, steps(lower) if lower else zero)
    if math.isfinite(upper):
        if upper / output.scales[0] >= LARGEST_RAW / 2:
            refuse(site, f"its output scale {output.scales[0]:g} is too small", "quantize the model again")
        most = min(most, steps(upper))
    return least, most


def _multiplier(site: Site, factor: float, largest: int) -> tuple[int, int]:
    """Multiplier and shift of a factor for values up to `largest` in magnitude; refused where they would overflow."""
    multiplier, shift = multiplier_of(factor)
    if largest << max(shift, 0) >= 2**31:
        refuse(site, "its output scale is too small for its input scale", "quantize the model again")
    return multiplier, shift


def _ratio(site: Site, over: float, under: float) -> float:
    """A quotient of scales: LiteRT rounds it to float32, TFLM does not."""
    return float(np.float32(over) / np.float32(under)) if site.profile == "litert-ref" else over / under


def _whole(site: Site, values: Reals) -> Ints:
    if not (np.abs(values) < LARGEST_RAW).all():
        refuse(
            site,
            "some inputs leave the range in which its reference is defined",
            "quantize it with a larger output scale",
        )
    return values.astype(np.int64)


def _logistic(x: Reals) -> Reals:
    one = np.float32(1)
    return np.asarray(one / (one + c_function("expf")(-x)))


def _gelu(x: Reals) -> Reals:
    return np.asarray(np.float32(0.5) * x * c_function("erfcf")(x * np.float32(-math.sqrt(0.5))))


def _gelu_approximate(x: Reals) -> Reals:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.asarray(np.float32(0.5) * x * (np.float32(1) + c_function("tanhf")(inner)))


LOWERINGS: Mapping[str, Callable[[Site], Step]] = {
    "ABS": absolute,
    "ELU": elu,
    "EXP": exponential,
    "GELU": gelu,
    "HARD_SWISH": hard_swish,
    "LEAKY_RELU": leaky_relu,
    "LOG": logarithm,
    "LOGISTIC": logistic,
    "NEG": negate,
    "RELU": relu,
    "RELU6": relu,
    "RELU_0_TO_1": relu,
    "RELU_N1_TO_1": relu,
    "RSQRT": reciprocal_root,
    "TANH": hyperbolic_tangent,
}
