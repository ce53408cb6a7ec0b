"""Fine-tuning a student that has the rounding of int8 in it, so that it says what it said without."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from embridge_edge.learning import losses
from embridge_edge.learning.batches import EvenSampler, emg_batch
from embridge_edge.learning.loop import Run, Schedule, fit
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.head import Head
from embridge_edge.recipe import QatPlan

Index = npt.NDArray[np.int64]

LEAST_SCORE = -100.0


def tune_rounded(
    network: nn.Module,
    before: nn.Module,
    windows: WindowSet,
    which: Index,
    head: Head | None,
    plan: QatPlan,
    batch: int,
    run: Run,
) -> list[float]:
    """Train a network with rounding in it (`compression.qat`) towards what the float student says, and towards the labels.

    The loss is the squared difference of the embeddings over their variance in the batch, which is the square of the mean-removed error,
    so that the embedding space stays, and the heads with it: they are what decides on the device, and gestures may have been added to
    them. Windows are taken as they are, since augmented ones would teach ranges that no wearer has.

    Args:
        network: inputs `[n, T, C]` to tokens and embeddings `[n, D]`; trained in place. before: inputs to embeddings, in float.
        which: windows to draw from. head: linear rows over the gestures of `windows`, which `plan.label_weight` is for; None has none.
        batch: windows of a step. run: its key stands for the student and the windows, where it keeps a state.

    Returns: the loss of each step.
    """
    world = run.world
    sampler = EvenSampler(windows, which, run.seed + 5)
    to_labels = None if head is None or not plan.label_weight else _frozen(head).to(world.device)
    before.to(world.device).eval()

    def loss(step: int) -> Tensor:
        drawn = sampler.draw(step, batch)
        x = emg_batch(windows, drawn, step, run.seed, shifted=False, world=world)
        with torch.no_grad():
            said = before(x)
        now: Tensor = network(x)[1]
        total: Tensor = (now - said).square().mean() / said.var(dim=0, correction=0).mean().clamp(min=1e-12)
        if to_labels is not None:
            labels = world.part(windows.labels[drawn])
            total = total + plan.label_weight * losses.label_loss(
                to_labels(now), world.to(torch.from_numpy(labels)), smoothing=0.0
            )
        return total

    found = fit(
        network,
        loss,
        Schedule(plan.steps, plan.learning_rate, weight_decay=0.0),  # which would shrink ranges
        seed=run.seed + 5,
        label=f"{run.name}: training with rounding",
        saved=run.saved("qat", asdict(plan), batch),
        progress=run.progress,
        world=world,
    )
    before.cpu()
    return found


def _frozen(head: Head) -> nn.Linear:
    """A head as a layer that does not learn; a gesture that never wins stays far below the others, within what a loss can sum."""
    layer = nn.Linear(head.rows.shape[1], len(head.names))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.rows.astype(np.float32) * head.scale[:, None]))
        layer.bias.copy_(torch.from_numpy(head.bias).clamp(min=LEAST_SCORE))
    return layer.requires_grad_(False)
