"""The losses of the method, each a pure function of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SAME_POSE_RAD = 1e-3
"""Poses are told apart in steps of this size: windows of a labelled gesture share one canonical pose."""


def same_poses(poses: Tensor) -> Tensor:
    """Which pairs of windows have the same pose, bool `[n, n]`, from pose tracks `[n, frames, 23]` in radians."""
    steps = torch.nan_to_num(poses.flatten(1) / SAME_POSE_RAD, nan=1e6).round()
    _, kind = torch.unique(steps, dim=0, return_inverse=True)
    same: Tensor = kind[:, None] == kind[None]
    return same


def info_nce(emg: Tensor, pose: Tensor, same: Tensor, temperature: float) -> Tensor:
    """InfoNCE from EMG to pose (EMBridge): −1/B Σ log( Σ_same exp(u·v/τ) / Σ_all exp(u·v/τ) ).

    With every pose different this is the paper's −log softmax on the diagonal; windows that share a pose count as
    positives of each other. `pose` carries no gradient: it comes from a frozen tower.

    Args:
        emg, pose: unit vectors `[n, embedding]`. same: bool `[n, n]` with a true diagonal.
    """
    logits = emg @ pose.detach().T / temperature
    positive = logits.masked_fill(~same, -torch.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - positive).mean()


def aligned_feature(queries: Tensor, pose: Tensor, *, best: bool) -> Tensor:
    """The unit vector that InfoNCE aligns, `[n, embedding]`: the query most similar to the paired pose, or the mean query.

    Args:
        queries: `[n, queries, embedding]`. pose: unit vectors `[n, embedding]`.
    """
    if not best:
        return functional.normalize(queries.mean(dim=1), dim=-1)
    unit = functional.normalize(queries, dim=-1)
    chosen = (unit * pose[:, None]).sum(dim=-1).argmax(dim=1)
    return unit[torch.arange(len(unit)), chosen]


def label_loss(scores: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy over the windows that have a label (≥ 0); 0 where none has."""
    known = labels >= 0
    if not bool(known.any()):
        return scores.sum() * 0.0
    return functional.cross_entropy(scores[known], labels[known], label_smoothing=smoothing)
