"""The two exceptions that cross the command line, and the exit status of each."""

DONE = 0
WRONG_INPUT = 2
GATE_MISSED = 3
INTERRUPTED = 130


class EdgeError(Exception):
    """Wrong input or environment: one line that says what is wrong and what to do next."""

    exit_status = WRONG_INPUT


class GateMissed(EdgeError):
    """A gate of the recipe, or a verification, was missed. Everything is written; the numbers are not good enough."""

    exit_status = GATE_MISSED
