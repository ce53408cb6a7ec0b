"""Training the teacher: masked pre-training of both towers, then alignment with the pose tower frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import SignalChain
from embridge_edge.gestures import GestureLibrary
from embridge_edge.learning.alignment import align, posed_windows
from embridge_edge.learning.loop import Run
from embridge_edge.learning.pretraining import pretrain_emg, pretrain_poses
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.teacher import Teacher, TeacherShape
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import TeacherPlan, TrainPlan

Index = npt.NDArray[np.int64]

TOWERS = ("emg.", "pose.")

EMBED_BATCH = 512
"""Windows that are embedded together: activations of more leave the cache (2048 took 1.6 times as long on a core with 1 MB)."""


def teacher_shape(chain: SignalChain, gestures: int, plan: TeacherPlan) -> TeacherShape:
    """The shape that a plan becomes for a signal chain and a number of gestures.

    Raises:
        EdgeError: no network has that shape.
    """
    frame_ms = 1000.0 * (chain.frame if chain.features else 1) / chain.rate_hz
    return TeacherShape(
        steps=chain.steps,
        columns=chain.columns,
        patch=max(1, round(plan.patch_ms / frame_ms)),
        frames=chain.hops,
        gestures=gestures,
        **{name: value for name, value in asdict(plan).items() if name != "patch_ms"},
    )


def train_teacher(
    windows: WindowSet,
    which: Index,
    shape: TeacherShape,
    plan: TrainPlan,
    library: GestureLibrary,
    run: Run,
    start: Mapping[str, Tensor] | None = None,
    unlabelled: Index | None = None,
) -> Teacher:
    """Train a teacher on the windows `which`.

    With a plan whose `pose_weight`, `pose_steps` and `masked_steps` are 0 this is the supervised network of the
    teacher's size. Windows whose pose is unknown take part with their label only, and the other way round.

    Args:
        unlabelled: windows without label and pose, which masked pre-training uses too.
        start: tensors to begin from: those of the towers (`towers_of`), or of a whole teacher; None pre-trains here.
    """
    teacher = new_teacher(shape, run.seed)
    if start is None:
        pretrain(teacher, windows, which, plan, library, run, unlabelled)
    else:
        begin_from(teacher, start)
    fresh = start is None or not any(name.startswith("qformer.") for name in start)
    if shape.readout == "queries" and plan.start_from_pose and fresh:
        teacher.qformer.start_from(teacher.pose)
    if plan.steps:
        poses = plan.pose_weight or plan.reconstruct_weight or plan.regression_weight or plan.soft_targets != "none"
        useful = np.union1d(
            posed_windows(windows, which) if poses else which[:0],
            which[windows.labels[which] >= 0] if plan.label_weight else which[:0],
        )
        align(teacher, windows, useful, plan, library, run, run.saved("align", shape.to_dict(), asdict(plan)))
    return teacher.eval()


def new_teacher(shape: TeacherShape, seed: int) -> Teacher:
    """An untrained teacher."""
    torch.manual_seed(seed)
    return Teacher(shape)


def pretrain(
    teacher: Teacher,
    windows: WindowSet,
    which: Index,
    plan: TrainPlan,
    library: GestureLibrary,
    run: Run,
    unlabelled: Index | None = None,
) -> None:
    """Masked pre-training of both towers, as far as the plan and the windows have it; see `train_teacher`."""
    belongs = (teacher.shape.to_dict(), asdict(plan))
    posed = posed_windows(windows, which)
    if plan.pose_steps and len(posed):
        pretrain_poses(teacher.pose, windows, posed, plan, library, run, run.saved("pose", *belongs))
    if plan.masked_steps:
        everything = which if unlabelled is None else np.union1d(which, unlabelled)
        pretrain_emg(teacher.emg, windows, everything, plan, run, run.saved("masked", *belongs))


def towers_of(teacher: Teacher) -> dict[str, Tensor]:
    """The tensors of both towers, which are what pre-training makes."""
    return {name: tensor for name, tensor in teacher.state_dict().items() if name.startswith(TOWERS)}


def begin_from(teacher: Teacher, tensors: Mapping[str, Tensor]) -> None:
    """Put trained tensors into a teacher: both towers, and whatever else of it is given.

    Raises:
        EdgeError: a tower is missing, or something is of another shape.
    """
    own = teacher.state_dict()
    for name in sorted(towers_of(teacher).keys() | tensors.keys()):
        mine, its = (tuple(state[name].shape) if name in state else "missing" for state in (own, tensors))
        if mine != its:
            raise EdgeError(
                f"What the training starts from has another shape: {name} is {its}, {mine} expected; train it again."
            )
    teacher.load_state_dict(dict(tensors), strict=False)


def canonical_tracks(library: GestureLibrary, gestures: tuple[str, ...], frames: int) -> Tensor:
    """Canonical poses held still, float32 `[gestures, frames, 23]`; NaN where the library knows none."""
    return torch.from_numpy(library.poses(gestures))[:, None].repeat(1, frames, 1)


def embed(
    network: torch.nn.Module, windows: WindowSet, which: Index, progress: Progress = SILENT, label: str = "embedding"
) -> npt.NDArray[np.float32]:
    """Embeddings of windows, float32 `[n, embedding]`, by a network in evaluation mode."""
    parts = []
    with torch.inference_mode(), progress.bar(label, len(which), "window") as advance:
        for part in np.array_split(which, max(1, -(-len(which) // EMBED_BATCH))):
            parts.append(network(torch.from_numpy(windows.inputs(part))).numpy())
            advance(len(part))
    return np.concatenate(parts)


def pose_embeddings(teacher: Teacher, library: GestureLibrary, gestures: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Unit vectors of the canonical poses, float32 `[gestures, embedding]`; NaN rows where the library knows no pose."""
    tracks = canonical_tracks(library, gestures, teacher.shape.frames)
    known = torch.isfinite(tracks).any(dim=-1).any(dim=-1)
    out = torch.full((len(gestures), teacher.shape.embedding), torch.nan)
    if bool(known.any()):
        with torch.inference_mode():
            out[known] = functional.normalize(teacher.pose(tracks[known]), dim=-1)
    return out.numpy()


def embed_poses(teacher: Teacher, windows: WindowSet, which: Index) -> npt.NDArray[np.float32]:
    """Unit vectors of the poses of windows, float32 `[n, embedding]`."""
    parts = []
    with torch.inference_mode():
        for part in np.array_split(which, max(1, -(-len(which) // EMBED_BATCH))):
            parts += [teacher.pose(torch.from_numpy(windows.poses(part))).numpy()]
    return np.concatenate(parts)
