"""The generated library on this machine, with every tensor visible after the call that wrote it."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.firmware_bridge.emit import library, ports
from embridge_edge.firmware_bridge.graph import NUMPY_TYPES
from embridge_edge.firmware_bridge.host_build import compile_shared, load_shared, write_files
from embridge_edge.firmware_bridge.program import Program

Values = npt.NDArray[Any]


def traced_tensors(program: Program) -> dict[int, tuple[int, ...]]:
    """For each step the tensors that are whole after it: its outputs."""
    return {at: step.outputs for at, step in enumerate(program.steps)}


def trace_cases(program: Program, copy: str) -> str:
    """The body of a `switch (step)` that does something with each output.

    Args:
        copy: a C statement with the places {at}, {source} and {size}: position in the trace, address, and bytes.
    """
    cases, at = [], 0
    for step, tensors in traced_tensors(program).items():
        lines = [f"    case {step}:"]
        for index in tensors:
            size = program.tensor(index).size_bytes
            source = f"(const uint8_t *)memory + {program.offsets[index]}"
            lines.append("        " + copy.format(at=at, source=source, size=size))
            at += size
        cases.append("\n".join([*lines, "        break;"]))
    return "\n".join(cases)


def trace_outputs(program: Program, copy: str, context: str) -> str:
    """C statements that do the same with the model's outputs, as an application reads them after the inference.

    Another call may have written over an output since the one that computed it: only here would that show.
    """
    lines, at = [], sum(program.tensor(index).size_bytes for index in _written(program))
    for suffix, tensor, kind in ports(program):
        if kind == "output":
            source = f"{program.name}_output{suffix}(&{context})"
            lines.append("    " + copy.format(at=at, source=source, size=tensor.size_bytes))
            at += tensor.size_bytes
    return "\n".join(lines)


def trace_bytes(program: Program) -> int:
    """Bytes of all outputs of all steps, and of the model's outputs once more."""
    return sum(program.tensor(index).size_bytes for index in _traced(program))


def _written(program: Program) -> list[int]:
    return [index for tensors in traced_tensors(program).values() for index in tensors]


def _traced(program: Program) -> list[int]:
    """Tensors in the order in which they stand in a trace; one that several steps write is whole in the last place."""
    return [*_written(program), *program.graph.outputs]


def split_trace(program: Program, raw: bytes, inputs: Sequence[Values]) -> dict[int, Values]:
    """The trace of one inference on these inputs as arrays, aliases included; outputs as they are at its end."""
    parts: list[tuple[int, Values]] = []
    at = 0
    for index in _traced(program):
        tensor = program.tensor(index)
        part = raw[at : at + tensor.size_bytes]
        parts.append((index, np.frombuffer(part, NUMPY_TYPES[tensor.type]).reshape(tensor.shape)))
        at += tensor.size_bytes
    written = len(_written(program))
    found = dict(parts[:written])
    known = dict(zip(program.graph.inputs, inputs, strict=True)) | found
    aliases = {
        alias: np.asarray(known[source]).reshape(program.tensor(alias).shape)
        for alias, source in program.aliases.items()
    }
    return found | aliases | dict(parts[written:])


def copy_inputs(program: Program, context: str) -> str:
    """C statements that copy `inputs`, one input after the other, into a context."""
    suffixes = [suffix for suffix, _, kind in ports(program) if kind == "input"]
    return "\n".join(
        f"    memcpy({program.name}_input{suffix}(&{context}), inputs + {start}, {size});"
        for suffix, (_, start, size) in zip(suffixes, input_layout(program), strict=True)
    )


def packed_inputs(program: Program, inputs: Sequence[Values]) -> bytes:
    """The inputs of one inference as `copy_inputs` takes them."""
    return b"".join(
        np.ascontiguousarray(values, NUMPY_TYPES[program.tensor(index).type]).tobytes()
        for index, values in zip(program.graph.inputs, inputs, strict=True)
    )


def trace_source(program: Program) -> str:
    """C that copies each step's outputs into one buffer, one after the other, and lets Python run the model."""
    name = program.name
    copy = "memcpy(harness_trace + {at}, {source}, {size});"
    return f"""#include <string.h>

#include "{name}.h"

void emb_trace(const void *memory, unsigned step);
void harness_reset(void);
void harness_run(const uint8_t *inputs);

static {name}_t harness_model;
uint8_t harness_trace[{trace_bytes(program)}];

void emb_trace(const void *memory, unsigned step)
{{
    switch (step) {{
{trace_cases(program, copy)}
    default:
        break;
    }}
}}

void harness_reset(void)
{{
    memset(&harness_model, 0xa5, sizeof harness_model); /* nothing may depend on what was in memory */
    {name}_init(&harness_model);
}}

void harness_run(const uint8_t *inputs)
{{
{copy_inputs(program, "harness_model")}
    {name}_invoke(&harness_model);
{trace_outputs(program, copy, "harness_model")}
}}
"""


def input_layout(program: Program) -> list[tuple[int, int, int]]:
    """Tensor, first byte and size of each input in what `harness_run` takes."""
    found, start = [], 0
    for index in program.graph.inputs:
        size = program.tensor(index).size_bytes
        found.append((index, start, size))
        start += size
    return found


class HostLibrary:
    """A program compiled for this machine.

    Args:
        program: what to compile.
        flags: options of the compiler.
    """

    def __init__(self, program: Program, flags: Sequence[str] = ("-O2",)) -> None:
        self._program = program
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_files(library(program, bytes(32)), folder)
            (folder / "harness.c").write_text(trace_source(program), "utf-8")
            sources = [*sorted((folder / "src").glob("*.c")), folder / "harness.c"]
            built = compile_shared(
                sources, folder / "model.so",
                includes=(folder / "include", folder / "src"), defines=("EMB_TRACE",), flags=flags,
            )  # fmt: skip
            self._loaded = load_shared(built)
        self._trace = (ctypes.c_uint8 * trace_bytes(program)).in_dll(self._loaded, "harness_trace")
        self.reset()

    def reset(self) -> None:
        """Fill the context with rubbish and initialise it."""
        self._loaded.harness_reset()

    def run(self, inputs: Sequence[Values]) -> dict[int, Values]:
        """One inference; every tensor that a step writes, as it was after that step, outputs as they are in the end.

        Args:
            inputs: one array for each of the graph's inputs, of its shape and type.
        """
        self._loaded.harness_run(packed_inputs(self._program, inputs))
        return split_trace(self._program, bytes(self._trace), inputs)
