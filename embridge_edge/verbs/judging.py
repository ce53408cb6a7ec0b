"""Training and judging the models of one division of the data, inside a workspace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge.artifacts import read_json, sha256_of_file, write_json
from embridge_edge.recipe import Recipe
from embridge_edge.verbs.workspace import Workspace

if TYPE_CHECKING:
    from embridge_edge.learning.judge import Answers, Judgement
    from embridge_edge.learning.splits import Split
    from embridge_edge.learning.windows import WindowSet
    from embridge_edge.model.checkpoint import Checkpoint


@dataclass
class Division:
    """One split or fold, and the steps that hold its models.

    Attributes:
        tag: names its steps. primary: whether its models ship.
        keys: step keys of what has been made: teacher, supervised, student, int8.
    """

    split: Split
    tag: str
    primary: bool
    keys: dict[str, str] = field(default_factory=dict)

    def folder(self, workspace: Workspace, kind: str) -> Path:
        return workspace.folder / f"{self.tag}.{kind}"


def fold_models(
    workspace: Workspace,
    windows: WindowSet,
    division: Division,
    plan: Recipe,
    key: str,
    stamp: str,
    seed: int,
    given: Path | None,
) -> None:
    """Train what a division needs: teacher, supervised network (for the one that ships), student, int8 student."""
    from embridge_edge.export.quantized import save_quantized
    from embridge_edge.model.checkpoint import load_checkpoint, save_checkpoint
    from embridge_edge.verbs.quantize import quantized
    from embridge_edge.verbs.workflow import distill_checkpoint, job_for, train_checkpoint

    job = job_for(windows, division.split, plan)
    share = 1.0 if division.primary else plan.evaluate.fold_share
    asked = plan.to_dict()
    common = [key, division.split.name, division.split.fold, share, seed, asked["windows"], plan.evaluate.probe_windows]
    progress = workspace.progress

    def made(kind: str, inputs: list[Any], make: Callable[[Path, str], Checkpoint]) -> Checkpoint:
        name = f"{division.tag}.{kind}"
        state = workspace.state(name)
        _, division.keys[kind] = workspace.step(
            name, [common, inputs], lambda folder: save_checkpoint(make(state, str(inputs)), folder)
        )
        return load_checkpoint(workspace.folder / name)

    def trained(kind: str) -> Checkpoint:
        return made(
            kind,
            [asked["teacher"], asked["train"], kind],
            lambda state, state_key: train_checkpoint(
                job, plan, seed=seed, supervised=kind == "supervised", share=share, state=state, state_key=key + state_key,
                parents=[stamp], progress=progress, name=f"{division.tag} {kind}",
            ),
        )  # fmt: skip

    if given is None:
        teacher = trained("teacher")
    else:
        teacher = made(
            "teacher", [sha256_of_file(given / "model.safetensors")], lambda state, state_key: load_checkpoint(given)
        )
    if division.primary and windows.gestures:
        trained("supervised")
    parent = sha256_of_file(division.folder(workspace, "teacher") / "model.safetensors")
    student = made(
        "student",
        [division.keys["teacher"], asked["student"], asked["distill"], plan.train.temperature],
        lambda state, state_key: distill_checkpoint(
            job, teacher, plan, seed=seed, share=share, state=state, state_key=key + state_key,
            parents=[parent], progress=progress, name=f"{division.tag} student",
        ),
    )  # fmt: skip
    _, division.keys["int8"] = workspace.step(
        f"{division.tag}.int8",
        [common, division.keys["student"], asked["quantize"]],
        lambda folder: save_quantized(quantized(job, student, plan, seed), folder),
    )


def judgement_of(
    workspace: Workspace, windows: WindowSet, divisions: list[Division], plan: Recipe, key: str, data: str, seed: int
) -> Judgement:
    """Judge all models of one split; the folds' answers are joined first."""
    from embridge_edge.learning.judge import Judgement, joined, judge
    from embridge_edge.learning.scores import Result

    name = divisions[0].split.name
    several = len(divisions) > 1

    def make(folder: Path) -> None:
        by_model: dict[str, list[Answers]] = {}
        for division in divisions:
            for one in _answers(workspace, windows, division, plan, seed):
                by_model.setdefault(one.model, []).append(one)
        answers = [joined(parts) for parts in by_model.values()]
        found = judge(windows, answers, data, plan.windows.hold_out_gestures, seed, folds=len(divisions))
        write_json(
            folder / "judgement.json",
            {
                "results": [result.to_json() for result in found.results],
                "confusions": list(found.confusions),
                "per_wearer": list(found.per_wearer),
            },
        )

    inputs = [key, data, seed, several, [division.keys for division in divisions], plan.to_dict()["windows"]]
    folder, _ = workspace.step(f"{name}.judged", inputs, make)
    stored = read_json(folder / "judgement.json")
    results = tuple(Result(**result) for result in stored["results"])
    return Judgement(results, tuple(stored["confusions"]), tuple(stored["per_wearer"]))


def _answers(workspace: Workspace, windows: WindowSet, division: Division, plan: Recipe, seed: int) -> list[Answers]:
    """What baselines and models say about the test windows of a division."""
    import numpy as np

    from embridge_edge.learning.baselines import baseline_answers
    from embridge_edge.learning.judge import answer
    from embridge_edge.verbs.models import open_model
    from embridge_edge.verbs.workflow import job_for

    job = job_for(windows, division.split, plan)
    found = baseline_answers(windows, division.split.name, job.train, job.test, seed)
    for kind in ("teacher", "supervised", "student", "int8"):
        if kind not in division.keys:
            continue
        model = open_model(division.folder(workspace, kind))
        assert model.chain is not None  # noqa: S101 (these were written with one)
        fitted, parts = windows.with_chain(model.chain), []
        with workspace.progress.bar(f"{division.tag}: judging {model.name}", len(job.test), "window") as advance:
            for part in np.array_split(job.test, max(1, len(job.test) // 4096)):
                parts.append(model.embed(fitted.inputs(part)))
                advance(len(part))
        one = answer(model.name, division.split.name, windows, job.test, np.concatenate(parts), model.heads)
        found.append(one)
    return found
