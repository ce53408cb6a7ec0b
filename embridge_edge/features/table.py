"""Tables of features: what the columns are called, and one file for a whole set of recordings, Parquet or HDF5.

A row is a window. Its columns are `recording wearer session start_s label repetition` and one float32 column per number that
a feature gives. A file is written part by part, so that memory holds a few recordings' windows and never all of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embridge_edge.artifacts import written_by_rename
from embridge_edge.errors import EdgeError

SUFFIXES = (".parquet", ".h5")

METADATA = "embridge_edge"
"""Name of the metadata, one JSON object: a key of the file's metadata in Parquet, a text beside the columns in HDF5."""

BLOCK_ROWS = 16384
"""Rows that are written at once: a row group of Parquet. Many short recordings share one."""


@dataclass(frozen=True)
class Part:
    """The windows of one recording.

    Attributes:
        recording, wearer, session: whose they are.
        start_s: float64 `[windows]`, time of each window's first sample from the beginning of the recording.
        label: int32 `[windows]`, index into `gestures`, −1 where the window holds none or several.
        repetition: int32 `[windows]`, 0 where none is known or the window holds several.
        values: float32 `[columns, windows]`.
    """

    recording: str
    wearer: str
    session: str
    start_s: npt.NDArray[np.float64]
    label: npt.NDArray[np.int32]
    gestures: tuple[str, ...]
    repetition: npt.NDArray[np.int32]
    columns: tuple[str, ...]
    values: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.start_s)


def joined(features: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Arrays `[windows, columns]` of several features as one, the columns one under the other: `[columns, windows]`."""
    values = np.empty(
        (sum(found.shape[1] for found in features.values()), len(next(iter(features.values())))), np.float32
    )
    at = 0
    for found in features.values():
        values[at : at + found.shape[1]] = found.T
        at += found.shape[1]
    return values


def save_part(path: Path, part: Part) -> None:
    """Keep a part of a table that is not finished."""
    about = {
        "recording": part.recording,
        "wearer": part.wearer,
        "session": part.session,
        "gestures": part.gestures,
        "columns": part.columns,
    }
    with written_by_rename(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            start_s=part.start_s,
            label=part.label,
            repetition=part.repetition,
            values=part.values,
        )


def load_part(path: Path) -> Part | None:
    """A part that was kept; None where there is none or it is damaged."""
    try:
        held = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        about = json.loads(held["about"].tobytes())
        return Part(
            recording=about["recording"],
            wearer=about["wearer"],
            session=about["session"],
            start_s=held["start_s"],
            label=held["label"],
            gestures=tuple(about["gestures"]),
            repetition=held["repetition"],
            columns=tuple(about["columns"]),
            values=held["values"],
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


class TableFile(Protocol):
    """A table that is being written."""

    def write(self, parts: Sequence[Part]) -> None:
        """Write the windows of some recordings."""

    def close(self, metadata: Mapping[str, Any]) -> None:
        """End the file."""

    def abandon(self) -> None:
        """Let the unfinished file go."""


def check_suffix(path: Path) -> None:
    """Refuse a name that says neither Parquet nor HDF5, and load what its kind needs.

    Raises:
        EdgeError: another suffix.
    """
    if path.suffix == ".parquet":
        import pyarrow.parquet  # noqa: F401 (so that its absence shows before anything is computed)
    elif path.suffix not in SUFFIXES:
        raise EdgeError(f"Cannot write {path}: use a name that ends in {' or '.join(SUFFIXES)}.")


class TableWriter:
    """Gathers parts into blocks and writes these to a file."""

    def __init__(self, path: Path) -> None:
        """`path` ends in one of SUFFIXES; the file is made when the first part comes."""
        self._path = path
        self._file: TableFile | None = None
        self._waiting: list[Part] = []
        self.columns: tuple[str, ...] = ()
        self.rows = 0

    def add(self, part: Part) -> None:
        """Add the windows of a recording; all have the same columns."""
        if self._file is None:
            self.columns = part.columns
            self._file = (_Parquet if self._path.suffix == ".parquet" else _Hdf5)(self._path, part.columns)
        self._waiting.append(part)
        self.rows += len(part)
        if sum(len(item) for item in self._waiting) >= BLOCK_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._file is not None and self._waiting:
            self._file.write(self._waiting)
            self._waiting = []

    def close(self, metadata: Mapping[str, Any]) -> None:
        """Write what is left, and the metadata."""
        self._flush()
        if self._file is not None:
            self._file.close(metadata)
            self._file = None

    def abandon(self) -> None:
        """Close the file as it is; it is of no use."""
        if self._file is not None:
            self._file.abandon()
            self._file = None


@contextlib.contextmanager
def table_writer(path: Path) -> Iterator[TableWriter]:
    """A writer for the table `path`, which appears by rename when the block ends well; the writer is closed inside."""
    with written_by_rename(path) as temporary:
        writer = TableWriter(temporary)
        try:
            yield writer
        finally:
            writer.abandon()


class _Parquet:
    """One row group per block; texts are dictionaries, numbers are stored as they are."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import pyarrow
        import pyarrow.parquet

        self._arrow = pyarrow
        text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        self._schema = pyarrow.schema(
            [
                ("recording", text),
                ("wearer", text),
                ("session", text),
                ("start_s", pyarrow.float64()),
                ("label", text),
                ("repetition", pyarrow.int32()),
                *((name, pyarrow.float32()) for name in columns),
            ]
        )
        self._writer = pyarrow.parquet.ParquetWriter(
            path,
            self._schema,
            compression="none",  # float32 of a signal does not shrink, and reading stays a copy
            use_dictionary=["recording", "wearer", "session", "label"],
            write_statistics=["recording", "wearer", "session", "start_s", "label", "repetition"],
        )

    def write(self, parts: Sequence[Part]) -> None:
        values = np.concatenate([part.values for part in parts], axis=1)
        columns = [
            self._texts([part.recording for part in parts], parts),
            self._texts([part.wearer for part in parts], parts),
            self._texts([part.session for part in parts], parts),
            self._arrow.array(np.concatenate([part.start_s for part in parts])),
            self._labels(parts),
            self._arrow.array(np.concatenate([part.repetition for part in parts])),
            *(self._arrow.array(row) for row in values),
        ]
        self._writer.write_batch(self._arrow.RecordBatch.from_arrays(columns, schema=self._schema))

    def _texts(self, texts: Sequence[str], parts: Sequence[Part]) -> Any:
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        codes = np.repeat(np.array([places[text] for text in texts], np.int32), [len(part) for part in parts])
        return self._arrow.DictionaryArray.from_arrays(codes, self._arrow.array(list(places), self._arrow.string()))

    def _labels(self, parts: Sequence[Part]) -> Any:
        distinct, codes = _label_codes(parts)
        return self._arrow.DictionaryArray.from_arrays(codes, self._arrow.array(distinct, self._arrow.string()))

    def close(self, metadata: Mapping[str, Any]) -> None:
        self._writer.add_key_value_metadata({METADATA: json.dumps(metadata)})
        self._writer.close()

    def abandon(self) -> None:
        self._writer.close()


class _Hdf5:
    """A data set per column of texts and times, one `[windows, columns]` with the features, and the names of its columns."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import h5py

        self._file = h5py.File(path, "w")
        text = h5py.string_dtype()
        self._file.create_dataset("columns", data=list(columns), dtype=text)
        for name, kind in (
            ("recording", text),
            ("wearer", text),
            ("session", text),
            ("start_s", np.float64),
            ("label", text),
            ("repetition", np.int32),
        ):
            self._file.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(4096,))
        self._file.create_dataset(
            "features", (0, len(columns)), np.float32, maxshape=(None, len(columns)), chunks=(256, len(columns))
        )

    def write(self, parts: Sequence[Part]) -> None:
        counts = [len(part) for part in parts]
        distinct, codes = _label_codes(parts)
        block: dict[str, npt.NDArray[Any]] = {
            "recording": np.repeat(np.array([part.recording for part in parts], object), counts),
            "wearer": np.repeat(np.array([part.wearer for part in parts], object), counts),
            "session": np.repeat(np.array([part.session for part in parts], object), counts),
            "start_s": np.concatenate([part.start_s for part in parts]),
            "label": np.array(distinct, object)[codes],
            "repetition": np.concatenate([part.repetition for part in parts]),
            "features": np.concatenate([part.values for part in parts], axis=1).T,
        }
        for name, values in block.items():
            dataset = self._file[name]
            at = len(dataset)
            dataset.resize(at + len(values), axis=0)
            dataset[at:] = values

    def close(self, metadata: Mapping[str, Any]) -> None:
        self._file[METADATA] = json.dumps(metadata)
        self._file.close()

    def abandon(self) -> None:
        self._file.close()


def _label_codes(parts: Sequence[Part]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The distinct labels, the empty one first, and the place of each window's among them, int32 `[windows]`."""
    places = {
        text: place for place, text in enumerate(dict.fromkeys(["", *(n for part in parts for n in part.gestures)]))
    }
    # −1 takes the last place, which is the empty label's.
    codes = [np.array([*(places[name] for name in part.gestures), 0], np.int32)[part.label] for part in parts]
    return list(places), np.concatenate(codes)
