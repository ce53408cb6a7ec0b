"""Recordings from wherever they lie: a file, a folder or an archive, in any format that is known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recordings.description import (
    FILE_NAME,
    Companion,
    Description,
    parse_description,
    read_description,
    shipped_descriptions,
)
from embridge_edge.recordings.recognition import (
    HDF5_MAGIC,
    MAT5_MAGIC,
    MAT73_MAGIC,
    Glimpse,
    glimpse,
    is_companion,
    is_passed_over,
    recognise,
)
from embridge_edge.recordings.recording import Problem, Recording
from embridge_edge.recordings.store import ArchiveStore, FolderStore, archive_kind, is_hidden, natural

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from embridge_edge.recordings.emg2pose import Metadata

Parsed = TypeVar("Parsed")

NINAPRO_FORMATS = ("ninapro-db1", "ninapro-db2", "ninapro-db5", "ninapro-db7")
OTHER_FORMATS = ("emg2pose", *NINAPRO_FORMATS)

ARCHIVE_SUFFIXES = (".tar", ".xz", ".txz", ".gz", ".tgz", ".bz2", ".tbz2", ".zip")


@dataclass(frozen=True)
class Found:
    """A file that may hold recordings: its path, whether it is an archive of files, and its size."""

    path: Path
    is_archive: bool
    size_bytes: int


@dataclass
class ReadingLog:
    """What became of a set while it was read: which formats were met, and files that could not be used at all."""

    formats: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)


def format_names() -> tuple[str, ...]:
    """Every name that `--format` takes."""
    return (*shipped_descriptions(), *OTHER_FORMATS)


def find_recordings(path: Path, format: str | None = None) -> list[Found]:
    """The files below `path` that may hold recordings, sorted; nothing but their first bytes is read.

    Raises:
        EdgeError: `path` does not exist, or holds nothing that could be a recording; or `format` is unknown.
    """
    _chosen(format)
    if not path.exists():
        raise EdgeError(
            f"{path} does not exist; give a recording, an archive (.tar.xz, .tar.gz, .zip) or a folder of them."
        )
    if path.is_file():
        return [_found(path)]
    inside = sorted((item.relative_to(path).as_posix() for item in path.rglob("*") if item.is_file()), key=natural)
    names = [name for name in inside if not is_hidden(name) and not is_passed_over(name)]
    if not names:
        held = f"only {', '.join(inside[:3])}{' …' if len(inside) > 3 else ''}" if inside else "nothing"
        raise EdgeError(f"No recording in {path}: it holds {held}; give a folder with recordings.")
    return [_found(path / name) for name in names]


def _found(path: Path) -> Found:
    archive = path.name.lower().endswith(ARCHIVE_SUFFIXES) or archive_kind(path) is not None
    return Found(path, archive, path.stat().st_size)


def read_recordings(
    path: Path,
    format: str | None = None,
    progress: Progress = SILENT,
    log: ReadingLog | None = None,
    *,
    several_devices: bool = False,
) -> Iterator[Recording]:
    """Read the recordings at `path` one after another, in the order of their names.

    Args:
        path: a file, an archive or a folder, which is searched with all its folders.
        format: the name of a format (see `format_names`) or of a description file; None recognises by content.
        several_devices: let recordings through whose channels and rate both differ from the first one's.
        log: where files that cannot be used at all, and the formats met, are noted. Without it such a file is an error.

    Raises:
        EdgeError: nothing recognised, a damaged archive, or two recordings that differ in their channels.
    """
    chosen = _chosen(format)
    files = find_recordings(path, format)
    first: tuple[int, float, str] | None = None
    reader = _SetReader(chosen, log)
    with progress.bar("reading", sum(item.size_bytes for item in files), "B") as advance:
        for recording in reader.read(path, files, advance):
            if first is None:
                first = recording.channels, recording.rate_hz, recording.source
            other_device = several_devices and recording.rate_hz != first[1]
            if recording.channels != first[0] and not other_device:
                raise EdgeError(
                    f"{recording.source} has {recording.channels} channels, {first[2]} has {first[0]}: "
                    "one set must have one number of channels; give them apart."
                )
            yield recording
    if first is None:
        raise EdgeError(_nothing(path, files, reader, format))


def _nothing(path: Path, files: list[Found], reader: _SetReader, format: str | None) -> str:
    if reader.log.problems:
        problem = reader.log.problems[0]
        more = len(reader.log.problems) - 1
        return f"No recording in {path}: {problem}" + (f" (and {more} more)." if more else "")
    if format is not None:
        return f"No recording in {path} is in the format {format}; leave --format out to have it recognised."
    seen = ", ".join(item.path.name for item in files[:3]) + (" …" if len(files) > 3 else "")
    return (
        f"Nothing in {path} was recognised ({len(files)} file{'s' * (len(files) != 1)}: {seen}); known are "
        f"{', '.join(format_names())}: describe other text in a {FILE_NAME} beside it (docs/formats.md)."
    )


_Chosen = Description | str | None


def _chosen(format: str | None) -> _Chosen:
    """The description or the name that `--format` means."""
    if format is None:
        return None
    if format in OTHER_FORMATS:
        return format
    shipped = shipped_descriptions()
    if format in shipped:
        return shipped[format]
    if format.endswith(".toml") or Path(format).is_file():
        if not Path(format).is_file():
            raise EdgeError(
                f"The description {format} does not exist; give one of {', '.join(format_names())} or a .toml file."
            )
        return read_description(Path(format))
    raise EdgeError(
        f"Unknown format {format!r}; choose one of {', '.join(format_names())} or give a description file (.toml)."
    )


class _Unpacker:
    """Unpacks archives in a thread of its own, one ahead of the reader: xz takes longer than everything else."""

    def __init__(self, paths: list[Path], root: Path) -> None:
        self.root = root
        self.waiting = iter(paths)
        self.pool: ThreadPoolExecutor | None = None
        self.ahead: Future[ArchiveStore] | None = None

    def __enter__(self) -> _Unpacker:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True)
        if self.ahead is not None and self.ahead.exception() is None:
            self.ahead.result().close()

    def _start(self) -> None:
        path = next(self.waiting, None)
        self.ahead = None
        if path is not None:
            if self.pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self.pool = ThreadPoolExecutor(1)
            self.ahead = self.pool.submit(ArchiveStore, path, f"{path.relative_to(self.root)}:")

    def next(self) -> ArchiveStore:
        """The next archive, in the order of the paths; the caller closes it."""
        assert self.ahead is not None  # noqa: S101 (called once per path)
        try:
            return self.ahead.result()
        finally:
            self._start()


class _SetReader:
    """Reads the files of one set; it counts repetitions over all of them and notes what could not be used."""

    def __init__(self, chosen: _Chosen, log: ReadingLog | None) -> None:
        self.chosen = chosen
        self.strict = log is None
        self.log = log if log is not None else ReadingLog()
        self._counts: object = None
        self._read_descriptions: dict[str, Description | None] = {}
        self._read_metadata: dict[str, Metadata | None] = {}

    def read(self, path: Path, files: list[Found], advance: Callable[[int], object]) -> Iterator[Recording]:
        """Recordings of `files`, which lie below `path`."""
        root = path if path.is_dir() else path.parent
        folder = FolderStore(root) if path.is_dir() else FolderStore(root, only=path.name)
        seen: dict[str, Glimpse] = {}
        self.strict = self.strict or path.is_file()  # of one file, what is wrong with it is the answer
        with _Unpacker([item.path for item in files if item.is_archive], root) as unpacker:
            for item in files:
                name = item.path.relative_to(root).as_posix()
                if item.is_archive:
                    yield from self._archive(unpacker, name)
                else:
                    yield from self._guarded(folder, name, seen)
                advance(item.size_bytes)

    def _archive(self, unpacker: _Unpacker, name: str) -> Iterator[Recording]:
        try:
            store = unpacker.next()
        except EdgeError as error:
            self._note(name, error)
            return
        with closing(store):
            names = [name for name in store.names() if not is_passed_over(name)]
            seen: dict[str, Glimpse] = {}
            for name in names:
                yield from self._guarded(store, name, seen)

    def _guarded(self, store: FolderStore | ArchiveStore, name: str, seen: dict[str, Glimpse]) -> Iterator[Recording]:
        """The recordings of one file; with a log, a file that is of no use becomes a problem in it."""
        try:
            for recording, format_name in self._file(store, name, seen):
                self.log.formats[format_name] += 1
                yield recording
        except EdgeError as error:
            self._note(store.prefix + name, error)

    def _note(self, source: str, error: EdgeError) -> None:
        if self.strict:
            raise error
        what = str(error).removeprefix(source)
        numbered = re.match(r":(\d+): ", what)
        line = int(numbered.group(1)) if numbered else None
        self.log.problems.append(Problem(source, line, what[numbered.end() if numbered else 0 :].lstrip(": ")))

    def _file(
        self, store: FolderStore | ArchiveStore, name: str, seen: dict[str, Glimpse]
    ) -> Iterator[tuple[Recording, str]]:
        source = store.prefix + name
        looked = seen.get(name) or glimpse(store, name)
        if not looked.head:
            raise EdgeError(f"{source} is empty; remove the file or fetch it again.")
        if looked.head.startswith(HDF5_MAGIC) or looked.head.startswith((MAT5_MAGIC, MAT73_MAGIC)):
            yield from self._binary(store, name, looked)
            return
        if isinstance(self.chosen, str):
            raise EdgeError(f"{source} is no HDF5 or MAT file, so it is not {self.chosen}; leave --format out.")
        if not looked.is_text:
            raise EdgeError(f"{source} is neither text, HDF5, MAT nor an archive; remove it from the set.")
        description = self._description(store, name, looked)
        if description is None:
            return
        if any(is_companion(looked, companion) for companion in description.companions):
            return
        from embridge_edge.recordings.delimited import read_delimited
        from embridge_edge.recordings.repetitions import Repetitions

        if not isinstance(self._counts, Repetitions):
            self._counts = Repetitions()
        found = self._companions(store, name, description, seen)
        yield read_delimited(store, name, description, found, self._counts, looked), description.name

    def _binary(self, store: FolderStore | ArchiveStore, name: str, looked: Glimpse) -> Iterator[tuple[Recording, str]]:
        source = store.prefix + name
        with store.on_disk(name) as path:
            if looked.head.startswith(HDF5_MAGIC) and self.chosen not in NINAPRO_FORMATS:
                from embridge_edge.recordings.emg2pose import METADATA_FILE, parse_metadata, read_emg2pose

                table = _above(store, name, METADATA_FILE, self._read_metadata, parse_metadata)
                yield read_emg2pose(path, source, table), "emg2pose"
            else:
                from embridge_edge.recordings.ninapro import read_ninapro

                database = self.chosen if isinstance(self.chosen, str) else None
                yield read_ninapro(path, source, database)

    def _description(self, store: FolderStore | ArchiveStore, name: str, looked: Glimpse) -> Description | None:
        """The description of a text: chosen, beside it, or recognised. None where the file belongs to another one."""
        if isinstance(self.chosen, Description):
            return self.chosen
        beside = self._beside(store, name)
        if beside is not None:
            return beside
        shipped = shipped_descriptions()
        description = recognise(looked, shipped.values())
        if description is not None:
            return description
        for owner in shipped.values():
            if any(is_companion(looked, companion) for companion in owner.companions):
                if isinstance(store, FolderStore) and store.only == name:
                    raise EdgeError(
                        f"{name} belongs to an EMG file in the format {owner.name}; give the folder of both."
                    )
                return None
        first = looked.lines[0][:60]
        raise EdgeError(
            f"{store.prefix + name} is in no known format (its first line is {first!r}); choose one with --format, or "
            f"describe it in a {FILE_NAME} beside it (docs/formats.md)."
        )

    def _beside(self, store: FolderStore | ArchiveStore, name: str) -> Description | None:
        """The description beside a file or above it in the set; each folder is looked into once."""
        return _above(
            store,
            name,
            FILE_NAME,
            self._read_descriptions,
            lambda text, place: parse_description(text, FILE_NAME, place),
        )

    def _companions(
        self, store: FolderStore | ArchiveStore, name: str, description: Description, seen: dict[str, Glimpse]
    ) -> Mapping[Companion, str]:
        if not description.companions:
            return {}
        from embridge_edge.recordings.delimited import identify, match_companion

        groups = identify(description, store.context(name), name).groups
        found: dict[Companion, str] = {}
        for companion in description.companions:
            candidates = []
            for other in _neighbours(store, name, companion):
                looked = seen[other] = seen.get(other) or glimpse(store, other)
                if is_companion(looked, companion):
                    candidates.append(other)
            match = match_companion(companion, name, groups, candidates)
            if match is not None:
                found[companion] = match
        return found


def _above(
    store: FolderStore | ArchiveStore,
    name: str,
    wanted: str,
    known: dict[str, Parsed | None],
    parse: Callable[[str, str], Parsed],
) -> Parsed | None:
    """What the nearest file `wanted` says, beside a file or above it in the set; `known` keeps what was read of each."""
    folder = PurePosixPath(name).parent
    for parent in (folder, *folder.parents):
        at = (parent / wanted).as_posix()
        place = store.prefix + at
        if place not in known:
            parsed = None
            if store.exists(at):
                with store.open(at) as stream:
                    parsed = parse(stream.read().decode("utf-8-sig", "replace"), place)
            known[place] = parsed  # one that cannot be parsed is an error for every file below it
        found = known[place]
        if found is not None:
            return found
    return None


def _neighbours(store: FolderStore | ArchiveStore, name: str, companion: Companion) -> list[str]:
    """Where a companion may be: in the set, and in the folders that the description names."""
    if isinstance(store, ArchiveStore):
        return [other for other in store.names() if other != name and not is_passed_over(other)]
    folder = PurePosixPath(name).parent
    if store.only is not None:
        names = [(folder / item.name).as_posix() for item in (store.folder / folder).iterdir() if item.is_file()]
    else:
        names = store.all_names()
    for place in companion.look_in:
        beside = store.folder / folder / place
        if beside.is_dir():
            names += [(folder / place / item.name).as_posix() for item in sorted(beside.iterdir()) if item.is_file()]
    return [
        other
        for other in dict.fromkeys(names)
        if other != name and not is_hidden(other.replace("../", "")) and not is_passed_over(other)
    ]
