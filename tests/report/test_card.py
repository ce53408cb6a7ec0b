"""The model card repeats the report and invents nothing."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from embridge_edge.report.card import UNKNOWN, model_card

ORIGIN = {"recordings": "1" * 64, "teacher": "2" * 64}


def card(report: dict[str, Any], split: str | None = "session") -> str:
    return model_card(report, split=split, origin=ORIGIN)


def line(text: str, start: str) -> str:
    (found,) = [line for line in text.splitlines() if line.startswith(start)]
    return found


def test_numbers_are_the_reports(report: dict[str, Any]) -> None:
    text = card(report)
    (row,) = [
        row
        for row in report["results"]
        if (row["model"], row["split"], row["metric"]) == ("student_int8", "session", "balanced_accuracy")
    ]
    cell = f"{100 * row['value']:.1f} % ({100 * row['ci_low']:.1f}–{100 * row['ci_high']:.1f})"
    assert cell in line(text, "| distilled student, int8 |")
    assert line(text, "| student\\_int8.tflite |") == "| student\\_int8.tflite | 72,104 | 57,312 | 1,843,200 | 11,280 |"
    assert "8 channels at 200 Hz, a window of 400 ms" in text
    assert "Division whose model this is: unseen session: trained on every session but each wearer's last" in text
    assert f"Recordings: SHA-256 {'1' * 64}" in text
    assert report["recipe_sha256"] in text
    assert "512 windows of signal in `calibration.safetensors`" in text


def test_spread_is_that_of_the_wearers(report: dict[str, Any]) -> None:
    values = sorted(
        row["value"] for row in report["per_wearer"] if (row["model"], row["split"]) == ("student_int8", "wearer")
    )
    cells = [text.strip() for text in line(card(report), "| unseen wearers | 32 |").strip("|").split("|")]
    assert cells[2] == f"{100 * values[0]:.1f} %"
    assert cells[4] == f"{100 * values[-1]:.1f} %"


def test_missed_gates_and_the_worst_gesture_stand_under_limits(report: dict[str, Any]) -> None:
    limits = card(report).partition("## Limits")[2].partition("## Sizes")[0]
    assert "Gate missed: share of windows whose decided gesture int8 changes: 3.04 %, limit ≤ 3.00 %." in limits
    assert "Gate not measured: share of windows that runtimes decide differently" in limits
    (shown,) = [r for r in report["confusions"] if (r["model"], r["split"]) == ("student_int8", "session")]
    recalls = {
        name: row[i] / sum(row) for i, (name, row) in enumerate(zip(shown["gestures"], shown["counts"], strict=True))
    }
    worst = min(recalls, key=lambda name: recalls[name])
    said = f"Worst gesture, unseen session: {worst.replace('_', ' ')} with recall {100 * recalls[worst]:.1f} %"
    assert said in limits


def test_nobodys_name_and_no_time_is_in_it(report: dict[str, Any]) -> None:
    """A card travels further than a report, and equal runs give equal cards."""
    text = card(report)
    assert not re.search(r"\bp\d\d\b", text)
    changed = report | {
        "created": "2031-01-01",
        "minutes": [],
        "wall_minutes": 9.9,
        "host": {"cpu": "another"},
        "latency": [row | {"p50_ms": 99.0} for row in report["latency"]],
    }
    assert card(changed) == text


def test_what_was_not_measured_is_not_known_until_it_is(report: dict[str, Any]) -> None:
    text = card(report)
    assert "Not known: latency on the target" in text
    assert "Not known: false activations per hour" in text
    assert "Not known: energy" in text
    assert "on people of whom nothing was trained on" not in text
    board = report["latency"][0] | {"source": "nRF52840 board, cycle counter"}
    text = card(report | {"latency": [board], "results": [r for r in report["results"] if r["split"] == "session"]})
    assert "latency on the target" not in text
    assert "Not known: how it does on people of whom nothing was trained on" in text


@pytest.mark.parametrize("content", [{}, {"data": {}, "results": [], "gates": None, "artifacts": []}])
def test_empty_report_makes_a_card_of_unknowns(content: dict[str, Any]) -> None:
    text = model_card(content, split=None, origin={})
    for section in ("Accuracy", "Spread over wearers", "Sizes"):
        assert text.partition(f"## {section}\n\n")[2].startswith("Not known: ")
    for start in ("Licence of the recordings", "Division whose model this is", "Windows", "Seed", "Versions", "Length"):
        assert line(text, f"* {start}: ").partition(": ")[2].startswith(UNKNOWN)
    assert "None" not in text
    assert "nan" not in text


def test_any_part_may_be_missing(report: dict[str, Any]) -> None:
    chance = random.Random(3)
    for _ in range(60):
        thinned = {key: value for key, value in report.items() if chance.random() < 0.6}
        for key, value in thinned.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                rows = [dict.fromkeys(row) if chance.random() < 0.3 else row for row in value]
                thinned[key] = [row for row in rows if chance.random() < 0.8]
            elif isinstance(value, dict):
                thinned[key] = {name: item if chance.random() < 0.7 else None for name, item in value.items()}
        text = card(thinned)
        assert "None" not in text
        assert text.count("\n## ") == 7


def test_poses_without_gestures(poses: dict[str, Any]) -> None:
    text = card(poses, "repetition")
    assert "the model reads joint angles of the hand" in text
    assert "one wearer has none" in text


def test_licence_of_the_recordings_is_quoted(report: dict[str, Any]) -> None:
    licence = {"file": "LICENSE", "first_line": "Creative | <b>Commons</b>"}
    text = card(report | {"data": report["data"] | {"licence": licence}})
    assert "LICENSE lies with them and begins “Creative \\| &lt;b>Commons&lt;/b>”" in text


def test_names_cannot_break_the_page(report: dict[str, Any]) -> None:
    text = card(
        report | {"title": "a\n# b | c", "data": report["data"] | {"name": "x\n\n## y", "gestures": ["a\n* b"]}}
    )
    assert text.count("\n# ") == 0
    assert text.count("\n## ") == 7
    assert "\n* b" not in text
