"""Alignment: the EMG side learns to meet the frozen pose tower (EMBridge, second stage), by terms that a plan switches."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import GestureLibrary
from embridge_edge.learning import losses
from embridge_edge.learning.batches import EvenSampler, augmented, emg_batch
from embridge_edge.learning.combinations import Mixtures
from embridge_edge.learning.loop import Run, Saved, Schedule, fit
from embridge_edge.learning.windows import WindowSet, chunks
from embridge_edge.learning.world import World
from embridge_edge.model.teacher import Teacher
from embridge_edge.model.towers import ANGLES, angle_error
from embridge_edge.recipe import TrainPlan

Index = npt.NDArray[np.int64]

COMMUNITY_POSES = 16_384
SHARPEST = 100.0
"""CLIP's limit of 1/τ, without which a learned temperature can run away."""


class Alignment(nn.Module):
    """The teacher with what only its training needs.

    Attributes:
        teacher: its pose tower is frozen. sharpness: log(1/τ).
        mask: `[pose_width]`, stands in the place of hidden pose tokens; decoder: pose tokens to angles.
        centroids: float32 `[communities, embedding]`, unit vectors; none without CASCLe.
    """

    centroids: Tensor

    def __init__(self, teacher: Teacher, plan: TrainPlan, centroids: Tensor | None) -> None:
        super().__init__()
        if plan.reconstruct_weight and teacher.shape.readout != "queries":
            raise EdgeError(
                f"reconstruct_weight needs the Q-Former, and the recipe's readout is {teacher.shape.readout!r}; set one of them."
            )
        self.teacher = teacher
        self.plan = plan
        teacher.pose.requires_grad_(False)
        self.sharpness = nn.Parameter(torch.tensor(-math.log(plan.temperature)), requires_grad=plan.learned_temperature)
        self.mask = nn.Parameter(0.02 * torch.randn(teacher.shape.pose_width))
        self.decoder = nn.Linear(teacher.shape.pose_width, ANGLES)
        self.register_buffer("centroids", centroids, persistent=False)

    def loss(self, x: Tensor, poses: Tensor, labels: Tensor, world: World) -> Tensor:
        """The weighted sum of the plan's terms over the whole batch.

        Args:
            x: `[n, steps, columns]`, poses: `[n, frames, 23]` in radians, NaN where unknown, labels: int64 `[n]`, −1 where
                unknown: this process's part of the batch.
        """
        plan, teacher = self.plan, self.teacher
        read = teacher.read(x)
        queries = teacher.project(read)
        total = x.new_zeros(())
        if plan.label_weight:
            scores = world.gather(teacher.labels(queries.mean(dim=1)))
            total = total + plan.label_weight * losses.label_loss(scores, world.gather(labels), plan.label_smoothing)
        if plan.reconstruct_weight:
            total = total + plan.reconstruct_weight * self.reconstruction(read, poses, world)
        if plan.pose_weight or plan.soft_targets != "none" or plan.regression_weight:
            with torch.no_grad():
                target = teacher.pose.eval()(poses)
            feature = world.gather(losses.aligned_feature(queries, target, best=plan.best_query))
            target, poses = world.gather(target), world.gather(poses)
            posed = torch.isfinite(poses).any(dim=-1).any(dim=-1)
            if int(posed.sum()) > 1:
                total = total + self.contrast(feature[posed], target[posed], poses[posed])
        return total

    def contrast(self, feature: Tensor, target: Tensor, poses: Tensor) -> Tensor:
        """InfoNCE, the soft term and regression, over windows whose pose is known.

        Args:
            feature, target: unit vectors of EMG and pose, `[n, embedding]`. poses: `[n, frames, 23]`.
        """
        plan = self.plan
        logits = feature @ target.T * self.sharpness.exp().clamp(max=SHARPEST)
        same = losses.same_poses(poses)
        total = feature.new_zeros(())
        if plan.pose_weight:
            contrast = losses.info_nce(logits, same)
            if plan.both_ways:
                contrast = 0.5 * (contrast + losses.info_nce(logits.T, same.T))
            total = total + plan.pose_weight * contrast
        if plan.soft_targets != "none":
            targets = self.soft_targets(target)
            total = total + plan.soft_weight * losses.soft_contrastive(logits, targets, with_self=plan.soft_self)
        if plan.regression_weight:
            total = total + plan.regression_weight * (1.0 - (feature * target).sum(dim=-1)).mean()
        return total

    def soft_targets(self, target: Tensor) -> Tensor:
        """What the plan wants of pairs that do not belong together, `[n, n]`."""
        plan = self.plan
        if plan.soft_targets == "cascle":
            return losses.community_targets(target, self.centroids, plan.nearest_communities, plan.soft_temperature)
        if plan.soft_targets == "softclip":
            return losses.similarity_targets(target, plan.soft_temperature)
        return losses.even_targets(len(target), target)

    def reconstruction(self, read: Tensor, poses: Tensor, world: World) -> Tensor:
        """MPRL: mean squared error of the hidden pose frames, read through the queries' output alone.

        Args:
            read: output of the Q-Former `[n, queries, width]`. poses: `[n, frames, 23]`.
        """
        hidden = world.rand(*poses.shape[:2]) < self.plan.reconstruct_mask_share
        tokens = self.teacher.pose.hidden_tokens(poses, hidden, self.mask)
        completed = self.decoder(self.teacher.qformer.complete(read, tokens))
        error, count = angle_error(completed, poses, hidden)
        mean: Tensor = world.gather(error).sum() / world.gather(count).sum().clamp(min=1)
        return mean


def posed_windows(windows: WindowSet, which: Index) -> Index:
    """Those of `which` whose pose is known somewhere."""
    parts = (which[part] for part in chunks(len(which)))
    return np.concatenate([part[np.isfinite(windows.poses(part)).any(axis=(1, 2))] for part in parts] or [which])


def communities(teacher: Teacher, windows: WindowSet, which: Index, plan: TrainPlan, seed: int) -> Tensor:
    """Offline k-means over pose embeddings (EMBridge, CASCLe): unit centroids, float32 `[communities, embedding]`.

    Fewer where there are fewer different poses, as with canonical ones.
    """
    from sklearn.cluster import KMeans

    chosen = EvenSampler(windows, which, seed + 5, plan.draw_over).draw(0, COMMUNITY_POSES)
    with torch.inference_mode():
        embedded = teacher.pose.eval()(torch.from_numpy(windows.poses(chosen))).numpy()
    distinct = np.unique(embedded.round(4), axis=0)
    if len(distinct) <= plan.communities:
        return functional.normalize(torch.from_numpy(distinct), dim=-1)
    means = KMeans(plan.communities, n_init=2, random_state=seed).fit(embedded).cluster_centers_
    return functional.normalize(torch.from_numpy(means.astype(np.float32)), dim=-1)


def align(
    teacher: Teacher,
    windows: WindowSet,
    which: Index,
    plan: TrainPlan,
    library: GestureLibrary,
    run: Run,
    saved: Saved | None = None,
) -> list[float]:
    """Train the EMG side of `teacher` on the windows `which`.

    Returns: the loss of each step.
    """
    seed, world = run.seed, run.world
    centroids = None
    if plan.soft_targets == "cascle":
        posed = posed_windows(windows, which)
        if not len(posed):
            raise EdgeError('CASCLe needs poses, which these windows lack; set soft_targets to "none" in the recipe.')
        centroids = communities(teacher, windows, posed, plan, seed)
    sampler = EvenSampler(windows, which, seed + 2, plan.draw_over)
    alignment = Alignment(teacher, plan, centroids)
    mixed = round(plan.mix_share * plan.batch)
    mixtures = Mixtures(windows, which, library, seed + 6) if mixed else None
    whole = plan.batch - mixed
    mine = world.part(np.arange(plan.batch))  # the windows as they are come first, mixtures behind them
    plain, made = mine[mine < whole], mine[mine >= whole] - whole

    def loss(step: int) -> Tensor:
        drawn = sampler.draw(step, whole)
        x = emg_batch(windows, drawn, step, seed, shifted=plan.time_shift, world=world, mine=plain)
        poses = world.to(torch.from_numpy(windows.poses(drawn[plain])))
        labels = world.to(torch.from_numpy(windows.labels[drawn[plain]]))
        if mixtures is not None:
            more = (world.to(torch.from_numpy(part)) for part in mixtures.draw(step, mixed, made))
            x, poses, labels = (torch.cat(both) for both in zip((x, poses, labels), more, strict=True))
        return alignment.loss(augmented(x, plan, windows.chain, world), poses, labels, world)

    schedule = Schedule(plan.steps, plan.learning_rate, plan.weight_decay, plan.accumulate)
    return fit(
        alignment,
        loss,
        schedule,
        seed=seed + 2,
        label=f"{run.name}: alignment",
        saved=saved,
        progress=run.progress,
        world=world,
    )
