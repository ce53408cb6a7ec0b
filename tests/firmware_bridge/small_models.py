"""A model small enough to compile in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embridge_edge.firmware_bridge.graph import Graph, read_graph
from embridge_edge.firmware_bridge.oracle import oracle_for
from embridge_edge.firmware_bridge.packages import selftest_inputs
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import Layout, Profile, Program
from tests.firmware_bridge.single_op import Spec, Values, constant, model_of

INPUTS, OUTPUTS = 12, 5
M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")


def dense_model(seed: int = 0, output_scale: float = 4.0) -> bytes:
    """A FULLY_CONNECTED of random weights; models of several seeds differ in nothing else."""
    rng = np.random.default_rng(seed)
    weights = constant(rng.integers(-127, 128, (OUTPUTS, INPUTS)), np.int8, 0.02)
    bias = constant(rng.integers(-2000, 2000, OUTPUTS), np.int32, 0.01)
    return model_of(
        "FULLY_CONNECTED",
        [Spec((1, INPUTS), scale=0.5, zero=3), weights, bias],
        [Spec((1, OUTPUTS), scale=output_scale, zero=-7)],
        ("FullyConnectedOptions", {}),
        version=4,
    )


def program_of(content: bytes, name: str = "tiny", profile: Profile = "tflm", layout: Layout = "rows") -> Program:
    return make_program(read_graph(content), name, profile, layout)


def reference_outputs(program: Program, content: bytes) -> list[Values]:
    """What the profile's own runtime gives for the inputs of the self-test."""
    found = oracle_for(content, read_graph(content), program.profile)(selftest_inputs(program))
    return [found[index] for index in program.graph.outputs]


def graph_of(models: Path, name: str) -> tuple[bytes, Graph]:
    content = (models / f"{name}.tflite").read_bytes()
    return content, read_graph(content)
