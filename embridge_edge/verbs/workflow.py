"""What train, distill, quantize, check and deploy have in common: from recordings to windows to a checkpoint."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge import __version__
from embridge_edge.artifacts import read_json, sha256_of, write_json
from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import DistillPlan, Recipe
from embridge_edge.verbs.workspace import Workspace, content_hash

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

    from embridge_edge.features.chain import SignalChain
    from embridge_edge.gestures import GestureLibrary
    from embridge_edge.learning.lessons import Lesson, Says
    from embridge_edge.learning.loop import Run
    from embridge_edge.learning.splits import Split
    from embridge_edge.learning.windows import WindowSet
    from embridge_edge.model.checkpoint import Checkpoint
    from embridge_edge.model.head import Head
    from embridge_edge.model.teacher import Teacher
    from embridge_edge.recipe import DistillPlan

    Index = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]

_VERSIONED = (
    "ai-edge-litert",
    "ai-edge-quantizer",
    "litert-torch",
    "nncf",
    "numba",
    "numpy",
    "onnx",
    "onnxruntime",
    "scikit-learn",
    "scipy",
    "tflite-micro",
    "torch",
)

_WRITERS = ("flatbuffers", "h5py", "lightning-fabric", "litert-converter", "onnx-ir", "onnxscript", "safetensors")
"""Libraries that also have a hand in a bundle's bytes; its manifest names them, the files' own metadata need not."""
LICENCES = ("license", "licence", "copying")
NORMALISATION_WINDOWS = 20_000
SCORES_ARE_OF_OTHERS = "score_weight in the recipe's [distill] is for teachers of others, given as ONNX; ours teaches by its embedding: set it to 0."


@dataclass(frozen=True)
class Job:
    """One division of one data set, with what trains on it.

    Attributes:
        windows: all windows, their chain fitted to the training side.
        split: None trains on everything.
        train: indices of the training windows. unlabelled: of those that only masked pre-training can use.
    """

    windows: WindowSet
    split: Split | None
    train: Index
    library: GestureLibrary
    unlabelled: Index | None = None

    @property
    def test(self) -> Index:
        """Indices of the test windows that can be judged: those with a gesture, or all where poses were tracked."""
        import numpy as np

        if self.split is None:
            return np.zeros(0, np.int64)
        known = self.windows.labels >= 0
        if self.windows.tracked:
            known = known | self.windows.posed(-1)
        return np.flatnonzero(self.split.test & known)


def read_windows(
    data: Path,
    recipe: Recipe,
    format: str | None,
    progress: Progress = SILENT,
    folder: Path | None = None,
    library: GestureLibrary | None = None,
) -> WindowSet:
    """Read, filter and cut all recordings at `data`.

    Args:
        folder: keep the windows there while they are cut, with one recording in memory at a time.
        library: poses of the gestures; None takes the shipped ones.

    Raises:
        EdgeError: nothing readable, recordings that do not go together, or no band at their rate.
    """
    from embridge_edge.gestures import read_library
    from embridge_edge.learning.windows import cut_windows
    from embridge_edge.recordings.loading import read_recordings

    library = library or read_library()
    windows = cut_windows(
        read_recordings(data, format, progress, several_devices=True), recipe.chain, recipe.windows, library, folder
    )
    if not windows.tracked:
        for gesture in windows.gestures:
            if library.pose(gesture) is None:
                progress.say(f"warning: gesture {gesture!r} has no pose in the library; it trains with its label only.")
    if windows.problems:
        progress.say(f"warning: {len(windows.problems)} places could not be read, the first: {windows.problems[0]}")
    return windows


def recordings_step(workspace: Workspace, data: Path, format: str | None, stamp: str, name: str = "recordings") -> str:
    """The hash of the recordings' content, kept as long as their fingerprint `stamp` is the same."""
    folder, _ = workspace.step(
        name, stamp, lambda target: write_json(target / "recordings.json", {"sha256": content_hash(data, format)})
    )
    return str(read_json(folder / "recordings.json")["sha256"])


def windows_step(
    workspace: Workspace,
    data: Path,
    plan: Recipe,
    format: str | None,
    stamp: str,
    name: str = "windows",
    library: GestureLibrary | None = None,
) -> tuple[WindowSet, str]:
    """The windows of the recordings, on disk; cut anew only when recordings, recipe or library have changed.

    Returns: the windows, and a key that stands for them.
    """
    from embridge_edge.gestures import read_library
    from embridge_edge.learning.windows import WindowSet

    poses = library or read_library()
    known = {name: [*gesture.pose.tolist(), *gesture.attributes] for name, gesture in poses.gestures.items()}
    asked = plan.to_dict()
    inputs = [stamp, asked["chain"], asked["windows"], sha256_of(known), format]

    def make(target: Path) -> None:
        read_windows(data, plan, format, workspace.progress, target, library)

    folder, key = workspace.step(name, inputs, make)
    return WindowSet.load(folder), key


def licence_of(data: Path) -> dict[str, str] | None:
    """The licence file among recordings: its name and its first line, since whoever ships a model must know it; None without one."""
    files = sorted(data.iterdir()) if data.is_dir() else []
    for file in files:
        if file.stem.lower() in LICENCES and file.is_file():
            lines = (line.strip() for line in file.read_text("utf-8", errors="replace").splitlines())
            return {"file": file.name, "first_line": next((line[:100] for line in lines if line), "")}
    return None


def about_data(windows: WindowSet, name: str) -> dict[str, Any]:
    """What a report says of the recordings."""
    return {
        "name": name,
        "wearers": len(windows.wearer_names),
        "sessions": len(windows.session_names),
        "recordings": windows.recordings,
        "hours": len(windows.signal) / windows.chain.rate_hz / 3600.0,
        "channels": len(windows.chain.channels),
        "rate_hz": windows.chain.rate_hz,
        "unit": windows.chain.unit,
        "gestures": list(windows.gestures),
        "windows": len(windows),
        "problems": [str(problem) for problem in windows.problems],
    }


def job_for(windows: WindowSet, split: Split | None, recipe: Recipe) -> Job:
    """A job on one division; the chain's normalisation is taken from its training side."""
    from embridge_edge.gestures import read_library
    from embridge_edge.learning.near import near_gestures
    from embridge_edge.learning.splits import training_windows, unlabelled_windows

    library, held_out = read_library(), recipe.windows.hold_out_gestures
    for gesture in held_out:
        if gesture not in windows.gestures:
            known = ", ".join(windows.gestures) or "none"
            raise EdgeError(f"The recipe holds out {gesture!r}, which these recordings lack; they have {known}.")
    near_rad = recipe.windows.near_rad
    near = near_gestures(library, held_out, near_rad) if near_rad and held_out else None
    train = training_windows(windows, split, near)
    if not len(train):
        raise EdgeError(
            "No training window has a label or a pose; record labels, or give a description of their column."
        )
    sample = train[:: max(1, len(train) // NORMALISATION_WINDOWS)]
    chain = windows.chain.fitted(windows.signal, windows.starts[sample])
    return Job(windows.with_chain(chain), split, train, library, unlabelled_windows(windows, split))


def choose_split(windows: WindowSet, name: str | None, recipe: Recipe) -> Split | None:
    """The division that a verb was asked for: the first fold of `name`, the first that the data allow, or none at all.

    Raises:
        EdgeError: the data do not allow it; names those that they allow.
    """
    from embridge_edge.learning.splits import SPLIT_NEEDS, SplitLeaks, allowed_splits, make_splits, possible_splits

    if name == "none":
        return None
    chosen = name or possible_splits(windows)[0]
    try:
        return make_splits(windows, chosen, recipe.evaluate.folds)[0]
    except SplitLeaks:
        raise
    except EdgeError:
        allowed = allowed_splits(windows)
        instead = f"use --split {' or '.join(allowed)}" if allowed else "they allow no other either: record more"
        raise EdgeError(
            f"--split {chosen} needs {SPLIT_NEEDS[chosen]}, which these recordings lack; {instead}."
        ) from None


def train_checkpoint(
    job: Job,
    recipe: Recipe,
    run: Run,
    *,
    supervised: bool = False,
    share: float = 1.0,
    parents: Sequence[str] = (),
    start: Mapping[str, torch.Tensor] | None = None,
) -> Checkpoint:
    """Train a teacher, or the supervised network of its size, and fit its heads.

    Args:
        share: of the recipe's steps, for folds. start: pre-trained towers; None pre-trains them.
    """
    from embridge_edge.learning.teacher import embed, pose_embeddings, teacher_shape, train_teacher
    from embridge_edge.model.checkpoint import Checkpoint, tensors_of

    plan = shortened(recipe.train, share, len(job.train))
    if supervised:
        plan = replace(plan, pose_steps=0, masked_steps=0, pose_weight=0.0, label_weight=1.0)
    shape = teacher_shape(job.windows.chain, len(job.windows.gestures), recipe.teacher)
    network = train_teacher(job.windows, job.train, shape, plan, job.library, run, start, job.unlabelled)
    poses = None if supervised else pose_embeddings(network, job.library, job.windows.gestures)
    labels = network.labels if plan.label_weight else None
    heads = _heads(job, recipe, lambda which: embed(network, job.windows, which), labels, poses, run.seed)
    return Checkpoint(
        kind="supervised" if supervised else "teacher",
        shape=shape.to_dict(),
        tensors=tensors_of(network),
        chain=job.windows.chain,
        gestures=job.windows.gestures,
        heads=heads,
        provenance=provenance(job, recipe, run.seed, parents),
    )


def distill_checkpoint(
    job: Job,
    teacher: Checkpoint,
    recipe: Recipe,
    run: Run,
    *,
    share: float = 1.0,
    parents: Sequence[str] = (),
    start: Checkpoint | None = None,
    plan: DistillPlan | None = None,
) -> Checkpoint:
    """Distil a teacher into a student on a job's training windows, and fit the student's heads.

    Args:
        start: a student to go on from; None takes a new one of the recipe's shape. plan: in the place of the recipe's [distill].
    """
    from typing import cast

    from embridge_edge.learning.distill import student_shape
    from embridge_edge.model.teacher import Teacher

    if teacher.kind != "teacher":
        raise EdgeError(f"The checkpoint is a {teacher.kind}, no teacher; give the folder that train wrote.")
    refuse_other_chain("teacher", teacher.chain, job.windows.chain)
    if teacher.gestures != job.windows.gestures:
        raise EdgeError(
            f"The teacher knows the gestures {', '.join(teacher.gestures)}, the recordings have "
            f"{', '.join(job.windows.gestures)}; train a teacher on them first."
        )
    job = replace(job, windows=job.windows.with_chain(teacher.chain))
    master = cast(Teacher, teacher.network())
    plan = shortened(plan or recipe.distill, share, len(job.train))
    if plan.score_weight:
        raise EdgeError(SCORES_ARE_OF_OTHERS)
    unlabelled = job.unlabelled if plan.unlabelled_share else None
    if start is None:  # what cannot be is refused before the teacher speaks
        student_shape(job.windows, recipe.student, master.shape.embedding)
    lesson = kept_lesson(master, job.windows, job.train, plan, run, unlabelled)
    student = taught_student(job, lesson, recipe, plan, run, master.shape.embedding, master, parents, start)
    origin = dict(student.provenance)
    for seen in (
        "seen_sessions",
        "seen_wearers",
        "seen_stages",
    ):  # what the teacher has seen, the student knows through it
        earlier = () if start is None else start.provenance.get(seen, ())
        origin[seen] = sorted({*origin[seen], *teacher.provenance.get(seen, ()), *earlier})
    return replace(student, provenance=origin)


def kept_lesson(
    teacher: Teacher | Says,
    windows: WindowSet,
    which: Index,
    plan: DistillPlan,
    run: Run,
    unlabelled: Index | None,
    roles: Sequence[str] = (),
) -> Lesson:
    """What a teacher says, once for a training: where the training keeps its state, on disk beside it and read by memory map.

    Args:
        roles: what a teacher of others is asked for.
    """
    from embridge_edge.learning.lessons import Lesson, teach

    def make(folder: Path | None) -> Lesson:
        return teach(
            teacher, windows, which, plan.teacher_windows, run.seed, run.progress, unlabelled=unlabelled, folder=folder
        )

    if run.state is None:
        return make(None)
    inputs = [run.key, list(roles), plan.teacher_windows, bool(plan.unlabelled_share), run.seed]
    folder, _ = Workspace(run.state, SILENT).step("lesson", inputs, make)
    return Lesson.load(folder)


def taught_student(
    job: Job,
    lesson: Lesson,
    recipe: Recipe,
    plan: DistillPlan,
    run: Run,
    embedding: int,
    teacher: Teacher | None,
    parents: Sequence[str],
    start: Checkpoint | None = None,
) -> Checkpoint:
    """Train a student on a lesson, and fit its heads.

    Args:
        plan: the recipe's [distill], shortened or changed. embedding: the student's width.
        teacher: for the poses' embeddings; None for a teacher of others, which has none.
        start: a student to go on from; None takes a new one of the recipe's shape.
    """
    from typing import cast

    from embridge_edge.learning.distill import distill_student, student_shape
    from embridge_edge.learning.teacher import embed, pose_embeddings
    from embridge_edge.model.checkpoint import Checkpoint, tensors_of
    from embridge_edge.model.students import AnyStudent, shape_of, stored_shape

    begun = None
    if start is None:
        shape = student_shape(job.windows, recipe.student, embedding)
    else:
        shape = shape_of(start.shape)
        begun = cast(AnyStudent, start.network()), _label_layer(start, shape.embedding)
    network, to_labels = distill_student(
        job.windows, job.train, lesson, teacher, shape, plan, recipe.train.temperature, run, begun
    )
    poses = None if teacher is None else pose_embeddings(teacher, job.library, job.windows.gestures)
    labels = to_labels if plan.label_weight or plan.score_weight else None
    return Checkpoint(
        kind="student",
        shape=stored_shape(shape),
        tensors=tensors_of(network),
        chain=job.windows.chain,
        gestures=job.windows.gestures,
        heads=_heads(job, recipe, lambda which: embed(network, job.windows, which), labels, poses, run.seed),
        provenance=provenance(job, recipe, run.seed, parents),
    )


def _label_layer(student: Checkpoint, embedding: int) -> nn.Linear:
    """The label layer that a student's linear head was made from; a new one where it has none."""
    import numpy as np
    import torch
    from torch import nn

    layer = nn.Linear(embedding, max(1, len(student.gestures)))
    for head in student.heads:
        if head.kind == "linear" and head.names == student.gestures:
            known = head.rows.any(axis=1)  # a gesture that was never trained on has no row, and a bias that never wins
            weights, bias = head.rows.astype(np.float32) * head.scale[:, None], np.where(known, head.bias, 0.0)
            layer.load_state_dict(
                {"weight": torch.from_numpy(weights), "bias": torch.from_numpy(bias.astype(np.float32))}
            )
    return layer


def refuse_other_chain(who: str, trained: SignalChain, given: SignalChain) -> None:
    """Refuse to feed a model another signal than the one that it was trained on; only the normalisation may differ.

    Raises:
        EdgeError: says what differs.
    """
    for name in ("rate_hz", "unit", "channels", "window", "hop", "features", "frame", "sections"):
        mine, its = getattr(trained, name), getattr(given, name)
        if mine == its:
            continue
        if name == "sections":
            mine, its = (
                {key: value for key, value in chain.resolved.items() if key in ("bandpass_hz", "notch_hz")}
                for chain in (trained, given)
            )
        if name == "channels":
            mine, its = len(mine), len(its)
        raise EdgeError(
            f"The {who}'s signal chain has {name} {mine}, these recordings under this recipe give {its}; use the recipe and "
            "the band that it was trained with."
        )


def shortened(plan: Any, share: float, windows: int) -> Any:
    """A training plan with a share of its steps, cut to its most passes over so many windows; one at least where it had any."""
    if plan.most_passes is not None and plan.steps:
        share *= min(1.0, plan.most_passes * windows / (plan.steps * plan.batch))
    steps = {name: getattr(plan, name) for name in ("pose_steps", "masked_steps", "steps") if hasattr(plan, name)}
    return replace(plan, **{name: max(min(1, count), round(count * share)) for name, count in steps.items()})


def _heads(
    job: Job, recipe: Recipe, embedded: Any, labels: nn.Linear | None, poses: Floats | None, seed: int
) -> tuple[Head, ...]:
    """Linear rows, pose rows and pose read-out, as far as the data allow.

    The linear rows are the label layer that was trained with the network, or a probe where none was.
    """
    from embridge_edge.learning.probes import linear_head, pose_head, probe_windows, regression_head, trained_head

    windows = job.windows
    heads: list[Head | None] = []
    labelled = job.train[windows.labels[job.train] >= 0]
    if len(labelled) and labels is not None:
        weights, bias = (parameter.detach().numpy() for parameter in (labels.weight, labels.bias))
        heads.append(trained_head(weights, bias, windows.labels[labelled], windows.gestures))
    elif len(labelled):
        chosen = probe_windows(windows, labelled, recipe.evaluate.probe_windows, seed)
        heads.append(linear_head(embedded(chosen), windows.labels[chosen], windows.gestures))
    if poses is not None and len(poses):
        heads.append(pose_head(poses, windows.gestures))
    if windows.tracked:
        chosen = probe_windows(windows, job.train, recipe.evaluate.probe_windows, seed)
        heads.append(regression_head(embedded(chosen), windows.poses_at(chosen)))
    return tuple(head for head in heads if head is not None)


def provenance(job: Job, recipe: Recipe, seed: int, parents: Sequence[str]) -> dict[str, Any]:
    """What made a checkpoint, and whom and what it has seen (`seen_by`)."""
    from embridge_edge.verbs.seen import seen_by

    return {
        "recipe": recipe.to_dict(),
        "recipe_sha256": recipe.sha256,
        "parents": list(parents),
        "seed": seed,
        "split": "none" if job.split is None else job.split.name,
        **seen_by(job),
        "versions": versions(),
    }


def versions(*, all_writers: bool = False) -> dict[str, str]:
    """Versions of what made an artifact, or of everything that had a hand in a bundle."""
    found = {"embridge-edge": __version__, "python": platform.python_version()}
    for name in sorted((*_VERSIONED, *_WRITERS)) if all_writers else _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def refuse_nothing_to_judge(job: Job) -> None:
    """Refuse a division whose test side holds nothing that can be judged.

    Raises:
        EdgeError: no test window has a gesture or a tracked pose.
    """
    if not len(job.test):
        raise EdgeError(
            f"The test side of --split {job.split.name if job.split else 'none'} has no window with a gesture or a tracked "
            "pose; choose another --split, or hold gestures for longer than window and guard together."
        )
