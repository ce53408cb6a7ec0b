"""What distill and quantize do with a model of others: its recordings, its word as a teacher, its way to int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge.artifacts import sha256_of
from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import DistillPlan, Recipe
from embridge_edge.verbs.workflow import Job

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.export.foreign import ForeignModel
    from embridge_edge.export.quantized import QuantizedModel
    from embridge_edge.features.chain import SignalChain
    from embridge_edge.learning.lessons import Says
    from embridge_edge.learning.loop import Run
    from embridge_edge.model.checkpoint import Checkpoint
    from embridge_edge.model.foreign import OutputPlan
    from embridge_edge.model.head import Head

    Floats = npt.NDArray[np.float32]

COMPARED_WINDOWS = 256
WIDEST_STUDENT = 1024
LARGEST_HALF = 6e4
"""Logits are kept in half precision, which ends at 65,504."""


def is_foreign(model: Path, describe: Path | None) -> bool:
    """Whether a model is one of others.

    Raises:
        EdgeError: an ONNX file without a description, or a description of something else.
    """
    if model.suffix == ".onnx" and describe is None:
        raise EdgeError(
            f"{model} needs --describe with a description of its inputs, outputs and signal chain; embridge-edge describe {model} "
            "writes one to fill in."
        )
    if describe is not None and model.is_dir():
        raise EdgeError(f"{model} is a folder; --describe goes with an .onnx file.")
    return describe is not None


@dataclass(frozen=True)
class ForeignJob:
    """A model of others and recordings that it takes.

    Attributes:
        job: under the description's chain, with our own normalisation. chain: the same with the model's.
        recipe: with the description's chain in the place of its own.
    """

    model: ForeignModel
    job: Job
    chain: SignalChain
    recipe: Recipe


def foreign_job(
    path: Path, describe: Path, data: Path, recipe: Recipe, format: str | None, progress: Progress = SILENT
) -> ForeignJob:
    """Open a model of others and read recordings for it.

    Raises:
        EdgeError: the model, its description and the recordings do not fit each other.
    """
    from embridge_edge.export.foreign import open_foreign
    from embridge_edge.features.chain import resolve
    from embridge_edge.learning.splits import allowed_splits
    from embridge_edge.verbs.workflow import choose_split, job_for, read_windows

    model = open_foreign(path, describe)
    plan, signal = replace(recipe, chain=model.plan.chain), model.plan.signal
    model.refuse_other_shape(resolve(plan.chain, signal.rate_hz, signal.channels, signal.unit))
    windows = read_windows(data, plan, format, progress)
    model.plan.refuse_other_signal(windows.chain)
    split = model.plan.split or next(iter(allowed_splits(windows)), "none")
    if model.plan.split is None and split != "none":
        progress.say(
            f"warning: {describe} does not say with which split {path.name} was trained; it may have seen what --split {split} tests."
        )
    job = job_for(windows, choose_split(windows, split, plan), plan)
    chain = model.plan.fitted(job.windows.chain, job.windows.signal, job.windows.starts[job.train])
    return ForeignJob(model, job, chain, plan)


# As a teacher.


def taught_by(plan: DistillPlan, outputs: OutputPlan) -> tuple[DistillPlan, list[str]]:
    """The losses that a teacher of others can give, and what was changed for it.

    Raises:
        EdgeError: a loss that was asked for needs what the teacher does not give, or nothing is left to learn from it.
    """
    changed: list[str] = []
    embeds = bool(outputs.embedding or outputs.tokens)
    for name, there, needs in (
        ("token_weight", bool(outputs.tokens), "tokens"),
        ("relation_weight", embeds, "embedding or tokens"),
        ("score_weight", bool(outputs.scores), "scores"),
    ):
        if getattr(plan, name) and not there:
            raise EdgeError(
                f"{name} in the recipe's [distill] needs {needs}, which [outputs] does not name; name them, or set it to 0."
            )
    if plan.teacher_weight and not embeds:
        moved = plan.score_weight or plan.teacher_weight
        plan = replace(plan, teacher_weight=0.0, score_weight=moved)
        changed.append(f"it gives no embedding: teacher_weight goes to its scores, as score_weight {moved:g}")
    if plan.pose_weight:
        plan = replace(plan, pose_weight=0.0)
        changed.append("it embeds no poses: pose_weight is left out")
    if not any((plan.teacher_weight, plan.token_weight, plan.relation_weight, plan.score_weight)):
        raise EdgeError(
            "Nothing in the recipe's [distill] learns from this teacher; set teacher_weight or score_weight above 0."
        )
    return plan, changed


def roles_of(plan: DistillPlan, outputs: OutputPlan) -> tuple[str, ...]:
    """Which of its outputs a teacher is asked for."""
    embedding = plan.teacher_weight or plan.relation_weight
    wanted = {
        "embedding": embedding,
        "tokens": plan.token_weight or (embedding and not outputs.embedding),
        "scores": plan.score_weight,
    }
    return tuple(role for role in outputs.named if wanted[role])


def saying(foreign: ForeignJob, roles: tuple[str, ...]) -> Says:
    """What a teacher of others says, as a lesson keeps it.

    Raises:
        EdgeError: it knows fewer than two of the recordings' gestures, where its scores are asked for.
    """
    import numpy as np

    from embridge_edge.export.foreign import teaching

    say = teaching(foreign.model, foreign.chain, roles)
    known, ours = foreign.model.plan.outputs.gestures, foreign.job.windows.gestures
    shared = [name for name in ours if name in known]
    if "scores" in roles and len(shared) < 2:
        raise EdgeError(
            f"The teacher scores {', '.join(known)}, the recordings have {', '.join(ours) or 'no gestures'}; two at least must be the "
            "same: name the gestures as the recordings do."
        )
    columns, places = [known.index(name) for name in shared], [ours.index(name) for name in shared]

    def kept(inputs: Floats) -> Mapping[str, Floats]:
        said, found = say(inputs), {}
        if "embedding" in said:
            found["pooled"] = _scaled(said["embedding"])
        if "tokens" in said:
            found["tokens"] = _scaled(said["tokens"])
        if "scores" in said:
            logits = said["scores"][:, columns]
            found["scores"] = np.full((len(logits), len(ours)), np.nan, np.float32)
            found["scores"][:, places] = np.maximum(logits - logits.max(axis=1, keepdims=True), -LARGEST_HALF)
        return found

    return kept


def _scaled(values: Floats) -> Floats:
    """Each window's values over their norm: only directions are compared, and half precision has a narrow range."""
    import numpy as np

    flat = values.reshape(len(values), -1)
    norm = np.linalg.norm(flat.astype(np.float64), axis=1, keepdims=True)
    return np.asarray((flat / np.maximum(norm, 1e-30)).reshape(values.shape), np.float32)


def distill_foreign(foreign: ForeignJob, run: Run) -> Checkpoint:
    """Distil a teacher of others into a student.

    Raises:
        EdgeError: the teacher cannot give what the recipe's losses need.
    """
    from embridge_edge.learning.distill import student_shape
    from embridge_edge.verbs.workflow import kept_lesson, shortened, taught_student

    model, job, recipe = foreign.model, foreign.job, foreign.recipe
    asked, changed = taught_by(recipe.distill, model.plan.outputs)
    plan = shortened(asked, 1.0, len(job.train))
    roles = roles_of(plan, model.plan.outputs)
    for what in changed:
        run.progress.say(f"{model.file.path.name}: {what}")
    says = saying(foreign, roles)
    _refuse_untaught(plan, model.plan.outputs, job.windows.gestures)
    if recipe.student.family == "ring":  # what cannot be is refused before the teacher speaks
        student_shape(job.windows, recipe.student, recipe.teacher.embedding)
    unlabelled = job.unlabelled if plan.unlabelled_share else None
    heard = job.windows.with_chain(foreign.chain)

    lesson = kept_lesson(says, heard, job.train, plan, run, unlabelled, sorted(roles))
    width = _width(lesson, plan, recipe)
    student = taught_student(job, lesson, recipe, plan, run, width, None, [model.file.sha256])
    return replace(student, provenance={**student.provenance, "foreign": model.provenance, "taught": changed})


def _refuse_untaught(plan: DistillPlan, outputs: OutputPlan, gestures: tuple[str, ...]) -> None:
    """Refuse to train the label layer by scores alone where the teacher does not score every gesture of the recordings."""
    untaught = [name for name in gestures if name not in outputs.gestures]
    if plan.score_weight and not plan.label_weight and untaught:
        raise EdgeError(
            f"The teacher does not score {', '.join(untaught)}, which the recordings have; set label_weight in the recipe's [distill] above "
            "0, so that their labels teach them."
        )


def _width(lesson: Any, plan: DistillPlan, recipe: Recipe) -> int:
    """Width of the student's embedding: the teacher's where it is drawn to that, else the recipe's."""
    if not plan.teacher_weight:
        return recipe.teacher.embedding
    width = int(lesson.pooled.shape[1] if lesson.pooled is not None else lesson.tokens.shape[2])
    if width > WIDEST_STUDENT:
        raise EdgeError(
            f"The teacher's embedding has {width} values, a student's {WIDEST_STUDENT} at the most; set teacher_weight to 0 and "
            "relation_weight above it, which compares windows among each other."
        )
    return width


def key_of_foreign(model: ForeignModel) -> str:
    """Stands for a model and its description."""
    return sha256_of([model.file.sha256, model.plan.to_dict()])


# As a student.


@dataclass(frozen=True)
class ForeignStudent:
    """A model of others in int8.

    Attributes:
        chain, heads: as a checkpoint has them. quantized: the files.
        conversion_error: of float TFLite against ONNX Runtime, as a share of the largest output.
    """

    chain: SignalChain
    heads: tuple[Head, ...]
    quantized: QuantizedModel
    conversion_error: float


def quantize_foreign(foreign: ForeignJob, seed: int, progress: Progress = SILENT) -> ForeignStudent:
    """Take a model of others to int8 the way our own students go.

    Raises:
        EdgeError: an op that cannot be converted or has no int8 kernel, TFLite that computes something else, a calibration set that
            does not cover, or gestures that the recordings do not have.
    """
    from embridge_edge.export.foreign_student import refuse_other_numbers, student_module, student_values
    from embridge_edge.export.quantized import quantize_module
    from embridge_edge.export.tflite import to_tflite
    from embridge_edge.verbs.quantize import calibration_of, search_of
    from embridge_edge.verbs.rounding import decision
    from embridge_edge.verbs.workflow import provenance

    model, job, chain, plan = foreign.model, foreign.job, foreign.chain, foreign.recipe.quantize
    if plan.equalise:
        raise EdgeError("equalise knows our own convolutional student only; leave it out of [quantize].")
    if plan.qat is not None:
        raise EdgeError(
            "Training with rounding knows our own students only; leave [quantize.qat] out, or distil from the model."
        )
    _refuse_other_gestures(foreign, progress)
    module, shape = student_module(model, chain), (1, *chain.input_shape)
    heard = replace(job, windows=job.windows.with_chain(chain))
    calibration, covered = calibration_of(heard, plan, seed)
    some = calibration[:: -(-len(calibration) // COMPARED_WINDOWS)]
    expected = student_values(model, chain, some)
    bare = to_tflite(module, shape)
    error = refuse_other_numbers(model, expected, bare, some)
    heads = _heads(foreign, bare, seed)
    origin = provenance(job, foreign.recipe, seed, [model.file.sha256])
    about = {
        "format": 1,
        "kind": "student",
        "chain": chain.to_dict(),
        "gestures": list(heads[0].names) if heads else [],
        "heads": [head.to_dict() for head in heads],
        "provenance": {**origin, "foreign": model.provenance},
    }
    search = search_of(heard, plan, decision(heads), seed, progress)
    made = quantize_module(
        module, shape, about, calibration, covered, plan, bare=bare, most_transposes=MOST_TRANSPOSES, search=search
    )
    return ForeignStudent(chain, heads, made, error)


MOST_TRANSPOSES = 1000
"""Graphs of others have as many as they need: they cost time, and are no error."""


def _refuse_other_gestures(foreign: ForeignJob, progress: Progress) -> None:
    """Refuse a model that scores none of the recordings' gestures; some that it does not know are worth a warning."""
    known, ours = foreign.model.plan.outputs.gestures, foreign.job.windows.gestures
    strange = [name for name in ours if name not in known]
    if known and ours and len(strange) == len(ours):
        raise EdgeError(
            f"The model scores {', '.join(known)}, the recordings have {', '.join(ours)}; name the gestures as the recordings do."
        )
    if known and strange:
        progress.say(f"warning: the model does not know {', '.join(strange)}, which the recordings have.")


def _heads(foreign: ForeignJob, bare: bytes, seed: int) -> tuple[Head, ...]:
    """What decides: the model's own scores, whether the graph ends at them or before; else a probe on its embedding."""
    from embridge_edge.export.foreign_student import identity_rows, score_rows
    from embridge_edge.export.running import run_tflite
    from embridge_edge.learning.probes import linear_head, probe_windows
    from embridge_edge.model.head import make_head

    outputs, windows = foreign.model.plan.outputs, foreign.job.windows
    if outputs.scores:
        rows, bias = score_rows(foreign.model, foreign.chain) or identity_rows(len(outputs.gestures))
        return (make_head("linear", outputs.gestures, rows, bias),)
    job = foreign.job
    labelled = job.train[windows.labels[job.train] >= 0]
    if not len(labelled):
        return ()
    chosen = probe_windows(windows, labelled, foreign.recipe.evaluate.probe_windows, seed)
    embedded = run_tflite(bare, windows.with_chain(foreign.chain).inputs(chosen))
    return (linear_head(embedded, windows.labels[chosen], windows.gestures),)
