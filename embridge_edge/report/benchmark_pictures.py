"""Pictures of the benchmark: curves over shots or shares, one line per arm, drawn as the other pictures are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embridge_edge.report.pictures import _COLOUR, WIDTH, _svg
from embridge_edge.report.words import shortened

MOST_LINES = 5
"""Lines in one picture; more cannot be told apart."""

_HEIGHT = 300
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 2)), (0, (6, 2, 1.5, 2)), (0, (3, 1)))
_ROLES = ("accent", "base", "ink", "good", "muted")
_MARKS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True)
class Curve:
    """Values of an arm at some of the picture's ticks.

    Attributes:
        label: the arm. values, deviations: one for each tick, None where not measured.
    """

    label: str
    values: tuple[float | None, ...]
    deviations: tuple[float | None, ...]


def curves(name: str, alt: str, ticks: Sequence[str], lines: Sequence[Curve], across: str, up: str) -> str:
    """One line per arm over evenly spaced ticks; bars are the deviation over seeds. The legend stands above.

    Args:
        name: unique on the page. alt: what the picture shows, for those who do not see it.
        ticks: texts below. lines: at most `MOST_LINES`, each with another colour, dash and mark. across, up: names of the axes.
    """
    legend = 18 * len(lines)
    height = _HEIGHT + legend

    def draw(figure: Any) -> None:
        left, right, bottom = 46, 12, 46
        axes = figure.add_axes(
            (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - bottom - legend - 14) / height)
        )
        for place, line in enumerate(lines):
            colour = _COLOUR[_ROLES[place]]
            known = [at for at, value in enumerate(line.values) if value is not None]
            shift = 0.05 * (place - (len(lines) - 1) / 2)  # so that bars at one tick do not cover each other
            across_at = [at + shift for at in known]
            values = [line.values[at] for at in known]
            axes.plot(
                across_at, values, color=colour, lw=2, ls=_DASHES[place], marker=_MARKS[place], ms=6, clip_on=False
            )
            for at, here in zip(known, across_at, strict=True):
                value, deviation = line.values[at], line.deviations[at]
                if value is not None and deviation is not None:
                    axes.plot([here, here], [value - deviation, value + deviation], color=colour, lw=1.5)
            row = 1 - (18 * place + 10) / height
            figure.add_artist(_legend_mark(figure, colour, place, row))
            figure.text(64 / WIDTH, row, shortened(line.label, 48), color=_COLOUR["ink"], va="center", ha="left")
        axes.set_xlim(-0.3, len(ticks) - 0.7)
        axes.set_ylim(0, 1)
        axes.set_xticks(range(len(ticks)), list(ticks))
        axes.set_xlabel(across, color=_COLOUR["muted"], size=11)
        axes.set_ylabel(up, color=_COLOUR["muted"], size=11)
        axes.tick_params(length=0, pad=6, labelcolor=_COLOUR["muted"], labelsize=11)
        axes.grid(axis="y", color=_COLOUR["line"], lw=1)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return _svg(name, alt, WIDTH, height, draw)


def _legend_mark(figure: Any, colour: str, place: int, row: float) -> Any:
    from matplotlib.lines import Line2D

    ends = [16 / WIDTH, 52 / WIDTH]
    return Line2D(
        ends,
        [row, row],
        color=colour,
        lw=2,
        ls=_DASHES[place],
        marker=_MARKS[place],
        ms=5,
        transform=figure.transFigure,
    )
