"""The model card: what whoever gets a bundle must know of its model, in Markdown, from the report's numbers alone.

It holds nothing that depends on the clock or on the machine's speed, so that equal runs give equal cards. What nobody measured or
stated is said to be not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median, stdev
from typing import Any

from embridge_edge.report import reading, words
from embridge_edge.report.learned import worst_gestures
from embridge_edge.report.reading import Report, Row
from embridge_edge.report.text import _escaped, table_markdown
from embridge_edge.report.verdict import gate_numbers, ordered_gates, outcome

UNKNOWN = "not known"
COST_METRICS = ("class_flips", "mean_removed_error")


def model_card(report: Mapping[str, Any], *, split: str | None, origin: Mapping[str, str]) -> str:
    """The card as Markdown.

    Args:
        report: what `report.json` holds; any section may be missing.
        split: the division whose model ships, as its checkpoint names it.
        origin: SHA-256 of what the model was made from, by what that is.
    """
    known = reading.cleaned(dict(report))
    title = _escaped(str(known.get("title") or "not titled"))
    lead = (
        f"Every number is one of `report.json`, every hash one of `manifest.json`. What nobody measured or stated is {UNKNOWN}, "
        "and said to be."
    )
    sections = (
        _purpose(known),
        _data(known, split),
        _accuracy(known),
        _wearers(known),
        _limits(known),
        _sizes(known),
        _making(known, origin),
    )
    return "\n\n".join([f"# Model card: {title}", lead, *sections]).replace(words.SPACE, " ").rstrip() + "\n"


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"* {name}: {text}" for name, text in pairs)


def _stated(value: object) -> str:
    return _escaped(str(value)) if value not in (None, "") else UNKNOWN


def _quantity(name: str, value: object) -> str:
    return words.quantity(name, value) if words.number(value) is not None else UNKNOWN


def _count(value: object) -> str:
    return words.count(value) if words.number(value) is not None else UNKNOWN


def _gestures(report: Report) -> str:
    names = [
        _escaped(words.gesture_name(name)) for name in reading.texts(reading.record(report, "data").get("gestures"))
    ]
    return words.listed(names, 40)


def _purpose(report: Report) -> str:
    chain, data = reading.record(report, "chain"), reading.record(report, "data")
    gestures = _gestures(report)
    what = f"decides for one of {gestures}" if gestures else "reads joint angles of the hand"
    window, hop = (_quantity(f"{key}_ms", chain.get(f"{key}_ms")) for key in ("window", "hop"))
    pairs = (
        ("Task", f"from a window of surface EMG the model {what}"),
        (
            "Input",
            f"{_count(data.get('channels'))} channels at {_quantity('rate_hz', chain.get('rate_hz'))}, a window of {window}",
        ),
        ("A decision is due every", hop),
        ("Made for the target", _stated(reading.record(report, "recipe").get("target"))),
        ("Uses that it must not be put to", f"{UNKNOWN}: nobody stated them"),
        ("Licence of the model", f"{UNKNOWN}: whoever hands it on states it"),
    )
    return f"## What it is for\n\n{_listed(pairs)}"


def _data(report: Report, split: str | None) -> str:
    data = reading.record(report, "data")
    problems = data.get("problems")
    found = words.count(len(problems)) if isinstance(problems, list) else UNKNOWN
    pairs = [
        ("Recordings", _stated(data.get("name"))),
        (
            "Wearers, sessions, recordings",
            ", ".join(_count(data.get(key)) for key in ("wearers", "sessions", "recordings")),
        ),
        ("Length", UNKNOWN if (hours := words.number(data.get("hours"))) is None else f"{hours:,.3g} h"),
        ("Windows", _count(data.get("windows"))),
        ("Unit of the samples", _stated(data.get("unit"))),
        ("Problems found in the files", found),
        ("Licence of the recordings", _licence(data)),
        ("Who the wearers are, and what they agreed to", UNKNOWN),
        ("What of the recordings is in the bundle", _carried(report)),
        ("Division whose model this is", _division(split)),
    ]
    return f"## Data and division\n\n{_listed(pairs)}"


def _licence(data: Row) -> str:
    licence = reading.record(data, "licence")
    if not licence.get("file"):
        return f"{UNKNOWN}: no licence file lies with them"
    return (
        f"{_escaped(str(licence['file']))} lies with them and begins “{_escaped(str(licence.get('first_line') or ''))}”"
    )


def _carried(report: Report) -> str:
    """Signals of people travel with a bundle: whoever hands it on must know."""
    windows = words.number(reading.record(report, "calibration").get("windows"))
    signals = (
        f"{words.count(windows, 'window')} of signal in `calibration.safetensors`" if windows else f"signals {UNKNOWN}"
    )
    names = "what the wearers are called in `report.json`" if reading.rows(report, "per_wearer") else "no wearer's name"
    return f"{signals}; {names}"


def _division(split: str | None) -> str:
    if not split:
        return UNKNOWN
    meaning = words.split_meaning(split)
    return f"{words.split_name(split)}: {meaning}" if meaning else words.split_name(split)


def _accuracy(report: Report) -> str:
    table = table_markdown(report)
    if not table:
        return "## Accuracy\n\nNot known: no model was judged."
    lines = [
        (
            f"{words.capital(words.metric_name(metric))}, {words.split_name(row.get('split'))}",
            _with_interval(metric, row),
        )
        for metric in COST_METRICS
        for row in reading.results(report, metric)
    ]
    costs = f"\n\nWhat int8 changes, mean over wearers with its 95 % interval:\n\n{_listed(lines)}" if lines else ""
    return f"## Accuracy\n\n{table.strip()}{costs}"


def _with_interval(metric: str, row: Row) -> str:
    interval = words.interval(metric, row.get("ci_low"), row.get("ci_high")) or "no interval: fewer than 3 wearers"
    wearers = words.count(row.get("n_groups"), "wearer")
    return f"{words.quantity(metric, row.get('value'))} ({interval}; {wearers}, {words.count(row.get('n'), 'window')})"


def _wearers(report: Report) -> str:
    """The spread of the model that ships; without names, since a card travels further than a report."""
    metric = reading.main_metric(report)
    found = [row for row in reading.rows(report, "per_wearer") if row.get("metric") == metric]
    shipped = reading.shipped_model(reading.models(found))
    own = [row for row in found if row.get("model") == shipped and words.number(row.get("value")) is not None]
    rows = []
    for split in sorted({str(row.get("split")) for row in own}, key=words.split_rank):
        values = [float(row["value"]) for row in own if str(row.get("split")) == split]
        cells = [words.quantity(metric, value) for value in (min(values), median(values), max(values))]
        spread = _spread(metric, stdev(values)) if len(values) > 1 else "one wearer has none"
        rows.append(f"| {words.split_name(split)} | {len(values)} | {' | '.join(cells)} | {spread} |")
    if not rows or shipped is None:
        return "## Spread over wearers\n\nNot known: no result per wearer."
    head = "| | wearers | lowest | median | highest | standard deviation |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    lead = f"{words.capital(words.metric_name(metric))} of the {words.model_name(shipped)}, wearer by wearer:"
    return "\n".join(["## Spread over wearers", "", lead, "", head, *rows])


def _spread(metric: str, value: float) -> str:
    return f"{100 * value:.1f} points" if words.is_fraction(metric) else words.significant(value, 2)


def _limits(report: Report) -> str:
    lines = [f"* Gates of its recipe: {outcome(report)[0]}."]
    for gate in ordered_gates(report):
        if gate.get("ok") is not True:
            value, limit = gate_numbers(gate)
            state = "missed" if gate.get("ok") is False else "not measured"
            lines.append(
                f"* Gate {state}: {_escaped(str(gate.get('what') or gate.get('name') or 'not named'))}: {value}, limit {limit}."
            )
    for split, text in worst_gestures(report):
        lines.append(f"* Worst gesture, {words.split_name(split)}: {_escaped(text)}.")
    saturated = [
        share
        for row in reading.rows(reading.record(report, "calibration"), "channels")
        if (share := words.number(row.get("saturated_share"))) is not None
    ]
    if saturated:
        lines.append(
            f"* At most {words.percent(max(saturated))} of a channel's test samples lie outside the calibration range of the whole input."
        )
    lines += [f"* {words.capital(UNKNOWN)}: {what}." for what, measured in UNMEASURED if not measured(report)]
    return "\n".join(["## Limits", "", *lines])


def _judged(*splits: str) -> Callable[[Report], bool]:
    return lambda report: any(str(row.get("split")) in splits for row in reading.results(report))


def _scored(word: str) -> Callable[[Report], bool]:
    return lambda report: any(word in str(row.get("metric")) for row in reading.results(report))


UNMEASURED: tuple[tuple[str, Callable[[Report], bool]], ...] = (
    ("how it does on people of whom nothing was trained on", _judged("wearer", "emg2pose_user", "emg2pose_user_stage")),
    ("how it does on another session, after the band was taken off", _judged("session", "day")),
    ("false activations per hour of daily life", _scored("per_hour")),
    ("what it does with movements that are none of its gestures", _scored("rejection")),
    (
        "latency on the target; what report.json has was measured on the machine that made the bundle",
        lambda report: any(not reading.on_host(row) for row in reading.rows(report, "latency")),
    ),
    ("energy per decision", lambda report: bool(reading.rows(report, "energy"))),
)
"""What a reader would ask for, and whether a report answers it."""


def _sizes(report: Report) -> str:
    artifacts = reading.rows(report, "artifacts")
    if not artifacts:
        return "## Sizes\n\nNot known: nothing was exported."
    head = "| file | bytes | parameters | multiply-accumulates per window | tensor arena, bytes |\n| --- | ---: | ---: | ---: | ---: |"
    keys = ("bytes", "parameters", "macs", "arena_bytes")
    rows = [f"| {_stated(row.get('path'))} | {' | '.join(_count(row.get(key)) for key in keys)} |" for row in artifacts]
    target, facts = reading.record(report, "target"), []
    for key, name in (("flash", "Flash"), ("ram", "RAM")):
        used, limit = target.get(f"{key}_used_bytes"), target.get(f"{key}_budget_bytes")
        if words.number(used) is not None:
            facts.append(
                (f"{name} of {_escaped(reading.target_name(report))}", f"{_count(used)} of {_count(limit)} bytes")
            )
    facts += [("Note", _escaped(note)) for note in reading.texts(target.get("notes"))]
    arena = "The arena was measured with TensorFlow Lite Micro on the machine that made the bundle."
    return "\n".join(["## Sizes", "", head, *rows, "", arena, *(["", _listed(facts)] if facts else [])])


def _making(report: Report, origin: Mapping[str, str]) -> str:
    recipe, versions = reading.record(report, "recipe"), reading.record(report, "versions")
    pairs = [
        ("Recipe", f"{_stated(recipe.get('name'))}, SHA-256 {_stated(report.get('recipe_sha256'))}"),
        ("Seed", _stated(report.get("seed"))),
        *((_escaped(words.capital(name)), f"SHA-256 {_stated(digest)}") for name, digest in origin.items()),
        ("Calibration windows of int8", _count(reading.record(report, "calibration").get("windows"))),
        (
            "Versions",
            ", ".join(f"{_escaped(str(name))} {_stated(version)}" for name, version in versions.items()) or UNKNOWN,
        ),
    ]
    return f"## How it was made\n\n{_listed(pairs)}\n\nThe whole recipe, and the hash and parents of every file, are in `manifest.json`."
