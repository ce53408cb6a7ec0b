"""What public specifications say about manifests, written down as checks of our own.

* Arduino library specification, revision 2.2 (library.properties)
* PlatformIO's documentation of library.json
* Zephyr's documentation of modules (zephyr/module.yml)
* ESP-IDF component manager's documentation of idf_component.yml
* Open-CMSIS-Pack 1.7 (the elements of a .pdsc that a pack of sources has)
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

ARDUINO_REQUIRED = (
    "name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures",
)  # fmt: skip
ARDUINO_OPTIONAL = ("includes", "depends", "dot_a_linkage", "precompiled", "ldflags", "license", "email", "provides")
ARDUINO_CATEGORIES = (
    "Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing", "Data Storage",
    "Data Processing", "Other",
)  # fmt: skip


def arduino_faults(text: str) -> list[str]:
    """What is wrong with a library.properties file."""
    faults = []
    pairs = [line.partition("=") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if any(not separator for _, separator, _ in pairs):
        faults.append("a line without =")
    found = {key: value for key, _, value in pairs}
    if len(found) != len(pairs):
        faults.append("a field twice")
    faults += [f"{key} is missing" for key in ARDUINO_REQUIRED if not found.get(key)]
    faults += [f"{key} is unknown" for key in found if key not in ARDUINO_REQUIRED + ARDUINO_OPTIONAL]
    name = found.get("name", "")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", name) or len(name) > 63 or name.lower().startswith("arduino"):
        faults.append(f"name {name!r}")
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", found.get("version", "")):
        faults.append("version is not semantic")
    if found.get("category") not in ARDUINO_CATEGORIES:
        faults.append(f"category {found.get('category')!r}")
    if found.get("dot_a_linkage", "false") not in ("true", "false"):
        faults.append("dot_a_linkage is neither true nor false")
    if not re.match(r"https?://\S+$", found.get("url", "")):
        faults.append("url is no address")
    return faults


_SEMANTIC = r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$"
_TEXTS: dict[str, Any] = {"type": "array", "items": {"type": "string", "minLength": 1}}
_ONE_OR_MORE: dict[str, Any] = {"anyOf": [{"type": "string", "minLength": 1}, _TEXTS]}

PLATFORMIO: dict[str, Any] = {
    "type": "object",
    "required": ["name", "version"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "maxLength": 50, "pattern": r"^[A-Za-z0-9]([A-Za-z0-9 _.+-]*[A-Za-z0-9])?$"},
        "version": {"type": "string", "maxLength": 20, "pattern": _SEMANTIC},
        "description": {"type": "string", "maxLength": 255},
        "keywords": _ONE_OR_MORE,
        "homepage": {"type": "string", "maxLength": 255, "pattern": "^https?://"},
        "authors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 100},
                    "email": {"type": "string", "maxLength": 50, "pattern": "^[^@ ]+@[^@ ]+$"},
                    "url": {"type": "string"},
                    "maintainer": {"type": "boolean"},
                },
            },
        },
        "license": {"type": "string"},
        "frameworks": _ONE_OR_MORE,
        "platforms": _ONE_OR_MORE,
        "headers": _ONE_OR_MORE,
        "examples": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "files"],
                "additionalProperties": False,
                "properties": {"name": {"type": "string"}, "base": {"type": "string"}, "files": _TEXTS},
            },
        },
        "build": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "flags": _ONE_OR_MORE,
                "unflags": _ONE_OR_MORE,
                "includeDir": {"type": "string"},
                "srcDir": {"type": "string"},
                "srcFilter": _ONE_OR_MORE,
                "extraScript": {"type": "string"},
                "libArchive": {"type": "boolean"},
                "libLDFMode": {"type": "string"},
                "libCompatMode": {"type": "string"},
            },
        },
    },
}

ZEPHYR: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "build": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "cmake": {"type": "string"},
                "kconfig": {"type": "string"},
                "cmake-ext": {"type": "boolean"},
                "kconfig-ext": {"type": "boolean"},
                "depends": _TEXTS,
                "settings": {"type": "object"},
                "sysbuild-cmake": {"type": "string"},
                "sysbuild-kconfig": {"type": "string"},
            },
        },
        "tests": _TEXTS,
        "samples": _TEXTS,
        "boards": _TEXTS,
        "blobs": {"type": "array"},
        "security": {"type": "object"},
        "runners": {"type": "array"},
    },
}

IDF_COMPONENT: dict[str, Any] = {
    "type": "object",
    "required": ["version", "license"],
    "additionalProperties": False,
    "properties": {
        "version": {"type": "string", "pattern": _SEMANTIC},
        "description": {"type": "string", "minLength": 1},
        "url": {"type": "string", "pattern": "^https?://"},
        "license": {"enum": ["Apache-2.0"]},  # an SPDX identifier
        "targets": _TEXTS,
        "maintainers": _TEXTS,
        "tags": _TEXTS,
        "files": {"type": "object"},
        "examples": {"type": "array"},
        "dependencies": {"type": "object"},
    },
}

PDSC_CATEGORIES = (
    "doc",
    "header",
    "include",
    "library",
    "object",
    "source",
    "sourceC",
    "sourceCpp",
    "sourceAsm",
    "other",
)


def pdsc_faults(text: str, file_name: str) -> list[str]:
    """What is wrong with a pack's description."""
    package = ElementTree.fromstring(text)  # noqa: S314  our own text
    wanted = ("vendor", "name", "description", "url", "license", "releases")
    faults = [f"{tag} is missing" for tag in wanted if package.find(tag) is None]
    if package.tag != "package" or not package.get("schemaVersion", "").startswith("1.7"):
        faults.append("no package of schema 1.7")
    if f"{package.findtext('vendor')}.{package.findtext('name')}.pdsc" != file_name:
        faults.append("its name is not VENDOR.NAME.pdsc")
    versions = [release.get("version", "") for release in package.findall("releases/release")]
    if not versions or not all(re.fullmatch(_SEMANTIC, version) for version in versions):
        faults.append("a release without a version")
    for component in package.findall("components/component"):
        faults += [f"a component has no {key}" for key in ("Cclass", "Cgroup", "Cversion") if not component.get(key)]
        if component.find("description") is None or not component.findall("files/file"):
            faults.append("a component without description or files")
    faults += [
        f"category {entry.get('category')}"
        for entry in package.iter("file")
        if entry.get("category") not in PDSC_CATEGORIES
    ]
    return faults
