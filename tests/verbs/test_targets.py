"""`embridge-edge targets`."""

from __future__ import annotations

import json

import pytest

from embridge_edge.cli import run
from embridge_edge.hardware.target import shipped_targets
from embridge_edge.verbs.targets import targets


def test_every_target_has_a_line() -> None:
    lines = targets().text().splitlines()
    assert {line.split()[0] for line in lines[1:-2]} == set(shipped_targets())


def test_columns_stand_under_each_other() -> None:
    head, *lines = targets().text().splitlines()[:-2]
    row = next(line for line in lines if line.startswith("nrf52840 "))
    assert row.index("Nordic") == head.index("what it is")
    assert row.index("1024") + len("1024") == head.index("flash KiB") + len("flash KiB")


def test_json_is_one_object_with_units_in_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["targets", "--json"]) == 0
    captured = capsys.readouterr()
    table = {entry["name"]: entry for entry in json.loads(captured.out)["targets"]}
    assert table["nrf52840"]["ram_kib"] == 256
    assert table["host"]["flash_kib"] is None
    assert captured.err == ""
