"""Sections about where the numbers come from: chain, data, minutes, recipe, versions, and every result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embridge_edge.report import reading, words
from embridge_edge.report.blocks import Block, Cell, Facts, Section, measured, named, numeric, said, table
from embridge_edge.report.reading import Report


def chain(report: Report) -> Section:
    """What the recipe's times and frequencies became at this sample rate."""
    resolved = reading.record(report, "chain")
    title = "Signal chain, as resolved"
    if not resolved:
        return Section("chain", title, missing="no signal chain was resolved.")
    rate = words.number(resolved.get("rate_hz"))
    pairs = [("Sample rate", words.quantity("rate_hz", rate) if rate is not None else "not stated")]
    band = [words.number(end) for end in resolved.get("bandpass_hz") or ()]
    if len(band) == 2 and band[0] is not None and band[1] is not None:
        pairs.append(("Band-pass, causal", f"{band[0]:g} to {band[1]:g}{words.SPACE}Hz"))
    else:
        pairs.append(("Band-pass", "none"))
    notches = resolved.get("notch_hz")
    known = [
        f"{value:g}"
        for value in map(words.number, notches if isinstance(notches, list | tuple) else [notches])
        if value is not None
    ]
    pairs.append(("Notches", f"{words.listed(known)}{words.SPACE}Hz" if known else "none"))
    for key, name in (("window_ms", "Window"), ("hop_ms", "Hop (one decision each)"), ("frame_ms", "Feature frame")):
        value = words.number(resolved.get(key))
        if value is None:
            pairs.append((name, "none: raw samples" if key == "frame_ms" else "not stated"))
            continue
        samples = f" ({words.count(value * rate / 1000.0, 'sample')})" if rate else ""
        pairs.append((name, f"{value:.5g}{words.SPACE}ms{samples}"))
    shown = {"rate_hz", "bandpass_hz", "notch_hz", "window_ms", "hop_ms", "frame_ms"}
    pairs += [
        (words.capital(str(key).replace("_", " ")), _plain(value))
        for key, value in resolved.items()
        if key not in shown
    ]
    lead = (
        "What the recipe's milliseconds and hertz became for these recordings; the same chain is stored in every file."
    )
    return Section("chain", title, lead, (Facts("Signal chain", tuple(pairs)),))


def data(report: Report) -> Section:
    """Whom and what the recordings hold, and what is wrong with the files."""
    record = reading.record(report, "data")
    if not record:
        return Section("data", "Data", missing="the recordings were not described.")
    gestures = [words.gesture_name(name) for name in reading.texts(record.get("gestures"))]
    hours = words.number(record.get("hours"))
    unit = record.get("unit")
    pairs = [
        ("Data set", str(record.get("name") or "not stated")),
        ("Wearers", words.count(record.get("wearers"))),
        ("Sessions", words.count(record.get("sessions"))),
        ("Recordings", words.count(record.get("recordings"))),
        ("Length", f"{hours:,.3g}{words.SPACE}h" if hours is not None else words.NOT_MEASURED),
        ("Windows", words.count(record.get("windows"))),
        ("Channels", words.count(record.get("channels"))),
        ("Sample rate", words.quantity("rate_hz", record.get("rate_hz"))),
        ("Unit of the samples", str(unit) if unit else "not stated"),
        (
            f"Gestures ({len(gestures)})" if gestures else "Gestures",
            words.listed(gestures, 40) if gestures else "none: the data have no classes",
        ),
    ]
    if licence := reading.record(record, "licence"):
        pairs.append(("Licence file among them", f"{licence.get('file')}: {licence.get('first_line')}"))
    problems = reading.texts(record.get("problems"))
    blocks: list[Block] = [Facts("Recordings", tuple(pairs))]
    if problems:
        rows = [[Cell(str(index)), Cell(problem)] for index, problem in enumerate(problems[:30], start=1)]
        note = f"{len(problems) - 30} more are in report.json." if len(problems) > 30 else ""
        blocks.append(table(f"Problems in files: {len(problems)}", [named("no."), named("problem")], rows, note))
    lead = (
        f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} found in the files."
        if problems
        else "No problem was found in the files."
    )
    return Section("data", "Data", lead if isinstance(record.get("problems"), list) else "", tuple(blocks))


def minutes(report: Report) -> Section:
    """Time per step, and what came from the cache."""
    found = reading.rows(report, "minutes")
    if not found:
        return Section("minutes", "Minutes per step", missing="no step was timed.")
    longest = max((words.number(row.get("minutes")) or 0.0 for row in found), default=0.0) or 1.0
    rows = []
    for row in found:
        value = words.number(row.get("minutes"))
        cached = row.get("cached") is True
        share = value / longest if value is not None else None
        time = Cell(_minutes(value), share=share) if value is not None else measured("minutes", None)
        rows.append([said(row.get("step")), time, Cell("from the cache", "quiet") if cached else Cell("computed")])
    spent = sum(words.number(row.get("minutes")) or 0.0 for row in found if row.get("cached") is not True)
    kept = sum(row.get("cached") is True for row in found)
    lead = f"{_minutes(spent)} computed; {kept} of {words.count(len(found), 'step')} came from the cache."
    return Section(
        "minutes",
        "Minutes per step",
        lead,
        (table("Wall clock on this host", [named("step"), numeric("time"), named("origin")], rows),),
    )


def _minutes(value: float) -> str:
    return f"{value:.1f}{words.SPACE}min" if value >= 0.1 else f"{60 * value:.1f}{words.SPACE}s"


def provenance(report: Report) -> Section:
    """Recipe, seed, hashes, versions and the machine: what it takes to make this again."""
    recipe, host, versions = (reading.record(report, key) for key in ("recipe", "host", "versions"))
    pairs = [
        ("Recipe", str(recipe.get("name") or "not stated")),
        ("Recipe, SHA-256", str(report.get("recipe_sha256") or "not stated")),
        ("Seed", str(report["seed"]) if report.get("seed") is not None else "not stated"),
        ("Made", str(report.get("created") or "time left out, so that equal runs give equal files")),
    ]
    blocks: list[Block] = [Facts("Run", tuple(pairs))]
    if host:
        machine = [
            (words.capital(_machine(key)), _host_value(key, value))
            for key, value in host.items()
            if not isinstance(value, Mapping)
        ]
        blocks.append(Facts("Host", tuple(machine)))
    if versions:
        ordered = sorted(versions.items(), key=lambda item: str(item[0]).lower())
        blocks.append(Facts("Versions", tuple((str(name), _plain(version)) for name, version in ordered)))
    flat = tuple((key, _plain(value)) for key, value in recipe.items() if not isinstance(value, Mapping))
    blocks += [Facts("Recipe", flat)] if flat else []
    blocks += [
        Facts(f"Recipe: {key}", tuple(_flat(value)))
        for key, value in recipe.items()
        if isinstance(value, Mapping) and value
    ]
    return Section("provenance", "Provenance", "", tuple(blocks))


def _machine(key: str) -> str:
    names = {
        "cpu": "processor",
        "os": "operating system",
        "memory_gib": "memory",
        "memory_mib": "memory",
        "python": "Python",
    }
    return names.get(key, key.replace("_", " "))


def _host_value(key: str, value: object) -> str:
    if value is None:
        return "not stated"
    return words.quantity(key, value) if key.startswith("memory") else _plain(value)


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{before}{key}.")
        else:
            yield f"{before}{key}", _plain(item)


def _plain(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or "none"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def everything(report: Report) -> Section:
    """Every result, as it stands in report.json."""
    found = reading.results(report)
    if not found:
        return Section("results", "All results", missing="no result in this report.")
    rows = [
        [
            Cell(words.metric_name(row.get("metric")), note=words.split_name(row.get("split"))),
            Cell(words.model_name(row.get("model")), note=str(row.get("data") or "")),
            measured(str(row.get("metric")), row.get("value")),
            Cell(interval)
            if (interval := words.interval(str(row.get("metric")), row.get("ci_low"), row.get("ci_high")))
            else Cell("none", "quiet"),
            Cell(_spread(row)) if words.number(row.get("spread")) is not None else Cell("none", "quiet"),
            Cell(words.count(row.get("n_groups"), "wearer"), note=words.count(row.get("n"), "window")),
        ]
        for row in sorted(
            found,
            key=lambda row: (_metric_rank(row), words.split_rank(row.get("split")), words.model_rank(row.get("model"))),
        )
    ]
    columns = [
        named("metric and split"),
        named("model"),
        numeric("mean over wearers"),
        numeric("95 % interval"),
        numeric("spread between wearers"),
        numeric("n"),
    ]
    note = "Spread: standard deviation between wearers. No interval below three wearers, no spread below two."
    return Section("results", "All results", "", (table("Every number of report.json's results", columns, rows, note),))


def _spread(row: Mapping[str, Any]) -> str:
    value, metric = float(row["spread"]), str(row.get("metric"))
    return (
        f"±{words.SPACE}{100 * value:.1f}{words.SPACE}points"
        if words.is_fraction(metric)
        else f"±{words.SPACE}{words.significant(value, 2)}"
    )


def _metric_rank(row: Mapping[str, Any]) -> tuple[int, str]:
    names, metric = list(words.METRICS), str(row.get("metric"))
    return (names.index(metric) if metric in names else len(names), metric)
