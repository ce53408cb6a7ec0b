"""The tables of README.md and docs/numbers.md from bundles: python benchmarks/accuracy_table.py BUNDLE [BUNDLE ...].

A bundle is what `embridge-edge deploy` wrote. Run again after a change and compare with the tables that stand in the documents.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from embridge_edge.artifacts import read_json
from embridge_edge.report import table_markdown


def device_table(report: dict[str, Any]) -> str:
    """Float against int8, runtimes, sizes and host latency of the model that ships."""

    def result(metric: str) -> dict[str, Any] | None:
        shipped = [r for r in report["results"] if r["model"] == "student_int8" and r["metric"] == metric]
        return shipped[0] if shipped else None

    int8 = next(row for row in report["artifacts"] if row["path"] == "student_int8.tflite")
    rows = [
        ("int8 `.tflite`", f"{int8['bytes']:,} bytes, {int8['parameters']:,} parameters, {int8['macs']:,} MACs"),
        ("arena, TFLM on this host", f"{int8['arena_bytes']:,} bytes"),
        ("float ops", str(int8["float_ops"])),
    ]
    if (flips := result("class_flips")) is not None:
        spread = "" if flips["ci_low"] is None else f" ({100 * flips['ci_low']:.2f}–{100 * flips['ci_high']:.2f})"
        rows.append(("class flips, float → int8", f"{100 * flips['value']:.2f} %{spread}"))
    if (error := result("mean_removed_error")) is not None:
        rows.append(("mean-removed error, float → int8", f"{error['value']:.3f}"))
    names = {"tflm": "TFLM", "litert": "LiteRT with XNNPACK", "onnxruntime": "the int8 ONNX file on ONNX Runtime"}
    for row in report["parity"]:
        flips = "" if row["class_flips"] is None else f", class flips {100 * row['class_flips']:.2f} %"
        rows.append(
            (
                f"{names[row['other']]} against LiteRT's reference, {row['windows']:,} windows",
                f"at most {row['max_steps']} step{'s' * (row['max_steps'] != 1)}, within one step on {100 * row['within_one_step']:.1f} %{flips}",
            )
        )
    rows += [
        (f"{row['artifact']} on {row['runtime']}", f"p50 {row['p50_ms']:.4f} ms, p99 {row['p99_ms']:.4f} ms")
        for row in report["latency"]
    ]
    rows.append(("all steps", f"{report['wall_minutes']:.0f} minutes"))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/accuracy_table.py BUNDLE [BUNDLE ...]")
    for bundle in sys.argv[1:]:
        report = read_json(Path(bundle) / "report.json")
        print(f"### {report['data']['name']}, recipe {report['recipe']['name']}, seed {report['seed']}\n")
        print(table_markdown(report), "\n")
        print(device_table(report), "\n")


if __name__ == "__main__":
    main()
