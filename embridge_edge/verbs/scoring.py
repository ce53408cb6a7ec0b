"""What an arm of a benchmark is worth: how it sees windows and poses, and its rows on a division's test windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embridge_edge.artifacts import read_json, write_json
from embridge_edge.errors import EdgeError
from embridge_edge.recipe import Arm, Recipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from embridge_edge.learning.attributes import AttributeModel
    from embridge_edge.learning.evaluation import Embedded, Score
    from embridge_edge.learning.windows import WindowSet
    from embridge_edge.learning.zero_shot import PoseLibrary
    from embridge_edge.model.teacher import Teacher
    from embridge_edge.verbs.sides import Sides
    from embridge_edge.verbs.workflow import Job

    Index = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]
    Floats = npt.NDArray[np.float32]

TOWERS = "towers.safetensors"


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """What an earlier step left.

    Raises:
        EdgeError: the file is damaged; deleting its folder has it made again.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(file)
        return tensors
    except (SafetensorError, OSError) as error:
        raise EdgeError(f"{file} is damaged ({error}); delete {file.parent} and run the same command again.") from None


def scoring(
    name: str,
    arm: Arm,
    recipe: Recipe,
    job: Job,
    sides: Sides,
    seed: int,
    model: Path | None,
    towers: Path,
) -> Callable[[Path], None]:
    """Judge one arm on the division's test windows."""

    def make(folder: Path) -> None:
        judged, notes = _judged(name, arm, recipe, job, sides, seed, model, towers)
        write_json(folder / "scores.json", {"scores": [row.to_json() for row in judged], "notes": notes})

    return make


def read_scores(file: Path) -> tuple[list[Score], list[str]]:
    """The rows that a job wrote, and what is to be said beside them."""
    from embridge_edge.learning.evaluation import Score

    stored = read_json(file)
    return [Score(**row) for row in stored["scores"]], stored["notes"]


def _judged(
    name: str, arm: Arm, recipe: Recipe, job: Job, sides: Sides, seed: int, model: Path | None, towers: Path
) -> tuple[list[Score], list[str]]:
    import numpy as np

    from embridge_edge.learning.attributes import attribute_scores, fit_attributes
    from embridge_edge.learning.evaluation import Embedded, Judged, evaluate
    from embridge_edge.learning.few_shot import few_shot

    windows = job.windows
    unseen = np.array([windows.gestures.index(one) for one in recipe.windows.hold_out_gestures], np.int64)
    # Probes and libraries may look at the unseen gestures of the training side: at labels for the probe, at poses for the
    # library. The networks have not.
    known = windows.labels >= 0
    labelled = np.flatnonzero(sides.split.train & known)
    seeing, library = _space(arm, recipe, job, labelled, seed, model, towers)
    most = recipe.benchmark.test_windows

    def some(mask: Mask, count: int) -> Embedded:
        which = _drawn(windows, np.flatnonzero(mask & known), count, seed)
        return Embedded(seeing(which), windows.labels[which].astype(np.int64), windows.wearers[which].astype(np.int64))

    found: list[Score] = []
    if windows.tracked and arm.kind in ("network", "ridge"):
        found += _read_out(name, seeing, recipe, job, sides, seed)
    if not len(labelled):
        return found, []
    train = some(sides.split.train, recipe.evaluate.probe_windows)
    tests = {group: some(mask, most) for group, mask in sides.groups.items() if (mask & known).any()}
    if arm.kind == "lda":
        return found + _discriminant(name, seed, train, tests, unseen, windows.wearer_names), []
    judged = evaluate(name, seed, train, tests, library, unseen, windows.wearer_names)
    if arm.kind == "ridge":  # predicted angles are no embedding to fit a probe on
        return found + [row for row in judged if row.metric.startswith("zs")], []
    found += judged
    if len(unseen) < 2:
        return found, []
    hidden = np.isin(windows.labels, unseen)
    support = some((sides.split.train | sides.shown) & hidden, most)
    centre = train.embeddings[~np.isin(train.labels, unseen)].mean(axis=0)
    for group in tests:
        later = some(sides.groups[group] & hidden & sides.late, most)
        found += few_shot(Judged(name, seed, group, windows.wearer_names), support, later, unseen, centre)
    if any(job.library.pose(gesture) is None for gesture in windows.gestures):
        return found, []  # what the library does not know has no attributes either
    names, rows = job.library.attribute_rows(windows.gestures)
    attributes = fit_attributes(train, names, rows, unseen, seed)
    found += attribute_scores(name, seed, attributes, tests, unseen, windows.wearer_names)
    return found, _attribute_notes(attributes, windows.gestures)


def _read_out(
    name: str, seeing: Callable[[Index], Floats], recipe: Recipe, job: Job, sides: Sides, seed: int
) -> list[Score]:
    """Rows r2: joint angles at a window's end, read by ridge regression out of what the arm sees; a mean over the angles."""
    import numpy as np

    from embridge_edge.learning.baselines import ridge_rows
    from embridge_edge.learning.evaluation import Judged
    from embridge_edge.learning.scores import r2

    windows = job.windows
    shown = _drawn(windows, job.train, recipe.evaluate.probe_windows, seed)
    weights, bias = ridge_rows(seeing(shown), windows.poses_at(shown))
    found = []
    for group, mask in sides.groups.items():
        which = _drawn(windows, np.flatnonzero(mask & windows.posed()), recipe.benchmark.test_windows, seed)
        angles = seeing(which) @ weights.T + bias
        angles[:, ~weights.any(axis=1)] = np.nan
        truth, judged = windows.poses_at(which), Judged(name, seed, group, windows.wearer_names)
        for wearer in np.unique(windows.wearers[which]):
            own = windows.wearers[which] == wearer
            found.append(judged.row("r2", wearer, r2(truth[own], angles[own])))
    return [row for row in found if np.isfinite(row.value)]


def _attribute_notes(model: AttributeModel, gestures: tuple[str, ...]) -> list[str]:
    """What reading attributes cannot tell apart."""
    import numpy as np

    notes = []
    if model.unlearnable:
        notes.append(f"Attributes that no seen gesture teaches, left out: {', '.join(model.unlearnable)}.")
    notes += [
        f"By their attributes these are one: {', '.join(gestures[label] for label in group)}."
        for group in model.alike(np.arange(len(gestures)))
    ]
    return notes


def _discriminant(
    name: str, seed: int, train: Embedded, tests: Mapping[str, Embedded], unseen: Index, wearers: Sequence[str]
) -> list[Score]:
    """Rows lp_seen and lp_unseen of a linear discriminant on features, in the place of a probe."""
    import numpy as np

    from embridge_edge.learning.baselines import lda_rows
    from embridge_edge.learning.evaluation import Judged

    found: list[Score] = []
    for metric, wanted in (("lp_seen", False), ("lp_unseen", True)):
        part = train.only(np.isin(train.labels, unseen) == wanted)
        if len(np.unique(part.labels)) < 2:
            continue
        weights, bias = lda_rows(part.embeddings, part.labels, int(train.labels.max()) + 1)
        for group, test in tests.items():
            mask = (np.isin(test.labels, unseen) == wanted) & np.isin(test.labels, part.labels)
            decided = np.argmax(test.embeddings @ weights.T + bias, axis=1)
            found += Judged(name, seed, group, wearers).rows(metric, test, decided, mask)
    return found


def _drawn(windows: WindowSet, which: Index, most: int, seed: int) -> Index:
    from embridge_edge.learning.shares import drawn_evenly

    return which[drawn_evenly(windows.labels[which], windows.wearers[which], most, seed)]


def _space(
    arm: Arm, recipe: Recipe, job: Job, labelled: Index, seed: int, model: Path | None, towers: Path
) -> tuple[Callable[[Index], Floats], PoseLibrary | None]:
    """How an arm sees the EMG of windows, and the gestures' poses in the same space where it has one.

    Args:
        labelled: windows of the training side that have a label; their poses make the library.
    """
    import numpy as np

    from embridge_edge.learning.zero_shot import PoseLibrary, balanced_library

    windows, plan = job.windows, recipe.benchmark
    shown = _drawn(windows, labelled, 4 * plan.library_poses * max(1, len(windows.gestures)), seed)
    seeing, placing = _maps(arm, recipe, job, seed, model, towers)
    posed = shown[np.isfinite(windows.poses(shown)).any(axis=(1, 2))]
    if placing is None or not len(posed):
        return seeing, None
    library = PoseLibrary(placing(posed), windows.labels[posed].astype(np.int64))
    return seeing, balanced_library(library, plan.library_poses, seed)


def _maps(
    arm: Arm, recipe: Recipe, job: Job, seed: int, model: Path | None, towers: Path
) -> tuple[Callable[[Index], Floats], Callable[[Index], Floats] | None]:
    """From windows to the arm's embedding of their EMG, and to that of their pose; None for an arm without poses."""
    from typing import cast

    from embridge_edge.learning.baselines import time_domain_features
    from embridge_edge.learning.teacher import begin_from, embed, embed_poses, new_teacher, teacher_shape
    from embridge_edge.model.checkpoint import load_checkpoint

    windows = job.windows
    if arm.kind == "network" and model is not None:
        network = cast("Teacher", load_checkpoint(model).network())
        train = recipe.train
        towards_poses = train.pose_weight or train.regression_weight or train.soft_targets != "none"
        aligned = towards_poses if train.steps else arm.start == "simulated"
        return (
            lambda which: embed(network, windows, which),
            (lambda which: embed_poses(network, windows, which)) if aligned else None,
        )
    if arm.kind == "poses":
        tower = new_teacher(teacher_shape(windows.chain, len(windows.gestures), recipe.teacher), seed)
        begin_from(tower, read_tensors(towers / TOWERS))

        def poses(which: Index) -> Floats:
            return embed_poses(tower.eval(), windows, which)

        return poses, poses
    if arm.kind == "lda":
        return lambda which: time_domain_features(windows, which), None
    return _ridge(job, recipe, seed)


def _ridge(job: Job, recipe: Recipe, seed: int) -> tuple[Callable[[Index], Floats], Callable[[Index], Floats]]:
    """Ridge regression from time-domain features to standardised angles, which are the space."""
    import numpy as np

    from embridge_edge.learning.baselines import ridge_rows, time_domain_features

    windows = job.windows
    chosen = _drawn(windows, job.train, recipe.evaluate.probe_windows, seed)

    def angles(which: Index) -> Floats:
        return np.asarray(np.nan_to_num(windows.poses(which).mean(axis=1)), np.float32)

    known = angles(chosen)
    mean, spread = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-3)
    weights, bias = ridge_rows(time_domain_features(windows, chosen), (known - mean) / spread)
    return (
        lambda which: (time_domain_features(windows, which) @ weights.T + bias).astype(np.float32),
        lambda which: ((angles(which) - mean) / spread).astype(np.float32),
    )
