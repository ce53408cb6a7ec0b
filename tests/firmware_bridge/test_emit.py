"""What is written: names that come from a model, numbers at the ends of their types, and C that compiles whatever they are."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.firmware_bridge.emit import KERNELS_VERSION, c_name, kernel_files, library, number, step_names
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.host_build import WARNINGS, write_files
from embridge_edge.firmware_bridge.lowering import LOWERINGS
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import Program
from embridge_edge.firmware_bridge.verifying import seeded_inputs, verify_host
from tests.firmware_bridge.graphs import SOFTMAX, Network, concatenation, convolution, split, unary
from tests.firmware_bridge.single_op import Spec

DOCS = Path(__file__).resolve().parents[2] / "docs"

HOSTILE = (
    "", "int", "a/b;c", "*/", "/*", "**//", "/*/", "x */ #error y /*", "a\nb", "a\r\nb", "back\\", "back\\\n", "??/", '"', "'", "%s",
    "{name}", "\x00", "\x1b[31m", "\u202eright to left", "näme", "名", "part_1_t", "op_0", "_", "9", "x" * 5000, "a_out_b", "out",
)  # fmt: skip


def named(*names: str) -> Network:
    """A graph with several parts per op whose tensors have these names, in turn."""
    network = Network()
    given = network.input((1, 3, 3, 2))
    network.input((1, 2))
    joined = concatenation(network, split(network, convolution(network, given, 4), 2), 3)
    network.outputs = [unary(network, "LOGISTIC", joined, SOFTMAX), joined]
    network.names = [names[at % len(names)] for at in range(len(network.names))]
    return network


def program_of(network: Network) -> Program:
    return make_program(read_graph(network.model()), "model", "litert-ref", "rows")


def complaints(program: Program, folder: Path) -> str:
    """What the compiler says of the generated files, in C and of the header in C++."""
    write_files(library(program, bytes(32)), folder)
    (folder / "application.cpp").write_text('#include "model.h"\nmodel_t model;\n', "utf-8")
    include = [f"-I{folder}/include", f"-I{folder}/src"]
    own = [str(folder / "src" / name) for name in ("model.c", "model_section.c")]
    said = ""
    for command in (["cc", "-std=c99", *WARNINGS], ["cc", "-std=gnu11", *WARNINGS, "-Wpedantic"]):
        said += subprocess.run(
            [*command, *include, "-fsyntax-only", *own], capture_output=True, text=True, check=False
        ).stderr
    command = ["cc", "-x", "c++", "-std=c++11", *WARNINGS, *include, "-fsyntax-only", str(folder / "application.cpp")]
    return said + subprocess.run(command, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:20])
def test_any_name_of_a_tensor_gives_c_that_compiles_without_a_word(tmp_path: Path, name: str) -> None:
    assert complaints(program_of(named(name)), tmp_path) == ""


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=6))
def test_names_of_a_model_are_plain_text_in_comments_and_never_end_one(names: list[str]) -> None:
    program = program_of(named(*names))
    plain = library(program_of(named("plain")), bytes(32))
    for path, text in library(program, bytes(32)).items():
        assert text.isascii() or path.startswith("src/emb_")
        if path.startswith("src/model_section"):
            continue
        without = [re.sub(r"/\*.*?\*/", "", one, flags=re.DOTALL) for one in (text, plain[path])]
        members = [re.sub(r"model_section\.op_\w+", "", one) for one in without]
        assert members[0] == members[1], path


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*HOSTILE, "same", "same/same"]), min_size=1, max_size=8))
def test_steps_have_names_of_their_own_whatever_their_layers_are_called(names: list[str]) -> None:
    found = step_names(program_of(named(*names)))
    assert max(Counter(found).values()) == 1
    assert all(re.fullmatch(r"op_\d+(_[a-z0-9_]+)?", name) for name in found)


@given(st.text(max_size=200))
def test_a_layers_name_becomes_part_of_an_identifier(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9_]{0,32}", c_name(text))


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_are_written_as_they_are(value: int) -> None:
    written = number(value)
    assert {"INT32_MIN": -(2**31), "INT64_MIN": -(2**63)}.get(written) == value or int(written) == value


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floats_are_read_back_by_a_compiler_as_they_were(value: float) -> None:
    written = number(np.float32(value))
    assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?f", written)
    assert re.search(r"[.e]", written)
    assert np.float32(written.removesuffix("f")) == np.float32(value)


def test_numbers_at_the_ends_of_their_types_compile_and_are_equal() -> None:
    """A bias near the end of int32, scales near the ends of what is accepted."""
    network = Network()
    given = network.input((1, 4), 2.0**-20)
    rows = Spec((2, 4), "int8", 2.0**-30, data=np.zeros((2, 4), np.int8))
    bias = Spec((2,), "int32", 2.0**-50, data=np.array([-(2**31) + 1, 2**31 - 1], np.int32))
    options = ("FullyConnectedOptions", {})
    network.outputs = [
        network.op("FULLY_CONNECTED", [given, rows, bias], Spec((1, 2), scale=2.0**-25), options, version=4)
    ]
    content = network.model()
    for profile in ("litert-ref", "tflm"):
        program = make_program(read_graph(content), "model", profile, "pairs")  # type: ignore[arg-type]
        found, _ = verify_host(program, content, list(seeded_inputs(program.graph, 4)), flags=("-O0",))
        assert found.ok, found.mismatches[0]


def test_generated_code_is_tied_to_the_version_of_the_kernels(tmp_path: Path) -> None:
    program = program_of(named("plain"))
    core = kernel_files(program)["emb_core.h"]
    assert f"#define EMB_KERNELS_VERSION {KERNELS_VERSION}\n" in core
    assert complaints(program, tmp_path) == ""
    (tmp_path / "src" / "emb_core.h").write_text(core.replace(f"VERSION {KERNELS_VERSION}\n", "VERSION 999\n"), "utf-8")
    command = ["cc", f"-I{tmp_path}/include", "-fsyntax-only", str(tmp_path / "src" / "model.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "generate it again" in done.stderr


def test_the_documentation_lists_exactly_the_ops_that_are_supported() -> None:
    text = (DOCS / "firmware.md").read_text("utf-8")
    section = text.partition("## Supported ops\n")[2].partition("\n## ")[0]
    listed = re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", section)
    assert sorted(listed) == sorted(LOWERINGS)
