"""TRANSPOSE_CONV of int8 and int16."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embridge_edge.firmware_bridge.graph import Tensor
from embridge_edge.firmware_bridge.lowering.convolution import (
    ACCUMULATOR_LIMIT,
    operands,
    padding_is_same,
    shapes,
    window_length,
)
from embridge_edge.firmware_bridge.lowering.site import Site, refuse, requantization
from embridge_edge.firmware_bridge.lowering.sixteen import requantization16
from embridge_edge.firmware_bridge.program import Step, int_array
from embridge_edge.firmware_bridge.requantization import convolution_factor

LARGEST_ZERO_DIFFERENCE = 255


def transpose_conv(site: Site) -> Step:
    """The transposed convolution: each input spreads over the output by the kernel."""
    kind = "int16" if site.input(2).type == "int16" else "int8"
    given, weights, output = operands(site, kind, position=2)
    out_c, kernel_h, kernel_w, in_c = weights.shape
    if site.option("fusedActivationFunction"):
        refuse(site, "it has a fused activation", "use a separate op")
    if [int(length) for length in site.constant(0, "output shape").reshape(-1)] != list(output.shape):
        refuse(site, f"its output {output.shape} is not of the shape that it names", "export the model again")
    if (given.shape[0], in_c, out_c) != (output.shape[0], given.shape[3], output.shape[3]):
        refuse(site, f"its weights {weights.shape} do not fit {given.shape}", "export the model again")
    strides = {"stride_h": site.option("strideH"), "stride_w": site.option("strideW")}
    if min(strides.values()) < 1:
        refuse(site, f"one of its strides is {min(strides.values())}", "export the model again")
    same = padding_is_same(site)
    rows, pad_top = window_length(output.shape[1], kernel_h, strides["stride_h"], same)
    columns, pad_left = window_length(output.shape[2], kernel_w, strides["stride_w"], same)
    if (rows, columns) != given.shape[1:3]:
        refuse(site, f"its output {output.shape} does not fit {given.shape}", "export the model again")
    at = {
        "weights": int_array(weights, np.int8, "weights"),
        **site.lengths(batches=given.shape[0], in_h=rows, in_w=columns, in_c=in_c),
        **site.lengths(out_h=output.shape[1], out_w=output.shape[2], out_c=out_c),
        **site.lengths(kernel_h=kernel_h, kernel_w=kernel_w, **strides, pad_top=pad_top, pad_left=pad_left),
    }
    flat, bias = weights.reshape(out_c, -1), site.optional(3)
    parameters: dict[str, Any]
    if kind == "int16":
        out = requantization16(site, given, output, flat, site.input(1), bias)
        parameters = {"out": out, "at": at}
    else:
        starts = _bias(site, bias, out_c)
        sums = np.abs(flat.astype(np.int64)).sum(axis=1)
        if (np.abs(starts) + LARGEST_ZERO_DIFFERENCE * sums >= ACCUMULATOR_LIMIT).any():
            refuse(site, "its sums may overflow 32 bits", "use fewer inputs or smaller biases")
        scales = np.broadcast_to(np.asarray(site.input(1).scales), (out_c,))
        for scale in scales:
            site.check_scale(float(scale), "weights")
        factors = [convolution_factor(given.scales[0], float(scale), output.scales[0]) for scale in scales]
        terms = int_array(-given.zero_points[0] * weights.astype(np.int64).sum(axis=3), np.int32, "bias")
        parameters = {"out": requantization(site, output, starts, factors), "at": at, "zero_terms": terms}
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel="emb_transpose_conv_s16" if kind == "int16" else "emb_transpose_conv_s8",
        source="emb_transpose_conv_s16.c" if kind == "int16" else "emb_transpose_conv_s8.c",
        structure="emb_transpose_conv16_t" if kind == "int16" else "emb_transpose_conv_t",
        parameters=parameters,
        inputs=(given.index,),
        outputs=(output.index,),
        comment=shapes(given, output, f"{kernel_h}×{kernel_w}", strides),
        macs=site.op.macs,
    )


def _bias(site: Site, bias: Tensor | None, channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    if bias is None:
        return np.zeros(channels, np.int64)
    site.typed(bias, "bias", ("int32",))
    if not bias.is_constant or bias.elements != channels:
        refuse(site, "its bias does not fit its weights", "export the model again")
    return bias.array().reshape(-1).astype(np.int64)


LOWERINGS: Mapping[str, Callable[[Site], Step]] = {"TRANSPOSE_CONV": transpose_conv}
