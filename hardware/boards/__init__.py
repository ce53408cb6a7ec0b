"""Emulated boards: what they are, C programs built for them, and runs of such programs in QEMU.

`BOARDS` lists them by the name of their target; `build` makes an ELF from C sources and the support code in `support/`;
`run` gives what the program printed, wrote and returned. QEMU executes instructions without a pipeline, wait states or
caches: `instructions` turns ticks into an exact count of them, and nothing here turns them into time.
"""

from embridge_edge.hardware.boards.boards import BOARDS, Board, Region, board_of_core, find_board
from embridge_edge.hardware.boards.building import WARNINGS, Built, Sizes, Symbol, build, sizes
from embridge_edge.hardware.boards.emulation import Run, instructions, run

__all__ = [
    "BOARDS",
    "WARNINGS",
    "Board",
    "Built",
    "Region",
    "Run",
    "Sizes",
    "Symbol",
    "board_of_core",
    "build",
    "find_board",
    "instructions",
    "run",
    "sizes",
]
