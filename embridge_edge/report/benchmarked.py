"""From the dictionary of `benchmark.json` (benchmark_reading says what it holds) to what people read: text, Markdown, a page."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from embridge_edge.artifacts import written_by_rename
from embridge_edge.errors import EdgeError
from embridge_edge.report import reading, words
from embridge_edge.report.benchmark_reading import Benchmark, notes_of, read_benchmark, title_of
from embridge_edge.report.benchmark_sections import SECTIONS, verdict_of
from embridge_edge.report.benchmark_tables import all_tables
from embridge_edge.report.blocks import Cell, Facts, Picture, Table
from embridge_edge.report.page import _breakable, _is
from embridge_edge.report.text import _aligned, _escaped


def terminal_text(report: Mapping[str, Any]) -> str:
    """The tables for a terminal."""
    benchmark = read_benchmark(report)
    parts = [title_of(benchmark), *(_as_text(one) for one in all_tables(benchmark)), *notes_of(benchmark)]
    return "\n\n".join(parts).replace(words.SPACE, " ")


def markdown(report: Mapping[str, Any]) -> str:
    """The tables for a README."""
    benchmark = read_benchmark(report)
    parts = [*(_as_markdown(one) for one in all_tables(benchmark)), *map(_escaped, notes_of(benchmark))]
    return "\n\n".join(parts).replace(words.SPACE, " ") + "\n"


def write_benchmark_page(report: Mapping[str, Any], path: Path) -> None:
    """Write the dictionary of `benchmark.json` as one self-contained HTML page, by rename.

    Raises:
        EdgeError: no score, jinja2 or matplotlib is not installed, or the page cannot be written.
    """
    page = render_benchmark(report)
    with written_by_rename(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def render_benchmark(report: Mapping[str, Any]) -> str:
    """The page as text: the report's page up to its footer, with sections of its own."""
    try:
        import jinja2
        import matplotlib  # noqa: F401  (said here in one line rather than by the first picture)
    except ImportError as error:
        raise EdgeError(f"The page needs {error.name}; run: pip install 'embridge-edge[report]'.") from None

    benchmark = read_benchmark(report)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests |= {"picture": _is(Picture), "table": _is(Table), "facts": _is(Facts)}
    environment.filters["breakable"] = _breakable
    shared = files("embridge_edge.report").joinpath("page.html").read_text("utf-8").partition("<footer>")[0]
    template = environment.from_string(f"{shared}<footer><p>{_FOOTER}</p></footer>\n</body>\n</html>\n")
    return template.render(
        title=title_of(benchmark),
        facts=headline_facts(benchmark),
        verdict=verdict_of(benchmark),
        sections=[section(benchmark) for section in SECTIONS],
    )


_FOOTER = (
    "Written by embridge-edge. Every number stands in benchmark.json beside this page. Intervals: 95 %, paired two-way "
    "bootstrap over wearers and seeds, 10,000 draws; not corrected for the number of comparisons."
)


def headline_facts(benchmark: Benchmark) -> list[str]:
    recipe, data = reading.record(benchmark.report, "recipe"), reading.record(benchmark.report, "data")
    seeds = benchmark.report.get("seeds")
    found = [f"data {data['name']}"] if data.get("name") else []
    found += [f"recipe {recipe['name']}"] if recipe.get("name") else []
    found += [words.count(len(seeds), "seed")] if isinstance(seeds, list) else []
    found += [words.count(len(benchmark.arms), "arm")]
    return [*found, str(benchmark.report["created"])] if benchmark.report.get("created") else found


def _as_text(found: Table) -> str:
    lines = [[column.title for column in found.columns], *([_said(cell) for cell in row] for row in found.rows)]
    note = [f"  {found.note}"] if found.note else []
    return "\n".join([found.caption, *_aligned(lines, left=(0,), indent="  "), *note])


def _as_markdown(found: Table) -> str:
    lines = [
        [column.title for column in found.columns],
        ["---:" if column.number else "---" for column in found.columns],
        *([_said(cell) for cell in row] for row in found.rows),
    ]
    rows = "\n".join(
        f"| {' | '.join(line if place == 1 else map(_escaped, line))} |" for place, line in enumerate(lines)
    )
    note = f"\n\n{_escaped(found.note)}" if found.note else ""
    return f"**{_escaped(found.caption)}**\n\n{rows}{note}"


def _said(cell: Cell) -> str:
    return f"{cell.text} {cell.note}" if cell.note else cell.text
