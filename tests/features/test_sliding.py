"""A stream gives the bits of the offline pass for any pieces, and the offline pass what windows one by one give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.features import FEATURES, FeatureStream, extract, slide
from embridge_edge.features.catalogue import LIBEMG
from embridge_edge.features.sliding import _stretches

SUMS = tuple(name for name, feature in FEATURES.items() if feature.slides)
OTHERS = ("AR", "MDF", "LS", "MAVSLP", "WENT", "COVARIANCE", "DFTR")
NAMES = (*SUMS, *OTHERS)
PLAIN = (
    "MAV", "IAV", "RMS", "ISD", "VAR", "TM", "MPK", "LD", "MSR", "WL", "DASDV", "MDIFF", "WAMP", "ZC", "SSC", "PAP", "COR", "MOB", "COMP"
)  # fmt: skip
"""Of sums without anything that loses digits, such as a logarithm near 0."""


def windows_of(signal: np.ndarray, window: int, hop: int) -> np.ndarray:
    starts = np.arange(0, len(signal) - window + 1, hop)
    return np.asarray(signal[starts[:, None] + np.arange(window)].transpose(0, 2, 1))


def apart(left: np.ndarray, right: np.ndarray) -> float:
    """Units in the last place."""
    unit = np.spacing(np.maximum(np.abs(left), np.abs(right)))
    return float(np.max(np.abs(left.astype(np.float64) - right) / unit, initial=0.0))


@given(
    hop=st.integers(1, 30),
    window=st.integers(7, 70),
    sizes=st.lists(st.integers(0, 45) | st.just(1), min_size=1, max_size=15),
    seed=st.integers(0, 9),
    whole=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_pieces_give_the_bits_of_the_whole(hop: int, window: int, sizes: list[int], seed: int, whole: bool) -> None:
    signal = (3 * np.random.default_rng(seed).standard_normal((sum(sizes) + 80, 3))).astype(np.float32)
    if whole:
        signal = np.round(signal)  # many zeros, and flat pieces
    offline = slide(signal, NAMES, 1000.0, window, hop)
    stream = FeatureStream(NAMES, 1000.0, window, hop, 3)
    parts = [stream.push(part) for part in np.split(signal, np.cumsum(sizes))]
    taken = extract(windows_of(signal, window, hop), NAMES, 1000.0)
    for name in NAMES:
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), offline[name], err_msg=name)
        assert offline[name].shape == taken[name].shape
        if name in PLAIN:
            assert apart(offline[name], taken[name]) <= 4, name
        elif name in OTHERS:
            np.testing.assert_array_equal(offline[name], taken[name], err_msg=name)
        else:
            np.testing.assert_allclose(offline[name], taken[name], rtol=1e-4, atol=1e-5, err_msg=name)


@given(
    samples=st.integers(0, 400),
    window=st.integers(7, 70),
    hop=st.integers(1, 90),
    threads=st.integers(2, 9),
    seed=st.integers(0, 9),
    whole=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_threads_give_the_bits_of_one(
    samples: int, window: int, hop: int, threads: int, seed: int, whole: bool
) -> None:
    signal = (3 * np.random.default_rng(seed).standard_normal((samples, 3))).astype(np.float32)
    if whole:
        signal = np.round(signal)
    one, several = (slide(signal, NAMES, 1000.0, window, hop, threads=count) for count in (1, threads))
    for name in NAMES:
        np.testing.assert_array_equal(several[name], one[name], err_msg=name)


@given(samples=st.integers(0, 300), window=st.integers(1, 60), hop=st.integers(1, 90), most=st.integers(1, 9))
def test_stretches_hold_each_window_once(samples: int, window: int, hop: int, most: int) -> None:
    found = [
        start
        for stretch in _stretches(samples, window, hop, most)
        for start in range(stretch.start, stretch.stop - window + 1, hop)
    ]
    assert found == list(range(0, samples - window + 1, hop))


def test_several_threads_share_a_signal_out() -> None:
    assert len(_stretches(4000, 40, 10, 3)) == 3


def test_threads_give_libemgs_values_too() -> None:
    signal = np.random.default_rng(0).standard_normal((700, 2)).astype(np.float32)
    one, two = (
        slide(signal, ("WL", "COMP", "MAVSLP"), 1000.0, 25, 4, LIBEMG, {"MAVSLP_segment": 3}, threads)
        for threads in (1, 2)
    )
    for name in one:
        np.testing.assert_array_equal(two[name], one[name], err_msg=name)


@pytest.mark.parametrize(("window", "hop"), [(40, 5), (40, 7), (13, 12), (10, 25), (9, 1), (30, 30)])
def test_sample_by_sample(window: int, hop: int) -> None:
    signal = np.random.default_rng(0).standard_normal((150, 2)).astype(np.float32)
    stream = FeatureStream(("HTD", "VAR", "COMP"), 1000.0, window, hop, 2)
    parts = [stream.push(signal[at : at + 1]) for at in range(150)]
    complete = [at for at, part in enumerate(parts) if len(part["MAV"])]
    assert complete == list(range(window - 1, 150, hop))
    for name, values in slide(signal, ("HTD", "VAR", "COMP"), 1000.0, window, hop).items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


@pytest.mark.parametrize("window", [40, 44])
def test_a_long_signal_is_taken_in_pieces(window: int) -> None:
    signal = np.random.default_rng(0).standard_normal((70_000, 1)).astype(np.float32)
    offline = slide(signal, ("HTD", "TM"), 1000.0, window, 10)
    for name, values in extract(windows_of(signal, window, 10), ("HTD", "TM"), 1000.0).items():
        assert apart(offline[name], values) <= 4


def test_thresholds_hold_across_blocks() -> None:
    signal = np.round(2 * np.random.default_rng(0).standard_normal((300, 2))).astype(np.float32)
    options = {"ZC_threshold": 2.0, "SSC_threshold": 1.5, "WAMP_threshold": 1.0}
    names = ("ZC", "SSC", "WAMP")
    got = slide(signal, names, 1000.0, 22, 5, options=options)
    for name, values in extract(windows_of(signal, 22, 5), names, 1000.0, options=options).items():
        np.testing.assert_array_equal(got[name], values)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_sample_spoils_the_windows_that_hold_it(broken: float) -> None:
    signal = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    signal[100, 1] = broken
    names = ("HTD", "VAR", "TDPSD", "MPK")
    got = slide(signal, names, 1000.0, 25, 4)
    for name, values in extract(windows_of(signal, 25, 4), names, 1000.0).items():
        np.testing.assert_array_equal(np.isnan(got[name]), np.isnan(values), err_msg=name)


def test_libemgs_values_slide_too() -> None:
    signal = np.round(np.random.default_rng(0).standard_normal((200, 2))).astype(np.float32)
    names = ("ZC", "SSC", "WAMP", "VAR", "COMP", "MAVSLP", "MAV")
    options = {"MAVSLP_segment": 3}
    got = slide(signal, names, 1000.0, 25, 4, LIBEMG, options)
    assert list(got) == list(names)
    for name, values in extract(windows_of(signal, 25, 4), names, 1000.0, LIBEMG, options).items():
        assert apart(got[name], values) <= 4, name
    for name, asked in (("COMP", None), ("MAVSLP", options)):
        with pytest.raises(EdgeError, match=f"LibEMG's {name} depends on all windows"):
            FeatureStream(name, 1000.0, 25, 4, 2, LIBEMG, asked)


def test_interruptions_start_afresh() -> None:
    signal = np.random.default_rng(0).standard_normal((120, 2)).astype(np.float32)
    stream = FeatureStream(("WL", "MDF"), 1000.0, 16, 5, 2)
    stream.push(signal[:37])
    stream.interrupted()
    got = stream.push(signal[50:])
    for name, values in slide(signal[50:], ("WL", "MDF"), 1000.0, 16, 5).items():
        np.testing.assert_array_equal(got[name], values)


@pytest.mark.parametrize(("names", "most"), [(("HTD",), 600), (("AR",), 6000)])
def test_only_what_is_needed_is_held(names: tuple[str, ...], most: int) -> None:
    stream = FeatureStream(names, 1000.0, 1000, 50, 2)
    for _ in range(100):
        stream.push(np.ones((77, 2), np.float32))
    assert stream._buffer.shape[1] <= most


@pytest.mark.parametrize("samples", [0, 9])
def test_a_signal_shorter_than_a_window_has_none(samples: int) -> None:
    for name, values in slide(np.zeros((samples, 3), np.int16), NAMES, 1000.0, 10, 5).items():
        assert len(values) == 0, name
        assert values.shape[1] == extract(np.zeros((0, 3, 10), np.float32), name, 1000.0)[name].shape[1]


def test_what_makes_no_sense_is_refused() -> None:
    signal = np.zeros((100, 2), np.float32)
    for window, hop, says in (
        (10, 0, "hop"),
        (0, 5, "window"),
        (10, 2.5, "hop"),
        (True, 1, "window"),
        ("10", 5, "window"),
    ):
        with pytest.raises(EdgeError, match=f"{says} must be a whole number, 1 or more, not "):
            slide(signal, "HTD", 1000.0, window, hop)  # type: ignore[arg-type]
    with pytest.raises(EdgeError, match="threads must be a whole number, 1 or more, not 0"):
        slide(signal, "HTD", 1000.0, 10, 5, threads=0)
    with pytest.raises(EdgeError, match="rows differ in length"):
        slide([[1.0, 2.0], [3.0]], "HTD", 1000.0, 10, 5)
    for channels in (0, 1.5, None):
        with pytest.raises(EdgeError, match="channels must be a whole number, 1 or more, not "):
            FeatureStream("HTD", 1000.0, 10, 5, channels)  # type: ignore[arg-type]
    with pytest.raises(EdgeError, match=r"A signal must be numbers \[samples, channels\]"):
        slide(signal[0], "HTD", 1000.0, 10, 5)
    with pytest.raises(EdgeError, match="SSC needs windows of at least 3"):
        slide(signal, "SSC", 1000.0, 2, 1)
    with pytest.raises(EdgeError, match="takes 3 channels, the samples have 2"):
        FeatureStream("HTD", 1000.0, 10, 5, 3).push(signal)
