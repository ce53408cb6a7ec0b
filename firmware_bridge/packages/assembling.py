"""The package: one folder that is a CMake project, an Arduino and a PlatformIO library, a Zephyr module, an ESP-IDF
component and the content of a CMSIS-Pack at once, around one tree of sources."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.packages.description import Description
from embridge_edge.firmware_bridge.packages.formats import FORMATS
from embridge_edge.firmware_bridge.packages.rendering import Tree, filled, template, tree_of

EXACTNESS = {
    "litert-ref": "every tensor has the bits that LiteRT's reference kernels (`BUILTIN_REF`) give.",
    "tflm": "every tensor has the bits that TensorFlow Lite Micro's reference kernels give.",
}
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold: the same bytes whenever it is made."""


def package(
    library: Mapping[str, str], description: Description, formats: Iterable[str] = tuple(FORMATS)
) -> dict[str, str]:
    """Every file of the package, by path.

    Args:
        library: what `emit.library` gives, with the files of `selftest.selftest_files`.
        description: what the manifests say.
        formats: which of `FORMATS` it is to be.

    Raises:
        EdgeError: an unknown format, or a library without its header or self-test.
    """
    tree = tree_of(library, description.name)
    for header in (description.header, f"{description.name}_selftest.h"):
        if f"src/{header}" not in tree.files:
            raise EdgeError(f"The library has no include/{header}; add it before packaging.")
    found = dict(tree.files)
    found["README.md"] = _readme(tree, description)
    found["LICENSE"] = template("LICENSE")
    found["examples/host/main.c"] = filled("main.c.in", {"name": description.name, "header": description.header})
    if description.address is not None:
        values = {"name": description.name, "upper": description.upper}
        found["examples/psa/section_psa.c"] = filled("section_psa.c.in", values)
    for name in formats:
        if name not in FORMATS:
            raise EdgeError(f"Unknown package format {name!r}; choose from {', '.join(FORMATS)}.")
        found |= FORMATS[name](tree, description)
    return dict(sorted(found.items()))


def pack_archive(files: Mapping[str, str]) -> bytes:
    """The CMSIS-Pack: a zip of the package, the same bytes whenever and wherever it is made.

    Stored, not deflated: what a deflated file looks like depends on the version of zlib.
    """
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, ZIP_EPOCH)
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[path].encode("utf-8"))
    return written.getvalue()


NETWORK_THREADS = (
    "Two contexts are independent. One model's context must not be used by two threads or interrupts at once."
)
CHAIN_THREADS = (
    "One producer calls `emb_push`, one consumer `emb_poll`: an interrupt and the main loop, or two threads. Nothing is locked. "
    "Two contexts are independent."
)
NETWORK_SELFTEST = (
    "`{name}_selftest(&model)` runs one inference on a fixed input and returns how many values differ from that reference; 0 is\n"
    "right. It costs one inference: call it at boot, or once per board and compiler."
)
CHAIN_SELFTEST = (
    "`emb_selftest(&emb)` replays stored samples through chain, network and head; 0 is right, else it says what differs first "
    "(`emb.h`).\nIt starts the context afresh: call it at boot before samples come, or once per board and compiler. Its tables take "
    "flash only where it is called."
)


def _readme(tree: Tree, description: Description) -> str:
    with_chain = not description.ports
    values = {
        "name": description.name,
        "upper": description.upper,
        "header": description.header,
        "version": description.version,
        "about": description.about,
        "target": description.target,
        "profile": description.profile,
        "exactness": EXACTNESS[description.profile],
        "model_sha256": description.model_sha256.hex(),
        "needs_ram": f"{description.context_bytes:,}"
        if description.context_bytes
        else f"`sizeof({description.name}_t)`",
        "threads": CHAIN_THREADS if with_chain else NETWORK_THREADS,
        "selftest": CHAIN_SELFTEST if with_chain else NETWORK_SELFTEST.format(name=description.name),
        "plans": " and ".join(
            f"`{section.upper()}_SECTION_PLAN` in `src/{description.name}/{section}_section.h`"
            for section in tree.sections
        ),
        "needs_float": "* `-ffp-contract=off`, which its build files set where they can; Arduino's cannot"
        if tree.has_float
        else "* no floating point",
        "usage": description.usage.strip() or _usage(description),
        "ports": _ports(description),
        "sizes": f"```\n{description.sizes}\n```" if description.sizes else "Not measured.",
        "toolchain_hint": _toolchain_hint(description),
        "pack_file": description.pack_file,
    }
    address = f"0x{description.address or 0:08x}"
    section = filled("section.md.in", values | {"address": address}) if description.address is not None else ""
    return filled("README.md.in", values | {"section_text": section})


def _toolchain_hint(description: Description) -> str:
    if description.phone:
        return "`cmake/aarch64-linux-gnu.cmake`; Android: `android/README.md`, Gradle uses the NDK's"
    if description.cpu_flags:
        return "`cmake -B build -DCMAKE_TOOLCHAIN_FILE=cmake/arm-none-eabi.cmake`"
    return "with the toolchain file of your board"


def _usage(description: Description) -> str:
    name = description.name
    reads = [f"{name}_input{port.suffix}(&model)" for port in description.ports if port.kind == "input"]
    writes = [f"{name}_output{port.suffix}(&model)" for port in description.ports if port.kind == "output"]
    return "\n".join(
        [
            f"#include <{description.header}>\n",
            f"static {name}_t model;\n",
            f"{name}_init(&model); /* once */",
            "/* for each inference: the input's memory is used again during it, so write all of it each time */",
            *(f"... {call} ..." for call in reads),
            f"{name}_invoke(&model);",
            *(f"... {call} ..." for call in writes),
        ]
    )


def _ports(description: Description) -> str:
    if not description.ports:
        return "`emb.h` says what else there is: `emb_interrupt` for a gap in the samples, `emb_lost` for what the ring had no room for."
    lines = ["| function | tensor | type | shape | real value |", "|---|---|---|---|---|"]
    for port in description.ports:
        real = "as it is" if port.scale is None else f"{port.scale:.9g} × (q − {port.zero_point})"
        shape = " × ".join(map(str, port.shape)) or "scalar"
        tensor = " ".join(port.name.split()).replace("|", "\\|").replace("`", "'")
        function = f"{description.name}_{port.kind}{port.suffix}"
        lines.append(f"| `{function}` | `{tensor}` | {port.type} | {shape} | {real} |")
    return "\n".join(lines)
