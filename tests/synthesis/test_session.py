import numpy as np
import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE_LIMITS_RAD, read_library
from embridge_edge.recordings.recording import UNLABELLED, Recording
from embridge_edge.synthesis.armband import choose_armband
from embridge_edge.synthesis.session import habitual_poses, make_wearer, simulate_session

NAMES = ("rest", "flexion", "extension", "fist")
POSES = read_library().poses(NAMES).astype(float)


def make(
    number: int = 1, session: int = 1, channels: int = 8, rate_hz: float = 200.0, seconds: float = 20.0
) -> Recording:
    return simulate_session(
        make_wearer(number, 0), session, choose_armband(channels, rate_hz), NAMES, POSES, seconds, 0.2
    )


RECORDING = make()


def test_same_seed_gives_identical_samples() -> None:
    again = make()
    assert RECORDING.emg.tobytes() == again.emg.tobytes()
    assert RECORDING.pose is not None
    assert again.pose is not None
    assert RECORDING.pose.tobytes() == again.pose.tobytes()


def test_sessions_and_wearers_differ() -> None:
    assert not np.array_equal(RECORDING.emg, make(session=2).emg)
    assert not np.array_equal(RECORDING.emg, make(number=2).emg)


def test_a_myo_gives_whole_counts_within_a_byte() -> None:
    assert RECORDING.unit == "myo"
    np.testing.assert_array_equal(RECORDING.emg, np.rint(RECORDING.emg))
    assert np.abs(RECORDING.emg).max() <= 128


def test_sixteen_channels_are_in_volts() -> None:
    recording = make(channels=16, rate_hz=2000.0, seconds=4.0)
    assert recording.unit == "V"
    assert recording.emg.shape == (8000, 16)
    assert 1e-6 < np.median(recording.emg.std(axis=0)) < 1e-3


@pytest.mark.parametrize(("channels", "rate_hz"), [(4, 100.0), (8, 250.0), (12, 1111.0), (64, 8000.0)])
def test_any_sensible_shape_is_finite_and_has_a_signal(channels: int, rate_hz: float) -> None:
    recording = make(channels=channels, rate_hz=rate_hz, seconds=2.0)
    assert recording.emg.shape == (round(2 * rate_hz), channels)
    assert np.isfinite(recording.emg).all()
    assert (recording.emg.std(axis=0) > 0).all()


@pytest.mark.parametrize(("channels", "rate_hz"), [(3, 200.0), (65, 200.0), (8, 99.0), (8, 8001.0), (8, float("nan"))])
def test_other_shapes_are_refused(channels: int, rate_hz: float) -> None:
    with pytest.raises(EdgeError, match="An armband"):
        choose_armband(channels, rate_hz)


def test_pose_stays_within_the_joint_limits() -> None:
    assert RECORDING.pose is not None
    assert (RECORDING.pose >= POSE_LIMITS_RAD[:, 0] - 1e-5).all()
    assert (RECORDING.pose <= POSE_LIMITS_RAD[:, 1] + 1e-5).all()


def test_labelled_samples_hold_still_near_the_gesture_and_guards_are_unlabelled() -> None:
    assert RECORDING.labels is not None
    assert RECORDING.pose is not None
    own = habitual_poses(make_wearer(1, 0), NAMES, POSES)
    for label in range(len(NAMES)):
        held = RECORDING.pose[RECORDING.labels == label]
        distance = np.linalg.norm(own - held.mean(axis=0), axis=1)
        assert distance.argmin() == label
    changes = np.flatnonzero(np.diff(RECORDING.labels))
    between = RECORDING.labels[np.concatenate([changes, changes + 1])].reshape(2, -1)
    assert (between == UNLABELLED).any(axis=0).all()


def test_free_movement_ends_the_session_unlabelled_and_covers_other_poses() -> None:
    assert RECORDING.labels is not None
    assert RECORDING.repetitions is not None
    assert RECORDING.pose is not None
    free = slice(round(0.8 * RECORDING.samples) + 1, None)
    assert (RECORDING.labels[free] == UNLABELLED).all()
    assert (RECORDING.repetitions[free] == 0).all()
    assert RECORDING.pose[free].std(axis=0).min() > 0.02


def test_every_repetition_holds_every_gesture() -> None:
    assert RECORDING.labels is not None
    assert RECORDING.repetitions is not None
    assert RECORDING.repetitions.max() >= 2
    for repetition in range(1, RECORDING.repetitions.max() + 1):
        held = RECORDING.labels[RECORDING.repetitions == repetition]
        assert set(held) == {UNLABELLED, 0, 1, 2, 3}


def test_gestures_are_louder_than_rest() -> None:
    assert RECORDING.labels is not None
    for label in range(1, len(NAMES)):
        assert RECORDING.emg[RECORDING.labels == label].std() > 1.5 * RECORDING.emg[RECORDING.labels == 0].std()


def test_a_wearers_way_of_a_gesture_does_not_depend_on_the_others() -> None:
    wearer = make_wearer(3, 0)
    all_of_them = habitual_poses(wearer, NAMES, POSES)
    np.testing.assert_array_equal(habitual_poses(wearer, ("fist",), POSES[3:])[0], all_of_them[3])


def test_tracking_delay_shifts_the_pose_and_nothing_else() -> None:
    late = simulate_session(
        make_wearer(1, 0), 1, choose_armband(8, 200.0), NAMES, POSES, 20.0, 0.2, tracking_delay_s=0.1
    )
    assert late.pose is not None
    assert RECORDING.pose is not None
    np.testing.assert_array_equal(late.emg, RECORDING.emg)
    np.testing.assert_allclose(late.pose[20:-1], RECORDING.pose[:-21], atol=1e-6)
