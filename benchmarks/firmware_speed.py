"""Instructions, flash and RAM of generated C for the four MLPerf Tiny models, beside TFLM with CMSIS-NN.

    python benchmarks/firmware_speed.py models/ [--per-op] [--profile tflm] [--target qemu-m4 …]

`models/` holds the four int8 files of MLPerf Tiny (`kws_ref_model`, `ad01_int8`, `vww_96_int8`, `str_ww_ref_model`). Instructions
are counted on QEMU's emulated cores: executed, not cycles, not time. The baseline is TFLM with CMSIS-NN built by the same
compiler (GCC 12.2), the best of -O3, -O2 and -Os of each model. Prints how each figure stands against the last run, which it
keeps in build/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embridge_edge.firmware_bridge.emulated import Measured, measure
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.packing import layout_for
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import PROFILES, Profile, Program
from embridge_edge.firmware_bridge.sizing import necessary_constants
from embridge_edge.firmware_bridge.verifying import representative_input
from embridge_edge.hardware.boards import find_board
from embridge_edge.hardware.target import find_target

LAST = Path("build/benchmarks/firmware_speed.json")
MODELS = ("kws_ref_model", "ad01_int8", "vww_96_int8", "str_ww_ref_model")
LEVELS = ("-O3", "-Os")


@dataclass(frozen=True)
class Baseline:
    """TFLM with CMSIS-NN for one model.

    Attributes:
        instructions: by target.
        code_bytes: flash of the runtime on an M4 by level.
        arena_bytes: on an M4.
    """

    instructions: Mapping[str, int]
    code_bytes: Mapping[str, float]
    arena_bytes: int


def _baseline(m4: int, m7: int, m55: int, small_kb: float, fast_kb: float, arena: int) -> Baseline:
    counts = {"qemu-m4": m4, "qemu-m7": m7, "qemu-m55": m55}
    return Baseline(counts, {"-Os": 1000 * small_kb, "-O3": 1000 * fast_kb}, arena)


# Measured with GCC 12.2 and QEMU 7.2, TFLM of November 2026 with CMSIS-NN.
BASELINES: Mapping[str, Baseline] = {
    "kws_ref_model": _baseline(7_699_734, 7_645_549, 1_787_249, 45.4, 60.2, 22_832),
    "ad01_int8": _baseline(582_240, 582_541, 149_892, 22.1, 31.0, 3_024),
    "vww_96_int8": _baseline(24_101_543, 24_025_158, 6_433_109, 45.4, 60.2, 100_720),
    "str_ww_ref_model": _baseline(2_225_768, 2_187_085, 407_297, 43.3, 57.2, 16_608),
}
GOALS: Mapping[str, float] = {"qemu-m4": 0.60, "qemu-m7": 0.60, "qemu-m55": 0.65}
CODE_GOAL = 0.25
CONST_GOAL = 1.05
RAM_GOAL = 2048


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--profile", choices=PROFILES, default="tflm")
    parser.add_argument("--target", action="append", choices=sorted(GOALS))
    parser.add_argument("--per-op", action="store_true")
    arguments = parser.parse_args()
    profile: Profile = arguments.profile
    last = json.loads(LAST.read_text("utf-8")) if LAST.is_file() else {}
    now: dict[str, int] = {}
    for target in arguments.target or GOALS:
        measured: dict[tuple[str, str], Measured] = {}
        programs: dict[str, Program] = {}
        for name in MODELS:
            graph = read_graph(arguments.models / f"{name}.tflite")
            programs[name] = make_program(graph, "bench_model", profile, layout_for(find_target(target)))
            values = representative_input(graph)
            for level in LEVELS:
                measured[name, level] = measure(programs[name], find_board(target), values, level)
                now[f"{target} {name} {level}"] = measured[name, level].instructions
        print_table(target, measured, programs, last)
        if arguments.per_op:
            print_ops(measured)
    LAST.parent.mkdir(parents=True, exist_ok=True)
    LAST.write_text(json.dumps({**last, **now}, indent=1), "utf-8")


def print_table(
    target: str,
    measured: Mapping[tuple[str, str], Measured],
    programs: Mapping[str, Program],
    last: Mapping[str, int],
) -> None:
    print(f"\n{target}\n")
    print(
        "| model | level | instructions | of TFLM | last run | code B | of TFLM | const B | of needed | RAM B | "
        "live B | above live | stack B | first |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for (name, level), found in measured.items():
        program, base = programs[name], BASELINES[name]
        before = last.get(f"{target} {name} {level}")
        against_last = f"{found.instructions / before:.3f}" if before else ""
        cells = [
            name,
            level,
            f"{found.instructions:,}",
            f"{found.instructions / base.instructions[target]:.3f}",
            against_last,
            f"{found.code_bytes:,}",
            f"{found.code_bytes / base.code_bytes[level]:.3f}",
            f"{found.bytes_in('.rodata'):,}",
            f"{found.bytes_in('.rodata') / necessary_constants(program.graph):.3f}",
            f"{program.arena_bytes + program.state_bytes:,}",
            f"{program.live_bytes:,}",
            f"{program.arena_bytes + program.state_bytes - program.live_bytes:,}",
            str(found.stack_painted_bytes),
            f"{found.first_instructions - found.instructions:+d}",
        ]
        print(f"| {' | '.join(cells)} |")
    for level in LEVELS:
        speed = geometric_mean([measured[n, level].instructions / BASELINES[n].instructions[target] for n in MODELS])
        code = geometric_mean([measured[n, level].code_bytes / BASELINES[n].code_bytes[level] for n in MODELS])
        print(
            f"\ngeometric means at {level}: instructions {speed:.3f} (at most {GOALS[target]}), code {code:.3f} "
            f"(at most {CODE_GOAL}{'' if target == 'qemu-m4' else '; the baseline is that of the M4'})"
        )
    print(f"goals per model: const at most {CONST_GOAL} of needed, RAM at most {RAM_GOAL:,} bytes above live")


def print_ops(measured: Mapping[tuple[str, str], Measured]) -> None:
    for (name, level), found in measured.items():
        print(f"\n{name} {level}")
        for step in found.steps:
            each = f"{step.instructions / step.macs:.2f}" if step.macs else ""
            print(f"  {step.op:3} {step.name:18} {step.kernel:26} {step.instructions:10,} {step.macs:10,} {each}")


if __name__ == "__main__":
    main()
