"""The C chain gives the network the bytes that the Python stream gives it, and decides the same, however the samples come."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.export.reading import dequantize_values, quantize_values
from embridge_edge.features.chain import ChainPlan, resolve
from embridge_edge.firmware_bridge.chain import Network, Quantization, RawSamples, emit_chain
from embridge_edge.firmware_bridge.chain.golden import exact_scores
from embridge_edge.gestures import read_library
from embridge_edge.model.head import Head
from embridge_edge.recipe import find_recipe, shipped_recipes
from embridge_edge.recordings.loading import read_recordings
from embridge_edge.synthesis.armband import choose_armband
from embridge_edge.synthesis.session import make_wearer, simulate_session
from tests.firmware_bridge.chain.compiling import (
    Compiled,
    compiled,
    emg_like,
    feature_chain,
    raw_chain,
    some_head,
    some_network,
    stand_in,
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compiled(tmp_path_factory.mktemp("raw"), raw_chain())


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compiled(tmp_path_factory.mktemp("linear"), raw_chain(compand="none"))


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    counts = emg_like(3000, 4, amplitude=300)
    plan = {"window_ms": 200.0, "hop_ms": 50.0, "features": ("LOGRMS", "LOGWL", "ZC", "VAR"), "frame_ms": 25.0}
    return compiled(tmp_path_factory.mktemp("framed"), feature_chain(1000.0, 4, counts, **plan))


@pytest.mark.parametrize("which", ["raw", "linear", "framed"])
@given(sizes=st.lists(st.integers(0, 20) | st.just(1), max_size=40), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_any_pieces_give_the_bytes_of_the_python_stream(
    request: pytest.FixtureRequest, which: str, sizes: list[int], seed: int
) -> None:
    made: Compiled = request.getfixturevalue(which)
    sizes = [min(size, made.chain.hop) for size in sizes]
    counts = emg_like(sum(sizes) + 600, len(made.chain.channels), seed)
    found = made.run(counts, sizes)
    np.testing.assert_array_equal(found.inputs, made.expected(counts))
    np.testing.assert_array_equal(found.outputs, stand_in(found.inputs))


def test_the_quantization_is_that_of_the_exported_model() -> None:
    values = np.linspace(-9, 9, 4001, dtype=np.float32)
    for scale, zero_point in ((8 / 127, -3), (0.1, 127), (1e-3, -128)):
        np.testing.assert_array_equal(
            Quantization(scale, zero_point).quantised(values), quantize_values(values, scale, zero_point)
        )


@pytest.mark.parametrize(
    ("samples", "amplitude"), [(RawSamples(32), 1e8), (RawSamples(channels=11, ring_frames=64), 3000.0)]
)
def test_wider_samples_and_chosen_channels(tmp_path: Path, samples: RawSamples, amplitude: float) -> None:
    chain = replace(raw_chain(), channels=(3, 0, 7, 1, 5, 6, 2, 4), gain=(2.0**-20,) * 8)
    made = compiled(tmp_path, chain, samples)
    counts = emg_like(900, samples.channels or 8, amplitude=amplitude)
    np.testing.assert_array_equal(made.run(counts).inputs, made.expected(counts))


def test_full_scale_is_clipped_alike(tmp_path: Path) -> None:
    made = compiled(
        tmp_path, raw_chain(bandpass_hz=None), network=Network(Quantization(1e-3, 0), Quantization(0.02, 5))
    )
    counts = np.tile([[-32768, 32767, 0, 1, -1, 255, -256, 128]], (100, 1))
    np.testing.assert_array_equal(made.run(counts).inputs, made.expected(counts))


def test_volts_come_from_their_scale(tmp_path: Path) -> None:
    chain = replace(resolve(ChainPlan(notch_hz=50.0), 1000.0, 3, "V"), gain=(2.0**14,) * 3)
    made = compiled(tmp_path, chain, RawSamples(16, unit_per_count=2.4e-7))
    counts = emg_like(2000, 3, amplitude=500)
    found = made.run(counts)
    assert np.ptp(found.inputs.astype(np.int64)) > 30
    np.testing.assert_array_equal(found.inputs, made.expected(counts))


def test_decisions_are_those_of_the_head(raw: Compiled) -> None:
    found = raw.run(emg_like(6000, 8))
    scores = exact_scores(raw.head, raw.network, found.outputs)
    ordered = np.sort(scores, axis=1)
    decided = found.decisions
    assert len(set(decided["index"])) > 2
    np.testing.assert_array_equal(decided["index"], scores.argmax(axis=1))
    np.testing.assert_allclose(decided["scores"], scores, rtol=2e-7)
    np.testing.assert_allclose(decided["score"], ordered[:, -1], rtol=2e-7)
    np.testing.assert_allclose(decided["margin"], ordered[:, -1] - ordered[:, -2], rtol=2e-7)
    np.testing.assert_array_equal(decided["number"], np.arange(len(decided)))
    np.testing.assert_array_equal(decided["first"], np.arange(len(decided)) * raw.chain.hop)
    real = dequantize_values(found.outputs, raw.network.output.scale, raw.network.output.zero_point)
    np.testing.assert_array_equal(decided["index"], raw.head.decide(real))
    assert [raw.library.emb_label(index) for index in (0, 4, 5, -1)] == [b"gesture 0", b"gesture 4", None, None]


def test_the_largest_sums_of_a_head_are_exact(tmp_path: Path) -> None:
    rows = np.full((3, 512), 32767, np.int16)
    rows[1, ::2], rows[2] = -32767, -32767
    scale = np.array([1e-9, 1e-9, 1e-9], np.float32)
    head = Head("linear", ("up", 'Ünter "anführung"?', "down"), rows, scale, np.zeros(3, np.float32))
    network = Network(Quantization(0.06, 0), Quantization(0.1, -128))
    made = compiled(tmp_path, raw_chain(), head=head, network=network)
    found = made.run(emg_like(400, 8, amplitude=200))
    np.testing.assert_allclose(
        found.decisions["scores"], exact_scores(head, network, found.outputs), rtol=2e-7, atol=1e-9
    )
    assert made.library.emb_label(1).decode() == head.names[1]


def test_a_regression_head_gives_angles(tmp_path: Path) -> None:
    made = compiled(tmp_path, raw_chain(), head=some_head("regression"))
    found = made.run(emg_like(400, 8))
    assert set(found.decisions["index"]) == {-1}
    np.testing.assert_allclose(
        found.decisions["scores"], exact_scores(made.head, made.network, found.outputs), rtol=2e-7
    )


def test_two_contexts_do_not_know_of_each_other(raw: Compiled) -> None:
    left, right = emg_like(600, 8, 1), emg_like(600, 8, 2)
    contexts = raw.fresh(), raw.fresh()
    found: tuple[list[np.void], list[np.void]] = [], []
    for at in range(0, 600, 10):
        for counts, context, decisions in zip((left, right), contexts, found, strict=True):
            assert raw.push(context, counts[at : at + 10]) == 10
            if (decision := raw.poll(context)) is not None:
                decisions.append(decision)
    for counts, decisions in zip((left, right), found, strict=True):
        np.testing.assert_array_equal(np.array(decisions), raw.run(counts).decisions)


@pytest.mark.parametrize("which", ["raw", "framed"])
def test_after_lost_samples_the_stream_starts_afresh(request: pytest.FixtureRequest, which: str) -> None:
    made: Compiled = request.getfixturevalue(which)
    channels, window, hop = len(made.chain.channels), made.chain.window, made.chain.hop
    counts = emg_like(8 * window, channels)
    context = made.fresh()
    ring = next(size for size in (2**k for k in range(20)) if size >= 2 * hop)
    # The ring takes what it holds; the rest is lost, and so is what comes before there is room.
    assert made.push(context, counts[: ring + 7]) == ring
    assert made.push(context, counts[ring + 7 : ring + 12]) == 0
    assert made.library.emb_lost(context) == 12
    decisions = list(iter(lambda: made.poll(context), None))
    assert len(decisions) == max(0, (ring - window) // hop + 1)
    at = ring + 12
    while at < len(counts):
        assert made.push(context, counts[at : at + hop]) == len(counts[at : at + hop])
        decisions += iter(lambda: made.poll(context), None)
        at += hop
    expected = made.run(counts[ring + 12 :]).decisions
    later = np.array(decisions[len(decisions) - len(expected) :])
    for field in ("index", "scores"):
        np.testing.assert_array_equal(later[field], expected[field])
    np.testing.assert_array_equal(later["first"], expected["first"] + ring + 12)
    assert made.library.emb_lost(context) == 12


def test_an_interruption_counts_nothing_as_lost(raw: Compiled) -> None:
    counts = emg_like(700, 8)
    context = raw.fresh()
    decisions = []
    for at in range(0, 700, 10):
        if at == 300:
            raw.library.emb_interrupt(context)
        raw.push(context, counts[at : at + 10])
        decisions += iter(lambda: raw.poll(context), None)
    expected = [raw.run(counts[:300]).decisions, raw.run(counts[300:]).decisions]
    np.testing.assert_array_equal([d["index"] for d in decisions], np.concatenate([part["index"] for part in expected]))
    assert decisions[len(expected[0])]["first"] == 300
    assert raw.library.emb_lost(context) == 0


def test_a_second_loss_waits_for_the_first(raw: Compiled) -> None:
    counts = emg_like(400, 8)
    context = raw.fresh()
    assert raw.push(context, counts[:40]) == 32
    for _ in range(3):
        assert raw.push(context, counts[40:44]) == 0
    raw.poll(context)
    assert raw.push(context, counts[44:84]) == 32
    assert raw.push(context, counts[84:90]) == 0
    assert raw.library.emb_lost(context) == 8 + 12 + 8 + 6


@pytest.mark.data
@pytest.mark.parametrize("features", [(), ("HTD",), ("LOGRMS", "LOGWL", "ZC")])
def test_real_recordings_are_decided_alike(tmp_path: Path, data: Path, features: tuple[str, ...]) -> None:
    chain = raw_chain()
    for index, recording in enumerate(islice(read_recordings(data / "myo_readings"), 6)):
        counts = recording.emg.astype(np.int64)
        if index == 0:
            if features:
                chain = replace(feature_chain(200.0, 8, counts, features=features), unit=recording.unit)
            made = compiled(tmp_path, chain)
        found = made.run(counts)
        np.testing.assert_array_equal(found.inputs, made.expected(counts))
        real = dequantize_values(found.outputs, made.network.output.scale, made.network.output.zero_point)
        np.testing.assert_array_equal(found.decisions["index"], made.head.decide(real))


def test_what_cannot_be_is_refused() -> None:
    chain, head = raw_chain(), some_head()
    network = some_network(chain)
    with pytest.raises(EdgeError, match="volts"):
        emit_chain(replace(chain, unit="V"), head, network, RawSamples())
    with pytest.raises(EdgeError, match="unit_per_count must be 1"):
        emit_chain(chain, head, network, RawSamples(unit_per_count=0.5))
    with pytest.raises(EdgeError, match="do not hold channel 7"):
        emit_chain(chain, head, network, RawSamples(channels=5))
    with pytest.raises(EdgeError, match="512"):
        emit_chain(chain, some_head(embedding=513), network, RawSamples())
    with pytest.raises(EdgeError, match="none of 16 or 32"):
        RawSamples(24)
    with pytest.raises(EdgeError, match="power of two"):
        RawSamples(ring_frames=100)
    with pytest.raises(EdgeError, match="zero point"):
        Quantization(0.0, 3)
    plan = resolve(ChainPlan(features=("MAV",)), 1000.0, 2, "adc")
    with pytest.raises(EdgeError, match="NOPE has no C yet; train with some of MAV, IAV"):
        emit_chain(replace(plan, features=("NOPE",)), head, network, RawSamples())


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_recipes())
def test_the_recipes_decide_alike_on_sixteen_channels(tmp_path: Path, name: str) -> None:
    names = ("rest", "flexion", "extension", "fist")
    poses = read_library().poses(names).astype(float)
    armband = choose_armband(16, 2000.0)
    recording = simulate_session(make_wearer(1, 0), 1, armband, names, poses, 8.0, 0.2)
    step = armband.full_scale / 32768
    counts = np.clip(np.rint(recording.emg / np.float32(step)), -32768, 32767).astype(np.int64)
    chain = resolve(find_recipe(name).chain, recording.rate_hz, 16, recording.unit)
    signal = chain.filtered(counts.astype(np.float32) * np.float32(step))
    chain = chain.fitted(signal, np.arange(0, len(signal) - chain.window, 10 * chain.hop))
    made = compiled(tmp_path, chain, RawSamples(16, unit_per_count=step))
    found = made.run(counts)
    assert found.inputs.astype(float).std() > 10
    np.testing.assert_array_equal(found.inputs, made.expected(counts))
    real = dequantize_values(found.outputs, made.network.output.scale, made.network.output.zero_point)
    np.testing.assert_array_equal(found.decisions["index"], made.head.decide(real))
