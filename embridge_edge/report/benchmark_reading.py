"""`benchmark.json`, taken apart.

`benchmark.json` holds

    title, created           text
    recipe, recipe_sha256    the recipe, of which the name is shown
    data                     {name, wearers, gestures: [names], …}
    divisions                [{name, unseen: [gestures]}]: what was held out, once or in turn
    seeds                    [0, 1, 2]
    arms                     {name: title}, in the order of the table
    reference                the arm that the others are compared with, embridge unless said otherwise
    comparisons              [[arm, reference]], optional; without it those of `comparisons`
    scores                   [{arm, seed, group, metric, wearer, value}], the rows of `learning.evaluation.Score`; rows of several
                             divisions stand behind each other, with the name of theirs as `division`, and are averaged for each wearer
    minutes                  [{step, minutes, cached}]
    wall_minutes             number
    frozen                   [{what, value}]: what was fixed before the first comparison
    notes                    [text]

Whatever is missing is left out; nothing is computed here that `learning.paired` does not compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embridge_edge.errors import EdgeError
from embridge_edge.learning.evaluation import Score, averaged
from embridge_edge.learning.paired import Difference, Summary, paired_differences, summary
from embridge_edge.report import reading, words

SUBJECT, RIVAL, FLOOR = "embridge", "cpep", "masked"

GROUPS = {"seen_wearers": "seen wearers", "unseen_wearers": "unseen wearers"}


@dataclass(frozen=True)
class Benchmark:
    """`benchmark.json`, taken apart.

    Attributes:
        report: the cleaned dictionary. subject: the arm that others are compared with. arms: name to title, in order.
        scores: by (group, metric), means over the divisions. divided: by (division, group, metric), where rows name theirs.
    """

    report: Mapping[str, Any]
    subject: str
    arms: Mapping[str, str]
    scores: Mapping[tuple[str, str], tuple[Score, ...]]
    divided: Mapping[tuple[str, str, str], tuple[Score, ...]] = field(default_factory=dict)

    def groups(self) -> list[str]:
        known = {group for group, _ in self.scores}
        return [group for group in GROUPS if group in known] + sorted(known - set(GROUPS))

    def metrics(self, group: str) -> list[str]:
        return [metric for own, metric in self.scores if own == group]

    def summary(self, arm: str, group: str, metric: str) -> Summary | None:
        return summary(self.scores.get((group, metric), ()), arm, group, metric)

    def differences(self, group: str, metric: str) -> list[Difference]:
        return paired_differences(self.scores.get((group, metric), ()), self.comparisons(), group, metric)

    def comparisons(self) -> list[tuple[str, str]]:
        asked = self.report.get("comparisons")
        pairs = [tuple(map(str, pair)) for pair in asked if len(pair) == 2] if isinstance(asked, list) else None
        return comparisons(list(self.arms), self.subject) if pairs is None else pairs  # type: ignore[return-value]


def comparisons(arms: Sequence[str], subject: str = SUBJECT) -> list[tuple[str, str]]:
    """(arm, reference) pairs of the table of differences: the subject against CPEP, CPEP against masked pre-training alone,
    and every other arm against the subject."""
    first = [pair for pair in ((subject, RIVAL), (RIVAL, FLOOR)) if set(pair) <= set(arms) and pair[0] != pair[1]]
    rest = [(arm, subject) for arm in arms if arm != subject and (subject, arm) not in first]
    return [*first, *(rest if subject in arms else [])]


def read_benchmark(report: Mapping[str, Any]) -> Benchmark:
    """Take the dictionary of `benchmark.json` apart; rows that are no scores are passed over.

    Raises:
        EdgeError: it holds no score at all.
    """
    known = reading.cleaned(dict(report))
    found: list[Score] = []
    divided: dict[tuple[str, str, str], list[Score]] = {}
    for row in reading.rows(known, "scores"):
        value, seed = words.number(row.get("value")), words.number(row.get("seed"))
        if value is not None and seed is not None:
            arm, group, metric, wearer = (str(row.get(name)) for name in ("arm", "group", "metric", "wearer"))
            found.append(Score(arm, int(seed), group, metric, wearer, value))
            if row.get("division") is not None:
                divided.setdefault((str(row["division"]), group, metric), []).append(found[-1])
    scores: dict[tuple[str, str], list[Score]] = {}
    for score in averaged(found):
        scores.setdefault((score.group, score.metric), []).append(score)
    if not scores:
        raise EdgeError(
            "The benchmark holds no score, so there is no table to write; run embridge-edge benchmark first."
        )
    arms = {name: str(title or name) for name, title in reading.record(known, "arms").items()}
    for score in found:
        arms.setdefault(score.arm, score.arm.replace("_", " "))
    return Benchmark(
        known,
        str(known.get("reference") or SUBJECT),
        arms,
        {key: tuple(rows) for key, rows in scores.items()},
        {key: tuple(rows) for key, rows in divided.items()},
    )


def title_of(benchmark: Benchmark) -> str:
    return str(benchmark.report.get("title") or "EMBridge and its baselines")


def notes_of(benchmark: Benchmark) -> list[str]:
    return reading.texts(benchmark.report.get("notes"))


def group_name(group: str) -> str:
    return GROUPS.get(group, group.replace("_", " "))
