"""Float `.tflite` → `.tflite` in integers, full int8 or with some layers' activations in 16 bits."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.compression.observers import Range
from embridge_edge.errors import EdgeError, one_line
from embridge_edge.export.bias import corrected
from embridge_edge.export.flatbuffer import repack_inline
from embridge_edge.export.ranges import checked_windows, observed, ranges_of
from embridge_edge.export.scales import MOVING, scale_faults
from embridge_edge.firmware_bridge.graph import Graph, Op, float_ops, op_counts, read_graph, ring_seam
from embridge_edge.quiet import silenced
from embridge_edge.recipe import QuantizePlan

Floats = npt.NDArray[np.float32]


def quantize_tflite(
    float_model: bytes,
    calibration: Floats,
    plan: QuantizePlan | None = None,
    *,
    ranges: Mapping[str, Range] | None = None,
    most_transposes: int = 1,
) -> bytes:
    """Quantize a float `.tflite` to integers, inputs and outputs included, and check that it is what the plan asked for.

    Weights are int8 per output channel, but a constant operand of BATCH_MATMUL (learned queries of several heads fold
    into one) per tensor: scales per channel would run along the contraction axis, where LiteRT and TFLM were 60 steps
    apart, against 2 with one scale. The same input gives the same bytes.

    Args:
        float_model: from `to_tflite`.
        calibration: windows `[n, T, C]`, float32, in the unit that the model takes.
        plan: observers, 16-bit layers, bias correction; None takes the default one.
        ranges: tensor name → (least, largest), in place of what the observers found (learned or clipped ranges).
        most_transposes: TRANSPOSE ops that the graph may hold.

    Raises:
        EdgeError: the windows do not fit, a range or a layer is named that is not there, or the result is not as asked for.
    """
    plan = plan or QuantizePlan()
    graph = read_graph(float_model)
    windows = checked_windows(graph, calibration)
    wide = layers_named(graph, plan.wide)
    found = ranges_of(float_model, observed(float_model, windows), plan, ranges)
    model = quantized(float_model, found, wide=wide)
    if plan.bias_correction:
        model = corrected(model, float_model, windows)
    graph = read_graph(model)
    refuse_unless_as_asked(graph, wide, most_transposes)
    for fault in scale_faults(graph, found):
        raise EdgeError(f"The quantizer did not do what it was asked for: {fault}; use another version of it.")
    return model


def quantized(
    float_model: bytes,
    ranges: Mapping[str, Range],
    *,
    wide: Iterable[str] = (),
    only: Iterable[str] | None = None,
    left_float: Iterable[str] = (),
) -> bytes:
    """The quantizer's work alone: a graph with these ranges.

    Args:
        ranges: of every activation. wide: layers whose outputs have 16 bits.
        only: quantize these layers and leave the others float; None quantizes all. left_float: layers to leave float.
    """
    return repack_inline(from_quantizer(float_model, ranges, wide=wide, only=only, left_float=left_float))


def from_quantizer(
    float_model: bytes,
    ranges: Mapping[str, Range],
    *,
    wide: Iterable[str] = (),
    only: Iterable[str] | None = None,
    left_float: Iterable[str] = (),
) -> bytes:
    """As `quantized`, with the weights wherever the quantizer leaves them."""
    graph = read_graph(float_model)
    ndims = {tensor.name: len(tensor.shape) for tensor in graph.tensors}
    statistics = {
        name: {
            end: np.full((1,) * ndims[name], value, np.float32) for end, value in zip(("min", "max"), one, strict=True)
        }
        for name, one in ranges.items()
    }
    try:
        with silenced():
            from ai_edge_quantizer import quantizer

            asked = _asked_for(touching(graph, wide), only, left_float)
            made = quantizer.Quantizer(float_model, asked.get_quantization_recipe())
            result = made.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
            return bytes(result.quantized_model)
    except ImportError as error:
        raise EdgeError(
            f"Quantizing TFLite needs ai-edge-quantizer ({error.name} is missing); install embridge-edge[tflite]."
        ) from None
    except (ValueError, RuntimeError) as error:
        raise EdgeError(
            f"The model cannot be quantized ({one_line(error)}); check its ops with the float model."
        ) from None


def layers_of(graph: Graph) -> dict[str, Op]:
    """The layers that can be quantized by themselves, by the name of what they write: ops with weights or products.

    The others (RESHAPE, TRANSPOSE, …) move values, and take the type of what they move.
    """
    return {graph.tensors[op.outputs[0]].name: op for op in graph.ops if op.name not in MOVING}


def can_be_wide(graph: Graph, name: str) -> bool:
    """Whether a layer's output can have 16 bits: not at the graph's end, which is int8, not a softmax, whose range is fixed, not a
    squared difference, which the quantizer leaves in int8, and not a ring's tokens, which are int8 as well."""
    op, seam = layers_of(graph)[name], ring_seam(graph)
    fixed = (*graph.outputs, *(() if seam is None else seam.inputs[:1]))
    return op.name not in ("SOFTMAX", "SQUARED_DIFFERENCE") and op.outputs[0] not in fixed


def layers_named(graph: Graph, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers that shell patterns name and whose outputs can have 16 bits, in order of execution.

    Raises:
        EdgeError: a pattern that names none; lists those that there are.
    """
    layers = [name for name in layers_of(graph) if can_be_wide(graph, name)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise EdgeError(f"No layer that can have 16 bits is named {pattern!r}; choose among {', '.join(layers)}.")
    return tuple(name for name in layers if any(fnmatchcase(name, pattern) for pattern in patterns))


def touching(graph: Graph, wide: Iterable[str]) -> tuple[str, ...]:
    """The ops that have to compute in 16 bits so that some tensors have them, by what they write: TFLite's kernels take inputs and
    outputs of one width, so these are the writers and all readers, and what only moves values between them.
    """
    wanted = set(wide)
    found: dict[str, None] = {}
    for op in graph.ops:  # in order of execution: what a moving op hands on is wanted before its readers come
        written = graph.tensors[op.outputs[0]].name
        reads = any(index >= 0 and graph.tensors[index].name in wanted for index in op.inputs)
        if written in wanted or reads:
            found[written] = None
        if reads and op.name in MOVING:
            wanted.add(written)
    return tuple(found)


def _asked_for(wide: Collection[str], only: Iterable[str] | None, left_float: Iterable[str]) -> Any:
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager

    every, product = qtyping.TFLOperationName.ALL_SUPPORTED, qtyping.TFLOperationName.BATCH_MATMUL
    tensorwise = qtyping.QuantGranularity.TENSORWISE
    asked = recipe_manager.RecipeManager()

    def add(where: str, bits: int) -> None:
        asked.add_static_config(regex=where, operation_name=every, activation_num_bits=bits, weight_num_bits=8)
        asked.add_static_config(
            regex=where,
            operation_name=product,
            activation_num_bits=bits,
            weight_num_bits=8,
            weight_granularity=tensorwise,
        )

    for where in [".*"] if only is None else map(_exactly, only):
        add(where, 8)
    for name in wide:
        add(_exactly(name), 16)
    if (
        wide
    ):  # the ends bear the names of ops that may have 16 bits, and are int8 all the same; the later pattern counts
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            asked.add_static_config(regex="", operation_name=end, activation_num_bits=8, weight_num_bits=8)
    for name in left_float:
        asked.add_quantization_config(
            regex=_exactly(name),
            operation_name=every,
            op_config=None,
            algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE,
        )
    return asked


def _exactly(name: str) -> str:
    """A pattern for the one op that writes a tensor; the quantizer names an op by what it writes, with semicolons between."""
    return f"(^|;){re.escape(name)}(;|$)"


def refuse_unless_as_asked(graph: Graph, wide: Sequence[str], most_transposes: int = 1) -> None:
    """Check what a microcontroller needs: int8 in and out, no float op, few TRANSPOSEs, weights inside, 16 bits where asked for.

    Raises:
        EdgeError: one of these is not so.
    """
    if left := float_ops(graph):
        names = ", ".join(sorted({op.name for op in left}))
        raise EdgeError(
            f"{len(left)} ops stayed float ({names}); replace them in the student by ops with an int8 kernel."
        )
    for index in (*graph.inputs, *graph.outputs):
        if graph.tensors[index].type != "int8":
            raise EdgeError(
                f"{graph.tensors[index].name} is {graph.tensors[index].type}, not int8; "
                "quantize inputs and outputs too."
            )
    types = {tensor.name: tensor.type for tensor in graph.tensors}
    for name in wide:
        if types.get(name) != "int16":
            raise EdgeError(f"{name} was asked for in 16 bits and is {types.get(name)}; name another layer in wide.")
    if (transposes := op_counts(graph).get("TRANSPOSE", 0)) > most_transposes:
        raise EdgeError(
            f"The graph holds {transposes} TRANSPOSE ops, more than {most_transposes}; "
            "keep the module channels last from its input on."
        )
    if graph.weights_at_offsets:
        raise EdgeError(
            "Weights stand behind the flatbuffer, where TensorFlow Lite Micro does not look; repack the model."
        )
