"""A bundle's manifest: what every file is and comes from, and whether a folder holds just these files, byte for byte.

Needs the standard library only, so that whoever receives a bundle can check it in a moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embridge_edge.artifacts import finite, sha256_of, sha256_of_file, written_by_rename
from embridge_edge.errors import EdgeError

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
WORKSPACE = "work"
"""Where `deploy` keeps its steps: inside the bundle's folder, and no part of the bundle."""
FORMAT = "embridge-edge bundle 1"
SEAL = "manifest_sha256"
LARGEST_MANIFEST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Part:
    """A file that a manifest is to list.

    Attributes:
        path: inside the bundle, with forward slashes. kind: what it is.
        parents: SHA-256 of what it was made from.
        reproducible: whether a second run with the same inputs, seed and versions gives the same bytes; False for what holds times
            by the clock or measurements of this machine.
    """

    path: str
    kind: str
    parents: tuple[str, ...]
    reproducible: bool = True


@dataclass(frozen=True)
class Listed:
    """A file as a manifest lists it."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes:
        files: in its order. artifacts_sha256: one hash for all reproducible files.
        content: the bytes of `manifest.json`, which are what is signed.
    """

    files: tuple[Listed, ...]
    artifacts_sha256: str
    content: bytes


@dataclass(frozen=True)
class Problem:
    """Something that makes a bundle another one than its manifest describes: which file, and what is wrong with it."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{shown(self.path)} {self.what}"


@dataclass(frozen=True)
class Findings:
    """What came out of holding a folder against its manifest.

    Attributes:
        manifest: None where it is missing or cannot be believed.
        problems: in the order in which they matter; none in a whole bundle.
        signature: content of the signature's file; None without one.
        workspace: whether the folder also holds deploy's workspace, which was not looked at.
    """

    manifest: Manifest | None
    problems: tuple[Problem, ...]
    signature: bytes | None = None
    workspace: bool = False


def write_manifest(folder: Path, about: Mapping[str, Any], parts: Sequence[Part]) -> None:
    """Write `manifest.json` over the files of a bundle, by rename.

    Args:
        about: what is said of the whole, such as recipe, seed and versions. parts: every file of the folder.
    """
    files = [
        {
            "path": part.path,
            "sha256": sha256_of_file(folder / part.path),
            "bytes": (folder / part.path).stat().st_size,
            "kind": part.kind,
            "parents": list(part.parents),
            "reproducible": part.reproducible,
        }
        for part in parts
    ]
    lasting = sorted([row["path"], row["sha256"]] for row in files if row["reproducible"])
    manifest = {"format": FORMAT, **finite(about), "artifacts_sha256": sha256_of(lasting), "files": files}
    with written_by_rename(folder / MANIFEST) as temporary:
        temporary.write_bytes(_sealed(manifest))


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """The manifest's bytes, its own hash last: a change is noticed even where nothing is signed."""
    return _rendered({**manifest, SEAL: hashlib.sha256(_rendered(manifest)).hexdigest()})


def _rendered(value: object) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode("ascii")


def check_bundle(folder: Path) -> Findings:
    """Hold a folder against its manifest: every file there, none beside them, each with its size and its SHA-256.

    Links are refused and never followed, and a path that leads out of the folder is never opened.

    Raises:
        EdgeError: there is no such folder.
    """
    if not folder.is_dir():
        raise EdgeError(f"{folder} is no folder; name a bundle that deploy wrote.")
    found, odd = _walk(folder)
    workspace = (folder / WORKSPACE).is_dir() and not any(problem.path == WORKSPACE for problem in odd)
    if MANIFEST not in found:
        own = [problem for problem in odd if problem.path == MANIFEST]
        missing = Problem(MANIFEST, "is missing: this is no bundle, or deploy did not finish it")
        return Findings(None, tuple(own) or (missing,), workspace=workspace)
    manifest = _read_manifest(_content(folder / MANIFEST, LARGEST_MANIFEST_BYTES))
    if isinstance(manifest, Problem):
        return Findings(None, (manifest,), workspace=workspace)
    signature = _content(folder / SIGNATURE, LARGEST_MANIFEST_BYTES) if SIGNATURE in found else None
    listed = {row.path for row in manifest.files}
    strange = {problem.path for problem in odd}
    changed = [_difference(folder, row) for row in manifest.files if row.path in found]
    problems = [
        *odd,
        *(problem for problem in changed if problem is not None),
        *(Problem(path, "is missing") for path in sorted(listed - found - strange)),
        *(Problem(path, "is not in the manifest") for path in sorted(found - listed - {MANIFEST, SIGNATURE})),
    ]
    return Findings(manifest, tuple(problems), signature, workspace)


def _walk(folder: Path) -> tuple[set[str], list[Problem]]:
    """Relative paths of all plain files but the workspace's, and what is neither file nor folder."""
    found: set[str] = set()
    odd: list[Problem] = []
    left = [""]
    while left:
        below = left.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                path = f"{below}{entry.name}"
                if entry.is_symlink():
                    odd.append(Problem(path, "is a symbolic link; a bundle holds plain files only"))
                elif entry.is_dir(follow_symlinks=False) and path not in (MANIFEST, SIGNATURE):
                    if path != WORKSPACE:
                        left.append(f"{path}/")
                elif entry.is_file(follow_symlinks=False):
                    found.add(path)
                else:
                    odd.append(Problem(path, "is no plain file"))
    return found, sorted(odd, key=lambda problem: problem.path)


def _open(path: Path) -> int:
    """A descriptor of a plain file; a link that was put there since the folder was read is not followed, a pipe not waited for."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _content(path: Path, most: int) -> bytes:
    with os.fdopen(_open(path), "rb") as stream:
        return stream.read(most + 1)


def _difference(folder: Path, row: Listed) -> Problem | None:
    with os.fdopen(_open(folder / row.path), "rb") as stream:
        about = os.fstat(stream.fileno())
        if not stat.S_ISREG(about.st_mode):
            return Problem(row.path, "is no plain file")
        if about.st_size != row.size_bytes:
            return Problem(
                row.path, f"was changed: it has {about.st_size:,} bytes, the manifest says {row.size_bytes:,}"
            )
        if hashlib.file_digest(stream, "sha256").hexdigest() != row.sha256:
            return Problem(row.path, "was changed: its SHA-256 is not the one in the manifest")
    return None


def _read_manifest(content: bytes) -> Manifest | Problem:
    """The manifest, or why it cannot be believed. No byte of it can change unnoticed: its own hash covers its value, and there is
    one way to write that value."""

    def damaged(what: str) -> Problem:
        return Problem(MANIFEST, what)

    if len(content) > LARGEST_MANIFEST_BYTES:
        return damaged(f"has more than {LARGEST_MANIFEST_BYTES // 2**20} MiB, which no manifest needs")
    try:
        value = json.loads(content.decode("ascii"))
    except (ValueError, RecursionError):  # no ASCII, no JSON, a number or a nesting without end
        return damaged("was changed: it is no JSON that deploy wrote")
    if not isinstance(value, dict):
        return damaged("was changed: it holds no JSON object")
    if value.get("format") != FORMAT and SEAL not in value:
        return damaged(f"is of another version (this one reads {FORMAT!r}); make the bundle again with deploy")
    try:
        if _sealed({key: item for key, item in value.items() if key != SEAL}) != content:
            return damaged("was changed: it does not have the SHA-256 that it states of itself")
    except (ValueError, RecursionError):
        return damaged("was changed: it is no JSON that deploy wrote")
    if value.get("format") != FORMAT:
        return damaged(f"has format {value.get('format')!r}; this version reads {FORMAT!r}")
    rows, together = value.get("files"), value.get("artifacts_sha256")
    if not isinstance(rows, list) or not _is_hash(together):
        return damaged("does not list the bundle's files and their hashes")
    files: dict[str, Listed] = {}
    for row in rows:
        path = row.get("path") if isinstance(row, dict) else None
        if not isinstance(path, str) or not _inside(path):
            return damaged(f"names {path!r}, which is no plain path inside the bundle")
        if path in files or path in (MANIFEST, SIGNATURE) or path.split("/")[0] == WORKSPACE:
            return damaged(f"names {path!r}, which it may not, or names it twice")
        digest, size = row.get("sha256"), row.get("bytes")
        if not _is_hash(digest) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
            return damaged(f"gives no SHA-256 or no size of {path!r}")
        files[path] = Listed(path, digest, size)
    return Manifest(tuple(files.values()), str(together), content)


def _inside(path: str) -> bool:
    """Whether a path is relative, plain and the same on every system: no `..`, no drive, no backslash, nothing unprintable."""
    parts = path.split("/")
    return path.isprintable() and not set(path) & set("\\:") and all(part not in ("", ".", "..") for part in parts)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def shown(path: str) -> str:
    """A name as it may be printed: one that would steer a terminal is quoted and escaped."""
    return path if path.isprintable() else ascii(path)
