"""`inspect`: what a set of recordings holds, and whether its signals are usable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.verbs.options import Common, common_options, refuse_existing_file, show

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.recordings import Problem, Recording
    from embridge_edge.recordings.quality import SignalQuality

PROBLEMS_SHOWN = 20
NAMES_SHOWN = 12
SHORT_S = 5.0
STRIP_S = 30.0
PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class GestureShare:
    """How much of a gesture there is, and its RMS per channel, float64 `[channels]`."""

    name: str
    seconds: float
    repetitions: int
    rms: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Inspection:
    """What a set of recordings holds: of several bands the one with the longest total, the others are in `problems`.

    Attributes:
        formats: recordings per format; `rates_hz`: seconds per sample rate.
        sessions: sessions of each wearer.
        labelled: whether any recording carries labels; `tracked_s`: seconds with a measured pose.
        quality: the signals of all recordings of the first recording's rate together.
        repetitions: of a gesture, summed over wearers and sessions.
    """

    path: Path
    formats: Mapping[str, int]
    recordings: int
    channels: int
    unit: str
    rates_hz: Mapping[float, float]
    duration_s: float
    sessions: Mapping[str, tuple[str, ...]]
    days: int
    sides: tuple[str, ...]
    labelled: bool
    unlabelled_s: float
    gestures: tuple[GestureShare, ...]
    tracked_s: float
    problems: tuple[Problem, ...]
    quality: SignalQuality
    picture: Path | None = None

    @property
    def ok(self) -> bool:
        """Whether every channel is good; problems in single lines do not count."""
        return self.quality.ok

    @property
    def headline(self) -> str:
        """The set in one line."""
        size = f"{_counted(self.recordings, 'recording')} · {_duration(self.duration_s)}"
        return f"{self.path.name} · {size} · {_counted(len(self.sessions), 'wearer')}"

    @property
    def donnings(self) -> int:
        return sum(len(sessions) for sessions in self.sessions.values())

    def text(self) -> str:
        formats = ", ".join(f"{name} ({count})" for name, count in self.formats.items())
        rates = ", ".join(f"{rate:g} Hz" for rate in sorted(self.rates_hz))
        lines = [
            str(self.path),
            f"  format      {formats}",
            f"  recordings  {self.recordings}, {_duration(self.duration_s)}",
            f"  signal      {self.channels} channels at {rates}, in {_unit(self.unit)}",
            f"  wearers     {len(self.sessions)}: {_some(self.sessions)}",
            f"  sessions    {self.donnings}" + (f" on {self.days} days" if self.days else "") + self._sides(),
        ]
        if self.labelled:
            lines.append(f"  gestures    {len(self.gestures)} with samples")
        else:
            lines.append("  gestures    none: the recordings carry no labels")
        if self.tracked_s:
            lines.append(f"  pose        {_duration(self.tracked_s)} with hand tracking")
        else:
            lines.append("  pose        not tracked; training takes each gesture's canonical pose")
        if self.gestures:
            width = max(len(gesture.name) for gesture in self.gestures)
            lines += ["", f"  {'gesture':<{width}}  {'time':>9}  repetitions"]
            lines += [
                f"  {gesture.name:<{width}}  {_duration(gesture.seconds):>9}  {gesture.repetitions:>11}"
                for gesture in self.gestures
            ]
            if self.unlabelled_s:
                lines.append(f"  {'(unlabelled)':<{width}}  {_duration(self.unlabelled_s):>9}")
        lines += ["", *self._quality_lines(), "", *self._problem_lines()]
        lines.append(f"Picture: {self.picture}" if self.picture else "For a picture, add --out inspect.png (or .svg).")
        return "\n".join(lines)

    def _sides(self) -> str:
        known = [side for side in self.sides if side != "unknown"]
        return f", {' and '.join(known)} arm" if known else ""

    def _quality_lines(self) -> list[str]:
        from embridge_edge.recordings.quality import readable

        factor, unit = readable(float(max(self.quality.rms, default=0.0)), self.unit)
        lines = [f"  channel  {'RMS ' + unit:>10}  {'offset':>9}  clipped   mains          stuck  verdict"]
        for number, channel in enumerate(self.quality.channels, 1):
            hum = "–" if channel.mains_share is None else f"{channel.mains_share:.1%}"
            hum += f" ({channel.mains_hz:g} Hz)" if channel.mains_hz else ""
            lines.append(
                f"  {number:>7}  {channel.rms * factor:>10.3g}  {channel.offset * factor:>9.3g}  "
                f"{channel.clipped_share:>7.2%}  {hum:<14} {channel.stuck_share:>6.1%}  {', '.join(channel.verdict)}"
            )
        return lines + [f"  {remark}" for remark in self._remarks()]

    def _remarks(self) -> list[str]:
        """What is to be known about the signals of all channels together."""
        lines = []
        nan = int(self.quality.nan.sum())
        if nan:
            lines.append(f"{_counted(nan, 'value')} {'is' if nan == 1 else 'are'} no number: remove what holds them")
        if self.quality.breaks:
            lines.append(f"{_counted(self.quality.breaks, 'break')}: no window may reach over one")
        if self.quality.held_share > 0.01:
            lines.append(
                f"{self.quality.held_share:.0%} of the samples repeat the one before in every channel: "
                "the receiver fills in what it lost, or writes faster than it samples"
            )
        return lines

    def _problem_lines(self) -> list[str]:
        if not self.problems and self.quality.ok and not self._remarks():
            return ["No problems."]
        if not self.problems:
            bad = [str(number) for number, channel in enumerate(self.quality.channels, 1) if not channel.ok]
            wrong = f"; not good: channel{'s' * (len(bad) != 1)} {', '.join(bad)}" if bad else ""
            return [f"Everything could be read{wrong}."]
        count = len(self.problems)
        lines = [f"{_counted(count, 'problem')}:"]
        lines += [f"  {problem}" for problem in self.problems[:PROBLEMS_SHOWN]]
        if count > PROBLEMS_SHOWN:
            lines.append(f"  … and {count - PROBLEMS_SHOWN} more; --json has them all")
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "ok": self.ok,
            "formats": dict(self.formats),
            "recordings": self.recordings,
            "duration_s": self.duration_s,
            "channels": self.channels,
            "unit": self.unit,
            "rates_hz": sorted(self.rates_hz),
            "wearers": {wearer: list(sessions) for wearer, sessions in self.sessions.items()},
            "sessions": self.donnings,
            "days": self.days,
            "sides": list(self.sides),
            "labelled": self.labelled,
            "unlabelled_s": self.unlabelled_s,
            "tracked_s": self.tracked_s,
            "gestures": [
                {
                    "name": gesture.name,
                    "duration_s": gesture.seconds,
                    "repetitions": gesture.repetitions,
                    "rms_per_channel": [float(value) for value in gesture.rms],
                }
                for gesture in self.gestures
            ],
            "quality": {
                "breaks": self.quality.breaks,
                "held_share": self.quality.held_share,
                "nan": int(self.quality.nan.sum()),
                "channels": [
                    {
                        "channel": number,
                        "rms": channel.rms,
                        "offset": channel.offset,
                        "clipped_share": channel.clipped_share,
                        "mains_share": channel.mains_share,
                        "mains_hz": channel.mains_hz,
                        "stuck_share": channel.stuck_share,
                        "nan": channel.nan,
                        "verdict": list(channel.verdict),
                    }
                    for number, channel in enumerate(self.quality.channels, 1)
                ],
            },
            "problems": [
                {"file": problem.file, "line": problem.line, "what": problem.what} for problem in self.problems
            ],
            "picture": None if self.picture is None else str(self.picture),
        }


@dataclass
class _Sums:
    """What is added up while the recordings of one band pass by; none is kept but the one that the picture shows.

    A band is a number of channels; `first` is the file of its first recording.
    """

    first: str
    formats: Counter[str] = field(default_factory=Counter)
    recordings: int = 0
    duration_s: float = 0.0
    tracked_s: float = 0.0
    unlabelled_s: float = 0.0
    labelled: bool = False
    unit: str = ""
    quality: SignalQuality | None = None
    rates_hz: dict[float, float] = field(default_factory=dict)
    sessions: dict[str, dict[str, None]] = field(default_factory=dict)
    days: set[tuple[str, int]] = field(default_factory=set)
    sides: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    samples: Counter[str] = field(default_factory=Counter)
    squares: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    repetitions: set[tuple[str, str, str, int]] = field(default_factory=set)
    shown: list[Recording] = field(default_factory=list)

    def add(self, recording: Recording, keep: bool) -> None:
        """Count one recording; with `keep`, it may become the one that is drawn."""
        import numpy as np

        from embridge_edge.recordings.quality import measure

        self.recordings += 1
        self.duration_s += recording.duration_s
        self.rates_hz[recording.rate_hz] = self.rates_hz.get(recording.rate_hz, 0.0) + recording.duration_s
        self.sessions.setdefault(recording.wearer, {})[recording.session] = None
        self.sides.add(recording.side)
        self.problems.extend(recording.problems)
        if recording.day is not None:
            self.days.add((recording.wearer, recording.day))
        if recording.unit not in self.unit.split(" and "):
            self.unit = f"{self.unit} and {recording.unit}" if self.unit else recording.unit
        if recording.pose is not None:
            self.tracked_s += float(np.isfinite(recording.pose).any(axis=1).sum()) / recording.rate_hz
        if self.quality is None or self.quality.rate_hz == recording.rate_hz:
            found = measure(recording)
            self.quality = found if self.quality is None else self.quality + found
        if recording.labels is not None:
            self._add_labels(recording)
        if keep:
            self._keep(recording)

    def _keep(self, recording: Recording) -> None:
        """Choose what is drawn: the recording with most going on, or a row of short ones with a gesture each."""
        if not self.shown:
            self.shown = [recording]
        elif (
            _held(recording)
            and recording.duration_s < SHORT_S
            and all(part.duration_s < SHORT_S for part in self.shown)
        ):
            first = self.shown[0]
            alike = recording.donning == first.donning and recording.gestures == first.gestures
            new = not any(_held(part) & _held(recording) for part in self.shown)
            if alike and new and sum(part.duration_s for part in self.shown) < STRIP_S:
                self.shown.append(recording)
        elif len(_held(recording)) > len(_held(self.shown[0])):
            self.shown = [recording]

    def _add_labels(self, recording: Recording) -> None:
        import numpy as np

        from embridge_edge.recordings.quality import blocks, centred

        assert recording.labels is not None  # noqa: S101 (checked by the caller)
        self.labelled = True
        frame = max(4, round(recording.rate_hz))
        for block in blocks(recording, frame):
            level = centred(recording.emg[block], frame)
            labels = recording.labels[block]
            edges = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1])
            sums = np.add.reduceat(np.square(level, dtype=np.float64), edges, axis=0)
            lengths = np.diff(np.append(edges, len(labels)))
            for label, length, squares in zip(labels[edges], lengths, sums, strict=True):
                if label < 0:
                    self.unlabelled_s += float(length) / recording.rate_hz
                    continue
                name = recording.gestures[label]
                self.seconds[name] = self.seconds.get(name, 0.0) + float(length) / recording.rate_hz
                self.samples[name] += int(length)
                self.squares[name] = self.squares.get(name, 0.0) + squares
        if recording.repetitions is not None:
            changes = (np.diff(recording.labels) != 0) | (np.diff(recording.repetitions) != 0)
            starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
            for label, repetition in zip(recording.labels[starts], recording.repetitions[starts], strict=True):
                if label >= 0 and repetition > 0:
                    key = (recording.wearer, recording.session, recording.gestures[label], int(repetition))
                    self.repetitions.add(key)


def _held(recording: Recording) -> frozenset[int]:
    """Which gestures there are to be seen, as far as the picture could tell them apart."""
    if recording.labels is None:
        return frozenset()
    return frozenset(int(label) for label in recording.labels[:: max(1, recording.samples // 500)] if label >= 0)


def inspect(
    path: Path, *, format: str | None = None, picture: Path | None = None, progress: Progress = SILENT
) -> Inspection:
    """Say what the recordings at `path` hold and whether their signals are usable.

    Args:
        path: a file, an archive or a folder.
        format: the name of a format or of a description file; None recognises by content.
        picture: where to draw the signals, their spectrum and the amplitude per gesture (.png, .svg or .pdf).

    Raises:
        EdgeError: nothing recognised, everything damaged, or matplotlib missing for a picture.
    """
    from embridge_edge.recordings import ReadingLog, read_recordings

    if picture is not None:
        _check_picture(picture)
    log = ReadingLog()
    bands: dict[int, _Sums] = {}
    counted: Counter[str] = Counter()
    for recording in read_recordings(path, format, progress, log, several_devices=True):
        sums = bands.setdefault(recording.channels, _Sums(recording.source))
        sums.add(recording, keep=picture is not None)
        sums.formats += log.formats - counted
        counted = log.formats.copy()
    sums = max(bands.values(), key=lambda band: band.duration_s)  # read_recordings raises where it finds nothing
    others = [_left_out(channels, band, sums) for channels, band in bands.items() if band is not sums]
    result = _inspection(path, sums, [*others, *log.problems], picture)
    if picture is not None and sums.shown:
        from embridge_edge.recordings.picture import draw_recordings

        rms = {gesture.name: gesture.rms for gesture in result.gestures}
        draw_recordings(picture, sums.shown, result.quality, rms, title=result.headline)
    return result


def _left_out(channels: int, band: _Sums, largest: _Sums) -> Problem:
    from embridge_edge.recordings import Problem

    assert largest.quality is not None  # noqa: S101 (there was a recording)
    rates = ", ".join(f"{rate:g} Hz" for rate in sorted(band.rates_hz))
    size = f"{_counted(band.recordings, 'recording')}, {_duration(band.duration_s)}"
    most = len(largest.quality.squares)
    return Problem(band.first, None, f"{channels} channels at {rates} ({size}), most have {most}: left out")


def _inspection(path: Path, sums: _Sums, problems: list[Problem], picture: Path | None) -> Inspection:
    import numpy as np

    assert sums.quality is not None  # noqa: S101 (there was a recording)
    repetitions = Counter(gesture for _, _, gesture, _ in sums.repetitions)
    gestures = tuple(
        GestureShare(name, seconds, repetitions[name], np.sqrt(sums.squares[name] / sums.samples[name]))
        for name, seconds in sums.seconds.items()
    )
    return Inspection(
        path=path,
        formats=dict(sums.formats),
        recordings=sums.recordings,
        channels=len(sums.quality.squares),
        unit=sums.unit,
        rates_hz=dict(sums.rates_hz),
        duration_s=sums.duration_s,
        sessions={wearer: tuple(sessions) for wearer, sessions in sums.sessions.items()},
        days=len({day for _, day in sums.days}),
        sides=tuple(sorted(sums.sides)),
        labelled=sums.labelled,
        unlabelled_s=sums.unlabelled_s,
        gestures=gestures,
        tracked_s=sums.tracked_s,
        problems=(*sums.problems, *problems),
        quality=sums.quality,
        picture=picture,
    )


def _check_picture(picture: Path) -> None:
    """Refuse before anything is read what would fail after it."""
    from importlib.util import find_spec

    if picture.suffix.lower() not in PICTURES:
        raise EdgeError(f"Cannot draw {picture}: use a name that ends in {', '.join(PICTURES)}.")
    if find_spec("matplotlib") is None:
        raise EdgeError('A picture needs matplotlib: pip install "embridge-edge[report]", or leave --out out.')


def _unit(unit: str) -> str:
    return "a unit that its source does not name" if unit == "unknown" else unit


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def _some(names: Mapping[str, object]) -> str:
    shown = ", ".join(list(names)[:NAMES_SHOWN])
    return shown + (f" … ({len(names) - NAMES_SHOWN} more)" if len(names) > NAMES_SHOWN else "")


@click.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--format", "format_name", metavar="NAME|FILE", help="A format's name or a description file (.toml).")
@click.option(
    "--out", "picture", type=click.Path(path_type=Path), metavar="PICTURE", help="Draw to .png, .svg or .pdf."
)
@common_options
def command(path: Path, format_name: str | None, picture: Path | None, common: Common) -> None:
    """Show what the recordings at PATH (a file, an archive or a folder) hold and whether their signals are usable."""
    if picture is not None:
        refuse_existing_file(picture, common.force)
    show(inspect(path, format=format_name, picture=picture, progress=common.progress), common)
