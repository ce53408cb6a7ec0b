"""Verbs as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embridge_edge.cli import run

Edge = Callable[..., dict[str, Any]]


@pytest.fixture
def edge(capsys: pytest.CaptureFixture[str]) -> Edge:
    """Run a verb with --json; its object, after checking that there is nothing else on stdout."""

    def call(*arguments: str | Path, status: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        code = run([*map(str, arguments), "--json", "--quiet"])
        printed = capsys.readouterr()
        assert code == status, printed.err
        return json.loads(printed.out)  # type: ignore[no-any-return]

    return call


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a verb that must be refused: status 2, one line on stderr, nothing on stdout; returns the line."""

    def call(*arguments: str | Path) -> str:
        capsys.readouterr()
        code = run([*map(str, arguments), "--quiet"])
        printed = capsys.readouterr()
        assert code == 2, printed.err
        assert printed.out == ""
        assert printed.err.count("\n") == 1, printed.err
        assert printed.err.startswith("embridge-edge: ")
        return printed.err

    return call
