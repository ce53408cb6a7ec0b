"""Progress on stderr: silent for two seconds, then a bar on a terminal or a line now and then in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

DELAY_S = 2.0
LOG_INTERVAL_S = 15.0


@dataclass(frozen=True)
class Progress:
    """Where progress goes: to stderr, or nowhere; `row` keeps the bars of processes side by side apart."""

    quiet: bool = True
    row: int = 0

    @contextlib.contextmanager
    def bar(self, label: str, total: int, unit: str = "") -> Iterator[Callable[[int], object]]:
        """Yield a function that is called with the amount done since its last call."""
        if self.quiet:
            yield lambda amount: None
            return
        began, waiting = time.monotonic(), 0
        shown: Any = None

        def advance(amount: int) -> None:
            nonlocal shown, waiting
            waiting += amount
            if shown is None and time.monotonic() - began >= DELAY_S:
                shown = self._shown(label, total, unit, began)
            if shown is not None:
                shown.update(waiting)
                waiting = 0

        try:
            yield advance
        finally:
            if shown is not None:
                shown.close()

    def _shown(self, label: str, total: int, unit: str, began: float) -> Any:
        """A bar that counts from `began` on; tqdm is loaded only for work that takes long enough to be shown."""
        from tqdm import tqdm

        on_terminal = sys.stderr.isatty()
        bar = tqdm(
            total=total,
            desc=label,
            unit=unit or "it",
            file=sys.stderr,
            delay=DELAY_S,
            position=self.row if on_terminal else None,
            leave=False,
            mininterval=0.2 if on_terminal else LOG_INTERVAL_S,
            maxinterval=1.0 if on_terminal else LOG_INTERVAL_S,
            dynamic_ncols=True,
        )
        passed = time.monotonic() - began
        bar.start_t -= passed
        bar.last_print_t -= passed
        return bar

    def say(self, line: str) -> None:
        """One line about what happened, on stderr."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)


SILENT = Progress()
