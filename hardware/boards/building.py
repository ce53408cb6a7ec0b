"""C sources to an ELF file for an emulated board, and how large it became."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from embridge_edge.errors import EdgeError
from embridge_edge.hardware.boards.boards import STACK_BYTES, SUPPORT, Board

COMPILER = "arm-none-eabi-gcc"
OBJDUMP = "arm-none-eabi-objdump"
PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
"""`extra_flags` for C that is generated or shipped."""
SUPPORT_FLAGS = ("-std=gnu99", "-O2", "-fno-tree-loop-distribute-patterns")
"""Of the start-up code: always the same, so that what it costs is. It must not call memcpy inside of memcpy."""


@dataclass(frozen=True)
class Symbol:
    """A function or table in an ELF or object file.

    Attributes:
        name: as the linker sees it.
        section: where it lies, such as ".text".
        address: where it lies in memory; in an object file its offset in the section.
        size: bytes.
    """

    name: str
    section: str
    address: int
    size: int


@dataclass(frozen=True)
class Sizes:
    """What an ELF or object file holds.

    Attributes:
        sections: bytes of each section that takes memory on the board, by name.
        symbols: functions and tables with a size, the largest first.
    """

    sections: Mapping[str, int]
    symbols: tuple[Symbol, ...]

    def total(self, *prefixes: str) -> int:
        """Bytes of all sections whose names start with one of `prefixes`, such as ".text", ".rodata"."""
        return sum(size for name, size in self.sections.items() if name.startswith(prefixes))

    @property
    def flash_bytes(self) -> int:
        """Code, constants, and the image of initialised data."""
        return self.total(".vectors", ".text", ".rodata", ".ARM.ex", ".data")

    @property
    def ram_bytes(self) -> int:
        """Variables, without the stack."""
        return self.total(".data", ".bss")


@dataclass(frozen=True)
class Built:
    """A program for a board.

    Attributes:
        elf: the program.
        map: the linker's account of what went where.
        sizes: of the ELF file.
        objects: object file of each source, in order.
        stack_usage: bytes of stack of each function's own frame by "file:function"; empty unless asked for.
    """

    elf: Path
    map: Path
    sizes: Sizes
    objects: tuple[Path, ...]
    stack_usage: Mapping[str, int] = field(default_factory=dict)


def build(
    board: Board,
    sources: Sequence[Path],
    *,
    folder: Path,
    includes: Sequence[Path] = (),
    defines: Sequence[str] = (),
    optimise: str = "-O3",
    extra_flags: Sequence[str] = (),
    link_flags: Sequence[str] = (),
    stack_bytes: int = STACK_BYTES,
    stack_usage: bool = False,
) -> Built:
    """Compile `sources` with the board's support code and link them, without a C library.

    Every function and table has a section of its own, and what nothing refers to is left out. `emb_board.h` is on the
    include path.

    Args:
        board: what it is for.
        sources: C or assembler files; one of them defines `main`.
        folder: where everything is written; made when it does not exist.
        includes: further folders with headers.
        defines: macros, as "NAME" or "NAME=VALUE".
        optimise: GCC's level.
        extra_flags: further flags for the sources, such as `WARNINGS`.
        link_flags: further flags and libraries for the linker, such as "-lc" or "-lm".
        stack_bytes: size of the stack, a multiple of 8.
        stack_usage: whether to collect GCC's account of the stack.

    Raises:
        EdgeError: no compiler, or it does not compile or link; the first message of GCC is quoted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flags = [*board.cpu_flags, "-mthumb", "-g", "-ffunction-sections", "-fdata-sections"]
    flags += [f"-I{path}" for path in (SUPPORT, *includes)]
    own = [*flags, optimise, *extra_flags, *(f"-D{define}" for define in defines)]
    own += ["-fstack-usage"] if stack_usage else []
    support = sorted(SUPPORT.glob("*.c"))
    jobs = [(source, folder / f"{index}_{source.stem}.o", own) for index, source in enumerate(sources)]
    objects = tuple(made for _, made, _ in jobs)
    support_flags = [*flags, *SUPPORT_FLAGS, *(f"-D{define}" for define in board.support_defines)]
    jobs += [(source, folder / f"{source.stem}.support.o", support_flags) for source in support]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_compile, *zip(*jobs, strict=True)))
    script, elf, listing = (folder / f"program.{suffix}" for suffix in ("ld", "elf", "map"))
    script.write_text(board.linker_script(stack_bytes), "utf-8")
    _call(
        COMPILER,
        *board.cpu_flags,
        "-mthumb",
        "-nostartfiles",
        "-nodefaultlibs",
        f"-T{script}",
        "-Wl,--gc-sections",
        f"-Wl,-Map={listing}",
        *(str(made) for _, made, _ in jobs),
        *link_flags,
        "-lgcc",
        "-o",
        str(elf),
    )
    frames = _stack_usage(objects) if stack_usage else {}
    return Built(elf, listing, sizes(elf), objects, MappingProxyType(frames))


def _compile(source: Path, made: Path, flags: Sequence[str]) -> None:
    _call(COMPILER, *flags, "-c", str(source), "-o", str(made))


def sizes(path: Path) -> Sizes:
    """Sections and symbols of an ELF or object file.

    Raises:
        EdgeError: no such tool, or `path` is no such file.
    """
    sections: dict[str, int] = {}
    symbols = []
    for line in _call(OBJDUMP, "-h", "-t", "-w", str(path)).splitlines():
        if match := _SECTION.match(line):
            name, size, kinds = match.groups()
            if "ALLOC" in kinds and int(size, 16):
                sections[name] = sections.get(name, 0) + int(size, 16)
        elif match := _SYMBOL.match(line):
            address, section, size, name = match.groups()
            symbols.append(Symbol(name, section, int(address, 16), int(size, 16)))
    ordered = sorted((symbol for symbol in symbols if symbol.size), key=lambda symbol: (-symbol.size, symbol.name))
    return Sizes(MappingProxyType(sections), tuple(ordered))


# objdump's lines: "  3 .data.value 00000004 ... CONTENTS, ALLOC, ..." and "00000000 g     F .text.main	00000054 main".
_SECTION = re.compile(r"\s*\d+ (\S+)\s+([0-9a-f]{8})  [0-9a-f]{8}  [0-9a-f]{8}  [0-9a-f]{8}  \S+  (.*)")
_SYMBOL = re.compile(r"([0-9a-f]{8}) .{6}[FO] (\S+)\t([0-9a-f]{8}) (?:\.hidden )?(\S+)$")


def _stack_usage(objects: Iterable[Path]) -> dict[str, int]:
    """What GCC wrote beside each object: "file.c:line:column:function<TAB>bytes<TAB>how it is known"."""
    usage: dict[str, int] = {}
    for made in objects:
        for line in made.with_suffix(".su").read_text("utf-8").splitlines():
            place, size, _ = line.split("\t")
            source, _, _, function = place.rsplit(":", 3)
            usage[f"{Path(source).name}:{function}"] = int(size)
    return usage


def _call(command: str, *arguments: str) -> str:
    """What a tool of the compiler prints.

    Raises:
        EdgeError: it is not installed, or it failed.
    """
    if shutil.which(command) is None:
        raise EdgeError(f"{command} is not installed; install {PACKAGES} (`embridge-edge doctor` says how).")
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgeError(f"{command} refuses: {_first_error(done.stderr)}")
    return done.stdout


def _first_error(messages: str) -> str:
    """The line that says what is wrong; GCC begins with where it was when it noticed."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"error|undefined reference|multiple definition|overflowed", line)]
    return (wrong or lines or ["no message"])[0]
