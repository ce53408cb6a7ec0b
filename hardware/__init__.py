"""What a model runs on: targets as values (`targets/*.toml`), the host as a target and how latency is measured on it, and boards,
of which the emulated ones are in `boards/`."""

from embridge_edge.hardware.host import HostFacts, Latency, host_facts, measure_latency
from embridge_edge.hardware.target import (
    FitReport,
    Runtime,
    Target,
    all_targets,
    find_target,
    fits,
    runtimes,
    shipped_targets,
)

__all__ = [
    "FitReport",
    "HostFacts",
    "Latency",
    "Runtime",
    "Target",
    "all_targets",
    "find_target",
    "fits",
    "host_facts",
    "measure_latency",
    "runtimes",
    "shipped_targets",
]
