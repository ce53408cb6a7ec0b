"""What `features` does with each recording: windows to a part of the table, and what an interrupted run has finished of it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from embridge_edge import __version__
from embridge_edge.errors import EdgeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.features.table import Part
    from embridge_edge.recordings import Recording

Result = TypeVar("Result")

KEEP_AFTER_S = 1.0
"""A run that has taken this long begins to keep what it has finished; before that, starting again is as quick."""

BANDPASS_ORDER = 4
NOTCH_QUALITY = 30.0


@dataclass(frozen=True)
class TablePlan:
    """What is asked for, free of any sample rate; `names` are features, groups resolved."""

    names: tuple[str, ...]
    window_ms: float
    hop_ms: float
    compat: str | None
    options: Mapping[str, float]
    bandpass_hz: tuple[float, float] | None
    notch_hz: float | None

    def resolved(self, recording: Recording) -> ResolvedPlan:
        """The plan for recordings at this one's rate.

        Raises:
            EdgeError: no sample in a window, or no band left.
        """
        from embridge_edge.features.checks import check_length, check_options, columns

        rate_hz = recording.rate_hz
        window, hop = round(self.window_ms * rate_hz / 1000.0), round(self.hop_ms * rate_hz / 1000.0)
        for option, asked, samples in (("--window-ms", self.window_ms, window), ("--hop-ms", self.hop_ms, hop)):
            if samples < 1:
                raise EdgeError(f"{option} {asked:g} is less than a sample at {rate_hz:g} Hz; give a longer one.")
        check_length(self.names, window, recording.channels, check_options(self.options))
        sections: tuple[Any, ...] = ()
        if self.bandpass_hz is not None or self.notch_hz is not None:
            from embridge_edge.features.design import NYQUIST_SHARE, cascade

            if self.notch_hz is not None and self.notch_hz > NYQUIST_SHARE * rate_hz:
                raise EdgeError(
                    f"--notch {self.notch_hz:g} lies above {NYQUIST_SHARE * rate_hz:g} Hz, 0.45 × the rate, where nothing can "
                    "be notched; leave it out."
                )
            sections = cascade(self.bandpass_hz, BANDPASS_ORDER, self.notch_hz, NOTCH_QUALITY, rate_hz).sections
        labels = [
            label for name in self.names for label in columns(name, recording.channels, rate_hz, window, self.options)
        ]
        return ResolvedPlan(
            self, recording.source, rate_hz, recording.channels, recording.unit, window, hop, sections, tuple(labels)
        )


def plan_table(
    names: str | Sequence[str],
    window_ms: float,
    hop_ms: float,
    compat: str | None,
    options: Mapping[str, float] | None,
    bandpass_hz: tuple[float, float] | None,
    notch_hz: float | None,
) -> TablePlan:
    """The plan for what a caller of `features` asks; what can be seen to be wrong is refused before anything is read.

    Raises:
        EdgeError: no feature or an unknown one, an option that none of them uses, a length or a frequency that is none.
    """
    from embridge_edge.features.checks import as_number, check_compat, check_options, check_used, expand

    check_compat(compat)
    check_options(options)
    wanted = expand(names, compat)
    check_used(options, wanted, compat)
    for option, value in (("--window-ms", window_ms), ("--hop-ms", hop_ms)):
        length = as_number(value)
        if not 0 < length < math.inf:
            shown = value if math.isnan(length) else f"{length:g}"
            raise EdgeError(f"{option} {shown}: give a length in milliseconds above 0.")
    if bandpass_hz is not None and (
        not isinstance(bandpass_hz, Sequence) or [math.isfinite(as_number(edge)) for edge in bandpass_hz] != [True] * 2
    ):
        raise EdgeError(f"--bandpass {bandpass_hz}: give two frequencies in hertz, the lower one first.")
    if notch_hz is not None and not math.isfinite(as_number(notch_hz)):
        raise EdgeError(f"--notch {notch_hz}: give the mains frequency in hertz.")
    return TablePlan(wanted, window_ms, hop_ms, compat, dict(options or {}), bandpass_hz, notch_hz)


@dataclass(frozen=True)
class ResolvedPlan:
    """A plan in samples and filter coefficients."""

    plan: TablePlan
    first: str
    rate_hz: float
    channels: int
    unit: str
    window: int
    hop: int
    sections: tuple[Any, ...]
    columns: tuple[str, ...]

    def check(self, recording: Recording) -> None:
        """Refuse a recording that cannot stand in one table with the first one."""
        if recording.rate_hz != self.rate_hz:
            raise EdgeError(
                f"{recording.source} has {recording.rate_hz:g} Hz, {self.first} has {self.rate_hz:g} Hz: one table has one "
                "rate; give them apart."
            )
        if recording.unit != self.unit:
            raise EdgeError(
                f"{recording.source} is in {recording.unit}, {self.first} in {self.unit}: one table has one unit; "
                "give them apart."
            )

    def about(self) -> dict[str, Any]:
        """What the values depend on besides the recordings, for the table's metadata and for resuming."""
        plan = self.plan
        return {
            "tool": "embridge-edge",
            "version": __version__,
            "features": list(plan.names),
            "rate_hz": self.rate_hz,
            "channels": self.channels,
            "unit": self.unit,
            "window": self.window,
            "hop": self.hop,
            "window_ms": 1000.0 * self.window / self.rate_hz,
            "hop_ms": 1000.0 * self.hop / self.rate_hz,
            "compat": plan.compat,
            "options": dict(plan.options),
            "bandpass_hz": self.band_hz,
            "notch_hz": plan.notch_hz,
            "sections": [list(section) for section in self.sections],
        }

    @property
    def band_hz(self) -> list[float] | None:
        """The pass band that was made: its upper end is 0.45 × the rate at most."""
        from embridge_edge.features.design import NYQUIST_SHARE

        if self.plan.bandpass_hz is None:
            return None
        low, high = self.plan.bandpass_hz
        return [low, min(high, NYQUIST_SHARE * self.rate_hz)]

    def part(self, recording: Recording) -> Part | None:
        """The windows of one recording; None where none fits."""
        import numpy as np

        from embridge_edge.features import slide
        from embridge_edge.features.table import Part, joined

        plan = self.plan
        stretches = [piece for piece in recording.segments() if piece.stop - piece.start >= self.window]
        if not stretches:
            return None
        found, starts = [], []
        for piece in stretches:
            features = slide(
                self._filtered(recording.emg[piece]),
                plan.names,
                self.rate_hz,
                self.window,
                self.hop,
                compat=plan.compat,
                options=plan.options,
            )
            found.append(joined(features))
            starts.append(piece.start + self.hop * np.arange(found[-1].shape[1], dtype=np.int64))
        start = np.concatenate(starts)
        return Part(
            recording=recording.source,
            wearer=recording.wearer,
            session=recording.session,
            start_s=start / recording.rate_hz,
            label=_agreed(recording.labels, start, self.window, none=-1),
            gestures=recording.gestures,
            repetition=_agreed(recording.repetitions, start, self.window, none=0),
            columns=self.columns,
            values=found[0] if len(found) == 1 else np.concatenate(found, axis=1),
        )

    def _filtered(self, signal: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if not self.sections:
            return signal
        from embridge_edge.features import filters

        return filters.run(self.sections, signal, filters.state_for(self.sections, signal[0]))


def _agreed(
    track: npt.NDArray[np.int16] | None, start: npt.NDArray[np.int64], window: int, none: int
) -> npt.NDArray[np.int32]:
    """What all samples of a window say, int32 `[windows]`; `none` where they differ or nothing is known."""
    import numpy as np

    if track is None:
        return np.full(len(start), none, np.int32)
    changes = np.zeros(len(track), np.int32)
    np.cumsum(track[1:] != track[:-1], out=changes[1:])
    return np.where(changes[start] == changes[start + window - 1], track[start], none).astype(np.int32)


class FinishedParts:
    """The finished parts of a run, in a hidden folder beside the output, each under a hash of all that it depends on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._began = time.monotonic()

    def part(self, resolved: ResolvedPlan, recording: Recording) -> tuple[Part | None, bool]:
        """The windows of a recording (None where none fits), and whether they were kept from before."""
        from embridge_edge.features.table import load_part, save_part

        if self.folder.is_dir():
            kept = load_part(self._place(resolved, recording))
            if kept is not None:
                return kept, True
        made = resolved.part(recording)
        if made is not None and time.monotonic() - self._began >= KEEP_AFTER_S:
            save_part(self._place(resolved, recording), made)
        return made, False

    def _place(self, resolved: ResolvedPlan, recording: Recording) -> Path:
        said = [resolved.about(), recording.source, recording.wearer, recording.session, recording.gestures]
        digest = hashlib.sha256(json.dumps(said).encode())
        for array in (recording.emg, recording.labels, recording.repetitions, recording.breaks):
            digest.update(b"-" if array is None else str(array.shape).encode())
            if array is not None:
                digest.update(array.data if array.flags.c_contiguous else array.tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.npz"

    def forget(self) -> None:
        """Remove what a finished run needs no more."""
        if self.folder.is_dir():
            import shutil

            shutil.rmtree(self.folder, ignore_errors=True)


def in_order(calls: Iterator[Callable[[], Result]], threads: int) -> Iterator[Result]:
    """Results of `calls` in their order, several of them computed at once."""
    if threads == 1:
        for call in calls:
            yield call()
        return
    from collections import deque
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(threads)
    try:
        running: deque[Future[Result]] = deque()
        for call in calls:
            running.append(pool.submit(call))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
