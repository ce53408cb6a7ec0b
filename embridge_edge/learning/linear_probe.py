"""The linear probe: how much of a gesture a frozen embedding shows to a linear layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.learning.shares import drawn_evenly

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

MOST_WINDOWS = 20_000
"""Training windows of a probe; a fit on 20,000 embeddings of 64, twelve gestures, takes 0.2 to 1.4 s on one core."""

STRENGTH = 1.0
"""C of scikit-learn: the weights' penalty is worth one window. It is fixed, so that no arm gets a search of its own."""

_MOST_STEPS = 300


@dataclass(frozen=True)
class LinearProbe:
    """Rows of a linear layer, the standardisation folded in.

    Attributes:
        classes: int64 `[classes]`, the labels that its rows stand for.
        weights: float64 `[classes, embedding]`. bias: float64 `[classes]`.
    """

    classes: Index
    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def log_probabilities(self, embeddings: Floats) -> npt.NDArray[np.float64]:
        """Logarithm of each class's probability, float64 `[n, classes]`."""
        scores = embeddings @ self.weights.T + self.bias
        scores = scores - scores.max(axis=1, keepdims=True)
        return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))

    def decide(self, embeddings: Floats) -> Index:
        """The most probable label, int64 `[n]`."""
        return np.asarray(self.classes[np.argmax(embeddings @ self.weights.T + self.bias, axis=1)])


def fit_probe(embeddings: Floats, labels: Index, wearers: Index, seed: int = 0) -> LinearProbe:
    """Multinomial logistic regression on standardised embeddings, every class weighing the same.

    At most `MOST_WINDOWS` windows take part, drawn evenly over gestures and wearers. The same input gives the same probe.

    Args:
        embeddings: float32 `[n, embedding]`. labels, wearers: int64 `[n]`.

    Raises:
        EdgeError: there is no window.
    """
    if not len(labels):
        raise EdgeError("No window to fit a linear probe on; check the labels and the split.")
    chosen = drawn_evenly(labels, wearers, MOST_WINDOWS, seed)
    x, y = embeddings[chosen].astype(np.float64), labels[chosen]
    classes = np.unique(y)
    if len(classes) == 1:
        return LinearProbe(classes, np.zeros((1, x.shape[1])), np.zeros(1))
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    weights, bias = _logistic((x - mean) / spread, y)
    weights = weights / spread
    return LinearProbe(classes, weights, bias - weights @ mean)


def _logistic(
    scaled: npt.NDArray[np.float64], labels: Index
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STRENGTH, class_weight="balanced", solver="lbfgs", max_iter=_MOST_STEPS)
    with warnings.catch_warnings():
        # Classes that are separable leave the last digits of the weights open; the decisions have settled long before.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scaled, labels)
    if len(model.classes_) > 2:
        return model.coef_, model.intercept_
    # Of two classes scikit-learn keeps one row: the log-odds of the second.
    return np.vstack([-model.coef_, model.coef_]) / 2, np.array([-model.intercept_[0], model.intercept_[0]]) / 2
