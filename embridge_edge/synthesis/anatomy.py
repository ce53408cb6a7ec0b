"""Whose forearm: muscles around the limb, their strength and moment arms, and how wearers differ.

Angles go around the limb at the armband's height (the proximal third of the forearm), in degrees, from the palmar
midline over the ulnar side (90) and the dorsal midline (180) to the radial side (270). Depths go from the muscle
surface below skin and fat to the muscle's centroid, in millimetres.

Sources. Positions: read off the transverse sections of Gray's Anatomy (proximal and middle forearm) by eye, to about
±10 degrees and ±3 mm: an assumption, not a measurement. Forces: orders of magnitude of the upper limb models of
Holzbaur 2005 and Saul 2015, rounded. Moment arms: wrist and forearm after Gonzalez 1997 and Holzbaur 2005 at the
neutral wrist, fingers after An 1983, thumb after Smutz 1998, all rounded to half a millimetre and held constant over
the range of motion. Intrinsic hand muscles, the biceps and the distal pronator quadratus pull on the joints but lie
outside the band, so their EMG is never seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embridge_edge.gestures import FINGERS, POSE

Array = npt.NDArray[np.float64]

LIMB_RADIUS_MM = 41.0
"""A circumference of 26 cm, the middle of the Myo's range of 19 to 34 cm."""


@dataclass(frozen=True)
class Muscle:
    """A muscle or a finger's compartment of one.

    `width_mm` and `height_mm` are the standard deviations of where its motor units lie, around the limb and in
    depth. `arms_mm` are signed moment arms by joint angle: positive turns the angle of `gestures.POSE` upwards.
    `units` is the number of simulated motor units, 0 where the armband cannot see the muscle.
    """

    name: str
    force_n: float
    arms_mm: Mapping[str, float] = field(default_factory=dict)
    angle_deg: float = 0.0
    depth_mm: float = 0.0
    width_mm: float = 4.0
    height_mm: float = 2.5
    units: int = 0


def _digit(finger: str, mcp: float, pip: float, dip: float, aa: float = 0.0) -> dict[str, float]:
    joints = {"mcp_fe": mcp, "pip_fe": pip, "dip_fe": dip, "mcp_aa": aa}
    return {f"{finger}_{joint}": arm for joint, arm in joints.items() if arm}


def _wrist(flexion: float, deviation: float, pronation: float = 0.0) -> dict[str, float]:
    arms = {"wrist_flexion": flexion, "wrist_deviation": deviation, "wrist_pronation": pronation}
    return {name: arm for name, arm in arms.items() if arm}


def _thumb(cmc_fe: float, cmc_aa: float, mcp: float, ip: float = 0.0) -> dict[str, float]:
    arms = {"thumb_cmc_fe": cmc_fe, "thumb_cmc_aa": cmc_aa, "thumb_mcp_fe": mcp, "thumb_ip_fe": ip}
    return {name: arm for name, arm in arms.items() if arm}


MUSCLES: tuple[Muscle, ...] = (
    Muscle("FCR", 180, _wrist(15, -7, 3), -18, 8, 5, 3, 80),
    Muscle("PL", 60, _wrist(17, 0), 6, 5, 3, 2, 40),
    Muscle("FCU", 250, _wrist(17, 13), 68, 7, 6, 3, 90),
    Muscle("FDS_index", 90, _digit("index", 12, 7, 0) | _wrist(13, -4), 22, 19, 5, 3, 50),
    Muscle("FDS_middle", 140, _digit("middle", 12, 7, 0) | _wrist(15, -1), 8, 14, 5, 3, 60),
    Muscle("FDS_ring", 110, _digit("ring", 12, 7, 0) | _wrist(15, 3), 34, 12, 5, 3, 50),
    Muscle("FDS_pinky", 50, _digit("pinky", 10, 6, 0) | _wrist(13, 5), 48, 17, 4, 3, 40),
    Muscle("FDP_index", 130, _digit("index", 11, 8, 4) | _wrist(10, -2), 40, 25, 5, 3, 50),
    Muscle("FDP_middle", 150, _digit("middle", 11, 8, 4) | _wrist(12, 1), 62, 23, 5, 3, 50),
    Muscle("FDP_ring", 130, _digit("ring", 11, 8, 4) | _wrist(12, 4), 80, 19, 5, 3, 50),
    Muscle("FDP_pinky", 100, _digit("pinky", 9, 7, 3.5) | _wrist(12, 6), 96, 16, 5, 3, 50),
    Muscle("FPL", 160, _thumb(13, 0, 11, 9) | _wrist(12, -5), -32, 22, 4, 3, 50),
    Muscle("ECRL", 220, _wrist(-10, -18), -98, 7, 5, 3, 80),
    Muscle("ECRB", 180, _wrist(-15, -13), -122, 9, 5, 3, 80),
    Muscle("ECU", 160, _wrist(-6, 18), 128, 8, 5, 3, 80),
    Muscle("EDC_index", 50, _digit("index", -8.5, -4, -2) | _wrist(-14, -2), -152, 11, 3.5, 2.5, 40),
    Muscle("EDC_middle", 95, _digit("middle", -9, -4, -2) | _wrist(-14, 0), -166, 8, 3.5, 2.5, 50),
    Muscle("EDC_ring", 95, _digit("ring", -8.5, -4, -2) | _wrist(-13, 2), 178, 8, 3.5, 2.5, 50),
    Muscle("EDC_pinky", 25, _digit("pinky", -8, -3.5, -2) | _wrist(-13, 3), 168, 10, 3, 2.5, 30),
    Muscle("EDM", 65, _digit("pinky", -8.5, -3.5, -2, -3) | _wrist(-12, 5), 156, 8, 3, 2, 40),
    Muscle("EIP", 45, _digit("index", -9, -4, -2, -1) | _wrist(-11, 1), 150, 21, 3, 2.5, 30),
    Muscle("EPL", 45, _thumb(-8, -9, -8.5, -5) | _wrist(-8, -8, -3), 168, 21, 3, 2.5, 30),
    Muscle("EPB", 40, _thumb(-12, 4, -8) | _wrist(1, -20, -2), -168, 22, 3, 2.5, 30),
    Muscle("APL", 110, _thumb(-8, 10, 0) | _wrist(5, -22, -2), -156, 19, 4, 2.5, 50),
    Muscle("PT", 350, {"wrist_pronation": 9}, -36, 10, 5, 3, 90),
    Muscle("SUP", 320, {"wrist_pronation": -8}, -128, 20, 7, 2.5, 80),
    # Turns the forearm towards neutral from both sides; its EMG here is elbow load and co-contraction.
    Muscle("BR", 230, {}, -66, 8, 5, 3, 80),
    Muscle("PQ", 80, {"wrist_pronation": 6}),
    Muscle("biceps", 400, {"wrist_pronation": -9}),
    Muscle("thenar_flexor", 120, _thumb(12, 4, 6)),
    Muscle("thenar_abductor", 70, _thumb(3, 12, 2, -2)),
    Muscle("thumb_adductor", 130, _thumb(14, -16, 5)),
    *(Muscle(f"interosseus_radial_{finger}", 80, _digit(finger, 5, -3, -1.5, 6)) for finger in FINGERS[1:]),
    *(Muscle(f"interosseus_ulnar_{finger}", 60, _digit(finger, 5, -3, -1.5, -6)) for finger in FINGERS[1:]),
    *(Muscle(f"lumbrical_{finger}", 20, _digit(finger, 7, -2.5, -2)) for finger in FINGERS[1:]),
)

VISIBLE: tuple[int, ...] = tuple(index for index, muscle in enumerate(MUSCLES) if muscle.units)
"""Indices into MUSCLES of the muscles under the band."""


@dataclass(frozen=True)
class Forearm:
    """One wearer's forearm. Arrays over MUSCLES unless another shape is given.

    Attributes:
        force_n: strength `[muscles]`, newtons.
        arms_m: signed moment arms `[muscles, 23]`, metres.
        angle_rad, depth_mm: where each muscle lies, `[muscles]`.
        fat_mm: skin and subcutaneous fat.
        radius_mm: limb radius over the skin.
        stiffness: factor on the passive joint stiffness.
        co_contraction: share of the total activation that stiffens all the muscles.
        effort: habitual force of a gesture over what its pose needs.
        tone: activation at rest.
        innervation_mm: distance of the end-plate zones from the band along the limb, `[muscles]`.
        velocity_m_s: mean conduction velocity.
        habit: price of each muscle's activation, `[muscles]`: which of several muscles this wearer likes to use.
        amplitude: factor on the size of the action potentials (fibre diameter, skin).
        left: whether the band is on the left arm (the muscles' order around the limb is mirrored).
    """

    force_n: Array
    arms_m: Array
    angle_rad: Array
    depth_mm: Array
    fat_mm: float
    radius_mm: float
    stiffness: float
    co_contraction: float
    effort: float
    tone: float
    innervation_mm: Array
    velocity_m_s: float
    habit: Array
    amplitude: float
    left: bool


def mean_arms_m() -> Array:
    """Moment arms of MUSCLES, `[muscles, 23]`, metres."""
    return np.array([[muscle.arms_mm.get(name, 0.0) / 1000.0 for name in POSE] for muscle in MUSCLES])


def grow_forearm(rng: np.random.Generator) -> Forearm:
    """Draw a wearer.

    Fat: skin 1.5 mm and a log-normal layer around 3 mm (assumed).
    Strength: about the coefficient of variation of grip strength among adults, and half of that per muscle.
    Moment arms: 8 % (Gonzalez 1997 gives 10 to 20 % between specimens, most of it limb size, which cancels here).
    Positions: 9 degrees and 2 mm, assumed. Conduction velocity: 4.0 ± 0.3 m/s (Andreassen and Arendt-Nielsen 1987).
    """
    count = len(MUSCLES)
    size = rng.normal(1.0, 0.07)
    force = (
        np.array([muscle.force_n for muscle in MUSCLES]) * rng.lognormal(0.0, 0.25) * rng.lognormal(0.0, 0.15, count)
    )
    arms = mean_arms_m() * rng.lognormal(0.0, 0.08, (count, len(POSE)))
    angle = np.deg2rad([muscle.angle_deg for muscle in MUSCLES]) + np.deg2rad(rng.normal(0.0, 9.0, count))
    depth = np.array([muscle.depth_mm for muscle in MUSCLES]) * size + rng.normal(0.0, 2.0, count)
    fat = 1.5 + float(np.clip(rng.lognormal(np.log(3.0), 0.4), 1.0, 10.0))
    return Forearm(
        force_n=force,
        arms_m=arms,
        angle_rad=angle,
        depth_mm=np.maximum(depth, 3.0),
        fat_mm=fat,
        radius_mm=float(np.clip(size, 0.8, 1.2)) * LIMB_RADIUS_MM,
        stiffness=float(rng.lognormal(0.0, 0.2)),
        co_contraction=float(np.clip(rng.lognormal(np.log(0.12), 0.5), 0.02, 0.4)),
        effort=float(np.clip(rng.lognormal(0.0, 0.35), 0.4, 2.5)),
        tone=float(np.clip(rng.lognormal(np.log(0.002), 0.6), 0.0, 0.02)),
        innervation_mm=rng.normal(0.0, 18.0, count),
        velocity_m_s=float(np.clip(rng.normal(4.0, 0.3), 3.2, 5.0)),
        habit=rng.lognormal(0.0, 0.35, count),
        amplitude=float(rng.lognormal(0.0, 0.3)),
        left=bool(rng.random() < 0.1),
    )
