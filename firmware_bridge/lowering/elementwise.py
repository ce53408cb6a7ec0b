"""ADD, SUB, MUL, SQUARED_DIFFERENCE, MAXIMUM, MINIMUM and PRELU: pairs of elements, one operand broadcast where it is smaller."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embridge_edge.firmware_bridge.graph import Tensor
from embridge_edge.firmware_bridge.lowering.broadcasting import MOST_ROWS, Axis, broadcast
from embridge_edge.firmware_bridge.lowering.site import Site, fused_range, refuse
from embridge_edge.firmware_bridge.program import Constant, Step, int_array
from embridge_edge.firmware_bridge.requantization import multiplier_of

TYPES = ("int8", "int16")
HALF = 2**31 - 1
"""With a shift to the right by one, the multiplier that halves any number of up to 30 bits without rounding it."""


@dataclasses.dataclass(frozen=True)
class Operands:
    """Both operands in the kernel's order, and the output."""

    first: Tensor
    second: Tensor
    output: Tensor
    axes: tuple[Axis, ...]

    @property
    def type(self) -> str:
        """Of all three."""
        return self.output.type

    def swapped(self) -> Operands:
        """The second operand first."""
        axes = tuple(Axis(axis.length, axis.second, axis.first) for axis in self.axes)
        return Operands(self.second, self.first, self.output, axes)


def add(site: Site) -> Step:
    """ADD."""
    return _sum(site, _operands(site, TYPES), 1)


def subtract(site: Site) -> Step:
    """SUB."""
    return _sum(site, _operands(site, TYPES), -1)


def _sum(site: Site, operands: Operands, sign: int) -> Step:
    """Both at twice the larger scale; the operand of the larger scale comes first, because it needs no rounding."""
    signs = (1, sign)
    if operands.second.scales[0] > operands.first.scales[0]:
        operands, signs = operands.swapped(), (sign, 1)
    wide = operands.type == "int16"
    bits = 15 if wide else 20
    twice = 2.0 * operands.first.scales[0]
    second = multiplier_of(operands.second.scales[0] / twice)
    out = _below_one(site, twice / (2.0**bits * operands.output.scales[0]))
    least, most = _range(site, operands.output)
    limits = {"min": least, "max": most}
    named_signs = {"first_sign": signs[0], "second_sign": signs[1]}
    if wide:
        _refuse_powers_of_two(site, operands)
        parameters = {"second": _factor(second, bits), "out": _factor(out, 0), **named_signs, **limits}
        return _step(site, operands, "emb_add_s16", "emb_add.c", "emb_add16_t", parameters)
    if out[0] and out[1] > -1:
        refuse(site, "its output scale is too small for its input scales", "quantize the model again")
    equal = operands.second.scales == operands.first.scales
    parameters = {
        "second_multiplier": HALF if equal else second[0],
        "out_multiplier": out[0],
        "second_right": 1 if equal else max(-second[1], 1),
        "out_right": max(-out[1], 1),
        **named_signs,
        **_zeros(operands),
        "zero": operands.output.zero_points[0],
        **limits,
    }
    kernel = "emb_add_s8" if signs == (1, 1) else "emb_sub_s8"
    return _step(site, operands, kernel, "emb_add.c", "emb_add_t", parameters)


def _refuse_powers_of_two(site: Site, operands: Operands) -> None:
    """LiteRT adds int16 of scales that are powers of two by another rule, unless the op says otherwise."""
    tensors = (operands.first, operands.second, operands.output)
    powers = all(np.frexp(tensor.scales[0])[0] == 0.5 for tensor in tensors)
    if powers and site.profile == "litert-ref" and site.option("potScaleInt16", True):
        refuse(
            site,
            "its 16-bit scales are powers of two, which LiteRT adds by a rule of their own",
            "set pot_scale_int16 to false, or use the profile tflm",
        )


def multiply(site: Site) -> Step:
    """MUL."""
    operands = _operands(site, TYPES)
    scales = [operands.first.scales[0], operands.second.scales[0], operands.output.scales[0]]
    if site.profile == "litert-ref":
        factor = float(np.float32(scales[0]) * np.float32(scales[1]) / np.float32(scales[2]))
    else:
        factor = scales[0] * scales[1] / scales[2]
    out = multiplier_of(factor)
    least, most = _range(site, operands.output)
    limits = {"min": least, "max": most}
    if operands.type == "int16":
        if out[1] > 0:
            refuse(site, "its output scale is too small for its input scales", "quantize the model again")
        plain = {"multiplier": out[0], "shift": out[1], **limits}
        return _step(site, operands, "emb_mul_s16", "emb_mul.c", "emb_mul16_t", plain)
    parameters = {
        "out": _bounded_factor(site, out, 255 * 255),
        **_zeros(operands),
        "zero": operands.output.zero_points[0],
        **limits,
    }
    return _step(site, operands, "emb_mul_s8", "emb_mul.c", "emb_mul_t", parameters)


def squared_difference(site: Site) -> Step:
    """SQUARED_DIFFERENCE of int8: both at twice the larger scale with 7 bits below the point."""
    operands = _operands(site, ("int8",))
    if operands.second.scales[0] > operands.first.scales[0]:
        operands = operands.swapped()
    twice = 2.0 * operands.first.scales[0]
    second = multiplier_of(operands.second.scales[0] / twice)
    out = _below_one(site, twice * twice / (2.0**14 * operands.output.scales[0]))
    parameters = {
        "second": _factor(second, 7),
        "multiplier": out[0],
        "shift": out[1],
        **_zeros(operands),
        "zero": operands.output.zero_points[0],
    }
    kernel, structure = "emb_squared_difference_s8", "emb_squared_difference_t"
    return _step(site, operands, kernel, "emb_squared_difference.c", structure, parameters)


def maximum(site: Site) -> Step:
    """MAXIMUM."""
    return _pick(site, "emb_maximum")


def minimum(site: Site) -> Step:
    """MINIMUM."""
    return _pick(site, "emb_minimum")


def _pick(site: Site, kernel: str) -> Step:
    operands = _operands(site, TYPES)
    if operands.first.is_constant:
        operands = operands.swapped()
    tensors = (operands.first, operands.second, operands.output)
    if len({(tensor.scales, tensor.zero_points) for tensor in tensors}) > 1:
        refuse(site, "its inputs and output are not all of one scale", "quantize the model again")
    suffix = "s8" if operands.type == "int8" else "s16"
    return _step(site, operands, f"{kernel}_{suffix}", "emb_maximum.c", "emb_operands_t", None)


def prelu(site: Site) -> Step:
    """PRELU of int8: a factor for what is positive, the second operand for what is negative."""
    operands = _operands(site, ("int8",))
    if operands.first.shape != operands.output.shape:
        refuse(site, f"its output {operands.output.shape} should be {operands.first.shape}", "export the model again")
    given, alpha, output = (t.scales[0] for t in (operands.first, operands.second, operands.output))
    if site.profile == "litert-ref":
        positive = float(np.float32(given) / np.float32(output))
        negative = float(np.float32(given) * np.float32(alpha) / np.float32(output))
    else:
        positive, negative = given / output, given * alpha / output
    parameters = {
        "positive": _bounded_factor(site, multiplier_of(positive), 255),
        "negative": _bounded_factor(site, multiplier_of(negative), 255 * 255),
        **_zeros(operands),
        "zero": operands.output.zero_points[0],
    }
    return _step(site, operands, "emb_prelu_s8", "emb_prelu.c", "emb_prelu_t", parameters)


def _operands(site: Site, types: Sequence[str]) -> Operands:
    first, second, output = site.input(0), site.input(1, "second input"), site.output()
    site.quantized(output, "output", tuple(types))
    site.quantized(first, "first input", (output.type,))
    site.quantized(second, "second input", (output.type,))
    if first.is_constant and second.is_constant:
        refuse(site, "both of its inputs are constants", "fold the op before exporting")
    axes = broadcast(first.shape, second.shape, output.shape)
    if axes is None or output.elements == 0:
        refuse(
            site, f"its inputs {first.shape} and {second.shape} do not give {output.shape}", "export the model again"
        )
    if len(axes) > MOST_ROWS + 1:
        refuse(site, f"its inputs {first.shape} and {second.shape} alternate too often", "reshape them before")
    return Operands(first, second, output, axes)


def _range(site: Site, output: Tensor) -> tuple[int, int]:
    least, most = fused_range(site, output)
    if least > most:
        refuse(site, "its activation function leaves no output value", "quantize the model again")
    return least, most


def _zeros(operands: Operands) -> dict[str, int]:
    return {"first_zero": operands.first.zero_points[0], "second_zero": operands.second.zero_points[0]}


def _below_one(site: Site, factor: float) -> tuple[int, int]:
    """Multiplier and shift of a factor that must be below one, as the references demand."""
    multiplier, shift = multiplier_of(factor)
    if factor >= 1 or shift > 0:
        refuse(site, "its output scale is too small for its input scales", "quantize the model again")
    return multiplier, shift


def _factor(pair: tuple[int, int], bits: int) -> dict[str, int]:
    """`emb_factor_t` of a multiplier and shift after a shift to the left by `bits`."""
    multiplier, shift = pair
    return {"multiplier": multiplier, "left": 1 + bits + max(shift, 0), "right": max(-shift, 0)}


def _bounded_factor(site: Site, pair: tuple[int, int], largest: int) -> dict[str, int]:
    """`emb_factor_t` for values up to `largest` in magnitude."""
    factor = _factor(pair, 0)
    if largest << factor["left"] >= 2**31:
        refuse(site, "its output scale is too small for its input scales", "quantize the model again")
    return factor


def _step(
    site: Site, operands: Operands, kernel: str, source: str, structure: str, parameters: Mapping[str, Any] | None
) -> Step:
    """The call; `parameters` None where the operands are all that the kernel takes."""
    given = [tensor for tensor in (operands.first, operands.second) if not tensor.is_constant]
    over = _over(site, operands)
    if len(given) == 1:
        name, suffix = kernel.rsplit("_", 1)
        kernel = f"{name}_constant_{suffix}"
    whole = [at for at, tensor in enumerate(given) if tensor.shape == operands.output.shape]
    shapes = " and ".join(str(list(tensor.shape)) for tensor in (operands.first, operands.second))
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel=kernel,
        source=source,
        structure=structure,
        parameters=over if parameters is None else {"over": over, **parameters},
        inputs=tuple(tensor.index for tensor in given),
        outputs=(operands.output.index,),
        comment=f"{site.op.name} of {shapes} → {list(operands.output.shape)}",
        in_place=whole[0] if whole else None,
    )


def _over(site: Site, operands: Operands) -> dict[str, Any]:
    """Fields of `emb_operands_t`."""
    *rows, row = operands.axes
    rows = [Axis(1, 0, 0)] * (MOST_ROWS - len(rows)) + rows
    site.lengths(**{f"axis {at}": axis.length for at, axis in enumerate(rows)})
    over: dict[str, Any] = {
        "row": row.length,
        "rows": _array(axis.length for axis in rows),
        "first_rows": _array(axis.first for axis in rows),
        "second_rows": _array(axis.second for axis in rows),
        "first_step": row.first,
        "second_step": row.second,
    }
    for at, tensor in enumerate((operands.first, operands.second)):
        if tensor.is_constant:
            over |= {"constant_first": int(at == 0), "constant": _stored(tensor)}
    return over


def _stored(tensor: Tensor) -> Constant:
    return int_array(tensor.array(), np.int8 if tensor.type == "int8" else np.int16, "weights")


def _array(values: Any) -> str:
    return "{" + ", ".join(str(value) for value in values) + "}"


LOWERINGS: Mapping[str, Callable[[Site], Step]] = {
    "ADD": add,
    "MAXIMUM": maximum,
    "MINIMUM": minimum,
    "MUL": multiply,
    "PRELU": prelu,
    "SQUARED_DIFFERENCE": squared_difference,
    "SUB": subtract,
}
