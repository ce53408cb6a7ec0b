"""`features`: features of a set of recordings, written as one table."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embridge_edge import __version__
from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.verbs.options import Common, common_options, show

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
class FeaturesReport:
    """What was computed and where it lies.

    Attributes:
        features: names as they stand in the table, groups resolved.
        columns: float32 columns of the table.
        window, hop: samples.
        duration_s: signal that was read; `seconds`: what all of it took.
        resumed: recordings that an interrupted run had finished.
        too_short: recordings without one whole window.
        problems: files and lines that could not be used.
    """

    out: Path
    recordings: int
    windows: int
    columns: int
    features: tuple[str, ...]
    channels: int
    rate_hz: float
    window: int
    hop: int
    window_ms: float
    hop_ms: float
    compat: str | None
    duration_s: float
    seconds: float
    resumed: int
    too_short: int
    problems: tuple[str, ...]

    def text(self) -> str:
        lines = [
            f"{self.windows} windows × {self.columns} columns in {self.out}",
            f"  recordings  {self.recordings}, {self.duration_s:.1f} s of {self.channels} channels at {self.rate_hz:g} Hz",
            f"  features    {', '.join(self.features)}",
            f"  windows     {self.window_ms:g} ms every {self.hop_ms:g} ms ({self.window} and {self.hop} samples)",
            f"  took        {self.seconds:.2f} s",
        ]
        if self.compat is not None:
            lines.insert(3, f"  compat      {self.compat}")
        if self.resumed:
            lines.append(f"  resumed     {self.resumed} of {self.recordings} recordings were finished before")
        if self.too_short:
            lines.append(f"  too short   {self.too_short} of {self.recordings} recordings have no whole window")
        if self.problems:
            more = f" (and {len(self.problems) - 1} more; --json has them all)" if len(self.problems) > 1 else ""
            lines.append(f"  problems    {self.problems[0]}{more}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}


@dataclass(frozen=True)
class _Plan:
    """What is asked for, free of any sample rate; `names` are features, groups resolved."""

    names: tuple[str, ...]
    window_ms: float
    hop_ms: float
    compat: str | None
    options: Mapping[str, float]
    bandpass_hz: tuple[float, float] | None
    notch_hz: float | None

    def resolved(self, recording: Recording) -> _Resolved:
        """The plan for recordings at this one's rate.

        Raises:
            EdgeError: no sample in a window, or no band left.
        """
        from embridge_edge.features.catalogue import check_length, check_options, columns

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
        return _Resolved(
            self, recording.source, rate_hz, recording.channels, recording.unit, window, hop, sections, tuple(labels)
        )


@dataclass(frozen=True)
class _Resolved:
    """A plan in samples and filter coefficients."""

    plan: _Plan
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


def features(
    path: Path,
    out: Path,
    *,
    names: Sequence[str],
    window_ms: float,
    hop_ms: float,
    compat: str | None = None,
    options: Mapping[str, float] | None = None,
    format: str | None = None,
    bandpass_hz: tuple[float, float] | None = None,
    notch_hz: float | None = None,
    threads: int = 1,
    force: bool = False,
    progress: Progress = SILENT,
) -> FeaturesReport:
    """Compute features of every recording at `path` and write them as one table.

    A row is a window; windows never reach over a break of the clock, and filters start afresh there. The label and the
    repetition of a window are those of its samples where all of them agree. An interrupted run goes on where it stopped.

    Args:
        path: a file, an archive or a folder.
        out: FILE.parquet or FILE.h5; it appears whole or not at all.
        names: features and groups (see `features.catalogue`).
        window_ms, hop_ms: length of a window and distance between two, rounded to samples.
        compat: "libemg" for LibEMG's definitions.
        options: of the features, "WAMP_threshold" and the like.
        format: the name of a format or of a description file; None recognises by content.
        bandpass_hz: cut-offs of a causal Butterworth band-pass of order 4; None leaves the band as it is.
        notch_hz: mains frequency to notch out with its harmonics.
        threads: recordings that are computed at once; the table does not depend on it.
        force: replace what is at `out`.

    Raises:
        EdgeError: an unknown feature or option, another suffix, nothing recognised, recordings of several rates or shapes,
            or no recording as long as a window.
    """
    from embridge_edge.features.catalogue import check_compat, check_options, expand
    from embridge_edge.features.table import check_suffix, table_writer
    from embridge_edge.recordings import ReadingLog, read_recordings

    began = time.perf_counter()
    check_compat(compat)
    check_options(options)
    wanted = expand(names, compat)
    plan = _Plan(wanted, window_ms, hop_ms, compat, dict(options or {}), bandpass_hz, notch_hz)
    _check(plan, threads)
    _refuse(out, path, force)
    check_suffix(out)
    log = ReadingLog()
    state = _State(out.parent / f".{out.name}.unfinished")
    resolved: _Resolved | None = None
    sources: list[str] = []
    problems: list[str] = []
    duration_s, longest_s, too_short, resumed = 0.0, 0.0, 0, 0

    def asked() -> Iterator[Callable[[], tuple[Part | None, bool]]]:
        """What is to be done for each recording, as it is read."""
        nonlocal resolved, duration_s, longest_s
        for recording in read_recordings(path, format, progress, log):
            if resolved is None:
                resolved = plan.resolved(recording)
                if plan.bandpass_hz is not None and resolved.band_hz != list(plan.bandpass_hz):
                    low, high = resolved.band_hz or plan.bandpass_hz
                    progress.say(f"band-pass: {low:g} to {high:g} Hz, which is all that {resolved.rate_hz:g} Hz allow")
            resolved.check(recording)
            sources.append(recording.source)
            problems.extend(str(problem) for problem in recording.problems)
            duration_s += recording.duration_s
            longest = max(piece.stop - piece.start for piece in recording.segments())
            longest_s = max(longest_s, longest / recording.rate_hz)
            yield partial(state.part, resolved, recording)

    with table_writer(out) as table:
        for part, kept in _in_order(asked(), threads):
            resumed += kept
            if part is None:
                too_short += 1
            else:
                table.add(part)
        if resolved is None or not table.rows:
            raise EdgeError(
                f"No window of {window_ms:g} ms fits: the longest stretch without a break in {path} has "
                f"{1000.0 * longest_s:.0f} ms; give a shorter --window-ms."
            )
        about = resolved.about()
        table.close({**about, "columns": list(table.columns), "sources": sources, "windows": table.rows})
    state.forget()
    return FeaturesReport(
        out=out,
        recordings=len(sources),
        windows=table.rows,
        columns=len(table.columns),
        features=plan.names,
        channels=resolved.channels,
        rate_hz=resolved.rate_hz,
        window=resolved.window,
        hop=resolved.hop,
        window_ms=about["window_ms"],
        hop_ms=about["hop_ms"],
        compat=compat,
        duration_s=duration_s,
        seconds=time.perf_counter() - began,
        resumed=resumed,
        too_short=too_short,
        problems=(*problems, *(str(problem) for problem in log.problems)),
    )


def _in_order(calls: Iterator[Callable[[], Result]], threads: int) -> Iterator[Result]:
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


def _check(plan: _Plan, threads: int) -> None:
    """Refuse what can be seen to be wrong before anything is read."""
    if not plan.names:
        raise EdgeError("No feature given; name some with --set, such as --set HTD or --set MAV,WL.")
    for option, value in (("--window-ms", plan.window_ms), ("--hop-ms", plan.hop_ms)):
        if not 0 < value < float("inf"):
            raise EdgeError(f"{option} {value:g}: give a length in milliseconds above 0.")
    if threads < 1:
        raise EdgeError(f"--threads {threads}: give 1 or more.")


def _refuse(out: Path, path: Path, force: bool) -> None:
    """Refuse an output that is there already, or that the next run would take for a recording."""
    if out.is_dir():
        raise EdgeError(f"{out} is a folder; choose a file for --out.")
    if out.exists() and not force:
        raise EdgeError(f"{out} exists; choose another --out, or replace it with --force.")
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise EdgeError(f"--out {out} lies inside {path}, which is read; choose another --out.")


class _State:
    """The finished parts of a run, in a hidden folder beside the output, each under a hash of all that it depends on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._began = time.monotonic()

    def part(self, resolved: _Resolved, recording: Recording) -> tuple[Part | None, bool]:
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

    def _place(self, resolved: _Resolved, recording: Recording) -> Path:
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


@click.command("features")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "names",
    required=True,
    metavar="NAMES",
    help="Features and groups, separated by commas: HTD, TDPSD, MAV,WL.",
)
@click.option("--window-ms", required=True, type=float, help="Length of a window.")
@click.option("--hop-ms", required=True, type=float, help="From the beginning of a window to that of the next.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Table to write: FILE.parquet or FILE.h5.")
@click.option("--compat", type=click.Choice(["libemg"]), help="Take this library's definitions.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of a feature: WAMP_threshold=0.01; may be repeated.",
)
@click.option(
    "--bandpass",
    "bandpass_hz",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Filter before: causal Butterworth band-pass of order 4, in Hz.",
)
@click.option("--notch", "notch_hz", type=float, metavar="HZ", help="Filter before: notches at this and its harmonics.")
@click.option("--threads", type=int, default=1, show_default=True, help="Recordings to compute at once.")
@click.option("--format", "format_name", metavar="NAME|FILE", help="A format's name or a description file (.toml).")
@common_options
def command(
    path: Path,
    names: str,
    window_ms: float,
    hop_ms: float,
    out: Path,
    compat: str | None,
    options: Sequence[str],
    bandpass_hz: tuple[float, float] | None,
    notch_hz: float | None,
    threads: int,
    format_name: str | None,
    common: Common,
) -> None:
    """Compute features of the recordings at PATH (a file, an archive or a folder) and write them as one table.

    A row is a window, with the recording, its wearer and session, the time, the label and the repetition. An interrupted run
    goes on where it stopped.
    """
    report = features(
        path,
        out,
        names=[name.strip() for name in names.split(",") if name.strip()],
        window_ms=window_ms,
        hop_ms=hop_ms,
        compat=compat,
        options=dict(_option(written) for written in options),
        format=format_name,
        bandpass_hz=bandpass_hz,
        notch_hz=notch_hz,
        threads=threads,
        force=common.force,
        progress=common.progress,
    )
    show(report, common)


def _option(written: str) -> tuple[str, float]:
    name, _, value = written.partition("=")
    try:
        number = float(value)
    except ValueError:
        raise EdgeError(f"--option {written}: write NAME=VALUE with a number, such as WAMP_threshold=0.01.") from None
    whole = number.is_integer() and "." not in value and "e" not in value.lower()
    return name.strip(), int(value) if whole else number
