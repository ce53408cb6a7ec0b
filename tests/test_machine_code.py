"""Kept machine code gives what numba gives, and nothing stale, damaged or unfitting is ever run."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from embridge_edge import machine_code
from embridge_edge.machine_code import kernel, parse_signature, undefined_symbols

SOURCE = """
import numpy as np
from embridge_edge.compiled import compiled

@compiled("float64(float32[:,::1],int64[:],float32,boolean)")
def weighted(values, weights, factor, negative):
    total = 0.0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            total += np.log(values[i, j]) * weights[j]
    return (-total if negative else total) * factor

@compiled("void(float32[::1],float32[::1])")
def doubled(values, out):
    for i in range(values.shape[0]):
        out[i] = 2 * values[i]

@compiled("int64(float32[::1])")
def allocates(values):
    return len(np.empty_like(values))

@compiled("int64(int64)")
def inner(value):
    return value + 1

@compiled("int64(int64)")
def outer(value):
    return 2 * inner(value)
"""
FORTRAN = np.asfortranarray(np.ones((2, 3), np.float32))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with kernels, in a folder that Python imports from."""
    return imported(tmp_path, monkeypatch, SOURCE)


def imported(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> ModuleType:
    (folder / "kernels_of_a_test.py").write_text(source)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "kernels_of_a_test", raising=False)
    machine_code._digest.cache_clear()
    importlib.invalidate_caches()
    return importlib.import_module("kernels_of_a_test")


def kept_files(folder: Path) -> list[Path]:
    return sorted((folder / "__pycache__").glob("*.kernel"))


def test_a_kernel_gives_what_its_function_gives(module: ModuleType) -> None:
    values = np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4)
    weights = np.arange(8)[::2]
    expected = -(np.log(values) * weights).sum() * 1.5
    assert module.weighted(values, weights, np.float32(1.5), True) == pytest.approx(expected, rel=1e-6)
    assert module.weighted(values, weights, 1, False) == pytest.approx(-expected / 1.5, rel=1e-6)
    assert module.weighted.kept
    out = np.empty(4, np.float32)
    assert module.doubled(values[1], out) is None
    np.testing.assert_array_equal(out, 2 * values[1])
    assert module.doubled(np.zeros(0, np.float32), np.zeros(0, np.float32)) is None


def test_another_process_needs_no_numba(module: ModuleType, tmp_path: Path) -> None:
    module.outer(1)
    code = "import sys, kernels_of_a_test as k; print(k.outer(20), k.outer.kept, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["42", "True", "False"]


def test_a_kernel_is_named_without_importing_its_module(module: ModuleType, tmp_path: Path) -> None:
    module.outer(1)
    sys.modules.pop("kernels_of_a_test")
    found = kernel("kernels_of_a_test:outer", "int64(int64)")
    assert found(3) == 8 and found.kept
    assert "kernels_of_a_test" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        kernel("no_such_module_of_a_test:outer", "int64(int64)")


def test_what_allocates_is_left_to_numba(module: ModuleType, tmp_path: Path) -> None:
    assert module.allocates(np.ones(3, np.float32)) == 3
    assert not module.allocates.kept
    assert kept_files(tmp_path) == []


def test_one_kernel_calls_another(module: ModuleType) -> None:
    assert module.outer(1) == 4 and module.inner(1) == 2
    assert module.outer.kept


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((np.ones((2, 3)), np.ones(3, np.int64), 1.0, False), "float32 of 2 dimensions, not float64"),
        ((np.ones(3, np.float32), np.ones(3, np.int64), 1.0, False), "not float32 \\(3,\\)"),
        ((FORTRAN, np.ones(3, np.int64), 1.0, False), "contiguous"),
        ((FORTRAN,), "takes 4 arguments, 1 given"),
    ],
)
def test_arguments_are_checked(module: ModuleType, arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        module.weighted(*arguments)


def test_changed_source_is_compiled_again(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.inner(1) == 2
    (file,) = kept_files(tmp_path)
    before = file.read_bytes()
    assert imported(tmp_path, monkeypatch, SOURCE.replace("value + 1", "value + 2")).inner(1) == 3
    assert kept_files(tmp_path) == [file] and file.read_bytes() != before


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_made_again(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    module.inner(1)
    (file,) = kept_files(tmp_path)
    whole = file.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    file.write_bytes({"cut": whole[:-100], "flipped": flipped, "empty": b""}[damage])
    assert imported(tmp_path, monkeypatch, SOURCE).inner(1) == 2
    assert machine_code._read(file, whole[len(machine_code.MAGIC) :][:32]) is not None


def test_it_runs_where_nothing_can_be_kept(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(machine_code, "_folders", lambda source: iter([blocked / "folder"]))
    assert module.inner(1) == 2 and module.inner.kept
    assert kept_files(tmp_path) == []


def test_without_compiling_the_function_itself_runs(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert module.inner(1) == 2 and not module.inner.kept


def test_signatures() -> None:
    result, arguments = parse_signature("float64(float32[:,::1],int64[:],boolean,uint8[::1])")
    assert result(2.5).value == 2.5
    assert arguments[0] == (np.dtype(np.float32), 2, True)
    assert arguments[1] == (np.dtype(np.int64), 1, False)
    assert arguments[2](True).value is True
    assert arguments[3] == (np.dtype(np.uint8), 1, True)
    with pytest.raises(ValueError, match="is no type"):
        parse_signature("void(float32[)")


def test_undefined_symbols_are_those_of_the_object(module: ModuleType) -> None:
    made = machine_code._compile(module.weighted)
    assert made is not None
    assert set(undefined_symbols(made.object_file)) - {machine_code._NEVER_CALLED} <= {"log", "logf"}
