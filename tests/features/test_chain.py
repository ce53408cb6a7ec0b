"""The chain resolves a plan honestly, survives its JSON bit for bit, and runs the same offline and sample by sample."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan, SignalChain, resolve
from embridge_edge.features.stream import Stream

ALL = ("MAV", "RMS", "WL", "ZC", "SSC", "LOGMAV", "LOGRMS", "LOGWL")
MYO = ChainPlan(bandpass_hz=(20.0, 450.0), features=("LOGRMS", "ZC"), frame_ms=50.0)


@st.composite
def chains(draw: st.DrawFn) -> SignalChain:
    rate_hz = draw(st.sampled_from([200.0, 333.0, 1000.0]))
    hop_ms = draw(st.sampled_from([25.0, 50.0, 70.0]))
    features = draw(st.sampled_from([(), ("RMS",), ("LOGWL", "ZC", "SSC")]))
    plan = ChainPlan(
        window_ms=hop_ms + draw(st.sampled_from([30.0, 50.0, 145.0])),
        hop_ms=hop_ms,
        bandpass_hz=draw(st.sampled_from([None, (20.0, 450.0)])),
        notch_hz=draw(st.sampled_from([None, 50.0])),
        features=features,
        frame_ms=draw(st.sampled_from([None, 20.0, 25.0])) if features else None,
        compand="none" if features else draw(st.sampled_from(["none", "root"])),
    )
    chain = resolve(plan, rate_hz, 4, "myo")
    order = draw(st.permutations(range(4)))
    gains = draw(st.lists(st.floats(0.25, 8.0, width=32), min_size=chain.columns, max_size=chain.columns))
    limit = draw(st.sampled_from([2.0, 1000.0]))
    return replace(chain, channels=tuple(order), offset=(0.5,) * chain.columns, gain=tuple(gains), limit=limit)


def one_by_one(chain: SignalChain, emg: np.ndarray, breaks: list[int]) -> np.ndarray:
    """Inputs of the windows of each segment, each taken by itself."""
    signal = chain.filtered(emg, np.array(breaks, np.int64))
    edges = [0, *breaks, len(emg)]
    found = [np.zeros((0, *chain.input_shape), np.float32)]
    for start, stop in itertools.pairwise(edges):
        starts = np.arange(start, stop - chain.window + 1, chain.hop)
        found.append(chain.inputs(signal, starts))
    return np.concatenate(found)


@given(chain=chains(), sizes=st.lists(st.integers(0, 90), min_size=1, max_size=12), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_stream_equals_the_offline_pass_bit_for_bit(chain: SignalChain, sizes: list[int], seed: int) -> None:
    emg = (5 * np.random.default_rng(seed).standard_normal((sum(sizes), 5)) + 7).astype(np.float32)
    stream = Stream(chain)
    parts = [stream.push(part) for part in np.split(emg, np.cumsum(sizes)[:-1])]
    whole = chain.offline(emg)
    assert whole.shape[1:] == chain.input_shape
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_allclose(whole, one_by_one(chain, emg, []), rtol=2e-6, atol=1e-5)


@given(chain=chains(), breaks=st.sets(st.integers(1, 399), max_size=4), every=st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_interruptions_equal_breaks(chain: SignalChain, breaks: set[int], every: int) -> None:
    emg = np.random.default_rng(1).standard_normal((400, 4)).astype(np.float32)
    stream, parts = Stream(chain), []
    edges = [0, *sorted(breaks), 400]
    for start, stop in itertools.pairwise(edges):
        stream.interrupted()
        parts += [stream.push(emg[at : min(at + every, stop)]) for at in range(start, stop, every)]
    whole = chain.offline(emg, np.array(sorted(breaks), np.int64))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_allclose(whole, one_by_one(chain, emg, sorted(breaks)), rtol=2e-6, atol=1e-5)


@given(chain=chains())
@settings(max_examples=40, deadline=None)
def test_chain_survives_json_bit_for_bit(chain: SignalChain) -> None:
    again = SignalChain.from_dict(json.loads(json.dumps(chain.to_dict())))
    assert again == replace(chain, resolved=again.resolved)
    assert json.dumps(again.to_dict()) == json.dumps(chain.to_dict())
    emg = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    np.testing.assert_array_equal(chain.offline(emg), again.offline(emg))


def test_stored_chain_with_another_field_is_refused() -> None:
    stored = resolve(MYO, 200.0, 8, "myo").to_dict()
    with pytest.raises(EdgeError, match="'colour'"):
        SignalChain.from_dict({**stored, "colour": 1})
    del stored["hop"]
    with pytest.raises(EdgeError, match="'hop'"):
        SignalChain.from_dict(stored)


def test_plan_resolves_to_samples_and_says_so() -> None:
    chain = resolve(MYO, 200.0, 8, "myo")
    assert (chain.window, chain.hop, chain.frame, chain.input_shape) == (80, 10, 10, (8, 16))
    assert chain.resolved == {
        "rate_hz": 200.0, "bandpass_hz": [20.0, 90.0], "window_ms": 400.0, "hop_ms": 50.0, "frame_ms": 50.0
    }  # fmt: skip
    assert resolve(replace(MYO, features=(), frame_ms=None), 2000.0, 16, "V").input_shape == (800, 16)


@pytest.mark.parametrize(
    ("plan", "rate_hz", "says"),
    [
        (ChainPlan(), 40.0, "no band remains"),
        (ChainPlan(bandpass_hz=(0.001, 450.0), order=8), 4000.0, "unstable"),
        (ChainPlan(window_ms=20.0, hop_ms=10.0), 200.0, "at least 8"),
        (ChainPlan(features=("FFT",)), 200.0, "Unknown feature 'FFT'"),
        (ChainPlan(features=("MAV", "AR")), 200.0, "one column per channel, not AR: MAV, ZC"),
        (ChainPlan(features=("SAMPEN",), frame_ms=15.0), 200.0, "SAMPEN needs windows of at least 4 samples, not 3"),
        (ChainPlan(features=("MAV",), frame_ms=5.0), 200.0, "frame_ms"),
        (ChainPlan(features=("MAV",), frame_ms=500.0), 200.0, "frame_ms"),
    ],
)
def test_impossible_chain_is_one_line(plan: ChainPlan, rate_hz: float, says: str) -> None:
    with pytest.raises(EdgeError, match=says) as caught:
        resolve(plan, rate_hz, 8, "V")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hop_ms": 0.0},
        {"hop_ms": 500.0},
        {"window_ms": -1.0},
        {"order": 3},
        {"notch_hz": 0.0},
        {"notch_hz": -50.0},
        {"notch_hz": 50.0, "notch_quality": 0.0},
    ],
)
def test_impossible_plan_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(EdgeError):
        ChainPlan(**wrong)  # type: ignore[arg-type]


def test_a_group_stands_for_its_features() -> None:
    chain = resolve(ChainPlan(features=("HTD", "MAV")), 200.0, 8, "myo")
    assert chain.features == ("MAV", "ZC", "SSC", "WL")
    assert chain.columns == 32


def test_columns_are_channel_by_channel() -> None:
    chain = resolve(
        ChainPlan(window_ms=200.0, bandpass_hz=None, features=("MAV", "MDF"), frame_ms=100.0), 200.0, 2, "myo"
    )
    signal = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    columns = chain.columns_of(signal, np.array([3, 150]))
    assert columns.shape == (2, 2, 4)
    np.testing.assert_allclose(columns[1, 1, ::2], np.abs(signal[170:190]).mean(axis=0), rtol=1e-6)
    assert (columns[..., 1::2] > 1.5).all()  # hertz


def test_fewer_channels_than_the_chain_takes_are_refused() -> None:
    chain = resolve(MYO, 200.0, 8, "myo")
    with pytest.raises(EdgeError, match="8 channels"):
        chain.filtered(np.zeros((100, 7), np.float32))
    with pytest.raises(EdgeError, match="8 channels"):
        Stream(chain).push(np.zeros((100, 7), np.float32))


@pytest.mark.parametrize("samples", [[[1.0, 2.0], [3.0]], None, [1.0, 2.0], np.zeros((2, 8), complex)])
def test_a_stream_refuses_what_is_no_array_of_samples(samples: Any) -> None:
    with pytest.raises(EdgeError, match=r"Samples must be numbers \[samples, channels\]"):
        Stream(resolve(MYO, 200.0, 8, "myo")).push(samples)


@given(scale=st.floats(1e-6, 1e4), seed=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_raw_gain_is_one_power_of_two(scale: float, seed: int) -> None:
    chain = resolve(ChainPlan(bandpass_hz=None), 200.0, 4, "V")
    signal = (scale * np.random.default_rng(seed).standard_normal((2000, 4))).astype(np.float32)
    fitted = chain.fitted(signal, np.arange(0, 1900, 10))
    assert len(set(fitted.gain)) == 1
    assert np.frexp(fitted.gain[0])[0] == 0.5
    assert set(fitted.offset) == {0.0}
    rms = float(np.sqrt(np.mean(np.square(fitted.inputs(signal, np.arange(0, 1900, 10)), dtype=np.float64))))
    assert 2**-0.55 <= rms <= 2**0.55


def test_one_artefact_sets_neither_the_gain_nor_the_end_of_the_input() -> None:
    chain = resolve(ChainPlan(bandpass_hz=None), 200.0, 4, "V")
    signal = np.random.default_rng(0).standard_normal((40_000, 4)).astype(np.float32)
    starts = np.arange(0, 39_900, 80)
    still = chain.fitted(signal, starts)
    signal[8000:8050, 2] = 1e6
    knocked = chain.fitted(signal, starts)
    assert knocked.gain == still.gain
    assert np.abs(knocked.inputs(signal, starts)).max() == knocked.limit


@given(values=st.lists(st.floats(-100.0, 100.0, width=32), min_size=1, max_size=20), limit=st.sampled_from([0.5, 8.0]))
def test_roots_keep_sign_and_order_and_end_at_the_root_of_the_limit(values: list[float], limit: float) -> None:
    plain = replace(resolve(ChainPlan(bandpass_hz=None), 200.0, 1, "myo"), limit=limit)
    rooted = replace(plain, compand="root")
    columns = np.array(values, np.float32).reshape(-1, 1)
    given = columns.copy()
    found, before = rooted.normalised(columns), plain.normalised(columns)
    np.testing.assert_array_equal(columns, given)
    np.testing.assert_allclose(found * np.abs(found), before, rtol=1e-6)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(before))
    assert np.abs(found).max() <= rooted.largest == np.sqrt(np.float32(limit))


def test_chains_of_before_there_was_companding_have_none() -> None:
    chain = resolve(ChainPlan(), 200.0, 4, "V")
    stored = chain.to_dict()
    del stored["compand"]
    assert type(chain).from_dict(stored) == chain


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"compand": "mu"}, "Unknown compand 'mu'; choose from none, root"),
        ({"compand": "root", "features": ("RMS",)}, "compand is for raw samples"),
    ],
)
def test_companding_that_cannot_be_is_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(EdgeError, match=says):
        ChainPlan(**given)


def test_silence_has_gain_one() -> None:
    chain = resolve(ChainPlan(), 200.0, 4, "V")
    assert set(chain.fitted(np.zeros((200, 4), np.float32), np.array([0])).gain) == {1.0}
    featured = resolve(ChainPlan(features=("LOGRMS", "ZC")), 200.0, 4, "V")
    assert set(featured.fitted(np.zeros((200, 4), np.float32), np.array([0, 10])).gain) == {1.0}


def test_features_are_standardised_by_the_windows_that_are_given_and_no_others() -> None:
    chain = resolve(ChainPlan(window_ms=200.0, features=ALL, frame_ms=100.0), 200.0, 3, "myo")
    signal = np.random.default_rng(0).standard_normal((60_000, 3)).astype(np.float32)
    starts = np.arange(0, 30_000, 10)  # more than one batch
    fitted = chain.fitted(signal, starts)
    columns = fitted.inputs(signal, starts).reshape(-1, fitted.columns)
    np.testing.assert_allclose(columns.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(columns.std(axis=0), 1.0, atol=1e-4)
    signal[40_000:] *= 1000
    assert chain.fitted(signal, starts) == fitted
