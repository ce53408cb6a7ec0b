"""emg2pose HDF5 files: reading them, and writing recordings of any origin as such.

The layout (github.com/facebookresearch/emg2pose): a group `emg2pose` with attributes `session user stage side start end
sample_rate num_channels filename`, and in it the compound dataset `timeseries` of `time` f8 (s), `joint_angles` f8[20]
(rad) and `emg` f4[channels]. Frames whose 20 angles are all zero are tracking failures.
The unit of the published EMG is not stated: the authors' own converter to BIDS takes it for microvolts with
the words "appears to be", hence the unit "emg2pose" and no scale to volts.

`metadata.csv` beside the files says of each which stage it is, and its place in the authors' division: `split` is train, val or
test, `generalization` what a test recording is new in: its user, its stage or both (user_stage).

What a Recording has beyond that stands in the group under names that begin with `embridge_`, which other readers pass
over.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.artifacts import written_by_rename
from embridge_edge.errors import EdgeError
from embridge_edge.gestures import FINGER_JOINTS, POSE, WRIST_ANGLES
from embridge_edge.recordings.recording import GENERALIZATIONS, PARTITIONS, Problem, Recording

CHUNK_ROWS = 1 << 14
UNIT = "emg2pose"
EXTRA = "embridge_"

ZERO_RAD = 1e-8
"""Angles below this count as zero, as in the authors' tools."""

STRAIGHT_RAD = 1e-6
"""What is written for a hand that really is at 0 in all its joints, lest it pass for a tracking failure."""

METADATA_COLUMNS = (
    "filename",
    "session",
    "user",
    "stage",
    "start",
    "end",
    "side",
    "moving_hand",
    "held_out_user",
    "held_out_stage",
    "split",
    "generalization",
)


METADATA_FILE = "metadata.csv"

_IDENTIFYING = ("session", "user", "stage", "side")
"""Columns that together name a recording, where the table has no file names."""

NO_STAGE = "unknown"
"""What is written as the stage of a recording that has none."""


@dataclass(frozen=True)
class Placed:
    """A recording's place in the division of its data set: of `PARTITIONS` and `GENERALIZATIONS`."""

    partition: str = ""
    generalization: str = ""


@dataclass(frozen=True)
class Metadata:
    """A `metadata.csv`.

    Attributes:
        place: where it was read from, for messages.
        by_file: by the file's name without its suffix. by_recording: by session, user, stage and side.
    """

    place: str
    by_file: Mapping[str, Placed] = field(default_factory=dict)
    by_recording: Mapping[tuple[str, ...], Placed] = field(default_factory=dict)

    def placed(self, file: str, recording: tuple[str, ...]) -> Placed | None:
        """The place of a recording, by its file's name, else by its session, user, stage and side; None without a row."""
        return self.by_file.get(file, self.by_recording.get(recording))


def parse_metadata(text: str, place: str) -> Metadata:
    """Read the text of a `metadata.csv`; `place` names it in messages.

    Raises:
        EdgeError: a column is missing, a split or generalization that does not exist, or a recording that has two places.
    """
    rows = csv.DictReader(StringIO(text, newline=""))
    columns = rows.fieldnames or ()
    by_file = "filename" in columns
    for name in ("split", *(() if by_file else _IDENTIFYING)):
        if name not in columns:
            raise EdgeError(
                f"{place} has no column {name!r} (it has {', '.join(columns) or 'none'}); give emg2pose's, or take it away."
            )
    files: dict[str, Placed] = {}
    recordings: dict[tuple[str, ...], Placed] = {}
    for row in rows:
        found = _placed(row, f"{place}:{rows.line_num}")
        if by_file:
            file = PurePosixPath(row["filename"] or "").name.removesuffix(".hdf5")
            same = files.setdefault(file, found)
        else:
            same = recordings.setdefault(tuple(row[name] or "" for name in _IDENTIFYING), found)
        if same != found:
            raise EdgeError(
                f"{place}:{rows.line_num}: the recording stands in another split above; fetch the table again."
            )
    return Metadata(place, files, recordings)


def _placed(row: Mapping[str, str | None], place: str) -> Placed:
    partition = (row["split"] or "").strip().lower()
    if partition not in PARTITIONS[1:]:
        raise EdgeError(
            f"{place}: split {row['split']!r} is none of {', '.join(PARTITIONS[1:])}; fetch the table again."
        )
    if partition == "train":
        return Placed(partition)  # what it is new in is said of val and test only
    new_in = (row.get("generalization") or "").strip().lower()
    if new_in not in GENERALIZATIONS:
        known = ", ".join(GENERALIZATIONS[1:])
        raise EdgeError(f"{place}: generalization {new_in!r} is none of {known}; fetch the table again.")
    return Placed(partition, new_in)


def read_emg2pose(path: Path, source: str | None = None, metadata: Metadata | None = None) -> Recording:
    """Read one emg2pose file, in chunks: besides the recording there is never more than a chunk in memory.

    Args:
        source: what the file is called in messages; its name without the folders by default.
        metadata: the table beside it, which says where in the data set's division it stands.

    Raises:
        EdgeError: no HDF5 file, truncated, or not laid out as emg2pose.
    """
    import h5py

    source = source or path.name
    try:
        with h5py.File(path, "r") as file:
            return _read(file, source, path.stem, metadata)
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split()).removeprefix("Unable to synchronously open file ").strip("()'\"")
        raise EdgeError(f"{source} is truncated or damaged HDF5 ({what}); fetch it again.") from None


def _read(file: Any, source: str, file_name: str, metadata: Metadata | None) -> Recording:
    group = file.get("emg2pose")
    series = None if group is None else group.get("timeseries")
    if series is None:
        held = ", ".join(list(file)[:5]) or "nothing"
        raise EdgeError(f"{source} is HDF5 without emg2pose/timeseries (it holds {held}); give an emg2pose file.")
    fields = series.dtype.fields or {}
    missing = [name for name in ("time", "emg") if name not in fields]
    if missing:
        raise EdgeError(f"{source}: timeseries has no {missing[0]!r} (it has {', '.join(fields) or 'no fields'}).")
    rows = int(series.shape[0])
    if not rows:
        raise EdgeError(f"{source} holds no samples; remove the file or fetch it again.")
    rate_hz = float(group.attrs.get("sample_rate", 2000.0))
    channels = int(np.prod(fields["emg"][0].shape)) if fields["emg"][0].shape else 1
    emg = np.empty((rows, channels), np.float32)
    time = np.empty(rows, np.float64)
    angles = int(np.prod(fields["joint_angles"][0].shape)) if "joint_angles" in fields else 0
    if angles not in (0, len(FINGER_JOINTS)):
        raise EdgeError(f"{source}: {angles} joint angles, {len(FINGER_JOINTS)} expected.")
    tracked = bool(angles) and not bool(group.attrs.get(EXTRA + "untracked", False))
    pose = np.full((rows, len(POSE)), np.nan, np.float32) if tracked else None
    wrist = group.get(EXTRA + "wrist")
    for start in range(0, rows, CHUNK_ROWS):
        part = slice(start, min(rows, start + CHUNK_ROWS))
        chunk = series[part]
        emg[part] = chunk["emg"].reshape(-1, channels)
        time[part] = chunk["time"]
        if pose is not None:
            frames = chunk["joint_angles"]
            failed = (np.abs(frames) <= ZERO_RAD).all(axis=1)
            pose[part, : len(FINGER_JOINTS)] = frames
            pose[part, : len(FINGER_JOINTS)][failed] = np.nan
            if wrist is not None:
                pose[part, len(FINGER_JOINTS) :] = wrist[part]
    problems: list[Problem] = []
    if pose is not None and not np.isfinite(pose).any():
        pose = None
    stored = group.get(EXTRA + "breaks")
    breaks = stored[:].astype(np.int64) if stored is not None else np.flatnonzero(_jumps(time, rate_hz)) + 1
    if stored is None and len(breaks):
        often = "once," if len(breaks) == 1 else f"{len(breaks)} times, first"
        problems.append(Problem(source, None, f"the clock jumps {often} at sample {breaks[0]}; breaks are set"))
    attributes = group.attrs
    labels, repetitions = (
        None if track is None else track[:].astype(np.int16)
        for track in (group.get(EXTRA + name) for name in ("labels", "repetitions"))
    )
    kept = np.flatnonzero(np.isfinite(emg).all(axis=1))
    if len(kept) < rows:
        breaks = _breaks_without_the_rest(kept, rows, breaks, source, problems)
        emg = emg[kept]
        pose, labels, repetitions = (None if track is None else track[kept] for track in (pose, labels, repetitions))
    gestures = tuple(_text(name) for name in attributes.get(EXTRA + "gestures", ()))
    session, user, stage, side = (
        _text(attributes.get(name, default))
        for name, default in (("session", "1"), ("user", "unknown"), ("stage", NO_STAGE), ("side", "unknown"))
    )
    placed = None if metadata is None else metadata.placed(file_name, (session, user, stage, side))
    if metadata is not None and placed is None:
        problems.append(Problem(source, None, f"{metadata.place} has no row for it; it is in no split"))
    placed = placed or Placed()
    day = attributes.get(EXTRA + "day")
    full_scale = attributes.get(EXTRA + "full_scale")
    return Recording(
        emg=emg,
        rate_hz=rate_hz,
        unit=_text(attributes.get(EXTRA + "unit", UNIT)),
        source=source,
        wearer=user,
        session=_text(attributes.get(EXTRA + "session", session)),
        day=None if day is None else int(day),
        side=_side(side),
        labels=labels,
        gestures=gestures,
        repetitions=repetitions,
        pose=pose,
        breaks=breaks,
        full_scale=None if full_scale is None else float(full_scale),
        stage="" if stage == NO_STAGE else stage,
        partition=placed.partition,
        generalization=placed.generalization,
        problems=tuple(problems),
    )


def _jumps(time: npt.NDArray[np.float64], rate_hz: float) -> npt.NDArray[np.bool_]:
    step = np.diff(time)
    return np.asarray((step > 10.0 / rate_hz) | (step < 0))


def _breaks_without_the_rest(
    kept: npt.NDArray[np.intp], rows: int, breaks: npt.NDArray[np.int64], source: str, problems: list[Problem]
) -> npt.NDArray[np.int64]:
    """The breaks in what is left when only the rows `kept` are: each stretch that is dropped leaves one."""
    if not len(kept):
        raise EdgeError(
            f"{source}: every sample has an EMG value that is no number; remove the file or fetch it again."
        )
    dropped = np.setdiff1d(np.arange(rows), kept)
    what = f"{len(dropped)} samples with a value that is no number dropped, the first is {dropped[0]}; breaks are set"
    problems.append(Problem(source, None, what))
    found: npt.NDArray[np.int64] = np.unique(np.searchsorted(kept, np.concatenate([dropped, breaks])))
    return found[(found > 0) & (found < len(kept))]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _side(text: str) -> str:
    return text.lower() if text.lower() in ("left", "right") else "unknown"


def write_emg2pose(recordings: Iterable[Recording], folder: Path) -> list[Path]:
    """Write recordings as emg2pose files with their `metadata.csv`; the files appear by rename, the table last.

    EMG stays in the recording's unit, which stands in `embridge_unit`. A frame without any known finger angle is
    written as zeros, the layout's own sign for it; single unknown angles stay NaN. A recording that stands in no division
    is written as one to train on, which is what others' tools look for.

    Returns: the files, in the order of the recordings.
    """
    written: list[Path] = []
    rows: list[dict[str, object]] = []
    taken: set[str] = set()
    for recording in recordings:
        name = _file_name(recording, taken)
        path = folder / f"{name}.hdf5"
        with written_by_rename(path) as temporary:
            _write(recording, temporary, name)
        written.append(path)
        rows.append(
            {
                "filename": name,
                "session": recording.session,
                "user": recording.wearer,
                "stage": _stage(recording),
                "start": 0.0,
                "end": recording.duration_s,
                "side": recording.side,
                "moving_hand": recording.side,
                "held_out_user": recording.generalization in ("user", "user_stage"),
                "held_out_stage": recording.generalization in ("stage", "user_stage"),
                "split": recording.partition or "train",
                "generalization": recording.generalization,
            }
        )
    with (
        written_by_rename(folder / METADATA_FILE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        table = csv.DictWriter(stream, METADATA_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return written


def _file_name(recording: Recording, taken: set[str]) -> str:
    base = "".join(
        character if character.isalnum() or character in "-_." else "-"
        for character in f"{recording.wearer}_{recording.session}"
    ).lstrip(".")
    number = 1
    while f"{base}_{number:03d}" in taken:
        number += 1
    name = f"{base}_{number:03d}"
    taken.add(name)
    return name


def _stage(recording: Recording) -> str:
    if recording.stage or recording.labels is None:
        return recording.stage or NO_STAGE
    held = [recording.gestures[label] for label in np.unique(recording.labels) if label >= 0]
    return "+".join(held) if held else NO_STAGE


def _write(recording: Recording, path: Path, name: str) -> None:
    import h5py

    kind = np.dtype(
        [("time", "<f8"), ("joint_angles", "<f8", (len(FINGER_JOINTS),)), ("emg", "<f4", (recording.channels,))]
    )
    fingers = len(FINGER_JOINTS)
    with h5py.File(path, "w") as file:
        group = file.create_group("emg2pose")
        group.attrs.update(
            {
                "session": recording.session,
                "user": recording.wearer,
                "stage": _stage(recording),
                "side": recording.side,
                "start": 0.0,
                "end": recording.duration_s,
                "sample_rate": recording.rate_hz,
                "num_channels": recording.channels,
                "filename": name,
                EXTRA + "unit": recording.unit,
                EXTRA + "source": recording.source,
                EXTRA + "untracked": recording.pose is None,
            }
        )
        if recording.gestures:
            group.attrs.create(EXTRA + "gestures", list(recording.gestures), dtype=h5py.string_dtype())
        if recording.day is not None:
            group.attrs[EXTRA + "day"] = recording.day
        if recording.full_scale is not None:
            group.attrs[EXTRA + "full_scale"] = recording.full_scale
        series = group.create_dataset(
            "timeseries",
            (recording.samples,),
            kind,
            chunks=(min(CHUNK_ROWS, recording.samples),),
            compression="gzip",
            compression_opts=1,
        )
        for start in range(0, recording.samples, CHUNK_ROWS):
            part = slice(start, min(recording.samples, start + CHUNK_ROWS))
            chunk = np.zeros(part.stop - part.start, kind)
            chunk["time"] = np.arange(part.start, part.stop) / recording.rate_hz
            chunk["emg"] = recording.emg[part]
            if recording.pose is not None:
                frames = recording.pose[part, :fingers].astype(np.float64)
                frames[(np.abs(frames) <= ZERO_RAD).all(axis=1), 0] = STRAIGHT_RAD
                frames[~np.isfinite(frames).any(axis=1)] = 0.0
                chunk["joint_angles"] = frames
            series[part] = chunk
        for key, array in (
            ("labels", recording.labels),
            ("repetitions", recording.repetitions),
            ("breaks", recording.breaks),
        ):
            if array is not None:
                group.create_dataset(EXTRA + key, data=array)
        if recording.pose is not None and np.isfinite(recording.pose[:, fingers:]).any():
            assert recording.pose.shape[1] == fingers + len(WRIST_ANGLES)  # noqa: S101 (checked by Recording)
            group.create_dataset(EXTRA + "wrist", data=recording.pose[:, fingers:])
