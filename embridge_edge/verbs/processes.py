"""Independent jobs side by side on the machine's cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Protocol, Self

from embridge_edge.errors import EdgeError

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent ends."""


class Work(Protocol):
    """A job for one process."""

    def at_row(self, row: int) -> Self:
        """The same job, with its progress in a row of the terminal of its own."""

    def run(self) -> list[dict[str, Any]]:
        """Do it; returns the minutes of its steps."""


def do_all(works: Sequence[Work], cores: int) -> list[dict[str, Any]]:
    """Run jobs side by side, one thread each, in the order given; returns the minutes of all their steps.

    One thread each, because these networks are too small to share among threads, and because the sums then come out the same on
    any number of cores.
    """
    if not works:
        return []
    workers = min(cores, len(works))
    placed = [work.at_row(place) for place, work in enumerate(works)]
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
    ) as pool:
        pending = [pool.submit(work.run) for work in placed]
        try:
            for future in as_completed(pending):  # one that fails at once is not kept for those before it
                future.result()
            return [row for future in pending for row in future.result()]
        except BrokenProcessPool:
            raise EdgeError(
                "A training process was ended from outside, probably for want of memory; free some and run the same "
                "command again to go on."
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin(parent: int) -> None:
    """One thread, and no life beyond the process that asked: a job that CI cancels must not go on training."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    import torch

    torch.set_num_threads(1)
