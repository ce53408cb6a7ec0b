"""A Python environment of its own, for a tool whose pins exclude the toolkit's: made when it is first asked for, then found again."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from embridge_edge.artifacts import sha256_of, user_cache, write_json
from embridge_edge.errors import EdgeError, one_line
from embridge_edge.progress import SILENT, Progress

PLACE = "EMBRIDGE_ENVIRONMENTS"
"""Of the process's variables: the folder of all such environments, in place of the one in the user's cache."""

READY = "ready.json"
POLL_S = 0.5

NOT_THEIRS = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_CONSTRAINT", "PIP_PYTHON")
"""Variables that would put the toolkit's packages into the environment, or the environment's packages elsewhere."""

UNREACHABLE = re.compile(
    r"from versions: none|Temporary failure in name resolution|Name or service not known|Network is unreachable"
    r"|Connection (?:refused|reset|timed out)|establish a new connection|ProxyError|SSLError|Read timed out|HTTPError"
)
FULL = re.compile(r"No space left on device|Disk quota exceeded")


@dataclass(frozen=True)
class Environment:
    """What an environment holds. Another value lives in another folder, so that a newer toolkit never uses an old one.

    Attributes:
        name: begins its folder's name. title: what it is, in a sentence's words.
        packages: to install. constraints: all pins, one a line, as in a constraints file.
        python: the version that the pins were tried with.
        proof: a program that ends well where the packages work.
        room_mib: what it needs on the disk while it is made.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    constraints: str
    python: tuple[int, int]
    proof: str
    room_mib: int

    @property
    def folder(self) -> Path:
        about = [self.packages, self.constraints, self.python, self.proof, platform.machine()]
        return environments_folder() / f"{self.name}-{sha256_of(about)[:12]}"

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def log(self) -> Path:
        """What the tools said while it was made."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def is_ready(self) -> bool:
        """Whether it was made to the end, and the Python that it was made from is still there."""
        return (self.folder / READY).is_file() and self.interpreter.exists()


def environments_folder() -> Path:
    """The folder that `EMBRIDGE_ENVIRONMENTS` names, else one in the user's cache."""
    if named := os.environ.get(PLACE):
        return Path(named).absolute()
    return user_cache() / "environments"


def interpreter_of(environment: Environment, progress: Progress = SILENT) -> Path:
    """The Python of an environment, which is made where it is not there yet.

    It counts as made once a file says so that is written last: one that is killed leaves no such file, and the next call goes on
    with what is installed and downloaded already. Of several processes one makes it, and the others wait.

    Raises:
        EdgeError: no Python of the version, no room, or the packages cannot be had or do not work.
    """
    if environment.is_ready:
        return environment.interpreter
    with _alone(environment, progress) as lock:
        if not environment.is_ready:
            _make(environment, lock, progress)
    return environment.interpreter


@contextlib.contextmanager
def _alone(environment: Environment, progress: Progress) -> Iterator[IO[str]]:
    import fcntl

    folder = environment.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock").open("a")
    except OSError as error:
        raise EdgeError(
            f"Cannot write {folder.parent}: {error.strerror}; name another folder with {PLACE}=FOLDER."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"another process makes {environment.title}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _make(environment: Environment, lock: IO[str], progress: Progress) -> None:
    python = _python(environment)
    _refuse_without_room(environment)
    folder = environment.folder
    progress.say(f"making {environment.title} in {folder}: some minutes, once")
    environment.log.write_text("")
    if not environment.interpreter.exists():
        shutil.rmtree(folder, ignore_errors=True)
        without = ["--without-pip"] if find_spec("pip") is not None else []
        _do([python, "-m", "venv", *without, str(folder)], "made", environment, lock)
    _forget_half_installed(folder)
    constraints = folder / "constraints.txt"
    constraints.write_text(environment.constraints)
    install = [*_pip(environment), "install", "--no-input", "--disable-pip-version-check", "-c", str(constraints)]
    with progress.bar("installing", len(environment.constraints.splitlines()), "package") as advance:
        seen = 0
        for log in _doing([*install, *environment.packages], "filled", environment, lock):
            now = log.count("\nCollecting ")
            advance(now - seen)
            seen = now
    _do([str(environment.interpreter), "-c", environment.proof], "used", environment, lock)
    write_json(folder / READY, {"packages": list(environment.packages), "python": platform.python_version()})


def _pip(environment: Environment) -> list[str]:
    """The toolkit's own pip where it has one, which saves installing another; it works on the environment alone."""
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--python", str(environment.interpreter)]
    return [str(environment.interpreter), "-m", "pip"]


def _python(environment: Environment) -> str:
    """A Python of the version that the pins were tried with."""
    if sys.version_info[:2] == environment.python:
        return sys.executable
    version = ".".join(map(str, environment.python))
    found = shutil.which(f"python{version}")
    if found is not None:
        ask = [found, "-c", f"import sys, venv; sys.exit(sys.version_info[:2] != {environment.python})"]
        if subprocess.run(ask, capture_output=True, check=False).returncode == 0:
            return found
    raise EdgeError(
        f"{_capital(environment.title)} needs Python {version}, and there is none that works; install it "
        f"(apt-get install python{version} python{version}-venv), then run the same command again."
    )


def _refuse_without_room(environment: Environment) -> None:
    free_mib = shutil.disk_usage(environment.folder.parent).free // 2**20
    if free_mib < environment.room_mib:
        raise EdgeError(
            f"{_capital(environment.title)} needs {environment.room_mib} MiB in {environment.folder.parent}, and {free_mib} are "
            f"free; free some, or name another folder with {PLACE}=FOLDER."
        )


def _forget_half_installed(folder: Path) -> None:
    """Drop what a killed pip left of a package, so that it is installed again: INSTALLER is written when all files are there."""
    for about in folder.glob("lib/python*/site-packages/*.dist-info"):
        if not (about / "INSTALLER").is_file():
            shutil.rmtree(about)


def _do(command: Sequence[str], what: str, environment: Environment, lock: IO[str]) -> None:
    for _ in _doing(command, what, environment, lock):
        pass


def _doing(command: Sequence[str], what: str, environment: Environment, lock: IO[str]) -> Iterator[str]:
    """Run a command, now and then yield what the log holds, and refuse where it ends badly.

    It inherits the lock, which so outlives this process where that is killed and the command is not.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_THEIRS}
    with environment.log.open("a") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock.fileno(),),
            env=inherited | {"PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"},  # nothing of the folder it is called from
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
                yield environment.log.read_text(errors="replace")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        raise _failure(environment, what, process.returncode)


def _failure(environment: Environment, what: str, status: int) -> EdgeError:
    log = environment.log.read_text(errors="replace")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    # Of pip's errors the first says what happened, of a traceback the last line.
    said = one_line(EdgeError(errors[0] if errors else lines[-1] if lines else f"status {status}"))
    if FULL.search(log):
        what_next = f"free some space, or name another folder with {PLACE}=FOLDER"
    elif UNREACHABLE.search(log):
        what_next = "pip's package index is out of reach or lacks it: mend that, and the same command goes on where this stopped"
    elif "ensurepip is not" in log or "No module named venv" in log:
        what_next = f"apt-get install python{'.'.join(map(str, environment.python))}-venv"
    else:
        what_next = f"read {environment.log}; to begin anew remove {environment.folder}"
    return EdgeError(f"{_capital(environment.title)} cannot be {what} ({said}); {what_next}.")


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
