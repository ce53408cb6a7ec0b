"""Batches drawn evenly over gestures and wearers, and the augmentation of their EMG."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embridge_edge.errors import EdgeError
from embridge_edge.learning.windows import WindowSet
from embridge_edge.recipe import Augmentation

Index = npt.NDArray[np.int64]


class EvenSampler:
    """Draws windows: a gesture evenly, then a wearer evenly among those who made it, then one of their windows.

    Windows without a gesture (transitions, tracked motion) count as one more gesture. The draw of a step depends on (seed, step) alone.
    """

    def __init__(self, windows: WindowSet, which: Index, seed: int) -> None:
        if not len(which):
            raise EdgeError("No window to train on; check the labels, the poses and held-out gestures.")
        labels, wearers = windows.labels[which], windows.wearers[which]
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


def emg_batch(windows: WindowSet, which: Index, step: int, seed: int, *, shifted: bool) -> Tensor:
    """Inputs of the network `[n, steps, columns]`; `shifted` moves each window by up to a hop, where its segment allows."""
    starts = windows.starts[which]
    if shifted:
        most = np.minimum(windows.slack[which], windows.chain.hop - 1)
        starts = starts + np.random.default_rng([seed, step, 1]).integers(0, most + 1)
    return torch.from_numpy(windows.chain.inputs(windows.signal, starts))


def augmented(x: Tensor, plan: Augmentation, *, raw: bool) -> Tensor:
    """EMG as another donning might have given it, `[batch, steps, columns]` to the same shape.

    Gains and rotation act on raw samples; features, standardised and mostly logarithms, get noise and dropped columns only.
    """
    batch, _, columns = x.shape
    if raw and plan.rotation:
        x = torch.bmm(x, _rotations(plan.rotation * torch.randn(batch), columns))
    if raw and (plan.gain_jitter or plan.channel_jitter):
        gain = plan.gain_jitter * torch.randn(batch, 1, 1) + plan.channel_jitter * torch.randn(batch, 1, columns)
        x = x * gain.exp()
    if plan.noise:
        x = x + plan.noise * torch.randn_like(x)
    if plan.channel_drop:
        x = x * (torch.rand(batch, 1, columns) >= plan.channel_drop)
    return x


def _rotations(shifts: Tensor, channels: int) -> Tensor:
    """Matrices that turn a ring of `channels` electrodes by `shifts` electrode distances, `[n, channels, channels]`.

    Band-limited interpolation around the ring (the periodic sinc of Dirichlet): a whole-number shift is a roll.
    """
    apart = torch.arange(channels)[:, None] - torch.arange(channels)[None, :] + shifts[:, None, None]
    harmonics = torch.arange(1, (channels - 1) // 2 + 1)
    ring = 1.0 + 2.0 * torch.cos(2.0 * torch.pi * harmonics * apart[..., None] / channels).sum(dim=-1)
    if channels % 2 == 0:
        ring = ring + torch.cos(torch.pi * apart)
    return ring / channels
