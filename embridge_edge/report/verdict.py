"""The first thing a reader sees: which gates were passed, and the numbers that everybody asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embridge_edge.report import reading, words
from embridge_edge.report.blocks import Cell, Table, named, numeric, table
from embridge_edge.report.reading import Report, Row

Tone = Literal["good", "bad", "warn", "quiet"]

_AT_LEAST = ("student_balanced_accuracy", "parity_within_one")


@dataclass(frozen=True)
class Tile:
    """A number that everybody asks for, with what it was measured on."""

    title: str
    value: str
    detail: str
    missing: bool = False


@dataclass(frozen=True)
class Verdict:
    """Headline, tone, one sentence, the key numbers and the gates, missed ones first."""

    headline: str
    tone: Tone
    sentence: str
    tiles: tuple[Tile, ...]
    gates: Table | None


def verdict(report: Report) -> Verdict:
    """What a review wants to know before anything else."""
    headline, tone = outcome(report)
    gates = ordered_gates(report)
    rows = [
        [Cell(_what(gate), note=str(gate.get("name") or "")), Cell(_state(gate), _kind(gate)), Cell(value), Cell(limit)]
        for gate in gates
        for value, limit in [gate_numbers(gate)]
    ]
    columns = [named("gate"), named("verdict"), numeric("measured"), numeric("limit")]
    return Verdict(
        headline, tone, _sentence(report), _tiles(report), table("Gates of the recipe", columns, rows) if rows else None
    )


def outcome(report: Report) -> tuple[str, Tone]:
    """Headline and tone."""
    gates = reading.rows(report, "gates")
    states = [gate.get("ok") for gate in gates]
    missed, passed = states.count(False), states.count(True)
    fits = reading.record(report, "target").get("ok") is not False
    nofit = "" if fits else f"the model does not fit {reading.target_name(report)}"
    all_of = f"{len(gates)} {'gate' if len(gates) == 1 else 'gates'}"
    if not gates:
        return (words.capital(nofit), "bad") if nofit else ("No gate was set", "quiet")
    if missed:
        parts = [f"{missed} of {all_of} missed"]
        parts += [f"{len(gates) - passed - missed} not measured"] if passed + missed < len(gates) else []
        return ", ".join([*parts, *([f"and {nofit}"] if nofit else [])]), "bad"
    if passed < len(gates):
        text, tone = f"{passed} of {all_of} passed, {len(gates) - passed} not measured", "warn"
    else:
        text, tone = f"All {all_of} passed" if len(gates) > 1 else "The gate was passed", "good"
    return (f"{text}, but {nofit}", "bad") if nofit else (text, "warn" if tone == "warn" else "good")


def ordered_gates(report: Report) -> list[Row]:
    """Missed gates first, then those that could not be judged, then the passed ones."""
    return sorted(reading.rows(report, "gates"), key=lambda gate: {False: 0, True: 2}.get(gate.get("ok"), 1))  # type: ignore[arg-type]


def gate_numbers(gate: Row) -> tuple[str, str]:
    """Measured value and limit, with as many decimals as it takes to tell them apart."""
    name, value, limit = str(gate.get("name") or ""), words.number(gate.get("value")), words.number(gate.get("limit"))
    shown = (words.quantity(name, value), words.quantity(name, limit))
    for digits in range(1, 5):
        shown = (words.quantity(name, value, digits), words.quantity(name, limit, digits))
        if value is None or limit is None or value == limit or shown[0] != shown[1]:
            break
    return shown[0], f"{_bound(gate)}{words.SPACE}{shown[1]}" if limit is not None else "not set"


def _bound(gate: Row) -> str:
    value, limit, ok = words.number(gate.get("value")), words.number(gate.get("limit")), gate.get("ok")
    if gate.get("name") in _AT_LEAST:
        return "≥"
    # A gate of one's own does not say which way it is meant, but a verdict on two different numbers does.
    above = (
        value is not None and limit is not None and ((ok is True and value > limit) or (ok is False and value < limit))
    )
    return "≥" if above else "≤"


def _state(gate: Row) -> str:
    return {True: "✓ passed", False: "✗ missed"}.get(gate.get("ok"), "not measured")  # type: ignore[arg-type]


def _kind(gate: Row) -> Literal["good", "bad", "missing"]:
    ok = gate.get("ok")
    return "good" if ok is True else "bad" if ok is False else "missing"


def _what(gate: Row) -> str:
    return words.capital(str(gate.get("what") or str(gate.get("name") or "gate").replace("_", " ")))


def _sentence(report: Report) -> str:
    missed = []
    for gate in reading.rows(report, "gates"):
        if gate.get("ok") is False:
            value, limit = gate_numbers(gate)
            missed.append(f"{_what(gate)}: {value}, the limit is {limit}")
    return f"{'; '.join(missed)}." if missed else ""


def _tiles(report: Report) -> tuple[Tile, ...]:
    return (
        *_accuracy_tiles(report),
        _flips_tile(report),
        _size_tile(report),
        _arena_tile(report),
        _latency_tile(report),
    )


def _accuracy_tiles(report: Report) -> list[Tile]:
    metric = reading.main_metric(report)
    found = reading.results(report, metric)
    model, beside = reading.shipped_model(reading.models(found)), reading.baseline_model(reading.models(found))
    tiles = []
    for group in reading.groups(found)[:3]:
        row = reading.of_model(reading.in_group(found, group), model or "")
        if row is None:
            continue
        base = reading.of_model(reading.in_group(found, group), beside or "")
        parts = [words.interval(metric, row.get("ci_low"), row.get("ci_high")) or "no interval (fewer than 3 wearers)"]
        if base is not None:
            parts.append(f"{words.model_short(beside)} {words.quantity(metric, base.get('value'))}")
        parts.append(words.count(row.get("n_groups"), "wearer"))
        title = f"{words.metric_name(metric)}, {words.split_name(group[1])}"
        parts = [words.model_short(model), *parts]
        tiles.append(Tile(words.capital(title), words.quantity(metric, row.get("value")), " · ".join(parts)))
    return tiles or [
        Tile(words.capital(words.metric_name(metric)), words.NOT_MEASURED, "no result in this report", missing=True)
    ]


def _flips_tile(report: Report) -> Tile:
    found = reading.results(report, "class_flips")
    if not found:
        return Tile(
            "Class flips, float to int8", words.NOT_MEASURED, "share of decisions that int8 changes", missing=True
        )
    worst = max(found, key=lambda row: float(row["value"]))
    detail = f"of {words.count(worst.get('n'), 'window')}, {words.split_name(worst.get('split'))}"
    return Tile("Class flips, float to int8", words.quantity("class_flips", worst.get("value")), detail)


def _size_tile(report: Report) -> Tile:
    artifact = reading.shipped_artifact(report) or {}
    value = words.number(artifact.get("bytes"))
    if value is None:
        return Tile("Model file", words.NOT_MEASURED, "size of the exported model", missing=True)
    parameters = artifact.get("parameters")
    detail = [str(artifact.get("path") or artifact.get("kind") or "")]
    if words.number(parameters) is not None:
        detail.append(words.count(parameters, "parameter"))
    return Tile("Model file", words.kib(value), " · ".join(item for item in detail if item))


def _arena_tile(report: Report) -> Tile:
    value = words.number((reading.shipped_artifact(report) or {}).get("arena_bytes"))
    if value is None:
        return Tile("Tensor arena", words.NOT_MEASURED, "RAM that TensorFlow Lite Micro needs", missing=True)
    ram = words.number(reading.record(report, "target").get("ram_kib"))
    of = f" · {reading.target_name(report)} has {ram:,g}{words.SPACE}KiB of RAM" if ram is not None else ""
    return Tile("Tensor arena", words.kib(value), f"measured with TFLM on the host{of}")


def _latency_tile(report: Report) -> Tile:
    path = (reading.shipped_artifact(report) or {}).get("path")
    found = [row for row in reading.rows(report, "latency") if words.number(row.get("p50_ms")) is not None]
    row = next((row for row in found if row.get("artifact") == path), found[0] if found else None)
    if row is None:
        return Tile("Latency on this host", words.NOT_MEASURED, "not the target's latency", missing=True)
    detail = f"median of {words.count(row.get('n'), 'run')}, {words.runtime_name(row.get('runtime'))}; "
    detail += "not the target's latency" if reading.on_host(row) else str(row["source"])
    return Tile(
        "Latency on this host" if reading.on_host(row) else "Latency",
        words.quantity("p50_ms", row.get("p50_ms")),
        detail,
    )
