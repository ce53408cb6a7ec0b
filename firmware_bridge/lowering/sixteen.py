"""Activations of 16 bits with weights of 8: CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embridge_edge.firmware_bridge.graph import Tensor
from embridge_edge.firmware_bridge.lowering import convolution
from embridge_edge.firmware_bridge.lowering.convolution import operands, shapes, window_of
from embridge_edge.firmware_bridge.lowering.site import Site, fused_range, refuse
from embridge_edge.firmware_bridge.program import Step, int_array
from embridge_edge.firmware_bridge.requantization import convolution_factor, multiplier_of, product_factor

Scaling = Literal["short", "once", "twice"]
"""A multiplier of 15 bits; one of 31, rounded once; one of 31, rounded twice."""

FULL_SCALE = 32768
LARGEST_SUM: dict[Scaling, int] = {"short": 1 << 47, "once": 1 << 31, "twice": 1 << 31}
LARGEST_SHORT_SHIFT = 7


def conv_2d(site: Site) -> Step:
    """Convolution of 16-bit activations."""
    given, weights, output = operands(site, "int16")
    out_c, kernel_h, kernel_w, depth = weights.shape
    batches, in_h, in_w, in_c = given.shape
    if in_c % depth or out_c % (in_c // depth):
        refuse(site, f"its weights {weights.shape} do not fit {in_c} channels", "export the model again")
    window = window_of(site, given, output, kernel_h, kernel_w, out_c)
    fields = {
        **site.lengths(batches=batches, in_h=in_h, in_w=in_w, in_c=in_c),
        **site.lengths(out_h=output.shape[1], out_w=output.shape[2], out_c=out_c, kernel_h=kernel_h, kernel_w=kernel_w),
        **window,
        "groups": in_c // depth,
    }
    comment = shapes(given, output, f"{kernel_h}×{kernel_w}", window)
    return _step(site, "emb_conv_s16", "emb_conv16_t", weights.reshape(out_c, -1), weights, fields, comment)


def depthwise_conv_2d(site: Site) -> Step:
    """A kernel of its own for each channel of 16-bit activations."""
    given, weights, output = operands(site, "int16")
    one, kernel_h, kernel_w, channels = weights.shape
    batches, in_h, in_w, in_c = given.shape
    if one != 1 or channels % in_c:
        refuse(site, f"its weights {weights.shape} do not fit {in_c} channels", "export the model again")
    window = window_of(site, given, output, kernel_h, kernel_w, channels)
    fields = {
        **site.lengths(batches=batches, in_h=in_h, in_w=in_w, in_c=in_c),
        **site.lengths(out_h=output.shape[1], out_w=output.shape[2], depth=channels // in_c),
        **site.lengths(kernel_h=kernel_h, kernel_w=kernel_w),
        **window,
    }
    rows = weights.reshape(-1, channels).T
    comment = shapes(given, output, f"{kernel_h}×{kernel_w}", window)
    return _step(site, "emb_depthwise_s16", "emb_depthwise16_t", rows, weights, fields, comment)


def fully_connected(site: Site) -> Step:
    """A matrix product of 16-bit activations: a convolution along a line of rows."""
    given, weights, output = operands(site, "int16")
    if site.option("weightsFormat"):
        refuse(site, "its weights are shuffled", "export without shuffled weights")
    if weights.ndim != 2 or given.elements % weights.shape[1]:
        refuse(site, f"its weights {weights.shape} do not fit {given.shape}", "export the model again")
    out_c, in_c = weights.shape
    rows = given.elements // in_c
    if output.elements != rows * out_c:
        refuse(site, f"its output {output.shape} does not fit {given.shape}", "export the model again")
    ones = dict.fromkeys(("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w"), 1)
    fields = {
        **site.lengths(batches=1, in_h=1, in_w=rows, in_c=in_c, out_h=1, out_w=rows, out_c=out_c),
        **ones,
        **dict.fromkeys(("pad_top", "pad_left"), 0),
        "groups": 1,
    }
    comment = f"{list(given.shape)} → {list(output.shape)}"
    return _step(site, "emb_conv_s16", "emb_conv16_t", weights, weights, fields, comment)


def requantization16(
    site: Site, given: Tensor, output: Tensor, rows: npt.NDArray[np.int8], stored: Tensor, bias: Tensor | None
) -> dict[str, Any]:
    """The fields of `emb_requant16_t`.

    Args:
        rows: weights, int8 `[channels, K]`.
        stored: the weights' tensor, for its scales.
    """
    channels = len(rows)
    starts = np.zeros(channels, np.int64)
    if bias is not None:
        site.typed(bias, "bias", ("int64", "int32"))
        if not bias.is_constant or bias.elements != channels:
            refuse(site, "its bias does not fit its weights", "export the model again")
        starts += bias.array().reshape(-1)
    scaling = _scaling(site, bias)
    limit = LARGEST_SUM[scaling]
    if ((starts >= limit) | (starts <= -limit)).any():
        refuse(site, f"its bias needs more than {limit.bit_length()} bits", "quantize the model again")
    largest = np.abs(starts) + FULL_SCALE * np.abs(rows.astype(np.int64)).sum(axis=1)
    if (largest >= limit).any():
        refuse(site, f"its sums may need more than {limit.bit_length()} bits", _wider(site, scaling))
    if len(stored.scales) not in (1, channels):
        refuse(site, f"its weights have {len(stored.scales)} scales", "quantize per tensor or per output channel")
    for scale in stored.scales:
        site.check_scale(scale, "weights")
    single = site.op.name == "FULLY_CONNECTED" and len(stored.scales) == 1 and site.profile == "litert-ref"
    factor_of = product_factor if single else convolution_factor
    scales = np.broadcast_to(np.asarray(stored.scales), (channels,))
    factors = [factor_of(given.scales[0], float(scale), output.scales[0]) for scale in scales]
    if (largest * np.asarray(factors) >= 1 << 31).any():
        refuse(site, "its output scale is too small for its input scales", "quantize the model again")
    pairs = [scaled_by(site, factor, scaling) for factor in factors]
    least, most = fused_range(site, output)
    return {
        "bias": int_array(starts, np.int64, "bias"),
        "multiplier": int_array([multiplier for multiplier, _ in pairs], np.int32, "requantization"),
        "right": int_array([right for _, right in pairs], np.uint8, "requantization"),
        "min": least,
        "max": most,
        "twice": int(scaling == "twice"),
    }


def scaled_by(site: Site, factor: float, scaling: Scaling) -> tuple[int, int]:
    """`factor` as (multiplier, right) with factor ≈ multiplier / 2^right."""
    multiplier, shift = multiplier_of(factor)
    if shift > (LARGEST_SHORT_SHIFT if scaling == "short" else 30):
        refuse(site, "its output scale is too small for its input scales", "quantize the model again")
    if scaling != "short":
        return multiplier, 31 - shift
    return (multiplier + (1 << 15) >> 16 if multiplier < 0x7FFF0000 else 0x7FFF), 15 - shift


def _scaling(site: Site, bias: Tensor | None) -> Scaling:
    """How the profile's reference scales the sums; found by trying both runtimes with all types of bias."""
    if site.op.name == "FULLY_CONNECTED" and site.profile == "litert-ref":
        return "once"
    return "twice" if bias is not None and bias.type == "int32" else "short"


def _wider(site: Site, scaling: Scaling) -> str:
    if scaling == "once":
        return "use the profile tflm, which has room for more"
    return "use biases of 64 bits" if scaling == "twice" else "use fewer inputs"


def _step(
    site: Site,
    kernel: str,
    structure: str,
    rows: npt.NDArray[np.int8],
    weights: npt.NDArray[np.int8],
    fields: Mapping[str, int],
    comment: str,
) -> Step:
    given, output = site.input(0), site.output()
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel=kernel,
        source=f"{kernel}.c",
        structure=structure,
        parameters={
            "out": requantization16(site, given, output, rows, site.input(1), site.optional(2)),
            "weights": int_array(weights, np.int8, "weights"),
            **fields,
        },
        inputs=(given.index,),
        outputs=(output.index,),
        comment=comment,
        macs=site.op.macs,
    )


def _by_width(eight: Callable[[Site], Step], sixteen: Callable[[Site], Step]) -> Callable[[Site], Step]:
    def lower(site: Site) -> Step:
        return (sixteen if site.input(0).type == "int16" else eight)(site)

    return lower


LOWERINGS: Mapping[str, Callable[[Site], Step]] = {
    "CONV_2D": _by_width(convolution.conv_2d, conv_2d),
    "DEPTHWISE_CONV_2D": _by_width(convolution.depthwise_conv_2d, depthwise_conv_2d),
    "FULLY_CONNECTED": _by_width(convolution.fully_connected, fully_connected),
}
