"""`train`: recordings to an EMBridge teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from embridge_edge import __version__
from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import SPLITS, arm_recipe, find_recipe
from embridge_edge.verbs.options import Common, common_options, recipe_options, refuse_existing, show


@dataclass(frozen=True)
class TrainReport:
    """What was trained, on how much, and where it is."""

    checkpoint: Path
    kind: str
    parameters: int
    windows: int
    wearers: int
    split: str
    heads: tuple[str, ...]
    chain: dict[str, Any]

    def text(self) -> str:
        return (
            f"{self.kind}: {self.parameters:,} parameters, trained on {self.windows:,} windows of {self.wearers} wearers "
            f"(split {self.split}), heads {', '.join(self.heads) or 'none'}\n{self.checkpoint}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "checkpoint": str(self.checkpoint), "heads": list(self.heads)}


def train(
    data: Path,
    recipe: str,
    out: Path,
    *,
    split: str | None = None,
    format: str | None = None,
    supervised: bool = False,
    arm: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
) -> TrainReport:
    """Train the EMBridge teacher: masked pre-training of both towers, then alignment.

    An interrupted training goes on where it stopped when it is called again with the same arguments. Started by `torchrun` or
    Slurm, the processes share every batch, and the first of them reads the recordings and writes the checkpoint.

    Args:
        data: recordings. recipe: name or file. out: folder for the checkpoint.
        split: train on this split's training side, so that `check` can judge on the rest; None takes the first that the
            recordings allow, "none" trains on everything.
        supervised: train the same network on the labels alone, for comparison.
        arm: a baseline or ablation instead, by its name in `benchmark` (cpep, no_mprl …).

    Raises:
        EdgeError: wrong recipe or recordings, or `out` holds something already.
    """
    from embridge_edge.learning.loop import Run, key_of
    from embridge_edge.model.checkpoint import CHECKPOINT_FILES, save_checkpoint
    from embridge_edge.verbs.workflow import choose_split, job_for, train_checkpoint, windows_step
    from embridge_edge.verbs.workspace import Workspace, content_hash, fingerprint, refuse_around, refuse_inside

    plan = find_recipe(recipe)
    if arm is not None:
        plan = arm_recipe(plan, arm)
    refuse_existing(out, force, CHECKPOINT_FILES)
    refuse_inside(out, data)
    refuse_around(out, data)
    state = out.parent / f".{out.name}.unfinished"
    stamp = fingerprint(data, format)
    key = key_of(__version__, stamp, plan.to_dict(), split, seed, supervised)
    name = "supervised" if supervised else arm or "teacher"
    run = Run(seed, name, state, key, progress, plan.train.precision)
    world = run.world
    progress = progress if world.first else SILENT
    went_on = state.exists()
    try:
        if not world.first:  # the windows are there once the first process has cut them
            world.barrier()
        windows, _ = windows_step(Workspace(state, progress), data, plan, format, stamp)
        if world.first:
            world.barrier()
        job = job_for(windows, choose_split(windows, split, plan), plan)
        if supervised and not len(windows.gestures):
            raise EdgeError(
                "These recordings have no labels, which a supervised network needs; leave --supervised out."
            )
    except EdgeError:
        if world.first and not went_on:  # nothing to go on with
            forget(state)
        raise
    progress.say(f"chain: {_spelled(job.windows.chain.resolved)}")
    parents = [content_hash(data, format)] if world.first else []
    checkpoint = train_checkpoint(job, plan, run, supervised=supervised, parents=parents)
    if world.first:
        save_checkpoint(checkpoint, out)
    world.barrier()
    if world.first:
        forget(state)
    return TrainReport(
        checkpoint=out,
        kind=checkpoint.kind,
        parameters=sum(tensor.size for tensor in checkpoint.tensors.values()),
        windows=len(job.train),
        wearers=len(set(windows.wearers[job.train].tolist())),
        split="none" if job.split is None else job.split.name,
        heads=tuple(head.kind for head in checkpoint.heads),
        chain=dict(job.windows.chain.resolved),
    )


def forget(state: Path) -> None:
    """Remove the state of a training that is done."""
    import shutil

    shutil.rmtree(state, ignore_errors=True)


def _spelled(resolved: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in resolved.items())


@click.command("train")
@recipe_options
@click.option(
    "--split", type=click.Choice([*SPLITS, "none"]), help="What to keep for testing; by default what the data allow."
)
@click.option("--supervised", is_flag=True, help="Train the same network on labels alone, for comparison.")
@click.option("--arm", help="Train a baseline or an ablation instead, by its name in benchmark: cpep, no_mprl …")
@common_options
def command(
    data: Path,
    recipe: str,
    out: Path,
    split: str | None,
    format: str | None,
    supervised: bool,
    arm: str | None,
    common: Common,
) -> None:
    """Train the EMBridge teacher on recordings."""
    report = train(
        data,
        recipe,
        out,
        split=split,
        format=format,
        supervised=supervised,
        arm=arm,
        seed=common.seed,
        force=common.force,
        progress=common.progress,
    )
    show(report, common)
