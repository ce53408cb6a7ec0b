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
    "first_labels",
    "last_labels",
    "wearers",
    "sessions",
    "days",
    "first_repetitions",
    "last_repetitions",
)


@dataclass(frozen=True)
class WindowSet:
    """Windows of a data set on the hop grid.

    Attributes:
        chain: the signal chain (its normalisation may still be open).
        signal: float32 `[samples, channels]`, filtered, all recordings behind each other.
        pose_track: float32 `[samples / hop, 23]`, radians, NaN where unknown: the pose in the middle of each hop.
        starts: int64 `[n]`, first sample of each window, a multiple of the hop. No window crosses a clock jump.
        slack: int64 `[n]`, samples by which a window may be moved to the right within its segment.
        labels: int64 `[n]`, index into `gestures`, −1 where the window does not count for a gesture.
        first_labels, last_labels: int64 `[n]`, the label of the window's first and last sample, whether or not it counts.
        wearers, sessions: int64 `[n]`, index into `wearer_names` and `session_names`.
        days: int64 `[n]`, day number, −1 unknown.
        first_repetitions, last_repetitions: int64 `[n]`, repetition at the window's first and last sample, −1 unknown.
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
    first_labels: Index
    last_labels: Index
    wearers: Index
    sessions: Index
    days: Index
    first_repetitions: Index
    last_repetitions: Index
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

    Recordings without tracking get their pose from the library; those with it keep what was measured.

    Raises:
        EdgeError: no recording, recordings that do not go together (rate, channels, unit), no band at their rate, or
            recordings shorter than one window.
    """
    parts: list[dict[str, Any]] = []
    resolved: SignalChain | None = None
    first: Recording | None = None
    gestures: dict[str, int] = {}
    wearers: dict[str, int] = {}
    sessions: dict[str, int] = {}
    problems: list[Problem] = []
    tracked = False
    offset = count = 0
    for recording in recordings:
        count += 1
        if resolved is None or first is None:
            first = recording
            resolved = resolve(chain, recording.rate_hz, recording.channels, recording.unit)
        _must_match(first, recording)
        tracked = tracked or recording.pose is not None
        problems += recording.problems
        for part in _cut(recording, resolved, plan, library, gestures):
            part["starts"] = part["starts"] + offset
            offset += len(part["signal"])
            size = len(part["starts"])
            part["wearers"] = np.full(size, wearers.setdefault(recording.wearer, len(wearers)), np.int64)
            part["sessions"] = np.full(size, sessions.setdefault(recording.donning, len(sessions)), np.int64)
            part["days"] = np.full(size, -1 if recording.day is None else recording.day, np.int64)
            parts.append(part)
    if resolved is None:
        raise EdgeError("No recording to cut into windows; give a folder with recordings in --data.")
    if not parts:
        raise EdgeError(
            f"Every recording is shorter than one window of {resolved.resolved['window_ms']:g} ms; record longer."
        )
    return WindowSet(
        chain=resolved,
        gestures=tuple(gestures),
        wearer_names=tuple(wearers),
        session_names=tuple(sessions),
        tracked=tracked,
        recordings=count,
        problems=tuple(problems),
        **{name: np.concatenate([part[name] for part in parts]) for name in _ARRAYS},
    )


def _must_match(first: Recording, other: Recording) -> None:
    for what, mine, its in (
        ("channels", first.channels, other.channels),
        ("Hz", first.rate_hz, other.rate_hz),
        ("unit", first.unit, other.unit),
    ):
        if mine != its:
            raise EdgeError(
                f"{other.source} has {its} {what}, {first.source} has {mine}; one model takes one band: "
                "put them in folders of their own."
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
    guard = round(plan.guard_ms * recording.rate_hz / 1000.0)
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
        repetitions = recording.repetitions
        yield {
            "signal": np.pad(signal[segment], ((0, padding), (0, 0))),
            "pose_track": track,
            "starts": starts,
            "slack": length - chain.window - starts,
            "labels": np.where(counts, labels[lasts], UNLABELLED),
            "first_labels": labels[firsts],
            "last_labels": labels[lasts],
            "first_repetitions": np.full(len(starts), -1)
            if repetitions is None
            else repetitions[firsts].astype(np.int64),
            "last_repetitions": np.full(len(starts), -1)
            if repetitions is None
            else repetitions[lasts].astype(np.int64),
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
