"""The one value that every reader makes and everything else starts from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE

UNLABELLED = -1
"""The label of a sample that belongs to no gesture."""

PARTITIONS = ("", "train", "val", "test")
"""Sides of a division that comes with a data set; "" where none does."""

GENERALIZATIONS = ("", "user", "stage", "user_stage")
"""What a test recording of such a division is new in: its wearer, its stage or both (the words of emg2pose)."""


@dataclass(frozen=True)
class Problem:
    """A place in a file that could not be used, and what became of it."""

    file: str
    line: int | None
    what: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.what}"


@dataclass(frozen=True)
class Recording:
    """One uninterrupted donning's worth of EMG by one wearer, with what is known about it.

    Attributes:
        emg: float32 `[samples, channels]` in `unit`.
        rate_hz: sample rate in hertz.
        unit: "V" where the scale to volts is known, else the device's own unit (for example "myo").
        source: the file (and archive member) that it was read from; unique within a data set.
        wearer, session: identifiers; a session is one donning of the band. Together they name the donning.
        day: number of the day within the wearer's series, where known.
        side: "left", "right" or "unknown".
        labels: int16 `[samples]`, index into `gestures`, UNLABELLED where no gesture is known; None where the
            recording carries no labels at all.
        gestures: names of the gestures that `labels` points to.
        repetitions: int16 `[samples]`, count of the repetition within the session, 0 where none; None if unknown.
        pose: float32 `[samples, 23]` in radians in the order of `gestures.POSE`, NaN where unknown; None if untracked.
        breaks: sorted sample indices at which the clock jumps: the sample does not follow the one before it.
        full_scale: largest magnitude that the device can give, in `unit`; None where unknown (then clipping is
            inferred from repeated extremes).
        stage: name of the part of the protocol that was recorded; "" where there is none.
        partition, generalization: its place in a division that comes with the data set, of `PARTITIONS` and
            `GENERALIZATIONS`.
        test_repetitions: the repetitions that are tested by the custom of the data set; empty where there is none.
        problems: what could not be used while reading.
    """

    emg: npt.NDArray[np.float32]
    rate_hz: float
    unit: str
    source: str
    wearer: str = "unknown"
    session: str = "1"
    day: int | None = None
    side: str = "unknown"
    labels: npt.NDArray[np.int16] | None = None
    gestures: tuple[str, ...] = ()
    repetitions: npt.NDArray[np.int16] | None = None
    pose: npt.NDArray[np.float32] | None = None
    breaks: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    full_scale: float | None = None
    stage: str = ""
    partition: str = ""
    generalization: str = ""
    test_repetitions: tuple[int, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        if self.emg.ndim != 2 or self.emg.dtype != np.float32:
            raise EdgeError(
                f"{self.source}: EMG must be float32 [samples, channels], not {self.emg.dtype} {list(self.emg.shape)}."
            )
        if self.emg.shape[0] == 0 or self.emg.shape[1] == 0:
            raise EdgeError(f"{self.source}: no EMG sample in it; remove the file or mend it.")
        if not (np.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise EdgeError(f"{self.source}: sample rate {self.rate_hz} Hz; give a positive rate in its description.")
        for name, shape in (
            ("labels", (self.samples,)),
            ("repetitions", (self.samples,)),
            ("pose", (self.samples, len(POSE))),
        ):
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise EdgeError(f"{self.source}: {name} has shape {list(array.shape)}, {list(shape)} expected.")
        if self.labels is not None and int(self.labels.max()) >= len(self.gestures):
            raise EdgeError(f"{self.source}: label {int(self.labels.max())} has no gesture name.")
        for name, allowed in (("partition", PARTITIONS), ("generalization", GENERALIZATIONS)):
            if getattr(self, name) not in allowed:
                known = ", ".join(filter(None, allowed))
                raise EdgeError(f"{self.source}: {name} {getattr(self, name)!r}; choose one of {known}, or none.")

    @property
    def samples(self) -> int:
        return int(self.emg.shape[0])

    @property
    def channels(self) -> int:
        return int(self.emg.shape[1])

    @property
    def duration_s(self) -> float:
        return self.samples / self.rate_hz

    @property
    def donning(self) -> str:
        """Wearer and session: the band was put on once for all samples that share it."""
        return f"{self.wearer}/{self.session}"

    def segments(self) -> Iterator[slice]:
        """The stretches between clock jumps, in order; together they are the whole recording."""
        edges = [0, *(int(sample) for sample in self.breaks if 0 < sample < self.samples), self.samples]
        for start, stop in pairwise(edges):
            yield slice(start, stop)
