"""Whatever is wrong is one line on stderr and a status that scripts can rely on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest

from embridge_edge import __version__
from embridge_edge.artifacts import written_by_rename
from embridge_edge.cli import VERBS, run
from embridge_edge.errors import EdgeError, GateMissed
from embridge_edge.verbs.options import Common, common_options

Edge = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    """Run the program in a process of its own, in an empty folder."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "embridge_edge", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )

    return call


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Put a function in place of what `targets` does."""

    def replace(function: Callable[[], object]) -> None:
        @click.command("targets")
        @common_options
        def command(common: Common) -> None:
            function()

        module = ModuleType("embridge_edge.verbs.targets")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return replace


def raising(error: BaseException) -> Callable[[], object]:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspct"], "Unknown verb 'inspct'; choose one of inspect, synth,"),
        (["--frobnicate"], "No such option '--frobnicate'; see embridge-edge --help."),
        (["targets", "--xyzzy"], "No such option '--xyzzy'; see embridge-edge targets --help."),
        (["targets", "--jsn"], "No such option '--jsn'. Did you mean '--json'? see embridge-edge targets --help."),
        (["targets", "nrf52840"], "Got unexpected extra argument (nrf52840); see embridge-edge targets --help."),
        (["targets", "--seed", "-1"], "Invalid value for '--seed'"),
        (["doctor", "--target", "toaster"], "Unknown target 'toaster'; choose one of"),
        (["profile"], "Missing argument 'ARTIFACT'; see embridge-edge profile --help."),
        (["profile", "no-such.tflite"], "no-such.tflite"),
        (["inspect", "no-such-folder"], "no-such-folder"),
        (["check", "no-such.tflite", "--data", "nowhere", "--split", "session"], "no-such.tflite"),
        (["deploy", "--recipe", "demo", "--out", "x"], "Missing option '--data'"),
    ],
)
def test_wrong_call_is_one_line_with_status_2(edge: Edge, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = edge(*arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stderr.startswith("embridge-edge: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_no_verb_prints_the_verbs_with_status_2(edge: Edge) -> None:
    done = edge()
    assert done.returncode == 2
    assert all(verb in done.stderr for verb in VERBS)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["targets", "--help"]])
def test_what_is_asked_for_has_status_0(edge: Edge, arguments: list[str]) -> None:
    done = edge(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_version_is_the_packages(edge: Edge) -> None:
    assert __version__ in edge("--version").stdout


@pytest.mark.parametrize("arguments", [["targets", "--json"], ["doctor", "--json"]])
def test_json_is_one_object_and_nothing_else(edge: Edge, arguments: list[str]) -> None:
    done = edge(*arguments)
    assert done.returncode == 0
    assert isinstance(json.loads(done.stdout), dict)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (EdgeError("The recording\nhas 7 channels; use 8."), 2, "embridge-edge: The recording has 7 channels; use 8."),
        (GateMissed("class_flips is 0.05, at most 0.03."), 3, "embridge-edge: class_flips is 0.05, at most 0.03."),
        (KeyboardInterrupt(), 130, "embridge-edge: Interrupted; run the same command again"),
        (
            PermissionError(13, "Permission denied", "secret.h5"),
            2,
            "embridge-edge: Cannot use secret.h5: Permission denied",
        ),
        (OSError(28, "No space left on device"), 2, "embridge-edge: Cannot use: No space left on device"),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
        (
            ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"),
            2,
            "embridge-edge: This needs torch, which is not installed; pip install 'embridge-edge[train]'.",
        ),
    ],
)
def test_each_error_has_its_status(
    error: BaseException, status: int, says: str, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(error))
    stdout, stderr = sys.stdout, sys.stderr
    try:
        assert run(["targets"]) == status
    finally:
        sys.stdout, sys.stderr = stdout, stderr  # click puts wrappers there when a pipe breaks
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == bool(says)
    assert "".join(lines).startswith(says)


def test_exit_of_a_library_is_not_taken_for_success(verb: Callable[..., None]) -> None:
    verb(raising(SystemExit("boom")))
    with pytest.raises(SystemExit, match="boom"):
        run(["targets"])


def test_defect_keeps_its_traceback(verb: Callable[..., None]) -> None:
    verb(raising(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError):
        run(["targets"])


def test_full_disk_is_one_line_with_status_2(
    verb: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> None:
        with written_by_rename(tmp_path / "report.html") as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise OSError(28, "No space left on device")

    verb(write)
    assert run(["targets"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_full_disk_behind_stdout_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "embridge_edge", "targets"]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", ["", "--help", "targets", "targets --json"])
def test_reader_that_leaves_early_is_no_error(tmp_path: Path, arguments: str) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    script = f'"{sys.executable}" -m embridge_edge {arguments} | true; echo "status ${{PIPESTATUS[0]}}" >&2'
    done = subprocess.run([bash, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == f"status {0 if arguments else 2}"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("module", ["click", "embridge_edge.cli", "embridge_edge.verbs.targets"])
def test_ctrl_c_while_the_program_loads_ends_with_130_and_one_line(tmp_path: Path, module: str) -> None:
    code = f"""
import os, runpy, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it

class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressed())
sys.argv[1:] = ["targets"]
runpy.run_module("embridge_edge", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "embridge-edge: Interrupted; run the same command again to go on where it stopped."


@pytest.mark.parametrize("when", ["before", "behind"])
def test_ctrl_c_around_the_program_ends_with_130_and_one_line(tmp_path: Path, when: str) -> None:
    code = f"""
import os, runpy, signal, sys, atexit
import embridge_edge.cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
pressed = lambda: os.kill(os.getpid(), signal.SIGINT)
if {when == "before"}:
    embridge_edge.cli.run = pressed
else:
    embridge_edge.cli.run = lambda: 0
    atexit.register(pressed)
runpy.run_module("embridge_edge", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "embridge-edge: Interrupted; run the same command again to go on where it stopped."


SLOW_VERB = """
import sys, time
from pathlib import Path
from types import ModuleType
import click
from embridge_edge.artifacts import folder_written_by_rename, written_by_rename
from embridge_edge.verbs.options import common_options

@click.command("targets")
@common_options
def command(common):
    with folder_written_by_rename(Path("folder")) as folder, written_by_rename(Path("file")) as file:
        (folder / "half").touch()
        file.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

module = ModuleType("embridge_edge.verbs.targets")
module.command = command
sys.modules[module.__name__] = module
from embridge_edge.cli import main
main(["targets"])
"""


def test_ctrl_c_ends_with_130_one_line_and_nothing_half_written(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_VERB],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (a job in the background ignores it)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip().splitlines() == [
        "embridge-edge: Interrupted; run the same command again to go on where it stopped."
    ]
    assert list(tmp_path.iterdir()) == []
