"""UNIDIRECTIONAL_SEQUENCE_LSTM of int8 or int16 with cells of int16, as a Keras layer exports it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.firmware_bridge.graph import Tensor
from embridge_edge.firmware_bridge.lowering.convolution import ACCUMULATOR_LIMIT
from embridge_edge.firmware_bridge.lowering.site import Site, refuse
from embridge_edge.firmware_bridge.lowering.sixteen import FULL_SCALE, LARGEST_SUM, scaled_by
from embridge_edge.firmware_bridge.lowering.unary import sigmoid_points
from embridge_edge.firmware_bridge.program import Step, int_array
from embridge_edge.firmware_bridge.requantization import convolution_factor, multiplier_of

# Positions of the op's inputs.
INPUT_WEIGHTS = {"input": 1, "forget": 2, "cell": 3, "output": 4}
RECURRENT_WEIGHTS = {"input": 5, "forget": 6, "cell": 7, "output": 8}
BIASES = {"input": 12, "forget": 13, "cell": 14, "output": 15}
HIDDEN_STATE, CELL_STATE = 18, 19
UNSUPPORTED = {
    **dict.fromkeys((9, 10, 11), "peepholes"),
    **dict.fromkeys((16, 17), "a projection"),
    **dict.fromkeys((20, 21, 22, 23), "layer normalization"),
}

HIDDEN_INTERMEDIATE = 4
TANH = 4
GATE_SCALE = 2.0**-12
"""Steps of a gate's sum: three bits before the point."""
MOST_CELL_BITS = 4
LARGEST_ZERO_DIFFERENCE = 255


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """How much there is of everything, and whether time is the first axis."""

    batches: int
    steps: int
    inputs: int
    cells: int
    time_major: bool


def lstm(site: Site) -> Step:
    """The layer over a whole sequence; its state lives on to the next inference."""
    given, output = site.activation_only(site.input(0), "input"), site.output()
    kind = "int16" if given.type == "int16" else "int8"
    if kind == "int16" and site.profile == "litert-ref":
        refuse(site, "LiteRT has no LSTM of int16", "use the profile tflm, or quantize to int8")
    site.quantized(given, "input", (kind,))
    site.quantized(output, "output", (kind,))
    _check_variant(site)
    sizes = _sizes(site, given, output)
    hidden, cell = _states(site, sizes, output)
    gate = _gate if kind == "int8" else _gate16
    runtime = "litert" if site.profile == "litert-ref" else "tflm"
    each = {
        **site.lengths(batches=sizes.batches, steps=sizes.steps, inputs=sizes.inputs, cells=sizes.cells),
        **_strides(sizes),
        **_cell(site, cell, hidden),
        "gates": _sigmoid(sizes.cells, 3, 0),
        "tanh": _sigmoid(sizes.cells, *_tanh_of_cell(cell)),
    }
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel=f"emb_lstm_{runtime}_s8" if kind == "int8" else "emb_lstm_tflm_s16",
        source=f"emb_lstm_{runtime}.c" if kind == "int8" else "emb_lstm_tflm_s16.c",
        structure="emb_lstm_t" if kind == "int8" else "emb_lstm16_t",
        parameters={**{name: gate(site, name, sizes, given, hidden) for name in INPUT_WEIGHTS}, "each": each},
        inputs=(given.index,),
        outputs=(output.index,),
        comment=f"{list(given.shape)} → {list(output.shape)}",
        scratch_bytes=8 * sizes.cells,
        state_bytes=(3 if kind == "int8" else 4) * sizes.batches * sizes.cells,
        reset="emb_lstm_reset" if kind == "int8" else "",
        macs=sizes.batches * sizes.steps * 4 * sizes.cells * (sizes.inputs + sizes.cells),
    )


def _check_variant(site: Site) -> None:
    for position, what in UNSUPPORTED.items():
        if site.optional(position) is not None:
            refuse(site, f"it has {what}", "use a plain LSTM layer")
    if site.optional(INPUT_WEIGHTS["input"]) is None:
        refuse(site, "its input and forget gates are coupled", "use a plain LSTM layer")
    if site.option("fusedActivationFunction") != TANH:
        refuse(site, "its activation function is not TANH", "use a plain LSTM layer")
    if site.option("diagonalRecurrentTensors"):
        refuse(site, "its recurrent weights are diagonal", "use a plain LSTM layer")


def _sizes(site: Site, given: Tensor, output: Tensor) -> _Sizes:
    if len(given.shape) != 3 or given.elements == 0:
        refuse(site, f"its input has the shape {given.shape}", "give it [batches, time, channels]")
    time_major = bool(site.option("timeMajor"))
    batches, steps = given.shape[1::-1] if time_major else given.shape[:2]
    cells = (*site.input(INPUT_WEIGHTS["forget"], "weights").shape, 0)[0]
    if output.shape != (*given.shape[:2], cells):
        refuse(site, f"its output {output.shape} should be {(*given.shape[:2], cells)}", "export the model again")
    return _Sizes(batches, steps, given.shape[2], cells, time_major)


def _states(site: Site, sizes: _Sizes, output: Tensor) -> tuple[Tensor, Tensor]:
    """The tensors that stand for the state, which say its scales."""
    hidden, cell = site.input(HIDDEN_STATE, "output state"), site.input(CELL_STATE, "cell state")
    site.quantized(hidden, "output state", (output.type,))
    scale, _ = site.quantized(cell, "cell state", ("int16",))
    for tensor in (hidden, cell):
        if not tensor.variable or tensor.elements != sizes.batches * sizes.cells:
            refuse(site, f"its state {tensor.shape} is no variable of its size", "export the model again")
    if (hidden.scales, hidden.zero_points) != (output.scales, output.zero_points):
        refuse(site, "its output has another scale than its output state", "quantize the model again")
    mantissa, _ = math.frexp(scale)
    if mantissa != 0.5 or not 0 <= _cell_bits(cell) <= MOST_CELL_BITS:
        refuse(site, f"its cell state has the scale {scale:g}", "use a power of two, 2⁻¹⁵ … 2⁻¹¹")
    if site.profile == "litert-ref":
        if len(site.op.intermediates) <= HIDDEN_INTERMEDIATE:
            refuse(site, "its intermediate scales are missing", "export it again, or use the profile tflm")
        inner = site.graph.tensors[site.op.intermediates[HIDDEN_INTERMEDIATE]]
        if (inner.scales, inner.zero_points) != (hidden.scales, hidden.zero_points):
            refuse(site, "its hidden values have another scale than its output", "quantize the model again")
    return hidden, cell


def _gate(site: Site, name: str, sizes: _Sizes, given: Tensor, hidden: Tensor) -> dict[str, Any]:
    """The fields of `emb_lstm_gate_t`."""
    bias = _bias(site, name, sizes, "int32")
    fields: dict[str, dict[str, Any]] = {}
    for side, values in (("input", given), ("recurrent", hidden)):
        stored = _weights(site, name, side, sizes)
        weights = stored.array().astype(np.int64)
        starts = bias if side == "input" else np.zeros_like(bias)
        if (np.abs(starts) + LARGEST_ZERO_DIFFERENCE * np.abs(weights).sum(axis=1) >= ACCUMULATOR_LIMIT).any():
            refuse(site, "its sums may overflow 32 bits", "use fewer inputs or smaller biases")
        multiplier, shift = multiplier_of(_gate_factor(site, values.scales[0], stored.scales[0]))
        if shift > 30:
            refuse(site, "its weights have too large a scale", "quantize the model again")
        fields[side] = {
            "weights": int_array(stored.array(), np.int8, "weights"),
            "bias": int_array(starts - values.zero_points[0] * weights.sum(axis=1), np.int32, "bias"),
            "multiplier": multiplier,
            "shift": shift,
        }
    return {f"{side}_{field}": fields[side][field] for field in fields["input"] for side in fields}


def _gate16(site: Site, name: str, sizes: _Sizes, given: Tensor, hidden: Tensor) -> dict[str, Any]:
    """The fields of `emb_lstm_gate16_t`."""
    bias = _bias(site, name, sizes, "int64")
    fields: dict[str, dict[str, Any]] = {}
    for side, values in (("input", given), ("recurrent", hidden)):
        stored = _weights(site, name, side, sizes)
        starts = bias if side == "input" else np.zeros_like(bias)
        if ((starts <= -LARGEST_SUM["short"]) | (starts >= LARGEST_SUM["short"])).any():
            refuse(site, "its bias needs more than 48 bits", "quantize the model again")
        largest = np.abs(starts) + FULL_SCALE * np.abs(stored.array().astype(np.int64)).sum(axis=1)
        factor = _gate_factor(site, values.scales[0], stored.scales[0])
        if (largest >= LARGEST_SUM["short"]).any() or (largest * factor >= 1 << 31).any():
            refuse(site, "its sums may overflow", "use fewer inputs or smaller biases")
        multiplier, right = scaled_by(site, factor, "short")
        fields[side] = {
            "weights": int_array(stored.array(), np.int8, "weights"),
            "bias": int_array(starts, np.int64, "bias"),
            "multiplier": multiplier,
            "right": right,
        }
    del fields["recurrent"]["bias"]
    return {
        f"{side}_{field}": fields[side][field] for field in fields["input"] for side in fields if field in fields[side]
    }


def _bias(site: Site, name: str, sizes: _Sizes, kind: str) -> npt.NDArray[np.int64]:
    stored = site.typed(site.input(BIASES[name], "bias"), "bias", (kind,))
    if not stored.is_constant or stored.elements != sizes.cells:
        refuse(site, "one of its biases does not fit", "export the model again")
    return stored.array().reshape(-1).astype(np.int64)


def _weights(site: Site, name: str, side: str, sizes: _Sizes) -> Tensor:
    positions, columns = (INPUT_WEIGHTS, sizes.inputs) if side == "input" else (RECURRENT_WEIGHTS, sizes.cells)
    stored = site.input(positions[name], "weights")
    _, zero = site.quantized(stored, "weights")
    if not stored.is_constant or stored.shape != (sizes.cells, columns) or zero:
        refuse(site, f"its weights {stored.shape} should be constants {(sizes.cells, columns)}", "export it again")
    return stored


def _gate_factor(site: Site, value_scale: float, weight_scale: float) -> float:
    """Steps of a gate's sum per product: LiteRT multiplies in float32, TFLM in float64."""
    if site.profile == "litert-ref":
        return float(np.float32(weight_scale) * np.float32(value_scale) / np.float32(GATE_SCALE))
    return convolution_factor(value_scale, weight_scale, GATE_SCALE)


def _cell(site: Site, cell: Tensor, hidden: Tensor) -> dict[str, int]:
    """How the cell state and the output are scaled."""
    cell_scale, hidden_scale = np.float32(cell.scales[0]), np.float32(hidden.scales[0])
    if site.profile == "litert-ref":
        hidden_factor = float(np.float32(2.0**-15) / hidden_scale * np.float32(2.0**-15))
        clip = float(np.float32(site.option("cellClip")) / cell_scale)
    else:
        hidden_factor = 2.0**-30 / float(hidden_scale)
        clip = float(np.float32(site.option("cellClip"))) / float(cell_scale)
    cell_multiplier, cell_shift = multiplier_of(2.0**-30 / float(cell_scale))
    if site.profile == "litert-ref":
        cell_shift -= 1  # a plain shift: the multiplier above is a half
    hidden_multiplier, hidden_shift = multiplier_of(hidden_factor)
    if not clip >= 0 or hidden_shift > 30:
        refuse(site, "its clip is negative or its output scale too small", "quantize the model again")
    return {
        "cell_multiplier": cell_multiplier,
        "hidden_multiplier": hidden_multiplier,
        "cell_shift": cell_shift,
        "hidden_shift": hidden_shift,
        "hidden_zero": hidden.zero_points[0],
        "cell_clip": int(min(clip, 32767.0)),
        "cell_bits": _cell_bits(cell),
    }


def _cell_bits(cell: Tensor) -> int:
    """Bits of the cell state before the point."""
    return 14 + math.frexp(cell.scales[0])[1]


def _tanh_of_cell(cell: Tensor) -> tuple[int, int]:
    """Multiplier and shift to the right that bring the cell state to thirds of a gate's step, as TFLM does."""
    left = _cell_bits(cell) - 3
    return (3 << left, 0) if left >= 0 else (3, -left)


def _sigmoid(count: int, multiplier: int, right: int) -> dict[str, Any]:
    points = int_array(sigmoid_points(), np.uint16, "table")
    return {"table": points, "count": count, "multiplier": multiplier, "right": right}


def _strides(sizes: _Sizes) -> dict[str, int]:
    batch, step = (1, sizes.batches) if sizes.time_major else (sizes.steps, 1)
    return {
        "in_batch": batch * sizes.inputs,
        "in_step": step * sizes.inputs,
        "out_batch": batch * sizes.cells,
        "out_step": step * sizes.cells,
    }


LOWERINGS: Mapping[str, Callable[[Site], Step]] = {"UNIDIRECTIONAL_SEQUENCE_LSTM": lstm}
