"""The tables of docs/features.md, from the catalogue: python benchmarks/features_table.py [docs/features.md].

With a file, replaces what stands between its two marks.
"""

from __future__ import annotations

import sys
from pathlib import Path

from embridge_edge.features.catalogue import FEATURES, GROUPS, OPTIONS, Feature

BEGIN, END = "<!-- from benchmarks/features_table.py -->", "<!-- end -->"


def operations(feature: Feature) -> str:
    """What a device computes per sample and channel."""
    if feature.operations is None:
        return feature.cost
    counts = zip(("×", "+", "compare", "log", "√"), feature.operations, strict=True)
    return ", ".join(f"{count} {what}" for what, count in counts if count) or "none"


def tables() -> str:
    """All tables as Markdown."""
    lines = [
        "| feature | what it is | formula | unit | per sample and channel | slides | differs from LibEMG |",
        "|---|---|---|---|---|---|---|",
    ]
    for feature in FEATURES.values():
        cells = (
            f"`{feature.name}`",
            feature.meaning,
            feature.formula,
            feature.unit or "–",
            operations(feature),
            "yes" if feature.slides else "",
            feature.differs,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "| group | features |", "|---|---|"]
    lines += [f"| `{name}` | {' '.join(members)} |" for name, members in GROUPS.items()]
    lines += ["", "| option | default | what it is |", "|---|---:|---|"]
    lines += [f"| `{name}` | {option.default:g} | {option.meaning} |" for name, option in OPTIONS.items()]
    lines += ["", "Sources, by feature:", ""]
    by_source: dict[str, list[str]] = {}
    for feature in FEATURES.values():
        by_source.setdefault(feature.source, []).append(feature.name)
    lines += [f"* {', '.join(names)}: {source or 'by definition'}." for source, names in by_source.items()]
    return "\n".join(lines)


def replaced(text: str) -> str:
    """The text with the tables between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    if len(sys.argv) == 1:
        sys.stdout.write(tables() + "\n")
    else:
        page = Path(sys.argv[1])
        page.write_text(replaced(page.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
