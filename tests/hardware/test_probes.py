"""A runtime works when it has run a model; importing it proves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embridge_edge.hardware import probes
from embridge_edge.hardware.host import installed_version


@pytest.mark.parametrize("name", sorted(set(probes.PROBES) - {"tensorflow", "tflite-runtime"}))
def test_installed_runtime_works(name: str) -> None:
    if installed_version(name) is None:
        pytest.skip(f"needs {name}")
    assert probes.probe(name) is None


def test_missing_runtime_is_said_in_one_line() -> None:
    if installed_version("tflite-runtime") is not None:
        pytest.skip("tflite-runtime is installed")
    assert probes.probe("tflite-runtime") == "ModuleNotFoundError: No module named 'tflite_runtime'"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended the process with signal 11"),
        (
            "raise ImportError('A module that was\\ncompiled using NumPy 1.x')",
            "ImportError: A module that was compiled",
        ),
        ("import sys; sys.exit(7)", "ended with status 7"),
    ],
)
def test_runtime_that_dies_only_when_used_is_found(
    body: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "interpreter.py").write_text(
        f"class Interpreter:\n    def __init__(self, **options):\n        {body}\n", encoding="utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert (probes.probe("tflite-runtime") or "").startswith(says)
