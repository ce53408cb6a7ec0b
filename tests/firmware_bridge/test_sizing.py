"""Sizes: what is reported is what the compiler made, the stack is what the deepest chain of calls takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.emit import library
from embridge_edge.firmware_bridge.host_build import write_files
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import Program
from embridge_edge.firmware_bridge.section import constant_bytes
from embridge_edge.firmware_bridge.sizing import (
    CALL_GRAPH_FLAG,
    SizeReport,
    library_symbols,
    size_report,
    stack_estimate,
)
from embridge_edge.hardware.boards import BOARDS, Built, Symbol, build, run, sizes
from tests.firmware_bridge.small_models import dense_model, graph_of, program_of
from tests.tools import QEMU, needs

MAIN = """#include "emb_board.h"
#include "model.h"

static model_t model;

int main(void)
{
    const uint32_t before = (uint32_t)emb_board_stack_used();
    model_init(&model);
    model_invoke(&model);
    const uint32_t used[2] = {before, (uint32_t)emb_board_stack_used()};
    emb_board_output(used, sizeof used);
    return 0;
}
"""


def built_for_m4(program: Program, folder: Path) -> Built:
    write_files({**library(program, bytes(32)), "main.c": MAIN}, folder)
    return build(
        BOARDS["qemu-m4"],
        [*sorted((folder / "src").glob("*.c")), folder / "main.c"],
        folder=folder / "build",
        includes=(folder / "include", folder / "src"),
        extra_flags=(CALL_GRAPH_FLAG,),
    )


@pytest.mark.parametrize("name", ["ad01_int8", "kws_ref_model"])
def test_report_of_a_real_model_agrees_with_the_linker_and_with_a_run(models: Path, tmp_path: Path, name: str) -> None:
    needs(*QEMU)
    _, graph = graph_of(models, name)
    program = make_program(graph, "model", "tflm", "pairs")
    built = built_for_m4(program, tmp_path)
    done = run(built.elf, BOARDS["qemu-m4"])
    before, painted = (int.from_bytes(done.output[at : at + 4], "little") for at in (0, 4))
    graphs = [made.with_suffix(".ci").read_text() for made in built.objects]
    estimated = stack_estimate(graphs, "model_invoke")
    own = [symbol for made in built.objects[:-1] for symbol in sizes(made).symbols]
    report = size_report(
        program,
        library_symbols(built.sizes.symbols, own),
        target="qemu-m4",
        stack_estimated=estimated,
        stack_painted_bytes=painted,
        flash_budget_bytes=4 << 20,
        ram_budget_bytes=4 << 20,
    )
    assert report.ok
    assert "does not fit" not in report.text()
    # All of .text is the library, the board's own code and nothing else; the model's kernels are the larger part of it.
    assert 0.3 * built.sizes.total(".text") < report.code_bytes < built.sizes.total(".text")
    assert report.code["model_invoke"] > 0
    assert report.constant_bytes <= built.sizes.total(".rodata")
    weights = sum(len(graph.tensors[op.inputs[1]].data or b"") for op in graph.ops if op.name in WEIGHTED)
    assert weights <= report.constants["weights"] <= 1.01 * weights
    assert report.arena_bytes == program.arena_bytes
    # `before` is what main and the start-up code take; the ends of frames need not be written to, and are aligned.
    assert estimated.bytes - 16 <= painted <= estimated.bytes + before + 16
    assert estimated.path[0] == "model_invoke"
    assert report.stack_bytes == max(painted, estimated.bytes)


WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def tiny_symbols(program: Program, *more: Symbol) -> list[Symbol]:
    return [Symbol("tiny_section", ".rodata.tiny_section", 0, sum(constant_bytes(program).values())), *more]


def report_of(flash: int | None, ram: int | None) -> SizeReport:
    program = program_of(dense_model())
    code = [Symbol("tiny_invoke", ".text", 0, 100), Symbol("other", ".rodata.other", 0, 16)]
    return size_report(
        program, tiny_symbols(program, *code), target="m4", flash_budget_bytes=flash, ram_budget_bytes=ram
    )


def test_what_is_missing_is_said_in_one_line() -> None:
    free = report_of(None, None)
    assert free.ok
    assert free.flash_bytes == 100 + free.constant_bytes
    assert free.constants["outside the section"] == 16
    assert report_of(free.flash_bytes, free.ram_bytes).ok
    short = report_of(free.flash_bytes - 1, free.ram_bytes - 8)
    assert not short.ok
    first = short.text().splitlines()[0]
    assert first == "tiny on m4 does not fit: 1 bytes of flash are missing and 8 bytes of RAM are missing"
    assert short.to_json()["missing"] == ["1 bytes of flash are missing", "8 bytes of RAM are missing"]


def test_report_of_another_abi_is_refused() -> None:
    program = program_of(dense_model())
    (section,) = tiny_symbols(program)
    with pytest.raises(EdgeError, match="32-bit core"):
        size_report(program, [dataclasses.replace(section, size=section.size + 4)], target="host")
    with pytest.raises(EdgeError, match="is missing"):
        size_report(program, [], target="m4")


def test_symbols_of_the_application_are_not_the_library() -> None:
    linked = [Symbol(name, ".text", 0, 4) for name in ("main", "tiny_invoke", "memcpy", "__aeabi_lmul", "printf")]
    kept = library_symbols(linked, [Symbol("tiny_invoke", ".text", 0, 4), Symbol("tiny_init", ".text", 0, 4)])
    assert [symbol.name for symbol in kept] == ["tiny_invoke", "memcpy", "__aeabi_lmul"]


def ci(frames: Mapping[str, int], calls: list[tuple[str, str]], how: str = "static") -> str:
    """A call graph as GCC writes it."""
    nodes = [
        f'node: {{ title: "{name}" label: "{name}\\nf.c:1:1\\n{size} bytes ({how})" }}' for name, size in frames.items()
    ]
    edges = [f'edge: {{ sourcename: "{a}" targetname: "{b}" label: "f.c:2:2" }}' for a, b in calls]
    return "\n".join(['graph: { title: "f.c"', *nodes, *edges, "}"])


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=7).flatmap(
        lambda frames: st.tuples(
            st.just(frames),
            st.lists(st.tuples(st.integers(0, len(frames) - 1), st.integers(0, len(frames) - 1)), max_size=12),
        )
    )
)
def test_stack_is_that_of_the_deepest_chain(drawn: tuple[list[int], list[tuple[int, int]]]) -> None:
    frames, pairs = drawn
    forward = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]  # no recursion

    def deepest(at: int) -> int:
        return frames[at] + max((deepest(called) for source, called in forward if source == at), default=0)

    text = ci({f"f{at}": size for at, size in enumerate(frames)}, [(f"f{a}", f"f{b}") for a, b in forward])
    found = stack_estimate([text], "f0")
    assert found.bytes == deepest(0) == sum(frames[int(name[1:])] for name in found.path)


def test_calls_are_followed_from_file_to_file_and_unknown_frames_are_named() -> None:
    first = ci({"a": 8}, [("a", "b"), ("a", "memcpy"), ("a", "__indirect_call")])
    found = stack_estimate([first, ci({"b": 16}, [])], "a")
    assert (found.bytes, found.path, found.unknown) == (24, ("a", "b"), ("calls through pointers", "memcpy"))
    assert "without calls through pointers, memcpy" in found.text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ci({"a": 8, "b": 8}, [("a", "b"), ("b", "a")]), "calls itself"),
        (ci({"a": 8}, [], how="dynamic"), "unknown amount"),
        (ci({"b": 8}, []), "No frame of a"),
    ],
)
def test_stack_without_a_bound_is_refused(text: str, message: str) -> None:
    with pytest.raises(EdgeError, match=message):
        stack_estimate([text], "a")
