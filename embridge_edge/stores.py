"""Where studies are kept: journals, sqlite files and PostgreSQL, each with a lock that lies beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge.errors import EdgeError, one_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy.engine import URL

STORAGES = "journal:FILE or a path, sqlite:///FILE, postgresql+psycopg://USER@HOST/DATABASE"
"""What a storage may be called."""

DATABASE_WAIT_S = 60
"""How long a database file may be locked by another worker, and a server may take to answer."""


class StorageFailed(EdgeError):
    """The storage of a study cannot be used: no fault of the trial that is under way."""


@dataclass(frozen=True)
class Store:
    """Where studies are kept.

    Attributes:
        shown: its name without a password.
        storage: Optuna's view of it.
        alone: a context in which no other worker is in it.
    """

    shown: str
    storage: BaseStorage
    alone: Callable[[], AbstractContextManager[None]]


def file_of(where: str) -> Path | None:
    """The file of a storage; None for a server's.

    Raises:
        EdgeError: no kind of storage that is known.
    """
    kind, separator, rest = where.partition(":")
    if kind == "journal" and separator:
        return Path(rest)
    if "://" not in where:
        return Path(where)
    url = _url(where)
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def open_store(where: str) -> Store:
    """Open a storage, or make it where there is none yet.

    Args:
        where: a file (a journal), `journal:FILE`, `sqlite:///FILE` or `postgresql+psycopg://…`.

    Raises:
        EdgeError: another kind, something else in the file, a damaged journal, or a database that does not answer.
    """
    file = file_of(where)
    return _journal(file) if file is not None and not where.startswith("sqlite:") else _database(where, file)


@contextlib.contextmanager
def answering(shown: str) -> Iterator[None]:
    """Turn what a storage says when it cannot be used into one line.

    Raises:
        StorageFailed: the storage failed in the block.
    """
    import sqlalchemy.exc
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error
        reason = one_line(getattr(cause, "orig", None) or cause).rstrip(".")
        raise StorageFailed(
            f"Cannot use the study storage {shown}: {reason}; mend that and run the same command again, finished trials are kept."
        ) from None
    except json.JSONDecodeError as error:  # a journal that was damaged while in use
        raise _damaged(shown, one_line(error)) from None


def _damaged(shown: object, where: str) -> StorageFailed:
    return StorageFailed(
        f"The journal {shown} is damaged ({where}); restore it from a copy, or choose another --storage."
    )


def _journal(file: Path) -> Store:
    """A journal: one file to which all workers append; works on file systems of several machines too."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    path = file.resolve()  # Optuna's lock is a link to the file, and a relative one would point nowhere
    if path.is_dir():
        raise EdgeError(f"{file} is a folder; give a file for the journal in --storage.")
    path.parent.mkdir(parents=True, exist_ok=True)
    alone = file_lock(path)
    with alone():
        lock = JournalFileSymlinkLock(str(path))
        lock.acquire()
        try:
            _check_journal(path, file)
        finally:
            lock.release()
        try:
            storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        except (
            ValueError,
            TypeError,
            KeyError,
            AssertionError,
        ) as error:  # lines that are JSON, but say nothing sensible
            raise _damaged(file, one_line(error)) from None
    return Store(f"journal:{file}", storage, alone)


def _check_journal(path: Path, file: Path) -> None:
    """Refuse a file that is no journal, and cut off a last line that a full disk left incomplete.

    Optuna would append to either, and find the line that cannot be read only later.
    """
    if not path.exists() or not path.stat().st_size:
        path.touch()
        return
    with path.open("rb+") as journal:
        place = 0
        for number, line in enumerate(journal, start=1):
            if not line.endswith(b"\n") and number > 1:
                journal.truncate(place)
                return
            place += len(line)
            try:
                known = type(json.loads(line)["op_code"]) is int
            except (ValueError, TypeError, KeyError):
                known = False
            if not known and number == 1:
                raise EdgeError(
                    f"{file} is no journal of a study; choose another --storage: {STORAGES}."
                    if not line.startswith(b"SQLite format 3\0")
                    else f"{file} is a SQLite database; write --storage sqlite:///{file}."
                )
            if not known:
                raise _damaged(file, f"line {number}")


def _database(where: str, file: Path | None) -> Store:
    import sqlalchemy
    from optuna.storages import RDBStorage

    url = _url(where)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        alone = file_lock(file)
        options: dict[str, Any] = {"connect_args": {"timeout": DATABASE_WAIT_S}}
    else:
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": DATABASE_WAIT_S}}
        alone = _server_lock(sqlalchemy.create_engine(url, **options))
    shown = url.render_as_string(hide_password=True)
    address = url.render_as_string(hide_password=False)
    with answering(shown), alone():  # two workers that make the same tables at once would fail
        storage = RDBStorage(address.replace("{", "{{").replace("}", "}}"), engine_kwargs=options)
    return Store(shown, storage, alone)


def _url(where: str) -> URL:
    import sqlalchemy.engine
    import sqlalchemy.exc

    try:
        url = sqlalchemy.engine.make_url(where)
        kind = url.get_backend_name()
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise EdgeError(f"--storage is no address of a study; choose one of {STORAGES}.") from None
    if kind == "postgresql" and url.drivername in ("postgresql", "postgresql+psycopg"):
        import psycopg  # noqa: F401  (its absence is to be named as such)

        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite" and url.drivername == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise EdgeError(
                "A database in memory can be neither shared nor kept; give a file: --storage sqlite:///FILE."
            )
        return url
    raise EdgeError(f"--storage {url.drivername}://… is no kind of storage that sweep knows; choose one of {STORAGES}.")


def file_lock(beside: Path) -> Callable[[], AbstractContextManager[None]]:
    """A lock beside a file, on which one waits; the system frees it when its holder ends, however it ends."""

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        import fcntl

        with beside.with_name(f"{beside.name}.turn").open("a") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            yield

    return alone


def _server_lock(engine: Any) -> Callable[[], AbstractContextManager[None]]:
    """A lock of the database server; it ends with its transaction, and that with its connection."""
    import sqlalchemy

    key = int.from_bytes(hashlib.sha256(b"embridge-edge sweep").digest()[:8], signed=True)

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield

    return alone
