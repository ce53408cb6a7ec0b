"""Compiling C for this machine, so that Python can call what a device will run."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from embridge_edge.errors import EdgeError

WARNINGS: tuple[str, ...] = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
"""What generated code and kernels compile under without a word."""


AARCH64 = ("aarch64-linux-gnu-gcc", "qemu-aarch64-static")
"""Compiler and emulator of programs for phones and single-board computers, as Debian calls them."""


def write_files(files: Mapping[str, str], folder: Path) -> None:
    """Write texts below a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def compile_shared(
    sources: Iterable[Path],
    library: Path,
    *,
    includes: Sequence[Path] = (),
    defines: Sequence[str] = (),
    flags: Sequence[str] = ("-O2",),
) -> Path:
    """Compile C99 into a shared library.

    Args:
        library: the file to write.
        defines: such as "EMB_TRACE" or "N=3".

    Raises:
        EdgeError: no compiler, or the code does not compile; the first error is in the message.
    """
    options = [
        "-fPIC", "-shared", *flags,
        *(f"-I{folder}" for folder in includes), *(f"-D{define}" for define in defines),
    ]  # fmt: skip
    _compile(sources, library, options)
    return library


def has_aarch64() -> bool:
    """Whether `run_example` can run a program of AArch64 here: Debian packs the compiler's C library apart."""
    if not all(shutil.which(tool) for tool in AARCH64):
        return False
    asked = [AARCH64[0], "-print-file-name=libc.a"]
    return Path(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()).is_absolute()


def run_example(files: Mapping[str, str], main: str, *, aarch64: bool = False) -> int:
    """Compile a package and one of its examples as a program of this machine, and run it.

    Args:
        files: every file of the package by its path; sources and headers lie below `src/`.
        main: the example's path.
        aarch64: make it a program of AArch64 Linux and run it in QEMU.

    Returns: its exit status.

    Raises:
        EdgeError: no compiler, or it does not compile.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files(files, folder)
        sources = [folder / path for path in files if path.startswith("src/") and path.endswith(".c")]
        options = ["-O2", "-ffp-contract=off", f"-I{folder / 'src'}"]
        if not aarch64:
            _compile([*sources, folder / main], folder / "example", options)
            return subprocess.run([str(folder / "example")], check=False).returncode
        compiler, emulator = AARCH64
        _compile([*sources, folder / main], folder / "example", [*options, "-static"], compiler)
        return subprocess.run([emulator, str(folder / "example")], check=False).returncode


def load_shared(library: Path) -> ctypes.CDLL:
    """Load what `compile_shared` wrote."""
    return ctypes.CDLL(str(library))


def _compile(sources: Iterable[Path], made: Path, options: Sequence[str], cross: str | None = None) -> None:
    compiler = shutil.which(cross or os.environ.get("CC", "cc"))
    if compiler is None:
        raise EdgeError(
            f"{cross} is needed to check generated code; install it."
            if cross
            else "A C compiler is needed to check generated code; install gcc or set CC."
        )
    command = [compiler, "-std=c99", *WARNINGS, *options, "-o", str(made), *(str(source) for source in sources)]
    # A compiler that is interrupted leaves its temporary files; here they vanish with the folder.
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": str(made.parent)}
    )
    if done.returncode:
        line = next((line for line in done.stderr.splitlines() if "error" in line), "no message")
        raise EdgeError(f"The generated C does not compile ({line.strip()}); report this with the model.")
