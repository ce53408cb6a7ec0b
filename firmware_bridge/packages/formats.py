"""One function per package format: from the tree of sources and the description to the files that the format adds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from xml.etree import ElementTree

from embridge_edge.firmware_bridge.packages.description import Description
from embridge_edge.firmware_bridge.packages.rendering import Tree, filled, indented
from embridge_edge.firmware_bridge.section import linker_script, section_name

NO_CONTRACTION = "-ffp-contract=off"
"""GCC's default on Arm joins a product and a sum into one rounding, which neither reference does."""

Format = Callable[[Tree, Description], dict[str, str]]


def cmake(tree: Tree, description: Description) -> dict[str, str]:
    """A CMake project that is also an ESP-IDF component: target, install rules, options, toolchain file, linker script."""
    values = _values(tree, description)
    placed = description.address is not None
    found = {
        "CMakeLists.txt": filled(
            "CMakeLists.txt.in",
            values
            | {
                "placed_option": filled("placed_option.cmake.in", values) if placed else "",
                "placed_target": filled("placed_target.cmake.in", values) if placed else "",
            },
        ),
        f"cmake/{description.name}_kernels.cmake": filled("kernels.cmake.in", values),
    }
    if description.cpu_flags:
        found["cmake/arm-none-eabi.cmake"] = filled("toolchain.cmake.in", values)
    if description.address is not None:
        script = linker_script(description.name, description.address)
        found[f"cmake/{description.name}_section.ld"] = script
    return found


def arduino(tree: Tree, description: Description) -> dict[str, str]:
    """library.properties and a sketch; `src/` is compiled as it is."""
    values = _values(tree, description)
    return {
        "library.properties": filled("library.properties.in", values),
        "examples/selftest/selftest.ino": filled("selftest.ino.in", values),
    }


def platformio(tree: Tree, description: Description) -> dict[str, str]:
    """library.json."""
    name, _, address = description.author.partition(" <")
    author = {"name": name} | ({"email": address.rstrip(">")} if address else {})
    manifest = {
        "name": description.name,
        "version": description.version,
        "description": description.about,
        "keywords": ["machine-learning", "int8", "embedded"],
        "homepage": description.url,
        "authors": [author],
        "license": "Apache-2.0",
        "frameworks": "*",
        "platforms": "*",
        "headers": [path.removeprefix("src/") for path in tree.headers],
        "examples": [
            {"name": "selftest", "base": "examples/selftest", "files": ["selftest.ino"]},
            {"name": "host", "base": "examples/host", "files": ["main.c"]},
        ],
        # An archive, so that two models with the same kernels link.
        "build": {"srcDir": "src", "libArchive": True, "flags": [NO_CONTRACTION] if tree.has_float else []},
    }
    return {"library.json": json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"}


def zephyr(tree: Tree, description: Description) -> dict[str, str]:
    """A Zephyr module."""
    values = _values(tree, description)
    options = f"    zephyr_library_compile_options({NO_CONTRACTION})\n" if tree.has_float else ""
    values = values | {"model_sources": indented(tree.model_sources, 8), "zephyr_options": options}
    return {
        "zephyr/module.yml": filled("module.yml.in", values),
        "zephyr/CMakeLists.txt": filled("zephyr.CMakeLists.txt.in", values),
        "zephyr/Kconfig": filled("Kconfig.in", values),
    }


def esp_idf(tree: Tree, description: Description) -> dict[str, str]:
    """The manifest of an ESP-IDF component; its CMakeLists.txt is the one of `cmake`."""
    return {"idf_component.yml": filled("idf_component.yml.in", _values(tree, description))}


def cmsis_pack(tree: Tree, description: Description) -> dict[str, str]:
    """The description of a CMSIS-Pack (Open-CMSIS-Pack, schema 1.7): one component with every source."""
    package = ElementTree.Element("package", {"schemaVersion": "1.7.36"})
    package.set("xmlns:xs", "http://www.w3.org/2001/XMLSchema-instance")
    package.set("xs:noNamespaceSchemaLocation", "PACK.xsd")
    for tag, text in (
        ("vendor", description.vendor),
        ("name", description.name),
        ("description", description.about),
        ("url", ""),
        ("license", "LICENSE"),
    ):
        ElementTree.SubElement(package, tag).text = text
    releases = ElementTree.SubElement(package, "releases")
    ElementTree.SubElement(releases, "release", {"version": description.version}).text = description.about
    components = ElementTree.SubElement(package, "components")
    component = ElementTree.SubElement(
        components,
        "component",
        {"Cclass": "Machine Learning", "Cgroup": "Model", "Csub": description.name, "Cversion": description.version},
    )
    ElementTree.SubElement(component, "description").text = description.about
    listed = ElementTree.SubElement(component, "files")
    ElementTree.SubElement(listed, "file", {"category": "doc", "name": "README.md"})
    ElementTree.SubElement(listed, "file", {"category": "include", "name": "src/"})
    for path in tree.files:
        category = "sourceC" if path.endswith(".c") else "header"
        ElementTree.SubElement(listed, "file", {"category": category, "name": path})
    ElementTree.indent(package)
    text = ElementTree.tostring(package, encoding="unicode")
    return {f"{description.vendor}.{description.name}.pdsc": f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'}


FORMATS: Mapping[str, Format] = {
    "cmake": cmake,
    "arduino": arduino,
    "platformio": platformio,
    "zephyr": zephyr,
    "esp-idf": esp_idf,
    "cmsis-pack": cmsis_pack,
}


def _values(tree: Tree, description: Description) -> dict[str, str]:
    """What most templates ask for."""
    kernels = {path.rpartition("/")[2]: tree.files[path] for path in tree.kernel_sources}
    digests = [f"{name}={hashlib.sha256(text.encode()).hexdigest()[:16]}" for name, text in kernels.items()]
    return {
        "name": description.name,
        "upper": description.upper,
        "header": description.header,
        "version": description.version,
        "target": description.target,
        "about": description.about,
        "author": description.author,
        "url": description.url,
        "version_quoted": json.dumps(description.version),
        "about_quoted": json.dumps(description.about, ensure_ascii=False),
        "url_quoted": json.dumps(description.url),
        "paragraph": f"An int8 model as C, generated for {description.target}, bit-exact with {description.profile}.",
        "cpu_flags": description.cpu_flags,
        "compile_options": NO_CONTRACTION if tree.has_float else "",
        "model_sources": indented(tree.model_sources, 4),
        "kernel_sources": indented(tree.kernel_sources, 4),
        "kernel_digests": indented(digests, 4),
        "address": f"0x{description.address or 0:08x}",
        "section": section_name(description.name),
    }
