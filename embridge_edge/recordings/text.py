"""Delimited text to arrays: one compiled pass over the bytes, in chunks, that says which lines it could not use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from embridge_edge.compiled import compiled
from embridge_edge.errors import EdgeError

CHUNK_BYTES = 1 << 19
LONGEST_LINE_BYTES = 8 << 20
_LOOKED_AT_BYTES = 1 << 12
_SPARE_ROWS = 64
_BAD_AT_ONCE = 1024

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


_WHOLE_POWERS = 10.0 ** np.arange(23)
"""The powers of ten that float64 holds exactly."""


@compiled(
    "void(uint8[::1],int64,boolean,int64,int64,int8[::1],int64[::1],float64[::1],float64[::1],boolean[::1],int64,int64,int64,"
    "int64,float32[:,::1],float32[:,::1],int64[::1],int64[:,::1],float64[:,::1],int64[:,::1],float64[::1],int64[::1])",
    error_model="numpy",
)
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
    powers: Any,
    counts: Any,
) -> None:
    """Parse whole lines of `data[:size]` while there is room; with `final`, what follows the last line feed is one as well.

    `data[size]` must exist and be no digit. Rows go to `emg`, `extra`, `clock` and `labels` (where they have any) from index
    `row` on, places of label texts in `data` to `label_at` from 0 on. There is room until `emg` or `bad` is full.

    A line of plain numbers is read in one go, byte by byte; whatever else it holds sends it through the careful way below,
    which starts the line again and knows every case.

    Args:
        powers: `_WHOLE_POWERS`.
        counts: int64 `[5]`, filled with rows stored, lines seen, lines with content, bad lines, bytes used.
    """
    columns = roles.shape[0]
    capacity = emg.shape[0] - row
    labelled = labels.shape[0] > 0
    plain = delimiter != 0
    for column in range(columns):
        if roles[column] == 4 or roles[column] == 6:
            plain = False
    one = np.uint64(1)
    mark = np.uint8(delimiter)
    point = np.uint8(decimal)
    at: Any = 0
    stored = 0
    seen = 0
    filled = 0
    bad_count = 0
    while at < size and stored < capacity and bad_count < bad.shape[0]:
        if plain and first_line + seen > skip_lines:
            f = np.uint64(at)
            here = np.uint64(row + stored)
            label = np.int64(-1)
            good = True
            for column in range(columns):
                role = roles[column]
                if role == 0:
                    while data[f] != mark and data[f] != 10 and f < np.uint64(size):
                        f += one
                else:
                    negative = data[f] == 45
                    f += np.uint64(negative)
                    start = f
                    mantissa: Any = np.int64(0)
                    while True:
                        digit = np.uint8(data[f] - np.uint8(48))
                        if digit > 9:
                            break
                        mantissa = mantissa * 10 + digit
                        f += one
                    found = f - start
                    value: Any = np.float64(mantissa)
                    fraction = np.uint64(0)
                    if data[f] == point:
                        f += one
                        start = f
                        while True:
                            digit = np.uint8(data[f] - np.uint8(48))
                            if digit > 9:
                                break
                            mantissa = mantissa * 10 + digit
                            f += one
                        fraction = f - start
                        found += fraction
                        value = np.float64(mantissa) / powers[min(fraction, np.uint64(22))]
                    if found - one > 17:  # none, or more than an int64 holds
                        good = False
                        break
                    if negative:
                        value = -value
                        mantissa = -mantissa
                    if not (low[column] <= value <= high[column]):
                        good = False
                        break
                    if role == 1:
                        if whole[column] and value != np.floor(value):
                            good = False
                            break
                        emg[here, np.uint64(slots[column])] = value
                    elif role == 2:
                        extra[here, np.uint64(slots[column])] = value
                    elif role == 5:
                        clock[here, 0] = value
                    elif fraction > 0:
                        good = False
                        break
                    else:
                        label = mantissa
                if column + 1 < columns:
                    if data[f] != mark:
                        good = False
                        break
                    f += one
            if good and data[f] == 13:
                f += one
            if good and data[f] == 10 and f < np.uint64(size):
                if labelled:
                    labels[here] = label
                seen += 1
                filled += 1
                stored += 1
                at = np.int64(f + one)
                continue
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
                        elif abs(np.float32(value)) > FLOAT32_MAX or value < low[column] or value > high[column]:
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
            if labelled:
                labels[row + stored] = label
            if label_at.shape[0] > 0:
                label_at[stored, 0] = label_start
                label_at[stored, 1] = label_length
            stored += 1
        at = next_line
    counts[0] = stored
    counts[1] = seen
    counts[2] = filled
    counts[3] = bad_count
    counts[4] = at


def read_table(stream: BinaryIO, layout: Layout, size: int) -> Table:
    """Read delimited text of about `size` bytes from `stream`.

    Besides the table itself there is never more in memory than a chunk: the arrays grow in place.
    """
    buffer = np.empty(CHUNK_BYTES + 1, np.uint8)
    kept, used_bytes, rows, lines, filled = 0, 0, 0, 0, 0
    emg = np.empty((0, layout.emg_columns), np.float32)
    extra = np.empty((0, layout.extra_columns), np.float32)
    clock = np.empty((0, layout.clock_groups), np.float64)
    labels = np.empty(0, np.int64)
    roles = layout.roles.tolist()
    has_texts = LABEL_TEXT in roles
    has_labels = has_texts or LABEL in roles
    label_at = np.empty((0, 2), np.int64)
    texts: dict[int, str] = {}
    numbers: dict[int, int] = {}
    bad: list[npt.NDArray[np.int64]] = []
    some_bad = np.empty((_BAD_AT_ONCE, 5), np.int64)
    counts = np.zeros(5, np.int64)
    final = False
    while not final:
        if len(buffer) - kept < CHUNK_BYTES // 2:
            buffer = np.concatenate([buffer[:kept], np.empty(2 * len(buffer), np.uint8)])
        got = stream.readinto(memoryview(buffer)[kept:-1])  # type: ignore[attr-defined, arg-type]
        final = not got
        if kept > LONGEST_LINE_BYTES:
            raise EdgeError(
                f"line {lines + 1} is longer than {LONGEST_LINE_BYTES >> 20} MiB; this is no delimited text."
            )
        held, at = kept + (got or 0), 0
        buffer[held] = 0
        while True:
            if rows == len(emg):
                line_bytes = used_bytes / lines if lines else _line_bytes(buffer[:held])
                room = rows + int(1.02 * max(size - used_bytes, held - at) / line_bytes) + _SPARE_ROWS
                emg, extra, clock = (_grown(array, room) for array in (emg, extra, clock))
                labels = _grown(labels, room) if has_labels else labels
            if has_texts:
                label_at = np.empty((len(emg) - rows, 2), np.int64)
            _parse(
                buffer[at:],
                held - at,
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
                labels,
                label_at,
                clock,
                some_bad,
                _WHOLE_POWERS,
                counts,
            )
            stored, seen, content, bad_count, used = counts.tolist()
            if has_texts:
                _name_texts(labels[rows : rows + stored], label_at, buffer[at:], numbers, texts)
            if bad_count:
                bad.append(some_bad[:bad_count].copy())
            rows, lines, filled, used_bytes, at = (
                rows + stored,
                lines + seen,
                filled + content,
                used_bytes + used,
                at + used,
            )
            if rows < len(emg) and bad_count < _BAD_AT_ONCE:
                break
        kept = held - at
        buffer[:kept] = buffer[at:held]
    emg, extra, clock = (_grown(array, rows) for array in (emg, extra, clock))
    labels = _grown(labels, rows) if has_labels else labels
    every = np.concatenate(bad) if bad else np.empty((0, 5), np.int64)
    dropped = BadLines(every[:, 0], every[:, 1], every[:, 2], every[:, 3], every[:, 4])
    return Table(emg, extra, labels if has_labels else None, clock, dropped, filled, texts)


def _line_bytes(beginning: npt.NDArray[np.uint8]) -> float:
    """Mean length of a line, judged by the first ones."""
    looked_at = beginning[:_LOOKED_AT_BYTES]
    return max(1.0, len(looked_at) / max(1, int((looked_at == 10).sum())))


def _grown(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """The array with another number of rows, in the same place where the system can."""
    if not len(array):
        return np.empty((rows, *array.shape[1:]), array.dtype)
    array.resize((rows, *array.shape[1:]), refcheck=False)
    return array


def _name_texts(
    labels: npt.NDArray[np.int64],
    label_at: npt.NDArray[np.int64],
    buffer: npt.NDArray[np.uint8],
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
            texts[numbers[hashed]] = buffer[start : start + length].tobytes().decode("utf-8", "replace")
    small = np.array([numbers.get(int(hashed), -1) for hashed in hashes], np.int64)
    labels[:] = small[np.searchsorted(hashes, labels)]
