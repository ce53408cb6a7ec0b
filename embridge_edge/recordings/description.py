"""What a delimited text holds, said in TOML: which columns are EMG, at which rate, in which unit, labelled how.

The language is documented in docs/formats.md. Everything is checked when a description is read, so that a mistake is
found before any recording is opened.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import FINGERS, POSE

FILE_NAME = "recording.toml"
"""A description of this name beside the data is used for all text in its folder and below."""

CLOCK_CODES = {"Y": 0, "y": 0, "m": 1, "d": 2, "H": 3, "I": 3, "M": 4, "S": 5}
"""Codes of a clock's format and the place of each in (year, month, day, hour, minute, second)."""

CLOCK_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

HIGHEST_RATE_HZ = 1e6
"""No electrode is sampled faster; a second of it must fit into memory many times."""

LARGEST_SCALE = 1e15

Column = int | str


@dataclass(frozen=True)
class ClockRule:
    """How time is told.

    Attributes:
        kind: "none" (no timestamps), "regular" (the device samples evenly; timestamps only show where samples are
            lost) or "irregular" (samples are resampled to the declared rate by their timestamps).
        unit_s: seconds per unit of a numeric timestamp.
        format: of a text timestamp, in strftime codes, or None.
        jump_ms: how far the clock must run ahead of the samples to count as a jump.
    """

    kind: str = "none"
    column: Column | None = None
    unit_s: float = 1.0
    format: str | None = None
    jump_ms: float = 100.0

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of a text timestamp in order, `("H", "M", "S")`; empty for a number."""
        return tuple(re.findall(r"%([YymdHIMS])", self.format)) if self.format else ()

    @property
    def period_s(self) -> float | None:
        """After how long the clock shows the same again: 12 or 24 hours without a date, else None."""
        if not self.format or "d" in self.codes:
            return None
        return 43200.0 if "I" in self.codes else 86400.0


NO_CLOCK = ClockRule()


@dataclass(frozen=True)
class Companion:
    """Another file that belongs to the one with the EMG.

    Attributes:
        header: column names by which it is recognised; `whole_numbers` tells apart two kinds with one header.
        match: pattern over the path; what it captures must be what the EMG file's own patterns captured.
        look_in: folders, relative to the EMG file's, in which it may lie besides the given path.
        max_gap_ms: how far apart two of its rows may be for what lies between them to be known.
    """

    header: tuple[str, ...]
    match: str | None
    clock: ClockRule
    max_gap_ms: float = 200.0
    whole_numbers: bool | None = None
    look_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelRule:
    """Where gesture labels come from: a column, a group of the path's pattern, or the columns of a companion file.

    `names` maps what is written to a gesture; None keeps what is written as the name. With several columns what is
    written is their whole numbers joined, "01000".
    """

    columns: tuple[Column, ...] = ()
    path_group: str | None = None
    companion: Companion | None = None
    names: Mapping[str, str] | None = None
    low: float = float("-inf")
    high: float = float("inf")
    rest: str | None = None

    @property
    def numeric(self) -> bool:
        """Whether the label column holds numbers: where all that `names` has are, and without it where a range is given."""
        if self.names is None:
            return (self.low, self.high) != (float("-inf"), float("inf"))
        return all(re.fullmatch(r"-?\d+", key) for key in self.names)


@dataclass(frozen=True)
class Angle:
    """A finger's angle in degrees, and what it is at a straight and at a fully bent finger."""

    column: Column
    straight_deg: float
    bent_deg: float


@dataclass(frozen=True)
class PoseRule:
    """Where the pose comes from: curls per finger, angles per finger with references, or joints in `unit`."""

    curls: Mapping[str, Column] = field(default_factory=dict)
    fingers: Mapping[str, Angle] = field(default_factory=dict)
    joints: Mapping[str, Column] = field(default_factory=dict)
    joints_in_degrees: bool = True
    companion: Companion | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        return (*self.curls.values(), *(angle.column for angle in self.fingers.values()), *self.joints.values())


@dataclass(frozen=True)
class Fingerprint:
    """By what a shipped format is recognised in a file's content; None is not looked at."""

    header: tuple[str, ...] | None = None
    columns: int | None = None
    rows: tuple[int, int] | None = None
    low: float | None = None
    high: float | None = None
    whole: bool | None = None
    labels: tuple[int, int] | None = None


@dataclass(frozen=True)
class Description:
    """One delimited-text format."""

    name: str
    about: str
    emg: tuple[Column, ...]
    rate_hz: float
    unit: str
    delimiter: str = ","
    decimal: str = "."
    header: bool = False
    columns: int | None = None
    scale: float = 1.0
    full_scale: float | None = None
    low: float = float("-inf")
    high: float = float("inf")
    whole: bool = False
    clock: ClockRule = NO_CLOCK
    labels: LabelRule | None = None
    pose: PoseRule | None = None
    passed_over: Companion | None = None
    patterns: tuple[re.Pattern[str], ...] = ()
    wearer: str | None = None
    session: str | None = None
    day: int | None = None
    side: str = "unknown"
    fingerprint: Fingerprint | None = None

    @property
    def companions(self) -> tuple[Companion, ...]:
        rules = (self.labels, self.pose)
        used = tuple(rule.companion for rule in rules if rule is not None and rule.companion is not None)
        return used if self.passed_over is None else (*used, self.passed_over)


def read_description(path: Path) -> Description:
    """Read a description from a file.

    Raises:
        EdgeError: no TOML, or a key, column, unit or pattern that is wrong; says where.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeError(f"Cannot read the description {path} ({error}).") from None
    return parse_description(text, path.stem if path.name != FILE_NAME else "recording.toml", str(path))


@cache
def shipped_descriptions() -> Mapping[str, Description]:
    """The descriptions that come with the product, by name, in the order in which they are tried."""
    from importlib.resources import files

    folder = files("embridge_edge.recordings.formats")
    found: dict[str, Description] = {}
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.endswith(".toml"):
            name = item.name.removesuffix(".toml").replace("_", "-")
            found[name] = parse_description(item.read_text("utf-8"), name, item.name)
    return found


def parse_description(text: str, name: str, place: str) -> Description:
    """Parse and check a description; `place` is where it stands, for messages."""
    try:
        whole = _Table(tomllib.loads(text), place)
    except tomllib.TOMLDecodeError as error:
        raise EdgeError(f"{place} is no valid TOML: {error}.") from None
    file, emg = whole.table("file"), whole.table("emg")
    header = file.take("header", bool, False)
    low, high = emg.range("range", (float("-inf"), float("inf")))
    description = Description(
        name=whole.take("name", str, name),
        about=whole.take("about", str, ""),
        delimiter=file.take("delimiter", str, ","),
        decimal=file.take("decimal", str, "."),
        header=header,
        columns=file.take("columns", int, None),
        emg=emg.columns("columns"),
        rate_hz=emg.positive("rate_hz", most=HIGHEST_RATE_HZ),
        unit=emg.take("unit", str, ...),
        scale=emg.positive("scale", 1.0, most=LARGEST_SCALE),
        full_scale=emg.positive("full_scale", None),
        low=low,
        high=high,
        whole=emg.take("whole_numbers", bool, False),
        clock=_clock(whole.table("time", optional=True)),
        labels=_labels(whole.table("labels", optional=True)),
        pose=_pose(whole.table("pose", optional=True)),
        passed_over=_companion(whole.table("passed_over", optional=True)),
        **_path(whole.table("path", optional=True)),
        fingerprint=_fingerprint(whole.table("recognise", optional=True)),
    )
    file.done()
    emg.done()
    whole.done()
    if description.delimiter != "whitespace" and len(description.delimiter.encode()) != 1:
        raise EdgeError(
            f'{place}: [file] delimiter must be one character or "whitespace", not {description.delimiter!r}.'
        )
    if description.decimal not in (".", ",") or description.decimal == description.delimiter:
        raise EdgeError(f'{place}: [file] decimal must be "." or ",", and not the delimiter.')
    if not header and description.columns is None:
        raise EdgeError(f"{place}: [file] columns is missing: say how many fields a line has, or set header = true.")
    if not header:
        named = [column for column in _all_columns(description) if isinstance(column, str)]
        if named:
            raise EdgeError(
                f"{place}: column {named[0]!r} is named but [file] header is false; use its number, from 0."
            )
    for column in _all_columns(description):
        if isinstance(column, int) and description.columns is not None and not 0 <= column < description.columns:
            raise EdgeError(
                f"{place}: column {column} does not exist; a line has {description.columns}, numbered from 0."
            )
    groups = {group for pattern in description.patterns for group in pattern.groupindex}
    if description.labels and description.labels.path_group and description.labels.path_group not in groups:
        raise EdgeError(
            f"{place}: [labels] from_path names {description.labels.path_group!r}, which no [path] pattern captures."
        )
    return description


def _all_columns(description: Description) -> tuple[Column, ...]:
    own: tuple[Column, ...] = description.emg
    if description.clock.column is not None:
        own = (*own, description.clock.column)
    if description.labels is not None and description.labels.companion is None:
        own = (*own, *description.labels.columns)
    if description.pose is not None and description.pose.companion is None:
        own = (*own, *description.pose.columns)
    return own


class _Table:
    """A TOML table from which every known key is taken, so that what is left over is a mistake."""

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self.values = dict(values)
        self.place = place
        self.known: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.values)

    def take(self, key: str, kind: type, default: Any) -> Any:
        self.known.append(key)
        value = self.values.pop(key, default)
        if value is ...:
            raise EdgeError(f"{self.place}: {key} is missing.")
        if value is default:
            return value
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise EdgeError(f"{self.place}: {key} must be {_KINDS[kind]}, not {value!r}.")
        return value

    def positive(self, key: str, default: Any = ..., most: float = sys.float_info.max) -> Any:
        value = self.take(key, float, default)
        if value is not None and not 0 < value <= most:
            limit = f" and at most {most:g}" if most < sys.float_info.max else ""
            raise EdgeError(f"{self.place}: {key} must be above 0{limit}, not {value!r}.")
        return value

    def range(self, key: str, default: Any) -> Any:
        value = self.take(key, list, default)
        if value is default:
            return value
        if len(value) != 2 or not all(isinstance(item, int | float) for item in value) or not value[0] <= value[1]:
            raise EdgeError(f"{self.place}: {key} must be [lowest, highest], not {value!r}.")
        return tuple(value)

    def choice(self, key: str, options: tuple[str, ...], default: Any) -> Any:
        value = self.take(key, str, default)
        if value is not default and value not in options:
            raise EdgeError(f"{self.place}: {key} is {value!r}; choose one of {', '.join(options)}.")
        return value

    def column(self, key: str) -> Column:
        value = self.take(key, object, ...)
        if type(value) not in (int, str):
            raise EdgeError(f"{self.place}: {key} must be one column by name or number, not {value!r}.")
        column: Column = value
        return column

    def columns(self, key: str, default: Any = ...) -> tuple[Column, ...]:
        value = self.take(key, object, default)
        if value is default:
            return tuple(default)
        if isinstance(value, int | str):
            value = [value]
        if not isinstance(value, list) or not value or not all(type(item) in (int, str) for item in value):
            raise EdgeError(f"{self.place}: {key} must be columns by name or number, not {value!r}.")
        if len(set(value)) != len(value):
            raise EdgeError(f"{self.place}: {key} names a column twice.")
        return tuple(value)

    def each_column(self, key: str) -> dict[str, Column]:
        """An optional table from names to columns."""
        table = self.table(key, optional=True)
        return {name: table.column(name) for name in list(table.values)}

    def table(self, key: str, optional: bool = False) -> _Table:
        value = self.take(key, dict, {} if optional else ...)
        return _Table(value, f"{self.place} [{key}]")

    def done(self) -> None:
        for key in self.values:
            raise EdgeError(f"{self.place}: unknown key {key!r}; choose one of {', '.join(self.known)}.")


_KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    object: "something",
}


def _clock(table: _Table) -> ClockRule:
    if not table:
        return NO_CLOCK
    kind = table.choice("kind", ("none", "regular", "irregular"), "regular")
    column = table.column("column")
    text = table.take("format", str, None)
    unit = table.choice("unit", tuple(CLOCK_UNITS), "s")
    if text is not None and not re.search(r"%[HI].*%M.*%S$", text):
        raise EdgeError(f"{table.place}: format {text!r} must end in hours (%H, or %I of a 12-hour clock), %M and %S.")
    rule = ClockRule(kind, column, CLOCK_UNITS[unit], text, table.positive("jump_ms", 100.0))
    table.done()
    return rule


def _companion(table: _Table) -> Companion | None:
    if not table:
        return None
    header = table.take("header", list, ...)
    match = table.take("match", str, None)
    if match is not None:
        _pattern(match, table.place)
    rule = Companion(
        header=tuple(str(name) for name in header),
        match=match,
        clock=_clock(table.table("time", optional=True)),
        max_gap_ms=table.positive("max_gap_ms", 200.0),
        whole_numbers=table.take("whole_numbers", bool, None),
        look_in=tuple(str(folder) for folder in table.take("look_in", list, [])),
    )
    table.done()
    return rule


def _labels(table: _Table) -> LabelRule | None:
    if not table:
        return None
    names = table.take("names", dict, None)
    low, high = table.range("range", (float("-inf"), float("inf")))
    rule = LabelRule(
        columns=table.columns("columns", table.columns("column", ())),
        path_group=table.take("from_path", str, None),
        companion=_companion(table.table("companion", optional=True)),
        names=None if names is None else {str(key): str(value) for key, value in names.items()},
        low=low,
        high=high,
        rest=table.take("rest", str, None),
    )
    table.done()
    if bool(rule.columns) == bool(rule.path_group):
        raise EdgeError(f"{table.place}: give either column or from_path.")
    if len(rule.columns) > 1 and rule.companion is None:
        raise EdgeError(f"{table.place}: labels over several columns are read from a companion only; name one column.")
    return rule


def _pose(table: _Table) -> PoseRule | None:
    if not table:
        return None
    curls = table.each_column("curls")
    joints = table.each_column("joints")
    fingers = {}
    bends = table.table("fingers", optional=True)
    for finger in list(bends.values):
        angle = bends.table(finger)
        fingers[finger] = Angle(
            angle.column("column"), angle.take("straight", float, ...), angle.take("bent", float, ...)
        )
        angle.done()
        if fingers[finger].straight_deg == fingers[finger].bent_deg:
            raise EdgeError(f"{angle.place}: straight and bent are the same angle.")
    degrees = table.choice("unit", ("deg", "rad"), "deg") == "deg"
    rule = PoseRule(curls, fingers, joints, degrees, _companion(table.table("companion", optional=True)))
    table.done()
    for finger in (*curls, *fingers):
        if finger not in FINGERS:
            raise EdgeError(f"{table.place}: unknown finger {finger!r}; choose one of {', '.join(FINGERS)}.")
    for joint in joints:
        if joint not in POSE:
            raise EdgeError(f"{table.place}: unknown joint {joint!r}; choose one of {', '.join(POSE)}.")
    if not rule.columns:
        raise EdgeError(f"{table.place}: give curls, fingers or joints.")
    return rule


def _path(table: _Table) -> dict[str, Any]:
    patterns = table.take("patterns", list, [])
    compiled = tuple(_pattern(pattern, table.place) for pattern in patterns)
    values = {
        "patterns": compiled,
        "wearer": table.take("wearer", str, None),
        "session": table.take("session", str, None),
        "day": table.take("day", int, None),
        "side": table.choice("side", ("left", "right", "unknown"), "unknown"),
    }
    table.done()
    return values


def _pattern(text: object, place: str) -> re.Pattern[str]:
    try:
        return re.compile(str(text))
    except re.error as error:
        raise EdgeError(f"{place}: {text!r} is no regular expression ({error}).") from None


def _fingerprint(table: _Table) -> Fingerprint | None:
    if not table:
        return None
    header = table.take("header", list, None)
    low, high = table.range("range", (None, None))
    rule = Fingerprint(
        header=None if header is None else tuple(str(name) for name in header),
        columns=table.take("columns", int, None),
        rows=table.range("rows", None),
        low=low,
        high=high,
        whole=table.take("whole_numbers", bool, None),
        labels=table.range("labels", None),
    )
    table.done()
    return rule
