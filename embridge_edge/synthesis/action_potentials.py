"""What a motor unit's discharge looks like between a pair of electrodes: a fibre of finite length in a conductor.

A Rosenfalck action potential starts at the end plates, runs to both tendons and dies there (the source description of
Dimitrov and Dimitrova 1998; Farina and Merletti 2001). Tissue turns the current into potential by the kernel
1/√(a·d² + z²), d being the distance across and z along the fibre, so distance both weakens and widens what is seen;
the electrode pair subtracts two such potentials. What dies at the tendons does not travel: it is the crosstalk that
reaches far electrodes.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from embridge_edge.compiled import compiled
from embridge_edge.synthesis.anatomy import VISIBLE, Forearm
from embridge_edge.synthesis.motor_units import Ints, Pools

Array = npt.NDArray[np.float64]
Signal = npt.NDArray[np.float32]

HALF_FIBRE_MM = 33.0
"""Half of the fibre length of forearm muscles, 50 to 80 mm (Lieber 1992)."""
ENDING_MM, PLATES_MM = 9.0, 3.0
"""Fibres of a unit end, and begin, at different places: half the length over which they do (assumed)."""
ANISOTROPY = 3.0
"""Muscle alone conducts 5 to 6 times better along than across; fat and skin are isotropic: in between, assumed."""
FAT_BLUR = 1.9
"""Millimetres of muscle that blur like one of fat; tuned to the correlation of neighbours in myo_readings."""
LENGTH_S = 0.016
"""From the end plates to the tendon at the slowest velocity, and the action potential's own length."""
DISTANCES_MM: Array = np.geomspace(3.0, 100.0, 28)
PLACES_MM: Array = np.linspace(-54.0, 54.0, 19)
VELOCITIES_M_S: Array = np.linspace(3.0, 5.5, 6)
_STEP_MM = 0.5


def samples_long(rate_hz: float) -> int:
    """Samples of an action potential at `rate_hz`."""
    return max(2, int(np.ceil(LENGTH_S * rate_hz)))


@functools.lru_cache(maxsize=8)
def library(rate_hz: float, pair_mm: float) -> Signal:
    """Action potentials of one unit of size 1, float32 `[velocities, places, distances, samples]`, arbitrary scale.

    Args:
        rate_hz: sample rate.
        pair_mm: distance between the two electrodes of a channel, along the limb.
    """
    over = 4
    samples = samples_long(rate_hz)
    time_ms = (np.arange(samples * over) + 0.5) / (rate_hz * over) * 1000.0
    reach = HALF_FIBRE_MM + ENDING_MM
    along = np.arange(-reach, reach, _STEP_MM) + _STEP_MM / 2.0  # from the end plate
    alive = np.clip((reach - np.abs(along)) / (2.0 * ENDING_MM), 0.0, 1.0)  # share of fibres that reach so far
    active = np.sign(along) * np.clip(np.abs(along) / PLATES_MM, 0.0, 1.0) * alive
    result = np.empty((len(VELOCITIES_M_S), len(PLACES_MM), len(DISTANCES_MM), samples), np.float32)
    for number, velocity in enumerate(VELOCITIES_M_S):
        behind = velocity * time_ms[:, None] - np.abs(along)  # mm behind the front of the wave
        gone = np.maximum(behind, 0.0)
        current = 96.0 * (3.0 * gone**2 - gone**3) * np.exp(-gone) * active
        for place, offset in enumerate(PLACES_MM):
            kernels = sum(
                sign * _slope(along[:, None] + offset - sign * pair_mm / 2.0, DISTANCES_MM) for sign in (1.0, -1.0)
            )
            wave = current @ kernels * _STEP_MM
            result[number, place] = wave.reshape(samples, over, -1).mean(axis=1).T
    return result


def _slope(along: Array, distance: Array) -> Array:
    """Derivative along the fibre of the tissue's kernel."""
    return -along / (ANISOTROPY * distance**2 + along**2) ** 1.5


def templates(
    pools: Pools, forearm: Forearm, electrode_rad: Array, rate_hz: float, pair_mm: float, fat_mm: float | None = None
) -> Signal:
    """Each unit's action potential in each channel, float32 `[units, samples, channels]`, before the band's gain.

    Args:
        electrode_rad: `[channels]`, angle of each electrode pair around the limb, in the frame of MUSCLES.
        fat_mm: skin and fat between electrodes and muscle; the wearer's own by default.
    """
    fat = forearm.fat_mm if fat_mm is None else fat_mm
    inside = np.maximum(forearm.radius_mm - fat - pools.depth_mm, 1.0)
    # Fat conducts a tenth as well as muscle: a millimetre of it blurs like FAT_BLUR of muscle (after Kuiken 2003).
    outside = forearm.radius_mm - fat + FAT_BLUR * fat
    across = np.sqrt(
        inside[:, None] ** 2
        + outside**2
        - 2.0 * inside[:, None] * outside * np.cos(pools.angle_rad[:, None] - electrode_rad)
    )
    position = np.interp(np.log(across), np.log(DISTANCES_MM), np.arange(len(DISTANCES_MM)))
    low = np.minimum(position.astype(np.int64), len(DISTANCES_MM) - 2)
    place = np.interp(pools.innervation_mm, PLACES_MM, np.arange(len(PLACES_MM))).round().astype(np.int64)
    speed = np.interp(pools.velocity_m_s, VELOCITIES_M_S, np.arange(len(VELOCITIES_M_S))).round().astype(np.int64)
    strength = pools.size * forearm.amplitude * forearm.force_n[np.array(VISIBLE)][pools.muscle]
    return _mix(library(rate_hz, pair_mm), speed, place, low, position - low, strength)


@compiled
def _mix(
    shapes: Signal,
    speed: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    low: npt.NDArray[np.int64],
    share: Array,
    strength: Array,
) -> Signal:
    units, channels = low.shape
    samples = shapes.shape[3]
    result = np.empty((units, samples, channels), np.float32)
    for unit in range(units):
        for channel in range(channels):
            near = shapes[speed[unit], place[unit], low[unit, channel]]
            far = shapes[speed[unit], place[unit], low[unit, channel] + 1]
            weight = share[unit, channel]
            for sample in range(samples):
                value = (1.0 - weight) * near[sample] + weight * far[sample]
                result[unit, sample, channel] = strength[unit] * value
    return result


def superpose(units: Ints, samples: Ints, shapes: Signal, length: int) -> Signal:
    """Sum of all action potentials, float32 `[length, channels]`.

    Args:
        units, samples: discharges as `motor_units.discharges` gives them.
        shapes: `[units, samples, channels]` of `templates`.
    """
    channels = shapes.shape[2]
    flat = np.ascontiguousarray(shapes.reshape(len(shapes), -1))
    total = np.zeros((length + shapes.shape[1]) * channels, np.float32)
    _superpose(units, samples, flat, channels, total)
    return total[: length * channels].reshape(length, channels)


@compiled
def _superpose(units: Ints, samples: Ints, shapes: Signal, channels: int, total: Signal) -> None:
    size = shapes.shape[1]
    for index in range(units.shape[0]):
        start = samples[index] * channels
        if start + size > total.shape[0]:
            continue
        shape = shapes[units[index]]
        window = total[start : start + size]
        for element in range(size):
            window[element] += shape[element]
