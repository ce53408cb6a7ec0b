"""`quantize`: a student to int8."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import Recipe, find_recipe
from embridge_edge.verbs.options import Common, common_options, recipe_options, refuse_existing, show

if TYPE_CHECKING:
    from embridge_edge.export.quantized import QuantizedModel
    from embridge_edge.model.checkpoint import Checkpoint
    from embridge_edge.verbs.workflow import Job


@dataclass(frozen=True)
class QuantizeReport:
    """The int8 model, and what its ranges were taken from."""

    folder: Path
    int8_bytes: int
    float_bytes: int
    input_scale: float
    input_zero_point: int
    coverage: dict[str, Any]

    def text(self) -> str:
        return (
            f"int8: {self.int8_bytes:,} bytes (float {self.float_bytes:,}), input scale {self.input_scale:g} zero point "
            f"{self.input_zero_point}, ranges from {self.coverage['windows']} windows of {self.coverage['wearers']} wearers in "
            f"{self.coverage['sessions']} sessions, {100 * self.coverage['rest_share']:.0f} % without an active gesture\n{self.folder}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "folder": str(self.folder)}


def quantize(
    student: Path,
    data: Path,
    recipe: str,
    out: Path,
    *,
    format: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
) -> QuantizeReport:
    """Quantize a student to int8, with calibration windows from the training side of the split that it was trained with.

    Args:
        student: checkpoint folder. data: recordings. recipe: name or file. out: folder for the quantized model.

    Raises:
        EdgeError: no student, recordings of another band, or a graph in which something stayed float.
    """
    from embridge_edge.export.quantized import QUANTIZED_FILES, save_quantized
    from embridge_edge.export.reading import read_artifact
    from embridge_edge.model.checkpoint import load_checkpoint
    from embridge_edge.verbs.workflow import choose_split, job_for, read_windows
    from embridge_edge.verbs.workspace import refuse_around, refuse_inside

    plan = find_recipe(recipe)
    refuse_existing(out, force, QUANTIZED_FILES)
    refuse_inside(out, data)
    for given in (data, student):
        refuse_around(out, given)
    checkpoint = load_checkpoint(student)
    windows = read_windows(data, plan, format, progress)
    job = job_for(windows, choose_split(windows, checkpoint.provenance.get("split"), plan), plan)
    model = quantized(job, checkpoint, plan, seed)
    save_quantized(model, out)
    about = read_artifact(out / "student_int8.tflite")
    assert about.input_scale is not None and about.input_zero_point is not None  # noqa: S101 (quantize_tflite refuses else)
    return QuantizeReport(
        folder=out,
        int8_bytes=len(model.int8),
        float_bytes=len(model.float32),
        input_scale=about.input_scale,
        input_zero_point=about.input_zero_point,
        coverage=dict(model.coverage),
    )


def quantized(job: Job, student: Checkpoint, recipe: Recipe, seed: int) -> QuantizedModel:
    """Choose calibration windows from a job's training side and quantize a student with them."""
    from dataclasses import replace

    from embridge_edge.calibration.selection import coverage, refuse_uncovered, select_windows
    from embridge_edge.errors import EdgeError
    from embridge_edge.export.quantized import quantize_student
    from embridge_edge.verbs.workflow import refuse_other_chain

    if student.kind != "student":
        raise EdgeError(f"The checkpoint is a {student.kind}; only a student is quantized: run distill first.")
    refuse_other_chain("student", student.chain, job.windows.chain)
    windows = replace(job, windows=job.windows.with_chain(student.chain)).windows
    chosen = select_windows(windows, job.train, recipe.quantize.windows, seed)
    judged = job.test if len(job.test) else job.train
    covered = coverage(windows, chosen, judged[:: max(1, len(judged) // 20_000)])
    refuse_uncovered(covered, windows, job.train, recipe.quantize.most_saturated)
    return quantize_student(student, windows.inputs(chosen), covered.to_json(), recipe.quantize)


@click.command("quantize")
@click.argument("student", type=click.Path(path_type=Path))
@recipe_options
@common_options
def command(student: Path, data: Path, recipe: str, out: Path, format: str | None, common: Common) -> None:
    """Quantize STUDENT, a checkpoint folder, to int8."""
    report = quantize(
        student, data, recipe, out, format=format, seed=common.seed, force=common.force, progress=common.progress
    )
    show(report, common)
