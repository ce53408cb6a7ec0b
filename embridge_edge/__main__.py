"""`python -m embridge_edge` is `embridge-edge`."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from embridge_edge.errors import INTERRUPTED, INTERRUPTED_SAYS


def main() -> None:
    """Run the command line and leave the process with its exit status.

    The command line is imported in here, so that Ctrl-C ends in one line from the first moment on and not only once click is there.
    """
    # Who ignores the signal, as a shell lets its background jobs do, goes on ignoring it.
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, _end)
    if "WORLD_SIZE" in os.environ:  # one of several processes, in which torch would warn of how gradients are joined
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from embridge_edge.cli import run

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = run()
    except KeyboardInterrupt:  # the moments before and behind what run() answers for
        _end()
    if heard:
        signal.signal(signal.SIGINT, _end)
    sys.exit(status)


def _end(number: int = signal.SIGINT, frame: FrameType | None = None) -> NoReturn:
    """End at once, while there is nothing to clean up: an exception in the midst of an import may become another one there."""
    os.write(sys.stderr.fileno(), f"\nembridge-edge: {INTERRUPTED_SAYS}\n".encode())
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
