"""One session of one wearer: from the script of what the hand does to a Recording."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embridge_edge.gestures import REST
from embridge_edge.recordings.recording import Recording
from embridge_edge.synthesis.action_potentials import superpose, templates
from embridge_edge.synthesis.activation import activations, excitations, joint_torque
from embridge_edge.synthesis.anatomy import VISIBLE, Forearm, grow_forearm
from embridge_edge.synthesis.armband import Armband, don, electrode_angles_rad, sense, upsample
from embridge_edge.synthesis.motor_units import Pools, discharges, drive_for, grow_pools
from embridge_edge.synthesis.protocol import FRAME_HZ, write_script

Array = npt.NDArray[np.float64]

VOLTS = 1.0e-3
"""Volts per arbitrary unit of the action potentials, so that the median RMS is that of openbci_hands."""

STYLE_RAD = 0.15
"""How far wearers differ in each joint when asked for the same gesture; tuned to what an unseen wearer costs."""
HABIT_DRIFT = 0.2
"""Spread of the logarithm by which a wearer's preference among muscles changes between sessions; tuned, see `don`."""


@dataclass(frozen=True)
class Wearer:
    """Who wears the band, the same in every session."""

    name: str
    seed: tuple[int, int]
    forearm: Forearm
    pools: Pools
    habitual_roll_rad: float


def make_wearer(number: int, seed: int) -> Wearer:
    """Wearer `number` (from 1) of the population `seed`; does not depend on how many others there are."""
    rng = np.random.default_rng([seed, number, 0])
    forearm = grow_forearm(rng)
    return Wearer(f"w{number:03d}", (seed, number), forearm, grow_pools(forearm, rng), float(rng.normal(0.9, 0.3)))


def habitual_poses(wearer: Wearer, names: tuple[str, ...], poses: Array) -> Array:
    """How this wearer makes the gestures, `[gestures, 23]` in radians: one person's fist is not another's.

    Depends on the wearer and a gesture's name, so that it is the same in every session and choice of gestures.
    """
    own = poses.copy()
    for row, name in enumerate(names):
        rng = np.random.default_rng([*wearer.seed, 0, zlib.crc32(name.encode())])
        own[row] += rng.normal(0.0, STYLE_RAD / 3.0 if name == REST else STYLE_RAD, poses.shape[1])
    return own


def simulate_session(
    wearer: Wearer,
    session: int,
    armband: Armband,
    names: tuple[str, ...],
    poses: Array,
    seconds: float,
    free_share: float,
    tracking_delay_s: float = 0.0,
    never_free: tuple[str, ...] = (),
) -> Recording:
    """Simulate one donning.

    Args:
        names, poses: the gestures that are prompted and their canonical poses `[gestures, 23]` in radians.
        free_share: share of the time at the end in which the hand moves freely and unlabelled.
        tracking_delay_s: by how much the pose track lags the hand, as a camera's does.
        never_free: gestures from which free movement borrows nothing.

    Returns: a Recording with labels, repetitions and pose.
    """
    rng = np.random.default_rng([*wearer.seed, session])
    script = write_script(names, habitual_poses(wearer, names, poses), seconds, free_share, rng, never_free)
    donning = don(armband, wearer.habitual_roll_rad, rng)
    drift = rng.lognormal(0.0, HABIT_DRIFT, len(wearer.forearm.habit))
    shift = donning.along_mm
    forearm = replace(wearer.forearm, habit=wearer.forearm.habit * drift)
    pools = replace(wearer.pools, innervation_mm=wearer.pools.innervation_mm + shift)
    torque = joint_torque(script.pose, script.effort, forearm, donning.posture)
    excitation = excitations(activations(torque, forearm), forearm, donning.posture)[:, VISIBLE]
    drive = drive_for(_unsteady(excitation, rng), pools).astype(np.float32)

    samples = max(1, round(seconds * armband.rate_hz))
    length = samples * armband.oversampling
    angles = electrode_angles_rad(armband, donning, forearm.left)
    fat = forearm.fat_mm * (1.0 - donning.press_mm)
    shapes = templates(pools, forearm, angles, armband.internal_hz, armband.pair_mm, fat)
    units, times = discharges(drive, pools, FRAME_HZ, armband.internal_hz, int(rng.integers(2**63)))
    clean = superpose(units, times, shapes, length) * np.float32(VOLTS)
    speed = np.linalg.norm(np.gradient(script.pose, axis=0), axis=1) * FRAME_HZ if len(script.pose) > 1 else np.zeros(1)
    emg = sense(clean, speed, donning, armband, rng)

    frame = np.minimum((np.arange(samples) * (FRAME_HZ / armband.rate_hz)).astype(np.int64), len(script.pose) - 1)
    late = np.maximum(np.arange(len(script.pose)) - round(tracking_delay_s * FRAME_HZ), 0)
    return Recording(
        emg=emg,
        rate_hz=armband.rate_hz,
        unit=armband.unit,
        source=f"{wearer.name}-s{session}",
        wearer=wearer.name,
        session=str(session),
        side="left" if forearm.left else "right",
        labels=script.prompt[frame],
        gestures=names,
        repetitions=script.repetition[frame],
        pose=upsample(script.pose[late], samples, armband.rate_hz),
        full_scale=armband.full_scale,
    )


def _unsteady(excitation: Array, rng: np.random.Generator) -> Array:
    """Common drive: the excitation of a pool wanders by a fifth at about 1 to 3 Hz (De Luca and Erim 1994)."""
    frames, muscles = excitation.shape
    knots = max(3, int(frames / FRAME_HZ * 4.0) + 2)
    coarse = rng.normal(0.0, 0.2, (knots, muscles))
    position = np.linspace(0, knots - 1, frames)
    low = np.minimum(position.astype(np.int64), knots - 2)
    share = (position - low)[:, None]
    return np.asarray(np.clip(excitation * (1.0 + coarse[low] * (1.0 - share) + coarse[low + 1] * share), 0.0, 1.0))
