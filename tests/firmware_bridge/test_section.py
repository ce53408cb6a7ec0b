"""The model's section: Python makes the bytes that the compiler and the linker make, and firmware refuses every other byte."""

from __future__ import annotations

import ctypes
import hashlib
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.emit import library, plan_of
from embridge_edge.firmware_bridge.harness import HostLibrary
from embridge_edge.firmware_bridge.host_build import WARNINGS, compile_shared, load_shared, write_files
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import Layout, Program
from embridge_edge.firmware_bridge.section import (
    constant_bytes,
    image,
    linker_script,
    placed_library,
    section_layout,
    section_name,
    structures,
)
from embridge_edge.hardware.boards import BOARDS, build, run
from tests.firmware_bridge.single_op import KERNELS
from tests.firmware_bridge.small_models import (
    INPUTS,
    M4,
    OUTPUTS,
    dense_model,
    graph_of,
    program_of,
)
from tests.tools import ARM, QEMU, needs

ADDRESS = 0x0020_0000
SHA = bytes(range(32))
COVERED = 40
"""First byte that the digest covers: magic, version and digest stand before it."""
OK, NO_MODEL, VERSION, LENGTH, PLAN, WHERE, DIGEST, SIGNATURE = range(8)
MODELS = ("ad01_int8", "kws_ref_model", "str_ww_ref_model", "vww_96_int8")


def linked_section(files: dict[str, str], name: str, address: int, folder: Path) -> bytes:
    """The section as arm-none-eabi-gcc compiles it and the linker places it at an address."""
    write_files(files, folder)
    where = f'-D{name.upper()}_SECTION=__attribute__((section("{section_name(name)}")))'
    source, made, linked, raw = (
        folder / f"src/{name}_section.c",
        *(folder / f"s.{end}" for end in ("o", "elf", "bin")),
    )
    compiler = ["arm-none-eabi-gcc", "-std=c99", *WARNINGS, *M4, "-O2", where]
    subprocess.run([*compiler, "-c", str(source), "-o", str(made)], check=True)
    start = f"--section-start={section_name(name)}={address:#x}"
    subprocess.run(["arm-none-eabi-ld", start, "-e", "0", str(made), "-o", str(linked)], check=True)
    only = ["-j", section_name(name), str(linked), str(raw)]
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", *only], check=True)
    return raw.read_bytes()


@pytest.mark.parametrize("layout", ["rows", "pairs"])
@pytest.mark.parametrize("name", MODELS)
def test_image_has_the_bytes_that_compiler_and_linker_make(
    models: Path, tmp_path: Path, name: str, layout: Layout
) -> None:
    needs(*ARM)
    content, graph = graph_of(models, name)
    program = make_program(graph, "model", "tflm", layout)
    sha = hashlib.sha256(content).digest()
    made = image(program, sha, ADDRESS)
    assert made == linked_section(placed_library(program, sha, ADDRESS), "model", ADDRESS, tmp_path)
    assert len(made) == section_layout(program).size == sum(constant_bytes(program).values())


def test_header_says_what_the_section_is() -> None:
    program = program_of(dense_model())
    made = image(program, SHA, ADDRESS)
    magic, version = struct.unpack_from("<4sI", made)
    length, plan, address = struct.unpack_from("<III", made, COVERED)
    assert (magic, version, length, address) == (b"EMBM", 2, len(made), ADDRESS)
    assert plan == plan_of(program)
    assert made[8:COVERED] == hashlib.sha256(made[COVERED:]).digest()
    assert made[COVERED + 12 : COVERED + 44] == SHA


def test_linked_section_without_an_address_has_an_empty_digest(tmp_path: Path) -> None:
    needs(*ARM)
    program = program_of(dense_model())
    linked = linked_section(library(program, SHA), "tiny", ADDRESS, tmp_path)
    assert linked[8:COVERED] == bytes(32)
    assert struct.unpack_from("<I", linked, COVERED + 8) == (0,)


@pytest.mark.parametrize("address", [0, ADDRESS + 4, 2**32 - 8, 2**32, -8])
def test_address_that_cannot_be_is_refused(address: int) -> None:
    with pytest.raises(EdgeError, match="cannot lie at"):
        image(program_of(dense_model()), SHA, address)


def test_plan_is_that_of_the_code_and_not_of_the_values() -> None:
    plans = {plan_of(program_of(dense_model(seed))) for seed in range(4)}
    assert len(plans) == 1
    other = [
        plan_of(program_of(dense_model(output_scale=5.0))),  # the application quantizes with it
        plan_of(program_of(dense_model(), layout="pairs")),
        plan_of(program_of(dense_model(), name="other")),
        plan_of(program_of(dense_model(), profile="litert-ref")),
    ]
    assert len({*plans, *other}) == 5


KINDS = ["int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t", "uint32_t", "int64_t", "uint64_t", "float", "void *"]
MEMBERS = st.lists(st.tuples(st.sampled_from([*KINDS, "struct"]), st.integers(0, 3)), min_size=1, max_size=6)


@given(st.lists(MEMBERS, min_size=1, max_size=6))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_structures_lie_as_the_compiler_lays_them(declared: list[list[tuple[str, int]]]) -> None:
    needs(*ARM)
    header, places = "#include <stddef.h>\n#include <stdint.h>\n", []
    for number, members in enumerate(declared):
        lines = []
        for at, (kind, count) in enumerate(members):
            inner = f"s{number - 1}_t" if number else "int16_t"
            lines.append(
                f"    const {inner if kind == 'struct' else kind} m{at}{f'[{count}]' if count else ''}; /* {{ */"
            )
            places.append((f"s{number}_t", f"m{at}"))
        header += "typedef struct {\n" + "\n".join(lines).replace("{", "(") + f"\n}} s{number}_t;\n"
    asked = [f"offsetof({name}, {member})" for name, member in places]
    asked += [f"sizeof(s{number}_t)" for number in range(len(declared))]
    source = header + f"const uint32_t answers[] = {{{', '.join(asked)}}};\n"
    compiler = ["arm-none-eabi-gcc", *M4, "-x", "c", "-", "-S", "-o", "-"]
    assembler = subprocess.run(compiler, input=source, capture_output=True, text=True, check=True).stdout
    answers = [int(value) for value in re.findall(r"\.word\s+(\d+)", assembler)]
    found = structures([header])
    offsets = {(name, field.name): field.offset for name, made in found.items() for field in made.fields}
    assert answers == [offsets[place] for place in places] + [found[f"s{n}_t"].size for n in range(len(declared))]


def test_structures_that_no_section_can_hold_are_left_out() -> None:
    header = """typedef struct { int (*call)(void *, uint32_t); } callback_t;
        typedef struct { callback_t inner; } outer_t; typedef struct { uint8_t x[UNKNOWN]; } array_t;
        typedef struct { uint8_t a, b; const int8_t *p; } good_t;"""
    assert list(structures([header])) == ["good_t"]


class Trust(ctypes.Structure):
    """emb_section_trust_t."""

    HASH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
    VERIFY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p)
    _fields_ = (
        ("hash", HASH),
        ("context", ctypes.c_void_p),
        ("verify", VERIFY),
        ("key", ctypes.c_char_p),
        ("signature", ctypes.c_char_p),
    )


def _hash(context: Any, data: int, length: int, digest: int) -> int:
    ctypes.memmove(digest, hashlib.sha256(ctypes.string_at(data, length)).digest(), 32)
    return 0


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., int]:
    """emb_section_check on this machine, for bytes in memory at a place that is given to their maker."""
    folder = tmp_path_factory.mktemp("check")
    flags = ("-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
    built = compile_shared([KERNELS / "emb_section.c"], folder / "check.so", includes=[KERNELS], flags=flags)
    function = load_shared(built).emb_section_check
    function.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.POINTER(Trust))

    def call(make: Callable[[int], bytes], plan: int, length: int, trust: Trust | None = None) -> int:
        memory = ctypes.create_string_buffer(length + 16)
        start = -(-ctypes.addressof(memory) // 8) * 8
        content = make(start % 2**32)
        ctypes.memmove(start, content, len(content))
        return int(function(start, plan, length, trust or Trust(hash=Trust.HASH(_hash))))

    return call


def test_section_is_accepted_where_it_belongs_and_nowhere_else(check: Callable[..., int]) -> None:
    program = program_of(dense_model())
    size, plan = section_layout(program).size, plan_of(program)
    assert check(lambda at: image(program, SHA, at), plan, size) == OK
    assert check(lambda at: image(program, SHA, at ^ 8), plan, size) == WHERE
    assert check(lambda at: image(program, SHA, at), plan ^ 1, size) == PLAN
    assert check(lambda at: image(program, SHA, at), plan, size + 8) == LENGTH
    assert check(lambda at: b"\xff" * size, plan, size) == NO_MODEL  # erased flash
    assert check(lambda at: image(program, SHA, at)[:4] + b"\x01", plan, size) == VERSION


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_changed_byte_is_noticed(check: Callable[..., int], data: st.DataObject) -> None:
    program = program_of(dense_model())
    size = section_layout(program).size
    place = data.draw(st.integers(0, size - 1))
    change = data.draw(st.integers(1, 255))

    def damaged(at: int) -> bytes:
        content = bytearray(image(program, SHA, at))
        content[place] ^= change
        return bytes(content)

    found = check(damaged, plan_of(program), size)
    fields = [NO_MODEL] * 4 + [VERSION] * 4 + [DIGEST] * 32 + [LENGTH] * 4 + [PLAN] * 4 + [WHERE] * 4
    assert found == (fields[place] if place < len(fields) else DIGEST)


def test_signature_goes_to_the_callback_only_when_the_digest_is_right(check: Callable[..., int]) -> None:
    program = program_of(dense_model())
    size, plan = section_layout(program).size, plan_of(program)
    asked = []

    def verify(key: bytes, digest: int, signature: bytes) -> int:
        asked.append((key, ctypes.string_at(digest, 32), signature))
        return 0 if signature == b"right" else -1

    def trust(signature: bytes, hashed: Callable[..., int] = _hash) -> Trust:
        return Trust(hash=Trust.HASH(hashed), verify=Trust.VERIFY(verify), key=b"key", signature=signature)

    seen = []

    def make(at: int) -> bytes:
        seen.append(image(program, SHA, at))
        return seen[-1]

    assert check(make, plan, size, trust(b"right")) == OK
    assert asked == [(b"key", seen[-1][8:COVERED], b"right")]
    assert check(make, plan, size, trust(b"wrong")) == SIGNATURE
    asked.clear()
    assert check(make, plan, size, trust(b"right", lambda *_: -1)) == DIGEST
    assert check(lambda at: make(at)[:-1] + b"?", plan, size, trust(b"right")) == DIGEST
    assert asked == []


BOARD_MAIN = """#include <string.h>

#include "emb_board.h"
#include "tiny.h"
#include "tiny_section.h"

static tiny_t model;

/* The host computes the digest; it gives it before the input. */
static const uint8_t *given(void)
{
    return (const uint8_t *)emb_board_input() + GIVEN_AT;
}

static int hash(void *context, const void *data, uint32_t length, uint8_t digest[EMB_SECTION_DIGEST_BYTES])
{
    (void)context;
    (void)data;
    (void)length;
    memcpy(digest, given(), EMB_SECTION_DIGEST_BYTES);
    return 0;
}

int main(void)
{
    const emb_section_trust_t trust = {hash, NULL, NULL, NULL, NULL};
    const emb_section_result_t result =
        emb_section_check(&tiny_section.header, TINY_SECTION_PLAN, sizeof tiny_section, &trust);
    if (result != EMB_SECTION_OK) {
        return (int)result;
    }
    tiny_init(&model);
    memcpy(tiny_input(&model), given() + EMB_SECTION_DIGEST_BYTES, TINY_INPUT_BYTES);
    tiny_invoke(&model);
    emb_board_output(tiny_output(&model), TINY_OUTPUT_BYTES);
    return 0;
}
"""


@pytest.mark.slow
def test_firmware_runs_another_model_without_being_built_again(tmp_path: Path) -> None:
    needs(*QEMU)
    board = BOARDS["qemu-m4"]
    at = board.input.origin
    first = program_of(dense_model(0), layout="pairs")
    write_files({**library(first, SHA), "main.c": BOARD_MAIN}, tmp_path)
    sources = [path for path in sorted((tmp_path / "src").glob("*.c")) if path.name != "tiny_section.c"]
    built = build(
        board, [*sources, tmp_path / "main.c"],
        folder=tmp_path / "build", includes=(tmp_path / "include", tmp_path / "src"),
        defines=("GIVEN_AT=sizeof(tiny_section)",), extra_flags=WARNINGS,
        link_flags=(f"-Wl,--defsym=tiny_section={at:#x}",),
    )  # fmt: skip
    values = np.arange(INPUTS, dtype=np.int8).reshape(1, INPUTS) * 9 - 50

    def outcome(program: Program, address: int) -> tuple[int, bytes]:
        section = image(program, SHA, address)
        given = section + hashlib.sha256(section[COVERED:]).digest() + values.tobytes()
        done = run(built.elf, board, data={at: given})
        return done.exit_status, done.output

    outputs = set()
    for seed in range(3):
        program = program_of(dense_model(seed), layout="pairs")
        (expected,) = (HostLibrary(program).run([values])[index] for index in program.graph.outputs)
        assert outcome(program, at) == (OK, expected.tobytes())
        outputs.add(expected.tobytes())
    assert len(outputs) == 3
    assert len(expected.tobytes()) == OUTPUTS
    assert outcome(first, at + 8) == (WHERE, b"")
    assert outcome(program_of(dense_model(0, output_scale=5.0), layout="pairs"), at) == (PLAN, b"")


@pytest.mark.slow
def test_linker_script_puts_the_model_at_its_address(tmp_path: Path) -> None:
    needs(*QEMU)
    board = BOARDS["qemu-m4"]
    program = program_of(dense_model())
    write_files({**placed_library(program, SHA, ADDRESS), "main.c": BOARD_MAIN}, tmp_path)
    where = f'-DTINY_SECTION=__attribute__((section("{section_name("tiny")}")))'
    built = build(
        board, [*sorted((tmp_path / "src").glob("*.c")), tmp_path / "main.c"],
        folder=tmp_path / "build", includes=(tmp_path / "include", tmp_path / "src"),
        defines=("GIVEN_AT=0",), extra_flags=(*WARNINGS, where),
        link_flags=(f"-Wl,-T,{tmp_path / 'tiny_section.ld'}",),
    )  # fmt: skip
    (symbol,) = (symbol for symbol in built.sizes.symbols if symbol.name == "tiny_section")
    assert (symbol.address, symbol.section) == (ADDRESS, section_name("tiny"))
    raw = tmp_path / "section.bin"
    only = ["-j", section_name("tiny"), str(built.elf), str(raw)]
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", *only], check=True)
    assert raw.read_bytes() == image(program, SHA, ADDRESS)
    values = np.full((1, INPUTS), 77, np.int8)
    (expected,) = (HostLibrary(program).run([values])[index] for index in program.graph.outputs)
    digest = hashlib.sha256(raw.read_bytes()[COVERED:]).digest()
    done = run(built.elf, board, data={board.input.origin: digest + values.tobytes()})
    assert (done.exit_status, done.output) == (OK, expected.tobytes())


def test_library_and_image_are_the_same_every_time() -> None:
    made = [
        (image(program, SHA, ADDRESS), placed_library(program, SHA, ADDRESS))
        for program in (program_of(dense_model()), program_of(dense_model()))
    ]
    assert made[0] == made[1]
    assert linker_script("tiny", ADDRESS) in made[0][1].values()
