"""A target is checked when it is made; the shipped ones are all possible."""

from __future__ import annotations

from importlib import resources, util
from pathlib import Path
from typing import Any

import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.hardware.target import (
    CORES,
    Current,
    Target,
    all_targets,
    find_target,
    fits,
    runtimes,
    shipped_targets,
)


def a_target(**changes: Any) -> Target:
    values: dict[str, Any] = {
        "name": "board",
        "title": "A board",
        "kind": "mcu",
        "core": "cortex-m4",
        "runtime": runtimes()["tflm"],
        "flags": frozenset({"fp32"}),
        "clock_mhz": 64,
        "flash_kib": 1024,
        "ram_kib": 256,
    }
    return Target(**{**values, **changes})


@pytest.mark.parametrize("name", shipped_targets())
def test_every_shipped_target_can_be_made_and_says_where_it_is_from(name: str) -> None:
    target = find_target(name)
    assert target.name == name
    assert target.notes
    assert target.kind != "mcu" or (target.clock_mhz and target.flash_kib and target.ram_kib)
    assert target.kind != "emulated" or not target.current


def test_shipped_targets_cover_every_family() -> None:
    assert {target.core for target in all_targets()} >= set(CORES)
    assert {"qemu-m0", "qemu-m3", "qemu-m4", "qemu-m7", "qemu-m33", "qemu-m55", "host", "phone-arm64"} <= set(
        shipped_targets()
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"flags": frozenset({"mve"})}, "a cortex-m4 has no mve; it may have dsp, fp32"),
        ({"flags": frozenset({"fp32", "fp64"})}, "a cortex-m4 has no fp64"),
        ({"core": "cortex-m3"}, "a cortex-m3 has no fp32; it may have no flags"),
        ({"core": "cortex-m7", "flags": frozenset({"fp64"})}, "fp64 needs fp32 as well"),
        ({"core": "cortex-m55", "flags": frozenset({"mve", "mve-float"})}, "mve-float needs fp32 as well"),
        ({"core": "cortex-m99"}, "core 'cortex-m99' is unknown; choose one of cortex-m0plus"),
        ({"kind": "toaster"}, "kind 'toaster' is unknown; choose one of mcu"),
        ({"clock_mhz": 0}, "clock_mhz must be positive, not 0"),
        ({"clock_mhz": float("nan")}, "clock_mhz must be positive, not nan"),
        ({"flash_kib": None}, "flash_kib is missing"),
        ({"ram_kib": -1}, "ram_kib must be positive"),
        ({"application_ram_kib": 256}, "application_ram_kib is 256 of 256 KiB: nothing is left for a model"),
        ({"application_flash_kib": 2000}, "application_flash_kib is 2000 of 1024 KiB"),
        ({"application_flash_kib": -1}, "application_flash_kib is -1"),
        ({"kind": "emulated"}, "an emulated target, and no other, names its QEMU machine"),
        ({"machine": "mps2-an386"}, "an emulated target, and no other, names its QEMU machine"),
        ({"current": {"asleep": Current(1, "a datasheet")}}, "current of 'asleep' is unknown"),
        ({"current": {"sleep": Current(0, "a datasheet")}}, "needs a positive number of mA and its source"),
        ({"current": {"sleep": Current(1, "")}}, "needs a positive number of mA and its source"),
        ({"name": ""}, "name '' is empty"),
    ],
)
def test_impossible_target_cannot_be_made(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(EdgeError) as raised:
        a_target(**changes)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_core_brings_the_flags_that_it_always_has() -> None:
    assert a_target(flags=frozenset()).flags == {"dsp"}


def test_model_fits_when_not_larger_than_what_the_application_leaves() -> None:
    target = a_target(application_flash_kib=1000, application_ram_kib=200)
    assert fits(target, 24 * 1024, 56 * 1024).ok
    assert not fits(target, 24 * 1024 + 1, 0).flash_ok
    assert not fits(target, 0, 56 * 1024 + 1).ram_ok


def test_fit_says_by_how_much_it_misses() -> None:
    assert "RAM 300.0 of 256.0 KiB free is 44.0 KiB too much" in fits(a_target(), 0, 300 * 1024).text()


def test_anything_fits_where_there_is_no_budget() -> None:
    report = fits(find_target("host"), 10**12, 10**12)
    assert report.ok
    assert report.to_json()["flash_budget_bytes"] is None


def test_unknown_target_lists_the_choices_and_the_nearest() -> None:
    with pytest.raises(
        EdgeError, match=r"Unknown target 'nrf52480'; Did you mean nrf52840\? choose one of ensemble-e3"
    ):
        find_target("nrf52480")


def test_file_of_ones_own_may_be_based_on_a_shipped_target(tmp_path: Path) -> None:
    path = tmp_path / "armband.toml"
    path.write_text('based_on = "nrf52840"\napplication_flash_kib = 420\napplication_ram_kib = 96\n', encoding="utf-8")
    target = find_target(str(path))
    assert (target.name, target.core, target.free_flash_kib, target.free_ram_kib) == ("nrf52840", "cortex-m4", 604, 160)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flash_kib = ", "is not valid TOML"),
        ('based_on = "nrf9999"', "based_on 'nrf9999' is unknown; choose one of"),
        ('based_on = "nrf52840"\nflsh_kib = 3', "unknown key 'flsh_kib'; choose from name"),
        ('based_on = "nrf52840"\nflash_kib = "much"', "flash_kib = 'much' is not of the right type"),
        ('based_on = "nrf52840"\nclock_mhz = true', "clock_mhz = True is not of the right type"),
        ('based_on = "nrf52840"\nflags = [3]', "flags must be a list of texts"),
        ('based_on = "nrf52840"\nruntime = "tvm"', "runtime 'tvm' is unknown; choose one of litert, tflm"),
        ('based_on = "nrf52840"\n[current]\nactive = 3', "current of active must be"),
        ('kind = "mcu"', "core is missing"),
        ('based_on = "nrf52840"\nflags = ["mve"]', "a cortex-m4 has no mve"),
    ],
)
def test_wrong_file_says_where_and_what(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EdgeError) as raised:
        find_target(str(path))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tflm_lacks_what_is_known_to_be_lacking() -> None:
    tflm = runtimes()["tflm"]
    assert tflm.lacks(["CONV_2D", "GELU", "SIGN", "GELU"]) == ("GELU", "SIGN")
    assert tflm.lacks(["SQRT"], "int8") == ("SQRT",)
    assert tflm.lacks(["SQRT"], "float32") == ()
    assert runtimes()["litert"].lacks(["GELU"]) == ()


def test_every_op_that_tflm_is_said_to_run_is_registered_in_its_library() -> None:
    spec = util.find_spec("tflite_micro")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs tflite-micro: pip install embridge-edge[tflite]")
    (library,) = Path(next(iter(spec.submodule_search_locations))).rglob("_runtime*.so")
    content = library.read_bytes()
    ops = runtimes()["tflm"].ops
    assert ops is not None
    # The symbol of a function's name in the Itanium C++ ABI: its length, itself, and then the end of the nested name.
    missing = [op for op in ops if f"{len('Register_' + op)}Register_{op}E".encode() not in content]
    assert missing == []


def test_all_toml_files_of_the_folder_are_targets() -> None:
    folder = resources.files("embridge_edge.hardware.targets")
    names = {path.name.removesuffix(".toml") for path in folder.iterdir() if path.name.endswith(".toml")}
    assert names == {target.name for target in all_targets()}
