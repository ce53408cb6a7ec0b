"""Training and judging the arms of a benchmark: each arm, seed and division of the data is a job of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge import __version__
from embridge_edge.artifacts import sha256_of
from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import Recipe, arm_recipe, arms_of
from embridge_edge.verbs.scoring import TOWERS, read_tensors, scoring
from embridge_edge.verbs.sides import Sides, sides_of
from embridge_edge.verbs.workspace import Workspace

if TYPE_CHECKING:
    from embridge_edge.gestures import GestureLibrary
    from embridge_edge.learning.loop import Run
    from embridge_edge.verbs.workflow import Job


@dataclass(frozen=True)
class Held:
    """One division of the gestures: what no arm is trained on.

    Attributes:
        unseen: gestures. tag: names its steps.
    """

    unseen: tuple[str, ...]
    tag: str

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe that holds these gestures out."""
        return replace(recipe, windows=replace(recipe.windows, hold_out_gestures=self.unseen))


def divisions(recipe: Recipe, kept: tuple[str, ...] = ()) -> list[Held]:
    """The gestures that are held out at once, or each pair in turn.

    Args:
        kept: what the data's own division keeps from training, for a recipe that names none.
    """
    plan = recipe.benchmark
    if not plan.every_pair_of:
        return [Held(recipe.windows.hold_out_gestures or kept, "held")]
    return [Held(pair, "-".join(pair)) for pair in combinations(plan.every_pair_of, 2)]


def permuted_library(library: GestureLibrary, names: tuple[str, ...], seed: int) -> GestureLibrary:
    """The library with the poses of `names` dealt out so that none keeps its own: a control that poses carry nothing in."""
    import numpy as np

    found = {name: gesture for name in names if (gesture := library.gesture(name)) is not None}
    if len(found) < 2:
        return library
    known = list(found)
    random = np.random.default_rng(seed)
    order = random.permutation(len(known))
    givers = {known[place]: known[next_one] for place, next_one in zip(order, np.roll(order, 1), strict=True)}
    dealt = {name: replace(found[name], pose=found[giver].pose) for name, giver in givers.items()}
    return replace(library, gestures={**library.gestures, **dealt})


@dataclass(frozen=True)
class Trial:
    """One job for one process: arms of one division and seed that start from the same towers, each trained and judged.

    Attributes:
        arms: names; none pre-trains the towers only. windows: folder of the windows. key: stands for them.
        simulated: folder of the simulated wearers' windows, for arms that start on them; simulated_key stands for them.
        starts: arms to train on those first.
        data_sha256: stands for the recordings. share: of the training data. pose_seed: deals out poses; None leaves them.
    """

    held: Held
    arms: tuple[str, ...]
    folder: Path
    windows: Path
    key: str
    recipe: Recipe
    data_sha256: str
    seed: int
    progress: Progress
    share: float = 1.0
    pose_seed: int | None = None
    simulated: Path | None = None
    simulated_key: str = ""
    starts: tuple[str, ...] = ()

    def at_row(self, row: int) -> Trial:
        """The same job, with its progress in a row of the terminal of its own."""
        return replace(self, progress=replace(self.progress, row=row))

    @property
    def tag(self) -> str:
        """Names its steps."""
        share = "" if self.share == 1.0 else f".share{100 * self.share:g}"
        dealt = "" if self.pose_seed is None else ".dealt"
        return f"{self.held.tag}.seed{self.seed}{share}{dealt}"

    def scores_of(self, arm: str) -> Path:
        """Where the rows of an arm are kept."""
        return self.folder / f"{self.tag}.{arm}.scores" / "scores.json"

    def run(self) -> list[dict[str, Any]]:
        """Do it; returns the minutes of its steps."""
        workspace = Workspace(self.folder, self.progress)
        for name in self.starts:
            self._on_simulated(workspace, name)
        recipe = self.held.recipe(self.recipe)
        job, sides = self._job(recipe)
        inputs: list[Any] = [self.key, self.held.unseen, self.seed, self.share, self.pose_seed, asked_of(recipe)]
        # Arms come behind a round of jobs that has pre-trained the towers: they find them done, and need not say so.
        shared = Workspace(self.folder, SILENT) if self.arms else workspace
        towers, towers_key = self._pretrained(shared, job, recipe, inputs)
        for name in self.arms:
            arm, changed = arms_of(recipe)[name], arm_recipe(recipe, name)
            asked = changed.to_dict()
            keyed = [*inputs, name, asked["teacher"], asked["train"], arm.kind]
            start = None
            if arm.start == "simulated":
                folder, key = self._on_simulated(workspace, arm.start_arm)
                start, keyed = folder / "model.safetensors", [*keyed, key]
            elif arm.kind in ("network", "poses") and _starts_from_towers(changed):
                start, keyed = towers / TOWERS, [*keyed, towers_key]
            model = None
            if arm.kind == "network":
                model, key = workspace.step(f"{self.tag}.{name}", keyed, self._maker(name, job, changed, start))
                keyed = [key]
            make = scoring(name, arm, changed, job, sides, self.seed, model, towers)
            workspace.step(
                f"{self.tag}.{name}.scores",
                [*keyed, recipe.benchmark.library_poses, recipe.benchmark.test_windows],
                make,
            )
        return workspace.minutes

    def _job(self, recipe: Recipe) -> tuple[Job, Sides]:
        from embridge_edge.learning.shares import nested_share
        from embridge_edge.learning.windows import WindowSet
        from embridge_edge.verbs.workflow import job_for

        windows = WindowSet.load(self.windows).holding_out(self.held.unseen)
        sides = sides_of(windows, recipe)
        job = job_for(windows, sides.split, recipe)
        if self.pose_seed is not None:
            job = replace(job, library=permuted_library(job.library, windows.gestures, self.pose_seed))
        if self.share < 1.0:
            kept = nested_share(windows.sessions[job.train], windows.wearers[job.train], self.share, self.seed)
            job = replace(job, train=job.train[kept])
        return job, sides

    def _pretrained(self, workspace: Workspace, job: Job, recipe: Recipe, inputs: list[Any]) -> tuple[Path, str]:
        """The towers that the arms share: pre-trained once for each seed and division."""
        asked = recipe.to_dict()
        train = {name: asked["train"][name] for name in PRETRAINING}
        name = f"{self.tag}.towers"
        keyed = [*inputs, train, asked["teacher"]]

        def make(folder: Path) -> None:
            from safetensors.torch import save_file

            from embridge_edge.learning.teacher import new_teacher, pretrain, teacher_shape, towers_of

            teacher = new_teacher(
                teacher_shape(job.windows.chain, len(job.windows.gestures), recipe.teacher), self.seed
            )
            run = self._run(name, keyed)
            pretrain(teacher, job.windows, job.train, recipe.train, job.library, run, job.unlabelled)
            save_file({key: tensor.contiguous() for key, tensor in towers_of(teacher).items()}, folder / TOWERS)

        return workspace.step(name, keyed, make)

    def _on_simulated(self, workspace: Workspace, name: str) -> tuple[Path, str]:
        """The arm `name` trained on all simulated wearers: the same for every division."""
        from embridge_edge.learning.windows import WindowSet
        from embridge_edge.verbs.workflow import job_for

        if self.simulated is None:
            raise EdgeError("An arm starts on simulated wearers, and the recipe has no [simulate]; add one.")
        recipe = arm_recipe(replace(self.recipe, windows=replace(self.recipe.windows, hold_out_gestures=())), name)
        job = job_for(WindowSet.load(self.simulated), None, recipe)
        asked = recipe.to_dict()
        tag = f"simulated.seed{self.seed}.{name}"
        keyed = [self.simulated_key, self.seed, asked["teacher"], asked["train"], asked["evaluate"]]
        return workspace.step(tag, keyed, self._maker(tag, job, recipe, None))

    def _maker(self, name: str, job: Job, recipe: Recipe, begin: Path | None) -> Callable[[Path], None]:
        """Train one arm.

        Args:
            begin: file of the tensors to begin from; None pre-trains, where the recipe says so.
        """

        def make(folder: Path) -> None:
            from embridge_edge.model.checkpoint import save_checkpoint
            from embridge_edge.verbs.workflow import train_checkpoint

            start = (
                None
                if begin is None
                else {key: tensor for key, tensor in read_tensors(begin).items() if not key.startswith("labels.")}
            )
            asked = [self.key, self.held.unseen, self.share, self.pose_seed, recipe.to_dict()]
            run = self._run(f"{self.tag}.{name}", asked)
            save_checkpoint(train_checkpoint(job, recipe, run, parents=[self.data_sha256], start=start), folder)

        return make

    def _run(self, name: str, keyed: list[Any]) -> Run:
        from embridge_edge.learning.loop import Run

        state = Workspace(self.folder, self.progress).state(name)
        return Run(self.seed, name, state, sha256_of([__version__, keyed]), self.progress)


PRETRAINING = (
    "pose_steps",
    "masked_steps",
    "batch",
    "draw_over",
    "accumulate",
    "learning_rate",
    "weight_decay",
    "mask_share",
    "whitened_poses",
    "mix_share",
)
"""Keys of [train] that the towers depend on."""


def asked_of(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe every job depends on."""
    asked = recipe.to_dict()
    return {
        "windows": asked["windows"],
        "evaluate": asked["evaluate"],
        "unseen_wearers": recipe.benchmark.unseen_wearers,
        "later_share": recipe.benchmark.later_share,
    }


def _starts_from_towers(recipe: Recipe) -> bool:
    """Whether an arm starts from the shared towers; one that pre-trains nothing starts from scratch."""
    return bool(recipe.train.pose_steps or recipe.train.masked_steps)
