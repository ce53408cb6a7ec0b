"""Training and judging the models of each division of the data: independent jobs, side by side on the machine's cores."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge import __version__
from embridge_edge.artifacts import read_json, sha256_of, sha256_of_file, write_json
from embridge_edge.progress import Progress
from embridge_edge.recipe import Recipe
from embridge_edge.verbs.workspace import Workspace

if TYPE_CHECKING:
    from embridge_edge.learning.judge import Answers, Judgement
    from embridge_edge.learning.windows import WindowSet
    from embridge_edge.model.checkpoint import Checkpoint
    from embridge_edge.verbs.workflow import Job

CHAIN = ("teacher", "student", "int8")
_COLUMNS = ("test", "gestures", "zero_shot", "angles", "embeddings")


@dataclass(frozen=True)
class Division:
    """One split, or one fold of it.

    Attributes:
        split, fold: which. several: whether the split has more than one fold.
        first_split: whether its split is the one whose first fold ships: all its folds get all of the recipe's steps, since
            their answers are counted together, and a supervised network beside the teacher.
    """

    split: str
    fold: int
    several: bool
    first_split: bool

    @property
    def primary(self) -> bool:
        """Whether its models ship."""
        return self.first_split and self.fold == 0

    @property
    def tag(self) -> str:
        """Names its steps."""
        return f"{self.split}-{self.fold}" if self.several else self.split

    def folder(self, workspace: Workspace, kind: str) -> Path:
        """Where one of its models is kept: teacher, supervised, student or int8."""
        return workspace.folder / f"{self.tag}.{kind}"


@dataclass(frozen=True)
class Work:
    """One job for one process: models of a division that depend on each other, each trained and then heard.

    Attributes:
        kinds: which, in order. key: stands for the windows. data_sha256: stands for the recordings.
        given: a teacher to start from, instead of training one.
    """

    division: Division
    kinds: tuple[str, ...]
    folder: Path
    recipe: Recipe
    key: str
    data_sha256: str
    seed: int
    given: Path | None
    progress: Progress

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps whose answers are judged."""
        return (*(("baselines",) if "teacher" in self.kinds else ()), *(f"{kind}.heard" for kind in self.kinds))

    def at_row(self, row: int) -> Work:
        """The same job, with its progress in a row of the terminal of its own."""
        return replace(self, progress=replace(self.progress, row=row))

    def run(self) -> list[dict[str, Any]]:
        """Do it; returns the minutes of its steps."""
        from embridge_edge.learning.splits import make_splits
        from embridge_edge.learning.windows import WindowSet
        from embridge_edge.model.checkpoint import load_checkpoint
        from embridge_edge.verbs.seen import refuse_leak
        from embridge_edge.verbs.workflow import job_for, refuse_nothing_to_judge

        workspace = Workspace(self.folder, self.progress)
        windows = WindowSet.load(self.folder / "windows")
        split = make_splits(windows, self.division.split, self.recipe.evaluate.folds)[self.division.fold]
        job = job_for(windows, split, self.recipe)
        refuse_nothing_to_judge(job)
        asked = self.recipe.to_dict()
        plans = {
            "teacher": [asked["teacher"], asked["train"]],
            "supervised": [asked["teacher"], asked["train"]],
            "student": [asked["student"], asked["distill"], asked["prune"], asked["train"]["temperature"]],
            # The target's kernels are those that the int8 model is judged with.
            "int8": [
                asked["quantize"],
                asked["distill"]["batch"] if self.recipe.quantize.qat else None,
                asked["target"],
            ],
        }
        share = 1.0 if self.division.first_split else self.recipe.evaluate.fold_share
        inputs: list[Any] = [
            self.key,
            self.division.tag,
            hashlib.sha256(split.train.tobytes() + split.test.tobytes()).hexdigest(),
            share,
            self.seed,
            asked["windows"],
            asked["evaluate"]["probe_windows"],
        ]
        if self.given is not None:
            refuse_leak(dict(load_checkpoint(self.given).provenance), windows, split)
            inputs += [sha256_of_file(self.given / name) for name in ("model.safetensors", "model.json")]
        if self.kinds[0] == "teacher":
            workspace.step(f"{self.division.tag}.baselines", inputs, _baselines(job, self.division.split, self.seed))
        for kind in self.kinds:
            inputs = [*inputs, kind, plans[kind]]
            make = self._maker(kind, job, workspace, share, sha256_of([__version__, inputs]))
            folder, key = workspace.step(f"{self.division.tag}.{kind}", inputs, make)
            workspace.step(f"{self.division.tag}.{kind}.heard", [key], _hearing(job, self.division, folder, workspace))
        return workspace.minutes

    def _maker(self, kind: str, job: Job, workspace: Workspace, share: float, key: str) -> Callable[[Path], None]:
        from embridge_edge.export.quantized import save_quantized
        from embridge_edge.learning.loop import Run
        from embridge_edge.model.checkpoint import load_checkpoint, save_checkpoint
        from embridge_edge.verbs.prune import pruned
        from embridge_edge.verbs.quantize import quantized
        from embridge_edge.verbs.workflow import distill_checkpoint, train_checkpoint

        plan = self.recipe
        state = workspace.state(f"{self.division.tag}.{kind}")
        run = Run(self.seed, f"{self.division.tag} {kind}", state, key, self.progress)

        def model() -> Checkpoint:
            if kind == "student":
                teacher = self.division.folder(workspace, "teacher")
                parent = sha256_of_file(teacher / "model.safetensors")
                master = load_checkpoint(teacher)
                whole = distill_checkpoint(job, master, plan, run, share=share, parents=[parent])
                if plan.prune is None:
                    return whole
                return pruned(job, whole, master, plan, run, share=share, parents=[parent])[0]
            if kind == "teacher" and self.given is not None:
                return load_checkpoint(self.given)
            supervised = kind == "supervised"
            return train_checkpoint(job, plan, run, supervised=supervised, share=share, parents=[self.data_sha256])

        def make(folder: Path) -> None:
            if kind == "int8":
                student = load_checkpoint(self.division.folder(workspace, "student"))
                save_quantized(quantized(job, student, plan, self.seed, self.progress, state, key), folder)
            else:
                save_checkpoint(model(), folder)

        return make


def _baselines(job: Job, split: str, seed: int) -> Callable[[Path], None]:
    """Have LDA and ridge answer for the division's test windows."""

    def make(folder: Path) -> None:
        from embridge_edge.learning.baselines import baseline_answers

        for one in baseline_answers(job.windows, split, job.train, job.test, seed):
            _save(one, folder)

    return make


def _hearing(job: Job, division: Division, model_folder: Path, workspace: Workspace) -> Callable[[Path], None]:
    """Have a model answer for the division's test windows."""

    def make(folder: Path) -> None:
        from embridge_edge.learning.judge import answer
        from embridge_edge.verbs.models import embed_windows, open_model

        model = open_model(model_folder)
        embeddings = embed_windows(
            model, job.windows, job.test, workspace.progress, f"{division.tag} {model.name}: judging"
        )
        one = answer(model.name, division.split, job.windows, job.test, embeddings, model.heads)
        # Embeddings of different folds are different spaces: only those of the model that ships are compared.
        _save(one if division.primary else replace(one, embeddings=None), folder)

    return make


def _save(one: Answers, folder: Path) -> None:
    import numpy as np

    columns = {name: getattr(one, name) for name in _COLUMNS if getattr(one, name) is not None}
    if "embeddings" in columns:
        columns["embeddings"] = columns["embeddings"].astype(np.float16)
    np.savez(folder / f"{one.model}.npz", **columns)


def _load(file: Path, split: str) -> Answers:
    import numpy as np

    from embridge_edge.learning.judge import Answers

    with np.load(file, allow_pickle=False) as stored:
        columns = {name: stored[name] for name in stored.files}
    if "embeddings" in columns:
        columns["embeddings"] = columns["embeddings"].astype(np.float32)
    return Answers(file.stem, split, **columns)


def judgement_of(
    workspace: Workspace, windows: WindowSet, works: list[Work], plan: Recipe, data: str, seed: int
) -> Judgement:
    """Judge all models of one split, those that `works` made; the folds' answers are joined first."""
    from embridge_edge.learning.judge import Judgement, joined, judge
    from embridge_edge.learning.scores import Result

    name = works[0].division.split
    order = ("baselines", "supervised.heard", "teacher.heard", "student.heard", "int8.heard")
    folders = [work.division.folder(workspace, kind) for kind in order for work in works if kind in work.steps]

    def make(folder: Path) -> None:
        by_model: dict[str, list[Answers]] = {}
        for heard in folders:
            for file in sorted(heard.glob("*.npz")):
                by_model.setdefault(file.stem, []).append(_load(file, name))
        answers = [joined(parts) for parts in by_model.values()]
        found = judge(windows, answers, data, plan.windows.hold_out_gestures, seed)
        write_json(
            folder / "judgement.json",
            {
                "results": [result.to_json() for result in found.results],
                "confusions": list(found.confusions),
                "per_wearer": list(found.per_wearer),
            },
        )

    inputs = [
        data,
        seed,
        [read_json(folder / "step.json")["key"] for folder in folders],
        list(plan.windows.hold_out_gestures),
    ]
    folder, _ = workspace.step(f"{name}.judged", inputs, make)
    stored = read_json(folder / "judgement.json")
    results = tuple(Result(**result) for result in stored["results"])
    return Judgement(results, tuple(stored["confusions"]), tuple(stored["per_wearer"]))
