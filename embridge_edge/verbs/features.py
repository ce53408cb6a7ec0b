"""`features`: features of a set of recordings, written as one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.verbs.options import Common, common_options, refuse_existing_file, show

if TYPE_CHECKING:
    from embridge_edge.features.table import Part
    from embridge_edge.verbs.tabulating import ResolvedPlan


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
        options: of the features asked for, "WAMP_threshold" and the like.
        format: the name of a format or of a description file; None recognises by content.
        bandpass_hz: cut-offs of a causal Butterworth band-pass of order 4; None leaves the band as it is.
        notch_hz: mains frequency to notch out with its harmonics.
        threads: recordings that are computed at once; the table does not depend on it.
        force: replace what is at `out`.

    Raises:
        EdgeError: an unknown feature, an option that none of them uses, another suffix, nothing recognised, recordings of several rates or shapes,
            or no recording as long as a window.
    """
    from embridge_edge.features.checks import check_whole
    from embridge_edge.features.table import check_suffix, table_writer
    from embridge_edge.recordings import ReadingLog, read_recordings
    from embridge_edge.verbs.tabulating import FinishedParts, in_order, plan_table
    from embridge_edge.verbs.workspace import refuse_inside

    began = time.perf_counter()
    plan = plan_table(names, window_ms, hop_ms, compat, options, bandpass_hz, notch_hz)
    check_whole("--threads", threads)
    refuse_existing_file(out, force)
    refuse_inside(out, path)
    check_suffix(out)
    log = ReadingLog()
    state = FinishedParts(out.parent / f".{out.name}.unfinished")
    resolved: ResolvedPlan | None = None
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
        for part, kept in in_order(asked(), threads):
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
