"""What the hand does: prompted gestures with rest between them, then free movement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.gestures import POSE, POSE_LIMITS_RAD, REST
from embridge_edge.recordings.recording import UNLABELLED

Array = npt.NDArray[np.float64]

FRAME_HZ = 100.0
"""Poses, torques and activations are computed at this rate; activation itself is slower (15 and 50 ms)."""

CYCLE_S = 5.0
"""Rest and gesture of one prompt where there is time enough; shorter where the gestures would not fit otherwise."""
SHORTEST_CYCLE_S = 1.8
REPETITIONS_WANTED = 3
REST_SHARE = 0.4
"""Share of a cycle that is rest."""
REST_EFFORT = 0.3
EFFORT_SPREAD = 0.35
"""Nobody presses equally hard twice: spread of the logarithm between repetitions, tuned to the variation of RMS within
a gesture of myo_readings."""
MOVES_S = (0.30, 0.55)
"""Duration of a wrist or finger movement at an unhurried pace."""
REACTION_S, REACTION_SPREAD_S = 0.28, 0.06
"""Choice reaction time to a visual prompt, assumed; evaluations on real recordings leave out 0.3 s for it."""


@dataclass(frozen=True)
class Script:
    """What the hand does during one session, at FRAME_HZ.

    Attributes:
        pose: float64 `[frames, 23]`, radians.
        effort: float64 `[frames]`, factor on the force with which the pose is held.
        prompt: int16 `[frames]`, index of the gesture the hand truly holds, UNLABELLED while it is on its way.
        repetition: int16 `[frames]`, round in which every gesture comes once, from 1; 0 in the free part.
    """

    pose: Array
    effort: Array
    prompt: npt.NDArray[np.int16]
    repetition: npt.NDArray[np.int16]


def write_script(
    names: tuple[str, ...],
    poses: Array,
    seconds: float,
    free_share: float,
    rng: np.random.Generator,
    never_free: tuple[str, ...] = (),
) -> Script:
    """Prompted rounds over all gestures but rest, then free movement for `free_share` of the time.

    A label holds from the end of the movement into a pose to the prompt for the next one: the frames between prompt
    and arrival, where the prompt is not yet true, stay UNLABELLED. Rest, where it is among `names`, comes before
    each gesture and belongs to the same repetition. Gestures that find no time are left out, in random order.

    Args:
        names: gestures; `poses` `[gestures, 23]` in radians, are theirs.
        never_free: gestures from which free movement borrows nothing, so that a model can be trained without them.
    """
    frames = max(1, round(seconds * FRAME_HZ))
    rest = names.index(REST) if REST in names else None
    others = [index for index in range(len(names)) if index != rest]
    relaxed = np.zeros(len(POSE)) if rest is None else poses[rest]
    prompted = frames if not others else round(frames * (1.0 - free_share))

    pose = np.zeros((frames, len(POSE)))
    effort = np.full(frames, REST_EFFORT)
    prompt = np.full(frames, UNLABELLED, np.int16)
    repetition = np.zeros(frames, np.int16)
    here, force, at = relaxed.copy(), REST_EFFORT, 0
    for target, number, length in _prompts(rest, others, prompted, rng):
        stop = min(prompted, at + length)
        goal = _varied(poses[target], target == rest, rng)
        aim = REST_EFFORT if target == rest else float(rng.lognormal(0.0, EFFORT_SPREAD))
        arrived = _move(pose, effort, (at, stop), (here, goal), (force, aim), rng)
        prompt[arrived:stop] = target
        repetition[at:stop] = number
        here, force, at = goal, aim, stop
    borrowed = poses[[index for index, name in enumerate(names) if name not in never_free]]
    pose[at:] = _free(here, borrowed, frames - at, rng)
    effort[at:] = np.clip(0.9 + 0.25 * _smooth_noise(frames - at, 0.5, rng), REST_EFFORT, 1.8)
    pose += 0.01 * np.stack([_smooth_noise(frames, 1.0, rng) for _ in POSE], axis=1)
    return Script(np.clip(pose, POSE_LIMITS_RAD[:, 0], POSE_LIMITS_RAD[:, 1]), effort, prompt, repetition)


def _prompts(rest: int | None, others: list[int], frames: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Gesture, repetition and frames of each prompt: rounds in random order that fill `frames`, or as much as fits."""
    if not others:
        return [] if rest is None else [(rest, 1, frames)]
    time_s = frames / FRAME_HZ
    cycle_s = float(np.clip(time_s / (len(others) * REPETITIONS_WANTED), SHORTEST_CYCLE_S, CYCLE_S))
    rounds = max(1, int(time_s / (len(others) * cycle_s) + 1e-6))
    order = [(int(gesture), number) for number in range(1, rounds + 1) for gesture in rng.permutation(others)]
    order = order[: max(1, int(time_s / cycle_s + 1e-6))]
    lengths = rng.uniform(0.9, 1.1, (len(order), 2)) * ((REST_SHARE, 1.0 - REST_SHARE) if rest is not None else (0, 1))
    lengths *= frames / lengths.sum()
    result = []
    for (gesture, number), (pause, hold) in zip(order, lengths, strict=True):
        if rest is not None:
            result.append((rest, number, max(1, int(pause))))
        result.append((gesture, number, max(1, int(hold))))
    return result


def _varied(pose: Array, at_rest: bool, rng: np.random.Generator) -> Array:
    """Nobody makes the same gesture twice: a common factor of the excursion and a wander of each joint."""
    reach = rng.normal(1.0, 0.16)
    return pose * reach + rng.normal(0.0, 0.04 if at_rest else 0.07, pose.shape)


def _move(
    pose: Array,
    effort: Array,
    span: tuple[int, int],
    ends: tuple[Array, Array],
    forces: tuple[float, float],
    rng: np.random.Generator,
) -> int:
    """Write one prompt: reaction, minimum-jerk movement (Flash and Hogan 1985), hold. Returns the frame of arrival."""
    at, stop = span
    scale = min(1.0, (stop - at) / FRAME_HZ / 1.2)
    reaction = scale * float(np.clip(rng.normal(REACTION_S, REACTION_SPREAD_S), 0.15, 0.6))
    duration = scale * rng.uniform(*MOVES_S)
    phase = np.clip(((np.arange(stop - at) / FRAME_HZ) - reaction) / duration, 0.0, 1.0)
    way = phase**3 * (10.0 - 15.0 * phase + 6.0 * phase**2)
    pose[at:stop] = ends[0] + way[:, None] * (ends[1] - ends[0])
    effort[at:stop] = forces[0] + way * (forces[1] - forces[0])
    return min(stop, at + int(np.ceil((reaction + duration) * FRAME_HZ)))


def _free(here: Array, poses: Array, frames: int, rng: np.random.Generator) -> Array:
    """Smooth random poses: mixtures of gestures and single fingers, joined by minimum-jerk movements."""
    pose = np.zeros((frames, len(POSE)))
    at = 0
    while at < frames:
        stop = min(frames, at + round(rng.uniform(0.35, 1.1) * FRAME_HZ))
        goal = _free_pose(poses, rng)
        phase = np.arange(stop - at) / max(1, stop - at)
        way = phase**3 * (10.0 - 15.0 * phase + 6.0 * phase**2)
        pose[at:stop] = here + way[:, None] * (goal - here)
        here, at = goal, stop
    return pose


def _free_pose(poses: Array, rng: np.random.Generator) -> Array:
    """A pose anywhere the hand goes: each finger's curl of its own, each wrist angle within two thirds of its range."""
    goal = np.zeros(len(POSE))
    for finger in ("thumb", "index", "middle", "ring", "pinky"):
        joints = [index for index, name in enumerate(POSE) if name.startswith(finger) and name.endswith("_fe")]
        curl = rng.beta(0.7, 1.0)
        goal[joints] = curl * POSE_LIMITS_RAD[joints, 1] * rng.normal(0.92, 0.06, len(joints))
    wide = [index for index, name in enumerate(POSE) if name.endswith("_aa")]
    goal[wide] = rng.normal(0.0, 0.12, len(wide))
    wrist = slice(len(POSE) - 3, len(POSE))
    # A wrist at its limits in all axes at once is not a posture of daily life.
    goal[wrist] = 0.65 * rng.uniform(-1.0, 1.0, 3) ** 3 * np.abs(POSE_LIMITS_RAD[wrist]).min(axis=1) * 1.4
    if len(poses) and rng.random() < 0.5:
        return np.asarray(poses[rng.integers(len(poses))] * rng.uniform(0.4, 1.0) + goal * rng.uniform(0.0, 0.6))
    return goal


def _smooth_noise(frames: int, cut_hz: float, rng: np.random.Generator) -> Array:
    """Unit-variance noise slower than `cut_hz`, `[frames]`."""
    if frames == 0:
        return np.zeros(0)
    knots = max(4, int(frames / FRAME_HZ * 2.0 * cut_hz) + 2)
    values = rng.standard_normal(knots)
    return np.asarray(np.interp(np.linspace(0, knots - 1, frames), np.arange(knots), values))
