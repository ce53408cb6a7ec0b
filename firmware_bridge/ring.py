"""A network in two parts as the one that a signal chain calls: each hop a token, which stays in a ring until its window has passed.

The parts are ordinary programs with libraries of their own; what joins them is written here, under the names that the chain calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.program import ALIGNMENT, Program

TOKEN_NAME, READER_NAME = "emb_token", "emb_reader"
"""Prefixes of the symbols of both parts."""
_COUNTER_BYTES = 4


@dataclass(frozen=True)
class RingProgram:
    """The plans of both parts, and the ring between them.

    Attributes:
        token: rows of a hop, int8 `[1, hop, columns]`, to one token, int8 `[1, width]`.
        reader: tokens of a window, int8 `[1, frames, width]`, to the embedding.

    Raises:
        EdgeError: one does not take what the other gives, or keeps something from one inference to the next.
    """

    token: Program
    reader: Program

    def __post_init__(self) -> None:
        (given,), (taken,) = self.token.graph.outputs, self.reader.graph.inputs
        one, ring = self.token.tensor(given), self.reader.tensor(taken)
        if (one.type, ring.type) != ("int8", "int8") or len(ring.shape) != 3 or one.shape != (1, ring.shape[2]):
            raise EdgeError(
                f"The reader takes {ring.type} {ring.shape}, the token is {one.type} {one.shape}; cut both from one model."
            )
        if (one.scales, one.zero_points) != (ring.scales, ring.zero_points):
            raise EdgeError("Token and reader have other scales where they meet; cut both from one model.")
        if self.token.state_bytes or self.reader.state_bytes:
            raise EdgeError(
                "A part of the ring keeps a state of its own, and both share their memory; leave such layers out."
            )

    @property
    def programs(self) -> tuple[Program, Program]:
        """Token, then reader."""
        return self.token, self.reader

    @property
    def frames(self) -> int:
        """Tokens in the ring."""
        return self.reader.tensor(self.reader.graph.inputs[0]).shape[1]

    @property
    def width(self) -> int:
        """Values of a token."""
        return self.reader.tensor(self.reader.graph.inputs[0]).shape[2]

    @property
    def ring_bytes(self) -> int:
        """What is kept from one decision to the next, the padding behind it included."""
        return _whole(self.frames * self.width + _COUNTER_BYTES)

    @property
    def arena_bytes(self) -> int:
        """Activations and scratch: both parts take turns in one memory."""
        return max(_whole(program.arena_bytes) for program in self.programs)

    @property
    def live_bytes(self) -> int:
        """Most bytes of activations that are alive at once, the ring not counted."""
        return max(program.live_bytes for program in self.programs)


def _whole(size: int) -> int:
    return max(1, -(-size // ALIGNMENT)) * ALIGNMENT


def ring_library(parts: Mapping[str, str], ring: RingProgram, name: str) -> dict[str, str]:
    """Every file of the network's library by its path.

    Args:
        parts: files of the libraries of both programs. name: prefix of the joined network's symbols.
    """
    values = {
        "name": name, "upper": name.upper(), "token": ring.token.name, "reader": ring.reader.name,
        "upper_token": ring.token.name.upper(), "upper_reader": ring.reader.name.upper(), "frames": str(ring.frames),
        "width": str(ring.width),
    }  # fmt: skip
    return {**parts, f"include/{name}.h": _HEADER.format(**values), f"src/{name}.c": _SOURCE.format(**values)}


_HEADER = """/* A network in two parts: one turns the rows of a hop into a token, one reads the tokens of a window. */
#ifndef {upper}_H
#define {upper}_H

#include "{reader}.h"
#include "{token}.h"

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_TOKENS {frames}
#define {upper}_TOKEN_BYTES {width}

typedef struct {{
    /* Both parts take turns in one memory. */
    union {{
        {token}_t token;
        {reader}_t reader;
    }} part;
    uint32_t oldest; /* token in the ring: the next to be written over */
    int8_t ring[{upper}_TOKENS][{upper}_TOKEN_BYTES];
}} {name}_t;

/* Forgets all tokens. */
void {name}_init({name}_t *model);

/* The rows of the newest hop go here; the memory is used again, so write all of it each time. */
int8_t *{name}_input({name}_t *model);

/* The rows that were written become the newest token, in the place of the oldest. */
void {name}_advance({name}_t *model);

/* The same, and the ring is read: it must have had {upper}_TOKENS tokens of one stream by then. */
void {name}_invoke({name}_t *model);

/* What was read, until the input is written again. */
const int8_t *{name}_output(const {name}_t *model);

/* SHA-256 of the .tflite file that both parts were cut from, 32 bytes. */
const uint8_t *{name}_model_sha256(void);

#ifdef __cplusplus
}}
#endif

#endif
"""

_SOURCE = """#include "{name}.h"

#include <string.h>

/* Both parts were cut from one model. */
typedef char {name}_fits[{upper_token}_OUTPUT_BYTES == {upper}_TOKEN_BYTES ? 1 : -1];
typedef char {name}_fits_too[{upper_reader}_INPUT_BYTES == {upper}_TOKENS * {upper}_TOKEN_BYTES ? 1 : -1];

void {name}_init({name}_t *model)
{{
    memset(model->ring, 0, sizeof model->ring);
    model->oldest = 0;
    {token}_init(&model->part.token);
    {reader}_init(&model->part.reader);
}}

int8_t *{name}_input({name}_t *model)
{{
    return {token}_input(&model->part.token);
}}

void {name}_advance({name}_t *model)
{{
    {token}_invoke(&model->part.token);
    memcpy(model->ring[model->oldest], {token}_output(&model->part.token), {upper}_TOKEN_BYTES);
    model->oldest = (model->oldest + 1u) % {upper}_TOKENS;
}}

void {name}_invoke({name}_t *model)
{{
    int8_t *tokens;
    uint32_t to_end;
    {name}_advance(model);
    tokens = {reader}_input(&model->part.reader);
    to_end = {upper}_TOKENS - model->oldest;
    memcpy(tokens, model->ring[model->oldest], to_end * (size_t){upper}_TOKEN_BYTES);
    memcpy(tokens + to_end * (size_t){upper}_TOKEN_BYTES, model->ring[0], model->oldest * (size_t){upper}_TOKEN_BYTES);
    {reader}_invoke(&model->part.reader);
}}

const int8_t *{name}_output(const {name}_t *model)
{{
    return {reader}_output(&model->part.reader);
}}

const uint8_t *{name}_model_sha256(void)
{{
    return {token}_model_sha256();
}}
"""
