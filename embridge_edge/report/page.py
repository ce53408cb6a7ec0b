"""The report as one page: no request, no script, readable on a phone, on paper and by a screen reader."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embridge_edge.artifacts import written_by_rename
from embridge_edge.errors import EdgeError
from embridge_edge.report import deployed, learned, origin, reading, words
from embridge_edge.report.blocks import Facts, Picture, Table
from embridge_edge.report.verdict import verdict

SECTIONS = (
    learned.accuracy,
    learned.gestures,
    learned.wearers,
    deployed.quantization,
    deployed.parity,
    deployed.sizes,
    deployed.latency,
    deployed.calibration,
    origin.chain,
    origin.data,
    origin.minutes,
    origin.provenance,
    origin.everything,
)
"""The page from top to bottom, below the verdict."""


def write_page(report: Mapping[str, Any], path: Path) -> None:
    """Write the dictionary of `report.json` as one self-contained HTML page, by rename.

    Any section may be missing or empty and any value None: the page then says "not measured".

    Raises:
        EdgeError: jinja2 or matplotlib is not installed, or the page cannot be written.
    """
    page = render(report)
    with written_by_rename(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def render(report: Mapping[str, Any]) -> str:
    """The page as text."""
    try:
        import jinja2
        import matplotlib  # noqa: F401  (said here in one line rather than by the first picture)
    except ImportError as error:
        raise EdgeError(f"The page needs {error.name}; run: pip install 'embridge-edge[report]'.") from None
    from importlib.resources import files

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests |= {"picture": _is(Picture), "table": _is(Table), "facts": _is(Facts)}
    environment.filters["breakable"] = _breakable
    template = environment.from_string(files("embridge_edge.report").joinpath("page.html").read_text("utf-8"))
    known = reading.cleaned(dict(report))
    title = str(known.get("title") or "embridge-edge report")
    return template.render(
        title=title,
        facts=_headline_facts(known),
        verdict=verdict(known),
        sections=[section(known) for section in SECTIONS],
    )


def _is(kind: type[Any]) -> Any:
    return lambda block: dataclasses.is_dataclass(block) and isinstance(block, kind)


def _breakable(text: str) -> Any:
    """Escaped text that breaks after the marks in paths and in names of layers, and not inside a range of numbers."""
    from markupsafe import Markup, escape

    marked = re.sub(r"([/_;])(?=\w)", r"\1<wbr>", str(escape(text)))
    return Markup(marked.replace("–", "&NoBreak;–&NoBreak;"))  # noqa: S704  (escaped before)


def _headline_facts(report: Mapping[str, Any]) -> list[str]:
    """What stands below the title: target, data, recipe, seed, date."""
    data, recipe = reading.record(report, "data"), reading.record(report, "recipe")
    facts = [f"target {reading.target_name(report)}"] if reading.target_name(report) != "the target" else []
    if data.get("name"):
        people = (
            f", {words.count(data.get('wearers'), 'wearer')}" if words.number(data.get("wearers")) is not None else ""
        )
        facts.append(f"data {data['name']}{people}")
    if recipe.get("name"):
        facts.append(f"recipe {recipe['name']}")
    if report.get("seed") is not None:
        facts.append(f"seed {report['seed']}")
    return [*facts, str(report["created"])] if report.get("created") else facts
