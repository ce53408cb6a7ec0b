"""Each feature is what a plain definition says, also where the signal is degenerate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embridge_edge.errors import EdgeError
from embridge_edge.features.time_domain import FEATURES, LOG_FLOOR, extract


def by_definition(x: np.ndarray, name: str, threshold: float) -> float:
    """One feature of one channel, float64."""
    step = np.diff(x)
    match name.removeprefix("LOG"):
        case "MAV":
            value = np.mean(np.abs(x.astype(np.float64)))
        case "RMS":
            value = np.sqrt(np.mean(x.astype(np.float64) ** 2))
        case "WL":
            value = np.sum(np.abs(step.astype(np.float64)))
        case "ZC":
            value = np.sum(((x[1:] > 0) != (x[:-1] > 0)) & (np.abs(step) > threshold))
        case "SSC":
            turned = step[1:].astype(np.float64) * step[:-1] < 0
            steep = (np.abs(step[1:]) > threshold) | (np.abs(step[:-1]) > threshold)
            value = np.sum(turned & steep)
    return float(np.log(max(value, LOG_FLOOR)) if name.startswith("LOG") else value)


@given(
    windows=arrays(np.float32, (2, 12, 2), elements=st.sampled_from([-5.0, -1.0, -0.25, 0.0, 0.5, 1.0, 7.0])),
    threshold=st.sampled_from([0.0, 0.3, 2.0]),
    names=st.lists(st.sampled_from(FEATURES), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_features_equal_their_definitions(windows: np.ndarray, threshold: float, names: list[str]) -> None:
    got = extract(windows, names, threshold)
    expected = [
        [by_definition(window[:, channel], name, threshold) for channel in range(2) for name in names]
        for window in windows
    ]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


def test_features_of_noise_equal_their_definitions() -> None:
    windows = np.random.default_rng(0).standard_normal((20, 400, 3)).astype(np.float32)
    expected = [[by_definition(w[:, c], name, 0.0) for c in range(3) for name in FEATURES] for w in windows]
    np.testing.assert_allclose(extract(windows, FEATURES), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_window_has_no_length_no_crossing_and_a_finite_logarithm(value: float) -> None:
    got = dict(zip(FEATURES, extract(np.full((1, 10, 1), value, np.float32), FEATURES)[0], strict=True))
    assert (got["MAV"], got["RMS"]) == (value, value)
    assert (got["WL"], got["ZC"], got["SSC"]) == (0.0, 0.0, 0.0)
    assert got["LOGWL"] == np.log(LOG_FLOOR)
    assert got["LOGMAV"] == pytest.approx(np.log(max(value, LOG_FLOOR)))


def test_one_nan_makes_the_amplitudes_nan_and_only_those_of_its_channel() -> None:
    windows = np.ones((1, 10, 2), np.float32)
    windows[0, 4, 0] = np.nan
    broken, sound = extract(windows, ("MAV", "RMS", "WL")).reshape(2, 3)
    assert np.isnan(broken).all()
    assert np.isfinite(sound).all()


def test_infinity_stays_infinite() -> None:
    windows = np.zeros((1, 10, 1), np.float32)
    windows[0, 3] = np.inf
    assert np.isinf(extract(windows, ("MAV", "LOGRMS"))).all()


@pytest.mark.parametrize("samples", [0, 1, 2])
def test_window_of_less_than_three_samples_is_refused(samples: int) -> None:
    with pytest.raises(EdgeError, match="samples ≥ 3"):
        extract(np.zeros((1, samples, 1), np.float32), ("MAV",))


def test_no_window_gives_no_row() -> None:
    assert extract(np.zeros((0, 10, 4), np.float32), ("MAV", "ZC")).shape == (0, 8)


def test_unknown_feature_lists_what_there_is() -> None:
    with pytest.raises(EdgeError, match="Unknown feature 'IAV'; choose from MAV, RMS"):
        extract(np.zeros((1, 10, 1), np.float32), ("IAV",))
