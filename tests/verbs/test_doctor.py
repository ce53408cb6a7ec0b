"""`embridge-edge doctor`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from embridge_edge.cli import run
from embridge_edge.errors import EdgeError
from embridge_edge.verbs import doctor as module
from embridge_edge.verbs.doctor import VERBS_OF_EXTRAS, Check, Diagnosis, Requirement, doctor, required_packages


@pytest.fixture
def without_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "probe", lambda name: None)


def named(diagnosis: Diagnosis, name: str) -> Check:
    return next(check for check in diagnosis.checks if check.name == name)


def test_this_machine_has_all_that_the_core_needs() -> None:
    diagnosis = doctor()
    assert diagnosis.ok
    assert [check.name for check in diagnosis.checks if check.group == "Core" and not check.ok] == []
    assert named(diagnosis, "numpy").essential


def test_every_lack_has_a_command_and_somebody_who_waits_for_it(without_probes: None) -> None:
    for check in doctor("qemu-m55").checks:
        assert check.ok == (check.mend == "")
        assert check.needed_by


def test_runtime_that_is_installed_and_dies_is_a_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "probe", lambda name: "ended the process with signal 11")
    check = named(doctor(), "tflite-micro")
    assert not check.ok
    assert "is installed and does not work: ended the process with signal 11" in check.found
    assert check.mend == "pip install --force-reinstall --no-deps 'tflite-micro'"
    assert "profile" in " ".join(check.needed_by)


def test_every_extra_is_looked_at() -> None:
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as stream:
        extras = set(tomllib.load(stream)["project"]["optional-dependencies"])
    assert set(VERBS_OF_EXTRAS) - {""} == extras - {"all", "dev"}


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, without_probes: None) -> None:
    monkeypatch.setattr(module, "installed_version", lambda name: None if name in ("torch", "onnx") else "999")
    diagnosis = doctor()
    assert diagnosis.ok
    assert named(diagnosis, "onnx").mend == "pip install 'embridge-edge[onnx]'"
    assert named(diagnosis, "torch").mend == "pip install torch==2.13.0 && pip install 'embridge-edge[train]'"


def test_missing_core_package_ends_with_status_2(
    monkeypatch: pytest.MonkeyPatch, without_probes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "installed_version", lambda name: None if name == "h5py" else "999")
    assert run(["doctor", "--quiet"]) == 2
    assert "LACKS h5py" in capsys.readouterr().out


def test_old_package_is_a_lack(monkeypatch: pytest.MonkeyPatch, without_probes: None) -> None:
    monkeypatch.setattr(module, "installed_version", lambda name: "0.1")
    assert "too old: 2.0 is needed" in named(doctor(), "numpy").found


def test_tools_are_essential_only_for_the_target_that_needs_them(
    monkeypatch: pytest.MonkeyPatch, without_probes: None
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert doctor().ok
    assert not doctor("nrf52840").ok
    assert doctor("host").ok
    assert "ESP-IDF" in named(doctor("esp32-s3"), "xtensa-esp32s3-elf-gcc").mend
    assert named(doctor(), "C compiler").mend.endswith("build-essential with this system's package manager")


def test_unknown_target_lists_the_choices() -> None:
    with pytest.raises(EdgeError, match="Unknown target 'toaster'; choose one of"):
        doctor("toaster")


def test_cache_that_cannot_be_written_is_a_lack(monkeypatch: pytest.MonkeyPatch, without_probes: None) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/no/such/place")
    check = named(doctor(), "numba's cache")
    assert not check.ok
    assert check.mend.startswith("export NUMBA_CACHE_DIR=")


@pytest.mark.parametrize(
    ("oldest", "version", "met"),
    [
        ("2.0", "2.4.6", True),
        ("2.6", "2.13.0+cpu", True),
        ("2.13", "2.6", False),
        ("0.dev20250101", "0.dev20261023182759", True),
        ("", "0.1", True),
    ],
)
def test_versions_compare_as_numbers(oldest: str, version: str, met: bool) -> None:
    assert Requirement("x", oldest).met_by(version) is met


def test_requirements_come_from_the_installed_package() -> None:
    required = required_packages()
    assert {"click", "numba", "numpy"} <= {requirement.name for requirement in required[""]}
    assert "ai-edge-litert" in {requirement.name for requirement in required["tflite"]}
    assert all(requirement.name != "embridge-edge" for listed in required.values() for requirement in listed)


def test_json_is_one_object(capsys: pytest.CaptureFixture[str], without_probes: None) -> None:
    assert run(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["ok"] is True


def test_doctor_never_imports_torch(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom embridge_edge.verbs.doctor import doctor\nimport embridge_edge.verbs.doctor as module\n"
        "module.probe = lambda name: None\ndoctor()\nsys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False).returncode == 0
