"""Masked pre-training of each modality by itself: half of the patches are hidden, and the error on those is made small."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embridge_edge.gestures import AND, POSE, GestureLibrary
from embridge_edge.learning.batches import EvenSampler, emg_batch
from embridge_edge.learning.combinations import combinable
from embridge_edge.learning.loop import Run, Saved, Schedule, fit
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.towers import EmgTower, PoseTower
from embridge_edge.recipe import TrainPlan

Index = npt.NDArray[np.int64]

PROJECTION_POSES = 8192


def pretrain_poses(
    tower: PoseTower,
    windows: WindowSet,
    which: Index,
    plan: TrainPlan,
    library: GestureLibrary,
    run: Run,
    saved: Saved | None = None,
) -> list[float]:
    """Train the pose tower on recorded poses and on mixtures of the library's, then fit its projection.

    The mixtures fill the space between a handful of canonical poses, so that an unseen pose lands somewhere sensible. Where
    alignment is to see combinations of gestures, theirs are among the library's.

    Args:
        which: windows whose pose is known.

    Returns: the loss of each step.
    """
    names = tuple(library.gestures)
    if plan.mix_share:
        names += tuple(AND.join(pair) for pair in combinable(library, names))
    known = torch.from_numpy(library.poses(names))
    seed, world, frames = run.seed, run.world, tower.frames
    sampler = EvenSampler(windows, which, seed, plan.draw_over)

    def mixtures(step: int, count: int) -> Tensor:
        draw = torch.Generator().manual_seed(seed * 7919 + step)
        picks = torch.randint(len(known), (count, 2), generator=draw)
        share = torch.rand(count, 1, generator=draw)
        start = share * known[picks[:, 0]] + (1 - share) * known[picks[:, 1]]
        start = start + 0.1 * torch.randn(count, len(POSE), generator=draw)
        motion = 0.2 * torch.randn(count, 1, len(POSE), generator=draw)
        return start[:, None] + motion * torch.linspace(-0.5, 0.5, frames)[None, :, None]

    def loss(step: int) -> Tensor:
        half = plan.batch // 2
        recorded = world.to(torch.from_numpy(windows.poses(world.part(sampler.draw(step, half)))))
        mixed = world.to(mixtures(step, half)[world.part(np.arange(half))])
        lacking = world.rand(len(mixed), 1, len(POSE)) < 0.2  # joints that a device lacks
        total, count = (torch.zeros((), device=mixed.device) for _ in range(2))
        for poses in (recorded, mixed.masked_fill(lacking, torch.nan)):
            error, known_angles = tower.reconstruction_error(poses, world.rand(len(poses), frames) < plan.mask_share)
            total, count = total + world.gather(error).sum(), count + world.gather(known_angles).sum()
        return total / count.clamp(min=1)

    schedule = Schedule(plan.pose_steps, plan.learning_rate, plan.weight_decay, plan.accumulate)
    losses = fit(
        tower,
        loss,
        schedule,
        seed=seed,
        label=f"{run.name}: masked poses",
        saved=saved,
        progress=run.progress,
        world=world,
    )
    recorded = torch.from_numpy(windows.poses(sampler.draw(plan.pose_steps, PROJECTION_POSES)))
    tower.fit_projection(
        torch.cat([recorded, mixtures(plan.pose_steps, PROJECTION_POSES)]), whitened=plan.whitened_poses
    )
    return losses


def pretrain_emg(
    tower: EmgTower, windows: WindowSet, which: Index, plan: TrainPlan, run: Run, saved: Saved | None = None
) -> list[float]:
    """Train the EMG tower; it needs neither labels nor poses.

    Returns: the loss of each step.
    """
    seed, world = run.seed, run.world
    sampler = EvenSampler(windows, which, seed + 1, plan.draw_over)

    def loss(step: int) -> Tensor:
        x = emg_batch(windows, sampler.draw(step, plan.batch), step, seed, shifted=plan.time_shift, world=world)
        hidden = world.rand(len(x), tower.tokens) < plan.mask_share
        error = world.gather(tower.reconstruction_error(x, hidden))
        return error.sum() / world.gather(hidden.sum(dim=1)).sum().clamp(min=1)

    schedule = Schedule(plan.masked_steps, plan.learning_rate, plan.weight_decay, plan.accumulate)
    return fit(
        tower,
        loss,
        schedule,
        seed=seed + 1,
        label=f"{run.name}: masked EMG",
        saved=saved,
        progress=run.progress,
        world=world,
    )
