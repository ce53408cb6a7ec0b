"""`distill`: a teacher to a student that fits a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge import __version__
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import find_recipe
from embridge_edge.verbs.options import DESCRIBE, Common, common_options, recipe_options, refuse_existing, show

if TYPE_CHECKING:
    from embridge_edge.model.checkpoint import Checkpoint


@dataclass(frozen=True)
class DistillReport:
    """The student and what it costs.

    Attributes:
        shape: of its network, as its checkpoint has it: what the recipe asked for, or what a budget became.
        taught: what of the recipe's losses a teacher of others could not give, and what stands in its place.
        hop_macs: of a ring student: multiply-accumulates of a decision where tokens are kept; None for any other.
    """

    checkpoint: Path
    shape: Mapping[str, Any]
    parameters: int
    macs: int
    windows: int
    split: str
    heads: tuple[str, ...]
    taught: tuple[str, ...] = ()
    hop_macs: int | None = None

    def text(self) -> str:
        given = ("family", "steps", "channels", "embedding")  # by the window and the teacher
        picked = {name.replace("_", " "): value for name, value in self.shape.items() if name not in given}
        spelled = ", ".join(
            f"{name} {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
            for name, value in picked.items()
        )
        per_hop = "" if self.hop_macs is None else f" ({self.hop_macs:,} hop by hop)"
        return (
            f"{self.shape['family']} student: {spelled}\n"
            f"{self.parameters:,} parameters, {self.macs:,} multiply-accumulates per window{per_hop}, "
            f"distilled on {self.windows:,} windows (split {self.split}), heads {', '.join(self.heads) or 'none'}\n{self.checkpoint}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "checkpoint": str(self.checkpoint),
            "shape": dict(self.shape),
            "heads": list(self.heads),
            "taught": list(self.taught),
        }


def distill(
    teacher: Path,
    data: Path,
    recipe: str,
    out: Path,
    *,
    describe: Path | None = None,
    format: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
) -> DistillReport:
    """Distil a teacher into a student, on the training side of the split that the teacher was trained with.

    An interrupted run goes on where it stopped when it is called again with the same arguments.

    Args:
        teacher: checkpoint folder, or the ONNX file of a model of others. describe: the latter's description (TOML).
        data: recordings. recipe: name or file. out: folder for the student's checkpoint.

    Raises:
        EdgeError: the teacher does not fit the recordings, or `out` holds something already.
    """
    from embridge_edge.artifacts import sha256_of_file
    from embridge_edge.learning.loop import Run, key_of
    from embridge_edge.model.checkpoint import CHECKPOINT_FILES, load_checkpoint
    from embridge_edge.verbs.foreign import distill_foreign, foreign_job, is_foreign, key_of_foreign
    from embridge_edge.verbs.workflow import choose_split, distill_checkpoint, job_for, read_windows
    from embridge_edge.verbs.workspace import fingerprint, refuse_around, refuse_inside

    plan = find_recipe(recipe)
    refuse_existing(out, force, CHECKPOINT_FILES)
    refuse_inside(out, data)
    for given in (data, teacher, *([describe] if describe else [])):
        refuse_around(out, given)
    state = out.parent / f".{out.name}.unfinished"
    if is_foreign(teacher, describe) and describe is not None:
        foreign = foreign_job(teacher, describe, data, plan, format, progress)
        stamps = (key_of_foreign(foreign.model), fingerprint(data, format), foreign.recipe.to_dict(), seed)
        run = Run(seed, "student", state, key_of(__version__, *stamps), progress)
        return _written(distill_foreign(foreign, run), out, state, len(foreign.job.train))
    master = load_checkpoint(teacher)
    windows = read_windows(data, plan, format, progress)
    job = job_for(windows, choose_split(windows, master.provenance.get("split"), plan), plan)
    parent = sha256_of_file(teacher / "model.safetensors")
    files = [sha256_of_file(teacher / name) for name in CHECKPOINT_FILES]
    key = key_of(__version__, files, fingerprint(data, format), plan.to_dict(), seed)
    student = distill_checkpoint(job, master, plan, Run(seed, "student", state, key, progress), parents=[parent])
    return _written(student, out, state, len(job.train))


def _written(student: Checkpoint, out: Path, state: Path, windows: int) -> DistillReport:
    from embridge_edge.model.checkpoint import save_checkpoint
    from embridge_edge.model.students import shape_of, stored_shape
    from embridge_edge.verbs.train import forget

    save_checkpoint(student, out)
    forget(state)
    shape = shape_of(student.shape)
    return DistillReport(
        checkpoint=out,
        shape=stored_shape(shape),
        parameters=shape.parameters_count,
        macs=shape.macs,
        windows=windows,
        split=str(student.provenance.get("split")),
        heads=tuple(head.kind for head in student.heads),
        taught=tuple(student.provenance.get("taught", ())),
        hop_macs=getattr(shape, "hop_macs", None),
    )


@click.command("distill")
@click.argument("teacher", type=click.Path(path_type=Path))
@recipe_options
@click.option("--describe", type=click.Path(path_type=Path), help=DESCRIBE)
@common_options
def command(
    teacher: Path, data: Path, recipe: str, out: Path, format: str | None, describe: Path | None, common: Common
) -> None:
    """Distil TEACHER, a checkpoint folder or an ONNX file with --describe, into a student for the recipe's target."""
    report = distill(
        teacher,
        data,
        recipe,
        out,
        describe=describe,
        format=format,
        seed=common.seed,
        force=common.force,
        progress=common.progress,
    )
    show(report, common)
