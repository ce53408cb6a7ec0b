"""Batches drawn evenly over gestures and wearers, and the augmentation of their EMG."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embridge_edge.errors import EdgeError
from embridge_edge.features.catalogue import LOGARITHMIC
from embridge_edge.features.chain import SignalChain
from embridge_edge.learning.windows import WindowSet
from embridge_edge.learning.world import World
from embridge_edge.recipe import Augmentation

Index = npt.NDArray[np.int64]


class EvenSampler:
    """Draws windows: a gesture evenly, then a wearer evenly among those who made it, then one of their windows.

    Windows without a gesture (transitions, tracked motion) count as one more gesture. The draw of a step depends on (seed, step) alone.

    Args:
        over: "gestures" draws as above; "wearers" a wearer evenly, then any of their windows, as suits free movement.
    """

    def __init__(self, windows: WindowSet, which: Index, seed: int, over: str = "gestures") -> None:
        if not len(which):
            raise EdgeError("No window to train on; check the labels, the poses and held-out gestures.")
        labels, wearers = windows.labels[which], windows.wearers[which]
        if over == "wearers":
            labels = np.zeros_like(labels)
        order = np.lexsort((wearers, labels))
        self._which = which[order]
        cells, starts = np.unique(np.stack([labels[order], wearers[order]]), axis=1, return_index=True)
        self._starts = starts
        self._stops = np.append(starts[1:], len(order))
        gestures, first_cell = np.unique(cells[0], return_index=True)
        self._first_cell = first_cell
        self._last_cell = np.append(first_cell[1:], cells.shape[1])
        self._gestures = len(gestures)
        self._seed = seed

    def draw(self, step: int, count: int) -> Index:
        """Indices of `count` windows, int64 `[count]`."""
        random = np.random.default_rng([self._seed, step])
        gesture = random.integers(self._gestures, size=count)
        cell = random.integers(self._first_cell[gesture], self._last_cell[gesture])
        return np.asarray(self._which[random.integers(self._starts[cell], self._stops[cell])])


def emg_batch(
    windows: WindowSet, drawn: Index, step: int, seed: int, *, shifted: bool, world: World, mine: Index | None = None
) -> Tensor:
    """Inputs of the network for this process's part of a batch, `[n / processes, steps, columns]`.

    Args:
        drawn: int64 `[n]`, the windows of the whole batch. shifted: move each by up to a hop, where its segment allows.
        mine: which of them are this process's, where that is not its part of `drawn`.
    """
    starts = windows.starts[drawn]
    if shifted:
        most = np.minimum(windows.slack[drawn], windows.chain.hop - 1)
        starts = starts + np.random.default_rng([seed, step, 1]).integers(0, most + 1)
    own = world.part(starts) if mine is None else starts[mine]
    return world.to(torch.from_numpy(windows.chain.inputs(windows.signal, own)))


def augmented(x: Tensor, plan: Augmentation, chain: SignalChain, world: World) -> Tensor:
    """EMG as another donning might have given it, `[batch, steps, columns]` to the same shape.

    Raw samples are multiplied by gains, and logarithmic features shifted by what the same gains make of them; other features
    have no gain that could be applied behind the fact. Rotation interpolates around the ring of electrodes, feature by feature.
    What was companded is varied as it was before.
    """
    if chain.compand == "root":
        varied = augmented(x * x.abs(), plan, replace(chain, compand="none"), world)
        return varied.sign() * varied.abs().sqrt()
    batch, steps, columns = x.shape
    each = max(1, len(chain.features))
    channels = columns // each
    if plan.rotation:
        ring = x.reshape(batch, steps, channels, each).transpose(2, 3).reshape(batch, -1, channels)
        turned = torch.bmm(ring, _rotations(plan.rotation * world.randn(batch), channels))
        x = turned.reshape(batch, steps, each, channels).transpose(2, 3).reshape(batch, steps, columns)
    if plan.gain_jitter or plan.channel_jitter:
        gain = plan.gain_jitter * world.randn(batch, 1, 1) + plan.channel_jitter * world.randn(batch, 1, channels)
        if chain.features:
            slopes = torch.tensor([LOGARITHMIC.get(name, 0.0) for name in chain.features] * channels)
            shift = world.to(torch.tensor(chain.gain) * slopes)
            x = x + gain.repeat_interleave(each, dim=2) * shift
        else:
            x = x * gain.exp()
    if plan.noise:
        x = x + plan.noise * world.randn(*x.shape)
    if plan.channel_drop:
        kept = world.rand(batch, 1, channels) >= plan.channel_drop
        x = x * kept.repeat_interleave(each, dim=2)
    return x


def _rotations(shifts: Tensor, channels: int) -> Tensor:
    """Matrices that turn a ring of `channels` electrodes by `shifts` electrode distances, `[n, channels, channels]`.

    Band-limited interpolation around the ring (the periodic sinc of Dirichlet): a whole-number shift is a roll.
    """
    ring_at = torch.arange(channels, device=shifts.device)
    apart = ring_at[:, None] - ring_at[None, :] + shifts[:, None, None]
    harmonics = torch.arange(1, (channels - 1) // 2 + 1, device=shifts.device)
    ring = 1.0 + 2.0 * torch.cos(2.0 * torch.pi * harmonics * apart[..., None] / channels).sum(dim=-1)
    if channels % 2 == 0:
        ring = ring + torch.cos(torch.pi * apart)
    return ring / channels
