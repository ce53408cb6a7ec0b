"""Delimited text to arrays: one compiled pass over the bytes, in chunks, that says which lines it could not use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.recordings.compiled import compiled

CHUNK_BYTES = 1 << 20
LONGEST_LINE_BYTES = 8 << 20

IGNORED, EMG, EXTRA, LABEL, LABEL_TEXT, CLOCK, CLOCK_TEXT = range(7)
"""What a column is: passed over, EMG, another number (a pose), a label or the clock, each as number or as text."""

FIELDS, NUMBER, RANGE, MISSING, FRACTION = range(1, 6)
"""Why a line is dropped: count of fields, no number, out of range, an EMG value missing, no whole number."""

FLOAT32_MAX = float(np.finfo(np.float32).max)

WHITESPACE = 0
"""The delimiter that stands for any run of spaces and tabs."""


@dataclass(frozen=True)
class Layout:
    """What each column of a text is.

    Attributes:
        roles: int8 `[columns]`, one of IGNORED … CLOCK_TEXT.
        slots: int64 `[columns]`, where an EMG or EXTRA column goes in the arrays.
        low, high: float64 `[columns]`, the range a value must lie in.
        whole: bool `[columns]`, true where a value must be a whole number.
        clock_groups: how many groups of digits a clock text has (`12:25:17.533` has three), 1 for a number, 0
            without a clock.
    """

    roles: npt.NDArray[np.int8]
    slots: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    whole: npt.NDArray[np.bool_]
    delimiter: int
    decimal: int
    skip_lines: int
    clock_groups: int

    @property
    def columns(self) -> int:
        return len(self.roles)

    @property
    def emg_columns(self) -> int:
        return int((self.roles == EMG).sum())

    @property
    def extra_columns(self) -> int:
        return int((self.roles == EXTRA).sum())


@dataclass(frozen=True)
class BadLines:
    """Lines that were dropped: line number (from 1), reason, fields found, the row that comes after each, and the column
    (from 0) that is the reason, −1 where it is the count of fields."""

    line: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int64]
    fields: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.line)


@dataclass(frozen=True)
class Table:
    """What a text holds.

    Attributes:
        emg: float32 `[rows, EMG columns]`; extra: float32 `[rows, EXTRA columns]`, NaN where empty.
        labels: int64 `[rows]`, the number, or for text an index into `label_texts`; −1 where empty; None without.
        clock: float64 `[rows, groups]`.
        lines: lines with something in them after the header, good or bad.
    """

    emg: npt.NDArray[np.float32]
    extra: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64] | None
    clock: npt.NDArray[np.float64]
    bad: BadLines
    lines: int
    label_texts: Mapping[int, str] = field(default_factory=dict)


@compiled
def _parse(
    data: Any,
    size: int,
    final: bool,
    delimiter: int,
    decimal: int,
    roles: Any,
    slots: Any,
    low: Any,
    high: Any,
    whole: Any,
    groups: int,
    first_line: int,
    skip_lines: int,
    row: int,
    emg: Any,
    extra: Any,
    labels: Any,
    label_at: Any,
    clock: Any,
    bad: Any,
) -> tuple[int, int, int, int, int]:
    """Parse every whole line of `data[:size]`; with `final`, what follows the last line feed is a line as well.

    Rows go to `emg`, `extra` and `clock` from index `row` on; labels go to `labels` from 0 on with their place in
    `data` in `label_at`. Returns: rows stored, lines seen, lines with content, bad lines, bytes used.
    """
    columns = roles.shape[0]
    powers = 10.0 ** np.arange(23)
    at = 0
    stored = 0
    seen = 0
    filled = 0
    bad_count = 0
    while at < size:
        stop = at
        while stop < size and data[stop] != 10:
            stop += 1
        if stop == size and not final:
            break
        next_line = stop + 1 if stop < size else size
        seen += 1
        line = first_line + seen - 1
        if line <= skip_lines:
            at = next_line
            continue
        if stop > at and data[stop - 1] == 13:
            stop -= 1
        i = at
        while i < stop and (data[i] == 32 or data[i] == 9):
            i += 1
        if i == stop:  # nothing but white space
            at = next_line
            continue
        if delimiter != 0:
            i = at
        filled += 1
        reason = 0
        wrong = -1
        column = 0
        label = np.int64(-1)
        label_start = 0
        label_length = 0
        while True:
            role = roles[column] if column < columns else 0
            if delimiter == 0:
                end = i
                while end < stop and data[end] != 32 and data[end] != 9:
                    end += 1
            else:
                end = i
                while end < stop and data[end] != delimiter:
                    end += 1
            if role != 0 and reason == 0:
                a = i
                b = end
                while a < b and (data[a] == 32 or data[a] == 9):
                    a += 1
                while b > a and (data[b - 1] == 32 or data[b - 1] == 9):
                    b -= 1
                if role == 4:  # LABEL_TEXT
                    hashed = np.uint64(14695981039346656037)  # FNV-1a
                    for k in range(a, b):
                        hashed = (hashed ^ np.uint64(data[k])) * np.uint64(1099511628211)
                    label = np.int64(hashed >> np.uint64(2)) if b > a else np.int64(-1)
                    label_start = a
                    label_length = b - a
                elif role == 6:  # CLOCK_TEXT
                    group = -1
                    inside = False
                    unit = 0.0
                    for k in range(a, b):
                        c = data[k]
                        if 48 <= c <= 57:
                            if unit > 0.0:
                                clock[row + stored, group] += (c - 48) * unit
                                unit *= 0.1
                            else:
                                if not inside:
                                    group += 1
                                    inside = True
                                    if group >= groups:
                                        break
                                    clock[row + stored, group] = 0.0
                                clock[row + stored, group] = clock[row + stored, group] * 10.0 + (c - 48)
                        elif c == 46 and group == groups - 1 and inside and unit == 0.0:
                            unit = 0.1
                        else:
                            inside = False
                            unit = 0.0
                    if group != groups - 1:
                        reason = 2
                else:
                    value = np.nan
                    if b > a:
                        k = a
                        negative = data[k] == 45
                        if negative or data[k] == 43:
                            k += 1
                        if b - k == 3 and data[k] | 32 == 110 and data[k + 1] | 32 == 97 and data[k + 2] | 32 == 110:
                            k = b  # "nan"
                        else:
                            mantissa = np.int64(0)
                            digits = 0
                            any_digit = False
                            exponent: Any = 0
                            while k < b and 48 <= data[k] <= 57:
                                any_digit = True
                                if digits < 18:
                                    mantissa = mantissa * 10 + np.int64(data[k] - 48)
                                    if mantissa > 0:
                                        digits += 1
                                else:
                                    exponent += 1
                                k += 1
                            if k < b and data[k] == decimal:
                                k += 1
                                while k < b and 48 <= data[k] <= 57:
                                    any_digit = True
                                    if digits < 18:
                                        mantissa = mantissa * 10 + np.int64(data[k] - 48)
                                        if mantissa > 0:
                                            digits += 1
                                        exponent -= 1
                                    k += 1
                            if any_digit and k < b and data[k] | 32 == 101:
                                k += 1
                                minus = k < b and data[k] == 45
                                if minus or (k < b and data[k] == 43):
                                    k += 1
                                power: Any = 0
                                any_digit = False
                                while k < b and 48 <= data[k] <= 57:
                                    any_digit = True
                                    if power < 10000:
                                        power = power * 10 + np.int64(data[k] - 48)
                                    k += 1
                                exponent += -power if minus else power
                            if not any_digit or k != b:
                                reason = 2
                            else:
                                value = np.float64(mantissa)
                                if mantissa != 0:
                                    left = exponent
                                    while left > 0 and value < np.inf:
                                        step = min(left, 22)
                                        value *= powers[step]
                                        left -= step
                                    while left < 0 and value > 0.0:
                                        step = min(-left, 22)
                                        value /= powers[step]
                                        left += step
                                if negative:
                                    value = -value
                    if reason == 0:
                        if np.isnan(value):
                            if role == 1 or role == 5:
                                reason = 4
                        elif abs(value) > FLOAT32_MAX or value < low[column] or value > high[column]:
                            reason = 3
                        elif whole[column] and value != np.floor(value):
                            reason = 5
                    if reason == 0:
                        if role == 1:
                            emg[row + stored, slots[column]] = value
                        elif role == 2:
                            extra[row + stored, slots[column]] = value
                        elif role == 5:
                            clock[row + stored, 0] = value
                        elif not np.isnan(value):
                            if value != np.floor(value):
                                reason = 5
                            else:
                                label = np.int64(value)
            if reason != 0 and wrong < 0:
                wrong = column
            column += 1
            if end >= stop:
                break
            i = end + 1
            if delimiter == 0:
                while i < stop and (data[i] == 32 or data[i] == 9):
                    i += 1
                if i == stop:
                    break
        if column != columns:
            reason = 1
            wrong = -1
        if reason != 0:
            bad[bad_count, 0] = line
            bad[bad_count, 1] = reason
            bad[bad_count, 2] = column
            bad[bad_count, 3] = row + stored
            bad[bad_count, 4] = wrong
            bad_count += 1
        else:
            labels[stored] = label
            label_at[stored, 0] = label_start
            label_at[stored, 1] = label_length
            stored += 1
        at = next_line
    return stored, seen, filled, bad_count, at


def read_table(stream: BinaryIO, layout: Layout, size: int) -> Table:
    """Read delimited text of about `size` bytes from `stream`.

    Besides the table itself there is never more in memory than a chunk: the arrays grow in place.
    """
    buffer = bytearray(CHUNK_BYTES)
    kept, used_bytes, rows, lines, filled = 0, 0, 0, 0, 0
    emg = np.empty((0, layout.emg_columns), np.float32)
    extra = np.empty((0, layout.extra_columns), np.float32)
    clock = np.empty((0, layout.clock_groups), np.float64)
    has_labels = bool(np.isin(layout.roles, (LABEL, LABEL_TEXT)).any())
    labels = np.empty(0, np.int64)
    texts: dict[int, str] = {}
    numbers: dict[int, int] = {}
    bad: list[npt.NDArray[np.int64]] = []
    final = False
    while not final:
        if len(buffer) - kept < CHUNK_BYTES // 2:
            buffer.extend(bytes(CHUNK_BYTES))
        got = stream.readinto(memoryview(buffer)[kept:])  # type: ignore[attr-defined]
        final = not got
        if kept > LONGEST_LINE_BYTES:
            raise EdgeError(
                f"line {lines + 1} is longer than {LONGEST_LINE_BYTES >> 20} MiB; this is no delimited text."
            )
        filled_bytes = kept + (got or 0)
        chunk_lines = buffer.count(b"\n", 0, filled_bytes) + 1
        if rows + chunk_lines > len(emg):
            seen_bytes = used_bytes + filled_bytes
            expected = (
                int((rows + chunk_lines) * max(1.0, size / max(1, seen_bytes)) * (1.02 if seen_bytes < size else 1.0))
                + 1
            )
            for array in (emg, extra, clock):
                array.resize((max(expected, rows + chunk_lines), array.shape[1]), refcheck=False)
            if has_labels:
                labels.resize(len(emg), refcheck=False)
        chunk_labels = np.empty(chunk_lines, np.int64)
        label_at = np.empty((chunk_lines, 2), np.int64)
        chunk_bad = np.empty((chunk_lines, 5), np.int64)
        stored, seen, content, bad_count, used = _parse(
            np.frombuffer(buffer, np.uint8),
            filled_bytes,
            final,
            layout.delimiter,
            layout.decimal,
            layout.roles,
            layout.slots,
            layout.low,
            layout.high,
            layout.whole,
            layout.clock_groups,
            lines + 1,
            layout.skip_lines,
            rows,
            emg,
            extra,
            chunk_labels,
            label_at,
            clock,
            chunk_bad,
        )
        if has_labels:
            if LABEL_TEXT in layout.roles:
                _name_texts(chunk_labels[:stored], label_at, buffer, numbers, texts)
            labels[rows : rows + stored] = chunk_labels[:stored]
        if bad_count:
            bad.append(chunk_bad[:bad_count].copy())
        rows, lines, filled, used_bytes = rows + stored, lines + seen, filled + content, used_bytes + used
        kept = filled_bytes - used
        buffer[:kept] = buffer[used:filled_bytes]
    for array in (emg, extra, clock):
        array.resize((rows, array.shape[1]), refcheck=False)
    labels.resize(rows if has_labels else 0, refcheck=False)
    every = np.concatenate(bad) if bad else np.empty((0, 5), np.int64)
    dropped = BadLines(every[:, 0], every[:, 1], every[:, 2], every[:, 3], every[:, 4])
    return Table(emg, extra, labels if has_labels else None, clock, dropped, filled, texts)


def _name_texts(
    labels: npt.NDArray[np.int64],
    label_at: npt.NDArray[np.int64],
    buffer: bytearray,
    numbers: dict[int, int],
    texts: dict[int, str],
) -> None:
    """Replace the hashes in `labels` by small numbers, in the order of first appearance, and remember their texts."""
    hashes, first = np.unique(labels, return_index=True)
    for at in np.sort(first):
        hashed = int(labels[at])
        if hashed != -1 and hashed not in numbers:
            start, length = (int(value) for value in label_at[at])
            numbers[hashed] = len(numbers)
            texts[numbers[hashed]] = bytes(buffer[start : start + length]).decode("utf-8", "replace")
    small = np.array([numbers.get(int(hashed), -1) for hashed in hashes], np.int64)
    labels[:] = small[np.searchsorted(hashes, labels)]
