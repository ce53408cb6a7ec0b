"""Latency on this machine, and the facts that stand beside it."""

from __future__ import annotations

import getpass
import json
import platform
import time
from pathlib import Path

import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.hardware.host import SOURCE, cpu_name, host_facts, installed_version, latency_of, measure_latency


def test_percentiles_are_measured_times() -> None:
    latency = latency_of([float(value) for value in range(100, 0, -1)], "a processor")
    assert (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.min_ms) == (50, 90, 99, 1)
    assert (latency.mean_ms, latency.n, latency.source) == (50.5, 100, SOURCE)


def test_one_time_is_every_percentile() -> None:
    latency = latency_of([3.0], "a processor")
    assert latency.p50_ms == latency.p99_ms == latency.min_ms == 3.0


def test_warm_up_is_not_counted() -> None:
    calls: list[int] = []
    latency = measure_latency(lambda: calls.append(1), warmup=3, repeats=5, budget_s=10)
    assert len(calls) == 8
    assert latency.n == 5


def test_latency_is_about_what_the_function_takes() -> None:
    latency = measure_latency(lambda: time.sleep(0.002), warmup=1, repeats=5, budget_s=5)
    assert 2.0 <= latency.min_ms <= latency.p50_ms


def test_budget_ends_a_slow_measurement() -> None:
    latency = measure_latency(lambda: time.sleep(0.02), warmup=100, repeats=10_000, budget_s=0.1)
    assert 1 <= latency.n <= 6


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"warmup": -1}, {"budget_s": 0.0}])
def test_measurement_of_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(EdgeError, match="at least one repeat"):
        measure_latency(lambda: None, **wrong)  # type: ignore[arg-type]


def test_processor_is_named_even_where_the_system_says_nothing(tmp_path: Path) -> None:
    assert cpu_name(tmp_path / "missing") == (platform.processor() or platform.machine())
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nModel : Raspberry  Pi Zero 2 W\n", encoding="utf-8")
    assert cpu_name(cpuinfo) == "Raspberry Pi Zero 2 W"


def test_facts_name_neither_the_machine_nor_its_user() -> None:
    text = json.dumps(host_facts().to_json())
    assert Path.home().as_posix() not in text
    assert f'"{platform.node()}"' not in text
    assert f'"{getpass.getuser()}"' not in text


def test_versions_are_those_installed() -> None:
    assert host_facts().versions["numpy"] == installed_version("numpy")
    assert installed_version("no-such-distribution") is None
