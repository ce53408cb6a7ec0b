"""What every model stands beside: LDA and ridge on the five time-domain features of Hudgins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embridge_edge.features.catalogue import TIME_DOMAIN
from embridge_edge.features.extraction import columns_at
from embridge_edge.learning.batches import EvenSampler
from embridge_edge.learning.judge import Answers
from embridge_edge.learning.windows import WindowSet

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_BATCH = 4096

MOST_WINDOWS = 100_000

NEVER = -1e9
"""Bias of a gesture that no window taught: it never wins."""


def time_domain_features(windows: WindowSet, which: Index) -> Floats:
    """Log MAV, log RMS, log WL, ZC and SSC of whole windows, float32 `[n, channels × 5]`."""
    chain = windows.chain
    parts = [
        columns_at(windows.signal, windows.starts[part], chain.window, TIME_DOMAIN, chain.rate_hz)
        for part in np.array_split(which, max(1, len(which) // _BATCH))
    ]
    return np.concatenate(parts)


def lda_rows(features: Floats, labels: Index, classes: int) -> tuple[Floats, Floats]:
    """Linear discriminant with Ledoit-Wolf shrinkage and equal priors, as rows of a linear head.

    Args:
        features: float32 `[n, columns]`; labels: int64 `[n]`, 0 … classes − 1.

    Returns: weights float32 `[classes, columns]` and bias float32 `[classes]`; a class without a window has weight 0 and
        a bias that never wins.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    present = np.unique(labels)
    weights = np.zeros((classes, features.shape[1]), np.float32)
    bias = np.full(classes, NEVER, np.float32)
    if len(present) == 1:
        bias[present] = 0.0
        return weights, bias
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(len(present), 1.0 / len(present)))
    lda.fit(features.astype(np.float64), labels)
    if len(present) == 2:
        weights[present[1]], bias[present[1]] = lda.coef_[0], lda.intercept_[0]
        bias[present[0]] = 0.0
    else:
        weights[present], bias[present] = lda.coef_, lda.intercept_
    return weights, bias


def ridge_rows(features: Floats, targets: Floats, strength: float = 1.0) -> tuple[Floats, Floats]:
    """Ridge regression of each target column on standardised features; rows whose target is NaN are left out per column.

    Args:
        features: float32 `[n, columns]`; targets: float32 `[n, outputs]`.
        strength: of the penalty, per sample on standardised features.

    Returns: weights float32 `[outputs, columns]`, bias float32 `[outputs]`; 0 where a target is never known.
    """
    mean, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    spread = np.where(spread > 1e-9, spread, 1.0)
    scaled = (features - mean) / spread
    weights = np.zeros((targets.shape[1], features.shape[1]))
    bias = np.zeros(targets.shape[1])
    for output in range(targets.shape[1]):
        known = np.isfinite(targets[:, output])
        if known.sum() < 2:
            continue
        x, y = scaled[known], targets[known, output].astype(np.float64)
        centre, level = x.mean(axis=0), y.mean()
        gram = (x - centre).T @ (x - centre) + strength * np.eye(x.shape[1])
        solved = np.linalg.solve(gram, (x - centre).T @ (y - level)) / spread
        weights[output] = solved
        bias[output] = level - solved @ (mean + centre * spread)
    return weights.astype(np.float32), bias.astype(np.float32)


def baseline_answers(windows: WindowSet, split: str, train: Index, test: Index, seed: int = 0) -> list[Answers]:
    """What the baselines say about test windows: LDA where windows have labels, ridge where poses were tracked.

    Args:
        train, test: indices of windows.
    """
    features = time_domain_features(windows, test)
    labelled = train[windows.labels[train] >= 0]
    found = []
    if len(labelled):
        chosen = _thinned(windows, labelled, seed)
        weights, bias = lda_rows(time_domain_features(windows, chosen), windows.labels[chosen], len(windows.gestures))
        found.append(Answers("lda", split, test, gestures=np.argmax(features @ weights.T + bias, axis=1)))
    if windows.tracked:
        chosen = _thinned(windows, train, seed)
        weights, bias = ridge_rows(time_domain_features(windows, chosen), windows.poses_at(chosen))
        angles = features @ weights.T + bias
        angles[:, ~weights.any(axis=1)] = np.nan
        found.append(Answers("ridge", split, test, angles=angles))
    return found


def _thinned(windows: WindowSet, which: Index, seed: int) -> Index:
    """At most MOST_WINDOWS, drawn evenly; neighbouring windows overlap by seven eighths, so more say little new."""
    return np.unique(EvenSampler(windows, which, seed).draw(0, MOST_WINDOWS)) if len(which) > MOST_WINDOWS else which
