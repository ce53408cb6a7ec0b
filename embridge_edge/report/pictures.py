"""Pictures as inline SVG: pure functions of numbers, drawn by matplotlib, coloured by the page.

Colours are names of CSS variables of the page, so that one picture serves the light scheme, the dark one and
print. Text stays text, in the page's font. Widths are in pixels of the page: 400 fits a phone without shrinking much.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from embridge_edge.report.words import shortened

WIDTH = 400

_ROLES = ("ink", "muted", "line", "soft", "accent", "base", "good", "bad", "cell", "on_cell")
_COLOUR = {role: f"#0{index:x}0{index:x}0{index:x}" for index, role in enumerate(_ROLES, start=1)}
_ROLE_OF = {colour: role for role, colour in _COLOUR.items()}
_FONT = 12.0
_LABELS = 92
_LONGEST = 16  # characters of a gesture's name
_SLANT = 58  # what the last column's slanted name needs to the right


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, on a named row."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    role: str = "ink"


@dataclass(frozen=True)
class Strip:
    """Values of all wearers, on a named row."""

    label: str
    values: tuple[float, ...]
    role: str = "ink"


@dataclass(frozen=True)
class Bar:
    """A bar below its label; `limit` is the length of the track behind it."""

    label: str
    value: float
    text: str
    limit: float | None = None
    role: str = "accent"


@dataclass(frozen=True)
class Range:
    """Range of one channel in calibration and in test data."""

    label: str
    calibration: tuple[float, float]
    test: tuple[float, float] | None


@dataclass(frozen=True)
class Curve:
    """Shares, and where each stands on the horizontal axis of every panel."""

    label: str
    values: tuple[float, ...]
    places: tuple[tuple[float, ...], ...]
    role: str = "accent"


@dataclass(frozen=True)
class Axis:
    """A horizontal axis: its ends, its name with unit, and by how much values are multiplied to be shown."""

    low: float
    high: float
    title: str
    factor: float = 1.0


def intervals(
    name: str,
    alt: str,
    points: Sequence[Estimate],
    axis: Axis,
    *,
    reference: Estimate | None = None,
    chance: float | None = None,
) -> str:
    """Each value as a dot with its interval; the reference runs through all rows, chance is dotted.

    Args:
        name: unique on the page; it makes the picture's ids.
        alt: what the picture shows, for those who do not see it.
    """
    height = 30 * len(points) + 70

    def draw(figure: Any) -> None:
        axes = _rows(figure, height, [point.label for point in points], axis, left=_LABELS, right=54, top=22, bottom=44)
        if reference is not None:
            if reference.low is not None and reference.high is not None:
                axes.axvspan(
                    reference.low * axis.factor, reference.high * axis.factor, color=_COLOUR["base"], alpha=0.14, lw=0
                )
            axes.axvline(reference.value * axis.factor, color=_COLOUR["base"], lw=1.5)
            axes.text(
                reference.value * axis.factor,
                -0.6,
                reference.label,
                color=_COLOUR["base"],
                ha="center",
                va="bottom",
                size=11,
            )
        if chance is not None:
            axes.axvline(chance * axis.factor, color=_COLOUR["muted"], lw=1.2, ls=(0, (1.5, 2.5)))
            axes.text(chance * axis.factor, -0.6, "chance", color=_COLOUR["muted"], ha="center", va="bottom", size=11)
        for row, point in enumerate(points):
            colour = _COLOUR[point.role]
            if point.low is not None and point.high is not None:
                axes.plot(
                    [point.low * axis.factor, point.high * axis.factor],
                    [row, row],
                    color=colour,
                    lw=2.5,
                    solid_capstyle="round",
                )
            axes.plot([point.value * axis.factor], [row], "o", color=colour, ms=8)
            axes.text(
                1.0,
                row,
                f"  {point.text}",
                transform=axes.get_yaxis_transform(),
                color=colour,
                va="center",
                weight="bold",
            )

    return _svg(name, alt, WIDTH, height, draw)


def strips(name: str, alt: str, lines: Sequence[Strip], axis: Axis) -> str:
    """One dot per wearer and row, the mean as a tick."""
    height = 40 * len(lines) + 52

    def draw(figure: Any) -> None:
        axes = _rows(figure, height, [line.label for line in lines], axis, left=_LABELS, right=14, top=8, bottom=44)
        for row, line in enumerate(lines):
            colour = _COLOUR[line.role]
            ordered = sorted(line.values)
            # Neighbours in value are kept apart, the same way each time.
            places = [row + (-0.24, 0.12, -0.12, 0.24, 0.0)[index % 5] for index in range(len(ordered))]
            axes.plot([value * axis.factor for value in ordered], places, "o", color=colour, ms=5, alpha=0.6, mew=0)
            if ordered:
                mean = axis.factor * sum(ordered) / len(ordered)
                axes.plot([mean, mean], [row - 0.4, row + 0.4], color=_COLOUR["ink"], lw=2.5)

    return _svg(name, alt, WIDTH, height, draw)


def confusion(
    name: str, alt: str, gestures: Sequence[str], counts: Sequence[Sequence[float]], worst: int | None
) -> str:
    """Shares of each row's windows, truth down and decision across; the worst row is framed."""
    many, left, cell = len(gestures), _label_room(gestures), confusion_cell(gestures)
    width, top, bottom = confusion_width(gestures), 112, 22
    height = top + cell * many + bottom
    size = _FONT if many <= 10 else 9.5
    labels = [shortened(gesture, _LONGEST) for gesture in gestures]

    def draw(figure: Any) -> None:
        from matplotlib.patches import Rectangle

        axes = figure.add_axes((left / width, bottom / height, cell * many / width, cell * many / height))
        axes.set_xlim(0, many)
        axes.set_ylim(many, 0)
        axes.axis("off")
        for row, values in enumerate(counts):
            total = sum(values)
            known = total > 0
            bad = row == worst
            axes.text(
                -0.2,
                row + 0.5,
                labels[row],
                ha="right",
                va="center",
                color=_COLOUR["bad" if bad else "ink" if known else "muted"],
                weight="bold" if bad else "normal",
            )
            axes.text(
                row + 0.45,
                -0.2,
                labels[row],
                ha="left",
                va="bottom",
                rotation=55,
                rotation_mode="anchor",
                color=_COLOUR["ink"],
            )
            for column, value in enumerate(values):
                share = value / total if known else 0.0
                axes.add_patch(Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, fc=_COLOUR["soft"], lw=0))
                if share >= 0.005:
                    axes.add_patch(
                        Rectangle(
                            (column + 0.03, row + 0.03), 0.94, 0.94, fc=_COLOUR["cell"], alpha=0.08 + 0.92 * share, lw=0
                        )
                    )
                if share >= (0.01 if many <= 10 else 0.1):
                    colour = _COLOUR["on_cell" if share > 0.72 else "ink"]
                    axes.text(
                        column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", size=size, color=colour
                    )
            if bad:
                axes.add_patch(
                    Rectangle((0, row), many, 1, fc="none", ec=_COLOUR["bad"], lw=2, clip_on=False, zorder=5)
                )
        axes.text(many / 2, many + 0.12, "decided (%) →", ha="center", va="top", color=_COLOUR["muted"], size=11)

    return _svg(name, alt, width, height, draw)


def confusion_cell(gestures: Sequence[str]) -> int:
    """Side of a cell in pixels: what fits a phone, but never too small for a number."""
    return max(24, min(34, int((WIDTH - _label_room(gestures) - _SLANT) / max(1, len(gestures)))))


def confusion_width(gestures: Sequence[str]) -> int:
    """Width of the picture in pixels; more than `WIDTH` with many gestures."""
    return _label_room(gestures) + confusion_cell(gestures) * len(gestures) + _SLANT


def _label_room(gestures: Sequence[str]) -> int:
    return 14 + int(7.2 * min(_LONGEST, max(map(len, gestures), default=0)))


def bars(name: str, alt: str, lines: Sequence[Bar]) -> str:
    """Horizontal bars, each below its label, on one scale; with limits, each against its own."""
    height = 40 * len(lines) + 8
    longest = max((line.value for line in lines), default=0.0) or 1.0

    def draw(figure: Any) -> None:
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
        axes.axis("off")
        for index, line in enumerate(lines):
            top = 40 * index + 4
            room = WIDTH - 8 - 7.2 * len(line.text)
            axes.text(
                0, top + 9, shortened(line.label, max(8, int(room / 7.0))), ha="left", va="center", color=_COLOUR["ink"]
            )
            axes.text(WIDTH, top + 9, line.text, ha="right", va="center", color=_COLOUR[line.role], weight="bold")
            full = line.limit if line.limit else longest
            axes.barh(top + 24, WIDTH, height=10, color=_COLOUR["soft"], lw=0)
            axes.barh(
                top + 24, WIDTH * min(1.0, max(0.0, line.value / full)), height=10, color=_COLOUR[line.role], lw=0
            )

    return _svg(name, alt, WIDTH, height, draw)


def curves(name: str, alt: str, lines: Sequence[Curve], below: Sequence[Axis]) -> str:
    """Lines of points over one horizontal axis or several, one panel below the other; values are shares, shown in percent."""
    panel = 190
    height = panel * len(below)
    highest = max((value for line in lines for value in line.values), default=0.0) or 1.0

    def draw(figure: Any) -> None:
        for place, axis in enumerate(below):
            bottom = 1.0 - (place + 1) / len(below)
            axes = figure.add_axes(
                (50 / WIDTH, bottom + 44 / height, (WIDTH - 64) / WIDTH, (panel - (70 if place == 0 else 56)) / height)
            )
            for line in lines:
                at = [value * axis.factor for value in line.places[place]]
                shown = [100 * value for value in line.values]
                axes.plot(at, shown, "o-", color=_COLOUR[line.role], ms=6, lw=2, label=line.label)
            axes.set_xlim(axis.low * axis.factor, axis.high * axis.factor)
            axes.set_ylim(0, 115 * highest)
            axes.set_xlabel(axis.title, color=_COLOUR["muted"], size=11)
            axes.set_ylabel("%", color=_COLOUR["muted"], size=11)
            axes.tick_params(length=0, pad=6, labelcolor=_COLOUR["muted"], labelsize=11)
            axes.grid(axis="y", color=_COLOUR["line"], lw=1)
            axes.set_axisbelow(True)
            for spine in axes.spines.values():
                spine.set_visible(False)
            if place == 0:
                axes.legend(
                    frameon=False, fontsize=11, ncols=len(lines), loc="lower left", bbox_to_anchor=(-0.03, 0.98),
                    labelcolor=_COLOUR["ink"], handlelength=1.2, columnspacing=1.2,
                )  # fmt: skip

    return _svg(name, alt, WIDTH, height, draw)


def ranges(name: str, alt: str, lines: Sequence[Range], title: str) -> str:
    """Per channel the range of calibration windows (pale), that of test data (thin), and what lies outside (red)."""
    height = 22 * len(lines) + 52
    ends = [end for line in lines for end in (*line.calibration, *(line.test or ()))]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    margin = 0.03 * (high - low) or 1.0
    axis = Axis(low - margin, high + margin, title)

    def draw(figure: Any) -> None:
        axes = _rows(figure, height, [line.label for line in lines], axis, left=66, right=14, top=8, bottom=44)
        for row, line in enumerate(lines):
            first, last = line.calibration
            axes.barh(row, last - first, left=first, height=0.66, color=_COLOUR["accent"], alpha=0.28, lw=0)
            if line.test is None:
                continue
            start, stop = line.test
            axes.plot([start, stop], [row, row], color=_COLOUR["ink"], lw=2.5, solid_capstyle="butt")
            for outside in ((start, min(first, stop)), (max(last, start), stop)):
                if outside[0] < outside[1]:
                    axes.plot(outside, [row, row], color=_COLOUR["bad"], lw=5, solid_capstyle="butt")

    return _svg(name, alt, WIDTH, height, draw)


def _rows(
    figure: Any,
    height: float,
    labels: Sequence[str],
    axis: Axis,
    *,
    left: float,
    right: float,
    top: float,
    bottom: float,
) -> Any:
    """Axes with one named row per label, the first on top, and light vertical grid lines."""
    axes = figure.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
    )
    axes.set_xlim(axis.low * axis.factor, axis.high * axis.factor)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), [shortened(label, 14) for label in labels])
    axes.set_xlabel(axis.title, color=_COLOUR["muted"], size=11)
    axes.tick_params(length=0, pad=6, labelcolor=_COLOUR["ink"])
    axes.tick_params(axis="x", labelcolor=_COLOUR["muted"], labelsize=11)
    axes.grid(axis="x", color=_COLOUR["line"], lw=1)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _svg(name: str, alt: str, width: float, height: float, draw: Callable[[Any], None]) -> str:
    import warnings

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "text.usetex": False,
        "font.size": _FONT,
        "font.family": ["DejaVu Sans"],
        "axes.unicode_minus": True,
        "path.simplify": False,
    }
    # Whatever matplotlibrc or style the user has, the pictures are the same.
    with matplotlib.rc_context(matplotlib.rcParamsDefault | settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A missing glyph is the browser's business.
        figure = Figure(figsize=(width / 72.0, height / 72.0))
        FigureCanvasSVG(figure)
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _tidied(stream.getvalue(), name, alt, width, height)


def _tidied(drawn: str, name: str, alt: str, width: float, height: float) -> str:
    """matplotlib's file as an element of the page: variables for colours, own ids, no metadata, two decimals."""
    root = ElementTree.fromstring(drawn)  # noqa: S314  (our own text)
    for parent in list(root.iter()):
        for child in list(parent):
            if _tag(child) == "metadata" or (_tag(child) == "defs" and any(_tag(item) == "style" for item in child)):
                parent.remove(child)
    used = {
        match
        for element in root.iter()
        for value in element.attrib.values()
        for match in re.findall(r"#([\w.-]+)", value)
    }
    for element in root.iter():
        element.tag = _tag(element)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            plain = key.rpartition("}")[2]
            if plain == "id":
                if value in used:
                    element.set("id", f"{name}-{value}")
            elif plain == "style":
                element.set("style", _styled(value))
            elif plain == "transform" and value.startswith("rotate(-0 "):
                continue
            else:
                element.set(plain, re.sub(r"(?:(?<=url\(#)|(?<=^#))", f"{name}-", _rounded(value)))
    _prune(root)
    root.attrib.clear()
    root.attrib.update(
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width:g} {height:g}",
            "width": f"{width:g}",
            "height": f"{height:g}",
            "role": "img",
            "aria-label": alt,
        }
    )
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _styled(style: str) -> str:
    style = re.sub(r"font-family: [^;]*(?:; )?", "", style)
    return re.sub(
        r"#[0-9a-f]{6}",
        lambda match: f"var(--{_ROLE_OF[match[0]].replace('_', '-')})" if match[0] in _ROLE_OF else match[0],
        style,
    )


def _rounded(value: str) -> str:
    return (
        re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value)
        .replace("\n", "")
        .strip()
    )


def _prune(element: ElementTree.Element) -> None:
    """Drop groups that draw nothing, and the white space between elements."""
    for child in list(element):
        _prune(child)
        invisible = child.tag == "path" and child.get("style") == "fill: none"
        if invisible or (child.tag in ("g", "defs") and not len(child)):
            element.remove(child)
        else:
            child.tail = None
            if child.tag != "text":
                child.text = None
    element.tail = None
    if element.tag != "text":
        element.text = None
