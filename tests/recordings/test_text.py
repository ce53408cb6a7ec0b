"""The compiled parser against Python's own float(), and against everything that a text can have wrong."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.recordings import text
from embridge_edge.recordings.text import Layout, Table, read_table


def layout(
    roles: list[int],
    *,
    delimiter: str = ",",
    decimal: str = ".",
    skip: int = 0,
    groups: int = 0,
    span: tuple[float, float] = (-math.inf, math.inf),
    whole: bool = False,
) -> Layout:
    slots, seen = [], {text.EMG: 0, text.EXTRA: 0}
    for role in roles:
        slots.append(seen.get(role, 0))
        if role in seen:
            seen[role] += 1
    emg = [role == text.EMG for role in roles]
    return Layout(
        np.array(roles, np.int8),
        np.array(slots, np.int64),
        np.where(emg, span[0], -math.inf),
        np.where(emg, span[1], math.inf),
        np.array(emg) & whole,
        text.WHITESPACE if delimiter == "whitespace" else ord(delimiter),
        ord(decimal),
        skip,
        groups,
    )


def parse(data: bytes, what: Layout) -> Table:
    return read_table(io.BytesIO(data), what, len(data))


EMG2 = layout([text.EMG, text.EMG])

numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-1000, max_value=1000).map(str),
)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
@example([("0.0", "3.4028234663852886e+38")], b"\n", False)  # float32's largest, which double arithmetic may overshoot
@settings(deadline=None, max_examples=150)
def test_numbers_are_those_of_python(rows: list[tuple[str, str]], end: bytes, ended: bool) -> None:
    data = end.join(",".join(row).encode() for row in rows) + (end if ended else b"")
    table = parse(data, EMG2)
    expected = np.array([[float(value) for value in row] for row in rows], np.float64).astype(np.float32)
    assert len(table.bad) == 0
    np.testing.assert_allclose(table.emg, expected, rtol=2e-7, atol=1e-44)


fields = st.text(alphabet='0123456789.-+eE nan,;\r\t"abc', max_size=12)


@given(st.lists(fields, max_size=20))
@settings(deadline=None, max_examples=300)
def test_any_text_gives_the_rows_that_python_finds(lines: list[str]) -> None:
    table = parse("\n".join(lines).encode(), EMG2)
    good, bad = [], []
    largest = float(np.finfo(np.float32).max)
    for number, line in enumerate(lines, 1):
        body = line.removesuffix("\r")
        if not body.strip(" \t"):
            continue
        row = [_python_number(value) for value in body.split(",")]
        if len(row) == 2 and all(value is not None and abs(value) <= largest for value in row):
            good.append(row)
        else:
            bad.append(number)
    assert table.bad.line.tolist() == bad
    assert len(table.emg) == len(good)
    if good:
        np.testing.assert_allclose(table.emg, np.array(good, np.float64).astype(np.float32), rtol=2e-7, atol=1e-44)


def _python_number(value: str) -> float | None:
    value = value.strip(" \t")
    if not value:
        return math.nan
    if any(character not in "0123456789.-+eEnNaA" for character in value) or value.startswith(("+n", "-n")):
        return math.nan if value[1:] == "nan" and value[0] in "+-" else None
    try:
        return float(value)
    except ValueError:
        return None


def test_bad_lines_are_named_and_the_rest_is_used() -> None:
    data = b"1,2\n3\n4,5,6\nx,1\n,1\n300,1\n7,8"
    table = parse(data, layout([text.EMG, text.EMG], span=(-128, 127)))
    assert table.emg.tolist() == [[1, 2], [7, 8]]
    assert table.bad.line.tolist() == [2, 3, 4, 5, 6]
    assert table.bad.reason.tolist() == [text.FIELDS, text.FIELDS, text.NUMBER, text.MISSING, text.RANGE]
    assert table.bad.fields.tolist() == [1, 3, 2, 2, 2]
    assert table.bad.column.tolist()[2:] == [0, 0, 0]
    assert table.bad.row.tolist() == [1] * 5


def test_fractions_are_refused_where_numbers_must_be_whole() -> None:
    table = parse(b"1,2\n1.5,2\n", layout([text.EMG, text.EMG], whole=True))
    assert table.bad.reason.tolist() == [text.FRACTION]


@pytest.mark.parametrize("role", [text.EMG, text.EXTRA, text.CLOCK, text.LABEL])
@pytest.mark.parametrize("written", ["1e400", "-1e39", "3.5e38", "9" * 400])
def test_a_number_beyond_float32_is_out_of_range(role: int, written: str) -> None:
    table = parse(f"1,2\n3,{written}\n5,6\n".encode(), layout([text.EMG, role], groups=int(role == text.CLOCK)))
    assert table.bad.line.tolist() == [2] and table.bad.reason.tolist() == [text.RANGE]
    assert table.bad.column.tolist() == [1]
    assert table.emg[:, 0].tolist() == [1, 5] and np.isfinite(table.emg).all()


def test_header_is_skipped_and_lines_are_counted_with_it() -> None:
    table = parse(b"a,b\n1,2\n3\n", layout([text.EMG, text.EMG], skip=1))
    assert table.emg.tolist() == [[1, 2]] and table.bad.line.tolist() == [3]


def test_decimal_comma_and_semicolon() -> None:
    table = parse(b"1,5;-2,25\n", layout([text.EMG, text.EMG], delimiter=";", decimal=","))
    assert table.emg.tolist() == [[1.5, -2.25]]


def test_white_space_as_delimiter() -> None:
    table = parse(b"  1   2\n\t3\t 4  \n\n", layout([text.EMG, text.EMG], delimiter="whitespace"))
    assert table.emg.tolist() == [[1, 2], [3, 4]]


def test_clock_text_becomes_groups_of_digits() -> None:
    table = parse(b"12:25:17.533,1\n23/06/22 12:25:18.0,2\nx,3\n", layout([text.CLOCK_TEXT, text.EMG], groups=3))
    np.testing.assert_allclose(table.clock, [[12, 25, 17.533]])
    assert table.bad.line.tolist() == [2, 3]


def test_label_texts_are_numbered_by_appearance() -> None:
    table = parse(b"1,rest\n2,fist\n3,\n4, fist \n", layout([text.EMG, text.LABEL_TEXT]))
    assert table.labels is not None and table.labels.tolist() == [0, 1, -1, 1]
    assert table.label_texts == {0: "rest", 1: "fist"}


def test_chunks_do_not_show() -> None:
    rows = np.arange(300_000)
    data = b"".join(b"%d,%d\n" % (row, -row) for row in rows)
    assert len(data) > 3 * text.CHUNK_BYTES
    table = parse(data, EMG2)
    np.testing.assert_array_equal(table.emg[:, 0], rows)
    np.testing.assert_array_equal(table.emg[:, 1], -rows)


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(EdgeError, match="line 1 is longer than 8 MiB"):
        parse(b"1" * (10 << 20), EMG2)


def test_memory_stays_below_twice_the_recording() -> None:
    data = b"1.25,-2.5,3,4,5,6,7,8\n" * 400_000
    what = layout([text.EMG] * 8)
    parse(b"1,2,3,4,5,6,7,8\n", what)
    stream = io.BytesIO(data)
    tracemalloc.start()
    try:
        table = read_table(stream, what, len(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert table.emg.shape == (400_000, 8)
    assert peak < 2 * table.emg.nbytes


def test_speed() -> None:
    """24 files of 12,000 lines in 0.15 s of processor time, with room for a busy machine."""
    line = b"-3,-1,-1,0,-2,0,-1,0,0\n"
    data = line * 12_000
    what = layout([text.EMG] * 8 + [text.LABEL])
    parse(line, what)
    best = math.inf
    for _ in range(3):
        start = time.process_time()
        for _ in range(24):
            parse(data, what)
        best = min(best, time.process_time() - start)
    assert best < 0.3


def test_compiled_code_runs_where_no_cache_can_be_written(tmp_path: Path) -> None:
    """A read-only package folder and a cache folder that cannot be made: compiled in the process instead."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = (
        "import importlib.util as u, sys\n"
        "spec = u.spec_from_file_location('probe', sys.argv[1])\n"
        "m = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(m)\n"
        "assert m.double(21) == 42\n"
    )
    folder = tmp_path / "package"
    folder.mkdir()
    module = folder / "probe.py"
    module.write_text(
        "from embridge_edge.compiled import compiled\n@compiled\ndef double(value):\n    return 2 * value\n"
    )
    (folder / "__pycache__").write_text("")  # a file where the folder should be: holds for root as well
    environment = {"HOME": str(blocked), "XDG_CACHE_HOME": str(blocked), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(module)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
