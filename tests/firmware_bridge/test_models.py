"""Whole models that nobody here trained: generated C equals its reference in every tensor, on this machine and on emulated cores."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from embridge_edge.firmware_bridge import emulated
from embridge_edge.firmware_bridge.emit import library
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.harness import HostLibrary
from embridge_edge.firmware_bridge.host_build import WARNINGS, write_files
from embridge_edge.firmware_bridge.packing import layout_for
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import PROFILES, Layout, Profile
from embridge_edge.firmware_bridge.section import constant_bytes
from embridge_edge.firmware_bridge.sizing import necessary_constants
from embridge_edge.firmware_bridge.verifying import seeded_inputs, verify_board, verify_host
from embridge_edge.hardware.boards import BOARDS
from embridge_edge.hardware.target import find_target
from tests.tools import QEMU, needs

MODELS = ("ad01_int8", "kws_ref_model", "str_ww_ref_model", "vww_96_int8")
LAYOUTS: tuple[Layout, ...] = ("rows", "pairs", "vectors")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_equals_the_reference_for_hundreds_of_inputs(
    models: Path, name: str, layout: Layout, profile: Profile
) -> None:
    content = (models / f"{name}.tflite").read_bytes()
    program = make_program(read_graph(content), "model", profile, layout)
    inputs = list(seeded_inputs(program.graph, 40 if name == "vww_96_int8" else 200))
    found, _ = verify_host(program, content, inputs)
    assert found.mismatches == ()
    assert found.tensors_checked == len(inputs) * len(program.graph.ops)


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(BOARDS))
@pytest.mark.parametrize("name", MODELS)
def test_emulated_cores_compute_the_same_tensors(models: Path, name: str, target: str) -> None:
    needs(*QEMU)
    content = (models / f"{name}.tflite").read_bytes()
    program = make_program(read_graph(content), "model", "tflm", layout_for(find_target(target)))
    inputs = list(seeded_inputs(program.graph, 8))
    host, traces = verify_host(program, content, inputs)
    for level in ("-O3", "-Os"):
        on_board = emulated.traces(program, BOARDS[target], inputs, level)
        assert verify_board(program, host, traces, on_board, target).mismatches == ()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_undefined_and_two_contexts_do_not_know_of_each_other(
    models: Path, tmp_path: Path, name: str, layout: Layout
) -> None:
    """A program of its own, because the sanitizers must be loaded before anything else; between a context's inference and
    the reading of its output another context computes something else."""
    content = (models / f"{name}.tflite").read_bytes()
    program = make_program(read_graph(content), "model", "litert-ref", layout)
    write_files(library(program, sha256(content).digest()), tmp_path)
    values = list(seeded_inputs(program.graph, 6))
    (tmp_path / "inputs.bin").write_bytes(b"".join(one[0].tobytes() for one in values))
    (tmp_path / "main.c").write_text(MAIN, "utf-8")
    command = ["cc", "-std=c99", *WARNINGS, *SANITIZERS, f"-I{tmp_path}/include", f"-I{tmp_path}/src"]
    sources = [str(path) for path in sorted((tmp_path / "src").glob("*.c"))]
    subprocess.run([*command, "-o", str(tmp_path / "run"), *sources, str(tmp_path / "main.c")], check=True)
    done = subprocess.run([str(tmp_path / "run")], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    host = HostLibrary(program)
    expected = b"".join(host.run(one)[program.graph.outputs[0]].tobytes() for one in values)
    assert done.stdout == expected


MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model.h"

int main(void)
{
    FILE *file = fopen("inputs.bin", "rb");
    model_t *model = malloc(sizeof *model); /* on the heap, where the sanitizer watches both ends */
    model_t *other = malloc(sizeof *other);
    memset(model, 0x5a, sizeof *model);
    memset(other, 0xa5, sizeof *other);
    model_init(model);
    model_init(other);
    for (int turn = 1; fread(model_input(model), 1, MODEL_INPUT_BYTES, file) == MODEL_INPUT_BYTES; ++turn) {
        model_invoke(model);
        memset(model_input(other), turn * 37, MODEL_INPUT_BYTES);
        model_invoke(other);
        fwrite(model_output(model), 1, MODEL_OUTPUT_BYTES, stdout);
    }
    fclose(file);
    free(model);
    free(other);
    return 0;
}
"""


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_memory_stays_near_what_is_alive_and_tables_near_what_is_needed(
    models: Path, name: str, layout: Layout
) -> None:
    graph = read_graph(models / f"{name}.tflite")
    program = make_program(graph, "model", "tflm", layout)
    assert program.arena_bytes + program.state_bytes <= program.live_bytes + 2048
    assert sum(constant_bytes(program).values()) <= 1.05 * necessary_constants(graph)


def test_two_runs_write_the_same_bytes(models: Path) -> None:
    content = (models / "kws_ref_model.tflite").read_bytes()
    first, second = (
        library(make_program(read_graph(content), "model", "tflm", "pairs"), sha256(content).digest()) for _ in range(2)
    )
    assert first == second


def test_a_wrong_kernel_is_found(models: Path) -> None:
    """The comparison can fail: the same program with one weight changed."""
    content = (models / "ad01_int8.tflite").read_bytes()
    program = make_program(read_graph(content), "model", "tflm", "rows")
    weights = program.steps[4].parameters["weights"].values
    weights[17] ^= 0x40
    found, _ = verify_host(program, content, list(seeded_inputs(program.graph, 8)))
    assert found.mismatches
    assert found.mismatches[0].tensor == program.tensor(program.steps[4].outputs[0]).name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cppcheck_finds_nothing(models: Path, tmp_path: Path, layout: Layout) -> None:
    needs("cppcheck")
    content = (models / "kws_ref_model.tflite").read_bytes()
    write_files(library(make_program(read_graph(content), "model", "tflm", layout), sha256(content).digest()), tmp_path)
    command = [
        # emb_core.h asserts what a right shift of a negative number does.
        "cppcheck", "--std=c99", "--suppress=shiftTooManyBitsSigned",
        "--enable=warning,performance,portability", "--error-exitcode=1", "--inline-suppr", "--quiet",
        f"-I{tmp_path}/include", f"-I{tmp_path}/src", str(tmp_path / "src"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
