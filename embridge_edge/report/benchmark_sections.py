"""What stands on the page of the benchmark: verdict, sections, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from embridge_edge.learning.paired import Difference, Summary
from embridge_edge.report import pictures, reading, words
from embridge_edge.report.benchmark_pictures import MOST_LINES, Curve, curves
from embridge_edge.report.benchmark_reading import RIVAL, Benchmark, group_name, notes_of
from embridge_edge.report.benchmark_tables import (
    COLUMNS,
    CURVED,
    NONE,
    angles_table,
    at_share,
    difference_table,
    divisions_table,
    interval_text,
    plain,
    results_table,
    share_percents,
    shares_table,
    shot_counts,
    shots_table,
    signed,
    summary_cell,
    wearers_table,
    words_table,
)
from embridge_edge.report.blocks import Block, Facts, Picture, Section
from embridge_edge.report.pictures import Axis, Estimate, Strip
from embridge_edge.report.verdict import Tile, Tone, Verdict


def verdict_of(benchmark: Benchmark) -> Verdict:
    """Whether EMBridge is above CPEP on unseen gestures, and the numbers that everybody asks for."""
    group = benchmark.groups()[0]
    about = benchmark.subject if benchmark.subject in benchmark.arms else next(iter(benchmark.arms))
    found = {
        group: one
        for group in benchmark.groups()
        for one in benchmark.differences(group, "zs_unseen")
        if (one.arm, one.reference) == (benchmark.subject, RIVAL)
    }
    headline, tone, sentence = f"{words.count(len(benchmark.arms), 'arm')} compared", "quiet", ""
    if found:
        headline = _claim(found, benchmark.arms[benchmark.subject], benchmark.arms[RIVAL])
        verdicts = {one.verdict for one in found.values()}
        tone = "bad" if "below" in verdicts else "good" if verdicts == {"above"} else "warn"
        parts = [
            f"{group_name(group)} {signed(one.value)} {interval_text(one)} over {words.count(one.wearers, 'wearer')} and "
            f"{words.count(one.seeds, 'seed')}"
            for group, one in found.items()
        ]
        sentence = f"Zero-shot among the unseen: {'; '.join(parts)}."
    tiles = []
    for metric, title in COLUMNS.items():
        found_cell = summary_cell(benchmark.summary(about, group, metric))
        if found_cell is not NONE:
            tiles.append(Tile(title, found_cell.text, f"{benchmark.arms[about]}, {group_name(group)}"))
    return Verdict(headline, _tone(tone), sentence, tuple(tiles[:4]), None)


def _claim(found: Mapping[str, Difference], subject: str, rival: str) -> str:
    """What the differences of all groups say together; where they do not say the same, by group."""
    said = {
        "above": f"{subject} is above {rival}",
        "below": f"{subject} is below {rival}",
        "no difference": f"no difference between {subject} and {rival}",
        "too few wearers": "too few wearers for a verdict",
    }
    by_verdict: dict[str, list[str]] = {}
    for group, one in found.items():
        by_verdict.setdefault(one.verdict, []).append(group_name(group))
    parts = [said[verdict] for verdict in by_verdict]
    if len(by_verdict) > 1:
        parts = [f"{said[verdict]} for {' and '.join(groups)}" for verdict, groups in by_verdict.items()]
    seeds = "" if max(one.seeds for one in found.values()) > 1 else ", by one seed"
    text = f"{'; '.join(parts)} on unseen gestures{seeds}"
    return text[0].upper() + text[1:]


def _tone(text: str) -> Tone:
    return text if text in ("good", "bad", "warn") else "quiet"  # type: ignore[return-value]


def _result_section(benchmark: Benchmark) -> Section:
    lead = (
        "Balanced accuracy weighs every gesture alike; rest counts as a seen gesture. A linear probe among the unseen gestures is "
        "fitted on their windows, zero-shot sees no EMG label."
    )
    blocks = [
        one
        for group in benchmark.groups()
        for suffix in ("", "_f1")
        if (one := results_table(benchmark, group, suffix))
    ]
    angles = [one for group in benchmark.groups() if (one := angles_table(benchmark, group))]
    divided = [one for group in benchmark.groups() if (one := divisions_table(benchmark, group))]
    return Section("results", "Arms side by side", lead, (*blocks, *angles, *divided))


def _difference_section(benchmark: Benchmark) -> Section:
    groups = benchmark.groups()
    tables = [found for group in groups if (found := difference_table(benchmark, group)) is not None]
    blocks: list[Block] = [*(one for group in groups for one in _difference_pictures(benchmark, group)), *tables]
    lead = "An arm minus its reference, in pairs of the same wearer and the same seed."
    missing = "" if blocks else "no two arms were judged on the same wearers and seeds."
    return Section(
        "differences", "Differences: what each part is worth", lead if blocks else "", tuple(blocks), (), missing
    )


def _difference_pictures(benchmark: Benchmark, group: str) -> list[Picture]:
    """Zero-shot among the unseen, else the probe's of the unseen or, where none was held out, of the seen gestures."""
    for metric in ("zs_unseen", "lp_unseen", "lp_seen"):
        found = [one for one in benchmark.differences(group, metric) if one.ci_low is not None]
        if not found:
            continue
        points = [
            Estimate(
                one.arm,
                one.value,
                one.ci_low,
                one.ci_high,
                signed(one.value),
                {"above": "good", "below": "bad"}.get(one.verdict, "muted"),
            )
            for one in found
        ]
        ends = [end for one in found for end in (one.ci_low or 0.0, one.ci_high or 0.0, 0.0)]
        margin = 0.05 * (max(ends) - min(ends)) or 0.01
        axis = Axis(min(ends) - margin, max(ends) + margin, f"difference in {COLUMNS[metric]} (points)", 100.0)
        said = "; ".join(f"{point.label} {point.text}" for point in points)
        svg = pictures.intervals(
            f"difference-{group}",
            f"Differences, {group_name(group)}: {said}.",
            points,
            axis,
            reference=Estimate("equal", 0.0),
        )
        others = [f"{one.arm} against {one.reference}" for one in found if one.reference != benchmark.subject]
        against = "; ".join([*others, f"else against {benchmark.subject}"])
        caption = (
            f"{COLUMNS[metric]}, {group_name(group)}: {against}. Line: 95 % interval; green and red: it excludes 0."
        )
        return [Picture(svg, caption, pictures.WIDTH)]
    return []


def _few_shot_section(benchmark: Benchmark) -> Section:
    drawn: list[Block] = []
    tables: list[Block] = []
    for group in benchmark.groups():
        counts = shot_counts(benchmark, group)
        for others, giver in (("", "the wearer's own windows"), ("others_", "another wearer's windows")):
            picture = _curve_picture(
                benchmark,
                f"shots-{others}{group}",
                [str(count) for count in counts],
                lambda arm, at, group=group, counts=counts, others=others: benchmark.summary(  # type: ignore[misc]
                    arm, group, f"few_shot_{others}{counts[at]}"
                ),
                "labelled windows of each unseen gesture",
                f"Few-shot from {giver}, {group_name(group)}",
            )
            drawn += [picture] if picture else []
        found = shots_table(benchmark, group)
        tables += [found] if found else []
    blocks = (*drawn, *tables)
    return Section("few-shot", "Few-shot", blocks=blocks, missing="" if blocks else "no few-shot row.")


def _share_section(benchmark: Benchmark) -> Section:
    drawn: list[Block] = []
    tables: list[Block] = []
    for group in benchmark.groups():
        shares = share_percents(benchmark, group)
        for metric in CURVED if shares else ():
            picture = _curve_picture(
                benchmark,
                f"share-{metric}-{group}",
                [f"{share:g} %" for share in shares],
                lambda arm, at, group=group, shares=shares, metric=metric: at_share(  # type: ignore[misc]
                    benchmark, arm, group, metric, shares[at]
                ),
                "share of the training recordings",
                f"{COLUMNS[metric]}, {group_name(group)}",
                fewest=2,
            )
            drawn += [picture] if picture else []
        found = shares_table(benchmark, group)
        tables += [found] if found else []
    blocks = (*drawn, *tables)
    return Section("shares", "Data efficiency", blocks=blocks, missing="" if blocks else "no arm was trained on less.")


def _curve_picture(
    benchmark: Benchmark,
    name: str,
    ticks: Sequence[str],
    value: Callable[[str, int], Summary | None],
    across: str,
    caption: str,
    fewest: int = 1,
) -> Picture | None:
    """Curves of the arms that have at least `fewest` points, the subject and its rival first."""
    order = sorted(
        benchmark.arms, key=lambda arm: (arm != benchmark.subject, arm != RIVAL, list(benchmark.arms).index(arm))
    )
    lines = []
    for arm in order:
        points = [value(arm, at) for at in range(len(ticks))]
        if sum(point is not None for point in points) >= fewest:
            lines.append(
                Curve(
                    benchmark.arms[arm],
                    tuple(None if point is None else point.mean for point in points),
                    tuple(None if point is None else point.deviation for point in points),
                )
            )
    if not lines:
        return None
    shown = lines[:MOST_LINES]
    said = "; ".join(
        f"{line.label} {', '.join('not measured' if value is None else plain(value) for value in line.values)}"
        for line in shown
    )
    left_out = len(lines) - len(shown)
    more = f" {words.capital(words.count(left_out, 'more arm'))} in the table." if left_out else ""
    svg = curves(name, f"{caption}, at {', '.join(ticks)}: {said}.", ticks, shown, across, "balanced accuracy")
    return Picture(svg, f"{caption}. Bars: deviation over seeds.{more}", pictures.WIDTH)


def _words_section(benchmark: Benchmark) -> Section:
    blocks = tuple(one for group in benchmark.groups() if (one := words_table(benchmark, group)))
    return Section("words", "Semantic zero-shot", blocks=blocks, missing="" if blocks else "no attributes were learnt.")


def _wearer_section(benchmark: Benchmark) -> Section:
    blocks: list[Block] = []
    for group in benchmark.groups():
        for metric in ("zs_unseen", "lp_unseen"):
            found = wearers_table(benchmark, group, metric)
            if found is None:
                continue
            lines = [
                Strip(
                    arm,
                    tuple(one.by_wearer.values()),
                    "accent" if arm == benchmark.subject else "base" if arm == RIVAL else "ink",
                )
                for arm in benchmark.arms
                if (one := benchmark.summary(arm, group, metric)) is not None
            ]
            alt = f"{COLUMNS[metric]} of each wearer, {group_name(group)}; the table beside has the ends."
            svg = pictures.strips(
                f"wearers-{metric}-{group}", alt, lines, Axis(0.0, 1.0, f"{COLUMNS[metric]} (%)", 100.0)
            )
            caption = f"{COLUMNS[metric]}, {group_name(group)}. One dot per wearer (mean over seeds); tick: mean."
            blocks += [Picture(svg, caption, pictures.WIDTH), found]
    return Section("wearers", "Wearers", blocks=tuple(blocks), missing="" if blocks else "one wearer shows no spread.")


def _origin_section(benchmark: Benchmark) -> Section:
    report = benchmark.report
    recipe = [("recipe", reading.record(report, "recipe").get("name")), ("sha256", report.get("recipe_sha256"))]
    divisions = [", ".join(reading.texts(row.get("unseen"))) for row in reading.rows(report, "divisions")]
    blocks = [
        Facts(caption, tuple((name.replace("_", " "), _value(value)) for name, value in pairs))
        for caption, pairs in (
            ("Data", list(reading.record(report, "data").items())),
            ("Recipe", [*recipe, ("seeds", report.get("seeds")), ("held out", divisions)]),
            ("Frozen before the first comparison", _pairs(reading.rows(report, "frozen"), "what", "value")),
            ("Minutes", _minutes(report)),
            ("Machine", list(reading.record(report, "host").items())),
        )
        if any(value not in (None, "", []) for _, value in pairs)
    ]
    notes = tuple(notes_of(benchmark))
    missing = "" if blocks else "nothing was noted."
    return Section("origin", "Where the numbers come from", "", tuple(blocks), notes, missing)


def _pairs(rows: Iterable[Mapping[str, Any]], name: str, value: str) -> list[tuple[str, Any]]:
    return [(str(row.get(name)), row.get(value)) for row in rows]


def _minutes(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Minutes by kind of step (what stands behind the last point of its name), all seeds and divisions together."""
    spent: dict[str, list[float]] = {}
    for row in reading.rows(report, "minutes"):
        minutes = words.number(row.get("minutes"))
        if minutes is not None:
            spent.setdefault(str(row.get("step")).rpartition(".")[2], []).append(minutes)
    steps: list[tuple[str, Any]] = [
        (step, f"{sum(parts):.1f}{words.SPACE}min in {words.count(len(parts), 'run')}") for step, parts in spent.items()
    ]
    wall = words.number(report.get("wall_minutes"))
    return [*steps, *([("by the clock, last call", f"{wall:.1f}{words.SPACE}min")] if wall is not None else [])]


def _value(value: object) -> str:
    if isinstance(value, list):
        return words.listed([str(item) for item in value]) or "none"
    if isinstance(value, float):
        return words.significant(value, 4)
    return "not stated" if value in (None, "") else f"{value:,}" if isinstance(value, int) else str(value)


SECTIONS = (
    _result_section,
    _difference_section,
    _wearer_section,
    _words_section,
    _few_shot_section,
    _share_section,
    _origin_section,
)
