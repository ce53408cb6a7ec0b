"""Poses follow labels with ramps and never across a clock jump; the library covers what is documented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import (
    FINGER_JOINTS,
    FULL_FLEXION_RAD,
    POSE,
    pose_from_curls,
    pose_from_labels,
    read_library,
)
from embridge_edge.recordings.description import shipped_descriptions

LIBRARY = read_library()
NAMES = ("rest", "fist", "M3", "flexion")
RATE_HZ = 200.0
RAMP = 60


def track(labels: list[int], breaks: list[int] | None = None, ramp_ms: float = 300.0) -> np.ndarray:
    given_breaks = None if breaks is None else np.array(breaks, np.int64)
    return pose_from_labels(np.array(labels, np.int16), NAMES, LIBRARY, RATE_HZ, given_breaks, ramp_ms)


def pose(name: str) -> np.ndarray:
    found = LIBRARY.pose(name)
    assert found is not None
    return found


def test_pose_goes_over_as_a_raised_cosine() -> None:
    got = track([0] * 100 + [1] * 100)
    np.testing.assert_array_equal(got[:100], np.tile(pose("rest"), (100, 1)))
    np.testing.assert_allclose(got[100 + RAMP // 2 - 1], (pose("rest") + pose("fist")) / 2, atol=1e-6)
    np.testing.assert_allclose(got[100 + RAMP - 1 :], np.tile(pose("fist"), (101 - RAMP, 1)), atol=1e-6)
    assert np.all(np.diff(got[:, POSE.index("index_mcp_fe")]) >= 0)


def test_change_within_a_ramp_starts_from_where_the_hand_is() -> None:
    got = track([0] * 100 + [1] * 20 + [3] * 200)
    assert np.abs(np.diff(got, axis=0)).max() < np.pi / 2 / RAMP * np.abs(pose("fist")).max() * 1.1
    np.testing.assert_allclose(got[-1], pose("flexion"), atol=1e-6)


def test_no_ramp_begins_at_or_crosses_a_clock_jump() -> None:
    at_jump = track([0] * 100 + [1] * 100, breaks=[100])
    np.testing.assert_array_equal(at_jump[100], pose("fist"))
    before_jump = track([0] * 100 + [1] * 100, breaks=[110])
    assert not np.allclose(before_jump[109], pose("fist"))
    np.testing.assert_array_equal(before_jump[110:], np.tile(pose("fist"), (90, 1)))


def test_gesture_without_a_pose_is_nan_and_so_are_ramps_from_and_to_it() -> None:
    got = track([0] * 50 + [2] * 100 + [1] * 100)
    assert np.isfinite(got[:50]).all()
    assert np.isnan(got[50 : 150 + RAMP - 1]).all()
    assert np.isfinite(got[150 + RAMP :]).all()


def test_unlabelled_sample_has_no_pose() -> None:
    assert np.isnan(track([-1] * 30)).all()
    assert np.isnan(track([0] * 30 + [-1] * 30)[30:]).all()


@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1, 2, 3]), st.integers(1, 100)), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_pose_is_the_canonical_one_behind_every_ramp(runs: list[tuple[int, int]]) -> None:
    labels = np.concatenate([np.full(count, label, np.int16) for label, count in runs])
    got = pose_from_labels(labels, NAMES, LIBRARY, RATE_HZ)
    assert got.shape == (len(labels), len(POSE))
    assert got.dtype == np.float32
    changes = np.flatnonzero(np.diff(labels)) + 1
    for sample, label in enumerate(labels):
        latest = max([change for change in changes if change <= sample], default=-RAMP)
        if sample - latest >= RAMP:
            expected = np.full(len(POSE), np.nan) if label < 0 or NAMES[label] == "M3" else pose(NAMES[label])
            np.testing.assert_array_equal(got[sample], expected)


def test_no_ramp_at_all_is_a_step() -> None:
    np.testing.assert_array_equal(track([0, 0, 1, 1], ramp_ms=0.0)[2], pose("fist"))


def test_curl_bends_the_joints_of_its_finger_alone() -> None:
    curl = np.array([1.0, 0.25, 0.0], np.float32)
    got = pose_from_curls({"index": curl, "thumb": curl})
    for name in POSE:
        column = got[:, POSE.index(name)]
        if name.startswith(("index", "thumb")) and name.endswith("_fe"):
            np.testing.assert_allclose(column, (1 - curl) * FULL_FLEXION_RAD[name], rtol=1e-6)
        else:
            assert np.isnan(column).all(), name


def test_signs_are_flexion_ulnar_and_pronation() -> None:
    wrist = {name: pose(name)[20:] for name in LIBRARY.gestures}
    assert wrist["flexion"][0] > 0 > wrist["extension"][0]
    assert wrist["ulnar_deviation"][1] > 0 > wrist["radial_deviation"][1]
    assert wrist["pronation"][2] > 0 > wrist["supination"][2]
    flexing = [POSE.index(name) for name in FULL_FLEXION_RAD]
    assert (pose("fist")[flexing] > pose("rest")[flexing]).all()
    assert (pose("rest")[flexing] >= pose("open_hand")[flexing]).all()


def test_pose_vector_has_the_layouts_order() -> None:
    assert len(FINGER_JOINTS) == 20
    assert POSE[4:8] == ("index_mcp_aa", "index_mcp_fe", "index_pip_fe", "index_dip_fe")
    assert POSE[20:] == ("wrist_flexion", "wrist_deviation", "wrist_pronation")


def test_documented_labels_of_the_shared_recordings_have_poses() -> None:
    named = shipped_descriptions()
    myo = {"rest", "flexion", "extension", "radial_deviation", "ulnar_deviation", "pronation", "supination", "fist"}
    text = {name: repr(description) for name, description in named.items()}
    for gesture in myo:
        assert f"'{gesture}'" in text["myo-readings"]
        assert LIBRARY.pose(gesture) is not None
    labels = named["longterm-shift"].labels
    assert labels is not None and labels.names is not None and len(set(labels.names.values())) == 22
    assert all(LIBRARY.pose(gesture) is not None for gesture in labels.names.values())


def test_every_gesture_has_another_pose() -> None:
    poses = LIBRARY.poses(tuple(LIBRARY.gestures))
    assert np.isfinite(poses).all()
    apart = np.abs(poses[:, None] - poses[None]).max(axis=-1) + np.eye(len(poses))
    assert apart.min() > 0.1


def test_unknown_gestures_are_rows_of_nan() -> None:
    poses = LIBRARY.poses(("fist", "M17"))
    assert np.isfinite(poses[0]).all()
    assert np.isnan(poses[1]).all()
    assert LIBRARY.poses(()).shape == (0, len(POSE))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a]\ncurl = { thum = 1.0 }", "unknown finger 'thum'; choose one of thumb, index"),
        ("[a]\nangles = { elbow = 1.0 }", "unknown angle 'elbow'; choose one of thumb_cmc_fe"),
        ("[a]\ncolour = 1", "unknown key 'colour'; use curl, angles or attributes"),
        ("a = 1", "must be a table"),
        ("[a]\ncurl = 1", "must be tables"),
        ("[a]\nattributes = 'x'", "a list"),
        ("[a]\ncurl = { thumb = 'x' }", "curl of thumb is 'x'"),
        ("[a]\ncurl = { thumb = 1.5 }", "0 .straight. to 1"),
        ("[a]\nangles = { wrist_flexion = 50 }", "radians"),
        ("[a]\nangles = { wrist_flexion = true }", "radians"),
        ("[a", "write it like the shipped gestures.toml"),
    ],
)
def test_wrong_library_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(EdgeError, match=says) as caught:
        read_library(tmp_path / "mine.toml")
    assert "\n" not in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_missing_or_binary_library_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="No such file"):
        read_library(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EdgeError, match=r"binary\.toml"):
        read_library(tmp_path / "binary.toml")


def test_free_angle_is_nan(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[a]\nangles = { wrist_flexion = nan }")
    found = read_library(tmp_path / "mine.toml").pose("a")
    assert found is not None
    assert np.isnan(found[POSE.index("wrist_flexion")])
