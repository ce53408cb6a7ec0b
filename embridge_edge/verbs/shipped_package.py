"""The C package of a bundle: refused before anything is trained where it cannot be, written of the model that ships."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge.artifacts import (
    folder_written_by_rename,
    read_json,
    remove_leftovers,
    sha256_of_file,
    write_json,
)
from embridge_edge.errors import EdgeError
from embridge_edge.hardware.target import find_target

if TYPE_CHECKING:
    from embridge_edge.learning.windows import WindowSet
    from embridge_edge.model.students import AnyShape
    from embridge_edge.progress import Progress
    from embridge_edge.recipe import PackagePlan, Recipe
    from embridge_edge.verbs.bridge import BridgeReport
    from embridge_edge.verbs.workspace import Workspace

PACKAGE = "package"
KEPT = ("profile", "inputs_checked", "tensors_checked", "mismatches", "selftests", "ram_bytes", "const_bytes", "files")
"""What a bundle's report keeps of the bridge's."""
CALIBRATION = 32


def refuse_package(workspace: Workspace, plan: Recipe, windows: WindowSet, shape: AnyShape) -> None:
    """Refuse before anything is trained what `bridge` would refuse after it, by bridging the student with random weights.

    So what the generator cannot compile, a feature without C, a scale that cannot be and a missing compiler cost seconds, not hours.

    Raises:
        EdgeError: as `bridge`, in the recipe's words where it has some of its own.
    """
    if (how := plan.package) is None:
        return
    target, unit = find_target(plan.target), windows.chain.unit
    if target.kind == "npu":
        raise EdgeError(f"{target.name} runs what Vela compiles, and no C; leave [package] out of the recipe.")
    if (unit == "V") != (how.unit_per_count is not None):
        raise EdgeError(
            "The recordings are in volts, and the recipe wants a C package: say what one count of the converter is with "
            "--unit-per-count VOLTS (0.195e-6 for an RHD2000)."
            if unit == "V"
            else f"The recordings are counts ({unit}); leave out --unit-per-count, and unit_per_count in [package]."
        )

    def attempt(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            model = Path(temporary) / "untrained_int8.tflite"
            model.write_bytes(_untrained(plan, windows, shape))
            try:
                _bridged(model, plan.target, Path(temporary) / PACKAGE, replace(how, verify=min(1, how.verify)))
            except EdgeError as error:
                mend = (
                    "set family to conv or ring in [student]" if plan.student.family == "transformer" else "mend that"
                )
                raise EdgeError(
                    f"The C package of [package] cannot be: {error} Either {mend}, or leave [package] out."
                ) from None

    chain = windows.chain.to_dict()
    compiler = shutil.which(os.environ.get("CC", "cc")) if how.verify else None
    inputs = [
        chain, list(windows.gestures), asdict(shape), list(plan.quantize.wide), target.to_json(), asdict(how), compiler,
    ]  # fmt: skip
    workspace.step(f"{PACKAGE}.tried", inputs, attempt)


def _untrained(plan: Recipe, windows: WindowSet, shape: AnyShape) -> bytes:
    """The int8 model of a student with random weights, with a chain and a head."""
    import numpy as np
    import torch

    from embridge_edge.export import metadata
    from embridge_edge.export.quantized import plain_int8
    from embridge_edge.model.checkpoint import Checkpoint, tensors_of
    from embridge_edge.model.head import make_head
    from embridge_edge.model.students import new_student, stored_shape
    from embridge_edge.recipe import QuantizePlan

    draw = np.random.default_rng(0)
    names = windows.gestures or ("first", "second")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = tensors_of(new_student(shape))
    rows = draw.standard_normal((len(names), shape.embedding)).astype(np.float32)
    head = make_head("linear", names, rows, np.zeros(len(names), np.float32))
    student = Checkpoint("student", stored_shape(shape), tensors, windows.chain, tuple(names), (head,), {})
    inputs = draw.standard_normal((CALIBRATION, *windows.chain.input_shape)).astype(np.float32)
    int8 = plain_int8(student, inputs, QuantizePlan(wide=plan.quantize.wide))
    return metadata.attach(int8, student.child_metadata())


def write_package(workspace: Workspace, model: Path, plan: Recipe) -> Path | None:
    """The package of the int8 model in a step of its own, which `ship_package` copies; None where the recipe wants none.

    Raises:
        EdgeError: as `bridge`.
    """
    if (how := plan.package) is None:
        return None

    def make(folder: Path) -> None:
        made = _bridged(model, plan.target, folder / PACKAGE, how, workspace.progress)
        (folder / PACKAGE / "bridge.json").unlink()  # names folders of this machine
        write_json(folder / "package.json", {key: value for key, value in made.to_json().items() if key in KEPT})

    inputs = [sha256_of_file(model), find_target(plan.target).to_json(), asdict(how)]
    return workspace.step(PACKAGE, inputs, make)[0]


def ship_package(made: Path | None, out: Path) -> dict[str, Any]:
    """Put the package into the bundle in the place of an earlier one's; what was found out about it, for the report."""
    shutil.rmtree(out / PACKAGE, ignore_errors=True)
    remove_leftovers(out / PACKAGE)  # of a run that was killed while it copied
    if made is None:
        return {}
    with folder_written_by_rename(out / PACKAGE) as temporary:
        shutil.copytree(made / PACKAGE, temporary, dirs_exist_ok=True)
    return read_json(made / "package.json")


def _bridged(model: Path, target: str, out: Path, how: PackagePlan, progress: Progress | None = None) -> BridgeReport:
    from embridge_edge.progress import SILENT
    from embridge_edge.verbs.bridge import bridge
    from embridge_edge.verbs.packaging import Wanted

    wanted = Wanted(sample_bits=how.sample_bits, unit_per_count=how.unit_per_count)
    return bridge(model, target, out, wanted=wanted, verify=how.verify, progress=progress or SILENT)
