import numpy as np
import pytest

from embridge_edge.gestures import POSE, read_library
from embridge_edge.synthesis.activation import Posture, activations, excitations, joint_torque, relaxed_pose
from embridge_edge.synthesis.anatomy import MUSCLES, VISIBLE, grow_forearm

FOREARM = grow_forearm(np.random.default_rng(0))
TABLE = Posture(support=1.0)
NAMES = [muscle.name for muscle in MUSCLES]


def held(pose: np.ndarray, effort: float = 1.0, posture: Posture = TABLE) -> np.ndarray:
    still = np.repeat(pose[None], 30, axis=0)
    return activations(joint_torque(still, np.full(30, effort), FOREARM, posture), FOREARM)[-1]


def gesture(name: str) -> np.ndarray:
    return read_library().gestures[name].pose.astype(float)


def sides(activation: np.ndarray) -> tuple[float, float]:
    """Force of the palmar and of the dorsal muscles under the band."""
    dorsal = np.array([90 < abs(muscle.angle_deg) <= 180 for muscle in MUSCLES])
    seen = np.isin(np.arange(len(MUSCLES)), VISIBLE)
    force = activation * FOREARM.force_n
    return float(force[seen & ~dorsal].sum()), float(force[seen & dorsal].sum())


def test_flexion_activates_the_palmar_side_more_and_extension_the_dorsal_side() -> None:
    palmar, dorsal = sides(held(gesture("flexion")))
    assert palmar > 2 * dorsal
    palmar, dorsal = sides(held(gesture("extension")))
    assert dorsal > 2 * palmar


@pytest.mark.parametrize(
    ("name", "agonist", "antagonist"),
    [
        ("flexion", "FCR", "ECRB"),
        ("flexion", "FCU", "ECU"),
        ("extension", "ECRB", "FCR"),
        ("radial_deviation", "ECRL", "ECU"),
        ("ulnar_deviation", "ECU", "ECRL"),
        ("pronation", "PT", "SUP"),
        ("supination", "SUP", "PT"),
        ("fist", "FDP_middle", "EDC_middle"),
        ("open_hand", "EDC_middle", "FDP_middle"),
        ("thumb_up", "EPB", "FPL"),
    ],
)
def test_agonist_works_more_than_antagonist(name: str, agonist: str, antagonist: str) -> None:
    activation = held(gesture(name))
    assert activation[NAMES.index(agonist)] > activation[NAMES.index(antagonist)] + 0.02


def test_a_fist_takes_wrist_extensors_that_hold_the_wrist() -> None:
    activation = held(gesture("fist"))
    assert activation[NAMES.index("ECRB")] > 0.05


def test_activations_lie_between_0_and_1_and_give_the_torque() -> None:
    still = np.repeat(gesture("fist")[None], 30, axis=0)
    torque = joint_torque(still, np.ones(30), FOREARM, TABLE)
    activation = activations(torque, FOREARM)
    assert activation.min() >= 0.0
    assert activation.max() <= 1.0
    given = (activation * FOREARM.force_n) @ FOREARM.arms_m
    wrist = slice(POSE.index("wrist_flexion"), None)
    np.testing.assert_allclose(given[-1, wrist], torque[-1, wrist], atol=0.08)


def test_a_relaxed_hand_on_a_table_takes_next_to_nothing() -> None:
    assert held(relaxed_pose()).max() < 0.01


def test_more_effort_takes_more_activation() -> None:
    low, high = held(gesture("flexion"), 0.5), held(gesture("flexion"), 1.0)
    assert high.sum() > 1.3 * low.sum()


def test_weight_of_a_palm_down_hand_is_carried_by_the_extensors() -> None:
    lifted = held(relaxed_pose(), posture=Posture(forearm_roll_rad=np.pi / 2, support=0.0))
    palmar, dorsal = sides(lifted)
    assert dorsal > palmar


def test_excitation_leads_activation_and_co_contraction_reaches_every_muscle() -> None:
    activation = np.zeros((60, len(MUSCLES)))
    activation[:, 0] = np.clip(np.linspace(-1, 1, 60), 0, 0.5)
    excitation = excitations(activation, FOREARM, TABLE)
    rising = slice(31, 44)
    assert (excitation[rising, 0] > activation[rising, 0]).all()
    assert (excitation[45, 1:] > 0).all()
    assert excitation.max() <= 1.0
