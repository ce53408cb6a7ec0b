"""Which format a file is in, by what it holds; its name and folder say nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from embridge_edge.recordings.description import Companion, Description, Fingerprint
from embridge_edge.recordings.store import Store

HEAD_BYTES = 1 << 16
LINES_BYTES = 1 << 14
ROWS_LOOKED_AT = 24

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MAT5_MAGIC = b"MATLAB 5.0 MAT-file"
MAT73_MAGIC = b"MATLAB 7.3 MAT-file"

PASSED_OVER = ("readme", "license", "licence", "copying", "changelog", "citation", "authors", "notice")
RECORDING_SUFFIXES = (".csv", ".tsv", ".hdf5", ".h5", ".mat")
PASSED_OVER_SUFFIXES = (
    ".md",
    ".rst",
    ".pdf",
    ".png",
    ".jpg",
    ".jpeg",
    ".svg",
    ".toml",
    ".json",
    ".yaml",
    ".yml",
    ".py",
    ".m",
    ".html",
)
PASSED_OVER_NAMES = ("curated.txt", "requirements.txt", "metadata.csv", "checksums.txt", "sha256sums", "md5sums")


@dataclass(frozen=True)
class Glimpse:
    """The beginning of a file, and the first lines of it if it is text."""

    head: bytes
    lines: tuple[str, ...]
    rows: int | None
    """Lines in the whole file; None where only its beginning was looked at."""

    @property
    def is_text(self) -> bool:
        return b"\0" not in self.head and bool(self.lines)


def is_passed_over(name: str) -> bool:
    """Whether a file is documentation, a list or a description rather than a recording, by its name."""
    lower = PurePosixPath(name).name.lower()
    if lower.endswith(PASSED_OVER_SUFFIXES) or lower in PASSED_OVER_NAMES:
        return True
    return lower.startswith(PASSED_OVER) and not lower.endswith(RECORDING_SUFFIXES)  # a wearer may be called Citation


def glimpse(store: Store, name: str) -> Glimpse:
    """Look at the first 64 KiB of a file."""
    with store.open(name) as stream:
        head = stream.read(HEAD_BYTES) or b""
    complete = len(head) >= store.size(name)
    if b"\0" in head:
        return Glimpse(head, (), None)
    lines = head[:LINES_BYTES].decode("utf-8-sig", "replace").split("\n")
    if (len(head) > LINES_BYTES or not complete or not lines[-1]) and len(lines) > 1:
        lines.pop()
    rows = head.count(b"\n") + (not head.endswith(b"\n")) if complete else None
    return Glimpse(head, tuple(line.rstrip("\r") for line in lines[: ROWS_LOOKED_AT + 1]), rows)


def header_names(line: str, delimiter: str) -> tuple[str, ...]:
    """The column names in a header line."""
    return tuple(field.strip().strip('"').strip() for field in _fields(line, delimiter))


def recognise(seen: Glimpse, descriptions: Iterable[Description]) -> Description | None:
    """The first of `descriptions` whose fingerprint the file has."""
    for description in descriptions:
        if description.fingerprint is not None and _fits(seen, description, description.fingerprint):
            return description
    return None


def is_companion(seen: Glimpse, companion: Companion) -> bool:
    """Whether a file is of a companion's kind."""
    if not seen.lines or header_names(seen.lines[0], ",") != companion.header:
        return False
    if companion.whole_numbers is None:
        return True
    lines = seen.head.decode("utf-8", "replace").split("\n")[1:-1]
    values = [value for line in lines for value in _numbers(line.split(",")[1:]) or () if value is not None]
    return bool(values) and all(value == int(value) for value in values) == companion.whole_numbers


def _fields(line: str, delimiter: str) -> list[str]:
    return line.split() if delimiter == "whitespace" else line.split(delimiter)


def _numbers(fields: list[str]) -> list[float | None] | None:
    """The fields as numbers, None where empty or not a number; None if one is no number at all."""
    try:
        values = [float(field) if field.strip() else None for field in fields]
    except ValueError:
        return None
    return [None if value is None or value != value or abs(value) == float("inf") else value for value in values]


def _fits(seen: Glimpse, description: Description, wanted: Fingerprint) -> bool:
    if not seen.lines:
        return False
    if wanted.header is not None:
        return header_names(seen.lines[0], description.delimiter) == wanted.header
    if wanted.rows is not None and (seen.rows is None or not wanted.rows[0] <= seen.rows <= wanted.rows[1]):
        return False
    rows = []
    skip = 1 if description.header else 0
    for line in seen.lines[skip : skip + ROWS_LOOKED_AT]:
        values = _numbers(_fields(line, description.delimiter))
        if values is not None and (wanted.columns is None or len(values) == wanted.columns):
            rows.append(values)
    looked_at = len(seen.lines[skip : skip + ROWS_LOOKED_AT])
    if not rows or len(rows) < 0.5 * looked_at:
        return False
    emg = [row[column] for row in rows for column in description.emg if isinstance(column, int)]
    known = [value for value in emg if value is not None]
    inside = [
        value
        for value in known
        if (wanted.low is None or value >= wanted.low) and (wanted.high is None or value <= wanted.high)
    ]
    if not known or len(inside) < len(known):
        return False
    if wanted.whole is not None and all(value == int(value) for value in known) != wanted.whole:
        return False
    if wanted.labels is not None and description.labels is not None:
        column = description.labels.columns[0]
        labels = [row[column] for row in rows if isinstance(column, int)]
        low, high = wanted.labels
        return all(label is not None and low <= label <= high and label == int(label) for label in labels)
    return True
