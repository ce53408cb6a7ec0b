"""How much flash, RAM and stack a generated library takes on a target, and whether that fits, before anything is flashed."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.graph import Graph
from embridge_edge.firmware_bridge.program import ALIGNMENT, Program
from embridge_edge.firmware_bridge.section import constant_bytes

CALL_GRAPH_FLAG = "-fcallgraph-info=su"
"""What makes GCC write a `.ci` file with calls and frames beside each object file."""
REQUANTIZATION_BYTES = 5
"""Of a channel: int32 multiplier, int8 shift."""
INDIRECT = "__indirect_call"
OUTSIDE = "outside the section"
"""Role of tables that belong to kernels and not to a model."""
HELPERS = ("memcpy", "memset", "memmove")
"""Of the C library; what the compiler calls by itself has names that start with two underscores."""


class SymbolSize(Protocol):
    """A function or table in an object or ELF file, such as `hardware.boards.Symbol`."""

    @property
    def name(self) -> str:
        """As the linker sees it."""

    @property
    def section(self) -> str:
        """Where it lies, such as ".text"."""

    @property
    def size(self) -> int:
        """Bytes."""


AnySymbol = TypeVar("AnySymbol", bound=SymbolSize)


@dataclass(frozen=True)
class StackEstimate:
    """The deepest chain of calls by the frames that GCC reports; nothing was run.

    Attributes:
        bytes: sum of the frames along `path`.
        path: functions, the entry first.
        unknown: functions on any chain whose frames are not in it: of the C library, or called through a pointer.
    """

    bytes: int
    path: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    def text(self) -> str:
        without = f"; without {', '.join(self.unknown)}" if self.unknown else ""
        return f"{self.bytes:,} bytes estimated from frames ({' > '.join(self.path)}{without})"


def stack_estimate(call_graphs: Iterable[str], entry: str) -> StackEstimate:
    """The most stack that `entry` and what it calls can take.

    Args:
        call_graphs: texts of GCC's `.ci` files (`CALL_GRAPH_FLAG`), one for each source.
        entry: C function, such as "NAME_invoke".

    Raises:
        EdgeError: no such function, recursion, or a frame whose size the compiler does not know.
    """
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for text in call_graphs:
        for title, label in re.findall(r'node: \{ title: "([^"]*)" label: "([^"]*)"', text):
            frame = re.search(r"\\n(\d+) bytes \(([^)]*)\)", label)
            if frame is None:
                continue
            if frame[2] == "dynamic":
                raise EdgeError(f"{title} takes an unknown amount of stack; use no arrays of variable length.")
            frames[title] = int(frame[1])
        for source, called in re.findall(r'edge: \{ sourcename: "([^"]*)" targetname: "([^"]*)"', text):
            calls.setdefault(source, set()).add(called)
    if entry not in frames:
        raise EdgeError(f"No frame of {entry} is known; compile with {CALL_GRAPH_FLAG}.")
    unknown: set[str] = set()
    size, path = _deepest(entry, frames, calls, unknown, ())
    # GCC puts the path of the source before the name of a static function.
    return StackEstimate(size, tuple(name.rpartition(":")[2] for name in path), tuple(sorted(unknown)))


def _deepest(
    function: str,
    frames: Mapping[str, int],
    calls: Mapping[str, set[str]],
    unknown: set[str],
    above: tuple[str, ...],
) -> tuple[int, tuple[str, ...]]:
    if function in above:
        raise EdgeError(f"{function} calls itself ({' > '.join((*above, function))}); its stack has no bound.")
    deepest = 0
    path: tuple[str, ...] = ()
    for called in sorted(calls.get(function, ())):
        if called not in frames:
            unknown.add("calls through pointers" if called == INDIRECT else called)
            continue
        size, below = _deepest(called, frames, calls, unknown, (*above, function))
        if size > deepest:
            deepest, path = size, below
    return frames[function] + deepest, (function, *path)


def library_symbols(linked: Iterable[AnySymbol], compiled: Iterable[SymbolSize]) -> tuple[AnySymbol, ...]:
    """What an application gets with the library, of all that a linked program holds.

    Args:
        linked: symbols of the ELF file.
        compiled: symbols of the library's own object files.
    """
    own = {symbol.name for symbol in compiled}
    return tuple(
        symbol for symbol in linked if symbol.name in own or symbol.name in HELPERS or symbol.name.startswith("__")
    )


@dataclass(frozen=True)
class SizeReport:
    """What a library takes, in bytes, beside what the target's application leaves.

    Attributes:
        name: of the model.
        target: what it was compiled for.
        code: functions, the largest first.
        constants: weights, bias, requantization, table, parameters … by role.
        arena_bytes: activations and scratch.
        state_bytes: what is kept from one inference to the next.
        stack_estimated: from frames; None where it was not asked for.
        stack_painted_bytes: most stack that was overwritten in a run; None where nothing was run.
        flash_budget_bytes, ram_budget_bytes: None where the target has no such budget.
    """

    name: str
    target: str
    code: Mapping[str, int]
    constants: Mapping[str, int]
    arena_bytes: int
    state_bytes: int
    stack_estimated: StackEstimate | None = None
    stack_painted_bytes: int | None = None
    flash_budget_bytes: int | None = None
    ram_budget_bytes: int | None = None

    @property
    def code_bytes(self) -> int:
        """All functions."""
        return sum(self.code.values())

    @property
    def constant_bytes(self) -> int:
        """All tables."""
        return sum(self.constants.values())

    @property
    def flash_bytes(self) -> int:
        """Code and constants."""
        return self.code_bytes + self.constant_bytes

    @property
    def stack_bytes(self) -> int:
        """The larger of both numbers: a run need not take the deepest chain, an estimate may lack a function."""
        estimated = self.stack_estimated.bytes if self.stack_estimated else 0
        return max(estimated, self.stack_painted_bytes or 0)

    @property
    def ram_bytes(self) -> int:
        """One context and the stack of an inference."""
        return self.arena_bytes + self.state_bytes + self.stack_bytes

    @property
    def missing(self) -> tuple[str, ...]:
        """What the target lacks; empty where the library fits."""
        lacks = (
            _lack("flash", self.flash_bytes, self.flash_budget_bytes),
            _lack("RAM", self.ram_bytes, self.ram_budget_bytes),
        )
        return tuple(lack for lack in lacks if lack)

    @property
    def ok(self) -> bool:
        """Whether it fits."""
        return not self.missing

    def text(self) -> str:
        verdict = "fits" if self.ok else f"does not fit: {' and '.join(self.missing)}"
        lines = [
            f"{self.name} on {self.target} {verdict}",
            f"flash {_of(self.flash_bytes, self.flash_budget_bytes)}",
            f"  code {self.code_bytes:,}",
            *_rows(self.code),
            f"  constants {self.constant_bytes:,}",
            *_rows(self.constants),
            f"RAM {_of(self.ram_bytes, self.ram_budget_bytes)}",
            f"  arena {self.arena_bytes:,}",
            f"  state {self.state_bytes:,}",
        ]
        if self.stack_estimated is not None:
            lines.append(f"  stack {self.stack_estimated.text()}")
        if self.stack_painted_bytes is not None:
            lines.append(f"  stack {self.stack_painted_bytes:,} bytes painted over in a run")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        estimated = self.stack_estimated
        return {
            "name": self.name,
            "target": self.target,
            "ok": self.ok,
            "missing": list(self.missing),
            "flash_bytes": self.flash_bytes,
            "flash_budget_bytes": self.flash_budget_bytes,
            "code_bytes": self.code_bytes,
            "code": dict(self.code),
            "constant_bytes": self.constant_bytes,
            "constants": dict(self.constants),
            "ram_bytes": self.ram_bytes,
            "ram_budget_bytes": self.ram_budget_bytes,
            "arena_bytes": self.arena_bytes,
            "state_bytes": self.state_bytes,
            "stack_bytes": self.stack_bytes,
            "stack_estimated_bytes": estimated.bytes if estimated else None,
            "stack_estimated_path": list(estimated.path) if estimated else [],
            "stack_estimated_without": list(estimated.unknown) if estimated else [],
            "stack_painted_bytes": self.stack_painted_bytes,
        }


def size_report(
    program: Program,
    symbols: Sequence[SymbolSize],
    *,
    target: str,
    stack_estimated: StackEstimate | None = None,
    stack_painted_bytes: int | None = None,
    flash_budget_bytes: int | None = None,
    ram_budget_bytes: int | None = None,
    beside: Sequence[str] = (),
) -> SizeReport:
    """Sizes of a program's library as a compiler made it.

    Args:
        symbols: functions and tables of the library on the target (`library_symbols`); its `NAME_section` among them.
        target: its name.
        flash_budget_bytes, ram_budget_bytes: what the target's application leaves.
        beside: sections of other programs among the symbols, which are not counted.

    Raises:
        EdgeError: the section is not among the symbols, or was compiled with another layout than that of 32-bit cores.
    """
    section = f"{program.name}_section"
    constants = constant_bytes(program)
    found = [symbol.size for symbol in symbols if symbol.name == section]
    if found != [sum(constants.values())]:
        compiled = f"has {found[0]:,} bytes" if found else "is missing"
        raise EdgeError(
            f"{section} {compiled} where a 32-bit core has {sum(constants.values()):,}; give the symbols of such a build."
        )
    known = {section, *beside}
    other = sum(symbol.size for symbol in symbols if symbol.section.startswith(".rodata") and symbol.name not in known)
    if other:
        constants[OUTSIDE] = other
    words = math.ceil((program.arena_bytes + program.state_bytes) / ALIGNMENT) * ALIGNMENT
    return SizeReport(
        name=program.name,
        target=target,
        code=_code(symbols),
        constants=_largest_first(constants),
        arena_bytes=words - program.state_bytes,
        state_bytes=program.state_bytes,
        stack_estimated=stack_estimated,
        stack_painted_bytes=stack_painted_bytes,
        flash_budget_bytes=flash_budget_bytes,
        ram_budget_bytes=ram_budget_bytes,
    )


def taking_turns(parts: Sequence[SizeReport], name: str, kept_bytes: int) -> SizeReport:
    """Sizes of a network of programs that run one after the other in one memory.

    Args:
        parts: sizes of each, all with the functions of the whole. name: of the network. kept_bytes: what stands beside that memory.
    """
    constants: dict[str, int] = {}
    for part in parts:
        for role, size in part.constants.items():
            constants[role] = (
                size if role == OUTSIDE else constants.get(role, 0) + size
            )  # each has counted those of all
    return dataclasses.replace(
        parts[0],
        name=name,
        constants=_largest_first(constants),
        arena_bytes=max(part.arena_bytes for part in parts),
        state_bytes=kept_bytes,
    )


def with_chain(
    network: SizeReport,
    name: str,
    symbols: Sequence[SymbolSize],
    context_bytes: int,
    *,
    stack_estimated: StackEstimate,
    stack_painted_bytes: int,
) -> SizeReport:
    """Sizes of a library that has a signal chain and a head around its network.

    Args:
        network: sizes of the network alone.
        name: of the whole library.
        symbols: functions and tables of the whole library on the target (`library_symbols`).
        context_bytes: what one context of it takes, the network's included.
        stack_estimated, stack_painted_bytes: of a decision.
    """
    tables = sum(symbol.size for symbol in symbols if symbol.section.startswith(".rodata"))
    return dataclasses.replace(
        network,
        name=name,
        code=_code(symbols),
        constants=_largest_first({**network.constants, "chain and head": tables - network.constant_bytes}),
        state_bytes=context_bytes - network.arena_bytes,
        stack_estimated=stack_estimated,
        stack_painted_bytes=stack_painted_bytes,
    )


def _code(symbols: Iterable[SymbolSize]) -> dict[str, int]:
    """Bytes of the functions by name, the largest first; static functions of several files may share one."""
    code: dict[str, int] = {}
    for symbol in symbols:
        if symbol.section.startswith(".text"):
            code[symbol.name] = code.get(symbol.name, 0) + symbol.size
    return _largest_first(code)


def necessary_constants(graph: Graph) -> int:
    """Bytes of tables that no library can do without: weights and biases of products as the model has them, and five bytes of
    requantization for each output channel. What a library holds beside them is to be little."""
    total = 0
    for op in graph.ops:
        stored = [graph.tensors[index] for index in op.inputs[1:] if index >= 0 and graph.tensors[index].is_constant]
        if op.macs and stored:
            channels = graph.tensors[op.outputs[0]].shape[-1]
            total += sum(tensor.size_bytes for tensor in stored) + REQUANTIZATION_BYTES * channels
    return total


def _largest_first(sizes: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _rows(sizes: Mapping[str, int]) -> list[str]:
    widest = max(map(len, sizes), default=0)
    return [f"    {name:{widest}} {size:9,}" for name, size in sizes.items()]


def _of(needed: int, budget: int | None) -> str:
    return f"{needed:,} bytes" + (f" of {budget:,} that are free" if budget is not None else ", no budget")


def _lack(what: str, needed: int, budget: int | None) -> str:
    return f"{needed - budget:,} bytes of {what} are missing" if budget is not None and needed > budget else ""
