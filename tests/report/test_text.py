"""What the terminal and the README get."""

from __future__ import annotations

from typing import Any

import pytest

from embridge_edge.report import table_markdown, text_summary, words


def test_summary_has_models_by_split_with_intervals_gates_and_minutes(report: dict[str, Any]) -> None:
    text = text_summary(report)
    assert "1 of 7 gates missed, 1 not measured." in text
    assert "MISSED" in text and "3.04 %" in text
    line = next(line for line in text.splitlines() if "distilled student, int8" in line)
    assert line.count("(") == 2 and line.count("%") == 2
    assert "32 wearers, 41,210 windows" in text
    assert "read recordings" in text and "cached" in text
    assert max(map(len, text.splitlines())) <= 150
    assert "\u00a0" not in text


def test_summary_has_both_int8_models_where_one_was_trained_with_rounding(report: dict[str, Any]) -> None:
    assert "trained with rounding" not in text_summary(report)
    report["quantization"]["forms"] = [
        {"name": "float", "windows": 1000, "class_flips": 0.0, "mean_removed_error": 0.0, "balanced_accuracy": 0.7},
        {"name": "ptq", "windows": 1000, "class_flips": 0.021, "mean_removed_error": 0.052, "balanced_accuracy": 0.69},
        {"name": "qat", "windows": 1000, "class_flips": 0.012, "mean_removed_error": 0.031, "balanced_accuracy": 0.7},
    ]
    lines = text_summary(report).splitlines()
    plain, trained = (next(line for line in lines if name in line) for name in ("quantized as it is", "with rounding"))
    assert "2.1 %" in plain and "0.052" in plain and "1.2 %" in trained and "0.031" in trained


def test_summary_of_nothing_is_short() -> None:
    assert text_summary({}) == "embridge-edge report\n\nNo gate was set.\n\nNo model was judged."


def test_summary_of_one_wearer_has_no_interval(poses: dict[str, Any]) -> None:
    text = text_summary(poses)
    assert "R² of the joint angles" in text
    assert "0.488\n" in text


def test_summary_steers_no_terminal(report: dict[str, Any]) -> None:
    report["title"] = "\x1b[2Jgone\x07"
    assert not {"\x1b", "\x07"} & set(text_summary(report))


def test_markdown_is_a_table_that_says_its_n(report: dict[str, Any]) -> None:
    lines = table_markdown(report).splitlines()
    assert lines[0] == "| balanced accuracy | unseen session | unseen wearers |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:7]] == [
        "LDA, 5 time-domain features",
        "supervised network of the teacher's size",
        "EMBridge teacher",
        "distilled student, float",
        "distilled student, int8",
    ]
    assert "Unseen session: 32 wearers, 41,210 windows" in lines[-1]


def test_markdown_of_nothing_is_empty() -> None:
    assert table_markdown({}) == ""


def test_markdown_escapes_names(report: dict[str, Any]) -> None:
    report["results"] = [row | {"model": "a|b<i>"} for row in report["results"] if row["model"] == "lda"]
    assert "| a\\|b&lt;i> |" in table_markdown(report)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("balanced_accuracy", 0.6684, "66.8 %"),
        ("class_flips", 0.0041, "0.41 %"),
        ("parity_within_one", 0.99987, "99.99 %"),
        ("class_flips", 0.0, "0.0 %"),
        ("accuracy", 1.0, "100.0 %"),
        ("int8_loss", 0.005, "0.5 points"),
        ("mean_removed_error", 0.0413, "0.041"),
        ("r2", -0.2, "−0.200"),
        ("tflite_bytes", 72_104, "72,104 B (70.4 KiB)"),
        ("parity_max_steps", 1, "1 step"),
        ("p50_ms", 6.412, "6.41 ms"),
        ("p50_ms", 0.02948, "29.5 µs"),
        ("rate_hz", 200.0, "200 Hz"),
        ("macs", 1_843_200, "1,843,200"),
        ("accuracy", None, "not measured"),
        ("accuracy", float("nan"), "not measured"),
    ],
)
def test_quantity_has_its_unit(name: str, value: float | None, text: str) -> None:
    assert words.quantity(name, value).replace(words.SPACE, " ") == text
