"""A program written down as C: the section of tables, the plan of calls, the header that an application includes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np

from embridge_edge.firmware_bridge.graph import Tensor
from embridge_edge.firmware_bridge.program import Constant, Program

KERNELS_VERSION = 1
"""EMB_KERNELS_VERSION of `kernels/emb_core.h`, which generated code is tied to."""

C_TYPES: dict[str, str] = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "uint32": "uint32_t",
    "int64": "int64_t",
    "float32": "float",
    "bool": "uint8_t",
}

_WIDTH = 110
_LONGEST_COMMENT = 80
_LONGEST_NAME = 32


@dataclasses.dataclass(frozen=True)
class Entry:
    """One member of the section.

    Attributes:
        name: its name in the structure.
        kind: its C type.
        value: a table, or the parameters of a step.
    """

    name: str
    kind: str
    value: Constant | Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a section is to lie, so that its bytes are known before it is linked; `section.place` makes it.

    Attributes:
        address: of its first byte.
        length: bytes of the whole section on a core with 32-bit pointers.
        sha256: digest that its header holds.
    """

    address: int
    length: int
    sha256: bytes


def library(program: Program, model_sha256: bytes, place: Place | None = None) -> dict[str, str]:
    """Every file of the C library by its path: generated ones, and the kernels that they call.

    Args:
        model_sha256: digest of the `.tflite` file, kept in the section.
        place: where the section is to lie; None where the linker chooses, and its digest stays empty.
    """
    entries = section_entries(program)
    plan = plan_of(program)
    generated = {
        f"include/{program.name}.h": _header(program),
        f"src/{program.name}.c": _source(program),
        f"src/{program.name}_section.h": _structure(program, entries, plan),
        f"src/{program.name}_section.c": _section(program, entries, model_sha256, place),
    }
    return generated | {f"src/{name}": text for name, text in kernel_files(program).items()}


def plan_of(program: Program) -> int:
    """What two models share where one's section works with the other's firmware: every file but the section's values.

    Shapes, memory plan, kernels, and the scales of inputs and outputs, which the application is compiled with.
    """
    fixed = [_header(program), _source(program), *_members(section_entries(program)), *kernel_files(program).values()]
    return int.from_bytes(hashlib.sha256("\n".join(fixed).encode()).digest()[:4], "big")


def kernel_files(program: Program) -> dict[str, str]:
    """The hand-written files that the program's calls need, by name."""
    wanted = ["emb_section.h", "emb_section.c", *dict.fromkeys(step.source for step in program.steps)]
    found: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found[name] = _kernel_file(name)
        for included in re.findall(r'#include "(\w+\.h)"', found[name]):
            wanted.append(included)
            body = included.removesuffix(".h") + ".c"
            if (_kernels() / body).is_file():
                wanted.append(body)
    return dict(sorted(found.items()))


def _kernels() -> Traversable:
    return files("embridge_edge.firmware_bridge") / "kernels"


@functools.cache
def _kernel_file(name: str) -> str:
    return (_kernels() / name).read_text("utf-8")


def c_name(text: str) -> str:
    """A layer's name as part of a C identifier: its last path components, lower case."""
    clean = re.sub(r"[^0-9a-zA-Z]+", "_", text).strip("_").lower()
    return re.sub(r"^.*?_", "", clean[-_LONGEST_NAME:]) if len(clean) > _LONGEST_NAME else clean


def step_names(program: Program) -> list[str]:
    """For each step the member of the section that holds its parameters; parts of one op are numbered."""
    seen: dict[int, int] = {}
    names = []
    for step in program.steps:
        part = seen[step.op] = seen.get(step.op, -1) + 1
        names.append(f"op_{step.op}_{f'part_{part}_' if part else ''}{c_name(step.layer)}".rstrip("_"))
    return names


def section_entries(program: Program) -> list[Entry]:
    """The section's members behind its header: parameters, then tables from the widest type to the narrowest, so that no padding is needed."""
    parameters: list[Entry] = []
    tables: list[Entry] = []
    shared: dict[tuple[str, bytes], str] = {}

    def placed(value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            return {key: placed(item, f"{name}_{key}".replace("_out_", "_")) for key, item in value.items()}
        if not isinstance(value, Constant):
            return value
        key = (value.values.dtype.name, value.values.tobytes())
        if key not in shared:
            shared[key] = name
            tables.append(Entry(name, C_TYPES[value.values.dtype.name], value))
        return f"{program.name}_section.{shared[key]}"

    for name, step in zip(step_names(program), program.steps, strict=True):
        parameters.append(Entry(name, step.structure, placed(step.parameters, name)))
    tables.sort(key=lambda entry: -_itemsize(entry))
    return parameters + tables


def _itemsize(entry: Entry) -> int:
    return entry.value.values.dtype.itemsize if isinstance(entry.value, Constant) else 0


def _members(entries: list[Entry]) -> list[str]:
    return [
        f"    {entry.kind} {entry.name}[{entry.value.values.size}];"
        if isinstance(entry.value, Constant)
        else f"    {entry.kind} {entry.name};"
        for entry in entries
    ]


def _structure(program: Program, entries: list[Entry], plan: int) -> str:
    guard = f"{program.name.upper()}_SECTION_H"
    kinds = {step.structure for step in program.steps}
    headers = ["emb_core.h", "emb_section.h"]
    headers += [
        name
        for name, text in kernel_files(program).items()
        if name.endswith(".h") and kinds.intersection(re.findall(r"^\} (\w+);", text, re.MULTILINE))
    ]
    includes = "\n".join(f'#include "{name}"' for name in headers)
    members = "\n".join(_members(entries))
    return f"""/* Parameters and tables of the model: read-only, one object, so that it can be placed and replaced as a whole. */
#ifndef {guard}
#define {guard}

{includes}

#if EMB_KERNELS_VERSION != {KERNELS_VERSION}
#error "This model was generated for version {KERNELS_VERSION} of the kernels; generate it again."
#endif

/* What the calls were generated for: the sections that this firmware can use have the same number. */
#define {program.name.upper()}_SECTION_PLAN 0x{plan:08x}u

typedef struct {{
    emb_section_header_t header;
{members}
}} {program.name}_section_t;

extern const {program.name}_section_t {program.name}_section;

#endif
"""


def _section(program: Program, entries: list[Entry], model_sha256: bytes, place: Place | None) -> str:
    name = program.name
    values = ",\n".join(_member(entry) for entry in entries)
    return f"""#include "{name}_section.h"

/* Define {name.upper()}_SECTION as an attribute to place the model, such as __attribute__((section(".model"))). */
#ifndef {name.upper()}_SECTION
#define {name.upper()}_SECTION
#endif
{_placed_check(program, place)}
const {name}_section_t {name}_section {name.upper()}_SECTION = {{
    .header = {{
        .magic = EMB_SECTION_MAGIC,
        .version = EMB_SECTION_VERSION,
        .sha256 = {{{_bytes(place.sha256 if place else bytes(32))}}},
        .length = (uint32_t)sizeof({name}_section_t),
        .plan = {name.upper()}_SECTION_PLAN,
        .address = 0x{place.address if place else 0:08x}u,
        .model_sha256 = {{{_bytes(model_sha256)}}},
    }},
{values},
}};
"""


def _bytes(values: bytes) -> str:
    return ", ".join(f"0x{byte:02x}" for byte in values)


def _placed_check(program: Program, place: Place | None) -> str:
    """C that refuses a compiler whose layout is not the one that the digest was computed for."""
    if place is None:
        return ""
    name = program.name
    return f"""
/* The digest below is that of {place.length} bytes at 0x{place.address:08x}. */
typedef char {name}_section_layout[sizeof({name}_section_t) == {place.length} || sizeof(void *) != 4 ? 1 : -1];
"""


def _member(entry: Entry) -> str:
    if isinstance(entry.value, Constant):
        return f"    .{entry.name} = {{\n{_rows(entry.value.values)}\n    }}"
    return f"    .{entry.name} = {_initialiser(entry.value, '    ')}"


def _initialiser(value: Any, indent: str) -> str:
    if isinstance(value, Mapping):
        inner = indent + "    "
        lines = "\n".join(f"{inner}.{key} = {_initialiser(item, inner)}," for key, item in value.items())
        return f"{{\n{lines}\n{indent}}}"
    return value if isinstance(value, str) else number(value)


def number(value: Any) -> str:
    """A number as C writes it."""
    if isinstance(value, float | np.floating):
        single = np.float32(value)
        text = f"{float(single):.9g}"
        return text + ("f" if re.search(r"[.e]", text) else ".0f")
    whole = int(value)
    return "INT32_MIN" if whole == -(2**31) else "INT64_MIN" if whole == -(2**63) else str(whole)


def _rows(values: np.ndarray[Any, Any]) -> str:
    unsigned_words = values.dtype == np.uint32
    texts = [f"0x{int(value):08x}u" if unsigned_words else number(value) for value in values]
    lines: list[str] = []
    line = "       "
    for text in texts:
        if len(line) + len(text) + 2 > _WIDTH:
            lines.append(line)
            line = "       "
        line += f" {text},"
    return "\n".join([*lines, line])


def _header(program: Program) -> str:
    name, upper = program.name, program.name.upper()
    arena_words = -(-(program.arena_bytes + program.state_bytes) // 8)
    return f"""/* {name}: an int8 model as C. Bit-exact with the profile "{program.profile}".
 *
 *     static {name}_t model;
 *     {name}_init(&model);
 *     memcpy({name}_input(&model), samples, {upper}_INPUT_BYTES);
 *     {name}_invoke(&model);
 *     ... {name}_output(&model) ...
 *
 * Nothing is allocated, nothing is global but read-only tables; two contexts are independent. The input's memory is used
 * again during the inference, so write it before each one.
 */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_PROFILE "{program.profile}"
#define {upper}_ARENA_BYTES {program.arena_bytes}
{_tensor_macros(program)}
typedef struct {{
    uint64_t memory[{max(arena_words, 1)}];
}} {name}_t;

/* Brings the state to its beginning; call it once before the first inference, and to forget what was seen. */
void {name}_init({name}_t *model);

{_accessors(program, declare=True)}
/* One inference. */
void {name}_invoke({name}_t *model);

/* SHA-256 of the .tflite file, 32 bytes. */
const uint8_t *{name}_model_sha256(void);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _tensor_macros(program: Program) -> str:
    lines: list[str] = []
    for suffix, tensor, kind in ports(program):
        prefix = f"{program.name.upper()}_{kind.upper()}{suffix.upper()}"
        lines.append(f"\n/* {kind.capitalize()} '{_said(tensor.name)}': {tensor.type} {list(tensor.shape)}. */")
        lines.append(f"#define {prefix}_BYTES {tensor.size_bytes}")
        lines.append(f"#define {prefix}_LENGTH {tensor.elements}")
        if tensor.scales and not tensor.is_float:
            lines.append(f"#define {prefix}_SCALE {number(float(tensor.scales[0]))}")
            lines.append(f"#define {prefix}_ZERO_POINT ({tensor.zero_points[0]})")
    return "\n".join(lines) + "\n"


def _said(text: str) -> str:
    """A name from the model inside a comment: nothing that ends or begins one, or that a terminal would act on."""
    plain = re.sub(r"[^ -~]", "?", text[:_LONGEST_COMMENT])
    return plain.replace("*/", "* /").replace("/*", "/ *")


def ports(program: Program) -> Iterator[tuple[str, Tensor, str]]:
    """Each input and output: the suffix of its names in C, the tensor, and "input" or "output"."""
    for kind, indices in (("input", program.graph.inputs), ("output", program.graph.outputs)):
        for at, index in enumerate(indices):
            yield ("" if len(indices) == 1 else f"_{at}"), program.tensor(index), kind


def _accessors(program: Program, *, declare: bool) -> str:
    name = program.name
    parts = []
    for suffix, tensor, kind in ports(program):
        const = "const " if kind == "output" else ""
        kind_of = C_TYPES[tensor.type]
        signature = f"{const}{kind_of} *{name}_{kind}{suffix}({const}{name}_t *model)"
        if declare:
            parts.append(f"{signature};\n")
        else:
            offset = program.offsets[tensor.index]
            parts.append(
                f"{signature}\n{{\n    return (const {kind_of} *)(const void *)((const uint8_t *)model->memory + {offset});\n}}\n"
                if const
                else f"{signature}\n{{\n    return ({kind_of} *)(void *)((uint8_t *)model->memory + {offset});\n}}\n"
            )
    return "\n".join(parts)


def _source(program: Program) -> str:
    name = program.name
    return f"""#include "{name}.h"

#include "{name}_section.h"

/* Memory of a tensor, of scratch or of state. */
#define AT(type, offset) ((type *)(void *)(memory + (offset)))

/* For tests and profiling: define EMB_TRACE and this function to look at the memory after each call. */
#ifdef EMB_TRACE
void emb_trace(const void *memory, unsigned step);
#define AFTER(step) emb_trace(memory, step)
#else
#define AFTER(step) ((void)0)
#endif

{_init(program)}
{_accessors(program, declare=False)}
{_calls(program)}
const uint8_t *{name}_model_sha256(void)
{{
    return {name}_section.header.model_sha256;
}}
"""


def _init(program: Program) -> str:
    name = program.name
    lines = []
    if program.state_bytes:
        lines.append("    uint8_t *const memory = (uint8_t *)model->memory;")
        lines.append(f"    memset(memory + {program.arena_bytes}, 0, {program.state_bytes});")
    else:
        lines.append("    (void)model; /* the model keeps nothing from one inference to the next */")
    for at, (member, step) in enumerate(zip(step_names(program), program.steps, strict=True)):
        if step.reset:
            offset = program.arena_bytes + program.state_offsets[at]
            lines.append(f"    {step.reset}(&{name}_section.{member}, AT(void, {offset}));")
    body = "\n".join(lines)
    return f"void {name}_init({name}_t *model)\n{{\n{body}\n}}\n"


def _calls(program: Program) -> str:
    lines = ["    uint8_t *const memory = (uint8_t *)model->memory;"]
    for at, (member, step) in enumerate(zip(step_names(program), program.steps, strict=True)):
        what = _said(program.tensor(step.outputs[0]).name.split(";")[0])
        comment = step.comment.replace("→", "to").replace("×", "x")
        lines.append("")
        lines.append(f"    /* {step.op}: {what}, {comment} */")
        lines.append(f"    {step.kernel}({', '.join(_arguments(program, at, member))});")
        lines.append(f"    AFTER({at});")
    body = "\n".join(lines)
    return f"void {program.name}_invoke({program.name}_t *model)\n{{\n{body}\n}}\n"


def _arguments(program: Program, at: int, member: str) -> Iterator[str]:
    step = program.steps[at]
    yield f"&{program.name}_section.{member}"
    for index in (*step.inputs, *step.outputs):
        yield f"AT({C_TYPES[program.tensor(index).type]}, {program.offsets[index]})"
    if step.state_bytes:
        yield f"AT(void, {program.arena_bytes + program.state_offsets[at]})"
    if step.scratch_bytes:
        yield f"AT(void, {program.scratch_offsets[at]})"
    elif "scratch_bytes" in step.parameters:
        yield "NULL"
