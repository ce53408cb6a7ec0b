"""The benchmark's tables hold what numpy computes from the rows, say "above" only with reason, and survive what is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.report.benchmark_pictures import MOST_LINES, Curve, curves
from embridge_edge.report.benchmark_reading import comparisons, read_benchmark
from embridge_edge.report.benchmarked import (
    markdown,
    render_benchmark,
    terminal_text,
    write_benchmark_page,
)

LEVELS = {"masked": 0.3, "cpep": 0.45, "embridge": 0.55, "no_mprl": 0.549}
POSELESS = ("masked",)
ZS = ("zs_seen", "zs_unseen", "zs_all_seen", "zs_all_unseen", "zs_harmonic")
HOSTILE = "<script>alert(1)</script>|\"'&$\\frac{$ \x00\x1b[31m\u202e\ud800"


def rows(seeds: int = 3, wearers: int = 6, arms: Sequence[str] = tuple(LEVELS)) -> list[dict[str, Any]]:
    """Scores of both groups: probes for all arms, zero-shot, curves and words for those with a pose space."""
    rng = np.random.default_rng(0)
    found = []
    for group in ("seen_wearers", "unseen_wearers"):
        people = rng.normal(0, 0.05, wearers)
        for arm in arms:
            for seed in range(seeds):
                metrics = ["lp_seen", "lp_unseen", "few_shot_1", "few_shot_5", "few_shot_others_1"]
                if arm not in POSELESS:
                    metrics += [*ZS, "attr_unseen", "attr_harmonic", "r2", "zs_unseen@20", "zs_unseen@40"]
                for metric in (*metrics, "lp_seen_f1"):
                    for wearer in range(wearers):
                        value = LEVELS.get(arm, 0.5) + people[wearer] + rng.normal(0, 0.02)
                        found.append(
                            {
                                "arm": arm,
                                "seed": seed,
                                "group": group,
                                "metric": metric,
                                "wearer": f"w{wearer}",
                                "value": value,
                            }
                        )
    return found


def benchmark(**changes: Any) -> dict[str, Any]:
    return {
        "title": "Benchmark",
        "recipe": {"name": "tiny"},
        "data": {"name": "simulated", "gestures": list("abcdxy")},
        "divisions": [{"name": "held", "unseen": ["x", "y"]}],
        "seeds": [0, 1, 2],
        "arms": {name: name.upper() for name in LEVELS},
        "scores": rows(),
        "minutes": [
            {"step": f"held.seed{seed}.{what}", "minutes": 1.25, "cached": False}
            for seed in (0, 1)
            for what in ("cpep", "scores")
        ],
        "frozen": [{"what": "simulator", "value": "0f1e"}],
        "notes": ["Something to know."],
    } | changes


def cells(text: str, caption: str) -> dict[str, list[str]]:
    """Rows of one table of the Markdown, by their first cell; the header is under "arm"."""
    part = text.split(f"**{caption}**\n\n")[1].split("\n\n", maxsplit=1)[0]
    lines = [line.replace("\\", "").strip("| ").split(" | ") for line in part.splitlines()]
    return {line[0]: line[1:] for line in lines}


def values(arm: str, metric: str, group: str = "seen_wearers") -> np.ndarray:
    found = [row["value"] for row in rows() if (row["arm"], row["metric"], row["group"]) == (arm, metric, group)]
    return np.array(found).reshape(3, 6)


def test_cells_are_mean_and_deviation_over_seeds_of_the_mean_over_wearers() -> None:
    table = cells(markdown(benchmark()), "Balanced accuracy, seen wearers")
    titles = table["arm"]
    means = values("embridge", "zs_unseen").mean(axis=1)
    expected = f"{means.mean():.3f} ± {means.std(ddof=1):.3f}".replace("0.", ".")
    assert table["EMBRIDGE"][titles.index("ZS unseen")] == expected
    assert table["MASKED"][titles.index("ZS unseen")] == "–"
    assert table["MASKED"][titles.index("LP unseen")] != "–"
    assert table["chance"][titles.index("ZS unseen")] == ".500"
    assert table["chance"][titles.index("among all: unseen")] == ".167"
    assert list(table)[2:] == [*(name.upper() for name in LEVELS), "chance"]


def test_verdicts_follow_from_the_intervals() -> None:
    table = cells(markdown(benchmark()), "Differences in balanced accuracy, unseen wearers")
    at = table["arm"].index("ZS unseen")
    gap = (values("embridge", "zs_unseen", "unseen_wearers") - values("cpep", "zs_unseen", "unseen_wearers")).mean()
    assert table["EMBRIDGE against CPEP"][at] == f"+{gap:.3f}".replace("0.", ".")
    assert table["EMBRIDGE against CPEP"][at + 1].endswith("above")
    assert table["NO_MPRL against EMBRIDGE"][at + 1].endswith("no difference")
    probes = table["arm"].index("LP unseen")
    assert table["CPEP against MASKED"][probes + 1].endswith("above")
    for row in list(table.values())[2:]:
        for gap_text, between in zip(row[::2], row[1::2], strict=True):
            if between == "–":
                continue
            low, high = (float(end.replace("−", "-")) for end in re.findall(r"[+−]?\d*\.\d+", between))
            assert low <= float(gap_text.replace("−", "-")) <= high
            assert between.endswith("above" if low > 0 else "below" if high < 0 else "no difference")


def test_too_few_wearers_have_no_verdict_and_one_seed_is_warned_of() -> None:
    text = terminal_text(benchmark(scores=rows(seeds=1, wearers=2)))
    assert "no interval too few wearers" in text
    assert "above" not in text.replace("Above or below", "")
    assert "One seed: the intervals say nothing about another training" in text
    assert "±" not in text.replace("mean ±", "").replace(", ± deviation", "")


def test_arms_are_compared_as_the_issue_asks() -> None:
    assert comparisons(["masked", "cpep", "embridge", "no_mprl"]) == [
        ("embridge", "cpep"),
        ("cpep", "masked"),
        ("masked", "embridge"),
        ("no_mprl", "embridge"),
    ]
    assert comparisons(["lda", "cpep"]) == []
    assert comparisons(["lda", "cpep", "masked"], "cpep") == [("cpep", "masked"), ("lda", "cpep")]
    assert comparisons(["lda", "cpep"], "lda") == [("lda", "cpep")]
    asked = markdown(benchmark(comparisons=[["no_mprl", "cpep"]]))
    assert list(cells(asked, "Differences in balanced accuracy, seen wearers"))[2:] == ["NO_MPRL against CPEP"]


def test_a_tiny_difference_is_not_written_as_none() -> None:
    scores = [
        {"arm": arm, "seed": 0, "group": "g", "metric": "zs_unseen", "wearer": f"w{wearer}", "value": 0.5 + gap}
        for arm, gap in (("embridge", 0.0001), ("cpep", 0.0))
        for wearer in range(4)
    ]
    assert "+.0001" in terminal_text({"scores": scores})


def test_curves_hold_every_arm_and_the_whole_is_the_main_table() -> None:
    text = markdown(benchmark())
    shots = cells(text, "Few-shot, balanced accuracy, seen wearers")
    assert shots["arm and whose windows"] == ["1 shot", "5 shots"]
    assert "–" in shots["CPEP another wearer's"]
    shares = cells(text, "Data efficiency, balanced accuracy, seen wearers")
    assert shares["arm and metric"] == ["20 %", "40 %", "100 %"]
    main = cells(text, "Balanced accuracy, seen wearers")
    assert shares["EMBRIDGE ZS unseen"][-1] == main["EMBRIDGE"][main["arm"].index("ZS unseen")]
    assert "MASKED ZS unseen" not in shares


def test_joint_angles_and_words_have_tables_of_their_own() -> None:
    text = markdown(benchmark())
    mean = values("cpep", "r2").mean(axis=1)
    expected = f"{mean.mean():.3f} ± {mean.std(ddof=1):.3f}".replace("0.", ".")
    assert cells(text, "R² of the joint angles, seen wearers")["CPEP"] == [expected]
    assert cells(text, "Semantic zero-shot, balanced accuracy, seen wearers")["arm"] == ["unseen", "harmonic"]


def test_one_metric_of_one_arm_is_enough_and_no_score_is_one_line() -> None:
    score = {"arm": "my_arm", "seed": 0, "group": "seen_wearers", "metric": "lp_seen", "wearer": "ann", "value": 0.5}
    assert "my arm     .500" in terminal_text({"scores": [score]})
    for nothing in ({}, {"scores": []}, {"scores": [score | {"value": None}, "x", score | {"seed": None}]}):
        with pytest.raises(EdgeError, match="holds no score"):
            terminal_text(nothing)


class Page(HTMLParser):
    """Checks that elements nest, and keeps ids and words."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in {"meta", "link", "br", "wbr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
def test_page_is_well_formed_stands_alone_and_takes_hostile_names() -> None:
    arms = {name: f"{name}{HOSTILE}" for name in LEVELS}
    told = {HOSTILE: HOSTILE, "name": HOSTILE}
    text = render_benchmark(benchmark(title=HOSTILE, arms=arms, data=told, recipe=told, notes=[HOSTILE]))
    page = Page(text)
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    for svg in re.findall(r"<svg .*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)  # noqa: S314
    assert "benchmark.json beside this page" in text and "report.json" not in text
    assert "<script" not in markdown(benchmark(arms=arms))
    assert "\x1b" not in terminal_text(benchmark(arms=arms))


@pytest.mark.slow
def test_page_has_every_section() -> None:
    text = render_benchmark(benchmark())
    assert "Not measured" not in text
    assert "EMBRIDGE is above CPEP on unseen gestures" in text
    assert "2.5\N{NO-BREAK SPACE}min in 2\N{NO-BREAK SPACE}runs" in text
    for said in ("Macro F1", "Few-shot", "Data efficiency", "Semantic zero-shot", "0f1e", "Something to know."):
        assert said in text


@pytest.mark.parametrize(
    ("seen", "unseen", "seeds", "says"),
    [
        (0.2, 0.2, 3, "EMBRIDGE is above CPEP on unseen gestures"),
        (0.2, 0.0, 3, "EMBRIDGE is above CPEP for seen wearers; no difference between EMBRIDGE and CPEP for unseen wearers"
         " on unseen gestures"),
        (0.0, -0.2, 3, "No difference between EMBRIDGE and CPEP for seen wearers; EMBRIDGE is below CPEP for unseen wearers"),
        (0.0, 0.0, 1, "No difference between EMBRIDGE and CPEP on unseen gestures, by one seed"),
    ],
)  # fmt: skip
def test_headline_speaks_for_every_group(seen: float, unseen: float, seeds: int, says: str) -> None:
    gaps = {"seen_wearers": seen, "unseen_wearers": unseen}
    scores = [
        {
            "arm": arm,
            "seed": seed,
            "group": group,
            "metric": "zs_unseen",
            "wearer": f"w{wearer}",
            "value": 0.5 + (arm == "embridge") * (gap + 0.02 * (-1) ** wearer),  # wearers differ, their mean is the gap
        }
        for group, gap in gaps.items()
        for arm in ("cpep", "embridge")
        for seed in range(seeds)
        for wearer in range(8)
    ]
    assert says in render_benchmark({"scores": scores, "arms": {"cpep": "CPEP", "embridge": "EMBRIDGE"}})


def test_page_says_what_is_missing() -> None:
    bare = render_benchmark({"scores": [row for row in rows(arms=["embridge"]) if row["metric"] == "lp_seen"]})
    assert "Too few wearers for a verdict" in render_benchmark(
        {"scores": [row for row in rows(seeds=1, wearers=2) if row["metric"] == "zs_unseen"]}
    )
    for said in ("no two arms", "no few-shot row", "no arm was trained on less", "no attributes were learnt"):
        assert said in bare


def test_without_unseen_gestures_differences_are_those_of_seen_ones_or_of_the_angles() -> None:
    seen = markdown({"scores": [row for row in rows() if row["metric"] in ("lp_seen", "zs_seen")]})
    assert "**Differences in balanced accuracy" in seen and "LP seen | 95" in seen
    angles = markdown({"scores": [{**row, "metric": "r2"} for row in rows() if row["metric"] == "lp_seen"]})
    assert "**Differences in R²" in angles


def test_curve_stands_where_its_values_are_and_leaves_out_what_was_not_measured() -> None:
    lines = [Curve("low", (0.2, None, 0.3), (0.01, None, None)), Curve("high", (0.8, 0.8, 0.9), (None,) * 3)]
    svg = curves("c", "alt", ("1", "2", "5"), lines, "shots", "accuracy")
    assert ElementTree.fromstring(svg).get("aria-label") == "alt"  # noqa: S314
    strokes = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--([a-z]+)\)', svg)
    drawn = [(role, [float(number) for number in re.findall(r"[\d.]+", path)[1::2]]) for path, role in strokes]
    grid = [heights[0] for role, heights in drawn if role == "line"]
    floor, top = max(grid), min(grid)  # accuracy 0 and 1

    def value(height: float) -> float:
        return (floor - height) / (floor - top)

    shown = [(role, [round(value(height), 3) for height in heights]) for role, heights in drawn if role != "line"]
    assert ("accent", [0.2, 0.3]) in shown
    assert ("base", [0.8, 0.8, 0.9]) in shown
    assert ("accent", [0.19, 0.21]) in shown  # the bar
    assert svg == curves("c", "alt", ("1", "2", "5"), lines, "shots", "accuracy")


@pytest.mark.slow
def test_more_arms_than_lines_are_counted_below_the_picture() -> None:
    names = ["embridge", "cpep", "a", "b", "c", "d"]
    text = render_benchmark({"scores": rows(arms=names)})
    assert len(names) == MOST_LINES + 1
    assert "1\N{NO-BREAK SPACE}more arm in the table" in text


def test_divisions_are_averaged_for_each_wearer_and_chance_needs_them_to_be_alike() -> None:
    twice = [row | {"value": row["value"] + shift} for shift in (-0.1, 0.1) for row in rows()]
    alike = [{"name": "a", "unseen": ["x", "y"]}, {"name": "b", "unseen": ["a", "y"]}]
    found = markdown(benchmark(scores=twice, divisions=alike))
    assert found == markdown(benchmark())
    unlike = [{"name": "a", "unseen": ["x", "y"]}, {"name": "b", "unseen": ["y"]}]
    assert "| chance" not in markdown(benchmark(divisions=unlike))


def test_each_division_has_its_own_row() -> None:
    named = [
        row | {"value": row["value"] + shift, "division": name}
        for name, shift in (("a", -0.1), ("b", 0.1))
        for row in rows()
    ]
    divisions = [{"name": "a", "unseen": ["x", "y"]}, {"name": "b", "unseen": ["a", "y"]}]
    text = markdown(benchmark(scores=named, divisions=divisions))
    found = cells(text, "Each division by itself, balanced accuracy, seen wearers")
    for name, held_out in (("a", "x, y"), ("b", "a, y")):
        values = [
            row["value"]
            for row in named
            if (row["division"], row["arm"], row["group"], row["metric"]) == (name, "cpep", "seen_wearers", "zs_unseen")
        ]
        shown = found[held_out][list(LEVELS).index("cpep") - len(POSELESS)]
        assert float(shown.partition("±")[0].replace("\N{NO-BREAK SPACE}", "")) == pytest.approx(
            np.mean(values), abs=5e-4
        )
    assert "Each division" not in markdown(benchmark())
    assert "Each division by itself" in render_benchmark(benchmark(scores=named, divisions=divisions))


def test_scores_are_grouped_and_arms_keep_their_order() -> None:
    known = read_benchmark(benchmark())
    assert list(known.arms) == list(LEVELS)
    assert known.groups() == ["seen_wearers", "unseen_wearers"]
    assert sum(map(len, known.scores.values())) == len(rows())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chromium_opens_the_page_without_a_complaint(tmp_path: Path, scheme: str) -> None:
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    write_benchmark_page(benchmark(), tmp_path / "benchmark.html")
    picture = tmp_path / "page.png"
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--enable-logging=stderr",
        "--window-size=1240,3000",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={picture}",
    )
    page = (tmp_path / "benchmark.html").as_uri()
    done = subprocess.run([chromium, *flags, page], capture_output=True, text=True, timeout=120, check=False)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 50_000
