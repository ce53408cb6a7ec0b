"""Runs of a program on an emulated board, and instructions from the ticks that it counted."""

from __future__ import annotations

import ctypes
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embridge_edge.errors import EdgeError
from embridge_edge.hardware.boards.boards import Board
from embridge_edge.hardware.boards.building import OBJDUMP, sizes

EMULATOR = "qemu-system-arm"
OUTPUT = "output.bin"
"""Where `emb_board_output` writes, in the folder that QEMU is started in; emb_board.c has the same name."""
FAULT = "emb_board fault: "
"""What emb_startup.c prints before the description of a fault."""
FAULT_STATUS = 125
ICOUNT_SHIFT = 8
"""Nanoseconds of the board's time per instruction, as a power of two: long windows and exact counts on every board."""
NS_PER_S = 10**9
WINDOW_OVERFLOW = 2**32 - 1
"""What `emb_board_window_close` returns instead of a number of ticks that would be wrong."""
WINDOW_INSTRUCTIONS = 4
"""What emb_board.c itself adds to every window."""
PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent ends."""


@dataclass(frozen=True)
class Run:
    """What a program did.

    Attributes:
        text: what it wrote to the UART, as UTF-8 with replacement characters; `uart` has the bytes.
        output: what it handed to `emb_board_output`.
        exit_status: what `main` returned, 0 to 255.
        uart: what it wrote to the UART.
    """

    text: str
    output: bytes
    exit_status: int
    uart: bytes = b""


def run(
    elf: Path,
    board: Board,
    *,
    data: Mapping[int, bytes] | None = None,
    icount_shift: int | None = None,
    timeout_s: float = 60.0,
    uart_input: bytes = b"",
) -> Run:
    """Run a program until it exits.

    Args:
        elf: what `build` made for this board.
        board: what it runs on.
        data: bytes that are in memory at the start, by address; usually `{board.input.origin: …}`, which the program
            finds at `emb_board_input()`.
        icount_shift: with a number, an instruction takes 2**icount_shift ns of the board's time, so that ticks count
            instructions; None is faster, and ticks mean nothing.
        timeout_s: seconds of this machine after which QEMU is ended.
        uart_input: bytes that the program can read from the UART.

    Raises:
        EdgeError: QEMU is missing or refuses, the program faulted, or the time is over.
    """
    with tempfile.TemporaryDirectory(prefix="embridge-board-") as name:
        folder = Path(name)
        command = emulator_command(elf, board, data=_written(data or {}, folder), icount_shift=icount_shift)
        done = _emulate(command, folder, uart_input, timeout_s, board)
        text = done.stdout.decode("utf-8", "replace")
        _, fault, what = text.rpartition(FAULT)
        if done.returncode == FAULT_STATUS and fault:
            raise EdgeError(f"The program faulted on {board.name}: {_with_functions(what.strip(), elf)}.")
        if complaint := _complaint(done):
            raise EdgeError(f"{EMULATOR} ended with status {done.returncode} on {board.name}: {complaint}")
        output = folder / OUTPUT
        return Run(text, output.read_bytes() if output.exists() else b"", done.returncode, done.stdout)


def emulator_command(
    elf: Path,
    board: Board,
    *,
    data: Mapping[int, Path] | None = None,
    icount_shift: int | None = None,
    serial: str = "stdio",
    extra: Sequence[str] = (),
) -> list[str]:
    """The command line of QEMU, to be started in a folder where the program may write.

    Semihosting gives the program this machine's files: run what you have built.

    Args:
        elf: the program.
        board: what it runs on.
        data: files by the address that they are loaded to.
        icount_shift: as of `run`.
        serial: QEMU's name of where UART 0 leads, such as "tcp:127.0.0.1:5000,server=on,wait=on,nodelay=on".
        extra: further arguments.
    """
    command = [EMULATOR, "-machine", board.machine, "-nodefaults", "-display", "none", "-serial", serial]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(elf.resolve())]
    for address, path in (data or {}).items():
        # A comma in a value is written twice.
        command += ["-device", f"loader,file={str(path).replace(',', ',,')},addr={address:#x},force-raw=on"]
    if icount_shift is not None:
        command += ["-icount", f"shift={icount_shift},sleep=off"]
    return [*command, *extra]


def instructions(ticks: int, board: Board, icount_shift: int = ICOUNT_SHIFT) -> int:
    """How many instructions were executed between opening and closing a window of `ticks`, run with `icount_shift`.

    Exact, because an instruction takes a tick or more. Writing 0 to SysTick starts its period at that very time and costs
    a tick until it is reloaded, so that n instructions give ceil(n * ticks per instruction) - 2.

    Args:
        ticks: what `emb_board_window_close` returned.
        board: where it ran.
        icount_shift: that of the run.

    Raises:
        EdgeError: the window was longer than can be counted, or the shift is so small that ticks are too coarse.
    """
    per_second = board.systick_hz << icount_shift
    if per_second < NS_PER_S:
        smallest = next(shift for shift in range(64) if board.systick_hz << shift >= NS_PER_S)
        raise EdgeError(f"icount shift {icount_shift} is too small for {board.name}; use {smallest} or more.")
    if ticks == WINDOW_OVERFLOW:
        raise EdgeError(f"The window on {board.name} was longer than 32 bits of ticks; use a smaller icount shift.")
    return (ticks + 2) * NS_PER_S // per_second - WINDOW_INSTRUCTIONS


def _with_functions(fault: str, elf: Path) -> str:
    """The description of a fault, with the name of the function behind pc and lr."""
    if shutil.which(OBJDUMP) is None:
        return fault
    symbols = sizes(elf).symbols

    def named(match: re.Match[str]) -> str:
        address = int(match[2], 16)
        inside = (symbol.name for symbol in symbols if 0 <= address - symbol.address < symbol.size)
        return f"{match[0]} ({next(inside, 'no function')})"

    return re.sub(r"\b(pc|lr)=(0x[0-9a-f]{8})", named, fault)


def _written(data: Mapping[int, bytes], folder: Path) -> dict[int, Path]:
    paths = {address: folder / f"data-{address:08x}.bin" for address in data}
    for address, path in paths.items():
        path.write_bytes(data[address])
    return paths


def _emulate(
    command: Sequence[str], folder: Path, uart_input: bytes, timeout_s: float, board: Board
) -> subprocess.CompletedProcess[bytes]:
    if shutil.which(command[0]) is None:
        raise EdgeError(f"{EMULATOR} is not installed; install {EMULATOR} (`embridge-edge doctor` says how).")
    # Loaded before the fork: the loader's lock may be held by another thread at that time.
    libc = ctypes.CDLL(None)
    try:
        return subprocess.run(
            command,
            cwd=folder,
            input=uart_input,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            preexec_fn=(lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)) if sys.platform == "linux" else None,
        )
    except subprocess.TimeoutExpired as error:
        printed = _last_line(error.stdout or b"")
        raise EdgeError(
            f"The program on {board.name} did not end within {timeout_s:g} s; it last printed: {printed}"
        ) from None


def _complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why the emulator itself failed, empty where it did not: the program's own status may be the same as QEMU's."""
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    wrong = [line for line in lines if line.strip() and "warning:" not in line]
    return (wrong or [""])[0] or ("no message" if done.returncode < 0 else "")


def _last_line(printed: bytes) -> str:
    lines = printed.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "nothing"
