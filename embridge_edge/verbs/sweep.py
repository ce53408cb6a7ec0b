"""`sweep`: choose values of a recipe by trials that several workers share."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge import __version__
from embridge_edge.artifacts import read_json, write_json, written_by_rename
from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import SPLITS, Recipe, find_recipe, recipe_table, varied
from embridge_edge.sweeping import (
    SweepPlan,
    check_plan,
    number_kinds,
    overridden,
    own_values,
    read_plan,
)
from embridge_edge.verbs.options import Common, common_options, refuse_existing, show
from embridge_edge.verbs.trials import Ground, short, trained
from embridge_edge.verbs.workspace import Workspace, refuse_around, refuse_inside

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from embridge_edge.studies import SharedStudy

WORK, RESULT, BEST = "work", "sweep.json", "best.toml"

MOST_SHOWN = 10
"""Trials in the terminal's table; `sweep.json` has all."""


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        state: "complete", "pruned", "failed", "repeated" (its worker was lost or interrupted, another trial has its values),
            "running" or "waiting".
        score: the objective, None where there is none. values: by dotted key of the recipe.
        same_as: the trial whose result it took over. retry_of: the trial that it repeats. error: why it failed.
    """

    number: int
    state: str
    score: float | None
    values: Mapping[str, Any]
    minutes: float | None = None
    same_as: int | None = None
    retry_of: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class SweepReport:
    """A study as it stands: its trials, the best of them, and what the parameters matter.

    Attributes:
        storage: without a password. trials: in order. wanted: how many the study is to have.
        own: score of the recipe's own values, None where they are not in the ranges or not trained yet.
        importances: share of each parameter in what makes the best trials; empty with too few trials.
        belongs_to: what the study's trials depend on.
    """

    study: str
    storage: str
    plan: SweepPlan
    trials: tuple[TrialRow, ...]
    wanted: int
    best: TrialRow
    own: float | None
    importances: Mapping[str, float]
    belongs_to: Mapping[str, Any]
    out: Path

    @property
    def done(self) -> int:
        """Trials that have come to an end, repetitions not counted."""
        return sum(row.state in ("complete", "pruned", "failed") for row in self.trials)

    def text(self) -> str:
        keys = list(self.plan.parameters)
        complete = [row for row in self.trials if row.state == "complete" and row.same_as is None]
        ranked = sorted(complete, key=lambda row: _rank(row, self.plan))
        table = [["trial", self.plan.objective, *keys]]
        table += [
            [str(row.number), f"{row.score:.4f}", *(short(row.values[key]) for key in keys)]
            for row in ranked[:MOST_SHOWN]
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            f"study {self.study} in {self.storage}: {self.done} of {self.wanted} trials{self._asides()}",
            *("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table),
        ]
        if self.own is not None:
            lines.append(f"the recipe's own values: {self.own:.4f}")
        if self.importances:
            lines.append("importance: " + ", ".join(f"{key} {share:.2f}" for key, share in self.importances.items()))
        return "\n".join([*lines, str(self.out / BEST), str(self.out / RESULT)])

    def _asides(self) -> str:
        counts = {
            "with a known result": sum(row.same_as is not None for row in self.trials),
            "begun again": sum(row.retry_of is not None for row in self.trials),
            **{
                state: sum(row.state == state for row in self.trials)
                for state in ("pruned", "failed", "running", "waiting")
            },
        }
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f" ({said})" if said else ""

    def to_json(self) -> dict[str, Any]:
        return {
            "study": self.study,
            "storage": self.storage,
            "objective": self.plan.objective,
            "direction": self.plan.direction,
            "wanted": self.wanted,
            "best": asdict(self.best),
            "own": self.own,
            "importances": dict(self.importances),
            "belongs_to": dict(self.belongs_to),
            "trials": [asdict(row) for row in self.trials],
            "out": str(self.out),
        }


def sweep(
    recipe: str,
    data: Path,
    storage: str,
    out: Path,
    *,
    study: str | None = None,
    trials: int | None = None,
    timeout: float | None = None,
    split: str | None = None,
    format: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
) -> SweepReport:
    """Choose values of a recipe by its `[sweep]` table: train teachers on an inner division, and keep what scores best.

    The test side of the split, and the gestures that the recipe holds out, take no part. Called several times with the same
    arguments, also on other machines that reach the storage, the calls share the trials; called again later, it goes on.

    Args:
        recipe: name or file. data: recordings. storage: see `stores.STORAGES`.
        out: folder for `best.toml` and `sweep.json`; windows and unfinished trainings are kept in its folder "work".
        study: name of the study; None takes the recipe's.
        trials: how many the study is to have, over all workers; None takes the recipe's number.
        timeout: seconds after which no trial is begun.
        split: whose training side is divided; None takes the first that the recordings allow, "none" takes all of them.
        seed: of the trainings.

    Raises:
        EdgeError: a sweep that the recipe does not allow, wrong recordings, a storage that does not answer, a study of
            something else, or no trial that came to a score.
    """
    began = time.monotonic()
    plan, swept, table = read_recipe(recipe)
    check_plan(swept, plan, f"Recipe {recipe}, [sweep]")
    plan = varied(plan, swept.fixed)
    from embridge_edge.stores import file_of, open_store
    from embridge_edge.studies import SharedStudy, distributions, work

    _refuse_places(out, data, file_of(storage))
    ground = Ground.found(data, format, split, plan, swept, seed, Workspace(out / WORK, SILENT), progress)
    belongs_to = {
        "recipe": plan.sha256,
        "data": ground.data_sha256,
        "split": split or "default",
        "sweep": swept.identity,
        "seed": seed,
        "version": __version__,
    }
    _refuse_other_result(out, belongs_to, force)
    wanted = trials or swept.trials
    own = own_values(swept, plan)
    shared = SharedStudy.open(
        open_store(storage),
        study or plan.name,
        swept,
        distributions(swept, number_kinds(swept, plan)),
        belongs_to,
        None if own is None else {key: swept.parameters[key].label(value) for key, value in own.items()},
    )
    with _one_thread():
        work(
            shared,
            lambda trial: trained(trial, shared, ground),
            wanted,
            None if timeout is None else began + timeout,
            progress,
        )
    report = _report(shared, wanted, own, belongs_to, out)
    _write(report, table, recipe)
    return report


def read_recipe(name: str) -> tuple[Recipe, SweepPlan, dict[str, Any]]:
    """A recipe, its sweep, and its table without the sweep.

    Raises:
        EdgeError: no such recipe, nothing to sweep in it, or something that cannot be.
    """
    recipe, table = find_recipe(name), recipe_table(name)
    searched = table.pop("sweep", None)
    if searched is None:
        raise EdgeError(f"Recipe {name} has no [sweep] table; add one that names parameters and their ranges.")
    return recipe, read_plan(searched, f"Recipe {name}, [sweep]"), table


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: these networks are too small to share among threads, and scores then are the same everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _refuse_places(out: Path, data: Path, file: Path | None) -> None:
    """Refuse places where something would be overwritten, or read as a recording by the next worker."""
    refuse_inside(out, data)
    refuse_around(out, data)
    beside = () if file is None or file.resolve().parent != out.resolve() else (f"{file.name}*",)
    refuse_existing(out, True, (WORK, RESULT, BEST, *beside))
    if file is not None and file.resolve().is_relative_to(data.resolve()):
        raise EdgeError(f"--storage {file} lies inside {data}, which is read; choose another --storage.")


def _refuse_other_result(out: Path, belongs_to: Mapping[str, Any], force: bool) -> None:
    if force or not (out / RESULT).is_file():
        return
    if read_json(out / RESULT).get("belongs_to") != json.loads(json.dumps(belongs_to)):
        raise EdgeError(f"{out / RESULT} is another sweep's result; choose another --out, or replace it with --force.")


def _report(
    shared: SharedStudy, wanted: int, own: Mapping[str, Any] | None, belongs_to: Mapping[str, Any], out: Path
) -> SweepReport:
    """The study as it stands.

    Raises:
        EdgeError: no trial has a score yet.
    """
    from embridge_edge.stores import answering

    with answering(shared.store.shown):
        found = shared.trials()
        importances = shared.importances()
    rows = tuple(_row(trial, found, shared.plan) for trial in found)
    complete = [row for row in rows if row.state == "complete"]
    if not complete:
        errors = [row.error for row in rows if row.error]
        why = f", the last because: {errors[-1]}" if errors else "; give it more --timeout or --trials."
        raise EdgeError(f"No trial of study {shared.name!r} has a score, {len(errors)} failed{why}")
    first = next((row.score for row in complete if row.values == own), None)
    best = min(complete, key=lambda row: _rank(row, shared.plan))
    return SweepReport(
        shared.name, shared.store.shown, shared.plan, rows, wanted, best, first, importances, belongs_to, out
    )


def _rank(row: TrialRow, plan: SweepPlan) -> tuple[float, int]:
    """Sorts the best to the front, of equal ones the first."""
    value = float("nan") if row.score is None else row.score
    return (-value if plan.direction == "maximize" else value), row.number


def _row(trial: FrozenTrial, trials: Sequence[FrozenTrial], plan: SweepPlan) -> TrialRow:
    from embridge_edge.studies import ERROR, LOST, RETRY_OF, SAME_AS, asked

    about = trial.user_attrs
    origin = about.get(RETRY_OF, trial.number)
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}.get(
        trial.state.name, "waiting"
    )
    error = about.get(ERROR)
    if state == "running" and SAME_AS in about:
        state = "waiting"
    if state == "failed" and any(
        one.number > trial.number and one.user_attrs.get(RETRY_OF) == origin for one in trials
    ):
        state = "repeated"
    elif state == "failed" and error is None:
        error = f"it was begun {about.get(LOST, 0) + 1} times, and each time its worker ended"
    taken = trial.duration
    return TrialRow(
        number=trial.number,
        state=state,
        score=trial.value if state == "complete" else None,
        values={key: plan.parameters[key].value(label) for key, label in asked(trial).items()},
        minutes=None if taken is None else taken.total_seconds() / 60.0,
        same_as=about.get(SAME_AS),
        retry_of=about.get(RETRY_OF),
        error=error,
    )


def _write(report: SweepReport, table: Mapping[str, Any], recipe: str) -> None:
    """Write `best.toml`, the recipe's table with the best trial's values, and `sweep.json`."""
    import tomli_w

    best = report.best
    said = (
        f"Recipe {recipe} with the values of trial {best.number} of study {report.study} in {report.storage}",
        f"{report.plan.objective} {best.score:.4f}, the best of {report.done} trials; chosen: {', '.join(best.values)}",
    )
    heading = "".join(f"# {' '.join(line.split())}.\n" for line in said)
    with written_by_rename(report.out / BEST) as temporary:
        temporary.write_text(heading + tomli_w.dumps(overridden(table, best.values)), encoding="utf-8")
    write_json(report.out / RESULT, report.to_json())


@click.command("sweep")
@click.argument("recipe")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A recording, an archive or a folder.")
@click.option(
    "--storage", required=True, help="Where the study is kept: a file, sqlite:///FILE or postgresql+psycopg://…."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the result.")
@click.option("--study", help="Name of the study; by default the recipe's.")
@click.option("--trials", type=click.IntRange(1), help="Trials of the study over all workers; by default the recipe's.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Begin no trial after so many seconds.")
@click.option(
    "--split",
    type=click.Choice([*SPLITS, "none"]),
    help="Whose training side is divided; by default what the data allow.",
)
@click.option("--format", help="Name of a format, or a description file; by default recognised by content.")
@common_options
def command(
    recipe: str,
    data: Path,
    storage: str,
    out: Path,
    study: str | None,
    trials: int | None,
    timeout: float | None,
    split: str | None,
    format: str | None,
    common: Common,
) -> None:
    """Choose values of RECIPE by its [sweep] table, in trials that several workers share.

    The same command started again, here or on another machine, takes part in the same study.
    """
    report = sweep(
        recipe,
        data,
        storage,
        out,
        study=study,
        trials=trials,
        timeout=timeout,
        split=split,
        format=format,
        seed=common.seed,
        force=common.force,
        progress=common.progress,
    )
    show(report, common)
