"""MEAN, SUM, REDUCE_MAX and REDUCE_MIN along any axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from embridge_edge.firmware_bridge.graph import Tensor
from embridge_edge.firmware_bridge.lowering.site import RANGES, Site, refuse
from embridge_edge.firmware_bridge.program import Step
from embridge_edge.firmware_bridge.requantization import multiplier_of

TYPES = ("int8", "int16")


def mean(site: Site) -> Step:
    """MEAN: one over the count is part of the multiplier."""
    return _sum(site, mean=True)


def total(site: Site) -> Step:
    """SUM, for TFLM: LiteRT 2.3's reference kernel multiplies by a number that it never sets."""
    if site.profile == "litert-ref":
        refuse(site, "LiteRT's reference kernel gives other sums each time", "use MEAN, or the profile tflm")
    return _sum(site, mean=False)


def largest(site: Site) -> Step:
    """REDUCE_MAX."""
    return _pick(site, "emb_reduce_max")


def smallest(site: Site) -> Step:
    """REDUCE_MIN."""
    return _pick(site, "emb_reduce_min")


def _sum(site: Site, *, mean: bool) -> Step:
    given, output, axes = _operands(site)
    count = math.prod(given.shape[axis] for axis in axes)
    span = RANGES[given.type][1] - RANGES[given.type][0]
    if count * span >= 2**31:
        refuse(site, f"its sums of {count} values may overflow 32 bits", "reduce fewer values at once")
    multiplier, shift = multiplier_of(given.scales[0] / output.scales[0])
    if mean:
        # QuantizedMeanOrSum: as many bits as the count has are gained before the division, for precision.
        gained = min(count.bit_length() - 1, 32, 31 + shift)
        multiplier, shift = (multiplier << gained) // count, shift - gained
    if count * span << max(shift, 0) >= 2**31:
        refuse(site, "its output scale is too small for its input scale", "quantize the model again")
    parameters = {
        "axes": _axes(site, given.shape, axes),
        "offset": -given.zero_points[0] * count,
        "multiplier": multiplier,
        "shift": shift,
        "zero": output.zero_points[0],
    }
    suffix = "s8" if given.type == "int8" else "s16"
    return _step(site, f"emb_sum_{suffix}", "emb_sum.c", "emb_sum_t", parameters, axes)


def _pick(site: Site, kernel: str) -> Step:
    given, output, axes = _operands(site)
    if given.type == "int16" and site.profile == "tflm":
        refuse(site, "TensorFlow Lite Micro has no int16 kernel for it", "use int8, or the profile litert-ref")
    if given.scales != output.scales or given.zero_points != output.zero_points:
        refuse(site, "its output has another scale than its input", "quantize the model again")
    suffix = "s8" if given.type == "int8" else "s16"
    return _step(site, f"{kernel}_{suffix}", "emb_reduce.c", "emb_axes_t", _axes(site, given.shape, axes), axes)


def _operands(site: Site) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Input, output, and the axes that are reduced, ascending."""
    given, output = site.activation_only(site.input(0), "input"), site.output()
    site.quantized(given, "input", TYPES)
    site.quantized(output, "output", (given.type,))
    site.typed(site.input(1, "list of axes"), "list of axes", ("int32",))
    rank = len(given.shape)
    stored = [int(axis) for axis in site.constant(1, "list of axes").reshape(-1)]
    if given.elements == 0 or any(not -rank <= axis < rank for axis in stored):
        refuse(site, f"its axes {stored} do not fit {given.shape}", "export the model again")
    axes = tuple(sorted({axis % rank for axis in stored}))
    if site.option("keepDims", False):
        expected = tuple(1 if axis in axes else length for axis, length in enumerate(given.shape))
    else:
        expected = tuple(length for axis, length in enumerate(given.shape) if axis not in axes)
    if output.shape != expected:
        refuse(site, f"its output {output.shape} should be {expected}", "export the model again")
    return given, output, axes


def _axes(site: Site, shape: tuple[int, ...], reduced: tuple[int, ...]) -> dict[str, str]:
    """Fields of `emb_axes_t`: runs of neighbouring axes that are all kept or all reduced, axes of length one left out."""
    runs: list[tuple[bool, int, int]] = []  # reduced, length, step
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        step = math.prod(shape[axis + 1 :])
        if runs and runs[-1][0] == (axis in reduced):
            runs[-1] = (runs[-1][0], runs[-1][1] * length, step)
        else:
            runs.append((axis in reduced, length, step))
    fields = {}
    for name, wanted in (("kept", False), ("reduced", True)):
        found = [(length, step) for is_reduced, length, step in runs if is_reduced == wanted]
        if len(found) > 2:
            refuse(site, f"its axes {reduced} of {shape} alternate too often", "reduce them one after the other")
        found = [(1, 0)] * (2 - len(found)) + found
        fields[name] = f"{{{found[0][0]}, {found[1][0]}}}"
        fields[f"{name}_steps"] = f"{{{found[0][1]}, {found[1][1]}}}"
    return fields


def _step(
    site: Site, kernel: str, source: str, structure: str, parameters: Mapping[str, object], axes: tuple[int, ...]
) -> Step:
    given, output = site.input(0), site.output()
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel=kernel,
        source=source,
        structure=structure,
        parameters=parameters,
        inputs=(given.index,),
        outputs=(output.index,),
        comment=f"{site.op.name} of {list(given.shape)} along {list(axes)} → {list(output.shape)}",
    )


LOWERINGS: Mapping[str, Callable[[Site], Step]] = {
    "MEAN": mean,
    "REDUCE_MAX": largest,
    "REDUCE_MIN": smallest,
    "SUM": total,
}
