"""Which muscles a pose takes: joint torque, non-negative muscle activations that give it, and neural excitation.

The torque that holds and moves a pose is shared among the muscles by static optimisation: the activations between
0 and 1 with the least sum of squares (Crowninshield and Brand 1981, with the power 2) that give the torque through
the signed moment arms. Excitation leads activation by Zajac's first-order dynamics (1989), so EMG leads the movement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.compiled import compiled
from embridge_edge.gestures import POSE, POSE_LIMITS_RAD, read_library
from embridge_edge.synthesis.anatomy import MUSCLES, Forearm
from embridge_edge.synthesis.protocol import FRAME_HZ

Array = npt.NDArray[np.float64]

RISE_S, FALL_S = 0.015, 0.050
"""Zajac 1989: activation and deactivation time constants."""

# Stiffness around the relaxed pose in Nm/rad. Wrist: 0.5 to 1 in flexion, half as much again in deviation, half of it
# in pronation (Formica 2012). Fingers: MCP 0.05 to 0.1 (Kamper 2002); the distal joints and the thumb are scaled by
# the size of the joint, an assumption.
_STIFFNESS_NM_RAD = {
    "wrist_flexion": 0.7,
    "wrist_deviation": 1.1,
    "wrist_pronation": 0.4,
    "thumb_cmc_fe": 0.12,
    "thumb_cmc_aa": 0.12,
    "thumb_mcp_fe": 0.06,
    "thumb_ip_fe": 0.04,
    "mcp_fe": 0.08,
    "mcp_aa": 0.12,
    "pip_fe": 0.05,
    "dip_fe": 0.025,
}
STIFFNESS_NM_RAD: Array = np.array([_STIFFNESS_NM_RAD.get(name) or _STIFFNESS_NM_RAD[name[-6:]] for name in POSE])
# Inertia of the hand about the wrist 3e-3 kg m² and about the forearm's axis 1e-3; of a finger about its base 1e-4.
INERTIA_KG_M2: Array = np.array([(3e-3, 3e-3, 1e-3)[i - 20] if i >= 20 else 1e-4 for i in range(len(POSE))])
DAMPING_S = 0.05
"""Damping as a share of stiffness: a damping ratio of about 0.3 at the wrist (Milner and Cloutier 1998)."""
HAND_WEIGHT_NM = 0.31
"""0.45 kg at 7 cm from the wrist (Winter 2009, for 75 kg)."""
STIFFENING = 1.5
"""A joint at its limit resists this much more, besides: tissue torque grows steeply near the limits."""

_FLEXION, _DEVIATION, _PRONATION = 20, 21, 22
_RELAXED_CURL = 1.2
"""A hand with silent muscles curls a little more than the library's rest pose."""


@dataclass(frozen=True)
class Posture:
    """How the arm is held during a session.

    Attributes:
        forearm_roll_rad: rotation of the whole forearm about its axis by the shoulder; 0 is thumb up.
        elevation_rad: of the forearm over the horizontal.
        support: share of the hand's weight that a table carries, 0 to 1.
        elbow_load: activation of the brachioradialis that holds the elbow.
        tension: factor on co-contraction; a tired or eager wearer stiffens more.
    """

    forearm_roll_rad: float = 0.0
    elevation_rad: float = 0.0
    support: float = 0.0
    elbow_load: float = 0.03
    tension: float = 1.0


def relaxed_pose() -> Array:
    """The pose of the hand at which no torque is needed, float64 `[23]`, radians."""
    relaxed = read_library().gestures["rest"].pose.astype(np.float64) * _RELAXED_CURL
    relaxed[_FLEXION] = -0.15
    return relaxed


def joint_torque(pose: Array, effort: Array, forearm: Forearm, posture: Posture, frame_hz: float = FRAME_HZ) -> Array:
    """Torque that the muscles have to give, float64 `[frames, 23]` in Nm, positive towards positive angles.

    Args:
        pose: `[frames, 23]`, radians.
        effort: `[frames]`, factor on the elastic part, the wearer's habit not included.
    """
    velocity = np.gradient(pose, axis=0) * frame_hz if len(pose) > 1 else np.zeros_like(pose)
    acceleration = np.gradient(velocity, axis=0) * frame_hz if len(pose) > 1 else np.zeros_like(pose)
    bend = pose - relaxed_pose()
    reach = np.abs(np.where(bend > 0.0, POSE_LIMITS_RAD[:, 1], POSE_LIMITS_RAD[:, 0]) - relaxed_pose())
    stiffness = forearm.stiffness * STIFFNESS_NM_RAD
    elastic = stiffness * bend * (1.0 + STIFFENING * (bend / reach) ** 2)
    torque = elastic * (effort * forearm.effort)[:, None] + DAMPING_S * stiffness * velocity
    torque += INERTIA_KG_M2 * acceleration
    roll = posture.forearm_roll_rad + pose[:, _PRONATION]
    weight = HAND_WEIGHT_NM * (1.0 - posture.support) * np.cos(posture.elevation_rad)
    torque[:, _FLEXION] -= weight * np.sin(roll)  # palm down: the weight flexes, so the extensors carry it
    torque[:, _DEVIATION] -= weight * np.cos(roll)  # thumb up: the weight pulls to the little finger's side
    return torque


def activations(torque: Array, forearm: Forearm) -> Array:
    """Muscle activations 0..1, float64 `[frames, muscles]` over MUSCLES, that give a torque `[frames, 23]` in Nm."""
    strength = forearm.force_n[:, None] * forearm.arms_m
    # A miss counts in units of 3 % of what the joint can give, so that fingers count as much as the wrist.
    scale = 0.03 * np.abs(strength).sum(axis=0) / 2.0
    drive = strength / scale
    gram = drive @ drive.T + np.diag(0.5 * forearm.habit)
    return np.asarray(_share(np.ascontiguousarray(gram), np.ascontiguousarray((torque / scale) @ drive.T)))


@compiled
def _share(gram: Array, pull: Array) -> Array:
    """Coordinate descent on ½aᵀGa − pᵀa with 0 ≤ a ≤ 1, each frame from the one before."""
    frames, muscles = pull.shape
    result = np.zeros((frames, muscles))
    current = np.zeros(muscles)
    for frame in range(frames):
        for _ in range(200 if frame == 0 else 12):
            for muscle in range(muscles):
                slope = pull[frame, muscle]
                for other in range(muscles):
                    slope -= gram[muscle, other] * current[other]
                value = current[muscle] + slope / gram[muscle, muscle]
                current[muscle] = min(1.0, max(0.0, value))
        result[frame] = current
    return result


def excitations(activation: Array, forearm: Forearm, posture: Posture, frame_hz: float = FRAME_HZ) -> Array:
    """Neural excitation, float64 `[frames, muscles]` in 0..1: co-contraction and tone on top, then Zajac inverted.

    Co-contraction adds a share of the root mean square of all activations to every muscle. With ȧ = (u − a)/τ the
    excitation is u = a + τȧ, with τ 15 ms while activation rises and 50 ms while it falls.
    """
    overall = np.sqrt(np.mean(activation**2, axis=1, keepdims=True))
    total = activation + forearm.co_contraction * posture.tension * overall + forearm.tone
    total[:, _BRACHIORADIALIS] += posture.elbow_load
    change = np.gradient(total, axis=0) * frame_hz if len(total) > 1 else np.zeros_like(total)
    return np.asarray(np.clip(total + np.where(change > 0.0, RISE_S, FALL_S) * change, 0.0, 1.0))


_BRACHIORADIALIS = next(index for index, muscle in enumerate(MUSCLES) if muscle.name == "BR")
