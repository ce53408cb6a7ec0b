"""SOFTMAX along the last axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embridge_edge.firmware_bridge.lowering import fixed_point
from embridge_edge.firmware_bridge.lowering.c_math import c_function, interpolation_points
from embridge_edge.firmware_bridge.lowering.site import LARGEST_SCALE, LEAST_SCALE, Site, refuse, table
from embridge_edge.firmware_bridge.program import Constant, Step
from embridge_edge.firmware_bridge.requantization import multiplier_of

DIFFERENCE_BITS = 5
"""Above the point of an exponent, in the references."""

LONGEST = 4095
"""Exponentials that a sum with 12 bits above the point holds."""

LONGEST_16 = 1 << 15
"""The same for int16 inputs, with 16 bits above the point and a sign."""


def softmax(site: Site) -> Step:
    """SOFTMAX of int8 to int8 or int16, of int16 to int16."""
    given, output = site.activation_only(site.input(0), "input"), site.output()
    scale, _ = site.quantized(given, "input", ("int8", "int16"))
    if given.shape != output.shape or not given.shape or given.elements == 0:
        refuse(site, f"its output {output.shape} should be {given.shape}", "export the model again")
    beta = np.float32(site.option("beta", 0.0))
    if not LEAST_SCALE <= beta <= LARGEST_SCALE:
        refuse(site, f"its beta is {beta}", "use one near 1")
    if given.type == "int16":
        return _softmax_16(site, scale, beta)
    _check_output(site, {"int8": -128, "int16": -32768})
    length = given.shape[-1]
    if length > LONGEST:
        refuse(site, f"its last axis has {length} elements", f"use at most {LONGEST}")
    factor = min(float(beta) * scale * 2.0 ** (31 - DIFFERENCE_BITS), 2.0**31 - 1.0)
    multiplier, shift = multiplier_of(factor)
    if factor <= 1 or shift > 31:
        refuse(site, f"its input scale {scale:g} is out of range", "quantize the model again")
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel="emb_softmax_s8" if output.type == "int8" else "emb_softmax_s8_s16",
        source="emb_softmax.c",
        structure="emb_softmax_t",
        parameters={
            "rows": given.elements // length,
            "length": length,
            "multiplier": multiplier,
            "shift": shift,
            "least": -fixed_point.input_radius(DIFFERENCE_BITS, shift),
        },
        inputs=(given.index,),
        outputs=(output.index,),
        comment=f"SOFTMAX of {list(given.shape)}",
        scratch_bytes=4 * length,
        in_place=0 if output.type == "int8" else None,
    )


def _softmax_16(site: Site, scale: float, beta: np.float32) -> Step:
    given, output = site.input(0), site.output()
    _check_output(site, {"int16": 0})
    length = given.shape[-1]
    if length > LONGEST_16:
        refuse(site, f"its last axis has {length} elements", f"use at most {LONGEST_16}")
    product = float(np.float32(scale) * beta) if site.profile == "litert-ref" else scale * float(beta)
    multiplier, shift = multiplier_of(product / (10.0 / 65535.0))
    if shift > 14:
        refuse(site, f"its input scale {scale:g} is too large", "quantize the model again")
    exponentials, inverses = _points(site)
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel="emb_softmax_s16",
        source="emb_softmax.c",
        structure="emb_softmax16_t",
        parameters={
            "rows": given.elements // length,
            "length": length,
            "multiplier": multiplier,
            "shift": shift,
            "exponentials": exponentials,
            "inverses": inverses,
        },
        inputs=(given.index,),
        outputs=(output.index,),
        comment=f"SOFTMAX of {list(given.shape)}",
        in_place=0,
    )


def _check_output(site: Site, zeros: Mapping[str, int]) -> None:
    """The output's scale is one over its range, within a thousandth, and its zero point is fixed: the references check both."""
    output = site.typed(site.output(), "output", tuple(zeros))
    wanted = 1.0 / 256 if output.type == "int8" else 1.0 / (32768 if zeros["int16"] == 0 else 65536)
    if len(output.scales) != 1 or abs(output.scales[0] - wanted) > 0.001 * wanted:
        refuse(site, f"its output has not the scale {wanted:g}", "quantize the model again")
    if output.zero_points != (zeros[output.type],):
        refuse(site, f"its output has not the zero point {zeros[output.type]}", "quantize the model again")


def _points(site: Site) -> tuple[Constant, Constant]:
    """exp on [−10, 0] and 1 / (1 + x) on [0, 1], outputs of the scale 2 / 65535: LiteRT computes in double, TFLM in float."""
    kind: Any = np.float64 if site.profile == "litert-ref" else np.float32
    exp = c_function("exp" if site.profile == "litert-ref" else "expf")
    exponentials = interpolation_points(exp, 10.0 / 65535.0, 32767, 2.0 / 65535.0, kind)
    inverses = interpolation_points(lambda x: kind(1) / (kind(1) + x), 1.0 / 65535.0, -32768, 2.0 / 65535.0, kind)
    stored = [table(np.clip(points, -32768, 32767), np.int16) for points in (exponentials, inverses)]
    return stored[0], stored[1]


LOWERINGS: Mapping[str, Callable[[Site], Step]] = {"SOFTMAX": softmax}
