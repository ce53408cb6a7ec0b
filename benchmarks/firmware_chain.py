"""Instructions of a whole decision on an emulated core: filters, features, network, head.

    python benchmarks/firmware_chain.py bundle/student_int8.tflite --unit-per-count 0.195e-6 [--target qemu-m4] [--optimise O3]

MODEL carries its signal chain and head, as `export` and `deploy` write it. The library is built as `bridge` writes it; samples of
the self-test are pushed hop by hop. Each part is counted by itself, in a run in which nothing but that part is counted; the rest
is copying and bookkeeping. Counted are instructions executed on QEMU, neither cycles nor time.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from embridge_edge.hardware.boards import BOARDS, WARNINGS, build, instructions, run
from embridge_edge.verbs.bridge import bridge
from embridge_edge.verbs.packaging import Wanted

GOAL = 750_000
SHIFT = 8
PARTS = {
    "push": ("emb_push",),
    "filters": ("emb_filter", "emb_filter_start"),
    "features": ("emb_features_advance",),
    "network": ("emb_model_invoke",),
    "head": ("emb_decide",),
}
"""Functions of each part; the linker puts a counter around them."""

MAIN = """
#include "emb.h"
#include "emb_board.h"
#include "emb_golden.h"

static emb_t emb;
static uint32_t sum;
static uint32_t calls;

#define COUNTED(name, result, parameters, arguments, keep, give)  \\
    result __real_##name parameters;                              \\
    result __wrap_##name parameters;                              \\
    result __wrap_##name parameters                               \\
    {                                                             \\
        emb_board_window_open();                                  \\
        keep __real_##name arguments;                             \\
        sum += emb_board_window_close();                          \\
        ++calls;                                                  \\
        give                                                      \\
    }

#ifdef PART_PUSH
COUNTED(emb_push, size_t, (emb_t *e, const emb_sample_t *s, size_t n), (e, s, n), const size_t r =, return r;)
#endif
#ifdef PART_FILTERS
COUNTED(emb_filter, void, (float state[][2], float *samples, uint32_t count), (state, samples, count), , )
COUNTED(emb_filter_start, void, (float state[][2], float level), (state, level), , )
#endif
#ifdef PART_FEATURES
COUNTED(emb_features_advance, uint32_t,
        (emb_features_t *f, uint32_t count, int8_t rows[][EMB_COLUMNS], uint32_t row), (f, count, rows, row),
        const uint32_t r =, return r;)
#endif
#ifdef PART_NETWORK
COUNTED(emb_model_invoke, void, (emb_model_t *m), (m), , )
#endif
#ifdef PART_HEAD
COUNTED(emb_decide, void, (const int8_t *embedding, emb_decision_t *decision), (embedding, decision), , )
#endif

int main(void)
{
    emb_decision_t decision;
    uint32_t most = 0;
    uint32_t most_calls = 0;
    uint32_t decisions = 0;
    emb_init(&emb);
    for (uint32_t at = 0; at + EMB_HOP <= EMB_GOLDEN_FRAMES; at += EMB_HOP) {
        uint32_t made;
        sum = 0;
        calls = 0;
#ifdef PART_ALL
        emb_board_window_open();
#endif
        emb_push(&emb, emb_golden_samples[at], EMB_HOP);
        made = (uint32_t)emb_poll(&emb, &decision);
#ifdef PART_ALL
        sum = emb_board_window_close();
        calls = 1;
#endif
        if (made != 0 && ++decisions > 1 && sum > most) { /* the first decision comes with a filter's first samples */
            most = sum;
            most_calls = calls;
        }
    }
    emb_board_output(&most, sizeof most);
    emb_board_output(&most_calls, sizeof most_calls);
    return 0;
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--unit-per-count", type=float)
    parser.add_argument("--target", default="qemu-m4", choices=sorted(BOARDS))
    parser.add_argument("--optimise", default="O3", choices=("O3", "O2", "Os"))
    arguments = parser.parse_args()
    board, wanted = BOARDS[arguments.target], Wanted(unit_per_count=arguments.unit_per_count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = bridge(arguments.model, arguments.target, folder / "package", wanted=wanted)
        source = folder / "package" / "src"
        (folder / "main.c").write_text(MAIN, "utf-8")
        files = [path for path in sorted(source.rglob("*.c")) if path.name != "emb_selftest.c"]
        rows, size, context = [], 0, 0
        for part, functions in {"all": (), **PARTS}.items():
            built = build(
                board,
                [*files, folder / "main.c"],
                folder=folder / part,
                includes=(source, source / "emb"),
                defines=(f"PART_{part.upper()}",),
                optimise=f"-{arguments.optimise}",
                extra_flags=(*WARNINGS, "-ffp-contract=off"),
                link_flags=tuple(f"-Wl,--wrap={function}" for function in functions),
            )
            ticks, calls = np.frombuffer(run(built.elf, board, icount_shift=SHIFT).output, "<u4").tolist()
            # Each window loses two ticks to the counter and holds four instructions of its own (hardware.boards).
            per_call = instructions(0, board, SHIFT)
            rows.append((part, instructions(ticks, board, SHIFT) + (calls - 1) * per_call if calls else 0, calls))
            if part == "all":
                size = built.sizes.total(".text")
                context = sum(symbol.size for symbol in built.sizes.symbols if symbol.name == "emb")
    total = rows[0][1]
    print(
        f"{arguments.model.name} on {arguments.target} at -{arguments.optimise}, instructions of the worst decision\n"
    )
    print("| part | instructions | share | calls |\n|---|---:|---:|---:|")
    for part, count, calls in rows[1:]:
        print(f"| {part} | {count:,} | {100 * count / total:.1f} % | {calls} |")
    rest = total - sum(count for _, count, _ in rows[1:])
    print(f"| the rest | {rest:,} | {100 * rest / total:.1f} % | |")
    print(f"| **all** | **{total:,}** | | |")
    print(f"\ngoal for 16 channels at 2 kHz on an M4: at most {GOAL:,}")
    print(
        f"code with start-up of the board {size:,} bytes, tables of the network {report.const_bytes:,}, emb_t {context:,} bytes of RAM"
    )


if __name__ == "__main__":
    main()
