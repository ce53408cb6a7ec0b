"""The two exceptions that cross the command line, and the exit status of each."""

DONE = 0
WRONG_INPUT = 2
GATE_MISSED = 3
INTERRUPTED = 130

INTERRUPTED_SAYS = "Interrupted; run the same command again to go on where it stopped."


class EdgeError(Exception):
    """Wrong input or environment: one line that says what is wrong and what to do next."""

    exit_status = WRONG_INPUT


class GateMissed(EdgeError):
    """A gate of the recipe, or a verification, was missed. Everything is written; the numbers are not good enough."""

    exit_status = GATE_MISSED


def one_line(error: BaseException) -> str:
    """What another library's error says, on one line of at most 160 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}…"
