"""The head: a small table beside the int8 embedding that turns it into a gesture or a pose.

It stands outside the graph so that a gesture can be added on a running device: one more row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError

KINDS = ("linear", "poses", "regression")

LARGEST = 32767

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """Rows of int16 weights over an embedding, one per gesture (or per joint, for `regression`).

    score[k] = scale[k] × Σ_d rows[k, d] × embedding[d] + bias[k]; the gesture with the highest score wins. Not int8: a
    linear discriminant on a correlated embedding has large weights that cancel, and rounding them to int8 cost a teacher
    .08 of balanced accuracy. Times an int8 embedding of up to 512 values the sum still fits an int32.

    Attributes:
        kind: "linear" (label layer or linear-probe rows), "poses" (pose-tower outputs), "regression" (joint angles, radians).
        names: gestures, or joints.
        rows: int16 `[names, embedding]`; scale, bias: float32 `[names]`.
    """

    kind: str
    names: tuple[str, ...]
    rows: npt.NDArray[np.int16]
    scale: Rows
    bias: Rows

    def scores(self, embedding: Rows) -> Rows:
        """Score of each row, float32 `[n, names]`, for float32 embeddings `[n, embedding]`."""
        return embedding @ (self.rows.astype(np.float32) * self.scale[:, None]).T + self.bias

    def decide(self, embedding: Rows) -> npt.NDArray[np.int64]:
        """Index into `names` of the winner, int64 `[n]`."""
        return np.asarray(np.argmax(self.scores(embedding), axis=1))

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "names": list(self.names),
            "rows": self.rows.tolist(),
            "scale": [float(value) for value in self.scale],
            "bias": [float(value) for value in self.bias],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Head:
        """The head that `to_dict` stored.

        Raises:
            EdgeError: a field is missing, of the wrong type or does not go with the others.
        """
        try:
            head = cls(
                kind=str(stored["kind"]),
                names=tuple(stored["names"]),
                rows=np.array(stored["rows"], np.int16),
                scale=np.array(stored["scale"], np.float32),
                bias=np.array(stored["bias"], np.float32),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise EdgeError(f"The stored head is damaged ({error}); make the artifact again.") from None
        count = (len(head.names),)
        if (
            head.kind not in KINDS
            or head.rows.ndim != 2
            or not head.rows.shape[:1] == head.scale.shape == head.bias.shape == count
        ):
            raise EdgeError(
                f"The stored head ({head.kind}) is damaged: its names, rows, scales and biases do not match."
            )
        return head


def make_head(kind: str, names: Sequence[str], weights: Rows, bias: Rows) -> Head:
    """A head from float rows `[names, embedding]` and biases `[names]`: each row is rounded to int16 by its own scale."""
    if kind not in KINDS:
        raise EdgeError(f"Unknown head {kind!r}; choose from {', '.join(KINDS)}.")
    largest = np.abs(weights).max(axis=1)
    scale = np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32)
    rows = np.clip(np.rint(weights / scale[:, None]), -LARGEST, LARGEST).astype(np.int16)
    return Head(kind, tuple(names), rows, scale, bias.astype(np.float32))
