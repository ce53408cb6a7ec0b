"""`doctor`: what this machine has, what it lacks, what mends it, and which verbs wait for it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from embridge_edge.errors import WRONG_INPUT, EdgeError
from embridge_edge.hardware.host import HostFacts, host_facts, installed_version
from embridge_edge.hardware.probes import PROBES, probe
from embridge_edge.hardware.target import Target, find_target
from embridge_edge.progress import SILENT, Progress
from embridge_edge.verbs.options import Common, common_options, show

PACKAGE = "embridge-edge"
OLDEST_PYTHON = (3, 11)
# What each extra is for; the packages themselves stand in the installed package's metadata.
VERBS_OF_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "": ("everything",),
    "features": ("features to .parquet",),
    "report": ("inspect with a picture", "deploy"),
    "train": ("train", "pretrain", "benchmark", "distill", "prune", "quantize", "export", "check", "deploy"),
    "sign": ("sign", "verify --key"),
    "sweep": ("sweep",),
    "onnx": ("export", "check and profile of .onnx", "deploy"),
    "tflite": ("quantize", "export", "check and profile of .tflite", "deploy"),
    "npu": ("profile for Ethos-U",),
    "qat": ("[quantize.qat]",),
}
DISK_MIB = 2048
MEMORY_MIB = 4096
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        group: under which heading it stands.
        name: of the thing.
        ok: whether it is there and works.
        found: version, size or what went wrong.
        mend: the command that mends a lack, empty where nothing lacks.
        needed_by: what waits for it.
        essential: whether nothing can be done without it.
    """

    group: str
    name: str
    ok: bool
    found: str
    mend: str = ""
    needed_by: tuple[str, ...] = ()
    essential: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "name": self.name,
            "ok": self.ok,
            "found": self.found,
            "mend": self.mend,
            "needed_by": list(self.needed_by),
            "essential": self.essential,
        }


@dataclass(frozen=True)
class Diagnosis:
    """All checks, and the machine they were made on."""

    host: HostFacts
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing essential is lacking."""
        return not any(check.essential and not check.ok for check in self.checks)

    @property
    def lacks(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.ok)

    def text(self) -> str:
        memory = "" if self.host.memory_mib is None else f", {self.host.memory_mib / 1024:.1f} GiB"
        lines = [f"{self.host.cpu}, {self.host.cores} cores{memory}, {self.host.system}, Python {self.host.python}"]
        width = max(len(check.name) for check in self.checks)
        group = ""
        for check in self.checks:
            if check.group != group:
                group = check.group
                lines += ["", group]
            mark = "ok   " if check.ok else "LACKS"
            lines.append(f"  {mark} {check.name.ljust(width)}  {check.found}")
            if not check.ok:
                lines.append(f"        needed by {', '.join(check.needed_by)}; mend: {check.mend}")
        lines += ["", self._verdict()]
        return "\n".join(lines)

    def _verdict(self) -> str:
        if not self.ok:
            return "Something essential is lacking: mend it before anything else."
        if not self.lacks:
            return "Nothing is lacking."
        return f"The core works; {len(self.lacks)} things that some uses need are lacking."

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "host": self.host.to_json(), "checks": [check.to_json() for check in self.checks]}


def doctor(target: str | None = None, *, progress: Progress = SILENT) -> Diagnosis:
    """Look at this machine; with a target's name or file, what that target needs becomes essential.

    Raises:
        EdgeError: no such target.
    """
    wanted = None if target is None else find_target(target)
    checks: list[Check] = []
    with progress.bar("looking", total=0) as advance:
        for check in _checks(wanted):
            checks.append(check)
            advance(1)
    return Diagnosis(host_facts(), tuple(checks))


def _checks(target: Target | None) -> Iterator[Check]:
    yield _python()
    for extra, requirements in required_packages().items():
        for requirement in requirements:
            yield _package(extra, requirement)
    if find_spec("tflite_runtime") is not None:
        yield _tflite_runtime()
    yield _c_compiler()
    yield from _tools(target)
    yield _disk()
    yield _memory()
    yield _numba_cache()


def _python() -> Check:
    ok = sys.version_info[:2] >= OLDEST_PYTHON
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Check(
        "Core",
        "Python",
        ok,
        ".".join(map(str, sys.version_info[:3])),
        mend="" if ok else f"install Python {wanted} or newer and {PACKAGE} into it",
        needed_by=VERBS_OF_EXTRAS[""],
        essential=True,
    )


@dataclass(frozen=True)
class Requirement:
    """A package and the oldest version that will do."""

    name: str
    oldest: str = ""

    def met_by(self, version: str) -> bool:
        return _numbers(version) >= _numbers(self.oldest)


def required_packages() -> dict[str, list[Requirement]]:
    """What each extra of the installed package requires; the core stands under the empty name."""
    found: dict[str, list[Requirement]] = {extra: [] for extra in VERBS_OF_EXTRAS}
    try:
        lines = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise EdgeError(f"{PACKAGE} runs from a folder and is not installed; pip install it, then ask again.") from None
    for line in lines:
        name, _, marker = line.partition(";")
        extra = re.search(r"extra == [\"']([^\"']+)", marker)
        match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*(?:>=\s*([^,\s]+))?", name)
        key = extra[1] if extra else ""
        if match and key in found and match[1] != PACKAGE:
            found[key].append(Requirement(match[1], match[2] or ""))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    """Enough of a version to compare release numbers, dates of nightly builds included."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0]))


def _package(extra: str, requirement: Requirement) -> Check:
    version = installed_version(requirement.name)
    wrong: str | None
    if version is None:
        wrong = "not installed"
    elif not requirement.met_by(version):
        wrong = f"{version}, too old: {requirement.oldest} is needed"
    elif requirement.name in PROBES:
        wrong = probe(requirement.name)
        wrong = wrong and f"{version} is installed and does not work: {wrong}"
    else:
        wrong = None
    works = " (ran a model)" if requirement.name in PROBES and requirement.name != "numba" else ""
    again = " --force-reinstall" if wrong and version is not None else ""
    package = f"{PACKAGE}[{extra}]" if extra else PACKAGE
    mend = f"pip install '{package}'" if not again else f"pip install{again} --no-deps '{requirement.name}'"
    if requirement.name == "torch" and version is None:
        mend = f"pip install torch==2.13.0 && {mend}"
    return Check(
        f"Extra [{extra}]" if extra else "Core",
        requirement.name,
        wrong is None,
        wrong or f"{version}{works}",
        mend="" if wrong is None else mend,
        needed_by=VERBS_OF_EXTRAS[extra],
        essential=not extra,
    )


def _tflite_runtime() -> Check:
    """`tflite-runtime` was built for numpy 1: under numpy 2 its import succeeds and the interpreter then dies."""
    wrong = probe("tflite-runtime")
    return Check(
        "Extra [tflite]",
        "tflite-runtime",
        wrong is None,
        wrong or f"{installed_version('tflite-runtime')} (ran a model)",
        mend="" if wrong is None else "pip uninstall tflite-runtime  # ai-edge-litert replaces it",
        needed_by=("nothing here",),
    )


def _c_compiler() -> Check:
    name = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    wrong = "not found" if name is None else _compiles(name)
    found = wrong or (_first_line([name or "", "--version"]))
    mend = "" if wrong is None else _install("build-essential")
    return Check("Tools", "C compiler", wrong is None, found, mend, ("tests of the C signal chain and kernels",))


def _compiles(compiler: str) -> str | None:
    """None when a C99 program can be compiled and linked, else what went wrong."""
    program = "#include <stdint.h>\n#include <math.h>\nint main(void) { return (int)(uint8_t)sqrt(0.0); }\n"
    with tempfile.TemporaryDirectory() as folder:
        command = [compiler, "-std=c99", "-x", "c", "-", "-o", str(Path(folder) / "probe"), "-lm"]
        done = subprocess.run(command, input=program, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return f"{compiler} cannot compile a program: {(done.stderr.strip().splitlines() or ['no message'])[0]}"


def _tools(target: Target | None) -> Iterator[Check]:
    """Tools for boards; those that `target` needs are essential when it is asked about."""
    for_boards = target is not None and target.kind in ("mcu", "emulated")
    arm = for_boards and target is not None and target.core.startswith("cortex-m")
    emulated = target is not None and target.kind == "emulated"
    yield _arm_compiler(essential=arm)
    yield _tool("qemu-system-arm", "qemu-system-arm", ("emulated boards",), essential=emulated)
    for_phones = ("bridge --verify for phones",)
    aarch64 = _tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", for_phones, essential=False)
    yield _with_libc(aarch64, "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross")
    yield _tool("qemu-aarch64-static", "qemu-user-static", for_phones, essential=False)
    if target is not None and target.core == "xtensa-lx7":
        path = shutil.which("xtensa-esp32s3-elf-gcc") or shutil.which("xtensa-esp-elf-gcc")
        found = _first_line([path, "--version"]) if path else "not found"
        mend = "" if path else "install ESP-IDF and source its export.sh"
        yield Check(
            "Tools", "xtensa-esp32s3-elf-gcc", path is not None, found, mend, (f"firmware for {target.name}",), True
        )
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    version = _first_line([browser, "--version"]) if browser else ""
    yield Check(
        "Tools",
        "chromium",
        bool(version),
        version or "not found",
        "" if version else _install("chromium", "fonts-dejavu-core"),
        ("the test that opens report.html",),
    )


def _arm_compiler(*, essential: bool) -> Check:
    compiler = _tool("arm-none-eabi-gcc", "gcc-arm-none-eabi", ("firmware for Cortex-M",), essential=essential)
    return _with_libc(compiler, "gcc-arm-none-eabi", "libnewlib-arm-none-eabi")


def _with_libc(compiler: Check, package: str, library: str) -> Check:
    """Debian packs the C library apart: without it the compiler starts and finds no header."""
    if not compiler.ok:
        return replace(compiler, mend=_install(package, library))
    if Path(_first_line([compiler.name, "-print-file-name=libc.a"])).is_absolute():
        return compiler
    return replace(compiler, ok=False, found=f"{compiler.found}, without {library}", mend=_install(library))


def _tool(command: str, package: str, needed_by: tuple[str, ...], *, essential: bool) -> Check:
    version = _first_line([command, "--version"]) if shutil.which(command) else ""
    mend = "" if version else _install(package)
    return Check("Tools", command, bool(version), version or "not found", mend, needed_by, essential)


def _disk() -> Check:
    free_mib = shutil.disk_usage(Path.cwd()).free // 2**20
    ok = free_mib >= DISK_MIB
    mend = "" if ok else f"free {DISK_MIB - free_mib} MiB, or run where there is room"
    return Check(
        "Machine", "disk space here", ok, f"{free_mib / 1024:.1f} GiB free", mend, ("train", "distill", "deploy")
    )


def _memory() -> Check:
    memory = host_facts().memory_mib
    ok = memory is None or memory >= MEMORY_MIB
    found = "unknown" if memory is None else f"{memory / 1024:.1f} GiB"
    mend = "" if ok else "use a machine with 4 GiB, or a recipe with smaller batches"
    return Check("Machine", "memory", ok, found, mend, ("train", "distill", "prune", "deploy"))


def _numba_cache() -> Check:
    """numba keeps compiled functions in NUMBA_CACHE_DIR, else beside the module, else in the user's cache folder."""
    import embridge_edge

    chosen = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(embridge_edge.__file__).parent
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folders = [Path(chosen)] if chosen else [beside, home]
    folder = next((folder for folder in folders if _writable(folder)), None)
    return Check(
        "Machine",
        "numba's cache",
        folder is not None,
        str(folder)
        if folder
        else f"cannot write to {' or '.join(map(str, folders))}: everything compiles anew each time",
        "" if folder else "export NUMBA_CACHE_DIR=/a/folder/you/may/write",
        ("speed of every verb that reads signals",),
    )


def _writable(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            return True
    return False


def _install(*packages: str) -> str:
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        return f"install {names} with this system's package manager"
    sudo = "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install {names}"


def _first_line(command: Sequence[str]) -> str:
    """The first line that a command prints, empty where it does not run."""
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else ""


@click.command("doctor")
@click.option("--target", default=None, metavar="NAME|FILE", help="Ask for what this target needs as well.")
@common_options
@click.pass_context
def command(context: click.Context, target: str | None, common: Common) -> None:
    """Say what this machine has, what it lacks, and what mends it.

    Exit status 2 where something is lacking without which nothing works, or which --target needs.
    """
    diagnosis = doctor(target, progress=common.progress)
    show(diagnosis, common)
    if not diagnosis.ok:
        context.exit(WRONG_INPUT)
