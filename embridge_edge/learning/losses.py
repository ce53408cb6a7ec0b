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


def info_nce(logits: Tensor, same: Tensor) -> Tensor:
    """InfoNCE from the rows to the columns (EMBridge): −1/B Σ log( Σ_same exp(s_ij) / Σ_all exp(s_ij) ).

    With every pose different this is the paper's −log softmax on the diagonal; windows that share a pose count as
    positives of each other. CPEP takes the mean of this and of the same with `logits` and `same` transposed.

    Args:
        logits: `[n, n]`, cosine over temperature of EMG i and pose j. same: bool `[n, n]` with a true diagonal.
    """
    positive = logits.masked_fill(~same, -torch.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - positive).mean()


def community_targets(poses: Tensor, centroids: Tensor, nearest: int, temperature: float) -> Tensor:
    """Soft targets of CASCLe, `[n, n]`: rows sum to 1, the diagonal is 0.

    `S_pc = P Cᵀ` in cosine; each pose keeps its `nearest` centroids, the others are 0; `S_pp = S_pc S_pcᵀ`; the diagonal is
    dropped; row i is the softmax of `S_pp[i, k] / temperature` over k ≠ i (EMBridge, CASCLe).

    Args:
        poses: unit vectors `[n, embedding]`. centroids: unit vectors `[communities, embedding]`.
    """
    to_communities = poses @ centroids.T
    kept = to_communities.topk(min(nearest, len(centroids)), dim=1)
    sparse = torch.zeros_like(to_communities).scatter(1, kept.indices, kept.values)
    return without_diagonal(sparse @ sparse.T / temperature).softmax(dim=1)


def similarity_targets(poses: Tensor, temperature: float) -> Tensor:
    """Soft targets from the similarity of the poses themselves (SoftCLIP, Gao et al. 2023), `[n, n]`: rows sum to 1.

    As there, the pair itself is left to InfoNCE and the others are weighed against each other: the diagonal is 0.
    """
    return without_diagonal(poses @ poses.T / temperature).softmax(dim=1)


def even_targets(count: int, like: Tensor) -> Tensor:
    """Targets of label smoothing, `[count, count]`: the same share for every window but the pair itself."""
    return without_diagonal(like.new_zeros(count, count)).softmax(dim=1)


def soft_contrastive(logits: Tensor, targets: Tensor, *, with_self: bool) -> Tensor:
    """−1/B Σ_i Σ_{j≠i} ỹ_ij log q_ij, with q the softmax of `logits` over each row (EMBridge, CASCLe).

    Args:
        targets: `[n, n]` with a diagonal of 0.
        with_self: whether the pair itself stays in q's denominator; no public source says.
    """
    scores = logits if with_self else without_diagonal(logits)
    log_q = scores.log_softmax(dim=1)
    return -(targets * log_q.masked_fill(targets == 0, 0.0)).sum(dim=1).mean()


def without_diagonal(scores: Tensor) -> Tensor:
    """`[n, n]` with −∞ on the diagonal, which a softmax turns to 0."""
    return scores.masked_fill(torch.eye(len(scores), dtype=torch.bool, device=scores.device), -torch.inf)


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


def relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of cosines between the windows of a batch (similarity-preserving distillation, Tung and Mori 2019).

    Args:
        student, teacher: unit vectors `[n, d]`; their widths may differ.
    """
    apart = student @ student.T - teacher @ teacher.T
    pairs = max(1, len(student) * (len(student) - 1))  # the diagonal is 0
    return apart.square().sum() / pairs


SCORE_TEMPERATURE = 2.0
"""Softens a teacher's scores, so that the gestures that it holds for less likely teach too (Hinton et al. 2015, who found 2.5 to 4 best
for small networks, lower for the smallest); it was not searched here."""


def score_loss(scores: Tensor, said: Tensor, temperature: float = SCORE_TEMPERATURE) -> Tensor:
    """Kullback-Leibler divergence from a teacher's softened class scores, over the gestures that it knows (Hinton et al. 2015).

    Args:
        scores: `[n, gestures]`. said: the teacher's logits, the same shape, NaN in the columns of gestures that it does not know.

    Returns: times the temperature's square, which keeps the gradients' size whatever it is; 0 at the least.
    """
    known = torch.isfinite(said[:1]).expand_as(said)
    wanted = (said[known].reshape(len(said), -1) / temperature).log_softmax(dim=1)
    own = (scores[known].reshape(len(said), -1) / temperature).log_softmax(dim=1)
    return functional.kl_div(own, wanted, reduction="batchmean", log_target=True) * temperature**2


def label_loss(scores: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy over the windows that have a label (≥ 0); 0 where none has."""
    known = labels >= 0
    if not bool(known.any()):
        return scores.sum() * 0.0
    return functional.cross_entropy(scores[known], labels[known], label_smoothing=smoothing)
