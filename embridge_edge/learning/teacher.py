"""Training the teacher: masked pre-training of both towers, then alignment with the pose tower frozen."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from embridge_edge.gestures import POSE, GestureLibrary
from embridge_edge.learning import losses
from embridge_edge.learning.batches import EvenSampler, augmented, emg_batch
from embridge_edge.learning.loop import Run, Saved, Schedule, fit
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.teacher import Teacher, TeacherShape
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import TeacherPlan, TrainPlan

Index = npt.NDArray[np.int64]

PROJECTION_POSES = 8192


def teacher_shape(windows: WindowSet, plan: TeacherPlan) -> TeacherShape:
    """The shape that a plan becomes for a data set."""
    chain = windows.chain
    frame_ms = 1000.0 * (chain.frame if chain.features else 1) / chain.rate_hz
    return TeacherShape(
        steps=chain.steps,
        columns=chain.columns,
        patch=max(1, round(plan.patch_ms / frame_ms)),
        frames=windows.frames,
        gestures=len(windows.gestures),
        **{name: value for name, value in asdict(plan).items() if name != "patch_ms"},
    )


def train_teacher(
    windows: WindowSet,
    which: Index,
    shape: TeacherShape,
    plan: TrainPlan,
    library: GestureLibrary,
    run: Run,
) -> Teacher:
    """Train a teacher on the windows `which`.

    With a plan whose `pose_weight`, `pose_steps` and `masked_steps` are 0 this is the supervised network of the
    teacher's size. Windows whose pose is unknown take part with their label only, and the other way round.
    """
    torch.manual_seed(run.seed)
    teacher = Teacher(shape)

    def saved(stage: str) -> Saved | None:
        return run.saved(stage, shape.to_dict(), asdict(plan))

    posed = which[np.isfinite(windows.poses(which)).any(axis=(1, 2))]
    if plan.pose_steps and len(posed):
        _pretrain_pose(teacher, windows, posed, plan, library, run, saved("pose"))
    if plan.masked_steps:
        _pretrain_emg(teacher, windows, which, plan, run, saved("masked"))
    teacher.qformer.start_from(teacher.pose)
    useful = np.union1d(
        posed if plan.pose_weight else which[:0], which[windows.labels[which] >= 0] if plan.label_weight else which[:0]
    )
    _align(teacher, windows, useful, plan, run, saved("align"))
    return teacher.eval()


def canonical_tracks(library: GestureLibrary, gestures: tuple[str, ...], frames: int) -> Tensor:
    """Canonical poses held still, float32 `[gestures, frames, 23]`; NaN where the library knows none."""
    return torch.from_numpy(library.poses(gestures))[:, None].repeat(1, frames, 1)


def _pretrain_pose(
    teacher: Teacher,
    windows: WindowSet,
    which: Index,
    plan: TrainPlan,
    library: GestureLibrary,
    run: Run,
    saved: Saved | None,
) -> None:
    """Masked pre-training of the pose tower, on recorded poses and on mixtures of the library's.

    The mixtures fill the space between a handful of canonical poses, so that an unseen pose lands somewhere sensible.
    """
    known = torch.from_numpy(library.poses(tuple(library.gestures)))
    seed = run.seed
    sampler = EvenSampler(windows, which, seed)
    frames = teacher.shape.frames

    def mixtures(step: int, count: int) -> Tensor:
        draw = torch.Generator().manual_seed(seed * 7919 + step)
        picks = torch.randint(len(known), (count, 2), generator=draw)
        share = torch.rand(count, 1, generator=draw)
        start = share * known[picks[:, 0]] + (1 - share) * known[picks[:, 1]]
        start = start + 0.1 * torch.randn(count, len(POSE), generator=draw)
        motion = 0.2 * torch.randn(count, 1, len(POSE), generator=draw)
        return start[:, None] + motion * torch.linspace(-0.5, 0.5, frames)[None, :, None]

    def loss(step: int) -> Tensor:
        recorded = torch.from_numpy(windows.poses(sampler.draw(step, plan.batch // 2)))
        mixed = mixtures(step, plan.batch // 2)
        mixed = torch.where(torch.rand(len(mixed), 1, len(POSE)) < 0.2, torch.nan, mixed)  # joints that a device lacks
        poses = torch.cat([recorded, mixed])
        return teacher.pose.reconstruct(poses, torch.rand(len(poses), frames) < plan.mask_share)

    schedule = Schedule(plan.pose_steps, plan.learning_rate, plan.weight_decay)
    fit(teacher.pose, loss, schedule, seed=seed, label=f"{run.name}: masked poses", saved=saved, progress=run.progress)
    recorded = torch.from_numpy(windows.poses(sampler.draw(plan.pose_steps, PROJECTION_POSES)))
    teacher.pose.fit_projection(torch.cat([recorded, mixtures(plan.pose_steps, PROJECTION_POSES)]))


def _pretrain_emg(
    teacher: Teacher,
    windows: WindowSet,
    which: Index,
    plan: TrainPlan,
    run: Run,
    saved: Saved | None,
) -> None:
    """Masked pre-training of the EMG tower; it needs neither labels nor poses."""
    seed = run.seed
    sampler = EvenSampler(windows, which, seed + 1)

    def loss(step: int) -> Tensor:
        x = emg_batch(windows, sampler.draw(step, plan.batch), step, seed, shifted=plan.time_shift)
        return teacher.emg.reconstruct(x, torch.rand(len(x), teacher.emg.tokens) < plan.mask_share)

    schedule = Schedule(plan.masked_steps, plan.learning_rate, plan.weight_decay)
    fit(teacher.emg, loss, schedule, seed=seed + 1, label=f"{run.name}: masked EMG", saved=saved, progress=run.progress)


def _align(
    teacher: Teacher,
    windows: WindowSet,
    which: Index,
    plan: TrainPlan,
    run: Run,
    saved: Saved | None,
) -> None:
    seed = run.seed
    sampler = EvenSampler(windows, which, seed + 2)
    teacher.pose.requires_grad_(False)
    raw = not windows.chain.features

    def loss(step: int) -> Tensor:
        drawn = sampler.draw(step, plan.batch)
        x = augmented(emg_batch(windows, drawn, step, seed, shifted=plan.time_shift), plan, raw=raw)
        queries = teacher.queries(x)
        total = torch.zeros(())
        if plan.pose_weight:
            poses = torch.from_numpy(windows.poses(drawn))
            posed = torch.isfinite(poses).any(dim=-1).any(dim=-1)
            if bool(posed.any()):
                with torch.no_grad():
                    target = teacher.pose.eval()(poses[posed])
                feature = losses.aligned_feature(queries[posed], target, best=plan.best_query)
                total = total + plan.pose_weight * losses.info_nce(
                    feature, target, losses.same_poses(poses[posed]), plan.temperature
                )
        if plan.label_weight:
            labels = torch.from_numpy(windows.labels[drawn])
            scores = teacher.labels(queries.mean(dim=1))
            total = total + plan.label_weight * losses.label_loss(scores, labels, plan.label_smoothing)
        return total

    schedule = Schedule(plan.steps, plan.learning_rate, plan.weight_decay)
    fit(teacher, loss, schedule, seed=seed + 2, label=f"{run.name}: alignment", saved=saved, progress=run.progress)


def embed(
    network: torch.nn.Module, windows: WindowSet, which: Index, progress: Progress = SILENT, label: str = "embedding"
) -> npt.NDArray[np.float32]:
    """Embeddings of windows, float32 `[n, embedding]`, by a network in evaluation mode."""
    parts = []
    with torch.inference_mode(), progress.bar(label, len(which), "window") as advance:
        for part in np.array_split(which, max(1, -(-len(which) // 2048))):
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
