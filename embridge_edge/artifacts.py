"""Files that appear whole or not at all, and what identifies them."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embridge_edge.errors import EdgeError


@contextlib.contextmanager
def written_by_rename(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of the file `path`; it takes that name when the block ends well, else it vanishes.

    Raises:
        EdgeError: the folder cannot be written to, or the disk is full.
    """
    temporary, made = Path(), _missing_parents(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except Exception as error:
        raise _unwritable(error, path, temporary) or error from None
    finally:
        if temporary.name and temporary.exists():
            temporary.unlink()
        _remove_empty(made)


@contextlib.contextmanager
def folder_written_by_rename(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder that replaces the folder `path` when the block ends well, else it vanishes.

    Raises:
        EdgeError: the parent folder cannot be written to, or the disk is full.
    """
    temporary, made = Path(), _missing_parents(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.is_dir():  # two renames, so that the old one is there until the new one is
            path.replace(temporary.with_name(temporary.name + ".old"))
        temporary.replace(path)
    except Exception as error:
        raise _unwritable(error, path, temporary) or error from None
    finally:
        if temporary.name:
            old = temporary.with_name(temporary.name + ".old")
            if old.is_dir() and not path.exists():
                old.replace(path)
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(made)


def remove_leftovers(path: Path) -> None:
    """Remove what killed runs left of `written_by_rename(path)` and `folder_written_by_rename(path)`: temporary siblings that never got
    the name, and folders that had made room for another.
    """
    ours = rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}"
    for sibling in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if sibling.is_dir():
            if re.fullmatch(rf"{ours}(\.old)?", sibling.name):
                shutil.rmtree(sibling, ignore_errors=True)
        elif re.fullmatch(rf"{ours}{re.escape(path.suffix)}", sibling.name):
            sibling.unlink(missing_ok=True)


def _missing_parents(path: Path) -> list[Path]:
    return [parent for parent in path.parents if not parent.exists()]


def _remove_empty(made: list[Path]) -> None:
    """Remove the folders that were made for a file that did not come to be, deepest first."""
    for folder in made:
        with contextlib.suppress(OSError):  # in use, or never made
            folder.rmdir()


# What safetensors (a class of its own) and numpy (an OSError without a number) say where the disk is full.
_FULL = re.compile(r"No space left on device|Disk quota exceeded|File too large|\d+ requested and \d+ written")
_FULL_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _unwritable(error: Exception, path: Path, temporary: Path) -> EdgeError | None:
    """The one line for an error that comes from writing `path`; None for any other error, which keeps its own words."""
    if isinstance(error, EdgeError):
        return None
    number = getattr(error, "errno", None)
    if number in _FULL_NUMBERS or _FULL.search(str(error)):
        reason = os.strerror(number) if number else "No space left on device"
        return EdgeError(f"Cannot write {path}: {reason}; free space or choose another --out.")
    if isinstance(error, OSError) and error.filename is not None:
        place = Path(os.fsdecode(error.filename))
        ours = place in (path, *path.parents) or (temporary.name and temporary in (place, *place.parents))
        made_here = place.parent == path.parent and place.name.startswith(f".{path.name}.")
        if ours or made_here:
            return EdgeError(f"Cannot write {path}: {error.strerror or error}; choose another --out.")
    return None


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def user_cache() -> Path:
    """Where the toolkit keeps what it can make again, in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (Path.home may raise)
    return Path(home) / "embridge-edge"


def canonical_json(value: object) -> str:
    """JSON that is the same text for the same value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity replaced by None, which is what JSON can say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, by rename."""
    with written_by_rename(path) as temporary:
        temporary.write_text(json.dumps(finite(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        EdgeError: the file is missing, is no JSON, or holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EdgeError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EdgeError(f"{path} is not valid JSON ({error}); make it again.") from None
    if not isinstance(value, dict):
        raise EdgeError(f"{path} holds no JSON object; make it again.")
    return value


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(value: object) -> str:
    """SHA-256 of a JSON-serialisable value, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
