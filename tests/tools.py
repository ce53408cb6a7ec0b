"""Programs that tests run beside Python: where one is not installed, a test skips and says which package brings it."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator

import pytest

PACKAGES = {
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm-none-eabi-g++": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "arm-none-eabi-nm": "binutils-arm-none-eabi",
    "c++": "g++",
    "cc": "gcc",
    "cmake": "cmake",
    "cppcheck": "cppcheck",
    "g++": "g++",
    "gcc": "gcc",
    "java": "openjdk-17-jdk-headless",
    "javac": "openjdk-17-jdk-headless",
    "ninja": "ninja-build",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-system-arm": "qemu-system-arm",
}
"""Debian's packages by program; `make arm` installs those for firmware and phones."""
AARCH64 = ("aarch64-linux-gnu-gcc", "qemu-aarch64-static")
JAVA = ("java", "javac")
ARM = ("arm-none-eabi-gcc",)
QEMU = (*ARM, "qemu-system-arm")
CMAKE = ("cmake", "ninja")


def needs(*programs: str) -> None:
    """Skip the test where one of the programs is not installed."""
    for program in programs:
        packages = PACKAGES[program]
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install {packages}")


def hear_ctrl_c() -> None:
    """For `preexec_fn`: a job in the background, as a test suite may be, ignores the signal, and so do those that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def ctrl_c_heard() -> Iterator[None]:
    """The same for what runs in the test's own process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
