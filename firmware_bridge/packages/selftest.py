"""The self-test that a package carries: one inference on a fixed input, compared with the reference's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.emit import C_TYPES, number
from embridge_edge.firmware_bridge.graph import Tensor
from embridge_edge.firmware_bridge.program import Program

Values = npt.NDArray[Any]

# A linear congruential generator modulo 2^32; multiplier and increment of Numerical Recipes, 2nd edition, chapter 7.1.
MULTIPLIER, INCREMENT = 1664525, 1013904223
FLOAT_STEP = 0.0625
"""Float inputs are −8 … 8 in steps that float32 holds exactly."""
_WIDTH = 110


def selftest_inputs(program: Program) -> list[Values]:
    """What the self-test feeds: one array for each of the graph's inputs."""
    state = 1
    inputs = []
    for index in program.graph.inputs:
        tensor = program.tensor(index)
        drawn = np.empty(tensor.elements, np.int64)
        for position in range(tensor.elements):
            state = (state * MULTIPLIER + INCREMENT) % 2**32
            drawn[position] = (state >> 24) - 128
        inputs.append(_as_type(drawn, tensor).reshape(tensor.shape))
    return inputs


def _as_type(drawn: npt.NDArray[np.int64], tensor: Tensor) -> Values:
    if tensor.type == "float32":
        return (drawn * FLOAT_STEP).astype(np.float32)
    if tensor.type == "bool":
        return (drawn & 1).astype(np.bool_)
    return (drawn + 128 if tensor.type.startswith("u") else drawn).astype(tensor.type)


_DRAWN = {"float32": f"(float)drawn(&state) * {FLOAT_STEP}f", "bool": "(uint8_t)(drawn(&state) & 1)"}


def selftest_files(program: Program, expected: Sequence[Values]) -> dict[str, str]:
    """Header and source of `int NAME_selftest(NAME_t *)`, where `emit.library` puts a library's files.

    Args:
        expected: what the profile's reference gives for `selftest_inputs`, one array for each of the graph's outputs.

    Raises:
        EdgeError: the outputs do not fit the graph.
    """
    outputs = [program.tensor(index) for index in program.graph.outputs]
    if [np.asarray(values).size for values in expected] != [tensor.elements for tensor in outputs]:
        raise EdgeError("The self-test's outputs do not fit the model; take those of its own reference.")
    name = program.name
    return {
        f"include/{name}_selftest.h": f"""/* One inference on a fixed input. */
#ifndef {name.upper()}_SELFTEST_H
#define {name.upper()}_SELFTEST_H

#include "{name}.h"

#ifdef __cplusplus
extern "C" {{
#endif

/* How many output values differ from those of the reference; 0 is right. The context is initialised before and after. */
int {name}_selftest({name}_t *model);

#ifdef __cplusplus
}}
#endif

#endif
""",
        f"src/{name}_selftest.c": "\n".join(_source(program, outputs, expected)),
    }


def _source(program: Program, outputs: Sequence[Tensor], expected: Sequence[Values]) -> Iterator[str]:
    name, upper = program.name, program.name.upper()
    yield f'#include "{name}_selftest.h"\n'
    yield f"/* What the reference of the profile {program.profile} gives. */"
    for position, (tensor, values) in enumerate(zip(outputs, expected, strict=True)):
        yield f"static const {C_TYPES[tensor.type]} expected{position}[{tensor.elements}] = {{"
        yield from _rows(np.asarray(values).reshape(-1))
        yield "};"
    yield f"""
/* A number in -128 ... 127: the upper byte of a linear congruential generator (Numerical Recipes, 7.1). */
static int drawn(uint32_t *state)
{{
    *state = *state * {MULTIPLIER}u + {INCREMENT}u;
    return (int)(*state >> 24) - 128;
}}

int {name}_selftest({name}_t *model)
{{
    uint32_t state = 1;
    int different = 0;

    {name}_init(model);"""
    inputs = [program.tensor(index) for index in program.graph.inputs]
    for position, tensor in enumerate(inputs):
        suffix = "" if len(inputs) == 1 else f"_{position}"
        kind = C_TYPES[tensor.type]
        lifted = " + 128" if tensor.type.startswith("u") else ""
        value = _DRAWN.get(tensor.type, f"({kind})(drawn(&state){lifted})")
        yield f"    for (uint32_t i = 0; i < {upper}_INPUT{suffix.upper()}_LENGTH; ++i) {{"
        yield f"        {name}_input{suffix}(model)[i] = {value};"
        yield "    }"
    yield f"    {name}_invoke(model);"
    for position in range(len(outputs)):
        suffix = "" if len(outputs) == 1 else f"_{position}"
        yield f"    for (uint32_t i = 0; i < {upper}_OUTPUT{suffix.upper()}_LENGTH; ++i) {{"
        yield f"        different += {name}_output{suffix}(model)[i] != expected{position}[i];"
        yield "    }"
    yield f"    {name}_init(model);\n    return different;\n}}\n"


def _rows(values: Values) -> Iterator[str]:
    line = "   "
    for text in map(number, values):
        if len(line) + len(text) + 2 > _WIDTH:
            yield line
            line = "   "
        line += f" {text},"
    yield line
