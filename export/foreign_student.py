"""A model of others as a student: a torch module that takes the same way to int8 as our own, its head, and the comparison with ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.export.foreign import ForeignModel, before_softmax, session_of, teaching, with_outputs
from embridge_edge.features.chain import SignalChain

if TYPE_CHECKING:
    from torch import nn

Floats = npt.NDArray[np.float32]

LARGEST_CONVERSION_ERROR = 1e-4
"""Of float TFLite against ONNX Runtime, as a share of the largest output: two libraries' float kernels differ by some 1e-6."""


def student_output(model: ForeignModel) -> str:
    """The tensor at which a student's graph ends: its embedding, else its scores.

    Raises:
        EdgeError: it has neither.
    """
    outputs = model.plan.outputs
    if outputs.embedding:
        return outputs.embedding
    if outputs.scores:
        return before_softmax(model.file.proto, outputs.scores)
    raise EdgeError("A student's graph ends at an embedding or at scores; name one of them in [outputs].")


def student_module(model: ForeignModel, chain: SignalChain) -> nn.Module:
    """The model from a window to its embedding (else its scores) as a torch module: `[batch, steps, columns]` to `[batch, values]`.

    Raises:
        EdgeError: a shape that does not fit, or an op that has no counterpart or no int8 kernel.
    """
    import torch

    from embridge_edge.export.importing import import_onnx, refuse_float_only, run_apart

    model.refuse_other_shape(chain)
    shape, order = model.plan.input.shape(chain), model.plan.input.order

    def arrange(windows: torch.Tensor) -> torch.Tensor:
        ordered = windows.permute(order)
        return ordered if tuple(ordered.shape[1:]) == shape[1:] else ordered.reshape(-1, *shape[1:])

    module = import_onnx(model.file.proto, model.plan.input.name, shape, arrange, student_output(model))
    refuse_float_only(module)
    with torch.no_grad():
        run_apart(module, torch.zeros(1, *chain.input_shape))
    return module


def score_rows(model: ForeignModel) -> tuple[Floats, Floats] | None:
    """Scores as a linear layer on the embedding, where both are named: rows `[gestures, width]` and biases `[gestures]`.

    The part of the graph between both is run on 0 and on each unit vector, whatever ops it is made of.

    Returns: None where one is not named.

    Raises:
        EdgeError: the scores depend on more than the embedding, or not linearly.
    """
    import onnx

    outputs = model.plan.outputs
    if not (outputs.embedding and outputs.scores):
        return None
    scores = before_softmax(model.file.proto, outputs.scores)
    proto = with_outputs(model.file.proto, [outputs.embedding, scores])
    width = _width(model, outputs.embedding)
    head = onnx.ModelProto()
    head.CopyFrom(proto)
    needed = {scores}
    nodes: list[Any] = []
    for node in reversed(proto.graph.node):
        if any(name in needed for name in node.output) and outputs.embedding not in node.output:
            nodes.insert(0, node)
            needed |= set(node.input)
    del head.graph.node[:], head.graph.input[:], head.graph.output[:], head.graph.value_info[:]
    head.graph.node.extend(nodes)
    apart = EdgeError(
        f"{scores} is no linear layer on {outputs.embedding}; name only one of them in [outputs]: the graph ends at the scores, or a "
        "head is fitted on the embedding."
    )
    if model.plan.input.name in needed:
        raise apart
    free = ["batch", *width]
    head.graph.input.extend([onnx.helper.make_tensor_value_info(outputs.embedding, onnx.TensorProto.FLOAT, free)])
    head.graph.output.extend([onnx.helper.make_tensor_value_info(scores, onnx.TensorProto.FLOAT, None)])
    size = int(np.prod(width))
    session = session_of(head)

    def run(vectors: Floats) -> Floats:
        each = [session.run(None, {outputs.embedding: one.reshape(1, *width)})[0].reshape(-1) for one in vectors]
        return np.asarray(each, np.float32)

    bias = run(np.zeros((1, size), np.float32))[0]
    rows = (run(np.eye(size, dtype=np.float32)) - bias).T
    some = np.random.default_rng(0).standard_normal((8, size)).astype(np.float32)
    expected, got = some @ rows.T + bias, run(some)
    if np.abs(expected - got).max() > 1e-3 * max(1e-9, float(np.abs(got).max())):
        raise apart
    return np.ascontiguousarray(rows), bias


def _width(model: ForeignModel, tensor: str) -> tuple[int, ...]:
    """Shape of a tensor without its batch, by running the model on one window of zeros."""
    port = model.port
    shape = [1 if length is None else length for length in port.shape or ()]
    session = session_of(with_outputs(model.file.proto, [tensor]))
    return tuple(session.run(None, {port.name: np.zeros(shape, np.float32)})[0].shape[1:])


def refuse_other_numbers(model: ForeignModel, chain: SignalChain, converted: bytes, windows: Floats) -> float:
    """Compare float TFLite with ONNX Runtime on real windows.

    Args:
        converted: the float `.tflite`. windows: float32 `[n, steps, columns]`.

    Returns: the largest difference, as a share of the largest output.

    Raises:
        EdgeError: it is above `LARGEST_CONVERSION_ERROR`, or something is not finite.
    """
    from embridge_edge.export.running import run_tflite

    said = teaching(model, chain, ("embedding", "scores"))(windows)  # which refuses scores of another number than names
    expected = said["embedding" if "embedding" in said else "scores"]
    actual = run_tflite(converted, windows)
    error = float(np.abs(actual - expected).max()) / (float(np.abs(expected).max()) or 1.0)
    if not error <= LARGEST_CONVERSION_ERROR:
        raise EdgeError(
            f"TFLite differs from {model.file.path} on ONNX Runtime by {error:.1e} of its largest output (allowed "
            f"{LARGEST_CONVERSION_ERROR:.0e}); report the model, or let it teach a student with distill."
        )
    return error


def identity_rows(count: int) -> tuple[Floats, Floats]:
    """Rows and biases of a head that hands scores on."""
    return np.eye(count, dtype=np.float32), np.zeros(count, np.float32)
