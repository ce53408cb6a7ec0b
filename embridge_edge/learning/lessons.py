"""What a teacher says about windows, computed once and kept on disk: a student is trained on it many times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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

KINDS = {"which": np.int64, "tokens": np.float16}


@dataclass(frozen=True)
class Lesson:
    """What a teacher says about some windows.

    Attributes:
        which: int64 `[n]`, indices of the windows.
        tokens: float16 `[n, queries, embedding]`, in memory or mapped: the queries' outputs. Half precision keeps three digits of a
            cosine, and 100,000 windows of 16 queries of 64 in 205 MB.
    """

    which: Index
    tokens: npt.NDArray[np.float16]

    def unit_tokens(self, places: Index) -> Floats:
        """Unit vectors of the tokens at some places of the lesson, float32 `[places, queries, embedding]`."""
        return _unit(np.asarray(self.tokens[places], np.float32))

    def embeddings(self, places: Index) -> Floats:
        """Unit vectors of the pooled embeddings (the mean over the queries), float32 `[places, embedding]`."""
        return _unit(np.asarray(self.tokens[places], np.float32).mean(axis=1))

    @classmethod
    def load(cls, folder: Path) -> Lesson:
        """Open what `teach` wrote; the tokens stay on disk.

        Raises:
            EdgeError: it is no such folder, or damaged.
        """
        try:
            return cls(np.load(folder / "which.npy"), np.load(folder / "tokens.npy", mmap_mode="r"))
        except (OSError, EOFError, ValueError) as error:
            raise EdgeError(f"{folder} holds no lesson ({error}); remove it and run again.") from None


def _unit(vectors: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-9), np.float32)


def teach(
    teacher: Teacher,
    windows: WindowSet,
    which: Index,
    most: int,
    seed: int,
    progress: Progress = SILENT,
    *,
    unlabelled: Index | None = None,
    folder: Path | None = None,
) -> Lesson:
    """The teacher's tokens for windows.

    Args:
        which: int64, windows to draw from, evenly over gestures and wearers. most: how many at the most.
        unlabelled: windows without label and pose, of which as many are taken besides.
        folder: an existing one to write the lesson to, as it is made; None keeps it in memory.
    """
    chosen = np.unique(EvenSampler(windows, which, seed).draw(0, most))
    if unlabelled is not None and len(unlabelled):
        more = np.random.default_rng([seed, 9]).permutation(unlabelled)[:most]
        chosen = np.union1d(chosen, more)
    if folder is None:
        memory = MemoryColumns(KINDS)
        _say(teacher, windows, chosen, memory, progress)
        return Lesson(**memory.arrays())
    with FileColumns(folder, KINDS) as files:
        _say(teacher, windows, chosen, files, progress)
    return Lesson.load(folder)


def _say(
    teacher: Teacher, windows: WindowSet, chosen: Index, columns: MemoryColumns | FileColumns, progress: Progress
) -> None:
    with torch.inference_mode(), progress.bar("teacher's tokens", len(chosen), "window") as advance:
        for part in np.array_split(chosen, max(1, -(-len(chosen) // EMBED_BATCH))):
            tokens = teacher.queries(torch.from_numpy(windows.inputs(part))).numpy()
            columns.append({"which": part, "tokens": tokens})
            advance(len(part))
