"""Where tests find real recordings, and the rule that nothing may skip where they are promised."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports torch: with more threads its sums come in another order, and a network trains to another one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def shared(variable: str, folder: str) -> Path:
    return Path(os.environ.get(variable) or ROOT.parent / "shared" / folder)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real recordings."""
    path = shared("EMBRIDGE_DATA", "data")
    if not path.is_dir():
        pytest.skip(f"needs the real recordings: set EMBRIDGE_DATA (there is no {path})")
    return path


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of the MLPerf Tiny int8 models."""
    path = shared("EMBRIDGE_MODELS", "models")
    if not path.is_dir():
        pytest.skip(f"needs the MLPerf Tiny models: set EMBRIDGE_MODELS (there is no {path})")
    return path


@pytest.fixture(scope="session")
def second_converter() -> None:
    """The TensorFlow converter's environment; it is made where it is not there, which takes minutes and an index of packages."""
    from embridge_edge.errors import EdgeError
    from embridge_edge.export.environments import interpreter_of
    from embridge_edge.export.onnx2tf import converter_environment

    try:
        interpreter_of(converter_environment())
    except EdgeError as error:
        pytest.skip(f"needs the TensorFlow converter: {error}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the shared folders is marked `data`, so that the fast suite never depends on them."""
    for item in items:
        if {"data", "models"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("data")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if report.skipped and os.environ.get("EMBRIDGE_NO_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may skip: {report.longrepr}"
    return report
