"""Steps whose results stay on disk: a step whose inputs did not change is not run again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embridge_edge import __version__
from embridge_edge.artifacts import folder_written_by_rename, read_json, sha256_of, sha256_of_file, write_json
from embridge_edge.errors import EdgeError
from embridge_edge.progress import Progress

DESCRIPTION = "recording.toml"


@dataclass
class Workspace:
    """A folder of finished steps, and the minutes that each took.

    Attributes:
        folder: one folder in it per step, each with a `step.json`.
        minutes: `{step, minutes, cached}` of the steps of this run, in order.
    """

    folder: Path
    progress: Progress
    minutes: list[dict[str, Any]] = field(default_factory=list)

    def step(self, name: str, inputs: object, make: Callable[[Path], object]) -> tuple[Path, str]:
        """Have `make` fill a folder, unless that was done before for the same inputs by the same version.

        Args:
            inputs: everything that the result depends on, as JSON can hold it.

        Returns: the step's folder, and a key that stands for its result in the inputs of later steps.
        """
        key = sha256_of([name, __version__, json.loads(json.dumps(inputs))])
        folder = self.folder / name
        done = folder / "step.json"
        if done.is_file() and _key_in(done) == key:
            self.minutes.append({"step": name, "minutes": 0.0, "cached": True})
            self.progress.say(f"  {name}: unchanged")
            return folder, key
        started = time.monotonic()
        with folder_written_by_rename(folder) as temporary:
            make(temporary)
            minutes = (time.monotonic() - started) / 60.0
            write_json(temporary / "step.json", {"key": key, "minutes": minutes})
        shutil.rmtree(self.state(name), ignore_errors=True)
        self.minutes.append({"step": name, "minutes": minutes, "cached": False})
        self.progress.say(f"  {name}: {minutes:.1f} min")
        return folder, key

    def state(self, name: str) -> Path:
        """Folder where a step that is under way keeps what it needs to go on."""
        return self.folder / "unfinished" / name


def _key_in(file: Path) -> object:
    try:
        return read_json(file).get("key")
    except EdgeError:
        return None


def refuse_inside(out: Path, data: Path) -> None:
    """Refuse to write among the recordings: the next run would read what this one wrote.

    Raises:
        EdgeError: `out` is `data` or lies inside it.
    """
    if out.resolve().is_relative_to(data.resolve()):
        raise EdgeError(f"--out {out} lies inside {data}, which is read; choose another --out.")


def refuse_around(out: Path, given: Path) -> None:
    """Refuse to replace a folder that holds what is read.

    Raises:
        EdgeError: `out` is what is read, or holds it.
    """
    if given.resolve().is_relative_to(out.resolve()):
        raise EdgeError(f"--out {out} holds {given}, which is read; choose another --out.")


def fingerprint(data: Path, format: str | None = None) -> str:
    """Stands for the recordings at `data` without reading them: relative names, sizes and times of change.

    What describes them but lies elsewhere is in it by its content: the file that `format` names, and the description beside
    a single recording.
    """
    about = [[name, path.stat().st_size, path.stat().st_mtime_ns] for name, path in _files(data)]
    if format is not None:
        about.append([format, 0, 0])
    return sha256_of([*about, *(sha256_of_file(path) for path in _describing(data, format))])


def content_hash(data: Path, format: str | None = None) -> str:
    """Stands for the recordings at `data` by their relative names and contents: the same wherever they are copied to."""
    about = [[name, sha256_of_file(path)] for name, path in _files(data)]
    return sha256_of([*about, *(sha256_of_file(path) for path in _describing(data, format))])


def _files(data: Path) -> list[tuple[str, Path]]:
    if not data.exists():
        raise EdgeError(f"{data} does not exist; give recordings with --data.")
    if data.is_file():
        return [(data.name, data)]
    return [(path.relative_to(data).as_posix(), path) for path in sorted(data.rglob("*")) if path.is_file()]


def _describing(data: Path, format: str | None) -> list[Path]:
    """Files that say how to read the recordings and lie outside them."""
    describing = [data.parent / DESCRIPTION] if data.is_file() else []
    if format is not None:
        describing.append(Path(format))
    return [path for path in describing if path.is_file()]
