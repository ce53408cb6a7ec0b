"""`profile`: what an artifact costs: bytes, multiply-accumulates, memory, and on this host its latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.errors import EdgeError, GateMissed, one_line
from embridge_edge.hardware.host import HostFacts, Latency, host_facts, measure_latency
from embridge_edge.hardware.target import FitReport, Target, find_target, fits
from embridge_edge.hardware.vela import NpuEstimate, estimate
from embridge_edge.progress import SILENT, Progress
from embridge_edge.verbs.models import artifact_in
from embridge_edge.verbs.options import Common, common_options, show

if TYPE_CHECKING:
    from embridge_edge.export.reading import Artifact
    from embridge_edge.export.ring import Parts
    from embridge_edge.firmware_bridge.graph import Graph

WARMUP = 20
REPEATS = 1000
BUDGET_S = 5.0
MOST_NAMED = 4
ARENA_SOURCE = "TFLM's allocator on this host, whose pointers are 8 bytes: a Cortex-M needs somewhat less"
PEAK_SOURCE = "largest sum of live activations: what no planner can go below without computing in place"


@dataclass(frozen=True)
class RuntimeLatency:
    """Latency on one runtime, or why there is none."""

    runtime: str
    latency: Latency | None
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        measured = None if self.latency is None else self.latency.to_json()
        return {"runtime": self.runtime, "latency": measured, "why_not": self.why_not}


@dataclass(frozen=True)
class GraphCost:
    """What can be counted on a `.tflite` without running it."""

    macs: int
    weight_bytes: int
    peak_activation_bytes: int
    ops: Mapping[str, int]
    float_ops: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "macs": self.macs,
            "weight_bytes": self.weight_bytes,
            "peak_activation_bytes": self.peak_activation_bytes,
            "ops": dict(self.ops),
            "float_ops": list(self.float_ops),
        }


@dataclass(frozen=True)
class Profile:
    """What an artifact costs on a target.

    Attributes:
        artifact: the file.
        kind: "tflite" or "onnx".
        precision: "int8", "float32", or "mixed" where an int8 model has float ops.
        model_bytes: size of the file.
        target: what it was profiled for.
        cost: what was counted; None for ONNX.
        arena_bytes: RAM that TFLM's allocator took on this host; None where it could not run.
        arena_why_not: why.
        latencies: per runtime; empty where no board is attached.
        fit: needs against the target's budget; None where the target has none.
        lacking_ops: ops that the target's runtime does not run.
        host: where it was measured.
        notes: what a reader must know.
        npu: what Vela says of an accelerator.
        ring: of a ring student: what a decision costs where tokens are kept.
    """

    artifact: Path
    kind: str
    precision: str
    model_bytes: int
    target: Target
    cost: GraphCost | None
    arena_bytes: int | None
    arena_why_not: str
    latencies: tuple[RuntimeLatency, ...]
    fit: FitReport | None
    lacking_ops: tuple[str, ...]
    host: HostFacts
    notes: tuple[str, ...] = field(default=())
    npu: NpuEstimate | None = None
    ring: Parts | None = None

    @property
    def ok(self) -> bool:
        """Whether the target can hold the model and its runtime runs every op."""
        accelerated = self.npu is None or not self.npu.cpu_ops
        return accelerated and not self.lacking_ops and (self.fit is None or self.fit.ok)

    def text(self) -> str:
        rows = [
            ("artifact", f"{self.artifact.name}, {self.kind}, {self.precision}, {self.model_bytes:,} bytes"),
            ("target", f"{self.target.name}: {self.target.title}"),
        ]
        if self.cost is not None:
            ops = ", ".join(f"{count} {name}" for name, count in self.cost.ops.items())
            rows += [
                ("MACs", f"{self.cost.macs:,}"),
                ("weights", f"{self.cost.weight_bytes:,} bytes"),
                ("activations", f"{self.cost.peak_activation_bytes:,} bytes at the peak ({PEAK_SOURCE})"),
                ("arena", self._arena()),
                ("ops", ops),
                ("float ops", ", ".join(self.cost.float_ops) or "none"),
            ]
        if self.ring is not None:
            rows.append(("hop by hop", self.ring.text()))
        rows += [
            (f"on {item.runtime}", item.latency.text() if item.latency else item.why_not) for item in self.latencies
        ]
        if self.fit is not None:
            rows.append(("fit", self.fit.text()))
        if self.npu is not None:
            rows.append(("estimate", self.npu.text()))
        if self.lacking_ops:
            rows.append(("lacking", f"{self.target.runtime.name} does not run {', '.join(self.lacking_ops)}"))
        width = max(len(name) for name, _ in rows)
        return "\n".join([*(f"{name.ljust(width)}  {value}" for name, value in rows), *self.notes])

    def _arena(self) -> str:
        if self.arena_bytes is None:
            return self.arena_why_not
        return f"{self.arena_bytes:,} bytes ({ARENA_SOURCE})"

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "artifact": self.artifact.name,
            "kind": self.kind,
            "precision": self.precision,
            "model_bytes": self.model_bytes,
            "target": self.target.name,
            "cost": None if self.cost is None else self.cost.to_json(),
            "arena_bytes": self.arena_bytes,
            "arena_source": ARENA_SOURCE if self.arena_bytes is not None else self.arena_why_not,
            "latencies": [item.to_json() for item in self.latencies],
            "fit": None if self.fit is None else self.fit.to_json(),
            "lacking_ops": list(self.lacking_ops),
            "npu": None if self.npu is None else self.npu.to_json(),
            "ring": None if self.ring is None else self.ring.to_json(),
            "host": self.host.to_json(),
            "notes": list(self.notes),
        }


def profile(
    artifact: Path,
    *,
    target: str | Target = "host",
    repeats: int = REPEATS,
    budget_s: float = BUDGET_S,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Profile:
    """Say what a `.tflite` or `.onnx` file, of whatever make, costs on a target.

    Latency is measured on this host alone, with one thread; for an Ethos-U Vela's estimate is given, and for any other target only fit is
    answered.

    Args:
        artifact: the file.
        target: name, file or value of the target.
        repeats: inferences timed at most, per runtime.
        budget_s: seconds spent at most, per runtime.
        seed: of the random input windows; latency hardly depends on them.
        progress: where progress goes.

    Raises:
        EdgeError: no such target, or a missing, damaged or unsuitable file.
    """
    from embridge_edge.export.reading import read_artifact
    from embridge_edge.export.ring import parts_of

    wanted = target if isinstance(target, Target) else find_target(target)
    artifact = artifact_in(artifact)
    model = read_artifact(artifact)
    if model.kind == "onnx" and wanted.kind in ("mcu", "emulated", "npu"):
        what = (
            "an accelerator, for which no ONNX is compiled" if wanted.npu else "a microcontroller, which runs no ONNX"
        )
        raise EdgeError(f"{wanted.name} is {what}; profile the .tflite of the same model.")
    notes = [] if model.metadata else ["Made elsewhere: the file holds no signal chain, labels or head."]
    graph = cost = arena = None
    arena_why_not = "not counted for ONNX"
    if model.kind == "tflite":
        from embridge_edge.firmware_bridge.graph import read_graph

        graph = read_graph(artifact)
        cost = _cost(graph)
        arena, arena_why_not = _arena(artifact)
    latencies: tuple[RuntimeLatency, ...] = ()
    npu = None
    if wanted.kind == "host":
        latencies = _latencies(model, repeats, budget_s, seed, progress)
    elif wanted.npu is not None:
        npu = estimate(artifact.read_bytes(), wanted.npu)
        notes.append("Nothing ran: cycles, time and memory are Vela's estimates for the system that it names.")
    else:
        notes.append(f"No board attached: latency on {wanted.name} is not measured, and none is estimated.")
    fit = None
    if cost is not None and wanted.free_flash_kib is not None:
        fit = fits(wanted, model.size_bytes, arena if arena is not None else cost.peak_activation_bytes)
        notes.append("Flash counts the model alone: the runtime's kernels and your application come on top.")
        if arena is None:
            notes.append(f"RAM counts the {PEAK_SOURCE}, because no arena was measured: {arena_why_not}")
    return Profile(
        artifact=artifact,
        kind=model.kind,
        precision=_precision(model, cost),
        model_bytes=model.size_bytes,
        target=wanted,
        cost=cost,
        arena_bytes=arena,
        arena_why_not=arena_why_not,
        latencies=latencies,
        fit=fit,
        lacking_ops=() if graph is None or npu is not None else _lacking(graph, wanted),
        npu=npu,
        host=host_facts(),
        notes=tuple(notes),
        ring=parts_of(artifact.read_bytes()) if model.metadata else None,
    )


def _cost(graph: Graph) -> GraphCost:
    from embridge_edge.firmware_bridge.graph import float_ops, macs, op_counts, peak_activation_bytes

    return GraphCost(
        macs=macs(graph),
        weight_bytes=graph.weight_bytes,
        peak_activation_bytes=peak_activation_bytes(graph),
        ops=op_counts(graph),
        float_ops=tuple(dict.fromkeys(op.name for op in float_ops(graph))),
    )


def _precision(model: Artifact, cost: GraphCost | None) -> str:
    if cost is None:
        return f"{model.input_type} with int8 inside" if _has_quantizers(model.path) else model.input_type
    if model.input_type == "int8" and not cost.float_ops:
        return "int8"
    return "mixed" if model.input_type == "int8" or {"QUANTIZE", "DEQUANTIZE"} & set(cost.ops) else model.input_type


def _has_quantizers(path: Path) -> bool:
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    return any(node.op_type == "QuantizeLinear" for node in nodes)


def _lacking(graph: Graph, target: Target) -> tuple[str, ...]:
    """Ops that the target's runtime does not run in the type that they work in, that of what they write."""
    lacking: list[str] = []
    for op in graph.ops:
        kind = graph.tensors[op.outputs[0]].type if op.outputs else "int8"
        if kind in ("int8", "float32"):
            lacking += target.runtime.lacks([op.name], kind)
    return tuple(dict.fromkeys(lacking))


def _arena(artifact: Path) -> tuple[int | None, str]:
    from embridge_edge.export.running import tflm_arena_bytes

    try:
        return tflm_arena_bytes(artifact), ""
    except EdgeError as error:
        return None, str(error)


def _latencies(
    model: Artifact, repeats: int, budget_s: float, seed: int, progress: Progress
) -> tuple[RuntimeLatency, ...]:
    """Latency on each runtime of this host that takes the file."""
    from embridge_edge.export.running import onnx_invoker, tflite_invoker
    from embridge_edge.firmware_bridge.interpreters import interpreter_name

    window = _window(model, seed)
    loaders: dict[str, Callable[[], Callable[[Any], Any]]]
    if model.kind == "onnx":
        loaders = {"ONNX Runtime, 1 thread": lambda: onnx_invoker(model.path)}
    else:
        loaders = {
            f"{interpreter_name()}, 1 thread": lambda: tflite_invoker(model.path, "litert"),
            "TFLM, reference kernels": lambda: tflite_invoker(model.path, "tflm"),
        }
    measured = []
    with progress.bar("measuring", total=len(loaders), unit="runtimes") as advance:
        for runtime, load in loaders.items():
            measured.append(_timed(runtime, load, window, repeats, budget_s))
            advance(1)
    return tuple(measured)


def _timed(
    runtime: str, load: Callable[[], Callable[[Any], Any]], window: Any, repeats: int, budget_s: float
) -> RuntimeLatency:
    try:
        invoke = load()
        invoke(window)
    except EdgeError as error:
        return RuntimeLatency(runtime, None, str(error))
    except Exception as error:  # each runtime has exceptions of its own for a model that loads and does not run
        return RuntimeLatency(runtime, None, f"it does not run on one random input: {one_line(error)}")
    latency = measure_latency(lambda: invoke(window), warmup=WARMUP, repeats=repeats, budget_s=budget_s)
    return RuntimeLatency(runtime, latency)


def _window(model: Artifact, seed: int) -> Any:
    """One random input of the model's shape and type; a free axis has length one."""
    import numpy as np

    shape = tuple(max(length, 1) for length in model.input_shape)
    if math.prod(shape) > 2**28:
        raise EdgeError(
            f"{model.path}: an input of {shape} is too large to be profiled; export it with a fixed window."
        )
    generator = np.random.default_rng(seed)
    kind = np.dtype(model.input_type) if model.input_type in np.sctypeDict else None
    if kind is None:
        raise EdgeError(
            f"{model.path} takes {model.input_type} values, which cannot be made here; use float32 or int8."
        )
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return generator.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)
    return generator.standard_normal(shape).astype(kind)


@click.command("profile")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--target", default="host", show_default=True, metavar="NAME|FILE", help="See embridge-edge targets.")
@click.option("--repeats", type=click.IntRange(1), default=REPEATS, show_default=True, help="Inferences timed at most.")
@click.option(
    "--seconds",
    "budget_s",
    type=click.FloatRange(0, min_open=True),
    default=BUDGET_S,
    show_default=True,
    help="Time spent at most, per runtime.",
)
@common_options
def command(artifact: Path, target: str, repeats: int, budget_s: float, common: Common) -> None:
    """Say what ARTIFACT (.tflite or .onnx) costs: bytes, operations, memory, and on this host its latency.

    Exit status 3 where the target cannot hold it or its runtime lacks an op.
    """
    report = profile(
        artifact, target=target, repeats=repeats, budget_s=budget_s, seed=common.seed, progress=common.progress
    )
    show(report, common)
    if not report.ok:
        raise GateMissed(_why_missed(report))


def _why_missed(report: Profile) -> str:
    if report.npu is not None:
        some = ", ".join(report.npu.on_cpu[:MOST_NAMED]) + (" …" if len(report.npu.on_cpu) > MOST_NAMED else "")
        named = f" ({some})" if some else ""
        what = "1 op stays" if report.npu.cpu_ops == 1 else f"{report.npu.cpu_ops} ops stay"
        return f"{what} on the processor beside {report.target.name}{named}; check --ops says what to use instead."
    if report.lacking_ops:
        return (
            f"{report.target.runtime.name} on {report.target.name} does not run {', '.join(report.lacking_ops)}; "
            "choose a student without them."
        )
    assert report.fit is not None  # noqa: S101 (`ok` is false for one of the two reasons)
    return f"{report.artifact.name} does not fit: {report.fit.text()}; choose a smaller student or a larger target."
