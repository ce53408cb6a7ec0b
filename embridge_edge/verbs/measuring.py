"""What deploy measures on the model that ships, and the gates that it must pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge.recipe import Recipe
from embridge_edge.verbs.judging import Division
from embridge_edge.verbs.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.learning.windows import WindowSet

    Floats = npt.NDArray[np.float32]

LAYER_WINDOWS = 200
LATENCY_BUDGET_S = 1.5


def _test_windows(
    workspace: Workspace, windows: WindowSet, division: Division, plan: Recipe, count: int, seed: int
) -> tuple[WindowSet, npt.NDArray[np.int64]]:
    """Recordings in the chain of the model that ships, and which of their test windows, drawn without regard to gesture."""
    import numpy as np

    from embridge_edge.learning.splits import make_splits
    from embridge_edge.verbs.models import open_model

    model = open_model(division.folder(workspace, "int8"))
    assert model.chain is not None  # noqa: S101 (it was written with one)
    test = np.flatnonzero(make_splits(windows, division.split, plan.evaluate.folds)[division.fold].test)
    chosen = np.sort(np.random.default_rng([seed, 8]).choice(test, size=min(count, len(test)), replace=False))
    return windows.with_chain(model.chain), chosen


def _test_inputs(
    workspace: Workspace, windows: WindowSet, division: Division, plan: Recipe, count: int, seed: int
) -> Floats:
    """Test windows as the network of the model that ships takes them."""
    heard, chosen = _test_windows(workspace, windows, division, plan, count, seed)
    return heard.inputs(chosen)


def parity(
    workspace: Workspace, windows: WindowSet, division: Division, plan: Recipe, int8_onnx: Path, seed: int
) -> list[dict[str, Any]]:
    """The int8 model on LiteRT's reference kernels against TFLM, XNNPACK and ONNX Runtime: steps of the output, and decisions.

    `within_one_step` is the share of windows in which no output differs by more than one step.
    """
    from embridge_edge.export.comparing import compare_runtimes
    from embridge_edge.verbs.models import open_model

    path = division.folder(workspace, "int8") / "student_int8.tflite"
    inputs = _test_inputs(workspace, windows, division, plan, plan.evaluate.parity_windows, seed)
    head = next((head for head in open_model(path).heads if head.kind in ("linear", "poses")), None)
    found = compare_runtimes(path, inputs, int8_onnx=int8_onnx, decide=None if head is None else head.decide)
    return [
        {
            "reference": found.reference,
            "other": pair.runtime,
            "windows": found.inputs,
            "max_steps": pair.max_steps,
            "within_one_step": pair.within_one_step,
            "exact": pair.equal,
            "class_flips": pair.class_flips,
        }
        for pair in found.pairs
    ]


def layer_errors_of(
    workspace: Workspace, windows: WindowSet, division: Division, plan: Recipe, seed: int
) -> dict[str, Any]:
    """Per-layer error of the int8 model and the scales at its ends."""
    from embridge_edge.export.reading import read_artifact
    from embridge_edge.verbs.check import layer_table

    path = division.folder(workspace, "int8") / "student_int8.tflite"
    about = read_artifact(path)
    return {
        "layers": layer_table(path, None, _test_inputs(workspace, windows, division, plan, LAYER_WINDOWS, seed)),
        "input_scale": about.input_scale,
        "input_zero_point": about.input_zero_point,
        "output_scale": about.output_scale,
        "output_zero_point": about.output_zero_point,
    }


def sensitivity_of_shipped(
    workspace: Workspace, windows: WindowSet, division: Division, plan: Recipe, seed: int
) -> dict[str, Any]:
    """What each layer of the model that ships costs, and the recipe line that mends most: see `export.sensitivity.Sensitivity`."""
    from embridge_edge.export.quantized import load_quantized
    from embridge_edge.model.checkpoint import load_checkpoint
    from embridge_edge.verbs.quantize import sensitivity_of
    from embridge_edge.verbs.rounding import advised

    model = load_quantized(division.folder(workspace, "int8"))
    student = load_checkpoint(division.folder(workspace, "student"))
    inputs = _test_inputs(workspace, windows, division, plan, LAYER_WINDOWS, seed)
    found = sensitivity_of(model, student, inputs, plan, workspace.progress).to_json()
    return {**found, "advice": advised(found["advice"], trained=plan.quantize.qat is not None)}


def forms_beside(
    workspace: Workspace, windows: WindowSet, division: Division, plan: Recipe, seed: int
) -> list[dict[str, Any]]:
    """The student in float, quantized as it is and trained with rounding; empty where the recipe trains none so."""
    from embridge_edge.export.quantized import load_quantized
    from embridge_edge.model.checkpoint import load_checkpoint
    from embridge_edge.verbs.rounding import forms_of

    if plan.quantize.qat is None:
        return []
    student = load_checkpoint(division.folder(workspace, "student"))
    model = load_quantized(division.folder(workspace, "int8"))
    heard, chosen = _test_windows(workspace, windows, division, plan, plan.evaluate.parity_windows, seed)
    return [
        form.to_json()
        for form in forms_of(student, model, heard, chosen, plan.quantize, plan.windows.hold_out_gestures)
    ]


def kept_with_int8(workspace: Workspace, division: Division) -> dict[str, Any]:
    """What `quantize` kept beside the model that ships: coverage of the calibration windows, and the search for 16-bit layers."""
    from embridge_edge.artifacts import read_json

    kept: dict[str, Any] = read_json(division.folder(workspace, "int8") / "quantized.json")
    return kept


def costs(out: Path, plan: Recipe) -> dict[str, Any]:
    """Sizes, operations, host latency and fit of the files that ship."""
    from embridge_edge.artifacts import read_json
    from embridge_edge.export.ring import READER_FILE, TOKEN_FILE
    from embridge_edge.hardware.host import host_facts
    from embridge_edge.model.ring_student import RingShape
    from embridge_edge.model.students import shape_of
    from embridge_edge.verbs.profile import profile

    artifacts: list[dict[str, Any]] = []
    latency: list[dict[str, Any]] = []
    shape = shape_of(read_json(out / "student" / "model.json")["shape"])
    of_parts: dict[str, int] = {}
    if isinstance(shape, RingShape):
        token = shape.token_parameters_count
        of_parts = {TOKEN_FILE: token, READER_FILE: shape.parameters_count - token}
    for name in ("student_int8.tflite", "student.tflite", "student_int8.onnx", "student.onnx", *of_parts):
        measured = profile(out / name, target="host", budget_s=LATENCY_BUDGET_S)
        cost = measured.cost
        artifacts.append(
            {
                "path": name,
                "kind": f"{measured.kind} {measured.precision}",
                "bytes": measured.model_bytes,
                "macs": None if cost is None else cost.macs,
                "parameters": of_parts.get(name, shape.parameters_count),
                "arena_bytes": measured.arena_bytes,
                "peak_activation_bytes": None if cost is None else cost.peak_activation_bytes,
                "float_ops": None if cost is None else len(cost.float_ops),
            }
        )
        latency += [
            {
                "artifact": name,
                "runtime": row.runtime,
                "threads": 1,
                "p50_ms": row.latency.p50_ms,
                "p99_ms": row.latency.p99_ms,
                "n": row.latency.n,
                "source": row.latency.source,
            }
            for row in measured.latencies
            if row.latency is not None
        ]
    fitted = profile(out / "student_int8.tflite", target=plan.target, budget_s=LATENCY_BUDGET_S)
    target, fit = fitted.target, fitted.fit
    facts = host_facts()
    return {
        "artifacts": artifacts,
        "latency": latency,
        "target": {
            "name": target.name,
            "core": target.core,
            "clock_mhz": target.clock_mhz,
            "flash_kib": target.flash_kib,
            "ram_kib": target.ram_kib,
            "flash_used_bytes": None if fit is None else fit.flash_bytes,
            "ram_used_bytes": None if fit is None else fit.ram_bytes,
            "flash_budget_bytes": None if fit is None else fit.flash_budget_bytes,
            "ram_budget_bytes": None if fit is None else fit.ram_budget_bytes,
            "lacking_ops": len(fitted.lacking_ops) + (0 if fitted.npu is None else fitted.npu.cpu_ops),
            "ok": fitted.ok,
            "notes": " ".join(
                [
                    *([] if fitted.npu is None else [f"{fitted.npu.text()}."]),
                    *([] if fitted.ring is None else [f"{fitted.ring.text()}."]),
                    *fitted.notes,
                    *(f"{op} is not run by the target's runtime." for op in fitted.lacking_ops),
                ]
            ),
        },
        "host": {
            "cpu": facts.cpu,
            "cores": facts.cores,
            "memory_gib": None if facts.memory_mib is None else round(facts.memory_mib / 1024, 1),
            "os": facts.system,
            "python": facts.python,
        },
    }


def gates(plan: Recipe, report: dict[str, Any], split: str) -> list[dict[str, Any]]:
    """Each gate of the recipe that applies: `{name, what, limit, value, ok}`; one that could not be measured is missed."""

    def result(model: str, metric: str) -> float | None:
        found = [
            r["value"] for r in report["results"] if (r["model"], r["split"], r["metric"]) == (model, split, metric)
        ]
        return found[0] if found else None

    limits, rows = plan.gates, []

    def gate(name: str, what: str, limit: float | None, value: float | None, *, least: bool = False) -> None:
        if limit is not None:
            ok = value is not None and (value >= limit if least else value <= limit)
            rows.append({"name": name, "what": what, "limit": limit, "value": value, "ok": ok})

    if report["data"]["gestures"]:
        student, int8 = result("student", "balanced_accuracy"), result("student_int8", "balanced_accuracy")
        loss = None if student is None or int8 is None else student - int8
        gate(
            "student_balanced_accuracy",
            f"balanced accuracy of the student, unseen {split}",
            limits.student_balanced_accuracy,
            student,
            least=True,
        )
        gate("int8_loss", "balanced accuracy lost by int8", limits.int8_loss, loss)
        gate(
            "class_flips",
            "class flips between float and int8",
            limits.class_flips,
            result("student_int8", "class_flips"),
        )
    size = next((row["bytes"] for row in report["artifacts"] if row["path"] == "student_int8.tflite"), None)
    floats = next((row["float_ops"] for row in report["artifacts"] if row["path"] == "student_int8.tflite"), None)
    gate("tflite_bytes", "bytes of the int8 .tflite", limits.tflite_bytes, size)
    gate("float_ops", "float ops in the int8 .tflite", 0, floats)
    tflm: dict[str, Any] = next((row for row in report["parity"] if row["other"] == "tflm"), {})
    gate(
        "parity_max_steps",
        "largest difference of TFLM from LiteRT's reference, steps",
        limits.parity_max_steps,
        tflm.get("max_steps"),
    )
    gate(
        "parity_within_one",
        "windows within one step of LiteRT's reference on TFLM",
        limits.parity_within_one,
        tflm.get("within_one_step"),
        least=True,
    )
    if tflm.get("class_flips") is not None:
        gate(
            "parity_class_flips",
            "class flips between TFLM and LiteRT's reference",
            limits.parity_class_flips,
            tflm["class_flips"],
        )
    if plan.package is not None and plan.package.verify:
        gate(
            "package",
            "tensors of the C package that differ, and self-tests that failed",
            0,
            report["package"]["mismatches"],
        )
    target = report["target"]
    for memory, used in (("flash", "the model without a runtime"), ("ram", "arena on the host")):
        if target.get(f"{memory}_budget_bytes") is not None:
            what = f"{memory if memory == 'flash' else 'RAM'} of {target['name']}: {used}, bytes"
            gate(f"target_{memory}_bytes", what, target[f"{memory}_budget_bytes"], target[f"{memory}_used_bytes"])
    gate("lacking_ops", f"ops that the runtime of {target['name']} lacks", 0, target["lacking_ops"])
    return rows
