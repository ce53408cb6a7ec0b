"""The chain as firmware is built: other compilers' rules, sanitizers, two threads, emulated cores, a self-test at boot."""

from __future__ import annotations

import platform
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.features import Stream
from embridge_edge.features.chain import SignalChain
from embridge_edge.firmware_bridge.chain import C_FEATURES, RawSamples, emit_golden, make_golden
from embridge_edge.firmware_bridge.host_build import WARNINGS, write_files
from embridge_edge.hardware.boards import BOARDS, build, run
from tests.firmware_bridge.chain.compiling import (
    HERE,
    MORE_WARNINGS,
    emg_like,
    emitted,
    feature_chain,
    program,
    raw_chain,
    some_head,
    some_network,
    stand_in,
)
from tests.tools import AARCH64, ARM, QEMU, needs

COUNTS = emg_like(1200, 2, amplitude=300)
CHAINS: dict[str, Callable[[], SignalChain]] = {
    "raw": lambda: raw_chain(channels=2),
    "frames": lambda: feature_chain(
        1000.0,
        2,
        COUNTS,
        window_ms=200.0,
        hop_ms=50.0,
        frame_ms=25.0,
        features=("LOGRMS", "LOGWL", "ZC"),
        notch_hz=50.0,
    ),
    "everything": lambda: feature_chain(1000.0, 2, COUNTS, window_ms=120.0, hop_ms=50.0, features=tuple(C_FEATURES)),
}


EACH_CHAIN = [pytest.param(name, marks=[pytest.mark.slow] * (name == "everything")) for name in CHAINS]


def expected(chain: SignalChain) -> bytes:
    return some_network(chain).input.quantised(Stream(chain).push(COUNTS.astype(np.float32))).tobytes()


def given() -> bytes:
    return COUNTS.astype(np.int16).tobytes()


@pytest.mark.parametrize("name", EACH_CHAIN)
def test_sanitizers_find_nothing(tmp_path: Path, name: str) -> None:
    chain = CHAINS[name]()
    sources = [*emitted(tmp_path, chain, RawSamples()), HERE / "run_once.c"]
    flags = ("-O1", "-g", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
    done = subprocess.run([program(tmp_path, sources, flags)], input=given(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == expected(chain)


@pytest.mark.parametrize("flags", [("-O2",), ("-O1", "-g", "-fsanitize=thread")], ids=["plain", "thread sanitizer"])
@pytest.mark.parametrize("name", ["raw", "frames"])
def test_a_thread_that_pushes_and_one_that_polls(tmp_path: Path, name: str, flags: tuple[str, ...]) -> None:
    chain = CHAINS[name]()
    sources = [*emitted(tmp_path, chain, RawSamples()), HERE / "run_threads.c"]
    done = subprocess.run(
        [program(tmp_path, sources, ("-pthread", *flags), standard="-std=gnu99")],
        input=given(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == expected(chain)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [("-O0",), ("-O3",), ("-Os",), ("-O3", "-march=native"), ("-O3", "-std=gnu11", "-march=native")]
)
def test_no_flag_of_a_build_changes_the_bytes(tmp_path: Path, flags: tuple[str, ...]) -> None:
    chain = CHAINS["everything"]()
    sources = [*emitted(tmp_path, chain, RawSamples()), HERE / "run_once.c"]
    done = subprocess.run(
        [program(tmp_path, sources, flags, standard="-std=gnu99")], input=given(), capture_output=True, check=False
    )
    assert done.stdout == expected(chain)


FUSED = re.compile(r"\tv?fn?m(add|sub|la|ls)")
"""Multiply and add, rounded once: vfmadd231ss and its kin of x86, fmadd and fmla of Arm."""


def test_no_product_is_fused_with_a_sum_where_the_processor_could(tmp_path: Path) -> None:
    """Read in the assembly, so that the machine that compiles need not have the instruction."""
    flags = ("-std=gnu99", "-O3", *(("-mfma",) if platform.machine() == "x86_64" else ()))

    def assembly(source: Path) -> str:
        command = ["cc", *flags, f"-I{tmp_path}", "-S", "-o", "-", str(source)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    sources = emitted(tmp_path, CHAINS["everything"](), RawSamples())
    (tmp_path / "fusing.c").write_text(
        "float f(float a, float b, float c);\nfloat f(float a, float b, float c) { return a * b + c; }\n"
    )
    assert FUSED.search(assembly(tmp_path / "fusing.c")), (
        "the compiler fuses nothing by itself: the test would prove nothing"
    )
    for source in sources:
        assert not FUSED.search(assembly(source)), source.name


@pytest.mark.parametrize("name", EACH_CHAIN)
def test_aarch64_code_gives_the_bytes_of_python(tmp_path: Path, name: str) -> None:
    """In GNU C and without a flag against it: every AArch64 core could fuse, and only `emb_float.h` forbids it."""
    needs(*AARCH64)
    compiler, emulator = AARCH64
    chain = CHAINS[name]()
    sources = [*emitted(tmp_path, chain, RawSamples()), HERE / "run_once.c"]
    path = program(tmp_path, sources, ("-O3", "-static"), compiler=compiler, standard="-std=gnu99")
    done = subprocess.run([emulator, path], input=given(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == expected(chain)


def test_reordered_sums_are_refused(tmp_path: Path) -> None:
    source = next(path for path in emitted(tmp_path, CHAINS["raw"](), RawSamples()) if path.name == "emb_filter.c")
    done = subprocess.run(
        ["cc", "-ffast-math", "-c", source, "-o", tmp_path / "x.o"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "reorders sums" in done.stderr


@pytest.mark.parametrize("name", EACH_CHAIN)
def test_the_header_is_cpp(tmp_path: Path, name: str) -> None:
    needs("c++")
    sources = emitted(tmp_path, CHAINS[name](), RawSamples())
    objects = [tmp_path / f"{source.stem}.o" for source in sources]
    for source, made in zip(sources, objects, strict=True):
        subprocess.run(["cc", "-std=c99", f"-I{tmp_path}", "-c", source, "-o", made], check=True)
    path = program(tmp_path, [HERE / "from_cpp.cpp", *objects], (), compiler="c++", standard="-std=c++11")
    assert subprocess.run([path], check=False).returncode == 0


@pytest.mark.parametrize("name", EACH_CHAIN)
def test_cppcheck_finds_nothing(tmp_path: Path, name: str) -> None:
    needs("cppcheck")
    emitted(tmp_path, CHAINS[name](), RawSamples())
    command = [
        "cppcheck",
        "--std=c99",
        "--enable=warning,performance,portability",
        "--error-exitcode=1",
        "--quiet",
        ".",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(BOARDS))
def test_a_core_needs_no_library_but_memcpy_and_memset(tmp_path: Path, target: str) -> None:
    needs(*ARM, "arm-none-eabi-nm")
    board = BOARDS[target]
    sources = emitted(tmp_path, CHAINS["everything"](), RawSamples())
    flags = ["-std=c99", "-mthumb", *board.cpu_flags, *WARNINGS, *MORE_WARNINGS]
    for level in ("-O0", "-Os", "-O3"):
        subprocess.run(["arm-none-eabi-gcc", *flags, level, "-c", *sources], cwd=tmp_path, check=True)
        symbols = subprocess.run(
            ["arm-none-eabi-nm", *tmp_path.glob("*.o")], capture_output=True, text=True, check=True
        ).stdout
        wanted = set(re.findall(r" U (?!emb_)(\w+)", symbols))
        if "hard" in " ".join(board.cpu_flags):
            assert wanted <= {"memcpy", "memset"}
        # Whole numbers and float32 of the compiler's own library; a double has a d in its name.
        assert not {name for name in wanted if re.match(r"__aeabi_(d|.2d|cd)", name)}
        outside = re.findall(r" [BDTRC] (?!emb_)(\w+)", symbols)
        assert outside == []
        assert not re.findall(r" [bBdDC] (\w+)", symbols), "a variable beside the context"


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(BOARDS))
@pytest.mark.parametrize("name", CHAINS)
def test_emulated_cores_give_the_same_bytes(tmp_path: Path, name: str, target: str) -> None:
    needs(*QEMU)
    chain, board = CHAINS[name](), BOARDS[target]
    sources = [*emitted(tmp_path, chain, RawSamples()), HERE / "on_board.c"]
    data = {board.input.origin: struct.pack("<I", len(COUNTS)) + given()}
    inputs = expected(chain)
    size = chain.input_shape[0] * chain.input_shape[1]
    for level in ("-O3", "-Os"):
        # Without -std=c99 GCC would fuse products and sums.
        built = build(
            board, sources, folder=tmp_path / level, includes=(tmp_path,), optimise=level, extra_flags=("-std=gnu99",)
        )
        output = run(built.elf, board, data=data, timeout_s=240.0).output
        found = [output[at : at + size] for at in range(0, len(output), size + 4)]
        assert b"".join(found) == inputs


def golden_files(tmp_path: Path, chain: SignalChain) -> list[Path]:
    network, samples = some_network(chain), RawSamples()
    golden = make_golden(chain, some_head(), network, samples, COUNTS[: chain.window + 3 * chain.hop + 1], stand_in)
    assert len(golden.inputs) == 4
    sources = emitted(tmp_path, chain, samples)
    write_files(emit_golden(golden), tmp_path)
    return [*sources, tmp_path / "emb_selftest.c", HERE / "run_selftest.c"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_the_self_test_passes_and_notices(tmp_path: Path, name: str) -> None:
    sources = golden_files(tmp_path, CHAINS[name]())

    def status() -> int:
        return subprocess.run([program(tmp_path, sources, ("-O2",))], check=False).returncode

    assert status() == 0
    wrong = {"emb_tables.c": (r"(emb_gain\[EMB_COLUMNS\] = \{\n +)[^,]+", r"\g<1>0.01f", 1)}
    wrong["emb_model.h"] = (r"% 11 - 5", "% 11 - 4", 2)
    wrong["emb_head.c"] = (r"emb_head_bias\[which\]", "emb_head_bias[0]", 3)
    wrong["emb_golden.h"] = (r"(EMB_GOLDEN_FRAMES) \d+", r"\1 130", 4)
    for file, (pattern, replacement, found) in wrong.items():
        path = tmp_path / file
        text = path.read_text()
        path.write_text(re.sub(pattern, replacement, text, count=1))
        assert path.read_text() != text
        assert status() == found, file
        path.write_text(text)


@pytest.mark.slow
def test_the_self_test_runs_on_a_board(tmp_path: Path) -> None:
    needs(*QEMU)
    sources = golden_files(tmp_path, CHAINS["frames"]())
    board = BOARDS["qemu-m4"]
    built = build(board, sources, folder=tmp_path / "board", includes=(tmp_path,), extra_flags=WARNINGS)
    assert run(built.elf, board).exit_status == 0


def test_golden_samples_that_cannot_be_are_refused() -> None:
    chain = CHAINS["raw"]()
    network, head = some_network(chain), some_head()
    for counts, what in (
        (COUNTS[:10], "a window of 80 frames"),
        (COUNTS * 1000, "do not fit 16 bits"),
        (COUNTS[:, :1], r"\[frames, 2\]"),
        (COUNTS.astype(float), "whole numbers"),
    ):
        with pytest.raises(EdgeError, match=what):
            make_golden(chain, head, network, RawSamples(), counts, stand_in)
    with pytest.raises(EdgeError, match="use its own"):
        make_golden(chain, head, network, RawSamples(), COUNTS, lambda inputs: stand_in(inputs, 7))
