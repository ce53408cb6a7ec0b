"""The report for a terminal and for a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embridge_edge.report import reading, words
from embridge_edge.report.reading import Report, Row
from embridge_edge.report.verdict import gate_numbers, ordered_gates, outcome


def text_summary(report: Mapping[str, Any]) -> str:
    """Gates, models by splits with intervals, what int8 costs, and minutes per step, for a terminal."""
    known = reading.cleaned(dict(report))
    parts = (_heading(known), _gates(known), _models(known), _device(known), _minutes(known))
    return "\n\n".join("\n".join(part) for part in parts if part).replace(words.SPACE, " ")


def table_markdown(report: Mapping[str, Any]) -> str:
    """Models by splits in the main metric with intervals, as a GitHub table that says its n; empty without results."""
    known = reading.cleaned(dict(report))
    metric, found = reading.main_metric(known), reading.results(known, reading.main_metric(known))
    if not found:
        return ""
    groups = reading.groups(found)
    head = [words.metric_name(metric), *(f"{words.split_name(split)}{_of(data, groups)}" for data, split in groups)]
    lines = [head, ["---", *("---:" for _ in groups)], *_by_model(metric, found, groups)]
    rows = "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)
    said = "; ".join(
        f"{words.split_name(split)}{_of(data, groups)}: {_n(reading.in_group(found, (data, split)))}"
        for data, split in groups
    )
    interval = (
        "95 % bootstrap interval over wearers"
        if any(words.number(row.get("ci_low")) is not None for row in found)
        else "no interval"
    )
    return f"{rows}\n\nMean over wearers, {interval}. {_escaped(words.capital(said))}.\n".replace(words.SPACE, " ")


def _heading(report: Report) -> list[str]:
    target, recipe = reading.target_name(report), reading.record(report, "recipe").get("name")
    facts = [target if target != "the target" else "", f"recipe {recipe}" if recipe else ""]
    facts.append(f"seed {report['seed']}" if report.get("seed") is not None else "")
    return [" · ".join(item for item in (str(report.get("title") or "embridge-edge report"), *facts) if item)]


def _gates(report: Report) -> list[str]:
    lines = []
    for gate in ordered_gates(report):
        value, limit = gate_numbers(gate)
        state = {True: "passed", False: "MISSED"}.get(gate.get("ok"), "not measured")  # type: ignore[arg-type]
        lines.append([state, str(gate.get("name") or "gate"), value, limit, str(gate.get("what") or "")])
    return [f"{outcome(report)[0]}.", *_aligned(lines, left=(0, 1, 4), indent="  ")]


def _models(report: Report) -> list[str]:
    metric = reading.main_metric(report)
    found = reading.results(report, metric)
    if not found:
        return ["No model was judged."]
    groups = reading.groups(found)
    lines = [["", *(f"{words.split_name(split)}{_of(data, groups)}" for data, split in groups)]]
    lines += _by_model(metric, found, groups)
    lines.append(["n", *(_n(reading.in_group(found, group)) for group in groups)])
    return [
        f"{words.capital(words.metric_name(metric))}, mean over wearers (95 % interval over wearers)",
        *_aligned(lines, left=(0,), indent="  "),
    ]


def _device(report: Report) -> list[str]:
    lines = []
    for metric in ("class_flips", "mean_removed_error"):
        for row in reading.results(report, metric):
            n = f"{words.split_name(row.get('split'))}, {words.count(row.get('n'), 'window')}"
            lines.append([words.metric_name(metric), _value(metric, row), n])
    for form in reading.rows(reading.record(report, "quantization"), "forms"):
        if form.get("name") in ("ptq", "qat"):
            flips = words.quantity("class_flips", form.get("class_flips"))
            error = words.quantity("mean_removed_error", form.get("mean_removed_error"))
            what = f"class flips, mean-removed error {error}; {words.count(form.get('windows'), 'window')}"
            lines.append([words.form_name(form.get("name")), flips, what])
    artifact = reading.shipped_artifact(report)
    if artifact is not None:
        lines.append(["model file", words.quantity("bytes", artifact.get("bytes")), str(artifact.get("path") or "")])
        lines.append(["tensor arena", words.quantity("bytes", artifact.get("arena_bytes")), "TFLM on the host"])
    if package := reading.record(report, "package"):
        tests = ", ".join(
            f"{place} {'passed' if passed else 'FAILED'}"
            for place, passed in reading.record(package, "selftests").items()
        )
        compared = f"{words.count(package.get('inputs_checked'), 'input')} compared, {words.count(package.get('mismatches'))} differ"
        lines.append(
            [
                "C package",
                words.count(len(reading.texts(package.get("files"))), "file"),
                f"{compared}; self-test: {tests or 'not run'}",
            ]
        )
    for row in reading.rows(report, "latency")[:3]:
        what = f"{row.get('artifact') or 'model'}, {words.runtime_name(row.get('runtime'))}, median of {words.count(row.get('n'), 'run')}; "
        what += "not the target" if reading.on_host(row) else str(row["source"])
        lines.append(
            [
                "latency on this host" if reading.on_host(row) else "latency",
                words.quantity("p50_ms", row.get("p50_ms")),
                what,
            ]
        )
    return _aligned(lines, left=(0, 2))


def _minutes(report: Report) -> list[str]:
    lines = [
        [str(row.get("step") or "step"), _time(row.get("minutes")), "cached" if row.get("cached") is True else ""]
        for row in reading.rows(report, "minutes")
    ]
    spent = sum(
        words.number(row.get("minutes")) or 0.0
        for row in reading.rows(report, "minutes")
        if row.get("cached") is not True
    )
    return (
        ["Minutes per step", *_aligned([*lines, ["computed", f"{spent:.1f}", ""]], left=(0, 2), indent="  ")]
        if lines
        else []
    )


def _time(value: object) -> str:
    real = words.number(value)
    return words.NOT_MEASURED if real is None else f"{real:.1f}" if real >= 0.05 or real == 0 else "<0.1"


def _by_model(metric: str, found: Sequence[Row], groups: Sequence[tuple[str, str]]) -> list[list[str]]:
    return [
        [words.model_name(model), *(_value(metric, _at(found, group, model)) for group in groups)]
        for model in reading.models(found)
    ]


def _at(found: Sequence[Row], group: tuple[str, str], model: str) -> Row | None:
    return reading.of_model(reading.in_group(found, group), model)


def _value(metric: str, row: Row | None) -> str:
    if row is None:
        return words.NOT_MEASURED
    between = words.interval(metric, row.get("ci_low"), row.get("ci_high")).removesuffix(f"{words.SPACE}%")
    return words.quantity(metric, row.get("value")) + (f" ({between})" if between else "")


def _n(found: Sequence[Row]) -> str:
    """Wearers and windows; models of one split are judged on the same ones."""
    row = max(found, key=lambda row: words.number(row.get("n")) or 0.0)
    return f"{words.count(row.get('n_groups'), 'wearer')}, {words.count(row.get('n'), 'window')}"


def _of(data: str, groups: Sequence[tuple[str, str]]) -> str:
    return f" ({data})" if len({name for name, _ in groups}) > 1 else ""


def _escaped(text: str) -> str:
    """Text that a GitHub table cannot take for markup."""
    plain = " ".join(text.split()).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for mark in "|`*_[]":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def _aligned(lines: Sequence[Sequence[str]], left: tuple[int, ...], indent: str = "") -> list[str]:
    """Columns of one width; those in `left` begin on one line, the others end on one."""
    if not lines:
        return []
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return [(indent + line).rstrip() for line in aligned]
