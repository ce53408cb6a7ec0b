"""When motor units fire: pools recruited by size, rate coding, irregular intervals (Fuglevand, Winter, Patla 1993)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.compiled import compiled
from embridge_edge.synthesis.anatomy import MUSCLES, VISIBLE, Forearm

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

THRESHOLD_RANGE = 30.0
"""Fuglevand's RR: the last unit's threshold over the first one's."""
LAST_THRESHOLD = 0.7
"""Excitation that recruits the last unit; forearm muscles recruit up to 60 to 80 % of the maximum force."""
TWITCH_RANGE = 100.0
"""Fuglevand's RP: the largest twitch over the smallest."""
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 8.0, 35.0
PEAK_RATE_LOSS_HZ = 10.0
"""Late units reach lower peak rates, 25 against 35 Hz (Fuglevand 1993, De Luca 1982)."""
INTERVAL_VARIATION = 0.18
"""Coefficient of variation of the interval between discharges; 0.15 to 0.2 in hand and forearm muscles."""


@dataclass(frozen=True)
class Pools:
    """The motor units under the band, all muscles after one another and small to large within a muscle.

    Attributes:
        muscle: int32 `[units]`, index into VISIBLE.
        threshold: `[units]`, excitation at which the unit starts.
        peak_hz: `[units]`, highest rate.
        size: `[units]`, twitch, and by innervation number also action potential, relative to the pool's sum of 1.
        angle_rad, depth_mm: where each unit's territory is centred, depth below the muscle surface.
        innervation_mm: end plates' distance from the band along the limb.
        velocity_m_s: conduction velocity; large units are faster.
    """

    muscle: Ints
    threshold: Array
    peak_hz: Array
    size: Array
    angle_rad: Array
    depth_mm: Array
    innervation_mm: Array
    velocity_m_s: Array


def grow_pools(forearm: Forearm, rng: np.random.Generator) -> Pools:
    """Draw a wearer's motor units.

    A pool stands for the 100 to 250 units of the real muscle with 30 to 90; interference is that much coarser.
    """
    parts: dict[str, list[Array]] = {name: [] for name in Pools.__dataclass_fields__}
    for place, index in enumerate(VISIBLE):
        muscle = MUSCLES[index]
        count = muscle.units
        order = np.arange(1, count + 1) / count
        threshold = LAST_THRESHOLD * THRESHOLD_RANGE ** (order - 1.0)
        twitch = TWITCH_RANGE**order
        depth = forearm.depth_mm[index] + rng.normal(0.0, muscle.height_mm, count)
        radius = np.maximum(forearm.radius_mm - forearm.fat_mm - depth, 5.0)
        parts["muscle"].append(np.full(count, place))
        parts["threshold"].append(threshold)
        parts["peak_hz"].append(HIGHEST_RATE_HZ - PEAK_RATE_LOSS_HZ * threshold / LAST_THRESHOLD)
        parts["size"].append(twitch / twitch.sum())
        parts["angle_rad"].append(forearm.angle_rad[index] + rng.normal(0.0, muscle.width_mm, count) / radius)
        parts["depth_mm"].append(np.maximum(depth, 1.5))
        parts["innervation_mm"].append(forearm.innervation_mm[index] + rng.normal(0.0, 5.0, count))
        speed = forearm.velocity_m_s * (1.0 + 0.12 * (order - 0.5) + rng.normal(0.0, 0.05, count))
        parts["velocity_m_s"].append(np.clip(speed, 3.0, 5.5))
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return Pools(**{**joined, "muscle": joined["muscle"].astype(np.int32)})  # type: ignore[arg-type]


def rates_hz(excitation: Array, threshold: Array, peak_hz: Array) -> Array:
    """Mean discharge rate of units at an excitation, broadcast; 0 below the threshold.

    The gain is such that the unit recruited last reaches its peak at an excitation of 1.
    """
    rate = np.minimum(LOWEST_RATE_HZ + RATE_GAIN_HZ * (excitation - threshold), peak_hz)
    return np.where(excitation >= threshold, rate, 0.0)


RATE_GAIN_HZ = (HIGHEST_RATE_HZ - PEAK_RATE_LOSS_HZ - LOWEST_RATE_HZ) / (1.0 - LAST_THRESHOLD)


def drive_for(activation: Array, pools: Pools) -> Array:
    """The pool's excitation that gives a share `activation` of its greatest force, both `[frames, VISIBLE]` in 0..1.

    A unit's force is its twitch times its rate over the peak; the relation is inverted by table.
    """
    drive = np.empty_like(activation)
    grid = np.linspace(0.0, 1.0, 257)
    for place in range(activation.shape[1]):
        mine = pools.muscle == place
        rate = rates_hz(grid[:, None], pools.threshold[mine], pools.peak_hz[mine])
        force = (rate / pools.peak_hz[mine]) @ pools.size[mine]
        drive[:, place] = np.interp(activation[:, place], np.maximum.accumulate(force), grid)
    return drive


def discharges(
    drive: npt.NDArray[np.float32], pools: Pools, frame_hz: float, rate_hz: float, seed: int
) -> tuple[Ints, Ints]:
    """Simulate every unit's discharges.

    Args:
        drive: float32 `[frames, VISIBLE]`, excitation 0..1 at `frame_hz`.
        rate_hz: rate of the sample clock in which the times are given.
        seed: 64-bit seed of the intervals.

    Returns: int32 units and int32 samples of the discharges, unit by unit, in time within each.
    """
    return _discharges(drive, pools.muscle, pools.threshold, pools.peak_hz, frame_hz, rate_hz, np.uint64(seed))


@compiled
def _splitmix(state: np.uint64) -> np.uint64:
    """Output function of SplitMix64 (Steele 2014): a few cycles, and the same bytes on every machine."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def _discharges(
    drive: npt.NDArray[np.float32],
    muscle: Ints,
    threshold: Array,
    peak_hz: Array,
    frame_hz: float,
    rate_hz: float,
    seed: np.uint64,
) -> tuple[Ints, Ints]:
    frames = drive.shape[0]
    capacity = 1024
    units = np.empty(capacity, np.int32)
    samples = np.empty(capacity, np.int32)
    count = 0
    state = seed
    part = np.uint64(0xFFFF)
    for unit in range(muscle.shape[0]):
        column, start, peak = muscle[unit], threshold[unit], peak_hz[unit]
        # A unit starts at a random phase, else all units of a constant drive would fire together at time 0.
        state = state + np.uint64(0x9E3779B97F4A7C15)
        time = float(_splitmix(state) & part) / 65536.0 / LOWEST_RATE_HZ
        frame = int(time * frame_hz)
        while frame < frames:
            level = drive[frame, column]
            if level < start:
                frame += 1
                time = frame / frame_hz
                continue
            if count == capacity:
                capacity *= 2
                units = np.concatenate((units, np.empty(count, np.int32)))
                samples = np.concatenate((samples, np.empty(count, np.int32)))
            units[count] = unit
            samples[count] = int(time * rate_hz)
            count += 1
            state = state + np.uint64(0x9E3779B97F4A7C15)
            bits = _splitmix(state)
            # Sum of four uniforms: a bell of bounded width (±3.5 σ), as intervals have.
            total = (
                (bits & part)
                + ((bits >> np.uint64(16)) & part)
                + ((bits >> np.uint64(32)) & part)
                + (bits >> np.uint64(48))
            )
            bell = (total / 65536.0 - 2.0) * 1.7320508
            rate = min(LOWEST_RATE_HZ + RATE_GAIN_HZ * (level - start), peak)
            time += (1.0 + INTERVAL_VARIATION * bell) / rate
            frame = int(time * frame_hz)
    return units[:count], samples[:count]
