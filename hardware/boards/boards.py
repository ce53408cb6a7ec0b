"""The emulated boards as values: machine, compiler flags, memory, UART and the clock that ticks are counted in."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from embridge_edge.errors import EdgeError

SUPPORT = Path(__file__).parent / "support"
"""C sources, header and linker script that every program for a board is built with."""
KIB = 1024
MIB = 1024 * KIB
STACK_BYTES = 64 * KIB


@dataclass(frozen=True)
class Region:
    """Memory from the address `origin` on, `size` bytes."""

    origin: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.origin + self.size


@dataclass(frozen=True)
class Board:
    """An Arm MPS2 or MPS3 board that QEMU emulates.

    Attributes:
        name: of the target in `hardware/targets/`.
        machine: what QEMU's `-machine` takes.
        cpu_flags: what GCC needs to know about the core, -mcpu first.
        code: for vectors and instructions.
        const: for constants and the image of initialised data; on most boards the same memory as `code`.
        ram: for stack and variables.
        input: for what the host loads before the start (`emb_board_input()` in C).
        uart: address of UART 0, a CMSDK APB UART.
        fpgaio: address of the FPGA's system registers.
        systick_hz: processor clock, which SysTick counts.
    """

    name: str
    machine: str
    cpu_flags: tuple[str, ...]
    code: Region
    const: Region
    ram: Region
    input: Region
    uart: int
    fpgaio: int
    systick_hz: int

    @property
    def core(self) -> str:
        """The core that it has, or stands for, as targets call it (`hardware.target.CORES`)."""
        return self.cpu_flags[0].removeprefix("-mcpu=")

    @property
    def support_defines(self) -> tuple[str, ...]:
        """Macros that the support code is compiled with."""
        return (
            f"EMB_BOARD_UART={self.uart:#010x}u",
            f"EMB_BOARD_FPGAIO={self.fpgaio:#010x}u",
            f"EMB_BOARD_SYSTICK_HZ={self.systick_hz}u",
        )

    def linker_script(self, stack_bytes: int = STACK_BYTES) -> str:
        """The text of `board.ld` for this board, with a stack of `stack_bytes` (a multiple of 8)."""
        template = string.Template((SUPPORT / "board.ld").read_text("utf-8"))
        return template.substitute(
            name=self.name,
            machine=self.machine,
            code_origin=f"{self.code.origin:#010x}",
            code_size=self.code.size,
            const_origin=f"{self.const.origin:#010x}",
            const_size=self.const.size,
            const_region="CODE" if self.const == self.code else "CONST",
            ram_origin=f"{self.ram.origin:#010x}",
            ram_size=self.ram.size,
            input_origin=f"{self.input.origin:#010x}",
            input_size=self.input.size,
            stack_size=stack_bytes,
        )


_MPS2_CODE = Region(0x0000_0000, 4 * MIB)
_MPS2_RAM = Region(0x2000_0000, 4 * MIB)


def _mps2(name: str, machine: str, cpu_flags: str, psram: int) -> Board:
    """A board without TrustZone; `psram` is where its 16 MiB of pseudo-static RAM lie."""
    return Board(
        name,
        machine,
        tuple(cpu_flags.split()),
        code=_MPS2_CODE,
        const=_MPS2_CODE,
        ram=_MPS2_RAM,
        input=Region(psram, 16 * MIB),
        uart=0x4000_4000,
        fpgaio=0x4002_8000,
        systick_hz=25_000_000,
    )


# Memory, UART and clock as `info mtree` and the device tree of QEMU 7.2 have them; the secure aliases where there are two.
BOARDS: Mapping[str, Board] = MappingProxyType(
    {
        board.name: board
        for board in (
            # QEMU has no MPS2 board with an Armv6-M core: its instructions are a subset of those of the M3.
            _mps2("qemu-m0", "mps2-an385", "-mcpu=cortex-m0plus -mfloat-abi=soft", 0x2100_0000),
            _mps2("qemu-m3", "mps2-an385", "-mcpu=cortex-m3 -mfloat-abi=soft", 0x2100_0000),
            _mps2("qemu-m4", "mps2-an386", "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard", 0x2100_0000),
            _mps2("qemu-m7", "mps2-an500", "-mcpu=cortex-m7 -mfpu=fpv5-d16 -mfloat-abi=hard", 0x6000_0000),
            Board(
                "qemu-m33",
                "mps2-an505",
                ("-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
                code=Region(0x1000_0000, 4 * MIB),
                const=Region(0x1000_0000, 4 * MIB),
                ram=Region(0x3800_0000, 4 * MIB),
                input=Region(0x8000_0000, 16 * MIB),
                uart=0x5020_0000,
                fpgaio=0x5030_2000,
                systick_hz=20_000_000,
            ),
            Board(
                "qemu-m55",
                "mps3-an547",
                ("-mcpu=cortex-m55", "-mfloat-abi=hard"),
                code=Region(0x0000_0000, 512 * KIB),  # instruction TCM
                const=Region(0x1100_0000, 2 * MIB),  # SRAM: constants of a model may be larger than the TCM
                ram=Region(0x3100_0000, 4 * MIB),
                input=Region(0x6000_0000, 64 * MIB),  # the first of 2 GiB of DDR4
                uart=0x5930_3000,
                fpgaio=0x5930_2000,
                systick_hz=32_000_000,
            ),
        )
    }
)


def find_board(name: str) -> Board:
    """The emulated board of the target `name`.

    Raises:
        EdgeError: no such board.
    """
    if name not in BOARDS:
        raise EdgeError(f"{name!r} is no emulated board; choose one of {', '.join(BOARDS)}.")
    return BOARDS[name]


def board_of_core(core: str) -> Board | None:
    """The emulated board with a core such as "cortex-m4"; None where there is none."""
    return next((board for board in BOARDS.values() if board.core == core), None)
