"""The trials of a sweep: on what they are judged, and how one is trained."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge import __version__
from embridge_edge.artifacts import read_json, sha256_of, write_json
from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import Recipe, varied
from embridge_edge.sweeping import NEED_HELD_OUT, SweepPlan
from embridge_edge.verbs.workspace import Workspace, fingerprint

if TYPE_CHECKING:
    import optuna

    from embridge_edge.learning.loop import Run
    from embridge_edge.learning.splits import Split
    from embridge_edge.learning.windows import WindowSet
    from embridge_edge.studies import SharedStudy
    from embridge_edge.verbs.workflow import Job

WEARER_SHARE = 4
"""Of so many wearers on the training side, the division by wearer holds out one."""

JUDGED_AS: Mapping[str, str] = {
    "zs_all_seen": "zero_shot_balanced_accuracy",
    "zs_all_unseen": "zero_shot_unseen_balanced_accuracy",
    "zs_unseen": "zero_shot_unseen_balanced_accuracy",
    "lp_seen": "balanced_accuracy",
    "lp_seen_f1": "macro_f1",
    "r2": "r2",
}
"""Objectives by what `learning.judge` calls them; the harmonic mean is made of two of them. For `zs_unseen` the gestures trained on
are not among the answers."""


@dataclass(frozen=True)
class Ground:
    """What all trials on this machine have in common.

    Attributes:
        plan: the recipe whose values are varied. data_sha256, stamp: stand for the recordings, by content and by times.
    """

    data: Path
    format: str | None
    split: str | None
    plan: Recipe
    swept: SweepPlan
    seed: int
    workspace: Workspace
    data_sha256: str
    stamp: str
    progress: Progress

    @classmethod
    def found(
        cls,
        data: Path,
        format: str | None,
        split: str | None,
        plan: Recipe,
        swept: SweepPlan,
        seed: int,
        workspace: Workspace,
        progress: Progress,
    ) -> Ground:
        """Look at the recordings, cut the recipe's own windows and see whether the objective can be judged on them."""
        from embridge_edge.verbs.workflow import recordings_step

        stamp = fingerprint(data, format)
        with _alone_with(workspace, "recordings"):
            sha256 = recordings_step(workspace, data, format, stamp)
        ground = cls(data, format, split, plan, swept, seed, workspace, sha256, stamp, progress)
        job, _ = ground.job(plan)
        _refuse_unjudged(job, swept)
        return ground

    def job(self, recipe: Recipe) -> tuple[Job, str]:
        """A recipe's windows under the inner division, and a key that stands for them."""
        from embridge_edge.verbs.workflow import job_for, windows_step

        blind = self.blind(recipe)
        asked = blind.to_dict()
        name = f"windows-{sha256_of([self.stamp, asked['chain'], asked['windows']])[:12]}"
        cut = (self.workspace.folder / name / "step.json").is_file()
        workspace = Workspace(self.workspace.folder, SILENT if cut else self.progress)
        with _alone_with(workspace, name):
            windows, key = windows_step(workspace, self.data, blind, self.format, self.stamp, name)
        _refuse_unknown(windows, recipe, self.swept)
        outer = outer_split(windows, self.split, recipe)
        return job_for(windows, inner_split(windows, outer, self.swept), blind), key

    def blind(self, recipe: Recipe) -> Recipe:
        """The recipe that also holds out what the inner division does."""
        held = (*recipe.windows.hold_out_gestures, *self.swept.hold_out_gestures)
        return replace(recipe, windows=replace(recipe.windows, hold_out_gestures=held))


def outer_split(windows: WindowSet, name: str | None, recipe: Recipe) -> Split:
    """The division whose training side is divided once more: that of `train`, without the wearers whom `benchmark` keeps.

    Raises:
        EdgeError: the recordings do not allow it.
    """
    import numpy as np

    from embridge_edge.learning.splits import Split
    from embridge_edge.verbs.sides import sides_of
    from embridge_edge.verbs.workflow import choose_split

    everything = np.ones(len(windows), np.bool_)
    outer = choose_split(windows, name, recipe) or Split("none", 0, everything, ~everything)
    if not recipe.benchmark.unseen_wearers:
        return outer
    return replace(outer, train=outer.train & sides_of(windows, recipe).split.train)


def inner_split(windows: WindowSet, outer: Split, plan: SweepPlan) -> Split:
    """The division that trials are judged on: of the training side of `outer`, without the recipe's held-out gestures.

    Args:
        windows: cut so that the gestures of recipe and plan are held out.

    Raises:
        EdgeError: the training side cannot be divided so.
    """
    import numpy as np

    from embridge_edge.learning.splits import Split, validation_split

    if plan.division == "session":
        try:
            inner = validation_split(windows, outer)
        except EdgeError as error:
            raise EdgeError(f'{str(error).rstrip(".")}, or set division = "wearer" in [sweep].') from None
    else:
        known = sorted(np.unique(windows.wearers[outer.train]), key=lambda wearer: windows.wearer_names[wearer])
        if len(known) < 2:
            raise EdgeError(
                'The training side holds one wearer, which division = "wearer" of [sweep] cannot divide; use "session".'
            )
        test = outer.train & np.isin(windows.wearers, known[::WEARER_SHARE])
        inner = Split("wearer", outer.fold, outer.train & ~test, test)
    unseen = [windows.gestures.index(name) for name in plan.hold_out_gestures if name in windows.gestures]
    shown = ~windows.held_out | np.isin(windows.labels, unseen)
    return replace(inner, test=inner.test & shown)


def score(recipe: Recipe, job: Job, plan: SweepPlan, hidden: Sequence[str], run: Run) -> float:
    """Train a teacher on a job and judge it by the plan's objective: what every trial does.

    Args:
        hidden: gestures of the recipe's own test; their poses are not in the library either.

    Raises:
        EdgeError: a training that diverges, or a score that is not finite.
    """
    from embridge_edge.learning.judge import answer, judge
    from embridge_edge.learning.teacher import embed
    from embridge_edge.verbs.workflow import train_checkpoint

    checkpoint = train_checkpoint(job, recipe, run)
    embeddings = embed(checkpoint.network(), job.windows, job.test)
    left_out = set(hidden)
    if plan.objective == "zs_unseen":
        left_out |= set(job.windows.gestures) - set(plan.hold_out_gestures)
    heads = [_without(head, left_out) if head.kind == "poses" else head for head in checkpoint.heads]
    said = answer("teacher", plan.division, job.windows, job.test, embeddings, heads)
    judgement = judge(job.windows, [said], "inner division", plan.hold_out_gestures)
    by_metric: dict[str, dict[str, float]] = {}
    for row in judgement.per_wearer:
        by_metric.setdefault(row["metric"], {})[row["wearer"]] = row["value"]
    value = objective_of(plan.objective, by_metric)
    if value is None or not math.isfinite(value):
        raise EdgeError(f"{plan.objective} could not be judged: no wearer of the inner division has windows for it.")
    return value


def objective_of(name: str, by_metric: Mapping[str, Mapping[str, float]]) -> float | None:
    """Mean over wearers of an objective; None where it was not measured."""
    if name != "zs_harmonic":
        values = [value for value in by_metric.get(JUDGED_AS[name], {}).values() if math.isfinite(value)]
        return statistics.fmean(values) if values else None
    seen, unseen = (by_metric.get(JUDGED_AS[part], {}) for part in ("zs_all_seen", "zs_all_unseen"))
    both = [(seen[wearer], unseen[wearer]) for wearer in seen if wearer in unseen]
    return statistics.fmean(statistics.harmonic_mean(pair) for pair in both) if both else None


def _without(head: Any, hidden: Collection[str]) -> Any:
    """A head without the rows of some gestures."""
    kept = [place for place, name in enumerate(head.names) if name not in hidden]
    names = tuple(head.names[place] for place in kept)
    return replace(head, names=names, rows=head.rows[kept], scale=head.scale[kept], bias=head.bias[kept])


def _refuse_unknown(windows: WindowSet, recipe: Recipe, plan: SweepPlan) -> None:
    """Refuse to hold out gestures that nobody made."""
    known = [name for name in windows.gestures if name not in recipe.windows.hold_out_gestures]
    for name in plan.hold_out_gestures:
        if name not in known:
            raise EdgeError(
                f"[sweep] holds out {name!r}, which these recordings lack; they have {', '.join(known) or 'none'}."
            )


def _refuse_unjudged(job: Job, plan: SweepPlan) -> None:
    """Refuse an objective for which the inner division holds nothing.

    Raises:
        EdgeError: says what is missing.
    """
    import numpy as np

    windows = job.windows
    for name in plan.hold_out_gestures:
        if plan.objective in NEED_HELD_OUT and job.library.pose(name) is None:
            raise EdgeError(
                f"[sweep] holds out {name!r}, which has no pose in the gesture library; choose one that has."
            )
    labels = windows.labels[job.test]
    unseen = np.isin(labels, [windows.gestures.index(name) for name in plan.hold_out_gestures])
    lacking = {
        "zs_harmonic": not (unseen.any() and (~unseen & (labels >= 0)).any()),
        "zs_all_unseen": not unseen.any(),
        "zs_unseen": not unseen.any(),
        "r2": not (windows.tracked and len(job.test)),
    }.get(plan.objective, not (~unseen & (labels >= 0)).any())
    if lacking:
        what = "tracked poses" if plan.objective == "r2" else "gestures held long enough, seen and held out,"
        raise EdgeError(
            f"The inner division by {plan.division} has no {what} to judge {plan.objective} on; choose another division, "
            "objective or hold_out_gestures in [sweep]."
        )


def trained(trial: optuna.Trial, shared: SharedStudy, ground: Ground) -> float | None:
    """Score of a trial: the mean over its seeds, of which those that an earlier worker came to are not trained again."""
    from embridge_edge.stores import answering
    from embridge_edge.studies import SCORES

    values = {key: allowed.value(trial.params[key]) for key, allowed in ground.swept.parameters.items()}
    recipe = varied(ground.plan, values)
    scores = list(trial.user_attrs.get(SCORES, []))
    ground.progress.say(f"trial {trial.number}: " + ", ".join(f"{key} {short(value)}" for key, value in values.items()))
    for place in range(ground.swept.seeds):
        if place == len(scores):
            scores.append(_score_of_seed(recipe, ground, ground.seed + place, f"trial {trial.number}"))
        with answering(shared.store.shown):
            trial.set_user_attr(SCORES, scores)
            trial.report(statistics.fmean(scores[: place + 1]), place)
            if place + 1 < ground.swept.seeds and trial.should_prune():
                return None
    return statistics.fmean(scores)


def _score_of_seed(recipe: Recipe, ground: Ground, seed: int, name: str) -> float:
    """One training's score, kept on disk: it outlives a storage that fails just then, and an interrupted one goes on."""
    from embridge_edge.learning.loop import Run

    job, windows_key = ground.job(recipe)
    blind = ground.blind(recipe)
    inputs = [windows_key, ground.split, blind.to_dict(), ground.swept.identity, seed]
    key = sha256_of([__version__, inputs])
    step = f"trials/{key[:16]}"
    run = Run(seed, name, ground.workspace.state(step), key, ground.progress)
    hidden = recipe.windows.hold_out_gestures

    def make(folder: Path) -> None:
        write_json(folder / "score.json", {"score": score(blind, job, ground.swept, hidden, run)})

    folder, _ = ground.workspace.step(step, inputs, make)
    return float(read_json(folder / "score.json")["score"])


@contextlib.contextmanager
def _alone_with(workspace: Workspace, step: str) -> Iterator[None]:
    """Have the workers of one machine wait for the one that makes a step."""
    from embridge_edge.stores import file_lock

    workspace.folder.mkdir(parents=True, exist_ok=True)
    with file_lock(workspace.folder / step)():
        yield


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
