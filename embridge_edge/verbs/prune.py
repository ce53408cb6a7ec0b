"""`prune`: a student to one with fewer channels, hidden units, heads and queries."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge import __version__
from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import PrunePlan, Recipe, find_recipe
from embridge_edge.verbs.options import Common, common_options, recipe_options, refuse_existing, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embridge_edge.compression.pruning import Cut
    from embridge_edge.learning.loop import Run
    from embridge_edge.model.checkpoint import Checkpoint
    from embridge_edge.verbs.workflow import Job


@dataclass(frozen=True)
class PruneReport:
    """The smaller student, what was cut, and what that saves.

    Attributes:
        parameters, macs: before and after. steps: of the distillation that followed; 0 where there was none.
    """

    checkpoint: Path
    cuts: tuple[Cut, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    steps: int
    split: str

    def text(self) -> str:
        lines = ["layer            units         before  after  cut with it"]
        lines += [
            f"{cut.layer:16} {cut.kind:12} {cut.before:7} {cut.after:6}  {', '.join(cut.coupled)}".rstrip()
            for cut in self.cuts
        ]
        (parameters, fewer), (macs, less) = self.parameters, self.macs
        mended = f"then distilled for {self.steps:,} steps" if self.steps else "not distilled afterwards"
        lines.append(
            f"parameters {parameters:,} to {fewer:,}, multiply-accumulates per window {macs:,} to {less:,}; "
            f"{mended} (split {self.split})"
        )
        return "\n".join([*lines, str(self.checkpoint)])

    def to_json(self) -> dict[str, Any]:
        before_after = {
            f"{name}_{when}": value
            for name in ("parameters", "macs")
            for when, value in zip(("before", "after"), getattr(self, name), strict=True)
        }
        return {
            "checkpoint": str(self.checkpoint),
            "layers": [asdict(cut) for cut in self.cuts],
            **before_after,
            "steps": self.steps,
            "split": self.split,
        }


def prune(
    student: Path,
    data: Path,
    recipe: str,
    out: Path,
    *,
    teacher: Path | None = None,
    keep: float | None = None,
    format: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
) -> PruneReport:
    """Prune a student as the recipe's [prune] says, and distil what is left, on the split that the student was trained with.

    An interrupted run goes on where it stopped when it is called again with the same arguments.

    Args:
        student: checkpoint folder. data: recordings. recipe: name or file. out: folder for the smaller student.
        teacher: checkpoint folder, for the distillation; not needed where the recipe gives it no steps.
        keep: share of the units that stay, instead of the recipe's keep or budget.

    Raises:
        EdgeError: no student, no teacher, or nothing that can be cut keeps to the budget.
    """
    from embridge_edge.artifacts import sha256_of_file
    from embridge_edge.learning.loop import Run, key_of
    from embridge_edge.model.checkpoint import CHECKPOINT_FILES, load_checkpoint, save_checkpoint
    from embridge_edge.model.students import shape_of
    from embridge_edge.verbs.train import forget
    from embridge_edge.verbs.workflow import choose_split, job_for, read_windows
    from embridge_edge.verbs.workspace import fingerprint, refuse_around, refuse_inside

    asked = find_recipe(recipe)
    how = asked.prune or PrunePlan()
    if keep is not None:
        how = replace(how, keep=keep, budget=None)
    plan = replace(asked, prune=how)
    refuse_existing(out, force, CHECKPOINT_FILES)
    refuse_inside(out, data)
    given = [student] if teacher is None else [student, teacher]
    for path in (data, *given):
        refuse_around(out, path)
    if how.steps and teacher is None:
        raise EdgeError(
            "What pruning leaves is distilled again: give the teacher with --teacher, or set steps = 0 in the recipe's [prune]."
        )
    large, master = load_checkpoint(student), None if teacher is None else load_checkpoint(teacher)
    windows = read_windows(data, plan, format, progress)
    job = job_for(windows, choose_split(windows, large.provenance.get("split"), plan), plan)
    state = out.parent / f".{out.name}.unfinished"
    parents = [sha256_of_file(path / "model.safetensors") for path in given]
    stamps = [sha256_of_file(path / name) for path in given for name in CHECKPOINT_FILES]
    key = key_of(__version__, stamps, fingerprint(data, format), plan.to_dict(), seed)
    run = Run(seed, "pruned student", state, key, progress)
    small, cuts = pruned(job, large, master, plan, run, parents=parents)
    save_checkpoint(small, out)
    forget(state)
    before, after = shape_of(large.shape), shape_of(small.shape)
    return PruneReport(
        checkpoint=out,
        cuts=cuts,
        parameters=(before.parameters_count, after.parameters_count),
        macs=(before.macs, after.macs),
        steps=small.provenance["pruned"]["steps"],
        split=str(large.provenance.get("split")),
    )


def pruned(
    job: Job,
    student: Checkpoint,
    teacher: Checkpoint | None,
    recipe: Recipe,
    run: Run,
    *,
    share: float = 1.0,
    parents: Sequence[str] = (),
) -> tuple[Checkpoint, tuple[Cut, ...]]:
    """Cut a student's least important units, judged on some of a job's training windows, and distil what is left.

    Args:
        teacher: None distils nothing, and the heads stay as they are. share: of the steps, for folds.
    """
    from typing import cast

    import torch

    from embridge_edge.calibration.selection import select_windows
    from embridge_edge.compression.pruning import prune as cut_least
    from embridge_edge.model.checkpoint import tensors_of
    from embridge_edge.model.students import AnyStudent, stored_shape
    from embridge_edge.verbs.workflow import distill_checkpoint, provenance, refuse_other_chain, shortened

    if student.kind != "student":
        raise EdgeError(f"The checkpoint is a {student.kind}; only a student is pruned: run distill first.")
    refuse_other_chain("student", student.chain, job.windows.chain)
    plan = recipe.prune or PrunePlan()
    windows = job.windows.with_chain(student.chain)
    chosen = select_windows(windows, job.train, plan.windows, run.seed)
    found = cut_least(cast(AnyStudent, student.network()), torch.from_numpy(windows.inputs(chosen)), plan)
    small = replace(student, shape=stored_shape(found.student.shape), tensors=tensors_of(found.student), sha256="")
    steps = 0
    if teacher is not None and plan.steps:
        mending = plan.mending(recipe.distill)
        steps = shortened(mending, share, len(job.train)).steps
        state = None if run.state is None else run.state / "pruned"
        small = distill_checkpoint(
            job, teacher, recipe, replace(run, state=state), share=share, parents=parents, start=small, plan=mending
        )
        about = dict(small.provenance)
    else:
        about = {**student.provenance, **provenance(job, recipe, run.seed, parents)}
        for seen in ("seen_sessions", "seen_wearers", "seen_stages"):
            about[seen] = sorted({*about[seen], *student.provenance.get(seen, ())})
    about["pruned"] = {"steps": steps, "layers": [asdict(cut) for cut in found.cuts]}
    return replace(small, provenance=about), found.cuts


@click.command("prune")
@click.argument("student", type=click.Path(path_type=Path))
@recipe_options
@click.option("--teacher", type=click.Path(path_type=Path), help="The teacher, which mends what pruning leaves.")
@click.option(
    "--keep",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    help="Share of the units to keep, instead of the recipe's keep or budget.",
)
@common_options
def command(
    student: Path,
    data: Path,
    recipe: str,
    out: Path,
    format: str | None,
    teacher: Path | None,
    keep: float | None,
    common: Common,
) -> None:
    """Prune STUDENT, a checkpoint folder, to fewer channels, hidden units, heads and queries, and distil what is left."""
    report = prune(
        student,
        data,
        recipe,
        out,
        teacher=teacher,
        keep=keep,
        format=format,
        seed=common.seed,
        force=common.force,
        progress=common.progress,
    )
    show(report, common)
