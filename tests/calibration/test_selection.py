"""The windows that set int8 ranges: training windows, even, with the strongest; and an honest account of what they cover."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.calibration.selection import STRONGEST_SHARE, coverage, refuse_uncovered, select_windows
from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import read_library
from embridge_edge.learning.windows import WindowSet, cut_windows
from embridge_edge.progress import Progress
from embridge_edge.recipe import MixPlan, QuantizePlan, WindowPlan
from embridge_edge.recordings.recording import Recording
from embridge_edge.verbs.quantize import calibration_of, search_of
from embridge_edge.verbs.workflow import Job

WEARERS = "abcdef"


def made(wearer: str, seconds: dict[int, int]) -> Recording:
    labels = np.concatenate([np.full(200 * count, label, np.int16) for label, count in seconds.items()])
    rng = np.random.default_rng(ord(wearer))
    emg = (1 + labels[:, None]) * rng.standard_normal((len(labels), 3)) * (1 + WEARERS.index(wearer))
    emg[700] = 40.0 + WEARERS.index(wearer)  # a rare, strong sample
    return Recording(
        emg.astype(np.float32), 200.0, "myo", wearer, wearer=wearer, labels=labels, gestures=("rest", "fist", "flexion")
    )


@pytest.fixture(scope="module")
def windows() -> WindowSet:
    """Six wearers who mostly rest; a flexion is rare."""
    recordings = [made(wearer, {0: 60, 1: 4, 2: 1}) for wearer in WEARERS]
    return cut_windows(
        recordings, ChainPlan(window_ms=200.0, bandpass_hz=None), WindowPlan(guard_ms=100.0), read_library()
    )


@given(count=st.integers(1, 300), seed=st.integers(0, 50), every=st.sampled_from([1, 3, 500]))
@settings(max_examples=40, deadline=None)
def test_only_training_windows_are_chosen_and_no_more_than_asked(
    windows: WindowSet, count: int, seed: int, every: int
) -> None:
    which = np.arange(len(windows))[::every]
    chosen = select_windows(windows, which, count, seed)
    assert 1 <= len(chosen) <= count
    assert set(chosen) <= set(which)
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, select_windows(windows, which, count, seed))


@pytest.mark.parametrize("seed", range(5))
def test_every_gesture_and_wearer_is_there_however_rare(windows: WindowSet, seed: int) -> None:
    chosen = select_windows(windows, np.arange(len(windows)), 96, seed)
    assert set(windows.labels[chosen]) == {-1, 0, 1, 2}
    assert set(windows.wearers[chosen]) == set(range(len(WEARERS)))
    rest = np.mean(windows.labels[chosen] == 0)
    assert rest < 0.5 < np.mean(windows.labels == 0)


def test_strongest_windows_are_among_them(windows: WindowSet) -> None:
    which = np.arange(len(windows))
    peaks = np.abs(windows.inputs(which)).max(axis=(1, 2))
    chosen = select_windows(windows, which, 400, 0)
    assert peaks[chosen].max() == peaks.max()
    assert np.mean(peaks[chosen] >= np.quantile(peaks, 0.95)) > STRONGEST_SHARE / 2


def test_nothing_to_choose_from_is_one_line(windows: WindowSet) -> None:
    with pytest.raises(EdgeError, match="No training window"):
        select_windows(windows, np.zeros(0, np.int64), 10, 0)


def test_saturation_is_the_share_of_test_samples_beyond_the_range(windows: WindowSet) -> None:
    weak, all_of_them = np.flatnonzero(windows.wearers == 0), np.arange(len(windows))
    found = coverage(windows, weak, all_of_them)
    x, limits = windows.inputs(all_of_them), windows.inputs(weak)
    outside = (x < limits.min()) | (x > limits.max())
    for column, row in enumerate(found.channels):
        assert row.channel == column
        assert row.saturated_share == pytest.approx(outside[..., column].mean())
        assert row.calibration_high == limits[..., column].max()
        assert row.test_low == x[..., column].min()
    assert coverage(windows, all_of_them, weak).channels[0].saturated_share == 0.0


def test_account_of_wearers_gestures_and_rest(windows: WindowSet) -> None:
    chosen = np.flatnonzero(windows.wearers < 2)
    found = coverage(windows, chosen, chosen)
    labels = windows.labels[chosen]
    assert (found.windows, found.wearers, found.sessions) == (len(chosen), 2, 2)
    assert found.gesture_shares == {
        name: pytest.approx(np.mean(labels == place)) for place, name in enumerate(windows.gestures)
    }
    assert found.rest_share == pytest.approx(np.mean(labels <= 0))
    assert set(found.to_json()) >= {"windows", "channels", "rest_share"}


def test_a_set_that_covers_is_let_through_and_others_are_one_line(windows: WindowSet) -> None:
    which = np.flatnonzero(windows.labels >= 0)
    chosen = select_windows(windows, which, 200, 0)
    refuse_uncovered(coverage(windows, chosen, which), windows, which, 0.001)
    resting = which[windows.labels[which] == 0]
    with pytest.raises(EdgeError, match="holds none of fist, flexion; raise windows"):
        refuse_uncovered(coverage(windows, resting, which), windows, which, 1.0)
    quiet = np.array([which[windows.labels[which] == label][0] for label in range(3)])
    with pytest.raises(EdgeError, match=r"% of the judged samples lie outside the calibration range \(allowed 0\.10\)"):
        refuse_uncovered(coverage(windows, quiet, which), windows, which, 0.001)


def test_layers_are_searched_on_windows_that_set_no_range(
    windows: WindowSet, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(windows, None, np.arange(len(windows)), read_library())
    plan = QuantizePlan(windows=100, mix=MixPlan(windows=80))
    calibration, _ = calibration_of(job, replace(plan, most_saturated=1.0), 0)
    search = search_of(job, plan, None, 0)
    assert search is not None and len(search.windows) == 80
    seen = {window.tobytes() for window in calibration}
    assert not [window for window in search.windows if window.tobytes() in seen]
    few = replace(job, train=np.arange(0, len(windows), len(windows) // 110))
    search = search_of(few, plan, None, 0, Progress(quiet=False))
    assert search is not None and len(search.windows) == 80
    assert "searches on those that set the ranges, too" in capsys.readouterr().err
    assert search_of(job, replace(plan, mix=None), None, 0) is None
