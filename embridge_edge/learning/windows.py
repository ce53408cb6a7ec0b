"""Recordings cut into windows: one filtered signal, an index of windows into it, and what is known about each.

A set of windows lives in memory or in a folder of .npy files that are read by memory map. `cut_windows` writes such a
folder while it reads, a recording at a time, so that memory does not grow with their number.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from embridge_edge.artifacts import folder_written_by_rename, read_json
from embridge_edge.errors import EdgeError, one_line
from embridge_edge.features.chain import ChainPlan, SignalChain, resolve
from embridge_edge.gestures import POSE, GestureLibrary, pose_from_labels
from embridge_edge.learning.columns import Columns, FileColumns, MemoryColumns
from embridge_edge.recipe import WindowPlan
from embridge_edge.recordings.recording import GENERALIZATIONS, PARTITIONS, UNLABELLED, Problem, Recording

Index = npt.NDArray[np.int64]
Integers = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# What is stored of each window is narrow, since millions of them are: 51 bytes. Starts need 64 bits (2³¹ samples are 300
# hours at 2 kHz); labels have them because torch's cross-entropy takes no other.
KINDS: Mapping[str, npt.DTypeLike] = {
    "signal": np.float32,
    "pose_track": np.float32,
    "starts": np.int64,
    "slack": np.int32,
    "labels": np.int64,
    "held_out": np.bool_,
    "touched": np.uint64,
    "wearers": np.int32,
    "sessions": np.int32,
    "days": np.int32,
    "lowest_repetitions": np.int16,
    "highest_repetitions": np.int16,
    "stages": np.int32,
    "partitions": np.int8,
    "generalizations": np.int8,
}
"""The arrays of a `WindowSet`; one .npy file each in a folder."""

_FACTS = ("gestures", "wearer_names", "session_names", "stage_names", "tracked", "recordings", "test_repetitions")

ABOUT = "windows.json"

CHUNK = 1 << 16
"""Windows that are looked at together where every window is: their poses are a few megabytes."""

MOST_GESTURES = 64
"""One bit each in `WindowSet.touched`."""


@dataclass(frozen=True)
class WindowSet:
    """Windows of a data set on the hop grid.

    Attributes:
        chain: the signal chain (its normalisation may still be open).
        signal: float32 `[samples, channels]`, filtered, all recordings behind each other.
        pose_track: float32 `[samples / hop, 23]`, radians, NaN where unknown: the pose in the middle of each hop.
        starts: int64 `[n]`, first sample of each window, a multiple of the hop. No window crosses a clock jump.
        slack: int32 `[n]`, samples by which a window may be moved to the right within its segment before its last sample
            has another label or repetition.
        labels: int64 `[n]`, index into `gestures`, −1 where the window does not count for a gesture.
        held_out: bool `[n]`, whether the window touches a held-out gesture.
        touched: uint64 `[n]`, bit g for each gesture g that lies in the window or ended less than the guard (or the ramp)
            before it: the hand follows a prompt with a delay, so what comes just behind a gesture still is that gesture.
        wearers, sessions, stages: int32 `[n]`, index into `wearer_names`, `session_names` and `stage_names`.
        days: int32 `[n]`, day number, −1 unknown.
        lowest_repetitions, highest_repetitions: int16 `[n]`, of the window's samples, −1 unknown.
        partitions, generalizations: int8 `[n]`, index into `PARTITIONS` and `GENERALIZATIONS` of a recording: its place in a
            division that comes with the data set, 0 where there is none.
        gestures, wearer_names, session_names, stage_names: what the indices stand for; a session is named wearer/session, a
            recording of no stage has the stage "".
        tracked: whether poses were measured; else they come from the gesture library.
        recordings: how many were read.
        test_repetitions: the repetitions that are tested by the custom of the data set; empty where there is none.
        problems: what could not be read.
    """

    chain: SignalChain
    signal: Floats
    pose_track: Floats
    starts: Index
    slack: Integers
    labels: Index
    held_out: Mask
    touched: npt.NDArray[np.uint64]
    wearers: Integers
    sessions: Integers
    days: Integers
    lowest_repetitions: Integers
    highest_repetitions: Integers
    stages: Integers
    partitions: Integers
    generalizations: Integers
    gestures: tuple[str, ...]
    wearer_names: tuple[str, ...]
    session_names: tuple[str, ...]
    stage_names: tuple[str, ...]
    tracked: bool
    recordings: int
    test_repetitions: tuple[int, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def frames(self) -> int:
        """Pose frames in a window."""
        return self.chain.hops

    def inputs(self, which: Index) -> Floats:
        """Inputs of the network for the windows with these indices, float32 `[n, steps, columns]`."""
        return self.chain.inputs(self.signal, self.starts[which])

    def samples(self, which: Index) -> Floats:
        """Filtered samples of the windows with these indices, before features and normalisation, float32 `[n, window, channels]`."""
        return self.chain.samples(self.signal, self.starts[which])

    def poses(self, which: Index) -> Floats:
        """Pose track under the windows with these indices, float32 `[n, frames, 23]`."""
        first = self.starts[which] // self.chain.hop
        return np.asarray(self.pose_track[first[:, None] + np.arange(self.frames)[None, :]])

    def poses_at(self, which: Index, frame: int = -1) -> Floats:
        """One frame of `poses`, by default the last, without reading the others: float32 `[n, 23]`."""
        return np.asarray(self.pose_track[self.starts[which] // self.chain.hop + frame % self.frames])

    def posed(self, frame: int = -1) -> Mask:
        """Whether any angle is known in one frame of each window (by default the last), bool `[n]`."""
        found = np.empty(len(self), np.bool_)
        for part in chunks(len(self)):
            found[part] = np.isfinite(self.poses_at(np.arange(part.start, part.stop), frame)).any(axis=1)
        return found

    def with_chain(self, chain: SignalChain) -> WindowSet:
        return replace(self, chain=chain)

    def holding_out(self, names: Sequence[str]) -> WindowSet:
        """The same windows with these gestures held out, instead of those that they were cut with."""
        bits = sum(1 << self.gestures.index(name) for name in names if name in self.gestures)
        return replace(self, held_out=(self.touched & np.uint64(bits)) != 0)

    def save(self, folder: Path) -> None:
        """Write arrays and JSON into an existing folder."""
        for name in KINDS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        _write_about(folder, self.chain, {name: getattr(self, name) for name in _FACTS}, self.problems)

    @classmethod
    def load(cls, folder: Path) -> WindowSet:
        """Open what `save` or `cut_windows` wrote. The arrays stay on disk: what is looked at is read, by memory map.

        Raises:
            EdgeError: it is no such folder, one of another version, or damaged.
        """
        about = read_json(folder / ABOUT)
        try:
            arrays: dict[str, Any] = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in KINDS}
            facts: dict[str, Any] = {
                name: tuple(about[name]) if isinstance(about[name], list) else about[name] for name in _FACTS
            }
            problems = tuple(Problem(*problem) for problem in about["problems"])
            return cls(chain=SignalChain.from_dict(about["chain"]), problems=problems, **facts, **arrays)
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise EdgeError(
                f"{folder} holds no windows that this version can open ({one_line(error)}); remove it and run again."
            ) from None


def _write_about(folder: Path, chain: SignalChain, facts: Mapping[str, Any], problems: Sequence[Problem]) -> None:
    listed = [[problem.file, problem.line, problem.what] for problem in problems]
    about = {"chain": chain.to_dict(), **facts, "problems": listed}
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def chunks(count: int, size: int = CHUNK) -> Iterator[slice]:
    """Slices that together are `range(count)`."""
    return (slice(start, min(count, start + size)) for start in range(0, count, size))


def cut_windows(
    recordings: Iterable[Recording],
    chain: ChainPlan,
    plan: WindowPlan,
    library: GestureLibrary,
    folder: Path | None = None,
) -> WindowSet:
    """Filter recordings and cut them into windows.

    Recordings without tracking get their pose from the library; those with it keep what was measured. Where a folder
    holds recordings of several bands, which differ in rate and channels, the one with the longest total is taken and the
    others are named in `problems`.

    Args:
        folder: written while recordings are read, which are in memory one at a time; it appears whole, in the place of what
            was there, or not at all. The result is what `WindowSet.load` opens there. None keeps all in memory.

    Raises:
        EdgeError: no recording, recordings that do not go together (rate, channels, unit), no band at their rate,
            recordings shorter than one window, or a full disk.
    """
    if folder is None:
        band = _largest_band(recordings, chain, plan, library, lambda: MemoryColumns(KINDS))
        whole: dict[str, Any] = {**band.about(), **band.columns.arrays()}
        return WindowSet(**whole)
    with folder_written_by_rename(folder) as temporary:
        with ExitStack() as bands:
            folders = (temporary / f"band-{number}" for number in itertools.count(1))
            stored = _largest_band(
                recordings, chain, plan, library, lambda: bands.enter_context(FileColumns(next(folders), KINDS))
            )
        for file in stored.columns.folder.iterdir():
            file.replace(temporary / file.name)
        for left in temporary.glob("band-*"):
            shutil.rmtree(left)
        facts = stored.about()
        _write_about(temporary, facts.pop("chain"), facts, facts.pop("problems"))
    return WindowSet.load(folder)


Stored = TypeVar("Stored", bound=Columns)


def _largest_band(
    recordings: Iterable[Recording],
    chain: ChainPlan,
    plan: WindowPlan,
    library: GestureLibrary,
    columns: Callable[[], Stored],
) -> _Band[Stored]:
    """The band with the longest total; each band's windows go into columns of its own."""
    bands: dict[float, _Band[Stored]] = {}
    for recording in recordings:
        if recording.rate_hz not in bands:
            for band in bands.values():
                _must_differ(band.first, recording)
            bands[recording.rate_hz] = _Band(recording, chain, columns())
        bands[recording.rate_hz].add(recording, plan, library)
    if not bands:
        raise EdgeError("No recording to cut into windows; give a folder with recordings in --data.")
    largest = max(bands.values(), key=lambda band: band.samples / band.first.rate_hz)
    for band in bands.values():
        if band is not largest:
            largest.problems.append(
                Problem(band.first.source, None, f"{band.first.name}, most have {largest.first.name}: left out")
            )
    if plan.gestures_from == "stages" and not largest.gestures:
        known = ", ".join(filter(None, largest.stages)) or "none"
        raise EdgeError(f"No recording is of a stage that belongs to a group; these have the stages {known}.")
    if not largest.windows:
        raise EdgeError(
            f"Every recording is shorter than one window of {largest.chain.resolved['window_ms']:g} ms; record longer."
        )
    return largest


def _must_differ(first: _Device, other: Recording) -> None:
    """Refuse recordings of one band at different rates; another band, with other channels, may lie in the same folder."""
    if first.channels == other.channels:
        raise EdgeError(
            f"{other.source} has {other.rate_hz:g} Hz, {first.source} has {first.rate_hz:g}; one model takes one rate: "
            "put them in folders of their own."
        )


@dataclass(frozen=True)
class _Device:
    """What all recordings of one band share, by the first of them, which need not be kept for it."""

    source: str
    rate_hz: float
    channels: int
    unit: str

    @property
    def name(self) -> str:
        return f"{self.channels} channels at {self.rate_hz:g} Hz"


class _Band(Generic[Stored]):
    """Gathers the windows of recordings from one band: one rate, one number of channels, one unit."""

    def __init__(self, first: Recording, chain: ChainPlan, columns: Stored) -> None:
        self.first = _Device(first.source, first.rate_hz, first.channels, first.unit)
        self.chain = resolve(chain, first.rate_hz, first.channels, first.unit)
        self.columns = columns
        self.gestures: dict[str, int] = {}
        self.wearers: dict[str, int] = {}
        self.sessions: dict[str, int] = {}
        self.stages: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.tracked = False
        self.test_repetitions = first.test_repetitions
        self.samples = self.recordings = self.windows = self._offset = 0

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
        if plan.gestures_from == "stages":
            recording = labelled_by_stage(recording, plan.stage_groups)
        self.recordings += 1
        self.samples += recording.samples
        self.tracked = self.tracked or recording.pose is not None
        self.problems += recording.problems
        if recording.test_repetitions != self.test_repetitions:
            self.test_repetitions = ()  # data sets of different customs have none in common
        for part in _cut(recording, self.chain, plan, library, self.gestures):
            of_all = {
                "wearers": self.wearers.setdefault(recording.wearer, len(self.wearers)),
                "sessions": self.sessions.setdefault(recording.donning, len(self.sessions)),
                "stages": self.stages.setdefault(recording.stage, len(self.stages)),
                "days": -1 if recording.day is None else recording.day,
                "partitions": PARTITIONS.index(recording.partition),
                "generalizations": GENERALIZATIONS.index(recording.generalization),
            }
            part["starts"] = part["starts"] + self._offset
            count = len(part["starts"])
            self.columns.append(part | {name: np.full(count, value) for name, value in of_all.items()})
            self.windows += count
            self._offset += len(part["signal"])

    def about(self) -> dict[str, Any]:
        """What a `WindowSet` holds beside its arrays."""
        return {
            "chain": self.chain,
            "gestures": tuple(self.gestures),
            "wearer_names": tuple(self.wearers),
            "session_names": tuple(self.sessions),
            "stage_names": tuple(self.stages),
            "tracked": self.tracked,
            "recordings": self.recordings,
            "test_repetitions": self.test_repetitions,
            "problems": tuple(self.problems),
        }


def labelled_by_stage(recording: Recording, groups: Mapping[str, Sequence[str]]) -> Recording:
    """A recording with its stage, or the group that it belongs to, as the gesture of all its samples.

    A stage of emg2pose is a minute of one kind of movement: what EMBridge's evaluation there calls a gesture.

    Args:
        groups: stages by group; a stage in none has no gesture. Empty makes each stage its own group.
    """
    own = (group for group, stages in groups.items() if recording.stage in stages)
    name = next(own, "") if groups else recording.stage
    if not name:
        return replace(recording, labels=None, gestures=())
    return replace(recording, labels=np.zeros(recording.samples, np.int16), gestures=(name,))


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
    if len(gestures) > MOST_GESTURES:
        raise EdgeError(
            f"These recordings have more than {MOST_GESTURES} gestures; split them up, or leave labels out."
        )
    unseen = np.uint64(sum(1 << gestures[name] for name in plan.hold_out_gestures if name in gestures))
    still_in = {int(one): np.cumsum(_still_in(labels, one, max(guard, ramp))) for one in np.unique(labels) if one >= 0}
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
        touched = np.zeros(len(starts), np.uint64)
        for one, before in still_in.items():
            within = before[lasts] > np.where(firsts > 0, before[firsts - 1], 0)
            touched |= within.astype(np.uint64) << np.uint64(one)
        padding = -length % chain.hop
        track = np.pad(pose[segment], ((0, padding), (0, 0)), mode="edge")[chain.hop // 2 :: chain.hop]
        by_window = np.lib.stride_tricks.sliding_window_view(repetitions[segment], chain.window)[:: chain.hop]
        yield {
            "signal": np.pad(signal[segment], ((0, padding), (0, 0))),
            "pose_track": track,
            "starts": starts,
            "slack": np.minimum(length - chain.window - starts, until_change[lasts]),
            "labels": np.where(counts, labels[lasts], UNLABELLED),
            "held_out": (touched & unseen) != 0,
            "touched": touched,
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


def _still_in(labels: Index, gesture: int, after: int) -> npt.NDArray[np.bool_]:
    """Which samples belong to a gesture, or lie at most `after` samples behind it."""
    here = np.arange(len(labels))
    latest = np.maximum.accumulate(np.where(labels == gesture, here, -after - 1))
    return np.asarray(here - latest <= after)
