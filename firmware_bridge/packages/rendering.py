"""Filling in templates, and the tree of sources that every package format points to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files

from embridge_edge.errors import EdgeError

TEMPLATES = "embridge_edge.firmware_bridge.packages.templates"


def template(name: str) -> str:
    """The text of a file in `templates`."""
    return (files(TEMPLATES) / name).read_text("utf-8")


def filled(name: str, values: Mapping[str, str]) -> str:
    """A template with every `@word@` replaced; a word without a value is a mistake in the template (KeyError)."""
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], template(name))


@dataclass(frozen=True)
class Tree:
    """The library as packages hold it: what applications include in `src/`, everything else below it.

    `src/` is on every include path, so only the public headers may lie there. Arduino compiles it with all its folders.

    Attributes:
        files: texts by path.
        model_sources: paths of the C files that belong to this model alone.
        kernel_sources: paths of those that several models may share.
        headers: paths of the headers that an application includes.
        sections: prefixes of the networks' sections, one or, of a ring of tokens, two.
        has_float: whether any code computes in floating point, so that fused multiply-adds would change its results.
    """

    files: Mapping[str, str]
    model_sources: tuple[str, ...]
    kernel_sources: tuple[str, ...]
    headers: tuple[str, ...]
    sections: tuple[str, ...]
    has_float: bool


def tree_of(library: Mapping[str, str], name: str) -> Tree:
    """Arrange the files of a C library (`include/…`, `src/…`, flat) for packages.

    Raises:
        EdgeError: a file that has no place in a package.
    """
    arranged: dict[str, str] = {}
    for path, text in library.items():
        folder, _, rest = path.partition("/")
        if folder not in ("include", "src") or "/" in rest or not rest.endswith((".c", ".h")):
            raise EdgeError(f"{path} has no place in a package; a library has include/*.h and src/*.[ch].")
        arranged[f"src/{rest}" if folder == "include" else f"src/{name}/{rest}"] = text
    sources = sorted(path for path in arranged if path.endswith(".c"))
    ours = files("embridge_edge.firmware_bridge") / "kernels"
    kernels = tuple(path for path in sources if (ours / path.rpartition("/")[2]).is_file())
    return Tree(
        files=dict(sorted(arranged.items())),
        model_sources=tuple(path for path in sources if path not in kernels),
        kernel_sources=kernels,
        headers=tuple(sorted(path for path in arranged if path.count("/") == 1)),
        sections=tuple(
            sorted(
                found[1]
                for path in sources
                if (found := re.search(r"/(\w+)_section\.c$", path)) and path not in kernels
            )
        ),
        has_float=any(_computes_in_float(text) for text in arranged.values()),
    )


def _computes_in_float(text: str) -> bool:
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.search(r"\b(float|float32_t|_Float16)\b", code) is not None


def indented(lines: Iterable[str], by: int) -> str:
    """Lines under each other, each `by` spaces in."""
    return "\n".join(" " * by + line for line in lines)
