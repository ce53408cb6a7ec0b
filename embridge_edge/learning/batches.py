"""Batches drawn evenly over gestures and wearers, and the augmentation of their EMG."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embridge_edge.errors import EdgeError
from embridge_edge.learning.windows import WindowSet

Index = npt.NDArray[np.int64]


class Augmentation(Protocol):
    """The fields of a plan that say how EMG is varied; all act on the normalised input.

    gain_jitter: standard deviation of the logarithm of a gain common to all channels (load, electrode contact).
    channel_jitter: the same for each channel by itself.
    noise: standard deviation of added white noise. channel_drop: share of channels silenced (a lifted electrode).
    """

    @property
    def gain_jitter(self) -> float: ...
    @property
    def channel_jitter(self) -> float: ...
    @property
    def noise(self) -> float: ...
    @property
    def channel_drop(self) -> float: ...


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

    Gains act on raw samples; features, standardised and mostly logarithms, get noise and dropped columns only.
    """
    batch, _, columns = x.shape
    if raw and (plan.gain_jitter or plan.channel_jitter):
        gain = plan.gain_jitter * torch.randn(batch, 1, 1) + plan.channel_jitter * torch.randn(batch, 1, columns)
        x = x * gain.exp()
    if plan.noise:
        x = x + plan.noise * torch.randn_like(x)
    if plan.channel_drop:
        x = x * (torch.rand(batch, 1, columns) >= plan.channel_drop)
    return x
