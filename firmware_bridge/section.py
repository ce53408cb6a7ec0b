"""The model's section as the bytes that it becomes at an address, so that a model can be updated without its firmware.

The section is one C structure whose parameters point at its own tables. Once its address is known so are all of its bytes:
`image` computes them without a compiler, from the structures as the kernels' headers declare them, laid out as 32-bit cores
with natural alignment do (AAPCS32 for Arm; ILP32 for RISC-V and Xtensa). Where the linker chooses the address, the digest in
the header can only stay empty.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.emit import Place, kernel_files, library, plan_of, section_entries
from embridge_edge.firmware_bridge.program import Constant, Program

MAGIC = 0x4D424D45
VERSION = 2
HEADER = "emb_section_header_t"
ALIGNMENT = 8
"""Of the address: what the widest table, of int64, asks for."""
ADDRESS_LIMIT = 1 << 32

# AAPCS32, chapter 5: size and alignment are the same for all of these.
_SCALARS: Mapping[str, str] = {
    "int8_t": "b",
    "uint8_t": "B",
    "int16_t": "h",
    "uint16_t": "H",
    "int32_t": "i",
    "uint32_t": "I",
    "int64_t": "q",
    "uint64_t": "Q",
    "float": "f",
}
_POINTER = "I"


@dataclasses.dataclass(frozen=True)
class Field:
    """A member of a structure.

    Attributes:
        name: in C.
        kind: its C type; "" for a pointer.
        offset: first byte.
        count: elements of an array; 0 where it is none.
    """

    name: str
    kind: str
    offset: int
    count: int


@dataclasses.dataclass(frozen=True)
class Structure:
    """A C structure as it lies in memory.

    Attributes:
        fields: in order.
        size: bytes, the padding at the end included.
        alignment: of its address.
    """

    fields: tuple[Field, ...]
    size: int
    alignment: int


def structures(headers: Iterable[str]) -> dict[str, Structure]:
    """Layout of every `typedef struct` in C headers whose members are numbers, pointers to data, arrays and other structures.

    Structures with members of any other type are left out: no section holds them.
    """
    text = re.sub(r"/\*.*?\*/", "", "\n".join(headers), flags=re.DOTALL)
    constants = {name: int(value) for name, value in re.findall(r"#define\s+(\w+)\s+(\d+)u?\s*$", text, re.MULTILINE)}
    found: dict[str, Structure] = {}
    for body, name in re.findall(r"typedef struct \{([^}]*)\} (\w+);", text):
        members = [member for line in body.split(";") if line.strip() for member in _declared(line, constants)]
        if all(count is not None and (not kind or kind in _SCALARS or kind in found) for _, kind, count in members):
            found[name] = _laid_out([(name, kind, count or 0) for name, kind, count in members], found)
    return found


def _declared(line: str, constants: Mapping[str, int]) -> Iterator[tuple[str, str, int | None]]:
    """Name, type ("" for a pointer) and elements (None where that cannot be told) of what a declaration declares."""
    kind, _, names = re.sub(r"\b(const|volatile)\b", "", line).strip().partition(" ")
    for declarator in names.split(","):
        match = re.fullmatch(r"\s*(\*?)\s*(\w+)\s*(?:\[(\w+)\])?\s*", declarator)
        if match is None:
            yield declarator, kind, None
            continue
        star, name, length = match.groups()
        count = 0 if length is None else int(length) if length.isdigit() else constants.get(length)
        yield name, "" if star else kind, count


def _laid_out(members: Iterable[tuple[str, str, int]], known: Mapping[str, Structure]) -> Structure:
    fields, end, alignment = [], 0, 1
    for name, kind, count in members:
        size, aligned = _measure(kind, known)
        offset = _up_to(end, aligned)
        fields.append(Field(name, kind, offset, count))
        end, alignment = offset + size * (count or 1), max(alignment, aligned)
    return Structure(tuple(fields), _up_to(end, alignment), alignment)


def _measure(kind: str, known: Mapping[str, Structure]) -> tuple[int, int]:
    if kind in known:
        return known[kind].size, known[kind].alignment
    size = struct.calcsize(_SCALARS.get(kind, _POINTER))
    return size, size


def _up_to(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


def section_layout(program: Program) -> Structure:
    """Where each member of the program's section lies on a core with 32-bit pointers; the first one is the header."""
    return _section_layout(program, _kernel_structures(program))


def _kernel_structures(program: Program) -> dict[str, Structure]:
    # emb_core.h first: the other headers use its structures.
    headers = {name: text for name, text in kernel_files(program).items() if name.endswith(".h")}
    return structures(headers[name] for name in _in_order(headers))


def _in_order(headers: Mapping[str, str]) -> list[str]:
    """Names of headers, each behind those that it includes."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name in ordered or name not in headers:
            return
        for included in re.findall(r'#include "(\w+\.h)"', headers[name]):
            visit(included)
        ordered.append(name)

    for name in sorted(headers):
        visit(name)
    return ordered


def _section_layout(program: Program, known: Mapping[str, Structure]) -> Structure:
    members = [("header", HEADER, 0)]
    for entry in section_entries(program):
        is_table = isinstance(entry.value, Constant)
        if not is_table and entry.kind not in known:
            raise EdgeError(
                f"The layout of {entry.kind} is unknown, so that the section has no image; link it instead."
            )
        members.append((entry.name, entry.kind, entry.value.values.size if isinstance(entry.value, Constant) else 0))
    return _laid_out(members, known)


def image(program: Program, model_sha256: bytes, address: int) -> bytes:
    """The section as a little-endian core with 32-bit pointers has it in flash at `address`, its digest filled in.

    Args:
        model_sha256: digest of the `.tflite` file.
        address: of the first byte; a multiple of 8.

    Raises:
        EdgeError: the address cannot be, or a parameter has a form that only a C compiler reads.
    """
    known = _kernel_structures(program)
    layout = _section_layout(program, known)
    if address % ALIGNMENT or not 0 < address <= ADDRESS_LIMIT - layout.size:
        raise EdgeError(
            f"The model cannot lie at {address:#x}; give a multiple of {ALIGNMENT} with {layout.size:,} bytes behind it."
        )
    offsets = {field.name: field.offset for field in layout.fields}
    pointers = {f"{program.name}_section.{name}": address + offset for name, offset in offsets.items()}
    written = bytearray(layout.size)
    for entry in section_entries(program):
        at = offsets[entry.name]
        if isinstance(entry.value, Constant):
            little = entry.value.values.astype(entry.value.values.dtype.newbyteorder("<"))
            written[at : at + little.nbytes] = little.tobytes()
        else:
            _write_structure(written, at, entry.kind, entry.value, _Context(known, pointers))
    header = {
        "magic": MAGIC,
        "version": VERSION,
        "length": layout.size,
        "plan": plan_of(program),
        "address": address,
        "model_sha256": f"{{{', '.join(str(byte) for byte in model_sha256)}}}",
    }
    _write_structure(written, 0, HEADER, header, _Context(known, pointers))
    start, end = _digest_place(known[HEADER])
    written[start:end] = hashlib.sha256(written[end:]).digest()
    return bytes(written)


def _digest_place(header: Structure) -> tuple[int, int]:
    """First byte of the digest, and the first byte behind it, from which on it covers everything."""
    (start,) = (field.offset for field in header.fields if field.name == "sha256")
    return start, start + hashlib.sha256().digest_size


@dataclasses.dataclass(frozen=True)
class _Context:
    known: Mapping[str, Structure]
    pointers: Mapping[str, int]


def _write_structure(into: bytearray, at: int, kind: str, values: Mapping[str, Any], context: _Context) -> None:
    fields = {field.name: field for field in context.known[kind].fields}
    for name, value in values.items():
        if name not in fields:
            raise EdgeError(f"{kind} has no member {name}; report this with the model.")
        field = fields[name]
        place = at + field.offset
        if isinstance(value, Mapping):
            _write_structure(into, place, field.kind, value, context)
            continue
        numbers = list(_numbers(value, context))
        code = _SCALARS.get(field.kind, _POINTER)
        if len(numbers) > (field.count or 1):
            raise EdgeError(f"{kind}.{name} has no room for {len(numbers)} values; report this with the model.")
        struct.pack_into(f"<{len(numbers)}{code}", into, place, *(_as_stored(number, code) for number in numbers))


def _numbers(value: Any, context: _Context) -> Iterator[int | float]:
    """The numbers behind a parameter: one, or those of a C initialiser in braces; a pointer is its address."""
    if not isinstance(value, str):
        yield float(value) if isinstance(value, float) else int(value)
    elif value.startswith("{"):
        for part in value.strip("{} ").split(","):
            yield from _numbers(part.strip(), context)
    elif value in context.pointers or value == "NULL":
        yield context.pointers.get(value, 0)
    elif re.fullmatch(r"-?\d+", value):
        yield int(value)
    else:
        raise EdgeError(f"The parameter {value!r} has no place in an image; link the section instead.")


def _as_stored(number: int | float, code: str) -> int | float:
    return float(number) if code == "f" else int(number)


def place(program: Program, model_sha256: bytes, address: int) -> Place:
    """What `emit.library` needs to know to write a section whose digest is right at `address`."""
    content = image(program, model_sha256, address)
    start, end = _digest_place(_kernel_structures(program)[HEADER])
    return Place(address, len(content), content[start:end])


def placed_library(program: Program, model_sha256: bytes, address: int) -> dict[str, str]:
    """The C library for a model at a fixed address: linked there it has the bytes of `image`.

    Besides the library's files there is a linker script that puts the section at its address.
    """
    files = library(program, model_sha256, place(program, model_sha256, address))
    return files | {f"{program.name}_section.ld": linker_script(program.name, address)}


def section_name(name: str) -> str:
    """Name of the linker's section that holds the model."""
    return f".{name}_model"


def linker_script(name: str, address: int) -> str:
    """A script that GNU ld takes besides a board's own one, to place the model."""
    return f"""/* Puts the model at its address. Give it to the linker besides the board's own script: -T {name}_section.ld,
 * and compile {name}_section.c with -D{name.upper()}_SECTION='__attribute__((section("{section_name(name)}")))'. */
SECTIONS
{{
    {section_name(name)} 0x{address:08x} : {{ KEEP(*({section_name(name)})) }}
}}
INSERT AFTER .text;
"""


def constant_bytes(program: Program) -> dict[str, int]:
    """Bytes of the section on a core with 32-bit pointers, by role; header, parameters of the calls and padding included."""
    known = _kernel_structures(program)
    sizes = {"header": known[HEADER].size, "parameters": 0}
    for entry in section_entries(program):
        if isinstance(entry.value, Constant):
            sizes[entry.value.role] = sizes.get(entry.value.role, 0) + entry.value.size_bytes
        else:
            sizes["parameters"] += known[entry.kind].size
    padding = _section_layout(program, known).size - sum(sizes.values())
    return {role: size for role, size in (sizes | {"padding": padding}).items() if size}
