"""The machine that runs the command: what it is, and wall-clock latency on it."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from embridge_edge.errors import EdgeError

SOURCE = "host wall clock"
LIBRARIES = ("numpy", "numba", "torch", "ai-edge-litert", "ai-edge-quantizer", "onnxruntime", "tflite-micro")


@dataclass(frozen=True)
class Latency:
    """Times of repeated runs, in milliseconds, on the machine named by `cpu`."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    mean_ms: float
    n: int
    cpu: str
    source: str = SOURCE

    def text(self) -> str:
        return f"{self.p50_ms:.3f} ms (p99 {self.p99_ms:.3f} ms, {self.n} runs, {self.source}, {self.cpu})"

    def to_json(self) -> dict[str, Any]:
        return {
            "p50_ms": self.p50_ms,
            "p90_ms": self.p90_ms,
            "p99_ms": self.p99_ms,
            "min_ms": self.min_ms,
            "mean_ms": self.mean_ms,
            "n": self.n,
            "cpu": self.cpu,
            "source": self.source,
        }


def measure_latency(
    run: Callable[[], object], *, warmup: int = 10, repeats: int = 500, budget_s: float = 5.0, cpu: str = ""
) -> Latency:
    """Time `run` until it has run `repeats` times or `budget_s` is spent, whichever comes first; at least once.

    The first runs, up to `warmup` of them and a fifth of the budget, fill caches and are not counted.
    """
    if repeats < 1 or warmup < 0 or not budget_s > 0:
        raise EdgeError("A latency needs at least one repeat, no negative warm-up and a positive budget in seconds.")
    start = time.perf_counter()
    for _ in range(warmup):
        run()
        if time.perf_counter() - start > budget_s / 5:
            break
    times_ns: list[int] = []
    end = time.perf_counter() + budget_s
    for _ in range(repeats):
        begin = time.perf_counter_ns()
        run()
        times_ns.append(time.perf_counter_ns() - begin)
        if time.perf_counter() > end:
            break
    return latency_of([value / 1e6 for value in times_ns], cpu or cpu_name())


def latency_of(times_ms: Sequence[float], cpu: str) -> Latency:
    """Summarise measured times; a percentile is the smallest time that so many of them do not exceed."""
    ordered = sorted(times_ms)

    def percentile(share: float) -> float:
        return ordered[math.ceil(share * len(ordered)) - 1]

    return Latency(
        p50_ms=percentile(0.50),
        p90_ms=percentile(0.90),
        p99_ms=percentile(0.99),
        min_ms=ordered[0],
        mean_ms=sum(ordered) / len(ordered),
        n=len(ordered),
        cpu=cpu,
    )


@dataclass(frozen=True)
class HostFacts:
    """What a measurement on this machine must name; neither the machine's name nor its user's."""

    cpu: str
    cores: int
    memory_mib: int | None
    system: str
    machine: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "cpu": self.cpu,
            "cores": self.cores,
            "memory_mib": self.memory_mib,
            "system": self.system,
            "machine": self.machine,
            "python": self.python,
            "versions": dict(self.versions),
        }


def host_facts() -> HostFacts:
    """Facts about this machine, without importing anything heavy."""
    return HostFacts(
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_mib=memory_mib(),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        python=platform.python_version(),
        versions={name: version for name in LIBRARIES if (version := installed_version(name))},
    )


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mib() -> int | None:
    """Physical memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):
        return None


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system gives it, else its architecture."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            name, colon, value = line.partition(":")
            if colon and name.strip() == key and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine()
