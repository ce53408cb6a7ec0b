"""Where an op is lowered: the graph, the profile and the layout, with the questions that every lowering asks."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NoReturn

import numpy as np

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.graph import ABSENT, Graph, Op, Tensor
from embridge_edge.firmware_bridge.program import Constant, Layout, Profile, int_array

LARGEST_FIELD = 65535
"""Lengths are stored in 16 bits."""

LONGEST_REASON = 200
"""Characters; a damaged file may hold an axis of thousands of numbers."""

RANGES: dict[str, tuple[int, int]] = {"int8": (-128, 127), "int16": (-32768, 32767), "int32": (-(2**31), 2**31 - 1)}

LEAST_SCALE, LARGEST_SCALE = 2.0**-40, 2.0**40
"""Of activations: products and quotients of three such scales are normal float32 numbers."""

ACTIVATIONS = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}


@dataclasses.dataclass(frozen=True)
class Site:
    """One op and what it is lowered for.

    Attributes:
        graph: the model.
        op: the op.
        profile: whose rounding is followed.
        layout: how weights are to be stored.
    """

    graph: Graph
    op: Op
    profile: Profile
    layout: Layout

    @property
    def layer(self) -> str:
        """The layer's name for people: that of its first output, without the converter's list of merged names."""
        name = self.graph.tensors[self.op.outputs[0]].name.split(";")[0] if self.op.outputs else ""
        return name or f"op {self.op.index}"

    def input(self, position: int, what: str = "input") -> Tensor:
        """The op's input at this position; refused where it is absent."""
        found = self.optional(position)
        if found is None:
            refuse(self, f"its {what} is missing", "export the model again")
        return found

    def optional(self, position: int) -> Tensor | None:
        """The op's input at this position, or None."""
        if position >= len(self.op.inputs) or self.op.inputs[position] == ABSENT:
            return None
        return self.graph.tensors[self.op.inputs[position]]

    def output(self, position: int = 0) -> Tensor:
        """The op's output at this position."""
        if position >= len(self.op.outputs):
            refuse(self, "it has no output", "export the model again")
        return self.graph.tensors[self.op.outputs[position]]

    def option(self, name: str, default: Any = 0) -> Any:
        """A field of the op's option table, or TFLite's default where the file leaves it out."""
        return self.op.options.get(name, default)

    def activation_only(self, tensor: Tensor, what: str) -> Tensor:
        """The tensor, which must be computed at run time."""
        if tensor.is_constant:
            refuse(self, f"its {what} is a constant", "fold the op before exporting")
        return tensor

    def constant(self, position: int, what: str) -> np.ndarray[Any, Any]:
        """Values of an input that must be stored in the model."""
        tensor = self.input(position, what)
        if not tensor.is_constant:
            refuse(self, f"its {what} is computed at run time", f"store the {what} in the model")
        return tensor.array()

    def quantized(self, tensor: Tensor, what: str, types: tuple[str, ...] = ("int8",)) -> tuple[float, int]:
        """Scale and zero point of a tensor quantized as a whole, of one of these types."""
        self.typed(tensor, what, types)
        if len(tensor.scales) != 1:
            how = "has no scale" if not tensor.scales else "is quantized per channel"
            refuse(self, f"its {what} {how}", "quantize activations with one scale for the tensor")
        scale, zero = tensor.scales[0], tensor.zero_points[0]
        if not LEAST_SCALE <= scale <= LARGEST_SCALE:
            refuse(self, f"its {what} has the scale {scale:g}", "quantize the model again")
        self.check_zero(zero, tensor.type, what)
        return scale, zero

    def typed(self, tensor: Tensor, what: str, types: tuple[str, ...]) -> Tensor:
        """The tensor, which must have one of these types."""
        if tensor.type not in types:
            instead = "quantize the whole graph to int8" if tensor.is_float else f"use {' or '.join(types)}"
            refuse(self, f"its {what} is {tensor.type}", instead)
        return tensor

    def check_scale(self, scale: float, what: str) -> None:
        """Refuse a scale that is no positive normal number."""
        if not (math.isfinite(scale) and scale > 0):
            refuse(self, f"its {what} has the scale {scale:g}", "quantize the model again")

    def check_zero(self, zero: int, type_name: str, what: str) -> None:
        """Refuse a zero point that the type cannot hold, or that is not 0 where TFLite wants 0."""
        least, most = RANGES[type_name] if type_name == "int8" else (0, 0)
        if not least <= zero <= most:
            refuse(self, f"its {what} of type {type_name} has the zero point {zero}", "quantize the model again")

    def lengths(self, **lengths: int) -> dict[str, int]:
        """Fields of sixteen bits, refused where one is too long."""
        for name, value in lengths.items():
            if not 0 <= value <= LARGEST_FIELD:
                refuse(self, f"its {name} is {value}", f"keep it between 0 and {LARGEST_FIELD}")
        return lengths


def refuse(site: Site, what: str, instead: str) -> NoReturn:
    """Stop generation: the op, what is wrong with it, and what to use in its place."""
    short = what if len(what) <= LONGEST_REASON else f"{what[: LONGEST_REASON - 1]}…"
    raise EdgeError(f"Layer {site.layer[:80]!r} ({site.op.name}, op {site.op.index}): {short}; {instead}.")


def fused_range(site: Site, output: Tensor) -> tuple[int, int]:
    """Smallest and largest output value with the op's fused activation function.

    TFLite's CalculateActivationRangeQuantized: the bounds of RELU, RELU6 and RELU_N1_TO_1 in steps of the output, rounded half
    away from zero in float32.
    """
    least, most = RANGES[output.type]
    name = ACTIVATIONS.get(site.option("fusedActivationFunction"), "unknown")
    scale, zero = np.float32(output.scales[0]), output.zero_points[0]

    def steps(value: float) -> int:
        quotient = np.float32(value) / scale
        return zero + int(np.copysign(np.floor(np.abs(quotient) + np.float32(0.5)), quotient))

    if name == "NONE":
        return least, most
    if name == "RELU":
        return max(least, steps(0.0)), most
    if name == "RELU6":
        return max(least, steps(0.0)), min(most, steps(6.0))
    if name == "RELU_N1_TO_1":
        return max(least, steps(-1.0)), min(most, steps(1.0))
    refuse(site, f"its fused activation {name} is not supported", "use RELU, RELU6 or a separate op")


def requantization(site: Site, output: Tensor, bias: Any, factors: Any, *, once: bool = False) -> dict[str, Any]:
    """The fields of `emb_requant_t` for accumulators that are `factors` (one per channel) output steps each.

    Args:
        bias: int32 `[channels]`, the input's zero point in it.
        factors: float64 `[channels]`, real multipliers.
    """
    from embridge_edge.firmware_bridge.requantization import multiplier_of

    pairs = [multiplier_of(float(factor)) for factor in factors]
    least, most = fused_range(site, output)
    if least > most:
        refuse(site, "its activation function leaves no output value", "quantize the model again")
    if any(shift > 30 for _, shift in pairs):
        refuse(site, "its output scale is too small for its input scales", "quantize the model again")
    return {
        "bias": int_array(bias, np.int32, "bias"),
        "multiplier": int_array([multiplier for multiplier, _ in pairs], np.int32, "requantization"),
        "shift": int_array([shift for _, shift in pairs], np.int8, "requantization"),
        "zero": output.zero_points[0],
        "min": least,
        "max": most,
        "once": int(once),
    }


def table(values: Any, dtype: type[np.generic]) -> Constant:
    """A lookup table."""
    return int_array(values, dtype, "table")
