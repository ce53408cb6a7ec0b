"""The tables of docs/kernels-m55.md: instructions of the Cortex-M55's kernels for the layers of the MLPerf Tiny models.

    python benchmarks/kernels_m55.py [models/] [--optimise=-O2]

Counted on the emulated board with random weights and inputs, the usual shifts and ReLUs, and checked against the definition.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embridge_edge.firmware_bridge.graph import read_graph  # noqa: E402
from embridge_edge.hardware.boards import Built, sizes  # noqa: E402
from tests.firmware_bridge.mve_cases import (  # noqa: E402
    SOURCES,
    Case,
    Shape,
    compiled_for_board,
    defined,
    draw_case,
    layers,
    on_board,
)

# TFLM with CMSIS-NN, GCC 12.2, the best of -O3, -O2 and -Os: instructions of a whole inference on the same board.
BASELINE = {
    "kws_ref_model": 1_787_249,
    "ad01_int8": 149_892,
    "vww_96_int8": 6_433_109,
    "str_ww_ref_model": 407_297,
}


def without_relu(case: Case) -> Case:
    """The same with an output that may be negative, which takes two instructions more to round."""
    return dataclasses.replace(case, zero=4)


def described(shape: Shape) -> str:
    """A layer in a few words."""
    given = f"{shape.in_h}×{shape.in_w}×{shape.in_c} → {shape.out_h}×{shape.out_w}×{shape.out_c}"
    if shape.kernel == "pointwise":
        return f"pointwise {given}"
    return f"{shape.kernel} {shape.kernel_h}×{shape.kernel_w}/{shape.stride_h} {given}"


def measure(model: Path, built: Built, rng: np.random.Generator) -> float:
    """Print the layers of a model; the ratio of their sum to the baseline."""
    shapes = list(layers(read_graph(model)))
    cases = [draw_case(rng, shape, usual=True) for shape, _ in shapes]
    cases = [case if relu else without_relu(case) for case, (_, relu) in zip(cases, shapes, strict=True)]
    measured = on_board(built, cases)
    print(
        f"\n### {model.stem}\n\n| layer | MACs | scratch, bytes | instructions | per MAC |\n|---|---:|---:|---:|---:|"
    )
    for case, outcome in zip(cases, measured, strict=True):
        if (outcome.outputs[0] != defined(case)).any():
            raise SystemExit(f"wrong output: {case}")
        count, macs = outcome.instructions, case.shape.macs
        print(f"| {described(case.shape)} | {macs:,} | {case.scratch_bytes:,} | {count:,} | {count / macs:.3f} |")
    total = sum(outcome.instructions for outcome in measured)
    baseline = BASELINE[model.stem]
    print(
        f"| **sum** | {sum(s.macs for s, _ in shapes):,} | | **{total:,}** | **{total / baseline:.3f}** of {baseline:,} |"
    )
    return total / baseline


def main() -> None:
    """Parse the command line and print everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, nargs="?", default=ROOT.parent / "shared" / "models")
    parser.add_argument("--optimise", default="-O2", help="GCC's level (default -O2)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        built = compiled_for_board(Path(folder), arguments.optimise)
        print(f"| file, {arguments.optimise} | bytes |\n|---|---:|")
        for source, made in zip(SOURCES, built.objects, strict=False):
            print(f"| `{source.name}` | {sizes(made).total('.text', '.rodata'):,} |")
        ratios = [
            measure(arguments.models / f"{name}.tflite", built, np.random.default_rng(index))
            for index, name in enumerate(BASELINE)
        ]
    print(f"\nGeometric mean of the four ratios: {math.prod(ratios) ** (1 / len(ratios)):.3f}")


if __name__ == "__main__":
    main()
