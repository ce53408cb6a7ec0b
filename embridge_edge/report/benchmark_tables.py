"""Tables of the benchmark, for the terminal, for Markdown and for the page alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from statistics import median, stdev
from typing import Any

from embridge_edge.learning.paired import Difference, Summary, summary
from embridge_edge.report import reading, words
from embridge_edge.report.benchmark_reading import Benchmark, group_name
from embridge_edge.report.blocks import Cell, Kind, Table, named, numeric, table

COLUMNS = {
    "lp_seen": "LP seen",
    "zs_seen": "ZS seen",
    "lp_unseen": "LP unseen",
    "zs_unseen": "ZS unseen",
    "zs_all_seen": "among all: seen",
    "zs_all_unseen": "among all: unseen",
    "zs_harmonic": "harmonic",
}
"""Columns of the table of embridge.md, and zero-shot among all gestures."""

BY_WORDS = {
    "attr_seen": "seen",
    "attr_unseen": "unseen",
    "attr_all_seen": "among all: seen",
    "attr_all_unseen": "among all: unseen",
    "attr_harmonic": "harmonic",
}

R2 = "R²"

COMPARED = (("lp_unseen", "zs_unseen", "zs_harmonic"), ("lp_seen", "zs_seen"), ("r2",))
"""What differences are given in: of these, the first that was judged at all. Unseen gestures are what the method is for; where none was
held out seen ones are, and where there are no gestures the angles."""

CURVED = ("zs_unseen", "zs_harmonic", "lp_unseen")
_SHOTS = re.compile(r"few_shot_(others_)?(\d+)")
NONE = Cell("–", "quiet")


def all_tables(benchmark: Benchmark) -> list[Table]:
    """What the terminal and Markdown show, in order."""
    groups = benchmark.groups()
    found = [results_table(benchmark, group) for group in groups]
    found += [difference_table(benchmark, group) for group in groups]
    found += [divisions_table(benchmark, group) for group in groups]
    found += [words_table(benchmark, group) for group in groups]
    found += [angles_table(benchmark, group) for group in groups]
    found += [shots_table(benchmark, group) for group in groups]
    found += [shares_table(benchmark, group) for group in groups]
    return [one for one in found if one is not None]


def results_table(benchmark: Benchmark, group: str, suffix: str = "") -> Table | None:
    what = "macro F1" if suffix else "balanced accuracy"
    found = _arms_by(benchmark, group, {metric + suffix: title for metric, title in COLUMNS.items()})
    if found is None:
        return None
    rows, columns = found
    if not suffix:
        rows = [*rows, *_chance(benchmark, len(columns) - 1, group)]
    note = (
        f"LP: linear probe on the frozen embedding. ZS: nearest poses. {_counted(benchmark, group)} Mean over wearers, then mean ± "
        "deviation over seeds. Chance counts every gesture, with a pose or without."
    )
    return table(f"{words.capital(what)}, {group_name(group)}", columns, rows, note)


def _arms_by(benchmark: Benchmark, group: str, titles: Mapping[str, str]) -> tuple[list[list[Cell]], list[Any]] | None:
    """Rows arms, columns metrics; None where nothing was measured."""
    kept = [metric for metric in titles if (group, metric) in benchmark.scores]
    rows = []
    for arm, title in benchmark.arms.items():
        cells = [benchmark.summary(arm, group, metric) for metric in kept]
        if any(cells):
            rows.append([Cell(title), *map(summary_cell, cells)])
    return (rows, [named("arm"), *(numeric(titles[metric]) for metric in kept)]) if rows else None


def _chance(benchmark: Benchmark, columns: int, group: str) -> list[list[Cell]]:
    """What guessing gives, where the data say how many gestures there are."""
    everything = len(reading.texts(reading.record(benchmark.report, "data").get("gestures")))
    held_out = {len(reading.texts(row.get("unseen"))) for row in reading.rows(benchmark.report, "divisions")}
    unseen = held_out.pop() if len(held_out) == 1 else 0
    seen = everything - unseen
    if unseen < 1 or seen < 1:
        return []
    kept = [metric for metric in COLUMNS if (group, metric) in benchmark.scores]
    among = [
        everything if "all" in name or "harmonic" in name else unseen if "unseen" in name else seen for name in kept
    ]
    return [[Cell("chance", "quiet"), *(Cell(plain(1 / many), "quiet") for many in among[:columns])]]


def difference_table(benchmark: Benchmark, group: str) -> Table | None:
    """Arms in pairs: difference, interval and verdict in each of the compared metrics."""
    judged = ([metric for metric in metrics if (group, metric) in benchmark.scores] for metrics in COMPARED)
    kept = next(filter(None, judged), [])
    by_metric = {
        metric: {(one.arm, one.reference): one for one in benchmark.differences(group, metric)} for metric in kept
    }
    rows = []
    for pair in benchmark.comparisons():
        cells = [by_metric[metric].get(pair) for metric in kept]
        if any(cells):
            names = [benchmark.arms.get(name, name) for name in pair]
            gaps = [cell for found in cells for cell in _difference(found)]
            rows.append([Cell(names[0], note=f"against {names[1]}"), *gaps])
    if not rows:
        return None
    counts = {(one.wearers, one.seeds) for found in by_metric.values() for one in found.values()}
    pairs = " or ".join(
        f"{words.count(wearers, 'wearer')} × {words.count(seeds, 'seed')}" for wearers, seeds in sorted(counts)
    )
    note = (
        f"Paired over {pairs}; the 95 % interval is that of a two-way bootstrap. Above or below only where it excludes 0. "
        + _caution(counts)
    )
    columns = [
        named("arm"),
        *(numeric(title) for metric in kept for title in (COLUMNS.get(metric, R2), f"95{words.SPACE}% interval")),
    ]
    what = R2 if kept == ["r2"] else "balanced accuracy"
    return table(f"Differences in {what}, {group_name(group)}", columns, rows, note.strip())


def _caution(counts: Iterable[tuple[int, int]]) -> str:
    seeds = min((seeds for _, seeds in counts), default=0)
    if seeds == 1:
        return "One seed: the intervals say nothing about another training of the same arms."
    return f"With {seeds} seeds the intervals see only a part of the spread between trainings." if seeds < 5 else ""


def divisions_table(benchmark: Benchmark, group: str) -> Table | None:
    """Rows what was held out in turn, columns arms: zero-shot among what was held out; None where there is one division."""
    metric = "zs_unseen"
    arms = [arm for arm in benchmark.arms if benchmark.summary(arm, group, metric)]
    rows = []
    for division in reading.rows(benchmark.report, "divisions"):
        scores = benchmark.divided.get((str(division.get("name")), group, metric), ())
        cells = [summary(scores, arm, group, metric) for arm in arms]
        if any(cells):
            rows.append([Cell(", ".join(reading.texts(division.get("unseen")))), *map(summary_cell, cells)])
    if len(rows) < 2:
        return None
    columns = [named("held out"), *(numeric(benchmark.arms[arm]) for arm in arms)]
    note = f"{COLUMNS[metric]}: nearest poses, among what was held out alone. {_counted(benchmark, group)} Mean over wearers."
    return table(f"Each division by itself, balanced accuracy, {group_name(group)}", columns, rows, note)


def words_table(benchmark: Benchmark, group: str) -> Table | None:
    found = _arms_by(benchmark, group, BY_WORDS)
    if found is None:
        return None
    note = "Zero-shot by attributes instead of poses: direct attribute prediction, learnt on the seen gestures."
    return table(f"Semantic zero-shot, balanced accuracy, {group_name(group)}", found[1], found[0], note)


def angles_table(benchmark: Benchmark, group: str) -> Table | None:
    found = _arms_by(benchmark, group, {"r2": R2})
    return None if found is None else table(f"R² of the joint angles, {group_name(group)}", found[1], found[0])


def shots_table(benchmark: Benchmark, group: str) -> Table | None:
    """Rows arm and giver, columns numbers of shots."""
    counts = shot_counts(benchmark, group)
    rows = []
    for others, giver in (("", "own windows"), ("others_", "another wearer's")):
        for arm, title in benchmark.arms.items():
            cells = [benchmark.summary(arm, group, f"few_shot_{others}{count}") for count in counts]
            if any(cells):
                rows.append([Cell(title, note=giver), *map(summary_cell, cells)])
    if not rows:
        return None
    columns = [named("arm and whose windows"), *(numeric(words.count(count, "shot")) for count in counts)]
    note = "Among the unseen gestures, nearest class mean on the frozen embedding; mean over draws and wearers, ± deviation over seeds."
    return table(f"Few-shot, balanced accuracy, {group_name(group)}", columns, rows, note)


def shot_counts(benchmark: Benchmark, group: str) -> list[int]:
    found = (_SHOTS.fullmatch(metric) for metric in benchmark.metrics(group))
    return sorted({int(match[2]) for match in found if match})


def shares_table(benchmark: Benchmark, group: str) -> Table | None:
    """Rows arm and metric, columns shares of the training data; the whole of it is the main table's."""
    shares = share_percents(benchmark, group)
    if not shares:
        return None
    rows = []
    for metric in CURVED:
        for arm, title in benchmark.arms.items():
            cells = [at_share(benchmark, arm, group, metric, share) for share in shares]
            if any(cells[:-1]):
                rows.append([Cell(title, note=COLUMNS[metric]), *map(summary_cell, cells)])
    columns = [named("arm and metric"), *(numeric(f"{share:g}{words.SPACE}%") for share in shares)]
    note = "Trained on a share of the recordings, whole and nested; 100 % is the main table's."
    return table(f"Data efficiency, balanced accuracy, {group_name(group)}", columns, rows, note) if rows else None


def share_percents(benchmark: Benchmark, group: str) -> list[float]:
    """Shares below the whole that were trained on, and the whole."""
    found = {
        share
        for metric in benchmark.metrics(group)
        if metric.partition("@")[0] in CURVED and "@" in metric
        for share in [_percent(metric.partition("@")[2])]
        if share is not None
    }
    return sorted(found | {100.0}) if found else []


def _percent(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def at_share(benchmark: Benchmark, arm: str, group: str, metric: str, share: float) -> Summary | None:
    found = benchmark.summary(arm, group, f"{metric}@{share:g}")
    return benchmark.summary(arm, group, metric) if found is None and share == 100 else found


def wearers_table(benchmark: Benchmark, group: str, metric: str) -> Table | None:
    rows = []
    for arm, title in benchmark.arms.items():
        found = benchmark.summary(arm, group, metric)
        if found is not None and found.wearers > 1:
            ordered = sorted(found.by_wearer, key=lambda wearer: found.by_wearer[wearer])
            values = list(found.by_wearer.values())
            rows.append(
                [
                    Cell(title),
                    Cell(plain(min(values)), note=ordered[0]),
                    Cell(plain(median(values))),
                    Cell(plain(max(values)), note=ordered[-1]),
                    Cell(f"±{words.SPACE}{plain(stdev(values))}"),
                ]
            )
    if not rows:
        return None
    columns = [named("arm"), *map(numeric, ("worst wearer", "median", "best wearer", "spread"))]
    return table(
        f"{COLUMNS[metric]} over wearers, {group_name(group)}", columns, rows, "Each wearer's mean over seeds."
    )


def summary_cell(found: Summary | None) -> Cell:
    if found is None:
        return NONE
    deviation = "" if found.deviation is None else f"{words.SPACE}±{words.SPACE}{plain(found.deviation)}"
    return Cell(f"{plain(found.mean)}{deviation}")


def _difference(found: Difference | None) -> list[Cell]:
    """The difference, and its interval with the verdict."""
    if found is None:
        return [NONE, NONE]
    kind: Kind = {"above": "good", "below": "bad"}.get(found.verdict, "quiet")  # type: ignore[assignment]
    return [Cell(signed(found.value), kind), Cell(interval_text(found), kind, note=found.verdict)]


def interval_text(found: Difference) -> str:
    if found.ci_low is None or found.ci_high is None:
        return "no interval"
    return f"[{signed(found.ci_low)},{words.SPACE}{signed(found.ci_high)}]"


def plain(value: float) -> str:
    """As in embridge.md: three decimals without the zero before the point; more where three would say that it is 0."""
    if value < 0:
        return "−" + plain(-value)
    decimals = next((many for many in (3, 4, 5) if value == 0 or round(value, many) > 0), 6)
    return f"{value:.{decimals}f}".removeprefix("0")


def signed(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{plain(value)}"


def _counted(benchmark: Benchmark, group: str) -> str:
    rows = [row for (own, _), scores in benchmark.scores.items() if own == group for row in scores]
    wearers, seeds = len({row.wearer for row in rows}), len({row.seed for row in rows})
    return f"{words.capital(words.count(wearers, 'wearer'))}, {words.count(seeds, 'seed')}."
