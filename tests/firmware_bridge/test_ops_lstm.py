"""UNIDIRECTIONAL_SEQUENCE_LSTM: output and state, inference after inference, are those of the oracles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import Profile
from embridge_edge.firmware_bridge.verifying import seeded_inputs, verify_host
from tests.firmware_bridge.single_op import (
    WARNINGS,
    Spec,
    assert_matches,
    by_kernels,
    constant,
    lowered,
    model_of,
    random_values,
)

SEEDS = st.integers(0, 2**32 - 1)


def _model(seed: int = 0, batches: int = 1, steps: int = 2, inputs: int = 3, cells: int = 4, **changes: Any) -> bytes:
    """A layer whose gates reach from the linear part of their activation functions to saturation."""
    rng = np.random.default_rng(seed)
    input_scale, hidden_scale = (float(np.float32(np.exp(rng.uniform(-6, -2)))) for _ in range(2))
    input_zero, hidden_zero = (int(rng.integers(-128, 128)) for _ in range(2))
    hidden_scale = changes.get("hidden_scale", 1 / 128 if rng.random() < 0.5 else hidden_scale / 8)
    kind, full = changes.get("kind", "int8"), 70.0
    if kind == "int16":
        input_scale, hidden_scale, input_zero, hidden_zero, full = input_scale / 256, hidden_scale / 256, 0, 0, 18000.0

    def weights(columns: int, scale: float) -> Spec:
        spread = float(np.float32(np.exp(rng.uniform(-2, 1)) / (scale * full * 70 * math.sqrt(columns))))
        return constant(np.maximum(random_values(rng, (cells, columns)), -127), np.int8, spread)

    input_weights = [weights(inputs, input_scale) for _ in range(4)]
    recurrent_weights = [weights(cells, hidden_scale) for _ in range(4)]
    biases = []
    for spec in input_weights:
        assert isinstance(spec.scale, float)
        product = float(np.float32(spec.scale) * np.float32(input_scale))
        biases.append(constant(rng.uniform(-2, 2, cells) / product, np.int32 if kind == "int8" else np.int64, product))
    time_major = bool(changes.get("time_major"))
    lead = (steps, batches) if time_major else (batches, steps)
    x = Spec((*lead, inputs), kind, scale=input_scale, zero=input_zero)
    hidden = Spec((batches, cells), kind, scale=hidden_scale, zero=hidden_zero, variable=True)
    cell = Spec((batches, cells), "int16", changes.get("cell_scale", 2.0**-11), variable=True)
    given: list[Spec | None] = [
        x,
        *input_weights,
        *recurrent_weights,
        None,
        None,
        None,
        *biases,
        None,
        None,
        hidden,
        cell,
    ]
    given += [None] * 4
    for position, spec in changes.get("replaced", {}).items():
        given[position] = spec
    gate = Spec((0,), "int16", 2.0**-12)
    inner = [gate, *(Spec((0,), "int16", 2.0**-12) for _ in range(3)), Spec((0,), kind, hidden_scale, hidden_zero)]
    options = {
        "fusedActivationFunction": changes.get("activation", 4),
        "timeMajor": time_major,
        "cellClip": changes.get("cell_clip", 0.0),
    }
    output = Spec((*lead, cells), kind, scale=hidden_scale, zero=hidden_zero)
    return model_of(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        given,
        [output],
        ("UnidirectionalSequenceLSTMOptions", options),
        intermediates=inner[: changes.get("intermediates", 5)],
    )


@pytest.mark.slow
@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    SEEDS,
    st.integers(1, 2),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(-15, -11),
    st.booleans(),
    st.sampled_from([0.0, 0.0, 0.4, 10.0]),
    st.sampled_from(["int8", "int8", "int16"]),
)
def test_lstm_is_bit_exact_from_one_inference_to_the_next(
    seed: int, batches: int, steps: int, inputs: int, cells: int, power: int, time_major: bool, clip: float, kind: str
) -> None:
    model = _model(
        seed, batches, steps, inputs, cells, cell_scale=2.0**power, time_major=time_major, cell_clip=clip, kind=kind
    )
    rng = np.random.default_rng(seed)
    shape = (steps, batches, inputs) if time_major else (batches, steps, inputs)
    dtype = np.dtype(kind)
    limits = np.iinfo(dtype)
    invokes = [[random_values(rng, shape, dtype.type)] for _ in range(3)]
    invokes += [[np.full(shape, value, dtype)] for value in (limits.min, limits.max)]
    assert_matches(model, invokes, ("tflm",) if kind == "int16" else ("litert-ref", "tflm"))


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_lstm_keeps_its_state(kind: str) -> None:
    """The same input twice gives two outputs, as both oracles have it."""
    model = _model(1, kind=kind)
    values = [random_values(np.random.default_rng(0), (1, 2, 3), np.dtype(kind).type)]
    first, second = by_kernels(model, "tflm", [values, values])
    assert (first[0] != second[0]).any()
    assert_matches(model, [values, values], ("tflm",))


@pytest.mark.parametrize(("kind", "profile"), [("int8", "litert-ref"), ("int8", "tflm"), ("int16", "tflm")])
def test_generated_lstm_forgets_when_it_is_initialised(kind: str, profile: Profile) -> None:
    """Each input is given to a fresh context, whose output state is real 0 and not number 0."""
    content = _model(3, kind=kind)
    graph = read_graph(content)
    program = make_program(graph, "net", profile, "rows")
    found, _ = verify_host(program, content, list(seeded_inputs(graph, 6)), flags=WARNINGS)
    assert found.ok


def _peephole() -> Spec:
    return constant(np.ones(4), np.int16, 2.0**-12)


@pytest.mark.parametrize(
    ("model", "profile", "words"),
    [
        (_model(replaced={9: _peephole(), 10: _peephole(), 11: _peephole()}), "tflm", "it has peepholes"),
        (_model(replaced={16: constant(np.ones((4, 4)), np.int8, 0.1)}), "tflm", "it has a projection"),
        (_model(replaced={20: _peephole()}), "tflm", "it has layer normalization"),
        (_model(replaced={1: None}), "tflm", "are coupled"),
        (_model(activation=1), "tflm", "is not TANH"),
        (_model(cell_scale=0.001), "tflm", "a power of two"),
        (_model(cell_scale=2.0**-10), "tflm", "a power of two"),
        (_model(replaced={2: constant(np.ones((4, 2)), np.int8, 0.1)}), "tflm", "should be constants"),
        (_model(replaced={13: constant(np.ones(3), np.int32, 0.1)}), "tflm", "does not fit"),
        (_model(replaced={19: Spec((1, 5), "int16", 2.0**-11, variable=True)}), "tflm", "no variable of its size"),
        (_model(replaced={18: Spec((1, 4), "int8", 0.5, variable=True)}), "tflm", "another scale"),
        (_model(intermediates=4), "litert-ref", "intermediate scales are missing"),
        (_model(kind="int16"), "litert-ref", "use the profile tflm"),
    ],
)
def test_other_lstm_is_refused(model: bytes, profile: Profile, words: str) -> None:
    with pytest.raises(EdgeError, match=words):
        lowered(model, profile)
