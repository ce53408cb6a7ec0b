"""One delimited text and its description to a Recording."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE, pose_from_curls
from embridge_edge.recordings import text
from embridge_edge.recordings.clock import Seconds, gaps, interpolate, lay_beside, seconds, study
from embridge_edge.recordings.description import (
    NO_CLOCK,
    ClockRule,
    Column,
    Companion,
    Description,
    LabelRule,
    PoseRule,
)
from embridge_edge.recordings.recognition import Glimpse, glimpse, header_names
from embridge_edge.recordings.recording import UNLABELLED, Problem, Recording
from embridge_edge.recordings.repetitions import MOST_REPETITIONS, Repetitions
from embridge_edge.recordings.store import Store

MOST = 0.5
"""A file of which more than this share of lines is unusable was not written in the format that it is read as."""

PROBLEMS_PER_FILE = 100

MOST_GESTURES = 1000
"""A column with more different values than this holds something else than gestures."""


def read_delimited(
    store: Store,
    name: str,
    description: Description,
    found: Mapping[Companion, str],
    counts: Repetitions,
    looked: Glimpse | None = None,
) -> Recording:
    """Read the file `name` as `description` says; `found` names the companion files that go with it.

    `looked` is the beginning of the file, where it has been looked at already.

    Raises:
        EdgeError: the file is empty, has other columns than described, or is mostly unusable.
    """
    source = store.prefix + name
    who = identify(description, store.context(name), name)
    if who.repetition is not None and who.repetition > MOST_REPETITIONS:
        raise EdgeError(
            f"{source}: repetition {who.repetition} in its path is no count (at most {MOST_REPETITIONS}); correct the group "
            f"'repetition' of {description.name}, or leave it out to have repetitions counted."
        )
    table, columns, line_problems = _table(store, name, description, _own_columns(description), looked)
    if not len(table.emg):
        raise EdgeError(f"{source} holds no samples; remove the file or fetch it again.")
    emg = table.emg
    if description.scale != 1.0:
        emg *= np.float32(description.scale)
    breaks = np.unique(table.bad.row)
    breaks = breaks[(breaks > 0) & (breaks < len(emg))].astype(np.int64)
    problems = [*line_problems]
    extra, labels, time = table.extra, table.labels, None
    clock = description.clock
    if clock.kind != "none":
        time = seconds(table.clock, clock)
    if time is not None and clock.kind == "irregular":
        time, emg, extra, labels, breaks = _resampled(description, source, time, emg, extra, labels, breaks, problems)
    elif time is not None:
        breaks = np.union1d(breaks, _clock_breaks(description, source, time, problems))
    own_time = time if time is not None else np.arange(len(emg)) / description.rate_hz
    gestures: tuple[str, ...] = ()
    label_track: npt.NDArray[np.int16] | None = None
    repetitions: npt.NDArray[np.int16] | None = None
    rule = description.labels
    if rule is not None:
        label_track, gestures = _labels(store, rule, found, table, labels, who, own_time, clock, source, problems)
        if label_track is not None and who.repetition is not None:
            repetitions = np.where(label_track >= 0, np.int16(who.repetition), np.int16(0)).astype(np.int16)
        elif label_track is not None:
            repetitions = counts.count(label_track, gestures, rule.rest, who.wearer, who.session)
    pose = None
    if description.pose is not None:
        pose = _pose(store, description.pose, found, extra, columns, own_time, clock, source, problems)
    return Recording(
        emg=emg,
        rate_hz=description.rate_hz,
        unit=description.unit,
        source=source,
        wearer=who.wearer,
        session=who.session,
        day=who.day,
        side=who.side,
        labels=label_track,
        gestures=gestures,
        repetitions=repetitions,
        pose=pose,
        breaks=breaks,
        full_scale=description.full_scale,
        problems=tuple(problems),
    )


@dataclass(frozen=True)
class Who:
    """What a file's path says about it."""

    wearer: str
    session: str
    day: int | None
    side: str
    repetition: int | None
    groups: Mapping[str, str]


def identify(description: Description, path: str, name: str) -> Who:
    """Wearer, session, day, side and repetition by the description's patterns over the path.

    Where no pattern matches, the wearer is "unknown" and the session the name of the folder that the file lies in.
    """
    groups: dict[str, str] = {}
    for pattern in description.patterns:
        match = pattern.search(path)
        if match:
            groups.update(
                {key: value for key, value in match.groupdict().items() if value is not None and key not in groups}
            )
    folder = PurePosixPath(path).parent.name
    day = groups.get("day")
    repetition = groups.get("repetition")
    side = groups.get("side", description.side).lower()
    return Who(
        wearer=groups.get("wearer") or description.wearer or "unknown",
        session=groups.get("session") or description.session or folder or "1",
        day=int(day) if day is not None and day.isdecimal() else description.day,
        side={"l": "left", "r": "right"}.get(side, side) if side in ("left", "right", "l", "r") else "unknown",
        repetition=int(repetition) if repetition is not None and repetition.isdecimal() else None,
        groups=groups,
    )


@dataclass(frozen=True)
class _Wanted:
    """The columns to be read from a text."""

    emg: tuple[Column, ...] = ()
    extra: tuple[Column, ...] = ()
    label: Column | None = None
    label_numeric: bool = True
    label_range: tuple[float, float] = (float("-inf"), float("inf"))
    clock: ClockRule = NO_CLOCK


def _own_columns(description: Description) -> _Wanted:
    labels, pose = description.labels, description.pose
    own_labels = labels is not None and labels.companion is None and bool(labels.columns)
    return _Wanted(
        emg=description.emg,
        extra=pose.columns if pose is not None and pose.companion is None else (),
        label=labels.columns[0] if labels is not None and own_labels else None,
        label_numeric=labels.numeric if labels is not None else True,
        label_range=(labels.low, labels.high) if labels is not None else (float("-inf"), float("inf")),
        clock=description.clock,
    )


def _table(
    store: Store, name: str, description: Description, wanted: _Wanted, looked: Glimpse | None = None
) -> tuple[text.Table, tuple[Column, ...], tuple[Problem, ...]]:
    source = store.prefix + name
    size = store.size(name)
    if size == 0:
        raise EdgeError(f"{source} is empty; remove the file or fetch it again.")
    names: tuple[str, ...] = ()
    count = description.columns
    if description.header:
        line = (looked or glimpse(store, name)).lines[0]
        names = header_names(line, description.delimiter)
        count = len(names)
        if description.columns is not None and count != description.columns:
            raise EdgeError(
                f"{source}:1: {count} columns when split at {description.delimiter!r}, {description.columns} described "
                f"by {description.name}; correct delimiter or columns."
            )
    assert count is not None  # noqa: S101 (checked when the description was read)

    def index(column: Column) -> int:
        if isinstance(column, str) and column not in names:
            shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
            raise EdgeError(
                f"{source}:1: no column {column!r} among the {count} that the header names ({shown}) when split at "
                f"{description.delimiter!r}; correct {description.name}."
            )
        number = names.index(column) if isinstance(column, str) else column
        if not 0 <= number < count:
            raise EdgeError(f"{source}:1: no column {number}, the header names {count}; correct {description.name}.")
        return number

    roles = np.zeros(count, np.int8)
    slots = np.zeros(count, np.int64)
    low, high = np.full(count, -np.inf), np.full(count, np.inf)
    whole = np.zeros(count, np.bool_)
    for slot, column in enumerate(wanted.emg):
        at = index(column)
        roles[at], slots[at] = text.EMG, slot
        # Times the scale, and rounded, it must still be a float32.
        most = 0.999 * text.FLOAT32_MAX / max(1.0, description.scale)
        low[at], high[at] = max(description.low, -most), min(description.high, most)
        whole[at] = description.whole
    for slot, column in enumerate(wanted.extra):
        at = index(column)
        roles[at], slots[at] = text.EXTRA, slot
    if wanted.label is not None:
        at = index(wanted.label)
        roles[at] = text.LABEL if wanted.label_numeric else text.LABEL_TEXT
        exact = 2.0**53  # above it not every whole number is a float64
        low[at], high[at] = max(wanted.label_range[0], -exact), min(wanted.label_range[1], exact)
    groups = 0
    if wanted.clock.kind != "none" and wanted.clock.column is not None:
        roles[index(wanted.clock.column)] = text.CLOCK_TEXT if wanted.clock.format else text.CLOCK
        groups = len(wanted.clock.codes) or 1
    layout = text.Layout(
        roles,
        slots,
        low,
        high,
        whole,
        delimiter=text.WHITESPACE if description.delimiter == "whitespace" else ord(description.delimiter),
        decimal=ord(description.decimal),
        skip_lines=1 if description.header else 0,
        clock_groups=groups,
    )
    try:
        with store.open(name) as stream:
            table = text.read_table(stream, layout, size)
    except EdgeError as error:
        raise EdgeError(f"{source}: {error}") from None
    problems = _line_problems(source, table, layout, description, names)
    return table, names or tuple(range(count)), problems


def _line_problems(
    source: str, table: text.Table, layout: text.Layout, description: Description, names: Sequence[str]
) -> tuple[Problem, ...]:
    bad = table.bad
    if not len(bad):
        return ()
    if len(bad) > MOST * table.lines:
        what = _reason(bad, 0, layout, description, names)
        raise EdgeError(
            f"{source}:{int(bad.line[0])}: {what}; {len(bad)} of {table.lines} lines are like this, so it is not "
            f"written as {description.name} says: correct the description or choose one with --format."
        )
    changes = (np.diff(bad.line) > 1) | (np.diff(bad.reason) != 0) | (np.diff(bad.column) != 0)
    starts = [0, *(np.flatnonzero(changes) + 1), len(bad)]
    problems = []
    for start, stop in pairwise(starts):
        what = _reason(bad, start, layout, description, names)
        dropped = "line dropped" if stop - start == 1 else f"{stop - start} lines dropped"
        problems.append(Problem(source, int(bad.line[start]), f"{what}; {dropped}"))
    if len(problems) > PROBLEMS_PER_FILE:
        left = len(problems) - PROBLEMS_PER_FILE
        problems = problems[:PROBLEMS_PER_FILE]
        problems.append(Problem(source, None, f"{left} more places with unusable lines, dropped"))
    return tuple(problems)


def _reason(bad: text.BadLines, at: int, layout: text.Layout, description: Description, names: Sequence[str]) -> str:
    reason, fields, column = (int(values[at]) for values in (bad.reason, bad.fields, bad.column))
    if reason == text.FIELDS:
        split = "" if fields > 1 else f" when split at {description.delimiter!r}"
        return f"{fields} field{'s' * (fields != 1)}{split}, {layout.columns} expected"
    what = {
        text.NUMBER: "a field is no number",
        text.RANGE: "a value is out of its range",
        text.MISSING: "an EMG value or the time is missing",
        text.FRACTION: "a value that must be whole has a fraction",
    }[reason]
    return f"{what} in column {repr(names[column]) if names else column}"


def _clock_breaks(
    description: Description, source: str, time: Seconds, problems: list[Problem]
) -> npt.NDArray[np.int64]:
    clock = study(time, description.rate_hz, description.clock.jump_ms)
    if clock.backwards is not None:
        problems.append(Problem(source, None, f"the clock runs backwards at sample {clock.backwards}"))
    if abs(clock.rate_hz / description.rate_hz - 1.0) > 0.02:
        problems.append(
            Problem(
                source,
                None,
                f"the clock shows {clock.rate_hz:.4g} samples a second, {description.rate_hz:g} are described",
            )
        )
    if len(clock.jumps):
        said = _jumps_said(time[clock.jumps] - time[0])
        lost = round(clock.lost_s * description.rate_hz)
        samples = "1 sample" if lost == 1 else f"{lost} samples"
        problems.append(Problem(source, None, f"{said}: about {samples} ({clock.lost_s:.2f} s) lost; breaks are set"))
    return clock.jumps


def _jumps_said(at_s: Seconds) -> str:
    """How often a clock jumps and where, from the times of the jumps in seconds."""
    first, last = (f"{moment:.1f}" for moment in (at_s[0], at_s[-1]))
    where = f"at {first} s" if first == last else f"between {first} and {last} s"
    return f"the clock jumps {'once' if len(at_s) == 1 else f'{len(at_s)} times'} {where}"


_Resampled = tuple[
    Seconds,
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    "npt.NDArray[np.int64] | None",
    npt.NDArray[np.int64],
]


def _resampled(
    description: Description,
    source: str,
    time: Seconds,
    emg: npt.NDArray[np.float32],
    extra: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64] | None,
    breaks: npt.NDArray[np.int64],
    problems: list[Problem],
) -> _Resampled:
    """Everything on an even grid of the declared rate, each stretch between two breaks for itself."""
    jumps = gaps(time, description.clock.jump_ms)
    if len(jumps):
        lost = float(np.maximum(0.0, time[jumps] - time[jumps - 1]).sum())
        back = int((time[jumps] < time[jumps - 1]).sum())
        said = _jumps_said(time[jumps] - time[0]) + (f", {back} of {len(jumps)} backwards" if back else "")
        problems.append(Problem(source, None, f"{said}: {lost:.2f} s without samples; breaks are set"))
    edges = [0, *(int(at) for at in np.union1d(breaks, jumps)), len(time)]
    grids, parts, extras, label_parts, joints = [], [], [], [], [0]
    for start, stop in pairwise(edges):
        part = slice(start, stop)
        count = int((time[stop - 1] - time[start]) * description.rate_hz + 1e-6) + 1
        grid = time[start] + np.arange(count) / description.rate_hz
        grids.append(grid)
        parts.append(interpolate(grid, time[part], emg[part]))
        extras.append(interpolate(grid, time[part], extra[part]))
        if labels is not None:
            nearest = np.clip(np.searchsorted(time[part], grid + 0.5 / description.rate_hz) - 1, 0, stop - start - 1)
            label_parts.append(labels[part][nearest])
        joints.append(joints[-1] + count)
    return (
        np.concatenate(grids),
        np.concatenate(parts),
        np.concatenate(extras),
        np.concatenate(label_parts) if labels is not None else None,
        np.array(joints[1:-1], np.int64),
    )


def _labels(
    store: Store,
    rule: LabelRule,
    found: Mapping[Companion, str],
    table: text.Table,
    raw: npt.NDArray[np.int64] | None,
    who: Who,
    own_time: Seconds,
    own_clock: ClockRule,
    source: str,
    problems: list[Problem],
) -> tuple[npt.NDArray[np.int16] | None, tuple[str, ...]]:
    """The label of each sample as an index into the gestures' names."""
    gestures = list(dict.fromkeys(rule.names.values())) if rule.names is not None else []

    def number(written: str) -> int:
        name = written
        if rule.names is not None:
            mapped = rule.names.get(written)
            if mapped is None and rule.companion is None:
                return UNLABELLED
            name = mapped if mapped is not None else f"fingers_{written}"
        if name not in gestures:
            gestures.append(name)
        return gestures.index(name)

    samples = len(own_time)
    if rule.path_group is not None:
        written = who.groups.get(rule.path_group)
        if written is None:
            problems.append(Problem(source, None, "the path does not say which gesture it is; left without labels"))
            return None, ()
        label = number(written.lstrip("0") or written if written.isdigit() else written)
        if label == UNLABELLED:
            problems.append(Problem(source, None, f"the description gives no gesture for {written!r}; left unlabelled"))
        return np.full(samples, label, np.int16), tuple(gestures)
    if rule.companion is not None:
        name = found.get(rule.companion)
        if name is None:
            return None, ()
        stamps, values, _ = _companion(store, name, rule.companion, rule.columns, own_time, own_clock)
        known = np.isfinite(values).all(axis=1)
        stamps, asked = stamps[known], values[known].astype(np.int64)
        if not len(stamps):
            return None, ()
        states, which = np.unique(asked, axis=0, return_inverse=True)
        indices = [number("".join(str(value) for value in state)) for state in states]
        numbers = np.array(indices, np.int16)[which.ravel()]
        at = np.searchsorted(stamps, own_time, side="right") - 1
        return np.where(at >= 0, numbers[np.maximum(at, 0)], np.int16(UNLABELLED)).astype(np.int16), tuple(gestures)
    assert raw is not None  # noqa: S101 (a label column was read)
    found_values, places = _distinct(raw)
    if len(found_values) > MOST_GESTURES:
        raise EdgeError(
            f"{source}: column {rule.columns[0]!r} has {len(found_values)} different values, so it holds no gestures; correct "
            "[labels] column."
        )
    texts = table.label_texts if not rule.numeric else {}
    written_values = [
        "" if value == -1 and not rule.numeric else texts.get(int(value), str(int(value))) for value in found_values
    ]
    numbers = np.array(
        [
            UNLABELLED if written in ("", "-1") and not (rule.names or {}).get(written) else number(written)
            for written in written_values
        ],
        np.int16,
    )
    for written, label in zip(written_values, numbers, strict=True):
        if label == UNLABELLED and written not in ("", "-1"):
            problems.append(
                Problem(source, None, f"the description gives no gesture for label {written!r}; left unlabelled")
            )
    return numbers[places], tuple(gestures)


def _distinct(raw: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The distinct values, sorted, and the place of each sample's among them, if possible without sorting."""
    low, high = int(raw.min()), int(raw.max())
    if high - low > 1 << 16:
        values, which = np.unique(raw, return_inverse=True)
        return values, which.ravel()
    present = np.bincount(raw - low) > 0
    return np.flatnonzero(present) + low, (np.cumsum(present) - 1)[raw - low]


def _companion(
    store: Store, name: str, companion: Companion, columns: Sequence[Column], own_time: Seconds, own_clock: ClockRule
) -> tuple[Seconds, npt.NDArray[np.float32], tuple[Problem, ...]]:
    """Times of a companion on the clock of the EMG, and its columns, float32 `[rows, columns]`."""
    shape = Description(
        name=f"the companion of {companion.header[0]}",
        about="",
        emg=(),
        rate_hz=1.0,
        unit="",
        header=True,
        clock=companion.clock,
    )
    table, _, problems = _table(store, name, shape, _Wanted(extra=tuple(columns), clock=companion.clock))
    time = lay_beside(seconds(table.clock, companion.clock), companion.clock, own_time, own_clock)
    return time, table.extra, problems


def _pose(
    store: Store,
    rule: PoseRule,
    found: Mapping[Companion, str],
    extra: npt.NDArray[np.float32],
    columns: tuple[Column, ...],
    own_time: Seconds,
    own_clock: ClockRule,
    source: str,
    problems: list[Problem],
) -> npt.NDArray[np.float32] | None:
    """The pose track, float32 `[samples, 23]` in radians; None where the companion is not there."""
    if rule.companion is not None:
        name = found.get(rule.companion)
        if name is None:
            problems.append(Problem(source, None, "no file with hand tracking found for it; read without a pose"))
            return None
        time, values, more = _companion(store, name, rule.companion, rule.columns, own_time, own_clock)
        problems.extend(more)
        extra = interpolate(own_time, time, values, rule.companion.max_gap_ms / 1000.0)
        if not np.isfinite(extra).any():
            problems.append(Problem(source, None, f"{name} shares no time with it; read without a pose"))
            return None
    track = dict(zip(rule.columns, extra.T, strict=True))
    curls = {finger: track[column] for finger, column in rule.curls.items()}
    for finger, angle in rule.fingers.items():
        curls[finger] = np.clip(
            (track[angle.column] - np.float32(angle.bent_deg)) / np.float32(angle.straight_deg - angle.bent_deg),
            0.0,
            1.0,
        )
    pose = pose_from_curls(curls) if curls else np.full((len(own_time), len(POSE)), np.nan, np.float32)
    for joint, column in rule.joints.items():
        pose[:, POSE.index(joint)] = np.deg2rad(track[column]) if rule.joints_in_degrees else track[column]
    return pose


def match_companion(rule: Companion, own: str, own_groups: Mapping[str, str], candidates: Sequence[str]) -> str | None:
    """The companion of the file `own` among `candidates`: the same captured groups, else the only one beside it."""
    if rule.match is not None:
        pattern = re.compile(rule.match)
        for candidate in candidates:
            match = pattern.search("/" + candidate)
            if (
                match
                and match.groupdict()
                and all(own_groups.get(key) == value for key, value in match.groupdict().items())
            ):
                return candidate
    folder = PurePosixPath(own).parent
    beside = [candidate for candidate in candidates if PurePosixPath(candidate).parent == folder]
    return beside[0] if len(beside) == 1 else None
