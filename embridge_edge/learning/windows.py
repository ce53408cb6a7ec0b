"""Recordings cut into windows: one filtered signal, an index of windows into it, and what is known about each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan, SignalChain, resolve
from embridge_edge.gestures import POSE, GestureLibrary, pose_from_labels
from embridge_edge.recipe import WindowPlan
from embridge_edge.recordings.recording import UNLABELLED, Problem, Recording

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_ARRAYS = (
    "signal",
    "pose_track",
    "starts",
    "slack",
    "labels",
    "held_out",
    "wearers",
    "sessions",
    "days",
    "lowest_repetitions",
    "highest_repetitions",
)


@dataclass(frozen=True)
class WindowSet:
    """Windows of a data set on the hop grid.

    Attributes:
        chain: the signal chain (its normalisation may still be open).
        signal: float32 `[samples, channels]`, filtered, all recordings behind each other.
        pose_track: float32 `[samples / hop, 23]`, radians, NaN where unknown: the pose in the middle of each hop.
        starts: int64 `[n]`, first sample of each window, a multiple of the hop. No window crosses a clock jump.
        slack: int64 `[n]`, samples by which a window may be moved to the right within its segment before its last sample
            has another label or repetition.
        labels: int64 `[n]`, index into `gestures`, −1 where the window does not count for a gesture.
        held_out: bool `[n]`, whether a held-out gesture lies in the window or ended less than the guard (or the ramp)
            before it: the hand follows a prompt with a delay, so what comes just behind a gesture still is that gesture.
        wearers, sessions: int64 `[n]`, index into `wearer_names` and `session_names`.
        days: int64 `[n]`, day number, −1 unknown.
        lowest_repetitions, highest_repetitions: int64 `[n]`, of the window's samples, −1 unknown.
        gestures, wearer_names, session_names: what the indices stand for; a session is named wearer/session.
        tracked: whether poses were measured; else they come from the gesture library.
        recordings: how many were read.
        problems: what could not be read.
    """

    chain: SignalChain
    signal: Floats
    pose_track: Floats
    starts: Index
    slack: Index
    labels: Index
    held_out: npt.NDArray[np.bool_]
    wearers: Index
    sessions: Index
    days: Index
    lowest_repetitions: Index
    highest_repetitions: Index
    gestures: tuple[str, ...]
    wearer_names: tuple[str, ...]
    session_names: tuple[str, ...]
    tracked: bool
    recordings: int
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def frames(self) -> int:
        """Pose frames in a window."""
        return max(1, self.chain.window // self.chain.hop)

    def inputs(self, which: Index) -> Floats:
        """Inputs of the network for the windows with these indices, float32 `[n, steps, columns]`."""
        return self.chain.inputs(self.signal, self.starts[which])

    def poses(self, which: Index) -> Floats:
        """Pose track under the windows with these indices, float32 `[n, frames, 23]`."""
        first = self.starts[which] // self.chain.hop
        return np.asarray(self.pose_track[first[:, None] + np.arange(self.frames)[None, :]])

    def with_chain(self, chain: SignalChain) -> WindowSet:
        return replace(self, chain=chain)

    def save(self, folder: Path) -> None:
        """Write arrays and JSON into an existing folder."""
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        about = {
            "chain": self.chain.to_dict(),
            "gestures": self.gestures,
            "wearer_names": self.wearer_names,
            "session_names": self.session_names,
            "tracked": self.tracked,
            "recordings": self.recordings,
            "problems": [[problem.file, problem.line, problem.what] for problem in self.problems],
        }
        (folder / "windows.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> WindowSet:
        """Open what `save` wrote; the signal stays on disk (memory map)."""
        about = json.loads((folder / "windows.json").read_text("utf-8"))
        arrays: dict[str, Any] = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r" if name == "signal" else None) for name in _ARRAYS
        }
        return cls(
            chain=SignalChain.from_dict(about["chain"]),
            gestures=tuple(about["gestures"]),
            wearer_names=tuple(about["wearer_names"]),
            session_names=tuple(about["session_names"]),
            tracked=bool(about["tracked"]),
            recordings=int(about["recordings"]),
            problems=tuple(Problem(*problem) for problem in about["problems"]),
            **arrays,
        )


def cut_windows(
    recordings: Iterable[Recording], chain: ChainPlan, plan: WindowPlan, library: GestureLibrary
) -> WindowSet:
    """Filter recordings and cut them into windows.

    Recordings without tracking get their pose from the library; those with it keep what was measured. Where a folder
    holds recordings of several bands, which differ in rate and channels, the one with the longest total is taken and the
    others are named in `problems`.

    Raises:
        EdgeError: no recording, recordings that do not go together (rate, channels, unit), no band at their rate, or
            recordings shorter than one window.
    """
    bands: dict[float, _Collector] = {}
    for recording in recordings:
        if recording.rate_hz not in bands:
            for band in bands.values():
                _must_differ(band.first, recording)
            bands[recording.rate_hz] = _Collector(recording, chain)
        bands[recording.rate_hz].add(recording, plan, library)
    if not bands:
        raise EdgeError("No recording to cut into windows; give a folder with recordings in --data.")
    largest = max(bands.values(), key=lambda band: band.samples / band.first.rate_hz)
    for band in bands.values():
        if band is not largest:
            largest.problems.append(
                Problem(band.first.source, None, f"{band.name}, most have {largest.name}: left out")
            )
    return largest.windows()


def _must_differ(first: Recording, other: Recording) -> None:
    """Refuse recordings of one band at different rates; another band, with other channels, may lie in the same folder."""
    if first.channels == other.channels:
        raise EdgeError(
            f"{other.source} has {other.rate_hz:g} Hz, {first.source} has {first.rate_hz:g}; one model takes one rate: "
            "put them in folders of their own."
        )


class _Collector:
    """Gathers the windows of recordings from one band: one rate, one number of channels, one unit."""

    def __init__(self, first: Recording, chain: ChainPlan) -> None:
        self.first = first
        self.chain = resolve(chain, first.rate_hz, first.channels, first.unit)
        self.parts: list[dict[str, Any]] = []
        self.gestures: dict[str, int] = {}
        self.wearers: dict[str, int] = {}
        self.sessions: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.tracked = False
        self.samples = self.recordings = self._offset = 0

    @property
    def name(self) -> str:
        return f"{self.first.channels} channels at {self.first.rate_hz:g} Hz"

    def add(self, recording: Recording, plan: WindowPlan, library: GestureLibrary) -> None:
        """Cut one more recording.

        Raises:
            EdgeError: it has other channels or another unit.
        """
        for what, mine, its in (
            ("channels", self.first.channels, recording.channels),
            ("as its unit", self.first.unit, recording.unit),
        ):
            if mine != its:
                raise EdgeError(
                    f"{recording.source} has {its} {what}, {self.first.source} has {mine}; one model takes one band: "
                    "put them in folders of their own."
                )
        self.recordings += 1
        self.samples += recording.samples
        self.tracked = self.tracked or recording.pose is not None
        self.problems += recording.problems
        for part in _cut(recording, self.chain, plan, library, self.gestures):
            part["starts"] = part["starts"] + self._offset
            self._offset += len(part["signal"])
            size = len(part["starts"])
            part["wearers"] = np.full(size, self.wearers.setdefault(recording.wearer, len(self.wearers)), np.int64)
            part["sessions"] = np.full(size, self.sessions.setdefault(recording.donning, len(self.sessions)), np.int64)
            part["days"] = np.full(size, -1 if recording.day is None else recording.day, np.int64)
            self.parts.append(part)

    def windows(self) -> WindowSet:
        """Everything gathered.

        Raises:
            EdgeError: no recording was long enough for a window.
        """
        if not self.parts:
            raise EdgeError(
                f"Every recording is shorter than one window of {self.chain.resolved['window_ms']:g} ms; record longer."
            )
        return WindowSet(
            chain=self.chain,
            gestures=tuple(self.gestures),
            wearer_names=tuple(self.wearers),
            session_names=tuple(self.sessions),
            tracked=self.tracked,
            recordings=self.recordings,
            problems=tuple(self.problems),
            **{name: np.concatenate([part[name] for part in self.parts]) for name in _ARRAYS},
        )


def _cut(
    recording: Recording, chain: SignalChain, plan: WindowPlan, library: GestureLibrary, gestures: dict[str, int]
) -> Iterable[dict[str, Any]]:
    """One part per segment that holds at least a window; segments are padded to whole hops."""
    if recording.labels is None:
        labels = np.full(recording.samples, UNLABELLED, np.int64)
    else:
        known = np.array(
            [*(gestures.setdefault(name, len(gestures)) for name in recording.gestures), UNLABELLED], np.int64
        )
        labels = known[recording.labels]
    pose = recording.pose
    if pose is None and recording.labels is not None:
        pose = pose_from_labels(
            recording.labels, recording.gestures, library, recording.rate_hz, recording.breaks, plan.ramp_ms
        )
    if pose is None:
        pose = np.full((recording.samples, len(POSE)), np.nan, np.float32)
    signal = chain.filtered(recording.emg, recording.breaks)
    since_change = _samples_since_change(labels)
    guard, ramp = (round(time * recording.rate_hz / 1000.0) for time in (plan.guard_ms, plan.ramp_ms))
    unseen = [gestures[name] for name in plan.hold_out_gestures if name in gestures]
    held_out = np.cumsum(_still_in(labels, unseen, max(guard, ramp)))
    repetitions = np.full(recording.samples, -1, np.int64)
    if recording.repetitions is not None:
        repetitions = recording.repetitions.astype(np.int64)
    until_change = _samples_until_change(labels, repetitions)
    for segment in recording.segments():
        length = segment.stop - segment.start
        if length < chain.window:
            continue
        starts = np.arange(0, length - chain.window + 1, chain.hop, dtype=np.int64)
        firsts, lasts = starts + segment.start, starts + segment.start + chain.window - 1
        run = since_change[lasts]
        behind = since_change[firsts]
        counts = (run >= chain.window - 1) & (behind >= guard) & (labels[firsts] >= 0)
        padding = -length % chain.hop
        track = np.pad(pose[segment], ((0, padding), (0, 0)), mode="edge")[chain.hop // 2 :: chain.hop]
        by_window = np.lib.stride_tricks.sliding_window_view(repetitions[segment], chain.window)[:: chain.hop]
        yield {
            "signal": np.pad(signal[segment], ((0, padding), (0, 0))),
            "pose_track": track,
            "starts": starts,
            "slack": np.minimum(length - chain.window - starts, until_change[lasts]),
            "labels": np.where(counts, labels[lasts], UNLABELLED),
            "held_out": held_out[lasts] > np.where(firsts > 0, held_out[firsts - 1], 0),
            "lowest_repetitions": by_window.min(axis=1),
            "highest_repetitions": by_window.max(axis=1),
        }


def _samples_since_change(labels: Index) -> Index:
    """Samples since the label last changed; a recording's start is no change, so it counts as long ago."""
    count = len(labels)
    change = np.zeros(count, np.int64)
    moved = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    change[moved] = moved
    latest = np.maximum.accumulate(change)
    since = np.arange(count) - latest
    return np.where(latest == 0, since + 2**31, since)


def _samples_until_change(labels: Index, repetitions: Index) -> Index:
    """By how many samples one can go on from each before label or repetition change or the recording ends."""
    last = np.flatnonzero((labels[1:] != labels[:-1]) | (repetitions[1:] != repetitions[:-1]))
    ends = np.append(last, len(labels) - 1)
    here = np.arange(len(labels))
    return np.asarray(ends[np.searchsorted(ends, here)] - here)


def _still_in(labels: Index, unseen: list[int], after: int) -> npt.NDArray[np.bool_]:
    """Which samples belong to one of the gestures `unseen`, or lie at most `after` samples behind one."""
    here = np.arange(len(labels))
    latest = np.maximum.accumulate(np.where(np.isin(labels, unseen), here, -after - 1))
    return np.asarray(here - latest <= after)
