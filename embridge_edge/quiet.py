"""Keeping other libraries' chatter off the console, whose standard output belongs to the verb that runs."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def silenced() -> Iterator[IO[bytes]]:
    """Send everything that the block prints, C++ included, to the temporary file that is yielded.

    Works on the process's file descriptors 1 and 2, so that what another thread prints meanwhile lands there as well.
    """
    _flush()
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings(), contextlib.ExitStack() as undo:
        warnings.simplefilter("ignore")
        for descriptor in (1, 2):
            try:
                saved = os.dup(descriptor)
            except OSError:  # Closed, as under some service managers: then nothing can be printed there either.
                continue
            undo.callback(os.close, saved)
            undo.callback(os.dup2, saved, descriptor)
            os.dup2(sink.fileno(), descriptor)
        undo.enter_context(contextlib.redirect_stdout(io.StringIO()))
        undo.enter_context(contextlib.redirect_stderr(io.StringIO()))
        try:
            yield sink
        finally:
            _flush()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
