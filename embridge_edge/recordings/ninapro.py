"""NinaPro MAT files of databases 1, 2, 5 and 7 (ninapro.hevs.ch), MAT version 5 by scipy and 7.3 by h5py.

Known: `emg` [samples, channels], `restimulus` and `rerepetition` (corrected afterwards, preferred) or `stimulus` and
`repetition`, `subject`, `exercise`. Movements carry numbers that mean different things in each exercise, so a label is
"exercise E stimulus N", and 0 is rest.

Left out on purpose: `glove`. Its 22 CyberGlove sensors are raw or differently calibrated values whose map to joint
angles is not part of these databases, so that a recording has no pose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embridge_edge.errors import EdgeError
from embridge_edge.recordings.recording import Problem, Recording
from embridge_edge.recordings.repetitions import with_rest_numbered


@dataclass(frozen=True)
class Database:
    """What the database's page says of its EMG, and the repetitions that are tested by custom (Atzori et al. 2014)."""

    channels: int
    rate_hz: float
    unit: str
    test_repetitions: tuple[int, ...] = (2, 5)


# DB1: ten Otto Bock electrodes that give an RMS themselves, 100 Hz. DB2 and DB7: twelve Delsys Trigno at 2 kHz, volts.
# DB5: two Myo armbands at 200 Hz, their bytes. DB1 has ten repetitions, the others six: a third of either is tested.
DATABASES: Mapping[str, Database] = {
    "ninapro-db1": Database(10, 100.0, "ninapro-db1", (2, 5, 7)),
    "ninapro-db2": Database(12, 2000.0, "V"),
    "ninapro-db5": Database(16, 200.0, "myo"),
    "ninapro-db7": Database(12, 2000.0, "V"),
}

KEYS = (
    "emg",
    "restimulus",
    "rerepetition",
    "stimulus",
    "repetition",
    "subject",
    "exercise",
    "frequency",
    "acc",
    "glove",
    "gyro",
    "mag",
)


def read_ninapro(path: Path, source: str | None = None, database: str | None = None) -> tuple[Recording, str]:
    """Read one NinaPro exercise; returns it with the name of the database.

    Without `database` it is inferred where the file says which one it is; nothing is guessed.

    Raises:
        EdgeError: truncated, no NinaPro file, or a database that cannot be told.
    """
    source = source or path.name
    values = _load(path, source)
    if "emg" not in values:
        held = ", ".join(sorted(values)) or "none of " + ", ".join(KEYS[:5])
        raise EdgeError(f"{source} has no variable 'emg' (it has {held}); give a NinaPro file S<n>_E<n>_A<n>.mat.")
    emg = np.ascontiguousarray(values["emg"], np.float32)
    if emg.ndim != 2 or not emg.size:
        raise EdgeError(f"{source}: emg has shape {list(emg.shape)}, [samples, channels] expected.")
    name = database or _infer(emg, values, source)
    if name not in DATABASES:
        raise EdgeError(f"{source} is a MAT file, not {name}; choose one of {', '.join(DATABASES)}.")
    known = DATABASES[name]
    if emg.shape[1] != known.channels:
        raise EdgeError(
            f"{source} has {emg.shape[1]} channels, {name} has {known.channels}; choose another of "
            f"{', '.join(DATABASES)} with --format."
        )
    problems = (
        [Problem(source, None, "glove sensors are not calibrated joint angles; read without a pose")]
        if "glove" in values
        else []
    )
    exercise = _scalar(values.get("exercise"))
    stimulus, repetition = (_track(values, re_name, name_, len(emg), source) for re_name, name_ in _TRACKS)
    labels = None
    gestures: tuple[str, ...] = ()
    if stimulus is not None:
        numbers = np.unique(np.append(stimulus[stimulus >= 0], 0))
        place = f"exercise {exercise} " if exercise is not None else ""
        gestures = tuple("rest" if number == 0 else f"{place}stimulus {number}" for number in numbers)
        labels = np.where(stimulus >= 0, np.searchsorted(numbers, stimulus), -1).astype(np.int16)
        if repetition is not None:
            repetition = with_rest_numbered(labels, repetition, gestures.index("rest"))  # in the file it is 0 at rest
    bad = ~np.isfinite(emg).all(axis=1)
    breaks = np.zeros(0, np.int64)
    if bad.any():
        if bad.all():
            raise EdgeError(f"{source}: every sample has an EMG value that is no number; fetch it again.")
        at = np.flatnonzero(bad)
        what = f"{len(at)} samples with a value that is no number dropped, the first is {at[0]}; breaks are set"
        problems.append(Problem(source, None, what))
        breaks = np.unique(np.cumsum(~bad)[at])
        emg = emg[~bad]
        breaks = breaks[(breaks > 0) & (breaks < len(emg))].astype(np.int64)
        labels = None if labels is None else labels[~bad]
        repetition = None if repetition is None else repetition[~bad]
    subject = _scalar(values.get("subject"))
    by_name = re.search(r"S(\d+)_(?:A\d+_)?E(\d+)", source)
    wearer = str(subject) if subject is not None else by_name.group(1) if by_name else "unknown"
    recording = Recording(
        emg=emg,
        rate_hz=known.rate_hz,
        unit=known.unit,
        source=source,
        wearer=wearer,
        session="1",
        labels=labels,
        gestures=gestures,
        repetitions=repetition,
        breaks=breaks,
        full_scale=128.0 if known.unit == "myo" else None,
        test_repetitions=known.test_repetitions if repetition is not None else (),
        problems=tuple(problems),
    )
    return recording, name


_TRACKS = (("restimulus", "stimulus"), ("rerepetition", "repetition"))


def _infer(emg: Any, values: Mapping[str, Any], source: str) -> str:
    """The database, where channels, signals beside the EMG and `frequency` leave only one."""
    frequency = _scalar(values.get("frequency"))
    fits = [
        name
        for name, known in DATABASES.items()
        if known.channels == emg.shape[1] and (frequency is None or abs(known.rate_hz - frequency) < 1)
    ]
    if "gyro" in values or "mag" in values:  # only DB7 has a full inertial unit
        fits = [name for name in fits if name == "ninapro-db7"]
    elif "ninapro-db2" in fits and "acc" in values:  # DB2 has accelerometers alone
        fits = ["ninapro-db2"]
    if fits == ["ninapro-db5"] and not np.array_equal(emg, np.round(emg), equal_nan=True):
        fits = []
    if len(fits) != 1:
        said = f" at {frequency:g} Hz" if frequency is not None else ""
        raise EdgeError(
            f"{source}: {emg.shape[1]} channels{said} do not say which NinaPro database it is, and so not its rate; "
            f"say so with --format, one of {', '.join(fits or DATABASES)}."
        )
    return fits[0]


def _track(values: Mapping[str, Any], corrected: str, original: str, samples: int, source: str) -> Any:
    value = values.get(corrected, values.get(original))
    if value is None:
        return None
    track = np.asarray(value).reshape(-1)
    if len(track) != samples:
        raise EdgeError(f"{source}: {original} has {len(track)} samples, emg has {samples}; fetch the file again.")
    return track.astype(np.int16)


def _scalar(value: Any) -> int | None:
    if value is None:
        return None
    array = np.asarray(value).reshape(-1)
    return int(array[0]) if len(array) else None


def _load(path: Path, source: str) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            is_hdf5 = b"MATLAB 7.3" in stream.read(128)
        return _load_73(path) if is_hdf5 else _load_5(path)
    except EdgeError:
        raise
    except Exception as error:  # scipy and h5py raise a dozen kinds on damaged files; each of them means just that
        what = " ".join(str(error).split())[:100] or type(error).__name__
        raise EdgeError(f"{source} is a truncated or damaged MAT file ({what}); fetch it again.") from None


def _load_5(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    values: dict[str, Any] = loadmat(path, variable_names=list(KEYS), appendmat=False)
    return {key: value for key, value in values.items() if key in KEYS}


def _load_73(path: Path) -> dict[str, Any]:
    import h5py

    values: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        for key in KEYS:
            if key in file:
                big = key in ("acc", "glove", "gyro", "mag")
                values[key] = True if big else file[key][()].T  # MATLAB stores columns first
    return values
