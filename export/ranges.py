"""Which range every activation of a float `.tflite` gets in int8, from calibration windows, and by which rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from embridge_edge.compression.observers import Observed, Range, observe, range_of
from embridge_edge.errors import EdgeError
from embridge_edge.export.running import layer_values
from embridge_edge.firmware_bridge.graph import Graph, read_graph
from embridge_edge.recipe import QuantizePlan

Floats = npt.NDArray[np.float32]

CHUNK = 64
"""Calibration windows whose activations are in memory together."""

_KINDS: Mapping[str, str] = {
    "CONV_2D": "linear",
    "DEPTHWISE_CONV_2D": "linear",
    "FULLY_CONNECTED": "linear",
    "BATCH_MATMUL": "attention",
    "SOFTMAX": "attention",
}


def kinds_of(graph: Graph) -> dict[str, str]:
    """The class of each activation, one of `recipe.TENSOR_KINDS`: by its place at an end of the graph, else by the op that writes it."""
    found = {graph.tensors[index].name: _KINDS.get(op.name, "other") for op in graph.ops for index in op.outputs}
    found |= {graph.tensors[index].name: "input" for index in graph.inputs}
    return found | {graph.tensors[index].name: "output" for index in graph.outputs}


def observed(float_model: bytes, windows: Floats) -> dict[str, Observed]:
    """What every activation of a float model holds over calibration windows.

    Args:
        windows: float32 `[n, T, C]`, in the unit that the model takes.

    Raises:
        EdgeError: the windows do not fit the model, or hold no or no finite values.
    """
    checked = checked_windows(read_graph(float_model), windows)

    def passes() -> Iterator[Mapping[str, Floats]]:
        for start in range(0, len(checked), CHUNK):
            yield layer_values(float_model, checked[start : start + CHUNK])

    return observe(passes)


def ranges_of(
    float_model: bytes, seen: Mapping[str, Observed], plan: QuantizePlan, given: Mapping[str, Range] | None = None
) -> dict[str, Range]:
    """Activation name to its range, by the plan's observer for the activation's class.

    Args:
        given: ranges in the place of what was observed: learned ones, or those that a device's samples have.

    Raises:
        EdgeError: a range that is none, or one of an activation that is not there.
    """
    kinds = kinds_of(read_graph(float_model))
    found = {
        name: range_of(one, plan.observers.get(kinds[name], plan.observer), plan.percentile)
        for name, one in seen.items()
    }
    for name, (least, largest) in (given or {}).items():
        if name not in found:
            raise EdgeError(f"No activation is named {name!r}; choose among {', '.join(sorted(found))}.")
        if not (np.isfinite([least, largest]).all() and least < largest):
            raise EdgeError(
                f"The range of {name!r} runs from {least} to {largest}; give a smaller and a larger number."
            )
        found[name] = (least, largest)
    return found


def ranges_in(int8_model: bytes) -> dict[str, Range]:
    """Activation name to the range that an int8 model gives it."""
    graph = read_graph(int8_model)
    return {
        tensor.name: ends_of(tensor.scales[0], tensor.zero_points[0])
        for tensor in graph.tensors
        if tensor.type == "int8" and not tensor.is_constant
    }


def ends_of(step: float, zero: int) -> Range:
    """The least and the largest real value of int8 with a step and a zero point."""
    return step * (-128 - zero), step * (127 - zero)


def checked_windows(graph: Graph, calibration: Floats) -> Floats:
    """Calibration windows as the model takes them.

    Raises:
        EdgeError: another shape, none at all, or NaN or infinity among them.
    """
    windows = np.ascontiguousarray(calibration, dtype=np.float32)
    shape = graph.tensors[graph.inputs[0]].shape
    if windows.ndim != len(shape) or windows.shape[1:] != shape[1:]:
        raise EdgeError(
            f"Calibration windows are {windows.shape[1:]}, the model takes {shape[1:]}; use the model's signal chain."
        )
    if not len(windows):
        raise EdgeError("There are no calibration windows; give at least one, better some hundred of several wearers.")
    if not np.isfinite(windows).all():
        raise EdgeError("Calibration windows hold NaN or infinity; drop these windows.")
    return windows
