"""What the generated code must equal: LiteRT's reference kernels or TensorFlow Lite Micro, every tensor of an inference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.firmware_bridge.graph import Graph
from embridge_edge.firmware_bridge.interpreters import litert_interpreter, tflm_interpreter
from embridge_edge.firmware_bridge.program import Profile

Values = npt.NDArray[Any]
Oracle = Callable[[Sequence[Values]], dict[int, Values]]
"""One inference from a fresh state: inputs in, activations by tensor out."""


def oracle_for(content: bytes, graph: Graph, profile: Profile) -> Oracle:
    """The profile's reference for a model.

    Raises:
        EdgeError: it is not installed, or cannot run the model.
    """
    return _litert(content, graph) if profile == "litert-ref" else _tflm(content, graph)


@contextlib.contextmanager
def _running(runtime: str) -> Iterator[None]:
    """What a runtime says of a model that it loads and cannot run, as one line."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise EdgeError(f"{runtime} cannot run the model ({one_line(error)}); check its ops.") from None


def _litert(content: bytes, graph: Graph) -> Oracle:
    interpreter = litert_interpreter(content, reference=True, preserve=True)

    def run(inputs: Sequence[Values]) -> dict[int, Values]:
        with _running("LiteRT"):
            interpreter.reset_all_variables()
            for index, values in zip(graph.inputs, inputs, strict=True):
                interpreter.set_tensor(index, values)
            interpreter.invoke()
        return {index: np.array(interpreter.get_tensor(index)) for op in graph.ops for index in op.outputs}

    return run


def _tflm(content: bytes, graph: Graph) -> Oracle:
    interpreter = tflm_interpreter(content, graph, preserve=True)

    def run(inputs: Sequence[Values]) -> dict[int, Values]:
        with _running("TFLM"):
            interpreter.reset()
            for position, values in enumerate(inputs):
                interpreter.set_input(values, position)
            interpreter.invoke()
        return {
            index: np.array(interpreter.GetTensor(index, 0)["tensor_data"]).reshape(graph.tensors[index].shape)
            for op in graph.ops
            for index in op.outputs
        }

    return run
