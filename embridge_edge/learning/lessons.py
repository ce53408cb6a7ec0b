"""What a teacher says about windows, computed once and kept on disk: a student is trained on it many times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embridge_edge.errors import EdgeError
from embridge_edge.learning.batches import EvenSampler
from embridge_edge.learning.columns import FileColumns, MemoryColumns
from embridge_edge.learning.teacher import EMBED_BATCH
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.teacher import Teacher
from embridge_edge.progress import SILENT, Progress

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]

Says = Callable[[Floats], Mapping[str, Floats]]
"""What a teacher of others says of inputs `[n, steps, columns]`: one or more of "tokens" `[n, tokens, width]`, "pooled" `[n, width]`, and
"scores" `[n, gestures]`, logits in the order of the windows' gestures, NaN for those that it does not know."""

SAID = ("tokens", "pooled", "scores")


@dataclass(frozen=True)
class Lesson:
    """What a teacher says about some windows.

    Attributes:
        which: int64 `[n]`, indices of the windows.
        tokens: float16 `[n, queries, embedding]`, in memory or mapped: the queries' outputs. Half precision keeps three digits of a
            cosine, and 100,000 windows of 16 queries of 64 in 205 MB.
        pooled: float16 `[n, embedding]`, where a teacher gives an embedding that is not the tokens' mean. scores: float16
            `[n, gestures]`, logits.
    """

    which: Index
    tokens: Halves | None = None
    pooled: Halves | None = None
    scores: Halves | None = None

    @property
    def embeds(self) -> bool:
        """Whether there is an embedding."""
        return self.tokens is not None or self.pooled is not None

    @property
    def token_shape(self) -> tuple[int, int]:
        """Tokens and their width; (0, 0) where there are none."""
        return (0, 0) if self.tokens is None else (self.tokens.shape[1], self.tokens.shape[2])

    def unit_tokens(self, places: Index) -> Floats:
        """Unit vectors of the tokens at some places of the lesson, float32 `[places, queries, embedding]`."""
        assert self.tokens is not None  # noqa: S101 (who asks has looked)
        return _unit(np.asarray(self.tokens[places], np.float32))

    def embeddings(self, places: Index) -> Floats:
        """Unit vectors of the pooled embeddings (the mean over the queries where none was given), float32 `[places, embedding]`."""
        if self.pooled is not None:
            return _unit(np.asarray(self.pooled[places], np.float32))
        assert self.tokens is not None  # noqa: S101 (who asks has looked)
        return _unit(np.asarray(self.tokens[places], np.float32).mean(axis=1))

    @classmethod
    def load(cls, folder: Path) -> Lesson:
        """Open what `teach` wrote; what was said stays on disk.

        Raises:
            EdgeError: it is no such folder, or damaged.
        """
        try:
            said = {name: folder / f"{name}.npy" for name in SAID}
            mapped = {name: np.load(file, mmap_mode="r") for name, file in said.items() if file.is_file()}
            return cls(np.load(folder / "which.npy"), **mapped)
        except (OSError, EOFError, ValueError) as error:
            raise EdgeError(f"{folder} holds no lesson ({error}); remove it and run again.") from None


def _unit(vectors: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-9), np.float32)


def teach(
    teacher: Teacher | Says,
    windows: WindowSet,
    which: Index,
    most: int,
    seed: int,
    progress: Progress = SILENT,
    *,
    unlabelled: Index | None = None,
    folder: Path | None = None,
) -> Lesson:
    """What the teacher says of windows.

    Args:
        teacher: ours, of which the tokens are kept; or the function that a model of others is.
        windows: under the teacher's chain.
        which: int64, windows to draw from, evenly over gestures and wearers. most: how many at the most.
        unlabelled: windows without label and pose, of which as many are taken besides.
        folder: an existing one to write the lesson to, as it is made; None keeps it in memory.
    """
    chosen = np.unique(EvenSampler(windows, which, seed).draw(0, most))
    if unlabelled is not None and len(unlabelled):
        more = np.random.default_rng([seed, 9]).permutation(unlabelled)[:most]
        chosen = np.union1d(chosen, more)
    rows = _said(_tokens_of(teacher) if isinstance(teacher, Teacher) else teacher, windows, chosen, progress)
    first = next(rows)
    kinds = {"which": np.int64, **dict.fromkeys((name for name in first if name != "which"), np.float16)}
    if folder is None:
        memory = MemoryColumns(kinds)
        for each in chain((first,), rows):
            memory.append(each)
        return Lesson(**memory.arrays())
    with FileColumns(folder, kinds) as files:
        for each in chain((first,), rows):
            files.append(each)
    return Lesson.load(folder)


def _tokens_of(teacher: Teacher) -> Says:
    return lambda inputs: {"tokens": teacher.queries(torch.from_numpy(inputs)).numpy()}


def _said(says: Says, windows: WindowSet, chosen: Index, progress: Progress) -> Iterator[dict[str, npt.NDArray[Any]]]:
    with progress.bar("teacher's word", len(chosen), "window") as advance:
        for part in np.array_split(chosen, max(1, -(-len(chosen) // EMBED_BATCH))):
            with torch.inference_mode():
                yield {"which": part, **says(windows.inputs(part))}
            advance(len(part))
