"""Mixtures have the power of their parts, come from one donning, and their poses stay within joints' limits."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE, read_library
from embridge_edge.learning.combinations import EFFORT, combined_poses, draw_pairs, mixed_batch, read_combinations
from embridge_edge.recordings.loading import read_recordings
from embridge_edge.synthesis.anatomy import POSE_LIMITS_RAD

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
    pairs = draw_pairs(labels, donnings, wanted, 200, step, seed)
    np.testing.assert_array_equal(donnings[pairs.first], donnings[pairs.second])
    for one, other, label in zip(labels[pairs.first], labels[pairs.second], pairs.labels, strict=True):
        assert (one, other, label) in wanted
    assert 60 < (pairs.labels == 7).sum() < 140
    for effort in (pairs.first_effort, pairs.second_effort):
        assert EFFORT[0] <= effort.min() and effort.max() <= EFFORT[1]
    again = draw_pairs(labels, donnings, wanted, 200, step, seed)
    np.testing.assert_array_equal(pairs.first, again.first)
    np.testing.assert_array_equal(pairs.second_effort, again.second_effort)


def test_a_donning_that_lacks_a_part_gives_nothing_and_none_at_all_is_one_line() -> None:
    labels, donnings = np.array([1, 2, 1, 1]), np.array([0, 0, 1, 2])
    pairs = draw_pairs(labels, donnings, [(1, 2, 9)], 20, 0, 0)
    assert set(pairs.first.tolist()) == {0} and set(pairs.second.tolist()) == {1}
    with pytest.raises(EdgeError, match="both parts"):
        draw_pairs(labels, donnings, [(1, 2, 9), (1, 3, 10)], 20, 0, 0)


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


def test_documented_combinations_are_of_known_gestures_and_distinct() -> None:
    motions = read_combinations("longterm-shift")
    assert set(motions) == {f"M{number}" for number in range(3, 23)}
    assert {part for parts in motions.values() for part in parts} <= set(LIBRARY.gestures)
    assert len({frozenset(parts) for parts in motions.values()}) == len(motions)
    assert [motion for motion, parts in motions.items() if len(parts) == 2] == [f"M{n}" for n in range(9, 23)]
    with pytest.raises(EdgeError, match=r"'x'; choose one of longterm-shift"):
        read_combinations("x")


@pytest.mark.slow
def test_recordings_agree_with_the_documented_parts(data: Path) -> None:
    """Of all 21 pairs of singles, the documented pair's summed power is among the nearest to the combination's."""
    motions = read_combinations("longterm-shift")
    power: dict[str, list[np.ndarray]] = {}
    for recording in read_recordings(data / "longterm_shift" / "sub1.days1-10.tar.xz"):
        assert recording.labels is not None
        power.setdefault(recording.gestures[recording.labels[0]], []).append(np.square(recording.emg).mean(axis=0))
    mean = {motion: np.mean(windows, axis=0) for motion, windows in power.items()}
    single = {"flexion": "flexion"} | {parts[0]: motion for motion, parts in motions.items() if len(parts) == 1}
    pairs = list(itertools.combinations(single, 2))
    ranks = []
    for motion, parts in motions.items():
        if len(parts) == 2:
            gaps = [
                np.var(np.log(mean[motion] / (mean[single[one]] + mean[single[other]] - mean["rest"])))
                for one, other in pairs
            ]
            right = next(place for place, pair in enumerate(pairs) if set(pair) == set(parts))
            ranks.append(int(np.sum(np.array(gaps) < gaps[right])))
    assert len(ranks) == 14
    assert np.median(ranks) <= 1
    assert np.mean(ranks) < 3  # by chance 10
