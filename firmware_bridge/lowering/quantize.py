"""QUANTIZE and DEQUANTIZE: from one scale or type to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embridge_edge.firmware_bridge.lowering import fixed_point
from embridge_edge.firmware_bridge.lowering.site import Site, refuse
from embridge_edge.firmware_bridge.lowering.unary import INPUTS, lookup_step
from embridge_edge.firmware_bridge.program import Step
from embridge_edge.firmware_bridge.requantization import multiplier_of

SUFFIXES = {"int8": "s8", "int16": "s16", "int32": "s32", "float32": "f32"}
PAIRS = (("int8", "int16"), ("int16", "int8"), ("int16", "int16"), ("int8", "int32"), ("int16", "int32"))


def quantize(site: Site) -> Step:
    """QUANTIZE: float32 to int8 or int16, or whole numbers to another scale or type."""
    given, output = site.activation_only(site.input(0), "input"), site.output()
    if given.shape != output.shape:
        refuse(site, f"its output {output.shape} should be {given.shape}", "export the model again")
    if given.type == "float32":
        scale, zero = site.quantized(output, "output", ("int8", "int16"))
        return _float_step(site, f"emb_quantize_f32_{SUFFIXES[output.type]}", scale, zero)
    scale, zero = site.quantized(given, "input", ("int8", "int16"))
    out_scale, out_zero = site.quantized(output, "output", ("int8", "int16", "int32"))
    multiplier, shift = multiplier_of(scale / out_scale)
    span = 255 if given.type == "int8" else 65535
    if span << max(shift, 0) >= 2**31:
        refuse(site, "its output scale is too small for its input scale", "quantize the model again")
    if given.type == output.type == "int8":
        return lookup_step(site, fixed_point.scale(INPUTS - zero, multiplier, shift) + out_zero)
    if (given.type, output.type) not in PAIRS:
        refuse(site, f"it turns {given.type} into {output.type}", "use int8 or int16")
    if (given.type, output.type) == ("int8", "int32") and site.profile == "litert-ref":
        refuse(site, "LiteRT does not turn int8 into int32", "use int16, or the profile tflm")
    parameters = {
        "count": given.elements,
        "multiplier": multiplier,
        "shift": shift,
        "in_zero": zero,
        "zero": out_zero,
    }
    kernel = f"emb_rescale_{SUFFIXES[given.type]}_{SUFFIXES[output.type]}"
    return _step(site, kernel, "emb_rescale_t", parameters)


def dequantize(site: Site) -> Step:
    """DEQUANTIZE: int8 or int16 to float32."""
    given, output = site.activation_only(site.input(0), "input"), site.output()
    scale, zero = site.quantized(given, "input", ("int8", "int16"))
    site.typed(output, "output", ("float32",))
    if given.shape != output.shape:
        refuse(site, f"its output {output.shape} should be {given.shape}", "export the model again")
    return _float_step(site, f"emb_dequantize_{SUFFIXES[given.type]}_f32", scale, zero)


def _float_step(site: Site, kernel: str, scale: float, zero: int) -> Step:
    parameters = {"count": site.input(0).elements, "scale": float(np.float32(scale)), "zero": zero}
    return _step(site, kernel, "emb_scale_f32_t", parameters)


def _step(site: Site, kernel: str, structure: str, parameters: Mapping[str, Any]) -> Step:
    given, output = site.input(0), site.output()
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel=kernel,
        source="emb_quantize.c",
        structure=structure,
        parameters=parameters,
        inputs=(given.index,),
        outputs=(output.index,),
        comment=f"{site.op.name} of {list(given.shape)}, {given.type} → {output.type}",
        # A wider output would overwrite inputs that are still to be read.
        in_place=0 if output.size_bytes <= given.size_bytes else None,
    )


LOWERINGS: Mapping[str, Callable[[Site], Step]] = {"DEQUANTIZE": dequantize, "QUANTIZE": quantize}
