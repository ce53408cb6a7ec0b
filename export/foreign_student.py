"""A model of others as a student: a torch module that takes the same way to int8 as our own, its head, and the comparison with ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.export.agreement import LARGEST_CONVERSION_ERROR, conversion_error
from embridge_edge.export.foreign import ForeignModel, before_softmax, session_of, teaching, with_outputs
from embridge_edge.features.chain import SignalChain

if TYPE_CHECKING:
    from torch import nn

Floats = npt.NDArray[np.float32]


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

    try:
        module = import_onnx(model.file.proto, model.plan.input.name, shape, arrange, student_output(model))
        refuse_float_only(module)
        with torch.no_grad():
            run_apart(module, torch.zeros(1, *chain.input_shape))
            rows = len(module(torch.zeros(1, *chain.input_shape)))
        if rows != 1:
            raise EdgeError(f"{model.file.path} gives {rows} rows for one window; export it with a free batch axis.")
    except EdgeError:
        if model.batch not in (None, 1):  # whose shapes may be what is in the way
            raise EdgeError(
                f"{model.file.path} takes {model.batch} windows at once, a student one, and it cannot be made to; export it with a free "
                "batch axis, or with a batch of one."
            ) from None
        raise
    return module


def score_rows(model: ForeignModel, chain: SignalChain) -> tuple[Floats, Floats] | None:
    """Scores as a linear layer on the embedding, where both are named: rows `[gestures, width]` and biases `[gestures]`.

    The part of the graph between both is run on 0 and on each unit vector, whatever ops it is made of.

    Returns: None where one is not named.

    Raises:
        EdgeError: the scores depend on more than the embedding, or not linearly.
    """
    outputs = model.plan.outputs
    if not (outputs.embedding and outputs.scores):
        return None
    scores = before_softmax(model.file.proto, outputs.scores)
    apart = EdgeError(
        f"{scores} is no linear layer on {outputs.embedding}; name only one of them in [outputs]: the graph ends at the scores, or a "
        "head is fitted on the embedding."
    )
    if outputs.embedding == scores:
        return None
    try:
        head, width = _between(model, chain, outputs.embedding, scores)
        size = int(np.prod(width))
        if head is None:
            raise apart

        def run(vectors: Floats) -> Floats:
            each = [head.run(None, {outputs.embedding: one.reshape(1, *width)})[0].reshape(-1) for one in vectors]
            return np.asarray(each, np.float32)

        bias = run(np.zeros((1, size), np.float32))[0]
        rows = (run(np.eye(size, dtype=np.float32)) - bias).T
        some = np.random.default_rng(0).standard_normal((8, size)).astype(np.float32)
        error = float(np.abs(some @ rows.T + bias - run(some)).max())
    except EdgeError:
        raise
    except Exception:  # ONNX Runtime has an exception of its own for every op that does not take what it is given
        raise apart from None
    if not error <= 1e-3 * (float(np.abs(rows).max()) or 1.0):
        raise apart
    return np.ascontiguousarray(rows), bias


def _between(model: ForeignModel, chain: SignalChain, start: str, end: str) -> tuple[Any, tuple[int, ...]]:
    """The part of the graph from one tensor to another in ONNX Runtime, None where it needs more; and the first one's shape."""
    import onnx

    whole = session_of(with_outputs(model.file.proto, [start]))
    shape = (model.batch or 1, *model.plan.input.shape(chain)[1:])
    width = tuple(whole.run(None, {model.plan.input.name: np.zeros(shape, np.float32)})[0].shape[1:])
    needed = {end}
    nodes: list[Any] = []
    for node in reversed(model.file.proto.graph.node):
        if needed.intersection(node.output) and start not in node.output:
            nodes.insert(0, node)
            needed.update(node.input)
    if model.plan.input.name in needed or start not in needed:
        return None, width
    part = with_outputs(model.file.proto, [end])
    del part.graph.node[:], part.graph.input[:], part.graph.value_info[:]
    part.graph.node.extend(nodes)
    part.graph.input.extend([onnx.helper.make_tensor_value_info(start, onnx.TensorProto.FLOAT, ["batch", *width])])
    return session_of(part), width


def student_values(model: ForeignModel, chain: SignalChain, windows: Floats) -> Floats:
    """What a student's graph ends at, by ONNX Runtime: float32 `[n, values]`.

    Args:
        windows: float32 `[n, steps, columns]`.

    Raises:
        EdgeError: something is not finite, or the scores are not as many as the gestures.
    """
    said = teaching(model, chain, ("embedding", "scores"))(windows)
    return said["embedding" if "embedding" in said else "scores"]


def refuse_other_numbers(model: ForeignModel, expected: Floats, converted: bytes, windows: Floats) -> float:
    """Compare float TFLite with ONNX Runtime on real windows.

    Args:
        expected: `student_values` of them. converted: the float `.tflite`. windows: float32 `[n, steps, columns]`.

    Returns: the largest difference, as a share of the largest output.

    Raises:
        EdgeError: it is above `LARGEST_CONVERSION_ERROR`.
    """
    from embridge_edge.export.running import run_tflite

    error = conversion_error(expected, run_tflite(converted, windows))
    if not error <= LARGEST_CONVERSION_ERROR:
        raise EdgeError(
            f"TFLite differs from {model.file.path} on ONNX Runtime by {error:.1e} of its largest output (allowed "
            f"{LARGEST_CONVERSION_ERROR:.0e}); let it teach a student with distill, and report it."
        )
    return error


def identity_rows(count: int) -> tuple[Floats, Floats]:
    """Rows and biases of a head that hands scores on."""
    return np.eye(count, dtype=np.float32), np.zeros(count, np.float32)
