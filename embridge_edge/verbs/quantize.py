"""`quantize`: a student to int8."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge import __version__
from embridge_edge.artifacts import sha256_of_file, write_json
from embridge_edge.errors import GateMissed
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import Recipe, find_recipe
from embridge_edge.verbs.options import DESCRIBE, Common, common_options, recipe_options, refuse_existing, show
from embridge_edge.verbs.rounding import (
    Deployed,
    Form,
    advised,
    decider,
    forms_of,
    lines_of,
    refuse_without_nncf,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from embridge_edge.export.mixing import Mix
    from embridge_edge.export.quantized import QuantizedModel, Search, Tune
    from embridge_edge.export.sensitivity import Damage, Decide, Sensitivity
    from embridge_edge.learning.loop import Run
    from embridge_edge.model.checkpoint import Checkpoint
    from embridge_edge.model.students import AnyStudent
    from embridge_edge.recipe import QatPlan, QuantizePlan
    from embridge_edge.verbs.workflow import Job

    Floats = npt.NDArray[np.float32]


JUDGED_WINDOWS = 1000
LAYER_WINDOWS = 200
MOST_SHOWN = 5
SENSITIVITY = "sensitivity.json"


@dataclass(frozen=True)
class QuantizeReport:
    """The int8 model, what its ranges were taken from, and what it lost.

    Attributes:
        damage: against the float student, on windows of the test side (of the training side where nothing is tested): see
            `export.sensitivity.Damage`.
        limit: of class flips, by the recipe's gates; None where there is none.
        sensitivity: layer by layer, where it was asked for or the limit is missed.
        forms: float, quantized as it is and trained with rounding beside each other, where the recipe trains with rounding.
        mixing: the search for layers with 16 bits, point by point, where the recipe has one.
        conversion_error: of a model of others: float TFLite against ONNX Runtime, as a share of the largest output.
    """

    folder: Path
    int8_bytes: int
    float_bytes: int
    input_scale: float
    input_zero_point: int
    coverage: dict[str, Any]
    damage: Damage
    judged_windows: int
    limit: float | None
    sensitivity: Sensitivity | None
    forms: tuple[Form, ...] = ()
    mixing: tuple[Mix, ...] = ()
    conversion_error: float | None = None

    @property
    def ok(self) -> bool:
        flips = self.damage.class_flips
        return self.limit is None or flips is None or flips <= self.limit

    def text(self) -> str:
        flips = self.damage.class_flips
        lines = [
            f"int8: {self.int8_bytes:,} bytes (float {self.float_bytes:,}), input scale {self.input_scale:g} zero point "
            f"{self.input_zero_point}, ranges from {self.coverage['windows']} windows of {self.coverage['wearers']} wearers in "
            f"{self.coverage['sessions']} sessions, {100 * self.coverage['rest_share']:.0f} % without an active gesture",
            f"against float on {self.judged_windows} windows: mean-removed error {self.damage.mean_removed_error:.3f}, "
            + ("nothing decides" if flips is None else f"class flips {100 * flips:.2f} %"),
        ]
        if self.conversion_error is not None:
            lines.insert(0, f"float TFLite against ONNX Runtime: {self.conversion_error:.1e} of the largest output")
        return "\n".join([*lines, *lines_of(self.forms), *self.mixing_lines(), *self.layer_lines(), str(self.folder)])

    def mixing_lines(self) -> list[str]:
        """The curve of the search, one layer a line."""
        if not self.mixing:
            return []
        lines = ["  taken to 16 bits     mean-removed error  class flips      bytes  peak bytes  16-bit MACs"]
        for mix in self.mixing:
            flips = "–" if mix.damage.class_flips is None else f"{100 * mix.damage.class_flips:.2f} %"
            name = mix.wide[-1] if mix.wide else "nothing"
            if mix is self.mixing[0] and mix.wide:  # what the recipe's wide asks for
                name = f"start: {', '.join(mix.wide)}"
            cost = f"{mix.size_bytes:10,} {mix.peak_bytes:11,} {100 * mix.wide_macs / max(1, mix.macs):10.1f} %"
            lines.append(f"  {name:20} {mix.damage.mean_removed_error:18.4f} {flips:>12} {cost}")
        return [*lines, "  the last line is what was written"]

    @property
    def advice(self) -> str | None:
        """What to try in the recipe; None where nothing is known to help."""
        return advised(None if self.sensitivity is None else self.sensitivity.advice, trained=bool(self.forms))

    def layer_lines(self) -> list[str]:
        """The layers that hurt most, and the recipe line that mends most."""
        if self.sensitivity is None:
            return []
        lines = ["  layer                error alone   left float   16-bit output"]
        worst = sorted(self.sensitivity.layers, key=lambda layer: -layer.alone.mean_removed_error)
        for layer in worst[:MOST_SHOWN]:
            wide = "–" if layer.wide is None else f"{layer.wide.mean_removed_error:.4f}"
            errors = f"{layer.alone.mean_removed_error:11.4f}  {layer.without.mean_removed_error:11.4f}  {wide:>14}"
            lines.append(f"  {layer.name:20} {errors}")
        advice = self.advice
        return [*lines, f"  mends most: {advice}" if advice else "  no single layer's 16 bits mend a tenth of it"]

    def to_json(self) -> dict[str, Any]:
        layers = None if self.sensitivity is None else self.sensitivity.to_json()
        return {
            **vars(self),
            "folder": str(self.folder),
            "damage": asdict(self.damage),
            "sensitivity": layers,
            "forms": [form.to_json() for form in self.forms],
            "mixing": [mix.to_json() for mix in self.mixing],
            "ok": self.ok,
        }


def quantize(
    student: Path,
    data: Path,
    recipe: str,
    out: Path,
    *,
    describe: Path | None = None,
    format: str | None = None,
    layers: bool = False,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
) -> QuantizeReport:
    """Quantize a student to int8, with calibration windows from the training side of the split that it was trained with.

    An interrupted training with rounding goes on where it stopped when it is called again with the same arguments.

    Where more decisions flip than the recipe's gates allow, or `layers` asks for it, every layer is quantized alone, left float and
    given 16 bits, and the report names the recipe line that mends most.

    Args:
        student: checkpoint folder, or the ONNX file of a model of others. describe: the latter's description (TOML).
        data: recordings. recipe: name or file. out: folder for the quantized model.

    Raises:
        EdgeError: no student, recordings of another band, a calibration set that does not cover, a graph in which something
            stayed float, or training with rounding is asked for and NNCF is not there.
    """
    from embridge_edge.export.quantized import QUANTIZED_FILES, save_quantized
    from embridge_edge.export.reading import read_artifact
    from embridge_edge.learning.loop import key_of
    from embridge_edge.model.checkpoint import CHECKPOINT_FILES, load_checkpoint
    from embridge_edge.verbs.foreign import foreign_job, is_foreign, quantize_foreign
    from embridge_edge.verbs.train import forget
    from embridge_edge.verbs.workflow import choose_split, job_for, read_windows
    from embridge_edge.verbs.workspace import fingerprint, refuse_around, refuse_inside

    plan = find_recipe(recipe)
    refuse_without_nncf(plan)
    refuse_existing(out, force, (*QUANTIZED_FILES, SENSITIVITY))
    refuse_inside(out, data)
    for given in (data, student, *([describe] if describe else [])):
        refuse_around(out, given)
    deployed: Deployed
    checkpoint: Checkpoint | None = None
    error = None
    if is_foreign(student, describe) and describe is not None:
        foreign = foreign_job(student, describe, data, plan, format, progress)
        job, plan, made = foreign.job, foreign.recipe, quantize_foreign(foreign, seed, progress)
        deployed, model, error = made, made.quantized, made.conversion_error
    else:
        checkpoint = load_checkpoint(student)
        windows = read_windows(data, plan, format, progress)
        job = job_for(windows, choose_split(windows, checkpoint.provenance.get("split"), plan), plan)
        state = out.parent / f".{out.name}.unfinished"
        stamps = [sha256_of_file(student / name) for name in CHECKPOINT_FILES]
        key = key_of(__version__, stamps, fingerprint(data, format), plan.to_dict(), seed)
        deployed, model = checkpoint, quantized(job, checkpoint, plan, seed, progress, state, key)
    # Judged before anything is written: who interrupts it goes on with the trained state, and no folder looks finished that was not judged.
    heard, which = job.windows.with_chain(deployed.chain), _judged_windows(job, seed)
    forms: tuple[Form, ...] = ()
    if checkpoint is not None and plan.quantize.qat is not None:
        forms = forms_of(checkpoint, model, heard, which, plan.quantize, plan.windows.hold_out_gestures)
    judged = heard.inputs(which)
    lost = next((form.damage for form in forms if form.name == "qat"), None) or damage(model, deployed, judged)
    limit = plan.gates.class_flips
    missed = limit is not None and lost.class_flips is not None and lost.class_flips > limit
    found = sensitivity_of(model, deployed, judged, plan, progress) if layers or missed else None
    save_quantized(model, out)
    if checkpoint is not None:
        forget(state)
    if found is not None:
        write_json(out / SENSITIVITY, found.to_json())
    about = read_artifact(out / "student_int8.tflite")
    assert about.input_scale is not None and about.input_zero_point is not None  # noqa: S101 (quantize_tflite refuses else)
    return QuantizeReport(
        folder=out,
        int8_bytes=len(model.int8),
        float_bytes=len(model.float32),
        input_scale=about.input_scale,
        input_zero_point=about.input_zero_point,
        coverage=dict(model.coverage),
        damage=lost,
        judged_windows=len(judged),
        limit=limit,
        sensitivity=found,
        forms=forms,
        mixing=model.mixing,
        conversion_error=error,
    )


def _judged_windows(job: Job, seed: int) -> npt.NDArray[np.int64]:
    """Some windows that the model was not trained on, where there are any."""
    import numpy as np

    side = job.test if len(job.test) else job.train
    return np.sort(np.random.default_rng([seed, 8]).choice(side, size=min(JUDGED_WINDOWS, len(side)), replace=False))


def damage(model: QuantizedModel, student: Deployed, inputs: Floats) -> Damage:
    """What int8 costs at the output of a student that was quantized as it is, on LiteRT's reference kernels."""
    from embridge_edge.export.running import run_tflite
    from embridge_edge.export.sensitivity import damage_of

    exact, got = run_tflite(model.float32, inputs), run_tflite(model.int8, inputs, "litert-ref")
    return damage_of(exact, got, decider(student))


def sensitivity_of(
    model: QuantizedModel, student: Deployed, inputs: Floats, plan: Recipe, progress: Progress = SILENT
) -> Sensitivity:
    """Which layer hurts, with the ranges that the plan gives, or those that were learnt."""
    from embridge_edge.export.ranges import observed, ranges_in, ranges_of
    from embridge_edge.export.sensitivity import sensitivity

    if plan.quantize.qat is None:
        ranges = ranges_of(model.float32, observed(model.float32, model.calibration), plan.quantize)
    else:
        ranges = ranges_in(model.int8)
    some = inputs[:: -(-len(inputs) // LAYER_WINDOWS)]
    return sensitivity(model.float32, ranges, some, decider(student), wide=model.wide, progress=progress)


def quantized(
    job: Job,
    student: Checkpoint,
    recipe: Recipe,
    seed: int,
    progress: Progress = SILENT,
    state: Path | None = None,
    key: str = "",
) -> QuantizedModel:
    """Choose calibration windows from a job's training side and quantize a student with them, after training it so where `qat` asks.

    Args:
        state: where training with rounding keeps what it needs to go on after an interruption. key: stands for student, windows and recipe.
    """
    from dataclasses import replace

    from embridge_edge.errors import EdgeError
    from embridge_edge.export.quantized import quantize_student
    from embridge_edge.learning.loop import Run
    from embridge_edge.verbs.workflow import refuse_other_chain

    if student.kind != "student":
        raise EdgeError(f"The checkpoint is a {student.kind}; only a student is quantized: run distill first.")
    refuse_other_chain("student", student.chain, job.windows.chain)
    job = replace(job, windows=job.windows.with_chain(student.chain))
    calibration, covered = calibration_of(job, recipe.quantize, seed)
    qat = recipe.quantize.qat
    run = Run(seed, "student", state, key, progress)
    tune = None if qat is None else _tuning(job, student, qat, recipe.distill.batch, run)
    search = search_of(job, recipe.quantize, decider(student), seed, progress)
    return quantize_student(student, calibration, covered, recipe.quantize, tune, search)


def calibration_of(job: Job, plan: QuantizePlan, seed: int) -> tuple[Floats, dict[str, Any]]:
    """Calibration windows from a job's training side as the network takes them, and what they cover.

    Raises:
        EdgeError: they do not cover.
    """
    from embridge_edge.calibration.selection import coverage, refuse_uncovered

    windows, chosen = job.windows, _calibrated_on(job, plan, seed)
    judged = job.test if len(job.test) else job.train
    covered = coverage(windows, chosen, judged[:: max(1, len(judged) // 20_000)])
    refuse_uncovered(covered, windows, job.train, plan.most_saturated)
    return windows.inputs(chosen), covered.to_json()


def _calibrated_on(job: Job, plan: QuantizePlan, seed: int) -> npt.NDArray[np.int64]:
    from embridge_edge.calibration.selection import select_windows

    return select_windows(job.windows, job.train, plan.windows, seed)


def search_of(
    job: Job, plan: QuantizePlan, decide: Decide | None, seed: int, progress: Progress = SILENT
) -> Search | None:
    """On what mixed precision is searched; None where the plan searches nothing.

    Windows of the training side that set no range, or any of it where calibration leaves too few.
    """
    import numpy as np

    from embridge_edge.calibration.selection import select_windows
    from embridge_edge.export.quantized import Search

    if plan.mix is None:
        return None
    left = np.setdiff1d(job.train, _calibrated_on(job, plan, seed))
    if len(left) < plan.mix.windows:
        progress.say(
            f"warning: calibration leaves {len(left)} windows of the training side; [quantize.mix] searches on those that set the ranges, too."
        )
        left = job.train
    return Search(job.windows.inputs(select_windows(job.windows, left, plan.mix.windows, seed + 1)), decide, progress)


def _tuning(job: Job, student: Checkpoint, plan: QatPlan, batch: int, run: Run) -> Tune:
    """What trains a student with rounding, on a share of the windows that it was distilled on."""
    from embridge_edge.learning.rounding import tune_rounded
    from embridge_edge.learning.shares import drawn_evenly

    windows, which = job.windows, job.train
    most = max(1, round(plan.share * len(which)))
    chosen = which[drawn_evenly(windows.labels[which], windows.wearers[which], most, run.seed)]
    head = next((head for head in student.heads if head.kind == "linear" and head.names == windows.gestures), None)

    def tune(network: nn.Module, before: AnyStudent) -> None:
        tune_rounded(network, before, windows, chosen, head, plan, batch, run)

    return tune


@click.command("quantize")
@click.argument("student", type=click.Path(path_type=Path))
@recipe_options
@click.option("--describe", type=click.Path(path_type=Path), help=DESCRIBE)
@click.option("--layers", is_flag=True, help="Quantize each layer alone and all but each, and rank them.")
@common_options
def command(
    student: Path,
    data: Path,
    recipe: str,
    out: Path,
    format: str | None,
    describe: Path | None,
    layers: bool,
    common: Common,
) -> None:
    """Quantize STUDENT, a checkpoint folder or an ONNX file with --describe, to int8, and say what it lost.

    Ends with status 3 where more decisions flip than the recipe's gates allow; the worst layers and the recipe line that mends most
    are named then.
    """
    report = quantize(
        student,
        data,
        recipe,
        out,
        describe=describe,
        format=format,
        layers=layers,
        seed=common.seed,
        force=common.force,
        progress=common.progress,
    )
    show(report, common)
    if not report.ok:
        raise GateMissed(
            f"{100 * (report.damage.class_flips or 0.0):.2f} % of the decisions flip in int8 (allowed {100 * (report.limit or 0.0):.2f}); "
            + (f"try {report.advice} in the recipe." if report.advice else f"read {report.folder / SENSITIVITY}.")
        )
