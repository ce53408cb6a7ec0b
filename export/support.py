"""Which runtimes run the ops of a model file, by the table in `hardware/runtimes.toml`, and what to use in the place of those that do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

from embridge_edge.export import metadata
from embridge_edge.hardware.target import Runtime, runtimes

Status = Literal["runs", "remark", "lacks"]
TYPES = ("int8", "float32")
"""What the table knows of; the types of indices and of layers with 16 bits are not in it."""

WIDE = "16-bit kernels are not in this table; where profile leaves the op to the processor, keep its layer out of wide"


@dataclass(frozen=True)
class OpSupport:
    """An op of a file on a runtime.

    Attributes:
        op, type: as the file names it, and the type that it writes. count: how often it occurs.
        status: "runs", "remark" (it runs, with what `says` says) or "lacks". says: the remark, or what to use in its place.
    """

    runtime: str
    op: str
    type: str
    count: int
    status: Status
    says: str = ""

    def text(self) -> str:
        """One line for people."""
        runtime = runtimes()[self.runtime]
        what = f"{self.count} {self.op} ({self.type})"
        if self.status == "lacks":
            where = "not run by" if not runtime.falls_back else "left to the processor by"
            return f"{what}: {where} {runtime.title}; {self.says}"
        return f"{what} on {runtime.title}: {self.says or 'runs'}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def op_support(model: bytes) -> tuple[OpSupport, ...]:
    """Each kind of op in a `.tflite` or `.onnx` file, on each runtime that takes the file; those that run least first.

    Raises:
        EdgeError: the file is damaged or no model.
    """
    tflite = metadata.is_tflite(model)
    counts = _tflite_ops(model) if tflite else _onnx_ops(model)
    found = [
        _on(runtime, op, kind, count)
        for runtime in runtimes().values()
        if runtime.format == ("tflite" if tflite else "onnx")
        for (op, kind), count in counts.items()
    ]
    order = ("lacks", "remark", "runs")
    return tuple(sorted(found, key=lambda one: order.index(one.status)))


def _on(runtime: Runtime, op: str, kind: str, count: int) -> OpSupport:
    from embridge_edge.firmware_bridge.lowering.table import instead_of

    if kind in TYPES and runtime.lacks([op], kind):
        if kind != "int8" and not runtime.lacks([op]):
            says = "quantize the model to int8"
        else:
            says = f"use {runtime.instead[op]}" if op in runtime.instead else instead_of(op)
        return OpSupport(runtime.name, op, kind, count, "lacks", says)
    remark = runtime.remarks.get(op, "")
    if kind == "int16" and runtime.ops is not None:
        remark = f"{remark}; {WIDE}" if remark else WIDE
    return OpSupport(runtime.name, op, kind, count, "remark" if remark else "runs", remark)


def _tflite_ops(model: bytes) -> Counter[tuple[str, str]]:
    from embridge_edge.firmware_bridge.graph import read_graph

    graph = read_graph(model)
    return Counter((op.name, graph.tensors[op.outputs[0]].type if op.outputs else "int8") for op in graph.ops)


def _onnx_ops(model: bytes) -> Counter[tuple[str, str]]:
    from embridge_edge.export.onnx import parsed

    nodes = parsed(model).graph.node
    return Counter(
        (node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}", "any type")
        for node in nodes
    )
