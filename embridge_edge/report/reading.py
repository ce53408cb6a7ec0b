"""Questions to the dictionary of `report.json`. Every section may be missing and every value may be None."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from embridge_edge.artifacts import finite
from embridge_edge.report.words import BASELINES, SHIPPED, model_rank, number, split_rank

Report = Mapping[str, Any]
Row = Mapping[str, Any]

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]")


def cleaned(value: Any) -> Any:
    """`value` without NaN and without characters that XML forbids, or that steer a terminal or the text's direction."""
    return _printable(finite(value))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return value


def rows(report: Report, key: str) -> list[Row]:
    """The rows of a section; none where it is missing."""
    value = report.get(key)
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def record(report: Report, key: str) -> Row:
    """A section that is one record; empty where it is missing."""
    value = report.get(key)
    return value if isinstance(value, Mapping) else {}


def texts(value: object) -> list[str]:
    """A list of words, from a list or from a single word."""
    if isinstance(value, str):
        return [value] if value else []
    return [str(item) for item in value if item is not None] if isinstance(value, Sequence) else []


def results(report: Report, metric: str | None = None) -> list[Row]:
    """Results that have a value, by split and then by model."""
    found = [
        row
        for row in rows(report, "results")
        if number(row.get("value")) is not None and metric in (None, row.get("metric"))
    ]
    return sorted(
        found, key=lambda row: (str(row.get("data")), split_rank(row.get("split")), model_rank(row.get("model")))
    )


def main_metric(report: Report) -> str:
    """Balanced accuracy where there are classes, else R² of the joint angles, else whatever was measured first."""
    measured = [str(row.get("metric")) for row in results(report)]
    for metric in ("balanced_accuracy", "r2", "zero_shot_balanced_accuracy", "zero_shot_unseen_balanced_accuracy"):
        if metric in measured:
            return metric
    return measured[0] if measured else "balanced_accuracy"


def groups(found: Sequence[Row]) -> list[tuple[str, str]]:
    """(data, split) of results, in order."""
    return list(dict.fromkeys((str(row.get("data")), str(row.get("split"))) for row in found))


def models(found: Sequence[Row]) -> list[str]:
    """Models of results, in order."""
    return sorted({str(row.get("model")) for row in found}, key=model_rank)


def in_group(found: Sequence[Row], group: tuple[str, str]) -> list[Row]:
    return [row for row in found if (str(row.get("data")), str(row.get("split"))) == group]


def of_model(found: Sequence[Row], model: str) -> Row | None:
    return next((row for row in found if str(row.get("model")) == model), None)


def shipped_model(names: Sequence[str]) -> str | None:
    """The model that a report is about: the int8 student, else what comes nearest to it."""
    return next((name for name in SHIPPED if name in names), None) or next(
        (name for name in reversed(names) if name not in BASELINES), None
    )


def baseline_model(names: Sequence[str]) -> str | None:
    """LDA, or ridge regression where there are no classes."""
    return next((name for name in BASELINES if name in names), None)


def shipped_artifact(report: Report) -> Row | None:
    """The file that goes to the target: the int8 .tflite, else any .tflite, else the first file."""
    artifacts = rows(report, "artifacts")
    words = [f"{row.get('path')} {row.get('kind')}".lower() for row in artifacts]
    for wanted in (("tflite", "int8"), ("tflite",), ("int8",)):
        for row, text in zip(artifacts, words, strict=True):
            if all(word in text for word in wanted):
                return row
    return artifacts[0] if artifacts else None


def on_host(latency: Row) -> bool:
    """Whether a latency is the wall clock of the machine that made the report, rather than of a board."""
    return not latency.get("source") or "host" in str(latency["source"]).lower()


def gesture_count(report: Report, split: str) -> int:
    """How many gestures the models chose from; 0 where that is not known."""
    for row in rows(report, "confusions"):
        if str(row.get("split")) == split and texts(row.get("gestures")):
            return len(texts(row.get("gestures")))
    return len(texts(record(report, "data").get("gestures")))


def target_name(report: Report) -> str:
    """What the target is called, "the target" where nobody says."""
    name = record(report, "target").get("name") or record(report, "recipe").get("target")
    return str(name) if name else "the target"
