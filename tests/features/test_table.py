"""A table that is written is the table that is read, in both kinds of file, whatever the sizes of its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet
import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.features import table as tables
from embridge_edge.features.catalogue import FEATURES
from embridge_edge.features.checks import columns
from embridge_edge.features.table import (
    Part,
    check_suffix,
    joined,
    load_part,
    save_part,
    table_writer,
)

TEXTS = ("recording", "wearer", "session", "label")
COLUMNS = ("MAV_0", "MAV_1", "AR_0_1")


def part(number: int, windows: int) -> Part:
    rng = np.random.default_rng(number)
    values = rng.normal(size=(len(COLUMNS), windows)).astype(np.float32)
    values[0, : windows // 2] = np.nan
    return Part(
        recording=f"S{number}/ü.csv",
        wearer="w1",
        session=str(number % 2),
        start_s=np.arange(windows) * 0.05,
        label=rng.integers(-1, 2, windows).astype(np.int32),
        gestures=("rest", "fist") if number % 2 else ("fist", "open"),
        repetition=rng.integers(0, 3, windows).astype(np.int32),
        columns=COLUMNS,
        values=values,
    )


def written(path: Path, parts: list[Part]) -> Path:
    with table_writer(path) as table:
        for item in parts:
            table.add(item)
        table.close({"rate_hz": 200.0})
    return path


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every column of a table, and its metadata."""
    if path.suffix == ".parquet":
        found = pyarrow.parquet.read_table(path)
        metadata = json.loads(pyarrow.parquet.read_metadata(path).metadata[tables.METADATA.encode()])
        return {name: np.array(found[name].to_pylist()) for name in found.column_names}, metadata
    with h5py.File(path) as file:
        columns = {
            name: file[name].asstr()[:] if name in TEXTS else file[name][:]
            for name in (*TEXTS, "start_s", "repetition")
        }
        columns |= dict(zip(file["columns"].asstr()[:], file["features"][:].T, strict=True))
        return columns, json.loads(file[tables.METADATA].asstr()[()])


def expected(parts: list[Part]) -> dict[str, Any]:
    counts = [len(item) for item in parts]
    return {
        "recording": np.repeat([item.recording for item in parts], counts),
        "wearer": np.repeat([item.wearer for item in parts], counts),
        "session": np.repeat([item.session for item in parts], counts),
        "start_s": np.concatenate([item.start_s for item in parts]),
        "label": np.concatenate([np.array([*item.gestures, ""])[item.label] for item in parts]),
        "repetition": np.concatenate([item.repetition for item in parts]),
        **{name: np.concatenate([item.values[at] for item in parts]) for at, name in enumerate(COLUMNS)},
    }


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
@pytest.mark.parametrize("block_rows", [1, 50, 1 << 20])
def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, block_rows: int) -> None:
    monkeypatch.setattr(tables, "BLOCK_ROWS", block_rows)
    parts = [part(number, windows) for number, windows in enumerate((7, 40, 1, 33))]
    found, metadata = read(written(tmp_path / f"a{suffix}", parts))
    assert metadata == {"rate_hz": 200.0}
    wanted = expected(parts)
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(np.asarray(found[name], values.dtype), values, err_msg=name)


def test_types_of_a_parquet_table(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", [part(0, 5), part(1, 5)])
    schema = pyarrow.parquet.read_schema(path)
    assert schema.names == ["recording", "wearer", "session", "start_s", "label", "repetition", *COLUMNS]
    assert {str(schema.field(name).type) for name in COLUMNS} == {"float"}
    assert str(schema.field("start_s").type) == "double" and str(schema.field("repetition").type) == "int32"
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == 1


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_an_error_leaves_no_file(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(KeyboardInterrupt), table_writer(tmp_path / f"a{suffix}") as table:
        table.add(part(0, 5))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.csv", "a", "a.parquet.gz", "a.hdf5"])
def test_another_suffix_is_refused(name: str) -> None:
    with pytest.raises(EdgeError, match=r"use a name that ends in \.parquet or \.h5"):
        check_suffix(Path(name))


def test_a_part_survives_its_file(tmp_path: Path) -> None:
    kept = part(1, 9)
    save_part(tmp_path / "a.npz", kept)
    found = load_part(tmp_path / "a.npz")
    assert found is not None
    for name in ("recording", "wearer", "session", "gestures", "columns"):
        assert getattr(found, name) == getattr(kept, name)
    for name in ("start_s", "label", "repetition", "values"):
        np.testing.assert_array_equal(getattr(found, name), getattr(kept, name))
        assert getattr(found, name).dtype == getattr(kept, name).dtype


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_a_damaged_part_is_none(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "a.npz"
    save_part(path, part(1, 900))
    path.write_bytes(path.read_bytes()[:-300] if damage is None else damage)
    assert load_part(path) is None
    assert load_part(tmp_path / "none.npz") is None


def test_no_two_columns_of_all_features_share_a_name() -> None:
    names = [name for feature in FEATURES for name in columns(feature, 4, 1000.0, 200)]
    assert len(set(names)) == len(names)


def test_joined_puts_the_columns_one_under_the_other() -> None:
    rng = np.random.default_rng(0)
    features = {"MAV": rng.normal(size=(5, 2)).astype(np.float32), "AR": rng.normal(size=(5, 8)).astype(np.float32)}
    np.testing.assert_array_equal(joined(features), np.concatenate([features["MAV"], features["AR"]], axis=1).T)
