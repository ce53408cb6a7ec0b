"""AVERAGE_POOL_2D and MAX_POOL_2D."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from embridge_edge.firmware_bridge.lowering.convolution import padding_is_same, window_length
from embridge_edge.firmware_bridge.lowering.site import Site, fused_range, refuse
from embridge_edge.firmware_bridge.program import Step

LARGEST_WINDOW = 1 << 15
"""Samples under a window: the sum of as many int16 fits 32 bits."""


def average_pool_2d(site: Site) -> Step:
    """Mean of the samples under the window; padding does not count."""
    return _pool(site, "emb_average_pool")


def max_pool_2d(site: Site) -> Step:
    """Largest of the samples under the window."""
    return _pool(site, "emb_max_pool")


def _pool(site: Site, kernel: str) -> Step:
    given, output = site.activation_only(site.input(0), "input"), site.output()
    of_input = site.quantized(given, "input", ("int8", "int16"))
    if of_input != site.quantized(output, "output", (given.type,)):
        refuse(site, "its output has another scale than its input", "quantize the model again")
    if len(given.shape) != 4 or len(output.shape) != 4 or min(given.shape) == 0:
        refuse(site, f"its shape {given.shape} is not of four axes", "export the model again")
    batches, in_h, in_w, channels = given.shape
    same = padding_is_same(site)
    pool_h, pool_w = site.option("filterHeight"), site.option("filterWidth")
    stride_h, stride_w = site.option("strideH"), site.option("strideW")
    if min(pool_h, pool_w, stride_h, stride_w) < 1:
        refuse(site, "its window or stride is empty", "export the model again")
    out_h, pad_top = window_length(in_h, pool_h, stride_h, same)
    out_w, pad_left = window_length(in_w, pool_w, stride_w, same)
    if output.shape != (batches, out_h, out_w, channels) or min(output.shape) < 1:
        refuse(site, f"its output {output.shape} should be {(batches, out_h, out_w, channels)}", "export it again")
    if min(pool_h, in_h) * min(pool_w, in_w) > LARGEST_WINDOW:
        refuse(site, f"its window {pool_h}×{pool_w} is too large", f"pool at most {LARGEST_WINDOW} samples at once")
    least, most = fused_range(site, output)
    if least > most:
        refuse(site, "its activation function leaves no output value", "quantize the model again")
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel=f"{kernel}_{'s8' if given.type == 'int8' else 's16'}",
        source="emb_pool.c",
        structure="emb_pool_t",
        parameters={
            **site.lengths(batches=batches, in_h=in_h, in_w=in_w, channels=channels, out_h=out_h, out_w=out_w),
            **site.lengths(pool_h=pool_h, pool_w=pool_w, stride_h=stride_h, stride_w=stride_w),
            **site.lengths(pad_top=pad_top, pad_left=pad_left),
            "min": least,
            "max": most,
        },
        inputs=(given.index,),
        outputs=(output.index,),
        comment=f"{list(given.shape)} → {list(output.shape)}, window {pool_h}×{pool_w}, stride {stride_h}×{stride_w}",
    )


LOWERINGS: Mapping[str, Callable[[Site], Step]] = {
    "AVERAGE_POOL_2D": average_pool_2d,
    "MAX_POOL_2D": max_pool_2d,
}
