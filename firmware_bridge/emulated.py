"""The generated library on an emulated board: its tensors, its instructions, its size and its stack."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.emit import library
from embridge_edge.firmware_bridge.harness import (
    copy_inputs,
    input_layout,
    packed_inputs,
    split_trace,
    trace_bytes,
    trace_cases,
    trace_outputs,
)
from embridge_edge.firmware_bridge.host_build import write_files
from embridge_edge.firmware_bridge.program import Program
from embridge_edge.firmware_bridge.sizing import CALL_GRAPH_FLAG, StackEstimate, library_symbols, stack_estimate
from embridge_edge.hardware.boards import WARNINGS, Board, Built, Symbol, build, instructions, run, sizes

Values = npt.NDArray[Any]

SHIFT = 8
"""Nanoseconds of the board's time per instruction, as a power of two."""
RUNS = 3
"""Inferences that are counted: the first must cost what the others do."""
PARTS = 16
"""Inputs in one run of the emulator, so that their tensors need not all be held at once."""
TIMEOUT_S = 600.0


@dataclasses.dataclass(frozen=True)
class StepCount:
    """What one call costs.

    Attributes:
        op: index of the graph's op.
        name: its name in TFLite.
        layer: the layer's name.
        kernel: C function.
        instructions: executed in it, that is not cycles.
        macs: multiply-accumulates.
    """

    op: int
    name: str
    layer: str
    kernel: str
    instructions: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Measured:
    """What an emulated core executes for one inference, and what the library takes there.

    Attributes:
        board: the emulated core.
        optimise: the compiler's level.
        instructions: of one inference: executed, not cycles.
        first_instructions: of the very first inference.
        steps: each call; their sum exceeds `instructions` by what the counting costs.
        symbols: functions and tables that an application gets with the library.
        stack_estimated: from the compiler's frames.
        stack_painted_bytes: most stack that an inference used, the caller's few bytes included.
    """

    board: str
    optimise: str
    instructions: int
    first_instructions: int
    steps: tuple[StepCount, ...]
    symbols: tuple[Symbol, ...]
    stack_estimated: StackEstimate
    stack_painted_bytes: int

    def bytes_in(self, section: str) -> int:
        """Bytes of the symbols in a section: ".text" for code, ".rodata" for tables."""
        return sum(symbol.size for symbol in self.symbols if symbol.section.startswith(section))

    @property
    def code_bytes(self) -> int:
        """Flash for functions."""
        return self.bytes_in(".text")


def traces(
    program: Program, board: Board, inputs: Sequence[Sequence[Values]], optimise: str = "-O3"
) -> list[dict[int, Values]]:
    """Every tensor of each inference as the emulated core computes it, from a fresh context each time.

    Raises:
        EdgeError: the compiler or the emulator is missing or refuses, or the program faults.
    """
    found: list[dict[int, Values]] = []
    with tempfile.TemporaryDirectory() as temporary:
        built = _built(program, board, Path(temporary), _trace_main(program), optimise, ("EMB_TRACE",))
        for start in range(0, len(inputs), PARTS):
            part = inputs[start : start + PARTS]
            data = len(part).to_bytes(4, "little") + b"".join(packed_inputs(program, values) for values in part)
            done = run(built.elf, board, data={board.input.origin: data}, timeout_s=TIMEOUT_S)
            size = trace_bytes(program)
            if done.exit_status or len(done.output) != size * len(part):
                raise EdgeError(f"The program on {board.name} ended early (status {done.exit_status}); report this.")
            found += [
                split_trace(program, done.output[at * size : (at + 1) * size], values) for at, values in enumerate(part)
            ]
    return found


def measure(program: Program, board: Board, inputs: Sequence[Values], optimise: str = "-O3") -> Measured:
    """Count the instructions of an inference and the bytes of the library on an emulated board.

    Raises:
        EdgeError: the compiler or the emulator is missing or refuses, or the program faults.
    """
    data = {board.input.origin: RUNS.to_bytes(4, "little") + packed_inputs(program, inputs)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole = _built(program, board, folder / "whole", _count_main(program), optimise, ())
        counted = run(whole.elf, board, data=data, icount_shift=SHIFT, timeout_s=TIMEOUT_S).output
        each = _built(program, board, folder / "each", _step_main(program), optimise, ("EMB_TRACE",))
        counted_steps = run(each.elf, board, data=data, icount_shift=SHIFT, timeout_s=TIMEOUT_S).output
        own = [symbol for made in whole.objects[:-1] for symbol in sizes(made).symbols]
        stack = stack_estimate(
            (made.with_suffix(".ci").read_text("utf-8") for made in whole.objects), f"{program.name}_invoke"
        )
    ticks = np.frombuffer(counted, "<u4")
    step_ticks = np.frombuffer(counted_steps, "<u4")
    if len(ticks) != RUNS + 1 or len(step_ticks) != len(program.steps):
        raise EdgeError(f"The program on {board.name} counted nothing; report this.")
    counts = [instructions(int(value), board, SHIFT) for value in ticks[:RUNS]]
    names = {op.index: op.name for op in program.graph.ops}
    steps = tuple(
        StepCount(step.op, names[step.op], step.layer, step.kernel, instructions(int(value), board, SHIFT), step.macs)
        for step, value in zip(program.steps, step_ticks, strict=True)
    )
    return Measured(
        board=board.name,
        optimise=optimise,
        instructions=counts[1],
        first_instructions=counts[0],
        steps=steps,
        symbols=library_symbols(whole.sizes.symbols, own),
        stack_estimated=stack,
        stack_painted_bytes=int(ticks[RUNS]),
    )


def summed(found: Sequence[Measured]) -> Measured:
    """What programs cost that run one after the other for one decision: their instructions together, the deepest of their stacks."""
    deepest = max(found, key=lambda one: one.stack_estimated.bytes)
    return dataclasses.replace(
        deepest,
        instructions=sum(one.instructions for one in found),
        first_instructions=sum(one.first_instructions for one in found),
        steps=tuple(step for one in found for step in one.steps),
        symbols=tuple({symbol.name: symbol for one in found for symbol in one.symbols}.values()),
        stack_painted_bytes=max(one.stack_painted_bytes for one in found),
    )


def selftest(files: Mapping[str, str], main: str, board: Board, optimise: str = "-O3") -> int:
    """Build a package for an emulated core and run its example there.

    Args:
        files: every file of the package by its path.
        main: the example's path.

    Returns: the example's exit status, 0 where everything is as the reference has it.

    Raises:
        EdgeError: the compiler or the emulator is missing or refuses, or the program faults.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files(files, folder)
        sources = [folder / path for path in files if path.startswith("src/") and path.endswith(".c")]
        built = build(
            board,
            [*sources, folder / main],
            folder=folder / "build",
            includes=(folder / "src",),
            optimise=optimise,
            extra_flags=(*WARNINGS, "-ffp-contract=off"),
        )
        return run(built.elf, board, timeout_s=TIMEOUT_S).exit_status


@dataclasses.dataclass(frozen=True)
class DeviceMeasured:
    """What the library of a signal chain takes on an emulated core.

    Attributes:
        symbols: functions and tables that an application gets with the library.
        context_bytes: of one `emb_t`.
        stack_estimated: of `emb_poll`, from the compiler's frames.
        stack_painted_bytes: most stack that was used until the second decision, the caller's few bytes included.
    """

    symbols: tuple[Symbol, ...]
    context_bytes: int
    stack_estimated: StackEstimate
    stack_painted_bytes: int


DEVICE_MAIN = """#include "emb.h"
#include "emb_board.h"

static emb_t device_context;

int main(void)
{
    static emb_sample_t frame[EMB_FRAME_CHANNELS];
    static emb_decision_t decision;
    uint32_t stack;
    emb_init(&device_context);
    for (uint32_t at = 0; at < EMB_WINDOW + EMB_HOP; ++at) {
        frame[at % EMB_FRAME_CHANNELS] = (emb_sample_t)(at % 199u);
        (void)emb_push(&device_context, frame, 1);
        (void)emb_poll(&device_context, &decision);
    }
    stack = (uint32_t)emb_board_stack_used();
    emb_board_output(&stack, sizeof stack);
    return decision.number != 1 || emb_label(0) == NULL;
}
"""
"""An application that uses what every application does, for sizes."""


def measure_device(files: Mapping[str, str], board: Board, optimise: str = "-O3") -> DeviceMeasured:
    """Sizes and stack of the library of a signal chain on an emulated board.

    Args:
        files: the library, as `device.device_library` gives it.

    Raises:
        EdgeError: the compiler or the emulator is missing or refuses, or the program faults.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files({**files, "main.c": DEVICE_MAIN}, folder)
        linked = build(
            board,
            [*sorted((folder / "src").glob("*.c")), folder / "main.c"],
            folder=folder / "build",
            includes=(folder / "include", folder / "src"),
            optimise=optimise,
            extra_flags=(*WARNINGS, "-ffp-contract=off", CALL_GRAPH_FLAG),
        )
        done = run(linked.elf, board, timeout_s=TIMEOUT_S)
        if done.exit_status or len(done.output) != 4:
            raise EdgeError(f"The signal chain on {board.name} came to no second decision; report this.")
        own = [symbol for made in linked.objects[:-1] for symbol in sizes(made).symbols]
        return DeviceMeasured(
            symbols=library_symbols(linked.sizes.symbols, own),
            context_bytes=sum(symbol.size for symbol in linked.sizes.symbols if symbol.name == "device_context"),
            stack_estimated=stack_estimate(
                (made.with_suffix(".ci").read_text("utf-8") for made in linked.objects), "emb_poll"
            ),
            stack_painted_bytes=int.from_bytes(done.output, "little"),
        )


def _built(program: Program, board: Board, folder: Path, main: str, optimise: str, defines: Sequence[str]) -> Built:
    folder.mkdir(parents=True, exist_ok=True)
    write_files(library(program, bytes(32)), folder)
    (folder / "main.c").write_text(main, "utf-8")
    return build(
        board,
        [*sorted((folder / "src").glob("*.c")), folder / "main.c"],
        folder=folder / "build",
        includes=(folder / "include", folder / "src"),
        defines=defines,
        optimise=optimise,
        extra_flags=(*WARNINGS, CALL_GRAPH_FLAG),
    )


def _head(program: Program) -> str:
    return f"""#include <string.h>

#include "emb_board.h"
#include "{program.name}.h"

static {program.name}_t counted_model;

static void fill(const uint8_t *inputs)
{{
{copy_inputs(program, "counted_model")}
}}
"""


def _trace_main(program: Program) -> str:
    name = program.name
    copy = "emb_board_output({source}, {size}); /* {at} */"
    size = sum(length for _, _, length in input_layout(program))
    return f"""{_head(program)}
void emb_trace(const void *memory, unsigned step);

void emb_trace(const void *memory, unsigned step)
{{
    switch (step) {{
{trace_cases(program, copy)}
    default:
        break;
    }}
}}

int main(void)
{{
    const uint8_t *inputs = (const uint8_t *)emb_board_input();
    uint32_t count;
    memcpy(&count, inputs, sizeof count);
    inputs += sizeof count;
    for (; count > 0; --count, inputs += {size}) {{
        memset(&counted_model, 0xa5, sizeof counted_model);
        {name}_init(&counted_model);
        fill(inputs);
        {name}_invoke(&counted_model);
    {trace_outputs(program, copy, "counted_model")}
    }}
    return 0;
}}
"""


def _count_main(program: Program) -> str:
    name = program.name
    return f"""{_head(program)}
int main(void)
{{
    const uint8_t *inputs = (const uint8_t *)emb_board_input();
    uint32_t count;
    memcpy(&count, inputs, sizeof count);
    {name}_init(&counted_model);
    for (; count > 0; --count) {{
        fill(inputs + sizeof count);
        emb_board_window_open();
        {name}_invoke(&counted_model);
        const uint32_t ticks = emb_board_window_close();
        emb_board_output(&ticks, sizeof ticks);
    }}
    const uint32_t stack = (uint32_t)emb_board_stack_used();
    emb_board_output(&stack, sizeof stack);
    return 0;
}}
"""


def _step_main(program: Program) -> str:
    name = program.name
    return f"""{_head(program)}
static uint32_t step_ticks[{len(program.steps)}];

void emb_trace(const void *memory, unsigned step);

void emb_trace(const void *memory, unsigned step)
{{
    step_ticks[step] = emb_board_window_close();
    (void)memory;
    emb_board_window_open();
}}

int main(void)
{{
    {name}_init(&counted_model);
    fill((const uint8_t *)emb_board_input() + sizeof(uint32_t));
    emb_board_window_open();
    {name}_invoke(&counted_model);
    emb_board_output(step_ticks, sizeof step_ticks);
    return 0;
}}
"""
