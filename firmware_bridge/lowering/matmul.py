"""BATCH_MATMUL of int8 and int16, both operands computed at run time or one of them a constant."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from embridge_edge.firmware_bridge.graph import Tensor
from embridge_edge.firmware_bridge.lowering.convolution import pointwise
from embridge_edge.firmware_bridge.lowering.site import Site, refuse, requantization
from embridge_edge.firmware_bridge.lowering.sixteen import scaled_by
from embridge_edge.firmware_bridge.lowering.view import View
from embridge_edge.firmware_bridge.program import Constant, Step
from embridge_edge.firmware_bridge.requantization import multiplier_of, product_factor

BATCH_AXES = 3
LARGEST_PRODUCT: dict[str, int] = {"int8": 255 * 255, "int16": 1 << 30}
LARGEST_DEPTH: dict[str, int] = {"int8": 1 << 14, "int16": 1 << 16}
"""Products summed up: those of int8 stay below 2³⁰, those of int16 below 2⁴⁷."""


@dataclasses.dataclass(frozen=True)
class _Operand:
    """One side of the product.

    Attributes:
        tensor: its values.
        view: batches as many as the output has, then rows and depth (left) or columns and depth (right).
    """

    tensor: Tensor
    view: View


def batch_matmul(site: Site) -> Step:
    """Matrix products over all batches."""
    left, right, output = site.input(0), site.input(1), site.output()
    kind = left.type if left.type == "int16" else "int8"
    for tensor, what in ((left, "left operand"), (right, "right operand"), (output, "output")):
        site.quantized(tensor, what, (kind,))
        if len(tensor.shape) < 2 or tensor.elements == 0:
            refuse(site, f"its {what} has the shape {tensor.shape}", "export the model again")
    if left.is_constant and right.is_constant:
        refuse(site, "both of its operands are constants", "fold the op before exporting")
    sides = _sides(site, left, right, output)
    target = View.of(output.shape)
    factor = product_factor(left.scales[0], right.scales[0], output.scales[0])
    fast = _as_rows(site, sides, output, factor) if kind == "int8" else None
    if fast is not None:
        return fast
    if left.is_constant or _is_faster_transposed(sides):
        # A constant stands on the right. The product of the transposed operands is the output transposed.
        sides = (sides[1], sides[0])
        axes = len(target.lengths)
        target = target.order((*range(axes - 2), axes - 1, axes - 2))
    return _step(site, sides, target, factor, kind)


def _is_faster_transposed(sides: tuple[_Operand, _Operand]) -> bool:
    """Whether only the right side's values lie together along the axis that is summed over, as the left side's should."""
    left, right = sides
    return left.view.steps[-1] != 1 and right.view.steps[-1] == 1 and not right.tensor.is_constant


def _sides(site: Site, left: Tensor, right: Tensor, output: Tensor) -> tuple[_Operand, _Operand]:
    """Both operands with the axis that is summed over last, checked against the output."""
    batches = len(output.shape) - 2
    found = []
    for tensor, swapped in ((left, bool(site.option("adjX"))), (right, not site.option("adjY"))):
        missing = batches - (len(tensor.shape) - 2)
        if missing < 0:
            refuse(site, f"{tensor.shape} has more axes than the output {output.shape}", "export the model again")
        view = View.of((1,) * missing + tensor.shape)
        order = (*range(batches), batches + 1, batches) if swapped else tuple(range(batches + 2))
        view = view.order(order)
        steps = tuple(0 if n == 1 else step for n, step in zip(view.lengths, view.steps, strict=True))
        found.append(_Operand(tensor, View(0, view.lengths, (*steps[:batches], *view.steps[batches:]))))
    lengths = [side.view.lengths for side in found]
    for axis in range(batches):
        pair = {lengths[0][axis], lengths[1][axis]}
        if not pair <= {1, output.shape[axis]} or max(pair) != output.shape[axis]:
            refuse(site, f"its batches {left.shape} and {right.shape} do not fit {output.shape}", "export it again")
    if lengths[0][-1] != lengths[1][-1] or (lengths[0][-2], lengths[1][-2]) != output.shape[-2:]:
        refuse(site, f"{left.shape} times {right.shape} is not {output.shape}", "export the model again")
    return found[0], found[1]


def _as_rows(site: Site, sides: tuple[_Operand, _Operand], output: Tensor, factor: float) -> Step | None:
    """The step of FULLY_CONNECTED, where a matrix of weights stands on the right and rows lie one behind the other."""
    left, right = sides
    stored = right.tensor
    if not stored.is_constant or any(stored.zero_points) or math.prod(stored.shape[:-2]) != 1 or site.option("adjX"):
        return None
    values = stored.array().reshape(stored.shape[-2:])
    weights = np.ascontiguousarray(values if site.option("adjY") else values.T)
    out_c, in_c = weights.shape
    _check_depth(site, in_c, "int8")
    bias = -left.tensor.zero_points[0] * weights.astype(np.int64).sum(axis=1)
    out = requantization(site, output, bias, [factor] * out_c)
    comment = f"{list(left.tensor.shape)} × {list(stored.shape)}"
    return pointwise(site, out, weights, left.tensor.elements // in_c, in_c, out_c, comment)


def _step(site: Site, sides: tuple[_Operand, _Operand], target: View, factor: float, kind: str) -> Step:
    left, right = sides
    batches = len(target.lengths) - 2
    if batches > BATCH_AXES:
        refuse(site, f"it has {batches} axes of batches", f"reshape them to {BATCH_AXES}")
    depth = left.view.lengths[-1]
    _check_depth(site, depth, kind)
    zeros = {
        "left_zero": left.tensor.zero_points[0],
        "right_zero": right.tensor.zero_points[0],
        "out_zero": site.output().zero_points[0],
    }
    product = {
        "batches": _batches(target.lengths, 1),
        "left_batch": _batches(left.view.steps, 0),
        "right_batch": _batches(right.view.steps, 0),
        "out_batch": _batches(target.steps, 0),
        "rows": target.lengths[-2],
        "columns": target.lengths[-1],
        "depth": depth,
        "left_row": left.view.steps[-2],
        "left_depth": left.view.steps[-1],
        "right_column": right.view.steps[-2],
        "right_depth": right.view.steps[-1],
        "out_row": target.steps[-2],
        "out_column": target.steps[-1],
        "factor": _factor(site, factor, depth, kind),
        **zeros,
    }
    stored = right.tensor.is_constant
    suffix = ("_table" if stored else "") + ("_s16" if kind == "int16" else "_s8")
    structure = "emb_matmul_t"
    if stored:
        structure = "emb_matmul_table16_t" if kind == "int16" else "emb_matmul_table_t"
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel=f"emb_batch_matmul{suffix}",
        source="emb_batch_matmul_s16.c" if kind == "int16" else "emb_batch_matmul_s8.c",
        structure=structure,
        parameters={"product": product, "right": Constant(right.tensor.array().reshape(-1), "weights")}
        if stored
        else product,
        inputs=(left.tensor.index,) if stored else (left.tensor.index, right.tensor.index),
        outputs=(site.output().index,),
        comment=f"{list(site.input(0).shape)} × {list(site.input(1).shape)}",
        scratch_bytes=0 if kind == "int16" else 4 * target.lengths[-2] + depth,
        macs=site.op.macs,
    )


def _factor(site: Site, factor: float, depth: int, kind: str) -> dict[str, int]:
    """The fields of `emb_factor_t`, for sums of so many products."""
    if kind == "int16":
        multiplier, right = scaled_by(site, factor, "short")
        fits, left = depth * LARGEST_PRODUCT[kind] * factor < 1 << 31, 0
    else:
        multiplier, shift = multiplier_of(factor)
        left, right = 1 + max(shift, 0), max(-shift, 0)
        fits = depth * LARGEST_PRODUCT[kind] << left < 1 << 31
    if not fits:
        refuse(site, "its output scale is too small for its input scales", "quantize the model again")
    return {"multiplier": multiplier, "left": left, "right": right}


def _check_depth(site: Site, depth: int, kind: str) -> None:
    if depth > LARGEST_DEPTH[kind]:
        refuse(site, f"it sums {depth} products", f"keep it below {LARGEST_DEPTH[kind]}")


def _batches(values: tuple[int, ...], fill: int) -> str:
    """The batches' part of lengths or steps, as an array inside a structure."""
    batches = (fill,) * (BATCH_AXES + 2 - len(values)) + values[:-2]
    return f"{{{', '.join(map(str, batches))}}}"


LOWERINGS: Mapping[str, Callable[[Site], Step]] = {"BATCH_MATMUL": batch_matmul}
