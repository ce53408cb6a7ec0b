"""CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.firmware_bridge import packing
from embridge_edge.firmware_bridge.graph import Tensor
from embridge_edge.firmware_bridge.lowering import workspace
from embridge_edge.firmware_bridge.lowering.site import Site, refuse, requantization
from embridge_edge.firmware_bridge.program import Constant, Step, int_array
from embridge_edge.firmware_bridge.requantization import convolution_factor, product_factor

Weights = npt.NDArray[np.int8]

ACCUMULATOR_LIMIT = 1 << 31
FAST_LIMIT = 1 << 30
"""The kernels of the layout "pairs" double the accumulator before they scale it."""


def conv_2d(site: Site) -> Step:
    """Convolution; a kernel and stride of one become a product of rows."""
    given, weights, output = operands(site)
    out_c, kernel_h, kernel_w, depth = weights.shape
    batches, in_h, in_w, in_c = given.shape
    if depth == 0 or in_c % depth or out_c % (in_c // depth):
        refuse(site, f"its weights {weights.shape} do not fit {in_c} channels", "export the model again")
    groups = in_c // depth
    window = window_of(site, given, output, kernel_h, kernel_w, out_c)
    out, rows = _per_channel(site, given, output, weights.reshape(out_c, -1), site.input(1))
    comment = shapes(given, output, f"{kernel_h}×{kernel_w}", window)
    padded = (batches, in_h, in_w) != output.shape[:3]
    if groups == 1 and kernel_h == kernel_w == window["stride_h"] == window["stride_w"] == 1 and not padded:
        return pointwise(site, out, rows, batches * in_h * in_w, in_c, out_c, comment)
    paired = groups == 1 and _goes_in_pairs(site, rows, out)
    taps = rows.shape[1]
    scratch = 7 * workspace.up_to(taps, 4) if paired else taps
    if site.layout == "vectors":
        scratch = workspace.convolution(taps, output.shape[1] * output.shape[2])
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel="emb_conv_pairs_s8" if paired else "emb_conv_rows_s8",
        source="emb_conv_pairs.c" if paired else "emb_conv_rows.c",
        structure="emb_conv_t",
        parameters={
            "out": _even(out) if paired else out,
            "weights": _stored(rows, paired),
            **site.lengths(batches=batches, in_h=in_h, in_w=in_w, in_c=in_c),
            **site.lengths(out_h=output.shape[1], out_w=output.shape[2], out_c=out_c),
            **site.lengths(kernel_h=kernel_h, kernel_w=kernel_w),
            **window,
            "groups": groups,
            "in_zero": given.zero_points[0],
            "scratch_bytes": scratch,
        },
        inputs=(given.index,),
        outputs=(output.index,),
        comment=comment,
        scratch_bytes=scratch,
        macs=site.op.macs,
    )


def fully_connected(site: Site) -> Step:
    """A matrix product: rows of the input times the weights."""
    given, weights, output = operands(site)
    if site.option("weightsFormat"):
        refuse(site, "its weights are shuffled", "export without shuffled weights")
    if weights.ndim != 2 or weights.shape[1] == 0 or given.elements % weights.shape[1]:
        refuse(site, f"its weights {weights.shape} do not fit {given.shape}", "export the model again")
    out_c, in_c = weights.shape
    rows = given.elements // in_c
    if output.elements != rows * out_c:
        refuse(site, f"its output {output.shape} does not fit {given.shape}", "export the model again")
    single = len(site.input(1).scales) == 1
    out, weights = _per_channel(
        site, given, output, weights, site.input(1),
        product_first=single and site.profile == "litert-ref",
        once=site.profile == "litert-ref",
    )  # fmt: skip
    return pointwise(site, out, weights, rows, in_c, out_c, f"{list(given.shape)} → {list(output.shape)}")


def depthwise_conv_2d(site: Site) -> Step:
    """A kernel of its own for each channel."""
    given, weights, output = operands(site)
    one, kernel_h, kernel_w, channels = weights.shape
    batches, in_h, in_w, in_c = given.shape
    if one != 1 or in_c == 0 or channels % in_c:
        refuse(site, f"its weights {weights.shape} do not fit {in_c} channels", "export the model again")
    depth = channels // in_c
    window = window_of(site, given, output, kernel_h, kernel_w, channels)
    taps = weights[0]
    out, rows = _per_channel(site, given, output, taps.reshape(-1, channels).T, site.input(1))
    taps = rows.T.reshape(taps.shape)
    out_h, out_w = output.shape[1:3]
    shape = {"in_h": in_h, "in_w": in_w, "out_h": out_h, "out_w": out_w, "kernel_h": kernel_h, "kernel_w": kernel_w}
    comment = shapes(given, output, f"{kernel_h}×{kernel_w}", window)
    if in_w == out_w == kernel_w == 1 and window["pad_left"] == 0:
        shape, window = _lying(shape), _lying(window)  # A column is a row: kernels run along the width.
    by_planes = site.layout == "pairs" and window["dilation_w"] == 1 and _is_fast(rows, out)
    plane_h = (shape["out_h"] - 1) * window["stride_h"] + (shape["kernel_h"] - 1) * window["dilation_h"] + 1
    plane_w = (shape["out_w"] - 1) * window["stride_w"] + shape["kernel_w"]
    if by_planes:
        scratch = workspace.up_to(plane_h * plane_w + 8, 4)
    elif site.layout == "vectors":
        scratch = workspace.depthwise({**shape, **window, "in_c": in_c, "depth": depth})
    else:
        scratch = in_c
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel="emb_depthwise_planes_s8" if by_planes else "emb_depthwise_rows_s8",
        source="emb_depthwise_planes.c" if by_planes else "emb_depthwise_rows.c",
        structure="emb_depthwise_t",
        parameters={
            "out": out,
            "weights": int_array(packing.planes(taps) if by_planes else taps, np.int8, "weights"),
            **site.lengths(batches=batches, **shape, in_c=in_c, depth=depth),
            **window,
            "in_zero": given.zero_points[0],
            "scratch_bytes": scratch,
        },
        inputs=(given.index,),
        outputs=(output.index,),
        comment=comment,
        scratch_bytes=scratch,
        in_place=0 if by_planes and depth == 1 and out_h * out_w <= in_h * in_w and batches == 1 else None,
        macs=site.op.macs,
    )


def operands(site: Site, kind: str = "int8", position: int = 0) -> tuple[Tensor, Weights, Tensor]:
    """Input, weights and output, checked; a bias is looked at where it is used.

    Args:
        kind: type of the activations.
        position: which of the op's inputs is the activation.
    """
    given = site.activation_only(site.input(position), "input")
    output = site.output()
    site.quantized(given, "input", (kind,))
    site.quantized(output, "output", (kind,))
    stored = site.typed(site.input(1, "weights"), "weights", ("int8",))
    if not stored.is_constant:
        refuse(site, "its weights are computed at run time", "use BATCH_MATMUL")
    if any(stored.zero_points):
        refuse(site, "its weights have a zero point", "quantize weights symmetrically")
    if not stored.scales:
        refuse(site, "its weights have no scale", "quantize the whole graph to int8")
    weights = stored.array()
    channels_at = 3 if site.op.name == "DEPTHWISE_CONV_2D" else 0
    if site.op.name != "FULLY_CONNECTED" and not (weights.ndim == len(given.shape) == len(output.shape) == 4):
        refuse(site, f"its shapes {given.shape}, {weights.shape} are not of four axes", "export the model again")
    if len(stored.scales) > 1 and stored.axis != channels_at:
        refuse(site, f"its weights are quantized along axis {stored.axis}", f"quantize them along axis {channels_at}")
    if min(weights.shape, default=0) == 0 or min(given.shape, default=0) == 0:
        refuse(site, "one of its shapes is empty", "export the model again")
    return given, weights, output


def _per_channel(
    site: Site,
    given: Tensor,
    output: Tensor,
    rows: npt.NDArray[np.int8],
    stored: Tensor,
    *,
    product_first: bool = False,
    once: bool = False,
) -> tuple[dict[str, Any], Weights]:
    """Requantization with the input's zero point in the bias, and the weights that go with it; int8 `[channels, K]`."""
    channels = len(rows)
    bias = np.zeros(channels, np.int64)
    stored_bias = site.optional(2)
    if stored_bias is not None:
        site.typed(stored_bias, "bias", ("int32",))
        if not stored_bias.is_constant or stored_bias.elements != channels:
            refuse(site, "its bias does not fit its weights", "export the model again")
        bias += stored_bias.array().reshape(-1)
    if len(stored.scales) not in (1, channels):
        refuse(site, f"its weights have {len(stored.scales)} scales", "quantize per tensor or per output channel")
    sums = np.abs(rows.astype(np.int64)).sum(axis=1)
    if (np.abs(bias) + 255 * sums >= ACCUMULATOR_LIMIT).any():
        refuse(site, "its sums may overflow 32 bits", "use fewer inputs or smaller biases")
    folded = bias - given.zero_points[0] * rows.astype(np.int64).sum(axis=1)
    if (np.abs(folded) + 128 * sums >= ACCUMULATOR_LIMIT).any():
        refuse(site, "its sums may overflow 32 bits", "use fewer inputs or smaller biases")
    factor_of = product_factor if product_first else convolution_factor
    scales = np.broadcast_to(np.asarray(stored.scales), (channels,))
    for scale in stored.scales:
        site.check_scale(scale, "weights")
    factors = [factor_of(given.scales[0], float(scale), output.scales[0]) for scale in scales]
    return _frozen(requantization(site, output, folded, factors, once=once), rows)


def _frozen(out: dict[str, Any], rows: Weights) -> tuple[dict[str, Any], Weights]:
    """Channels that give one value for every input, written such that the fast kernels can compute them.

    A dead channel of a trained network has weights of next to nothing and, since its scale is as small, a bias near 2³⁰ or a
    shift of 31: no kernel that doubles accumulators can take it. What it gives between the smallest and the largest sum that
    its weights allow is monotone, so equal ends mean a constant, which zero weights and another bias give as well.
    """
    wide = rows.astype(np.int64)
    bias = out["bias"].values.astype(np.int64)
    multiplier, shift = (out[name].values.astype(np.int64) for name in ("multiplier", "shift"))
    low = bias + np.where(wide > 0, -128 * wide, 127 * wide).sum(axis=1)
    high = bias + np.where(wide > 0, 127 * wide, -128 * wide).sum(axis=1)
    slow = (np.maximum(np.abs(low), np.abs(high)) >= FAST_LIMIT) | (shift < -31) | (multiplier == 0)
    rows, bias, multiplier, shift = rows.copy(), bias.copy(), multiplier.copy(), shift.copy()
    for channel in np.flatnonzero(slow & (shift <= 0)):
        ends = [_output(int(end[channel]), int(multiplier[channel]), int(shift[channel]), out) for end in (low, high)]
        if ends[0] == ends[1]:
            rows[channel] = 0
            multiplier[channel], shift[channel] = 1 << 30, -20
            bias[channel] = (ends[0] - out["zero"]) << 21
    return {
        **out,
        "bias": int_array(bias, np.int32, "bias"),
        "multiplier": int_array(multiplier, np.int32, "requantization"),
        "shift": int_array(shift, np.int8, "requantization"),
    }, rows


def _output(accumulator: int, multiplier: int, shift: int, out: Mapping[str, Any]) -> int:
    """emb_requantize of `kernels/emb_core.h`, for shifts to the right."""
    if out["once"]:
        scaled = (accumulator * multiplier + (1 << (30 - shift))) >> (31 - shift)
    else:
        high = (accumulator * multiplier + (1 << 30)) >> 31
        half = (1 << -shift) >> 1
        scaled = (abs(high) + half >> -shift) * (1 if high >= 0 else -1)
    return int(min(max(scaled + out["zero"], out["min"]), out["max"]))


def pointwise(
    site: Site, out: Mapping[str, Any], rows: Weights, count: int, in_c: int, out_c: int, comment: str
) -> Step:
    """A product of `count` rows with weights, in the fastest layout that they allow."""
    paired = _goes_in_pairs(site, rows, out)
    in_place = out_c <= in_c
    if paired:
        scratch = (6 if count > 2 and not out["once"] else 2) * workspace.up_to(in_c, 4)
    elif site.layout == "vectors":
        scratch = workspace.pointwise(count, in_c, out_c, in_place=in_place, once=bool(out["once"]))
    else:
        scratch = in_c if in_place else 0
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel="emb_pointwise_pairs_s8" if paired else "emb_pointwise_rows_s8",
        source="emb_pointwise_pairs.c" if paired else "emb_pointwise_rows.c",
        structure="emb_pointwise_t",
        parameters={
            "out": _even(out) if paired else out,
            "weights": _stored(rows, paired),
            "rows": count,
            **site.lengths(in_c=in_c, out_c=out_c),
            "scratch_bytes": scratch,
        },
        inputs=(site.input(0).index,),
        outputs=(site.output().index,),
        comment=comment,
        scratch_bytes=scratch,
        in_place=0 if in_place else None,
        macs=site.op.macs,
    )


def _stored(rows: Weights, paired: bool) -> Constant:
    if paired:
        return int_array(packing.pairs(rows), np.uint32, "weights")
    return int_array(rows, np.int8, "weights")


def _even(out: Mapping[str, Any]) -> dict[str, Any]:
    """Tables with an even number of entries: the kernels of pairs read both channels of the last pair."""
    padded = {
        name: Constant(np.pad(out[name].values, (0, len(out[name].values) % 2)), out[name].role)
        for name in ("bias", "multiplier", "shift")
    }
    return {**out, **padded}


def _goes_in_pairs(site: Site, rows: Weights, out: Mapping[str, Any]) -> bool:
    return site.layout == "pairs" and packing.fits_pairs(rows) and _is_fast(rows, out)


def _is_fast(rows: npt.NDArray[np.int8], out: Mapping[str, Any]) -> bool:
    """Whether requantization is a shift to the right of an accumulator below 2³⁰, which is all that the fast kernels do."""
    largest = np.abs(out["bias"].values.astype(np.int64)) + 128 * np.abs(rows.astype(np.int64)).sum(axis=1)
    shifts = out["shift"].values
    return bool((largest < FAST_LIMIT).all() and (shifts <= -1).all() and (shifts >= -31).all())


def window_of(site: Site, given: Tensor, output: Tensor, kernel_h: int, kernel_w: int, channels: int) -> dict[str, int]:
    """Strides, dilations and padding, with the output's shape checked against them."""
    steps = {
        "stride_h": site.option("strideH", 1),
        "stride_w": site.option("strideW", 1),
        "dilation_h": site.option("dilationHFactor", 1),
        "dilation_w": site.option("dilationWFactor", 1),
    }
    if min(steps.values()) < 1:
        refuse(site, f"one of its strides or dilations is {min(steps.values())}", "export the model again")
    reach_h, reach_w = (kernel_h - 1) * steps["dilation_h"] + 1, (kernel_w - 1) * steps["dilation_w"] + 1
    same = padding_is_same(site)
    top, bottom, left, right = site.option("margins", (0, 0, 0, 0))  # of a PAD that the convolution does itself
    expected, pads = [given.shape[0]], []
    for length, reach, stride, margin in (
        (given.shape[1] + top + bottom, reach_h, steps["stride_h"], top),
        (given.shape[2] + left + right, reach_w, steps["stride_w"], left),
    ):
        out, before = window_length(length, reach, stride, same)
        before += margin
        expected.append(out)
        pads.append(before)
    if (*expected, channels) != output.shape or min(expected) < 1:
        refuse(site, f"its output {output.shape} should be {(*expected, channels)}", "export the model again")
    return site.lengths(**steps, pad_top=pads[0], pad_left=pads[1])


def padding_is_same(site: Site) -> bool:
    """Whether the op pads; refused where the option is unknown."""
    padding = site.option("padding")
    if padding not in (0, 1):
        refuse(site, f"its padding {padding} is unknown", "use SAME or VALID")
    return bool(padding == 0)


def window_length(length: int, reach: int, stride: int, same: bool) -> tuple[int, int]:
    """Number of positions of a window that reaches over so many samples, and the padding before the first sample."""
    if not same:
        return (length - reach) // stride + 1, 0
    out = -(-length // stride)
    return out, max(0, (out - 1) * stride + reach - length) // 2


def _lying(fields: Mapping[str, int]) -> dict[str, int]:
    """The fields with height and width changed over."""
    swapped = {"_h": "_w", "_w": "_h", "pad_top": "pad_left", "pad_left": "pad_top"}
    renamed = {}
    for name, value in fields.items():
        renamed[swapped[name] if name in swapped else name[:-2] + swapped[name[-2:]]] = value
    return renamed


def shapes(given: Tensor, output: Tensor, kernel: str, window: Mapping[str, int]) -> str:
    stride = f", stride {window['stride_h']}×{window['stride_w']}"
    return f"{list(given.shape)} → {list(output.shape)}, kernel {kernel}{stride}"
