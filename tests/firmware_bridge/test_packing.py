"""Which layout of weights a target gets; what a layout holds is tested with its kernels."""

from __future__ import annotations

import dataclasses

import pytest

from embridge_edge.firmware_bridge.packing import layout_for
from embridge_edge.firmware_bridge.program import Layout
from embridge_edge.hardware.target import find_target


@pytest.mark.parametrize(
    ("target", "layout"),
    [
        ("qemu-m0", "rows"),
        ("qemu-m3", "rows"),
        ("nrf52840", "pairs"),
        ("imxrt1062", "pairs"),
        ("stm32u575", "pairs"),
        ("ensemble-e3", "vectors"),
        ("esp32-s3", "rows"),
        ("host", "rows"),
    ],
)
def test_weights_lie_as_the_core_multiplies(target: str, layout: Layout) -> None:
    assert layout_for(find_target(target)) == layout


@pytest.mark.parametrize("name", ["stm32u575", "ensemble-e3"])
def test_a_core_without_its_extension_takes_rows(name: str) -> None:
    plain = dataclasses.replace(find_target(name), flags=frozenset({"fp32"}))
    assert layout_for(plain) == "rows"
