"""Sections about what the models decide: accuracy by split, gestures, wearers."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, stdev

from embridge_edge.report import pictures, reading, words
from embridge_edge.report.blocks import Block, Cell, Picture, Section, Table, measured, named, numeric, table
from embridge_edge.report.pictures import Axis, Estimate, Strip
from embridge_edge.report.reading import Report, Row


def accuracy(report: Report) -> Section:
    """The main metric of every model by split, with intervals, beside LDA."""
    metric = reading.main_metric(report)
    found = reading.results(report, metric)
    title = f"{words.capital(words.metric_name(metric))} by split"
    if not found:
        return Section("accuracy", "Accuracy by split", missing="no model was judged.")
    several = len({data for data, _ in reading.groups(found)}) > 1
    blocks: list[Block] = []
    for index, group in enumerate(reading.groups(found)):
        blocks += _one_split(report, metric, found, group, index, several)
    other = [
        row
        for row in reading.results(report)
        if str(row.get("metric")).startswith("zero_shot") and row.get("metric") != metric
    ]
    if other:
        blocks.append(_zero_shot(other))
    return Section("accuracy", title, _accuracy_lead(report, metric, found), tuple(blocks))


def _one_split(
    report: Report, metric: str, found: list[Row], group: tuple[str, str], index: int, several: bool
) -> list[Block]:
    data, split = group
    own = reading.in_group(found, group)
    names = reading.models(own)
    beside, about = reading.baseline_model(names), reading.shipped_model(names)
    base = reading.of_model(own, beside or "")
    where = f"{words.split_name(split)}, {data}" if several else words.split_name(split)
    gestures = reading.gesture_count(report, split)
    chance = 1.0 / gestures if metric == "balanced_accuracy" and gestures > 1 else None
    points = [
        Estimate(
            words.model_short(row.get("model")),
            float(row["value"]),
            words.number(row.get("ci_low")),
            words.number(row.get("ci_high")),
            words.quantity(metric, row["value"]),
            "accent" if row.get("model") == about else "base" if row.get("model") == beside else "ink",
        )
        for row in own
    ]
    reference = None
    if base is not None:
        ends = words.number(base.get("ci_low")), words.number(base.get("ci_high"))
        reference = Estimate(words.model_short(beside), float(base["value"]), *ends)
    said = "; ".join(f"{point.label} {point.text}" for point in points)
    alt = f"{words.capital(words.metric_name(metric))}, {where}: {said}."
    svg = pictures.intervals(f"accuracy{index}", alt, points, _axis(metric, own), reference=reference, chance=chance)
    caption = (
        f"{words.capital(where)}: {words.split_meaning(split)}. "
        if words.split_meaning(split)
        else f"{words.capital(where)}. "
    )
    caption += "Dot: mean over wearers. Line: 95 % bootstrap interval over wearers."
    if not any(point.low is not None for point in points):
        caption = caption.replace(
            " Line: 95 % bootstrap interval over wearers.", " No interval: fewer than three wearers."
        )
    if base is not None:
        caption += f" Vertical: {words.model_short(beside)}" + (
            " and its interval." if base.get("ci_low") is not None else "."
        )
    if chance is not None:
        caption += f" Chance among {gestures} gestures is {words.percent(chance)}."
    rows = [_accuracy_row(metric, row, base, about) for row in own]
    columns = [
        named("model"),
        numeric(words.metric_name(metric)),
        numeric("95 % interval"),
        numeric(f"against {words.model_short(beside)}" if beside else "against a baseline"),
    ]
    # Models of a split are judged on the same windows: n then stands once, in the title.
    counts = {_n(row) for row in own}
    if len(counts) > 1:
        columns, rows = (
            [*columns, numeric("n")],
            [[*cells, Cell(_n(row))] for cells, row in zip(rows, own, strict=True)],
        )
    n = f" ({counts.pop()})" if len(counts) == 1 else ""
    return [
        Picture(svg, caption, pictures.WIDTH),
        table(f"{words.capital(words.metric_name(metric))}, {where}{n}", columns, rows),
    ]


def _accuracy_row(metric: str, row: Row, base: Row | None, about: str | None) -> list[Cell]:
    interval = words.interval(metric, row.get("ci_low"), row.get("ci_high"))
    return [
        Cell(
            words.model_name(row.get("model")),
            note="goes to the device" if row.get("model") == about == "student_int8" else "",
        ),
        measured(metric, row.get("value")),
        Cell(interval) if interval else Cell("none: fewer than 3 wearers", "quiet"),
        _difference(metric, row, base),
    ]


def _n(row: Row) -> str:
    return f"{words.count(row.get('n_groups'), 'wearer')}, {words.count(row.get('n'), 'window')}"


def _spread(metric: str, value: object) -> Cell:
    real = words.number(value)
    if real is None:
        return Cell("none: one wearer", "quiet")
    return Cell(
        f"±{words.SPACE}{100 * real:.1f}{words.SPACE}points"
        if words.is_fraction(metric)
        else f"±{words.SPACE}{words.significant(real, 2)}"
    )


def _difference(metric: str, row: Row, base: Row | None) -> Cell:
    if base is None:
        return Cell("no baseline", "quiet")
    if row is base:
        return Cell("baseline", "quiet")
    change = float(row["value"]) - float(base["value"])
    sign = "+" if change >= 0 else "−"
    text = f"{100 * abs(change):.1f}{words.SPACE}points" if words.is_fraction(metric) else f"{abs(change):.2f}"
    return Cell(f"{sign}{text}", "good" if change > 0 else "bad" if change < 0 else "")


def _axis(metric: str, found: list[Row]) -> Axis:
    if metric == "r2":
        ends = [
            end for row in found for end in map(words.number, (row.get("value"), row.get("ci_low"))) if end is not None
        ]
        return Axis(max(-1.0, min([0.0, *ends])), 1.0, words.metric_name(metric))
    if words.is_fraction(metric):
        return Axis(0.0, 1.0, f"{words.shortened(words.metric_name(metric), 40)} (%)", 100.0)
    return Axis(0.0, 1.1 * max(float(row["value"]) for row in found), words.metric_name(metric))


def _accuracy_lead(report: Report, metric: str, found: list[Row]) -> str:
    names = reading.models(found)
    about, beside = reading.shipped_model(names), reading.baseline_model(names)
    several = len({data for data, _ in reading.groups(found)}) > 1
    said = []
    for group in reading.groups(found):
        own = reading.in_group(found, group)
        row, base = reading.of_model(own, about or ""), reading.of_model(own, beside or "")
        if row is None:
            continue
        where = words.split_name(group[1]) + (f" of {group[0]}" if several else "")
        text = f"{where} {words.quantity(metric, row['value'])}"
        if base is not None:
            text += f" against {words.model_short(beside)}'s {words.quantity(metric, base['value'])}"
            wins = _wins(report, metric, group[1], about or "", beside or "")
            text += (
                f", better for {wins.better} of {words.count(wins.n, 'wearer')}" if wins.n > 1 and not several else ""
            )
        said.append(text)
    equal = (
        " Balanced accuracy weighs every gesture alike, so that a frequent one cannot flatter it."
        if metric == "balanced_accuracy"
        else ""
    )
    return f"{words.capital(words.model_name(about))}: {'; '.join(said)}.{equal}" if said else equal.strip()


def _zero_shot(found: list[Row]) -> Table:
    rows = [
        [
            Cell(words.model_name(row.get("model")), note=words.split_name(row.get("split"))),
            Cell("unseen in training" if "unseen" in str(row.get("metric")) else "seen in training"),
            measured(str(row.get("metric")), row.get("value")),
            Cell(words.interval("", row.get("ci_low"), row.get("ci_high")) or "none: fewer than 3 wearers"),
            Cell(words.count(row.get("n_groups"), "wearer"), note=words.count(row.get("n"), "window")),
        ]
        for row in found
    ]
    columns = [
        named("model and split"),
        named("gestures"),
        numeric("balanced accuracy"),
        numeric("95 % interval"),
        numeric("n"),
    ]
    return table("Zero-shot: decided by the gesture's pose alone", columns, rows)


def gestures(report: Report) -> Section:
    """Confusion of the shipped model, recall of every gesture, the worst one flagged."""
    tables = [item for item in map(_read_confusion, reading.rows(report, "confusions")) if item is not None]
    if not tables:
        why = (
            "the data have no gesture classes."
            if reading.record(report, "data").get("gestures") == []
            else "no confusion was counted."
        )
        return Section("gestures", "Gestures", missing=why)
    names = sorted({item.model for item in tables}, key=words.model_rank)
    about = reading.shipped_model(names) or names[0]
    blocks: list[Block] = []
    said = []
    for index, split in enumerate(sorted({item.split for item in tables}, key=words.split_rank)):
        own = sorted((item for item in tables if item.split == split), key=lambda item: words.model_rank(item.model))
        shown = next((item for item in own if item.model == about), own[-1])
        if shown.worst is not None:
            said.append(f"{words.split_name(split)}: {shown.worst_text()}")
        blocks += [_confusion_picture(shown, index), _recall_table(own, shown)]
    lead = f"Worst gesture of the {words.model_name(about)}, {'; '.join(said)}." if said else ""
    return Section("gestures", "Gestures: confusion and the worst gesture", lead, tuple(blocks))


def worst_gestures(report: Report) -> list[tuple[str, str]]:
    """By split, the gesture that the model a report is about recognises worst, in words; splits without confusion are left out."""
    tables = [item for item in map(_read_confusion, reading.rows(report, "confusions")) if item is not None]
    about = reading.shipped_model(sorted({item.model for item in tables}, key=words.model_rank))
    own = sorted((item for item in tables if item.model == about), key=lambda item: words.split_rank(item.split))
    return [(item.split, item.worst_text()) for item in own if item.worst is not None]


@dataclass(frozen=True)
class _Confusion:
    model: str
    split: str
    gestures: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]

    def windows(self, gesture: int) -> float:
        return sum(self.counts[gesture])

    def recall(self, gesture: int) -> float | None:
        return self.counts[gesture][gesture] / self.windows(gesture) if self.windows(gesture) else None

    @property
    def worst(self) -> int | None:
        known = [(recall, index) for index in range(len(self.gestures)) if (recall := self.recall(index)) is not None]
        return min(known)[1] if known else None

    def mostly_taken_for(self, gesture: int) -> tuple[int, float] | None:
        wrong = [(count, index) for index, count in enumerate(self.counts[gesture]) if index != gesture and count > 0]
        if not wrong:
            return None
        count, index = max(wrong)
        return index, count / self.windows(gesture)

    def worst_text(self) -> str:
        gesture = self.worst
        if gesture is None:
            return "no test window"
        text = f"{self.gestures[gesture]} with recall {words.percent(self.recall(gesture) or 0.0)}"
        taken = self.mostly_taken_for(gesture)
        return f"{text}, most often taken for {self.gestures[taken[0]]} ({words.percent(taken[1])})" if taken else text


def _read_confusion(row: Row) -> _Confusion | None:
    names = tuple(words.gesture_name(name) for name in reading.texts(row.get("gestures")))
    counts = row.get("counts")
    if not names or not isinstance(counts, list | tuple) or len(counts) != len(names):
        return None
    table_of = tuple(
        tuple(words.number(value) or 0.0 for value in line) for line in counts if isinstance(line, list | tuple)
    )
    if len(table_of) != len(names) or any(len(line) != len(names) for line in table_of):
        return None
    return _Confusion(str(row.get("model")), str(row.get("split")), names, table_of)


def _confusion_picture(shown: _Confusion, index: int) -> Picture:
    title = f"{words.capital(words.split_name(shown.split))}, {words.model_name(shown.model)}"
    alt = f"Confusion matrix, {title}; worst gesture: {shown.worst_text()}."
    svg = pictures.confusion(f"confusion{index}", alt, shown.gestures, shown.counts, shown.worst)
    caption = f"{title}. Row: true gesture; cell: share of its windows in %. Framed: the worst gesture."
    return Picture(svg, caption, pictures.confusion_width(shown.gestures))


def _recall_table(own: list[_Confusion], shown: _Confusion) -> Table:
    alike = [shown, *(item for item in own if item is not shown and item.gestures == shown.gestures)]
    order = sorted(
        range(len(shown.gestures)), key=lambda index: (shown.recall(index) is None, shown.recall(index) or 0.0)
    )
    rows = []
    for gesture in order:
        row = [Cell(shown.gestures[gesture], note=words.count(shown.windows(gesture), "window"))]
        for item in alike:
            recall = item.recall(gesture)
            if recall is None:
                row.append(Cell("no test window", "missing"))
            else:
                worst = gesture == item.worst
                row.append(
                    Cell(words.percent(recall), "bad" if worst else "", note="worst" if worst else "", share=recall)
                )
        rows.append(row)
    columns = [named("gesture"), *(numeric(words.model_short(item.model)) for item in alike)]
    note = "Worst first. Recall: share of a gesture's windows that are decided rightly, over all wearers together."
    return table(f"Recall of every gesture, {words.split_name(shown.split)}", columns, rows, note)


def wearers(report: Report) -> Section:
    """How the main metric spreads over wearers, and who is served worst."""
    metric = reading.main_metric(report)
    found = _per_wearer(report, metric)
    title = "Wearers"
    shipped = reading.shipped_model(reading.models(found))
    if not found:
        return Section("wearers", title, missing="no result per wearer.")
    several = [
        split
        for split in {str(row.get("split")) for row in found}
        if len({str(row.get("wearer")) for row in found if str(row.get("split")) == split}) > 1
    ]
    if not several:
        return Section("wearers", title, missing="one wearer shows no spread between wearers.")
    blocks: list[Block] = []
    said = []
    for index, split in enumerate(sorted(several, key=words.split_rank)):
        own = [row for row in found if str(row.get("split")) == split]
        names = reading.models(own)
        about, beside = reading.shipped_model(names), reading.baseline_model(names)
        values = {
            name: {str(row.get("wearer")): float(row["value"]) for row in own if str(row.get("model")) == name}
            for name in names
        }
        if about is not None and len(values[about]) > 1:
            worst = min(values[about], key=lambda wearer: values[about][wearer])
            best = max(values[about].values())
            said.append(
                f"{words.split_name(split)} from {words.quantity(metric, values[about][worst])} "
                f"({worst}) to {words.quantity(metric, best)}"
            )
        lines = [
            Strip(
                words.model_short(name),
                tuple(values[name].values()),
                "accent" if name == about else "base" if name == beside else "ink",
            )
            for name in names
        ]
        most = max(len(line.values) for line in lines)
        alt = f"{words.capital(words.metric_name(metric))} of each of {words.count(most, 'wearer')}, "
        alt += f"{words.split_name(split)}; mean and spread are in the table beside."
        caption = (
            f"{words.capital(words.split_name(split))}. One dot per wearer, {words.count(most, 'wearer')}; tick: mean."
        )
        blocks.append(
            Picture(pictures.strips(f"wearers{index}", alt, lines, _axis(metric, own)), caption, pictures.WIDTH)
        )
        blocks.append(_wearer_table(report, metric, split, values, beside))
    lead = (
        f"{words.capital(words.metric_name(metric))} of the {words.model_name(shipped)}: {'; '.join(said)}."
        if said
        else ""
    )
    return Section("wearers", title, lead, tuple(blocks))


def _per_wearer(report: Report, metric: str) -> list[Row]:
    return [
        row
        for row in reading.rows(report, "per_wearer")
        if row.get("metric") == metric and words.number(row.get("value")) is not None
    ]


def _wearer_table(
    report: Report, metric: str, split: str, values: dict[str, dict[str, float]], beside: str | None
) -> Table:
    rows = []
    for model, of in values.items():
        ordered = sorted(of.values())
        lowest = min(of, key=lambda wearer: of[wearer])
        wins = _wins(report, metric, split, model, beside or "")
        rows.append(
            [
                Cell(words.model_name(model)),
                measured(metric, ordered[0], note=lowest),
                measured(metric, median(ordered)),
                measured(metric, ordered[-1]),
                _spread(metric, stdev(ordered) if len(ordered) > 1 else None),
                Cell("baseline", "quiet")
                if model == beside
                else Cell(f"{wins.better} of {wins.n}")
                if wins.n
                else Cell("no baseline", "quiet"),
            ]
        )
    name = words.model_short(beside) if beside else "a baseline"
    columns = [
        named("model"),
        numeric("worst wearer"),
        numeric("median"),
        numeric("best wearer"),
        numeric("spread"),
        numeric(f"wearers better than {name}"),
    ]
    return table(f"{words.capital(words.metric_name(metric))} over wearers, {words.split_name(split)}", columns, rows)


@dataclass(frozen=True)
class _Wins:
    better: int
    n: int


def _wins(report: Report, metric: str, split: str, model: str, beside: str) -> _Wins:
    """For how many wearers a model is better than the baseline, of those whom both were judged on."""
    own = [row for row in _per_wearer(report, metric) if str(row.get("split")) == split]
    mine, base = (
        {str(row.get("wearer")): float(row["value"]) for row in own if str(row.get("model")) == name}
        for name in (model, beside)
    )
    both = mine.keys() & base.keys()
    return _Wins(sum(mine[wearer] > base[wearer] for wearer in both), len(both))
