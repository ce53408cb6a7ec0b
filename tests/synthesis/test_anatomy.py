import numpy as np

from embridge_edge.gestures import POSE, POSE_LIMITS_RAD, read_library
from embridge_edge.synthesis.anatomy import MUSCLES, VISIBLE, grow_forearm, mean_arms_m
from embridge_edge.synthesis.session import make_wearer


def test_every_moment_arm_belongs_to_a_joint_of_the_pose() -> None:
    assert {joint for muscle in MUSCLES for joint in muscle.arms_mm} <= set(POSE)


def test_every_joint_can_be_pulled_both_ways() -> None:
    arms = mean_arms_m()
    assert (arms.max(axis=0) > 0).all()
    assert (arms.min(axis=0) < 0).all()


def test_wrist_flexors_lie_on_the_palmar_side_and_extensors_on_the_dorsal_side() -> None:
    flexion = mean_arms_m()[:, POSE.index("wrist_flexion")]
    palmar = np.cos(np.deg2rad([muscle.angle_deg for muscle in MUSCLES]))
    named = [index for index in VISIBLE if MUSCLES[index].name[:3] in ("FCR", "FCU", "FDS", "ECR", "ECU", "EDC")]
    assert (np.sign(flexion[named]) == np.sign(palmar[named])).all()


def test_library_stays_within_the_joint_limits() -> None:
    for gesture in read_library().gestures.values():
        assert (gesture.pose >= POSE_LIMITS_RAD[:, 0]).all(), gesture.name
        assert (gesture.pose <= POSE_LIMITS_RAD[:, 1]).all(), gesture.name


def test_wearers_differ_and_the_same_seed_gives_the_same_wearer() -> None:
    one, again = (grow_forearm(np.random.default_rng(1)) for _ in range(2))
    other = grow_forearm(np.random.default_rng(2))
    np.testing.assert_array_equal(one.arms_m, again.arms_m)
    assert one.fat_mm != other.fat_mm
    assert not np.array_equal(one.force_n, other.force_n)


def test_moment_arms_keep_their_signs_in_every_wearer() -> None:
    for number in range(1, 6):
        np.testing.assert_array_equal(np.sign(make_wearer(number, 0).forearm.arms_m), np.sign(mean_arms_m()))
