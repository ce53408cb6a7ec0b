"""The emulated boards: programs start right, say what they have to say, are counted exactly and fail aloud."""

from __future__ import annotations

import ctypes
import math
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.hardware import find_target, shipped_targets
from embridge_edge.hardware.boards import (
    BOARDS,
    WARNINGS,
    Board,
    Built,
    Run,
    board_of_core,
    build,
    find_board,
    instructions,
    run,
    sizes,
)
from embridge_edge.hardware.boards.boards import SUPPORT
from embridge_edge.hardware.boards.emulation import ICOUNT_SHIFT, emulator_command
from tests.tools import ARM, QEMU, needs

HERE = Path(__file__).parent
NAMES = tuple(BOARDS)
SMALLEST_SHIFT = dict.fromkeys(BOARDS, 6) | {"qemu-m55": 5}


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """board_program.c for a board, built once."""
    needs(*QEMU)
    built: dict[str, Built] = {}

    def for_board(name: str) -> Built:
        if name not in built:
            folder = tmp_path_factory.mktemp(name)
            sources = [HERE / "board_program.c"]
            built[name] = build(BOARDS[name], sources, folder=folder, extra_flags=WARNINGS)
        return built[name]

    return for_board


def ask(
    program: Callable[[str], Built],
    name: str,
    what: str,
    payload: bytes = b"",
    *,
    count: int | None = None,
    data: Mapping[int, bytes] | None = None,
    icount_shift: int | None = None,
    timeout_s: float = 60.0,
    uart_input: bytes = b"",
) -> Run:
    """Let board_program.c do one of its things."""
    head = struct.pack("<II", ord(what), len(payload) // 4 if count is None else count)
    everything = {BOARDS[name].input.origin: head + payload, **(data or {})}
    return run(
        program(name).elf,
        BOARDS[name],
        data=everything,
        icount_shift=icount_shift,
        timeout_s=timeout_s,
        uart_input=uart_input,
    )


def windows(program: Callable[[str], Built], name: str, turns: list[int], shift: int) -> list[int]:
    """Ticks of windows around loops of two instructions that go round `turns` times."""
    done = ask(program, name, "t", struct.pack(f"<{len(turns)}I", *turns), icount_shift=shift)
    return list(struct.unpack(f"<{len(turns)}I", done.output))


def test_boards_are_the_emulated_targets() -> None:
    assert set(BOARDS) == {name for name in shipped_targets() if find_target(name).kind == "emulated"}
    for name, board in BOARDS.items():
        target = find_target(name)
        assert board.machine == target.machine
        assert f"-mcpu={target.core}" in board.cpu_flags
        assert board.systick_hz == 1e6 * (target.clock_mhz or 0)
        assert board.code.size == 1024 * (target.flash_kib or 0)
        assert board.ram.size == 1024 * (target.ram_kib or 0)


def test_every_target_with_an_emulated_core_finds_its_board() -> None:
    for target in map(find_target, shipped_targets()):
        board = board_of_core(target.core)
        if target.kind == "emulated":
            assert board is BOARDS[target.name]
        else:
            assert (board is not None) == target.core.startswith("cortex-m")


def test_unknown_board_lists_those_that_are() -> None:
    with pytest.raises(EdgeError, match="'stm32l4r5' is no emulated board; choose one of qemu-m0, qemu-m3"):
        find_board("stm32l4r5")


@pytest.mark.parametrize("name", NAMES)
def test_program_finds_its_constants_its_variables_and_its_exit_status(
    program: Callable[[str], Built], name: str
) -> None:
    done = ask(program, name, "h")
    assert done.text == f"constant {0x01234567} 42 0 0 0 0xfffffffe\n"
    assert done.exit_status == 200
    assert done.output == b""


@pytest.mark.parametrize("name", NAMES)
def test_float_products_are_those_of_this_machine(program: Callable[[str], Built], name: str) -> None:
    factors = np.random.default_rng(1).normal(size=(2, 64)).astype("<f4")
    done = ask(program, name, "f", factors.tobytes())
    assert done.output == (factors[0] * factors[1]).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_int8_dot_product_is_that_of_this_machine(program: Callable[[str], Built], name: str) -> None:
    factors = np.random.default_rng(2).integers(-128, 128, size=(2, 64), dtype=np.int8)
    done = ask(program, name, "v", factors.tobytes())
    assert struct.unpack("<i", done.output) == (int(factors[0].astype(int) @ factors[1].astype(int)),)


@pytest.mark.parametrize("name", NAMES)
def test_uart_carries_every_byte_both_ways(program: Callable[[str], Built], name: str) -> None:
    every_byte = bytes(range(256)) * 2
    done = ask(program, name, "u", count=len(every_byte), uart_input=every_byte)
    assert done.uart == every_byte


def test_uart_can_be_a_socket_for_a_conversation(program: Callable[[str], Built], tmp_path: Path) -> None:
    elf, board = program("qemu-m4").elf, BOARDS["qemu-m4"]
    head = tmp_path / "input"
    head.write_bytes(struct.pack("<II", ord("u"), 6))
    with socket.create_server(("127.0.0.1", 0)) as server:
        serial = f"tcp:127.0.0.1:{server.getsockname()[1]},nodelay=on"
        argv = emulator_command(elf, board, data={board.input.origin: head}, serial=serial)
        with subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.DEVNULL) as emulator:
            server.settimeout(20)
            connection, _ = server.accept()
            with connection, connection.makefile("rwb") as stream:
                for said in (b"ab", b"cd", b"ef"):
                    stream.write(said)
                    stream.flush()
                    assert stream.read(2) == said
            assert emulator.wait(20) == 0


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_there_to_its_last_word(program: Callable[[str], Built], name: str) -> None:
    board = BOARDS[name]
    ends = [region.end - 4 for region in (board.code, board.const, board.ram, board.input)]
    data = {end: struct.pack("<I", end) for end in ends}
    done = ask(program, name, "m", struct.pack("<4I", *ends), data=data)
    assert struct.unpack("<4I", done.output) == tuple(ends)


@pytest.mark.parametrize("name", NAMES)
def test_window_counts_instructions_exactly(program: Callable[[str], Built], name: str) -> None:
    generator = np.random.default_rng(3)
    turns = [0, 1, 2, 3, *generator.integers(1, 10**4, size=40).tolist(), 5 * 10**6, 12_500_000]
    for shift in (SMALLEST_SHIFT[name], ICOUNT_SHIFT):
        ticks = windows(program, name, turns, shift)
        assert [instructions(count, BOARDS[name], shift) for count in ticks] == [2 * turn for turn in turns]


def test_window_is_the_same_from_run_to_run(program: Callable[[str], Built]) -> None:
    turns = [1, 12, 123, 1234, 12345, 123456]
    assert windows(program, "qemu-m4", turns, 8) == windows(program, "qemu-m4", turns, 8)


@pytest.mark.slow
def test_window_that_cannot_be_counted_is_an_error(program: Callable[[str], Built]) -> None:
    # At 25 MHz, 2**10 ns are 25.6 ticks: 32 bits hold 167 million instructions.
    short, long = windows(program, "qemu-m4", [80_000_000, 84_000_000], 10)
    assert instructions(short, BOARDS["qemu-m4"], 10) == 160_000_000
    with pytest.raises(EdgeError, match="longer than 32 bits of ticks; use a smaller icount shift"):
        instructions(long, BOARDS["qemu-m4"], 10)


@given(st.sampled_from(NAMES), st.integers(6, 10), st.integers(0, 10**9))
def test_ticks_give_the_instructions_that_made_them(name: str, shift: int, executed: int) -> None:
    numerator = BOARDS[name].systick_hz << shift
    ticks = -(-(executed + 4) * numerator // 10**9) - 2
    if ticks < 2**32 - 1:
        assert instructions(ticks, BOARDS[name], shift) == executed


@pytest.mark.parametrize("name", NAMES)
def test_shift_at_which_a_tick_is_longer_than_an_instruction_is_refused(name: str) -> None:
    smallest = SMALLEST_SHIFT[name]
    assert instructions(1000, BOARDS[name], smallest) > 0
    with pytest.raises(EdgeError, match=f"too small for {name}; use {smallest} or more"):
        instructions(1000, BOARDS[name], smallest - 1)


@pytest.mark.parametrize("name", NAMES)
def test_window_agrees_with_a_plugin_that_counts_without_a_clock(
    program: Callable[[str], Built], name: str, tmp_path: Path
) -> None:
    needs("cc")
    plugin, counted = tmp_path / "window.so", tmp_path / "counted"
    command = ["cc", "-shared", "-fPIC", "-O2", "-std=c99", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, str(HERE / "window_plugin.c"), "-o", str(plugin)], check=True)
    turns = [0, 1, 7, 1000, 54321]
    head = tmp_path / "input"
    head.write_bytes(struct.pack("<7I", ord("t"), len(turns), *turns))
    elf = program(name).elf
    places = f"open={address_of(elf, 'emb_board_window_opened')},close={address_of(elf, 'emb_board_window_close')}"
    argv = emulator_command(
        elf,
        BOARDS[name],
        data={BOARDS[name].input.origin: head},
        extra=("-plugin", f"{plugin},out={counted},{places}"),
    )
    subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    # The call of emb_board_window_close lies between the two addresses.
    by_plugin = [int(line) - 1 for line in counted.read_text().split()]
    ticks = windows(program, name, turns, ICOUNT_SHIFT)
    assert by_plugin == [instructions(count, BOARDS[name]) for count in ticks] == [2 * turn for turn in turns]


def address_of(elf: Path, symbol: str) -> int:
    command = ["arm-none-eabi-nm", "--format=posix", str(elf)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (found,) = (line.split()[2] for line in listed.splitlines() if line.startswith(f"{symbol} "))
    return int(found, 16)


@pytest.mark.parametrize("name", NAMES)
def test_painted_stack_tells_how_much_was_used(program: Callable[[str], Built], name: str) -> None:
    levels = 10
    before, after = struct.unpack("<II", ask(program, name, "s", count=levels - 1).output)
    assert 0 < before < 512
    assert levels * 1024 < after < levels * (1024 + 64) + 512


@pytest.mark.parametrize("name", NAMES)
def test_stack_that_overflows_is_a_fault_and_not_a_wrong_result(program: Callable[[str], Built], name: str) -> None:
    with pytest.raises(EdgeError, match=f"The program faulted on {name}: .*stack overflow"):
        ask(program, name, "s", count=100)


@pytest.mark.parametrize("name", NAMES)
def test_program_gets_its_interrupts(program: Callable[[str], Built], name: str) -> None:
    assert ask(program, name, "p").exit_status == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("what", "fault"), [("b", "BusFault"), ("i", "UsageFault")])
def test_fault_says_what_and_where(program: Callable[[str], Built], name: str, what: str, fault: str) -> None:
    # Armv6-M knows no other fault than HardFault.
    fault = "HardFault" if name == "qemu-m0" else fault
    with pytest.raises(EdgeError, match=rf"faulted on {name}: {fault} pc=0x[0-9a-f]{{8}} \(main\)") as caught:
        ask(program, name, what)
    assert "\n" not in str(caught.value)
    assert ("bfar=0xf0000000" in str(caught.value)) == (what == "b")


def test_unaligned_access_faults_where_armv6_m_would(program: Callable[[str], Built]) -> None:
    assert ask(program, "qemu-m3", "n").exit_status == 3
    with pytest.raises(EdgeError, match=r"HardFault pc=.* \(main\)"):
        ask(program, "qemu-m0", "n")


def test_program_that_does_not_end_is_ended(program: Callable[[str], Built]) -> None:
    with pytest.raises(EdgeError, match=r"on qemu-m4 did not end within 0.5 s; it last printed: waiting"):
        ask(program, "qemu-m4", "w", timeout_s=0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which tells a process that its parent has ended")
def test_emulator_ends_with_its_parent(program: Callable[[str], Built]) -> None:
    elf = program("qemu-m4").elf
    code = "import sys, pathlib; from embridge_edge.hardware.boards import *; run(pathlib.Path(sys.argv[1]), BOARDS['qemu-m4'])"
    with subprocess.Popen([sys.executable, "-c", code, str(elf)]) as parent:
        assert within_seconds(20, lambda: emulators_of(elf))
        parent.kill()
    assert within_seconds(20, lambda: not emulators_of(elf))


def emulators_of(elf: Path) -> list[str]:
    """Processes of QEMU that run `elf`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:  # it ended while we looked
            continue
        if arguments[0].endswith(b"qemu-system-arm") and str(elf).encode() in arguments:
            found.append(path.parent.name)
    return found


def within_seconds(seconds: float, holds: Callable[[], object]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


def test_machine_that_the_emulator_lacks_is_one_line(program: Callable[[str], Built]) -> None:
    board = Board(**{**vars(BOARDS["qemu-m4"]), "machine": "mps9-an999"})
    with pytest.raises(EdgeError, match=r"status 1 on qemu-m4: .*unsupported machine type"):
        run(program("qemu-m4").elf, board)


@pytest.mark.parametrize("missing", QEMU)
def test_missing_tool_is_named(
    program: Callable[[str], Built], missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elf = program("qemu-m4").elf
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else which(name))
    with pytest.raises(
        EdgeError, match=f"{missing} is not installed; install .*{missing.removeprefix('arm-none-eabi-')}"
    ):
        build(BOARDS["qemu-m4"], [HERE / "board_program.c"], folder=tmp_path)
        run(elf, BOARDS["qemu-m4"])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("int main(void) { return x; }", r"wrong.c:1:25: error: .x. undeclared"),
        ("int f(void); int main(void) { return f(); }", r"undefined reference to .f."),
        ("const char big[5 << 20] = {1}; int main(int n) { return big[n]; }", r"CODE. overflowed by \d+ bytes"),
        ("char big[5 << 20]; int main(int n) { return big[n]; }", r"RAM. overflowed by \d+ bytes"),
        ("void emb_board_start(void) {} int main(void) { return 0; }", r"multiple definition of .emb_board_start."),
    ],
)
def test_what_does_not_build_is_one_line(source: str, says: str, tmp_path: Path) -> None:
    needs(*ARM)
    path = tmp_path / "wrong.c"
    path.write_text(source)
    with pytest.raises(EdgeError, match=f"^arm-none-eabi-gcc refuses: .*{says}") as caught:
        build(BOARDS["qemu-m4"], [path], folder=tmp_path / "built")
    assert "\n" not in str(caught.value)


def test_fault_without_the_compiler_still_says_where(
    program: Callable[[str], Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    elf, which = program("qemu-m4").elf, shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: which(name) if name == "qemu-system-arm" else None)
    data = {BOARDS["qemu-m4"].input.origin: struct.pack("<I", ord("i"))}
    with pytest.raises(EdgeError, match=r"UsageFault pc=0x[0-9a-f]{8} lr="):
        run(elf, BOARDS["qemu-m4"], data=data)


def test_interrupt_that_nobody_handles_is_a_fault(tmp_path: Path) -> None:
    needs(*QEMU)
    source = tmp_path / "svc.c"
    source.write_text('int main(void) { __asm volatile("svc 0"); return 0; }')
    built = build(BOARDS["qemu-m33"], [source], folder=tmp_path)
    with pytest.raises(EdgeError, match="faulted on qemu-m33: interrupt -5 without a handler"):
        run(built.elf, BOARDS["qemu-m33"])


def test_sizes_are_those_of_the_source(tmp_path: Path) -> None:
    needs(*ARM)
    source = tmp_path / "tables.c"
    source.write_text(
        "#include <stdint.h>\nextern const uint8_t table[1000]; const uint8_t table[1000] = {1};\n"
        "uint8_t filled[500] = {1}; static uint8_t empty[700];\n"
        "int main(int n) { empty[n] = filled[n]; return table[n] + empty[2 * n]; }\nint unused(void) { return 1; }\n"
    )
    built = build(BOARDS["qemu-m4"], [source], folder=tmp_path / "built", optimise="-Os")
    in_object = sizes(built.objects[0])
    assert {symbol.name: symbol.size for symbol in in_object.symbols}.items() >= {
        ("table", 1000),
        ("filled", 500),
        ("empty", 700),
    }
    assert in_object.total(".rodata") == 1000
    assert "unused" in {symbol.name for symbol in in_object.symbols}
    names = [symbol.name for symbol in built.sizes.symbols]
    assert names[:3] == ["table", "empty", "filled"]
    assert "unused" not in names
    assert 1200 <= built.sizes.ram_bytes < 1300
    by_tool = subprocess.run(["arm-none-eabi-size", str(built.elf)], capture_output=True, text=True, check=True)
    text, data, *_ = map(int, by_tool.stdout.splitlines()[1].split()[:3])
    assert built.sizes.flash_bytes == text + data
    assert "unused" in built.map.read_text()


def test_large_constants_of_the_m55_do_not_need_its_tcm(tmp_path: Path) -> None:
    needs(*QEMU)
    source = tmp_path / "large.c"
    source.write_text(
        "extern const unsigned char table[1000000]; const unsigned char table[1000000] = {[999999] = 77};\n"
        "volatile int last = 999999; int main(void) { return table[last]; }\n"
    )
    built = build(BOARDS["qemu-m55"], [source], folder=tmp_path)
    assert run(built.elf, BOARDS["qemu-m55"]).exit_status == 77


def test_stack_usage_is_that_of_each_function(tmp_path: Path) -> None:
    needs(*ARM)
    source = tmp_path / "frames.c"
    source.write_text(
        "void use(volatile char *p); void use(volatile char *p) { *p = 1; }\n"
        "int main(void) { volatile char filled[1000]; use(filled); return filled[0]; }\n"
    )
    built = build(BOARDS["qemu-m3"], [source], folder=tmp_path / "built", stack_usage=True)
    assert built.stack_usage["frames.c:use"] == 0
    assert 1000 <= built.stack_usage["frames.c:main"] < 1040
    assert build(BOARDS["qemu-m3"], [source], folder=tmp_path / "again").stack_usage == {}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", sorted(path.name for path in SUPPORT.glob("*.c")))
def test_support_code_compiles_without_a_warning(name: str, source: str, tmp_path: Path) -> None:
    needs(*ARM)
    board = BOARDS[name]
    defines = [f"-D{define}" for define in board.support_defines]
    command = ["arm-none-eabi-gcc", *board.cpu_flags, "-mthumb", "-O2", *WARNINGS, *defines]
    made = str(tmp_path / "made.o")
    done = subprocess.run(
        [*command, "-c", str(SUPPORT / source), "-o", made], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_header_is_cpp_as_well(tmp_path: Path) -> None:
    needs("arm-none-eabi-g++")
    command = ["arm-none-eabi-g++", "-mcpu=cortex-m4", "-mthumb", "-Wall", "-Wextra", "-Werror", "-ffreestanding"]
    source = tmp_path / "uses.cpp"
    source.write_text('#include "emb_board.h"\nint main() { emb_board_print("x"); return 0; }\n')
    done = subprocess.run(
        [*command, f"-I{SUPPORT}", "-S", "-o", "-", str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "emb_board_print\n" in done.stdout


def test_support_code_passes_cppcheck() -> None:
    needs("cppcheck")
    defines = [f"-D{define}" for define in BOARDS["qemu-m4"].support_defines]
    command = ["cppcheck", "--quiet", "--std=c99", "--enable=warning,performance,portability", "--error-exitcode=1"]
    command += [*defines, f"-I{SUPPORT}", str(SUPPORT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def memory_functions(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """emb_memory.c for this machine, under names of its own."""
    needs("cc")
    library = tmp_path_factory.mktemp("memory") / "memory.so"
    renamed = [f"-D{name}=emb_{name}" for name in ("memcpy", "memmove", "memset", "memcmp")]
    command = ["cc", "-shared", "-fPIC", "-O2", "-fno-builtin", "-fno-tree-loop-distribute-patterns", *renamed]
    subprocess.run([*command, str(SUPPORT / "emb_memory.c"), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


@given(
    st.binary(min_size=120, max_size=120),
    st.integers(0, 59),
    st.integers(0, 59),
    st.integers(0, 60),
    st.integers(-9, 300),
)
def test_memory_functions_do_what_c_says(
    memory_functions: ctypes.CDLL, content: bytes, to: int, start: int, size: int, value: int
) -> None:
    def after(call: Callable[[int], int]) -> tuple[int, bytes]:
        buffer = ctypes.create_string_buffer(content, len(content))
        address = ctypes.addressof(buffer)
        return call(address) - address, buffer.raw

    def pointer(name: str) -> Callable[..., int]:
        function = getattr(memory_functions, f"emb_{name}")
        function.restype = ctypes.c_size_t
        function.argtypes = [ctypes.c_size_t, ctypes.c_int if name == "memset" else ctypes.c_size_t, ctypes.c_size_t]
        return lambda *arguments: int(function(*arguments))

    moved = content[:to] + content[start : start + size] + content[to + size :]
    assert after(lambda at: pointer("memmove")(at + to, at + start, size)) == (to, moved)
    if abs(to - start) >= size:
        assert after(lambda at: pointer("memcpy")(at + to, at + start, size)) == (to, moved)
    filled = content[:to] + bytes([value & 255]) * size + content[to + size :]
    assert after(lambda at: pointer("memset")(at + to, value, size)) == (to, filled)
    left, right = content[to : to + size], content[start : start + size]
    compare = memory_functions.emb_memcmp
    sign = compare(ctypes.c_char_p(left), ctypes.c_char_p(right), ctypes.c_size_t(size))
    assert sign == (left > right) - (left < right)
    assert math.copysign(1, compare(left, right, size)) == math.copysign(1, sign)
