"""The options that every verb has, and how a verb's result is printed."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import click

from embridge_edge.artifacts import finite
from embridge_edge.errors import EdgeError
from embridge_edge.progress import Progress

DESCRIBE = "Description (TOML) of a model of others, given as ONNX: its inputs, outputs and signal chain."


@dataclass(frozen=True)
class Common:
    """What `--seed --quiet --force --json` said."""

    seed: int
    quiet: bool
    force: bool
    as_json: bool

    @property
    def progress(self) -> Progress:
        return Progress(quiet=self.quiet)


class Report(Protocol):
    """What a verb returns: it can be read by a person and by a script."""

    def text(self) -> str:
        """Lines for a terminal."""

    def to_json(self) -> dict[str, Any]:
        """One JSON object; a number's unit is in its key."""


def common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the common options to a command; it receives them as `common`."""

    @click.option(
        "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Seed of everything random."
    )
    @click.option("--quiet", is_flag=True, help="No progress on stderr.")
    @click.option("--force", is_flag=True, help="Replace what is already at --out; there is never a prompt.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")
    @functools.wraps(function)
    def wrapped(*args: Any, seed: int, quiet: bool, force: bool, as_json: bool, **kwargs: Any) -> None:
        function(*args, common=Common(seed, quiet, force, as_json), **kwargs)

    return wrapped


def recipe_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add what every verb takes that goes from recordings to an artifact: `--data --recipe --out --format`."""
    for option in (
        click.option("--format", help="Name of a format, or a description file; by default recognised by content."),
        click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the result."),
        click.option("--recipe", required=True, help="Name of a recipe, or a recipe file."),
        click.option(
            "--data", required=True, type=click.Path(path_type=Path), help="A recording, an archive or a folder."
        ),
    ):
        function = option(function)
    return function


def show(report: Report, common: Common) -> None:
    """Print a report on stdout, as text or as one JSON object; of several processes of one training, the first does.

    Whoever reads the output may have gone, as `head` does; the exit status still says how it went.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    try:
        sys.stdout.write(json.dumps(finite(report.to_json()), allow_nan=False) if common.as_json else report.text())
        sys.stdout.write("\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse_existing(out: Path, force: bool, written: Sequence[str]) -> None:
    """Refuse to write where something is already, unless forced; never replace a folder that holds anything else.

    Args:
        written: patterns of what the verb itself writes into `out`: with `force`, only that is replaced.

    Raises:
        EdgeError: `out` is a file, a folder that is not empty, or one that holds what the verb did not write.
    """
    if out.exists() and not out.is_dir():
        raise EdgeError(f"{out} is a file; choose a folder for --out.")
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if held and not force:
        raise EdgeError(f"{out} is not empty; choose another --out, or replace it with --force.")
    foreign = [name for name in held if not any(fnmatchcase(name, pattern) for pattern in written)]
    if foreign:
        raise EdgeError(f"{out} holds {foreign[0]}, which this verb does not write; choose another --out.")


def refuse_existing_file(out: Path, force: bool) -> None:
    """Refuse to write one file where something is already, unless forced.

    Raises:
        EdgeError: `out` is a folder, or a file and not forced.
    """
    if out.is_dir():
        raise EdgeError(f"{out} is a folder; choose a file for --out.")
    if out.exists() and not force:
        raise EdgeError(f"{out} exists; choose another --out, or replace it with --force.")
