"""Mixtures have the power of their parts, come from one donning, and their poses stay within joints' limits."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import AND, POSE, POSE_LIMITS_RAD, combined_poses, read_library
from embridge_edge.learning.combinations import EFFORT, Mixtures, PairSampler, combinable, mixed_batch
from embridge_edge.learning.splits import training_windows
from embridge_edge.learning.windows import WindowSet
from embridge_edge.recordings.loading import read_recordings
from tests.learning.conftest import MakeRecording, MakeWindows

LIBRARY = read_library()


def noise(powers: list[float], seed: int, n: int = 1, samples: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.sqrt(powers) * rng.standard_normal((n, samples, len(powers)))).astype(np.float32)


def power(windows: np.ndarray) -> np.ndarray:
    return np.square(windows).mean(axis=1)


def test_rest_with_rest_is_rest_and_a_motion_with_rest_is_the_motion() -> None:
    rest, level = [1.0, 2.0], np.array([1.0, 2.0], np.float32)
    np.testing.assert_allclose(power(mixed_batch(noise(rest, 0), noise(rest, 1), level))[0], rest, rtol=0.1)
    np.testing.assert_allclose(power(mixed_batch(noise([9, 30], 0), noise(rest, 1), level))[0], [9, 30], rtol=0.1)


@given(
    st.lists(st.floats(1.0, 100.0), min_size=2, max_size=2),
    st.lists(st.floats(1.0, 100.0), min_size=2, max_size=2),
    st.floats(0.2, 1.0),
    st.floats(0.2, 1.0),
)
@settings(max_examples=30, deadline=None)
def test_power_above_rest_adds_up(one: list[float], other: list[float], first: float, second: float) -> None:
    mixed = mixed_batch(noise(one, 0), noise(other, 1), np.ones(2, np.float32), first, second)
    expected = first**2 * (np.array(one) - 1) + second**2 * (np.array(other) - 1) + 1
    np.testing.assert_allclose(power(mixed)[0], expected, rtol=0.15)


def test_each_window_has_its_own_effort_and_rest_and_order_does_not_matter() -> None:
    first, second = noise([4, 9], 0, 3, 200), noise([25, 1], 1, 3, 200)
    level = np.array([[1, 1], [0.5, 0.2], [0, 0]], np.float32)
    efforts = np.array([1.0, 0.5, 0.7], np.float32), np.array([0.5, 1.0, 0.9], np.float32)
    together = mixed_batch(first, second, level, *efforts)
    for place in range(3):
        alone = mixed_batch(
            first[[place]], second[[place]], level[place], float(efforts[0][place]), float(efforts[1][place])
        )
        np.testing.assert_allclose(together[place], alone[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixed_batch(second, first, level, *efforts[::-1]), together, rtol=1e-5, atol=1e-6)
    assert together.dtype == np.float32


def test_silence_stays_silence() -> None:
    silent = np.zeros((1, 10, 2), np.float32)
    np.testing.assert_array_equal(mixed_batch(silent, silent, np.zeros(2, np.float32)), silent)


@given(st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_parts_are_of_one_donning_and_efforts_within_their_range(seed: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    labels, donnings = np.tile(np.arange(4), 60), rng.integers(5, size=240)
    wanted = [(1, 2, 7), (2, 3, 8)]
    pairs = PairSampler(labels, donnings, wanted, seed).draw(step, 200)
    np.testing.assert_array_equal(donnings[pairs.first], donnings[pairs.second])
    for one, other, label in zip(labels[pairs.first], labels[pairs.second], pairs.labels, strict=True):
        assert (one, other, label) in wanted
    assert 60 < (pairs.labels == 7).sum() < 140
    for effort in (pairs.first_effort, pairs.second_effort):
        assert EFFORT[0] <= effort.min() and effort.max() <= EFFORT[1]
    again = PairSampler(labels, donnings, wanted, seed).draw(step, 200)
    np.testing.assert_array_equal(pairs.first, again.first)
    np.testing.assert_array_equal(pairs.second_effort, again.second_effort)


def test_a_donning_that_lacks_a_part_gives_nothing_and_none_at_all_is_one_line() -> None:
    labels, donnings = np.array([1, 2, 1, 1]), np.array([0, 0, 1, 2])
    pairs = PairSampler(labels, donnings, [(1, 2, 9)], 0).draw(0, 20)
    assert set(pairs.first.tolist()) == {0} and set(pairs.second.tolist()) == {1}
    with pytest.raises(EdgeError, match="both parts"):
        PairSampler(labels, donnings, [(1, 2, 9), (1, 3, 10)], 0)


def test_pose_of_a_combination_has_both_excursions() -> None:
    poses = {name: LIBRARY.poses((name,))[0] for name in ("rest", "flexion", "pronation", "fist", "extension")}
    both = combined_poses(poses["flexion"], poses["pronation"], poses["rest"])
    wrist = POSE.index("wrist_flexion")
    assert both[wrist] == pytest.approx(poses["flexion"][wrist])
    assert both[POSE.index("wrist_pronation")] == pytest.approx(1.0)
    for pose in poses.values():
        np.testing.assert_allclose(combined_poses(pose, poses["rest"], poses["rest"]), pose, atol=1e-6)
    stacked = combined_poses(np.stack([poses["fist"]] * 2), np.stack([poses["fist"]] * 2), poses["rest"])
    assert (stacked <= POSE_LIMITS_RAD[:, 1] + 1e-6).all()
    assert stacked[0, POSE.index("index_pip_fe")] == pytest.approx(POSE_LIMITS_RAD[POSE.index("index_pip_fe"), 1])
    free = poses["flexion"].copy()
    free[3] = np.nan
    assert np.isnan(combined_poses(free, poses["fist"], poses["rest"])).tolist() == np.isnan(free).tolist()


def test_gestures_that_move_the_same_joint_cannot_be_made_at_once() -> None:
    wrist = ("flexion", "extension", "radial_deviation", "ulnar_deviation", "pronation", "supination", "fist")
    found = {frozenset(pair) for pair in combinable(LIBRARY, ("rest", *wrist, "M9"))}
    opposed = [{"flexion", "extension"}, {"radial_deviation", "ulnar_deviation"}, {"pronation", "supination"}]
    assert found == {frozenset(pair) for pair in itertools.combinations(wrist, 2)} - set(map(frozenset, opposed))
    assert combinable(LIBRARY, ("fist", "point")) == []
    assert len({LIBRARY.poses((AND.join(pair),)).tobytes() for pair in map(tuple, found)}) == len(found)


GESTURES = ("rest", "fist", "flexion", "pronation", "fist+flexion")


def mixed_by_hand(windows: WindowSet, which: np.ndarray, mixtures: Mixtures, step: int, count: int) -> np.ndarray:
    """Inputs of the network, window by window: the parts' samples cut from the signal, mixed, given the parts' power."""
    pairs = mixtures._sampler.draw(step, count)
    chain, found = windows.chain, []
    for place in range(count):
        first, second = which[pairs.first[place]], which[pairs.second[place]]
        parts = [
            effort * windows.signal[windows.starts[part] : windows.starts[part] + chain.window].astype(np.float64)
            for part, effort in ((first, pairs.first_effort[place]), (second, pairs.second_effort[place]))
        ]
        assert windows.sessions[first] == windows.sessions[second] and windows.labels[first] != windows.labels[second]
        resting = which[(windows.labels[which] == 0) & (windows.sessions[which] == windows.sessions[first])]
        level = np.mean([np.square(windows.samples(np.array([one]))).mean(axis=(0, 1)) for one in resting], axis=0)
        efforts = (pairs.first_effort[place], pairs.second_effort[place])
        power = level + sum(
            np.maximum(np.square(part).mean(axis=0) - effort**2 * level, 0)
            for part, effort in zip(parts, efforts, strict=True)
        )
        together = sum(np.square(part).mean(axis=0) for part in parts)
        mixed = ((parts[0] + parts[1]) * np.sqrt(power / together)).astype(np.float32)
        found.append(chain.inputs(mixed, np.zeros(1, np.int64))[0])
    return np.stack(found)


@pytest.mark.parametrize("features", [(), ("LOGRMS", "WL")])
def test_mixtures_have_power_pose_and_label_of_both_parts(
    recording: MakeRecording, cut: MakeWindows, features: tuple[str, ...]
) -> None:
    runs = [(0, 400), (1, 400), (2, 400), (3, 400)]
    chain = ChainPlan(window_ms=200.0, hop_ms=50.0, bandpass_hz=None, features=features)
    windows = cut([recording(wearer=name, runs=runs, gestures=GESTURES) for name in "ab"], chain)
    which = np.flatnonzero(windows.labels >= 0)
    mixtures = Mixtures(windows, which, LIBRARY, seed=1)
    x, poses, labels = mixtures.draw(3, 40)
    assert x.shape == (40, *windows.chain.input_shape) and np.isfinite(x).all()
    assert set(labels.tolist()) == {-1, 4}  # fist with flexion is a gesture of the set, the others are not
    expected = {LIBRARY.poses((AND.join(pair),)).tobytes() for pair in combinable(LIBRARY, GESTURES[1:4])}
    assert {pose[-1:].tobytes() for pose in poses} == expected
    for label, pose in zip(labels, poses, strict=True):
        assert (label == 4) == bool((pose[-1] == LIBRARY.pose("fist+flexion")).all())
    np.testing.assert_allclose(x, mixed_by_hand(windows, which, mixtures, 3, 40), rtol=1e-4, atol=1e-4)
    some = np.array([5, 30])
    for part, whole in zip(mixtures.draw(3, 40, some), (x, poses, labels), strict=True):
        np.testing.assert_array_equal(part, whole[some])
    assert [len(part) for part in mixtures.draw(3, 40, some[:0])] == [0, 0, 0]


def test_mixtures_never_use_what_is_not_trained_on(recording: MakeRecording, cut: MakeWindows) -> None:
    runs = [(0, 400), (1, 400), (2, 400), (3, 400)]
    windows = cut([recording(runs=runs, gestures=GESTURES)], hold_out_gestures=("pronation",))
    mixtures = Mixtures(windows, training_windows(windows, None), LIBRARY, seed=1)
    _, _, labels = mixtures.draw(0, 50)
    assert set(labels.tolist()) == {4}


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([(1, 400), (2, 400)], "need windows of rest"),
        ([(0, 400), (1, 400)], "No two gestures of these recordings can be made at once"),
    ],
)
def test_recordings_that_cannot_be_mixed_are_one_line(
    recording: MakeRecording, cut: MakeWindows, runs: list[tuple[int, int]], says: str
) -> None:
    windows = cut([recording(runs=runs, gestures=GESTURES)])
    with pytest.raises(EdgeError, match=says):
        Mixtures(windows, np.flatnonzero(windows.labels >= 0), LIBRARY, seed=0)


def test_names_of_combinations_give_pose_and_attributes_of_their_parts() -> None:
    both = LIBRARY.gesture("flexion+fist")
    assert both is not None
    assert set(both.attributes) == set(LIBRARY.gestures["flexion"].attributes) | set(
        LIBRARY.gestures["fist"].attributes
    )
    poses = [LIBRARY.gestures[name].pose for name in ("flexion", "fist", "rest")]
    np.testing.assert_array_equal(both.pose, combined_poses(*poses))
    assert LIBRARY.pose("flexion+M4") is None and LIBRARY.pose("flexion+") is None


@pytest.mark.slow
def test_recordings_agree_with_the_documented_parts(data: Path) -> None:
    """Of all 21 pairs of singles, the documented pair's summed power is among the nearest to the combination's."""
    power: dict[str, list[np.ndarray]] = {}
    for recording in read_recordings(data / "longterm_shift" / "sub1.days1-10.tar.xz"):
        assert recording.labels is not None
        power.setdefault(recording.gestures[recording.labels[0]], []).append(np.square(recording.emg).mean(axis=0))
    assert all(LIBRARY.pose(motion) is not None for motion in power)
    mean = {motion: np.mean(windows, axis=0) for motion, windows in power.items()}
    singles = [motion for motion in mean if motion != "rest" and AND not in motion]
    pairs = list(itertools.combinations(singles, 2))
    ranks = []
    for motion in mean.keys() - {"rest", *singles}:
        gaps = [np.var(np.log(mean[motion] / (mean[one] + mean[other] - mean["rest"]))) for one, other in pairs]
        right = next(place for place, pair in enumerate(pairs) if set(pair) == set(motion.split(AND)))
        ranks.append(int(np.sum(np.array(gaps) < gaps[right])))
    assert len(ranks) == 14
    assert np.median(ranks) <= 1
    assert np.mean(ranks) < 3  # by chance 10
