"""What a section of the page is made of; `page.html` knows how each looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embridge_edge.report.words import NOT_MEASURED, quantity

Kind = Literal["", "good", "bad", "warn", "missing", "quiet"]


@dataclass(frozen=True)
class Cell:
    """One cell: its text, how it is meant, a quieter second line, and a share from 0 to 1 that is drawn as a bar."""

    text: str
    kind: Kind = ""
    note: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Column:
    """A column's title; numbers stand to the right."""

    title: str
    number: bool


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row names the row."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    @property
    def wide(self) -> bool:
        return len(self.columns) > 5


@dataclass(frozen=True)
class Picture:
    """Inline SVG and the caption that says how to read it."""

    svg: str
    caption: str
    width: int


@dataclass(frozen=True)
class Facts:
    """Names and values, one pair per line."""

    caption: str
    pairs: tuple[tuple[str, str], ...]


Block = Table | Picture | Facts


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: anchor, lower case. title, lead: what it is about, and its finding in a sentence or two.
        blocks: tables, pictures and facts.
        warnings: what a reader must not overlook.
        missing: why there is nothing to show, for a section without blocks.
    """

    key: str
    title: str
    lead: str = ""
    blocks: tuple[Block, ...] = ()
    warnings: tuple[str, ...] = ()
    missing: str = ""


def named(title: str) -> Column:
    """A column of words."""
    return Column(title, number=False)


def numeric(title: str) -> Column:
    """A column of numbers."""
    return Column(title, number=True)


def measured(name: str, value: object, kind: Kind = "", note: str = "") -> Cell:
    """A quantity with its unit, or the words that it was not measured."""
    text = quantity(name, value)
    return Cell(text, "missing") if text == NOT_MEASURED else Cell(text, kind, note)


def said(value: object, kind: Kind = "") -> Cell:
    """A word or a name, or the words that nobody gave it."""
    return Cell(str(value), kind) if value not in (None, "") else Cell("not stated", "missing")


def table(caption: str, columns: list[Column], rows: list[list[Cell]], note: str = "") -> Table:
    return Table(caption, tuple(columns), tuple(tuple(row) for row in rows), note)
