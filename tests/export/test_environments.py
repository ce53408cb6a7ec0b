"""Environments of their own: made once, whole or not at all, by one process at a time. The packages are tiny wheels made here."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.export.environments import PLACE, READY, Environment, environments_folder, interpreter_of

HERE = (sys.version_info[0], sys.version_info[1])


def tiny(**changes: object) -> Environment:
    plain = Environment("tiny", "the tiny environment", ("tinytool",), "tinytool==1.0\n", HERE, "import tinytool", 1)
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def write_wheel(folder: Path, name: str, code: str, big: int = 0) -> None:
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        for place in range(big):
            wheel.writestr(f"{name}_data/{place}.bin", b"0" * 64)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, which is all that pip may look into; environments go to `tmp_path/made`."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(folder, "tinytool", "answer = 42\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv(PLACE, str(tmp_path / "made"))
    return folder


def printed(python: Path, code: str) -> str:
    return subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_environment_is_made_once_and_found_again(index: Path, tmp_path: Path) -> None:
    python = interpreter_of(tiny())
    assert python.is_relative_to(tmp_path / "made")
    assert printed(python, "import tinytool; print(tinytool.answer)") == "42"
    made = (tiny().folder / READY).stat().st_mtime_ns
    (index / "tinytool-1.0-py3-none-any.whl").unlink()  # with this it could not be made again
    assert interpreter_of(tiny()) == python
    assert (tiny().folder / READY).stat().st_mtime_ns == made


def test_nothing_of_the_toolkit_is_seen_inside(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    python = interpreter_of(
        tiny(proof="import tinytool, importlib.util as u, sys; sys.exit(u.find_spec('numpy') is not None)")
    )
    monkeypatch.delenv("PYTHONPATH")
    assert (
        printed(python, "import importlib.metadata as m; print(*[one.name for one in m.distributions()])") == "tinytool"
    )


def test_other_pins_are_another_environment(index: Path) -> None:
    folders = {tiny().folder, tiny(constraints="tinytool==2.0\n").folder, tiny(packages=("tinytool", "more")).folder}
    assert len(folders) == 3


def test_environment_whose_python_is_gone_is_made_again(index: Path) -> None:
    python = interpreter_of(tiny())
    python.unlink()
    python.symlink_to("/nonexistent/python")
    assert not tiny().is_ready
    assert printed(interpreter_of(tiny()), "import tinytool; print(tinytool.answer)") == "42"


def test_package_that_a_killed_pip_left_half_is_installed_again(index: Path) -> None:
    python = interpreter_of(tiny())
    (tiny().folder / READY).unlink()
    about = next(tiny().folder.glob("lib/python*/site-packages/tinytool-1.0.dist-info"))
    (about / "INSTALLER").unlink()
    (about.parent / "tinytool.py").unlink()
    assert printed(interpreter_of(tiny()), "import tinytool; print(tinytool.answer)") == "42"
    assert python == tiny().interpreter


MAKE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background, as a suite may be, ignores
from embridge_edge.export.environments import Environment, interpreter_of
from embridge_edge.progress import Progress
title, name, proof = sys.argv[1:]
made = Environment("tiny", title, (name,), name + "==1.0\\n", sys.version_info[:2], proof, 1)
print(interpreter_of(made, Progress(quiet=False)))
"""


def making(name: str = "tinytool", proof: str = "import tinytool") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAKE, "the tiny environment", name, proof]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_of_two_processes_one_makes_it_and_the_other_waits(index: Path) -> None:
    proof = "import time; time.sleep(1.5)"
    first = making(proof=proof)
    wait_for(tiny(proof=proof).log.exists)
    second = making(proof=proof)
    (out_1, err_1), (out_2, err_2) = first.communicate(timeout=120), second.communicate(timeout=120)
    assert first.returncode == second.returncode == 0, err_1 + err_2
    assert out_1 == out_2 == f"{tiny(proof=proof).interpreter}\n"
    assert "making the tiny environment" in err_1
    assert "another process makes the tiny environment; waiting" in err_2 and "making the tiny" not in err_2


def test_killed_one_is_not_taken_for_whole_and_the_next_call_finishes_it(index: Path) -> None:
    write_wheel(index, "largetool", "answer = 42\n", big=20_000)
    large = tiny(packages=("largetool",), constraints="largetool==1.0\n", proof="import largetool")
    killed = making("largetool", "import largetool")
    wait_for(lambda: any(large.folder.glob("lib/python*/site-packages/largetool_data/*")))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not large.is_ready
    python = interpreter_of(large)  # waits for the pip that outlived its parent, which holds the lock
    assert printed(python, "import largetool; print(largetool.answer)") == "42"
    assert len(list(large.folder.glob("lib/python*/site-packages/largetool_data/*.bin"))) == 20_000


def wait_for(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"packages": ("no-such-tool",), "constraints": ""},
            r"cannot be filled \(Could not find a version that satisfies the requirement no-such-tool .*\); pip's package index is out of reach",
        ),
        (
            {"proof": "import nowhere"},
            r"cannot be used \(ModuleNotFoundError: No module named 'nowhere'\); read .*\.log; to begin",
        ),
        (
            {"python": (3, 99)},
            r"needs Python 3\.99, and there is none that works; install it \(apt-get install python3\.99",
        ),
        ({"room_mib": 1 << 40}, r"needs 1099511627776 MiB in .*, and \d+ are free; free some, or name another folder"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_what_next(index: Path, changes: dict[str, object], says: str) -> None:
    environment = tiny(**changes)
    with pytest.raises(EdgeError, match=says) as caught:
        interpreter_of(environment)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("The tiny environment ")
    assert not environment.is_ready
    if "packages" in changes:
        write_wheel(index, "no_such_tool", "tinytool = 1\n")
        write_wheel(index, "tinytool", "answer = 42\n")
        interpreter_of(dataclasses.replace(environment, proof="import no_such_tool"))


def test_folder_that_cannot_be_written_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(PLACE, str(tmp_path / "file" / "inside"))
    with pytest.raises(EdgeError, match=f"Cannot write .*name another folder with {PLACE}=FOLDER"):
        interpreter_of(tiny())


def test_place_is_the_users_cache_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(PLACE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environments_folder() == tmp_path / "embridge-edge" / "environments"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert environments_folder() == Path.home() / ".cache" / "embridge-edge" / "environments"
    monkeypatch.setenv(PLACE, "here")
    assert environments_folder() == Path.cwd() / "here"


def test_interrupting_ends_what_was_started(index: Path) -> None:
    process = making(proof="import time; time.sleep(60)")
    environment = tiny(proof="import time; time.sleep(60)")
    wait_for(lambda: any(environment.folder.glob("lib/python*/site-packages/tinytool-1.0.dist-info/RECORD")))
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    assert not environment.is_ready
    with environment.folder.with_name(f"{environment.folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any longer
