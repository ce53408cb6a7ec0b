"""Files and where they lie: one file, a folder or an archive, seen as sorted names that can be opened."""

from __future__ import annotations

import contextlib
import errno
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from embridge_edge.errors import EdgeError, one_line

IN_MEMORY_BYTES = 32 << 20
"""An archive that unpacks to more than this is unpacked to a temporary file instead of memory."""

ARCHIVE_MAGIC = {b"\xfd7zXZ\x00": "xz", b"\x1f\x8b": "gz", b"BZh": "bz2", b"PK\x03\x04": "zip"}

_DAMAGED = (lzma.LZMAError, zlib.error, EOFError, tarfile.TarError, zipfile.BadZipFile)

_NOT_FOR_US = (RuntimeError, NotImplementedError)
"""What zipfile raises for an archive that is whole: it is encrypted, or packed in a way that Python does not know."""


class Store(Protocol):
    """Somewhere files lie."""

    @property
    def prefix(self) -> str:
        """What a file's name is preceded by in messages."""

    def names(self) -> list[str]:
        """Names of the files with `/` between the folders, sorted, hidden ones passed over."""

    def context(self, name: str) -> str:
        """The longest known path of a file, for patterns over paths."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name, listed or not."""

    def size(self, name: str) -> int:
        """Bytes in the file."""

    def open(self, name: str) -> BinaryIO:
        """The file's bytes."""

    def on_disk(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A path under which the file can be opened while the block runs."""


@dataclass(frozen=True)
class FolderStore:
    """A folder, or one file in it (then `only` names it, and its neighbours can still be opened as companions)."""

    folder: Path
    only: str | None = None
    prefix: str = ""

    def names(self) -> list[str]:
        return [self.only] if self.only is not None else self.all_names()

    def all_names(self) -> list[str]:
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted((name.as_posix() for name in found if not is_hidden(name.as_posix())), key=natural)

    def context(self, name: str) -> str:
        return (self.folder.resolve() / name).as_posix()

    def exists(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def open(self, name: str) -> BinaryIO:
        return (self.folder / name).open("rb", buffering=0)

    @contextlib.contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        yield self.folder / name


class ArchiveStore:
    """A tar or zip archive, unpacked once into memory or a temporary file: its files can be read in any order."""

    def __init__(self, path: Path, prefix: str) -> None:
        self.prefix = prefix
        name = prefix.removesuffix(":")
        self.spool = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 (closed by close)
        self.zip: zipfile.ZipFile | None = None
        try:
            if archive_kind(path) == "zip":
                self.zip = zipfile.ZipFile(path)
                bad = self.zip.testzip()
                if bad is not None:
                    raise zipfile.BadZipFile(bad)
                self.members = {item.filename: item.file_size for item in self.zip.infolist() if not item.is_dir()}
            else:
                with _decompressed(path) as stream:
                    shutil.copyfileobj(stream, self.spool, 1 << 20)
                self.tar = self._tar(path, name)
                self.infos = {item.name: item for item in self.tar if item.isfile()}
                self.members = {name: item.size for name, item in self.infos.items()}
                self._check_end()
        except BaseException as error:
            self.close()
            # bz2 and gzip say "damaged" by an OSError without a number, a zip whose places are wrong by an impossible seek;
            # any other number, as of a full disk, is the system's.
            damaged = isinstance(error, OSError) and error.errno in (None, errno.EINVAL)
            if damaged or isinstance(error, _DAMAGED):
                raise EdgeError(f"{name} is truncated or damaged ({one_line(error)}); fetch it again.") from None
            if isinstance(error, _NOT_FOR_US):
                raise EdgeError(f"{name} cannot be unpacked ({one_line(error)}); unpack it yourself.") from None
            raise

    def _tar(self, path: Path, name: str) -> tarfile.TarFile:
        """The tar in the spool."""
        self.spool.seek(0)
        try:
            return tarfile.open(fileobj=self.spool, mode="r:")
        except tarfile.ReadError:
            if ".tar" in path.suffixes or archive_kind(path) in (None, "tar"):
                raise
            raise EdgeError(
                f"{name} is packed but holds no tar; unpack it, or pack recordings as .tar{path.suffix}."
            ) from None

    def _check_end(self) -> None:
        """A tar that was cut between two members reads like a shorter one: it must end in a block of zeros."""
        size = self.spool.seek(0, 2)
        self.spool.seek(max(0, size - 512))
        if size < 1024 or any(self.spool.read(512)):
            raise tarfile.ReadError("its end is missing")

    def names(self) -> list[str]:
        return sorted((name for name in self.members if not is_hidden(name)), key=natural)

    def all_names(self) -> list[str]:
        return self.names()

    def context(self, name: str) -> str:
        return f"/{name}"

    def exists(self, name: str) -> bool:
        return name in self.members

    def size(self, name: str) -> int:
        return self.members[name]

    def open(self, name: str) -> BinaryIO:
        if self.zip is not None:
            return self.zip.open(name)  # type: ignore[return-value]
        stream = self.tar.extractfile(self.infos[name])
        assert stream is not None  # noqa: S101 (only plain files are listed)
        return stream  # type: ignore[return-value]

    @contextlib.contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PurePosixPath(name).name
            with self.open(name) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            yield path

    def close(self) -> None:
        if self.zip is not None:
            self.zip.close()
        self.spool.close()


def archive_kind(path: Path) -> str | None:
    """How an archive is packed, by its first bytes: "xz", "gz", "bz2", "zip", "tar"; None for anything else."""
    with path.open("rb") as stream:
        head = stream.read(265)
    for magic, kind in ARCHIVE_MAGIC.items():
        if head.startswith(magic):
            return kind
    return "tar" if head[257:262] == b"ustar" else None


@contextlib.contextmanager
def _decompressed(path: Path) -> Iterator[BinaryIO]:
    kind = archive_kind(path)
    if kind == "xz":
        with lzma.open(path) as stream:
            yield stream  # type: ignore[misc]
    elif kind == "gz":
        import gzip

        with gzip.open(path) as stream:
            yield stream  # type: ignore[misc]
    elif kind == "bz2":
        import bz2

        with bz2.open(path) as stream:
            yield stream  # type: ignore[misc]
    else:
        with path.open("rb") as plain:
            yield plain


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder that it lies in, is hidden."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts "D2" before "D10"."""
    parts: list[tuple[int, int | str]] = []
    digits = ""
    letters = ""
    for character in name + "\0":
        if character.isascii() and character.isdigit():
            if letters:
                parts.append((1, letters))
                letters = ""
            digits += character
        else:
            if digits:
                parts.append((0, int(digits)))
                digits = ""
            letters += character
    parts.append((1, letters))
    return tuple(parts)
