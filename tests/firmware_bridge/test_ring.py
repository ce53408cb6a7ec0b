"""A network of two programs around a ring: only parts that fit each other, and a chain whose hops are its frames, become C."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.export.ring import Parts, cut
from embridge_edge.features.chain import ChainPlan, resolve
from embridge_edge.firmware_bridge.chain import Network, Quantization, RawSamples, emit_chain
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import Program
from embridge_edge.firmware_bridge.ring import READER_NAME, TOKEN_NAME, RingProgram, ring_library
from embridge_edge.model.head import make_head
from embridge_edge.model.ring_student import RingShape
from tests.export.test_ring import int8_of


def programs(parts: Parts) -> tuple[Program, Program]:
    token, reader = (
        make_program(read_graph(part), name, "litert-ref", "rows")
        for part, name in ((parts.token, TOKEN_NAME), (parts.reader, READER_NAME))
    )
    return token, reader


@pytest.fixture(scope="module")
def parts() -> Parts:
    return cut(int8_of(RingShape(40, 4, 10, (8,), (3,), (2,), 6, (8,), (3,), 2, 8))[1])


def test_parts_share_one_memory_and_keep_the_ring_beside_it(parts: Parts) -> None:
    ring = RingProgram(*programs(parts))
    assert (ring.frames, ring.width) == (4, 6)
    assert ring.arena_bytes == 8 * -(-max(one.arena_bytes for one in ring.programs) // 8)
    assert ring.ring_bytes == 32  # 24 of tokens, a counter of 4, and what fills a word of 8
    files = ring_library({}, ring, "emb_model")
    assert "int8_t ring[EMB_MODEL_TOKENS][EMB_MODEL_TOKEN_BYTES];" in files["include/emb_model.h"]
    assert "#define EMB_MODEL_TOKENS 4" in files["include/emb_model.h"]


def test_parts_of_two_models_are_refused(parts: Parts) -> None:
    token, reader = programs(parts)
    wider = programs(cut(int8_of(RingShape(40, 4, 10, (8,), (3,), (2,), 7, (8,), (3,), 2, 8))[1]))
    with pytest.raises(EdgeError, match=r"takes int8 \(1, 4, 7\), the token is int8 \(1, 6\)"):
        RingProgram(token, wider[1])
    graph = reader.graph
    ends = [replace(one, scales=(1.0,)) if one.index == graph.inputs[0] else one for one in graph.tensors]
    with pytest.raises(EdgeError, match="other scales where they meet"):
        RingProgram(token, replace(reader, graph=replace(graph, tensors=tuple(ends))))
    with pytest.raises(EdgeError, match="keeps a state of its own"):
        RingProgram(token, replace(reader, state_bytes=8))


@pytest.mark.parametrize(("tokens", "window_ms"), [(4, 250.0), (5, 200.0), (4, 220.0)])
def test_a_chain_of_other_hops_is_refused(tokens: int, window_ms: float) -> None:
    chain = resolve(ChainPlan(window_ms=window_ms, hop_ms=50.0, bandpass_hz=None), 200.0, 4, "myo")
    head = make_head("linear", ("rest", "fist"), np.ones((2, 8), np.float32), np.zeros(2, np.float32))
    network = Network(Quantization(0.1, 0), Quantization(0.1, 0), tokens)
    with pytest.raises(
        EdgeError, match=f"keeps {tokens} tokens, and a window of .* samples is not that many hops of 10"
    ):
        emit_chain(chain, head, network, RawSamples())
