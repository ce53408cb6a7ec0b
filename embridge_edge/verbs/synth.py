"""`synth`: make armband recordings with known poses, without hardware."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from embridge_edge.artifacts import folder_written_by_rename
from embridge_edge.errors import EdgeError
from embridge_edge.gestures import GestureLibrary, read_library
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recordings.recording import Recording
from embridge_edge.verbs.options import Common, common_options, refuse_existing, show

FREE_SHARE = 0.2
"""Share of each session in which the hand moves freely, so that poses between the gestures are covered."""
SECONDS_PER_PROMPT = 1.8
"""Rest and gesture at the quickest; equals `synthesis.protocol.SHORTEST_CYCLE_S`, which loads too much for a report."""
SHORTEST_S, LONGEST_S = 2.0, 3600.0
MOST_FREE = 0.9


@dataclass(frozen=True)
class SynthReport:
    """What was simulated and where it lies."""

    out: Path
    wearers: int
    sessions: int
    seconds: float
    rate_hz: float
    channels: int
    unit: str
    gestures: tuple[str, ...]
    free_share: float
    fewest_repetitions: int
    seed: int

    @property
    def recordings(self) -> int:
        return self.wearers * self.sessions

    @property
    def enough_seconds(self) -> int:
        """Length of a session in which every gesture comes twice."""
        return int(SECONDS_PER_PROMPT * 2 * len(self.gestures) / (1.0 - self.free_share)) + 1

    def text(self) -> str:
        lines = [
            f"{self.recordings} recordings in {self.out}: {self.wearers} wearers × {self.sessions} sessions of "
            f"{self.seconds:g} s, {self.channels} channels at {self.rate_hz:g} Hz in {self.unit}, seed {self.seed}",
            f"{len(self.gestures)} gestures: {', '.join(self.gestures)}",
        ]
        if self.fewest_repetitions >= 2 or len(self.gestures) == 1:
            lines.append(f"{self.fewest_repetitions} repetitions of each in a session")
        else:
            lines.append(
                f"Too short to repeat every gesture: give --seconds {self.enough_seconds} or fewer --gestures."
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out), "recordings": self.recordings}


def synth(
    out: Path,
    *,
    wearers: int = 4,
    seconds: float = 60.0,
    rate_hz: float = 2000.0,
    channels: int = 16,
    sessions: int = 2,
    seed: int = 0,
    gestures: Sequence[str] | None = None,
    free_share: float = FREE_SHARE,
    never_free: Sequence[str] = (),
    force: bool = False,
    progress: Progress = SILENT,
) -> SynthReport:
    """Simulate wearers who make the library's gestures, and write recordings in the layout of emg2pose.

    A session is one donning: prompted gestures with rest between them, then free movement. The same seed gives the
    same bytes, and a wearer does not depend on how many others there are.

    Args:
        out: folder for the HDF5 files and metadata.csv; it appears whole or not at all.
        seconds: length of each session, 2 to 3600.
        rate_hz, channels: shape of the signal, 100 to 8000 Hz and 4 to 64; 8 at 200 Hz gives a Myo's int8 counts,
            anything else volts.
        gestures: names out of the shipped library; all of them by default.
        free_share: share of each session in which the hand moves freely, 0 to 0.9.
        never_free: gestures from which free movement borrows no pose, so that a model can be trained without them.
        force: replace what is at `out`.

    Raises:
        EdgeError: `out` is not empty, an argument out of range, an unknown gesture.
    """
    names, poses = _chosen(read_library(), gestures)
    for option, value in (("--wearers", wearers), ("--sessions", sessions)):
        if not 1 <= value <= 9999:
            raise EdgeError(f"{option} {value}: give a number from 1 to 9999.")
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise EdgeError(f"--seconds {seconds:g}: give {SHORTEST_S:g} to {LONGEST_S:g} seconds per session.")
    if not 0 <= free_share <= MOST_FREE:
        raise EdgeError(f"--free-share {free_share:g}: give a share from 0 to {MOST_FREE:g}.")
    _chosen(read_library(), never_free or None)
    if not 0 <= seed < 2**31:
        raise EdgeError(f"--seed {seed}: give a number from 0 to {2**31 - 1}.")

    from embridge_edge.synthesis.armband import choose_armband

    armband = choose_armband(channels, rate_hz)
    refuse_existing(out, force, ("metadata.csv", "*.hdf5"))

    from embridge_edge.recordings.emg2pose import write_emg2pose
    from embridge_edge.synthesis.session import make_wearer, simulate_session

    fewest: list[int] = []

    def made() -> Iterator[Recording]:
        with progress.bar("Simulating", wearers * sessions, "session") as done:
            for number in range(1, wearers + 1):
                wearer = make_wearer(number, seed)
                for session in range(1, sessions + 1):
                    recording = simulate_session(
                        wearer, session, armband, names, poses, seconds, free_share, never_free=tuple(never_free)
                    )
                    fewest.append(_fewest_repetitions(recording))
                    yield recording
                    done(1)

    with folder_written_by_rename(out) as folder:
        write_emg2pose(made(), folder)
    return SynthReport(
        out,
        wearers,
        sessions,
        float(seconds),
        float(rate_hz),
        channels,
        armband.unit,
        names,
        float(free_share),
        min(fewest),
        seed,
    )


def _chosen(library: GestureLibrary, wanted: Sequence[str] | None) -> tuple[tuple[str, ...], Any]:
    names = tuple(library.gestures) if wanted is None else tuple(dict.fromkeys(wanted))
    if not names:
        raise EdgeError(f"No gesture given; choose from {', '.join(library.gestures)}.")
    for name in names:
        if name not in library.gestures:
            raise EdgeError(f"Unknown gesture {name!r}; choose from {', '.join(library.gestures)}.")
    return names, library.poses(names).astype("float64")


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _fewest_repetitions(recording: Recording) -> int:
    """The number of repetitions of the gesture that came least often."""
    import numpy as np

    if recording.labels is None or recording.repetitions is None:
        return 0
    rounds = [np.unique(recording.repetitions[recording.labels == label]) for label in range(len(recording.gestures))]
    return min(len(found) for found in rounds)


@click.command("synth")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the recordings.")
@click.option("--wearers", type=int, default=4, show_default=True, help="Number of people.")
@click.option("--sessions", type=int, default=2, show_default=True, help="Donnings of the band by each of them.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="Length of a session.")
@click.option("--rate-hz", type=float, default=2000.0, show_default=True, help="Sample rate, 100 to 8000.")
@click.option("--channels", type=int, default=16, show_default=True, help="Electrode pairs around the limb, 4 to 64.")
@click.option("--gestures", "names", help="Names separated by commas; the whole library by default.")
@click.option(
    "--free-share", type=float, default=FREE_SHARE, show_default=True, help="Share of a session in free movement."
)
@click.option(
    "--never-free", default="", help="Gestures, separated by commas, that free movement borrows nothing from."
)
@common_options
def command(
    out: Path,
    wearers: int,
    sessions: int,
    seconds: float,
    rate_hz: float,
    channels: int,
    names: str | None,
    free_share: float,
    never_free: str,
    common: Common,
) -> None:
    """Make armband recordings with known poses, without hardware.

    Simulated wearers make gestures and move freely; muscles, motor units, skin and electrodes turn that into EMG.
    Written in the layout of emg2pose. 8 channels at 200 Hz imitate a Myo.
    """
    report = synth(
        out,
        wearers=wearers,
        seconds=seconds,
        rate_hz=rate_hz,
        channels=channels,
        sessions=sessions,
        seed=common.seed,
        gestures=None if names is None else _listed(names),
        free_share=free_share,
        never_free=_listed(never_free),
        force=common.force,
        progress=common.progress,
    )
    show(report, common)
