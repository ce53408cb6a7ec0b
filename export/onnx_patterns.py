"""Ops that exporters spell out as several, put together again where ONNX Runtime's passes do not: TFLite has a Gelu and no Erf."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from embridge_edge.export.onnx_ops import Node


def with_gelu(nodes: Sequence[Node], output: str) -> list[Node]:
    """The graph with each ½·x·(1 + erf(x / √2)), in whatever order its factors come, as one Gelu (Hendrycks and Gimpel 2016).

    Args:
        nodes: in order of execution. output: name of the tensor that the graph ends at.
    """
    writers = {name: node for node in nodes for name in node.outputs}
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    gelus: dict[str, Node] = {}
    for erf in nodes:
        ends = _gelu_around(erf, writers, readers) if erf.op == "Erf" else None
        if ends is not None:
            x, last = ends
            gelus[last.outputs[0]] = Node("Gelu", last.name, (x,), last.outputs, {}, {})
    return _leading_to([gelus.get(node.outputs[0], node) for node in nodes], output) if gelus else list(nodes)


def _gelu_around(erf: Node, writers: Mapping[str, Node], readers: Mapping[str, list[Node]]) -> tuple[str, Node] | None:
    """What the function is of, and the op that ends it."""
    divided, plus = writers.get(erf.inputs[0]), _only_reader(erf, readers)
    x = None if divided is None else _times(divided, math.sqrt(0.5))
    if x is None or plus is None or plus.op != "Add" or not any(_is(one, 1.0) for one in plus.constants.values()):
        return None
    product = _only_reader(plus, readers)
    if product is None:
        return None
    if _times(product, 0.5) == plus.outputs[0]:  # ½(1 + erf), then by x
        last = _only_reader(product, readers)
        return (x, last) if last is not None and last.op == "Mul" and x in last.inputs else None
    if product.op != "Mul":
        return None
    (other,) = [name for name in product.inputs if name not in plus.outputs] or [""]
    if other == x:  # x(1 + erf), then halved
        last = _only_reader(product, readers)
        return (x, last) if last is not None and _times(last, 0.5) == product.outputs[0] else None
    halved = writers.get(other)  # ½x by (1 + erf)
    return (x, product) if halved is not None and _times(halved, 0.5) == x else None


def _only_reader(node: Node, readers: Mapping[str, list[Node]]) -> Node | None:
    found = readers.get(node.outputs[0], [])
    return found[0] if len(found) == 1 else None


def _times(node: Node, factor: float) -> str | None:
    """What a node multiplies by a constant factor (or divides by its reciprocal); None where it does something else."""
    if node.op == "Mul":
        return next((node.inputs[1 - at] for at, value in node.constants.items() if _is(value, factor)), None)
    return node.inputs[0] if node.op == "Div" and 1 in node.constants and _is(node.constants[1], 1.0 / factor) else None


def _is(value: object, wanted: float) -> bool:
    import numpy as np

    array = np.asarray(value)
    return array.size == 1 and math.isclose(float(array.reshape(())), wanted, rel_tol=1e-4)


def _leading_to(nodes: Sequence[Node], output: str) -> list[Node]:
    """Those ops that a tensor needs."""
    needed: set[str] = {output}
    kept: list[Node] = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            kept.insert(0, node)
            needed.update(node.inputs)
    return kept
