"""Features of sums are what a plain definition says, also where the signal is degenerate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embridge_edge.features import extract
from embridge_edge.features.catalogue import FEATURES
from embridge_edge.features.sums import LOG_FLOOR, SUMS, mask_of, named, needed

FLOOR = float(LOG_FLOOR)
SLIDING = [name for name, feature in FEATURES.items() if feature.slides]


def ratio(above: float, below: float) -> float:
    return above / below if below else 0.0


def log(value: float) -> float:
    return math.log(max(value, FLOOR))


def crossings(x: np.ndarray, threshold: float) -> int:
    rest = x[x != 0]
    return int(np.sum((np.sign(rest[1:]) != np.sign(rest[:-1])) & (np.abs(np.diff(rest)) > threshold)))


def turns(x: np.ndarray, threshold: float) -> int:
    d = np.diff(x)
    steep = np.maximum(np.abs(d[1:]), np.abs(d[:-1])) > threshold
    return int(np.sum((np.sign(d[1:]) * np.sign(d[:-1]) < 0) & steep))


def moments(x: np.ndarray) -> tuple[float, float, float]:
    n = len(x)
    d, e = np.diff(x), np.diff(x, 2)
    m0 = 10 * (math.sqrt(np.sum(x**2)) / (n - 1)) ** 0.1
    return m0, 10 * math.sqrt(np.sum(d**2) / (n - 1)) ** 0.1, 10 * math.sqrt(np.sum(e**2) / (n - 1)) ** 0.1


def joined(x: np.ndarray, formula: Callable[[np.ndarray], float]) -> float:
    b, a = formula(x), formula(np.log(x**2 + 2.0**-52))
    return ratio(-2 * a * b, a * a + b * b)


def sparsi(x: np.ndarray) -> float:
    m0, m2, m4 = moments(x)
    return log(ratio(math.sqrt(abs((m0 - m2) * (m0 - m4))), m0))


def irf(x: np.ndarray) -> float:
    m0, m2, m4 = moments(x)
    return log(ratio(m2, math.sqrt(m0 * m4)))


def wlf(x: np.ndarray) -> float:
    return log(math.sqrt(ratio(np.sum(np.abs(np.diff(x))), np.sum(np.abs(np.diff(x, 2))))))


def central(x: np.ndarray, order: int) -> float:
    return float(np.mean((x - x.mean()) ** order)) if np.ptp(x) else 0.0


DEFINITIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "MAV": lambda x: np.mean(np.abs(x)),
    "IAV": lambda x: np.sum(np.abs(x)),
    "MEAN": np.mean,
    "RMS": lambda x: math.sqrt(np.mean(x**2)),
    "ISD": lambda x: np.sum(x**2),
    "ACT": lambda x: np.mean(x**2),
    "VAR": lambda x: central(x, 2),
    "SKEW": lambda x: ratio(central(x, 3), central(x, 2) ** 1.5),
    "KURT": lambda x: ratio(central(x, 4), central(x, 2) ** 2),
    "TM": lambda x: np.mean(np.abs(x**3)),
    "MPK": np.max,
    "LD": lambda x: math.exp(np.mean(np.log(np.abs(x) + 1))),
    "MSR": lambda x: abs(np.mean(np.sqrt(x.astype(complex)))),
    "MLK": lambda x: math.log(np.sum(np.abs(x)) + 2.0**-52) / len(x),
    "WL": lambda x: np.sum(np.abs(np.diff(x))),
    "MFL": lambda x: log(np.sum(np.abs(np.diff(x)))) / math.log(10),
    "MAVFD": lambda x: np.mean(np.abs(np.diff(x))),
    "DASDV": lambda x: math.sqrt(np.mean(np.diff(x) ** 2)),
    "MZP": lambda x: math.sqrt(np.sum(np.diff(x) ** 2) / len(x)),
    "MDIFF": lambda x: np.sum(np.diff(x) ** 2) / len(x),
    "WAMP": lambda x: np.sum(np.abs(np.diff(x)) > 2e-3),
    "ZC": lambda x: crossings(x, 0.0),
    "SSC": lambda x: turns(x, 0.0),
    "PAP": lambda x: ratio(
        math.sqrt(np.sum(x**2)) * math.sqrt(np.sum(np.diff(x) ** 2)), math.sqrt(np.sum(np.diff(x, 2) ** 2))
    ),
    "COR": lambda x: ratio(np.sum(np.diff(x) ** 2), np.sum(np.diff(x, 2) ** 2) * np.sum(x**2)),
    "MOB": lambda x: math.sqrt(ratio(np.sum(np.diff(x) ** 2), np.sum(x**2))),
    "COMP": lambda x: math.sqrt(ratio(np.sum(np.diff(x, 2) ** 2), np.sum(np.diff(x) ** 2))),
    "M0": lambda x: joined(x, lambda s: log(moments(s)[0])),
    "M2": lambda x: joined(x, lambda s: log(abs(moments(s)[0] - moments(s)[1]))),
    "M4": lambda x: joined(x, lambda s: log(abs(moments(s)[0] - moments(s)[2]))),
    "SPARSI": lambda x: joined(x, sparsi),
    "IRF": lambda x: joined(x, irf),
    "WLF": lambda x: joined(x, wlf),
    "LOGMAV": lambda x: log(np.mean(np.abs(x))),
    "LOGRMS": lambda x: log(math.sqrt(np.mean(x**2))),
    "LOGWL": lambda x: log(np.sum(np.abs(np.diff(x)))),
    "LOGVAR": lambda x: math.log(max(central(x, 2), FLOOR**2)),
}


def phasors(levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Of one window: `[channels]` amplitudes to logarithms of distances."""
    turn = np.exp(2j * np.pi * np.arange(len(levels)) / len(levels))
    pairs = [(a, b) for a in range(len(levels)) for b in range(a + 1, len(levels))]
    near = [abs(levels[a] * turn[a] - levels[b] * turn[b]) for a, b in pairs]
    far = [abs(steps[a] * turn[a] - steps[b] * turn[b]) for a, b in pairs]
    return np.array([log(d) for d in near] + [log(ratio(d, f)) for d, f in zip(near, far, strict=True)])


def test_every_feature_of_sums_has_a_definition_here() -> None:
    assert {*DEFINITIONS, "RMSPHASOR", "WLPHASOR"} == set(SLIDING)


@pytest.mark.parametrize(
    ("shape", "scale", "offset"),
    [
        ((9, 3, 40), 1.0, 0.0),
        ((2, 5, 401), 20.0, 0.0),
        ((3, 2, 64), 1e-4, 0.0),
        ((1, 1, 7), 5.0, 0.0),
        ((2, 2, 1100), 3.0, 50.0),
    ],
)
def test_features_of_noise_equal_their_definitions(shape: tuple[int, int, int], scale: float, offset: float) -> None:
    windows = (scale * np.random.default_rng(0).standard_normal(shape) + offset).astype(np.float32)
    names = [name for name in SLIDING if shape[1] > 1 or "PHASOR" not in name]
    got = extract(windows, names, 1000.0)
    exact = windows.astype(np.float64)
    for name, formula in DEFINITIONS.items():
        expected = [[formula(channel) for channel in window] for window in exact]
        # Terms of sums are float32; a logarithm near 0 and a difference of moments lose digits that are there no more.
        np.testing.assert_allclose(got[name], expected, rtol=3e-6, atol=1e-6, err_msg=name)
    if shape[1] > 1:
        for window, rms, wl in zip(exact, got["RMSPHASOR"], got["WLPHASOR"], strict=True):
            d, e = np.diff(window), np.diff(window, 2)
            of_rms = phasors(np.sqrt(np.mean(window**2, axis=1)), np.sqrt(np.mean(d**2, axis=1)))
            np.testing.assert_allclose(rms, of_rms, rtol=2e-5, atol=2e-5)
            np.testing.assert_allclose(wl, phasors(np.abs(d).sum(axis=1), np.abs(e).sum(axis=1)), rtol=2e-5, atol=2e-5)


FEW = st.sampled_from([-5.0, -1.0, -0.25, -0.0, 0.0, 0.5, 1.0, 7.0])
COUNTED = ("MAV", "WL", "ZC", "SSC", "WAMP", "MPK", "VAR")


@given(windows=st.integers(3, 20).flatmap(lambda n: arrays(np.float32, (3, 3, n), elements=FEW)))
@example(np.zeros((1, 1, 9), np.float32))
@example(np.array([[[-0.0, -1, 1, 0, 1, 0, -1, -0.0, -1]]], np.float32))
@settings(max_examples=80, deadline=None)
def test_few_values_are_counted_exactly(windows: np.ndarray) -> None:
    got = extract(windows, COUNTED, 200.0)
    for name in COUNTED:
        expected = [[DEFINITIONS[name](channel) for channel in window] for window in windows.astype(np.float64)]
        np.testing.assert_allclose(got[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


@given(x=arrays(np.float32, st.integers(3, 30), elements=st.floats(-(2.0**-120), 2.0**-120, width=32)))
@settings(max_examples=60, deadline=None)
def test_signs_count_however_small_the_samples(x: np.ndarray) -> None:
    got = extract(x[None, None], COUNTED, 200.0)
    assert got["ZC"][0, 0] == crossings(x, 0.0)
    assert got["SSC"][0, 0] == turns(x, 0.0)


@given(
    windows=arrays(np.float32, (2, 2, 12), elements=FEW),
    threshold=st.sampled_from([0.3, 1.5, 6.0]),
)
@settings(max_examples=40, deadline=None)
def test_thresholds_leave_small_steps_out(windows: np.ndarray, threshold: float) -> None:
    options = {f"{name}_threshold": threshold for name in ("ZC", "SSC", "WAMP")}
    got = extract(windows, ("ZC", "SSC", "WAMP"), 200.0, options=options)
    for index, channel in np.ndindex(2, 2):
        x = windows[index, channel]
        assert got["ZC"][index, channel] == crossings(x, threshold)
        assert got["SSC"][index, channel] == turns(x, threshold)
        assert got["WAMP"][index, channel] == np.sum(np.abs(np.diff(x)) > threshold)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6])
def test_temporal_moment_of_each_order(order: int) -> None:
    windows = np.random.default_rng(0).standard_normal((2, 2, 30)).astype(np.float32)
    got = extract(windows, "TM", 200.0, options={"TM_order": order})["TM"]
    np.testing.assert_allclose(got, np.mean(np.abs(windows.astype(float)) ** order, axis=2), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-20, 1e12])
def test_constant_windows_give_finite_values(value: float) -> None:
    got = extract(np.full((1, 2, 40), value, np.float32), SLIDING, 1000.0)
    assert all(np.isfinite(values).all() for values in got.values())
    for name in ("WL", "ZC", "SSC", "VAR", "SKEW", "KURT", "COR", "COMP", "PAP"):
        assert (got[name] == 0).all(), name
    np.testing.assert_allclose(got["MAV"], abs(np.float32(value)), rtol=1e-6)
    np.testing.assert_allclose(got["LOGWL"], math.log(FLOOR), rtol=1e-6)


def test_a_ramp_has_no_bends() -> None:
    got = extract(np.arange(40, dtype=np.float32)[None, None], [n for n in SLIDING if "PHASOR" not in n], 1000.0)
    assert all(np.isfinite(values).all() for values in got.values())
    assert got["COR"] == got["PAP"] == got["SSC"] == 0


def test_libemg_definitions_of_counts() -> None:
    x = np.array([[[1, 0, -1, -1, 2, 2, 2, 0, 3]]], np.float32)
    got = extract(x, ("ZC", "SSC"), 200.0, compat="libemg")
    assert got["ZC"] == 1  # only −1 to 2: theirs does not see through a zero
    assert got["SSC"] == 6  # flat pieces count
    got = extract(x, ("ZC", "SSC"), 200.0)
    assert got["ZC"] == 2
    assert got["SSC"] == 1


@pytest.mark.parametrize("place", [0, 1, 7, 39])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_sample_makes_its_channel_nan_and_no_other(place: int, broken: float) -> None:
    windows = np.random.default_rng(0).standard_normal((4, 3, 40)).astype(np.float32)
    windows[2, 1, place] = broken
    for compat in (None, "libemg"):
        got = extract(windows, [name for name in SLIDING if name != "COMP"], 1000.0, compat=compat)
        mask = np.zeros((4, 3), bool)
        mask[2, 1] = True
        pairs = np.zeros((4, 6), bool)
        pairs[2, [0, 2, 3, 5]] = True
        for name, values in got.items():
            np.testing.assert_array_equal(np.isnan(values), pairs if "PHASOR" in name else mask, err_msg=name)


def test_counts_alone_are_nan_too() -> None:
    windows = np.ones((1, 2, 40), np.float32)
    windows[0, 0, 11] = np.nan
    got = extract(windows, ("ZC", "MPK"), 1000.0)
    assert np.isnan(got["ZC"][0]).tolist() == np.isnan(got["MPK"][0]).tolist() == [True, False]


def test_a_constant_part_does_not_blur_the_variance() -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 400))
    windows = (x + 3000).astype(np.float32)
    exact = windows.astype(np.float64)
    got = extract(windows, ("VAR", "SKEW", "KURT", "MEAN"), 1000.0)
    for name, values in got.items():
        np.testing.assert_allclose(values[0, 0], DEFINITIONS[name](exact[0, 0]), rtol=1e-5, atol=1e-6)


def test_an_expression_goes_back_to_its_sums() -> None:
    assert needed("variance") == ({"centred_1", "centred_2"}, set())
    assert needed("joined(power_tenth, power_tenth_y)") == ({"square"}, {"square"})
    assert named(mask_of(["square", "turns"]), SUMS) == ["square", "turns"]
