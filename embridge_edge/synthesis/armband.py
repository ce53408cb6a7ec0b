"""The band: where its electrodes sit in a session, what disturbs them, and what its electronics make of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.synthesis.activation import Posture
from embridge_edge.synthesis.protocol import FRAME_HZ

Array = npt.NDArray[np.float64]
Signal = npt.NDArray[np.float32]

CHANNELS = (4, 64)
RATE_HZ = (100.0, 8000.0)
INTERNAL_HZ = 2000.0
"""The signal is made at the lowest multiple of the band's rate that reaches this."""


@dataclass(frozen=True)
class Armband:
    """A band's electronics.

    Attributes:
        channels, rate_hz: shape of its signal.
        unit: "V", or "myo" for the int8 counts of a Myo.
        oversampling: internal samples per sample of the signal.
        pair_mm: distance between a channel's two electrodes.
        high_pass_order, high_pass_hz, low_pass_hz, notches_hz: its filters; the low-pass, of fourth order, is None
            where there is none.
        noise_v: noise floor of an electrode pair and amplifier, root mean square, volts.
        counts_per_v: scale to counts; None where the signal is in volts.
        full_scale: largest magnitude in `unit`.
    """

    channels: int
    rate_hz: float
    unit: str
    oversampling: int
    pair_mm: float
    high_pass_order: int
    high_pass_hz: float
    low_pass_hz: float | None
    notches_hz: tuple[float, ...]
    noise_v: float
    counts_per_v: float | None
    full_scale: float

    @property
    def internal_hz(self) -> float:
        return self.rate_hz * self.oversampling


def choose_armband(channels: int, rate_hz: float) -> Armband:
    """The band with this many channels and this rate: 8 at 200 Hz is a Myo, anything else gives volts.

    Raises:
        EdgeError: a number of channels outside 4..64 or a rate outside 100..8000 Hz.
    """
    if not CHANNELS[0] <= channels <= CHANNELS[1]:
        raise EdgeError(f"An armband has {CHANNELS[0]} to {CHANNELS[1]} channels, not {channels}; change --channels.")
    if not (np.isfinite(rate_hz) and RATE_HZ[0] <= rate_hz <= RATE_HZ[1]):
        raise EdgeError(
            f"An armband samples at {RATE_HZ[0]:g} to {RATE_HZ[1]:g} Hz, not at {rate_hz:g}; change --rate-hz."
        )
    oversampling = int(np.ceil(INTERNAL_HZ / rate_hz))
    if channels == 8 and rate_hz == 200.0:
        # Electrode distance, filters, scale and noise are not published; they are tuned to myo_readings.
        return Armband(
            8, 200.0, "myo", oversampling, 15.0, 1, 10.0, 300.0, MYO_NOTCHES_HZ, MYO_NOISE_V, MYO_COUNTS_PER_V, 127.0
        )
    # As the wristband of CTRL-labs (2024): 20 to 850 Hz, 2.5 µV of noise; slower bands are limited to what they sample.
    low_pass = min(850.0, 0.42 * rate_hz)
    return Armband(
        channels, rate_hz, "V", oversampling, 12.0, 2, min(20.0, 0.05 * rate_hz), low_pass, (), 2.5e-6, None, 6.6e-3
    )


COMMON_LEAK = 0.02
"""Tuned to the correlation of channels on opposite sides of the limb in myo_readings, which volume conduction does
not explain: the amplifiers share a ground and their electrodes never match exactly."""
MYO_COUNTS_PER_V = 1.75e5
"""The Myo's scale is not published. Tuned: with it both rest and gestures come near the RMS of myo_readings."""
MYO_NOTCHES_HZ = (50.0, 60.0, 100.0, 120.0, 180.0)
"""The spectrum of myo_readings has dips at 20, 50, 60, 80 and 100 Hz: the mains of both continents and their harmonics,
of which 120 and 180 fold to 80 and 20. So it seems to filter at a higher rate and then to drop samples."""
_NOTCH_WIDTH_HZ = 8.0
MYO_NOISE_V = 5.6e-6
"""Tuned to the quietest windows at rest of myo_readings, just above one count."""


@dataclass(frozen=True)
class Donning:
    """How the band sits, and the arm is held, in one session. Arrays are over channels.

    Attributes:
        rotation_rad: of the whole band around the limb.
        along_mm: by how much it sits nearer to the wrist.
        gain: `[channels]`, contact and amplifier.
        press_mm: by how much the band thins skin and fat.
        hum_v: `[channels]`, amplitude of the mains at 50 Hz.
        leak: `[channels]`, share of the common mode that the pair does not reject, signed.
        noise: `[channels]`, factor on the noise floor.
        motion_v: `[channels]`, low-frequency artefact per rad/s of movement.
        pops_per_s: rate of sudden electrode offsets.
        posture: how the arm is held.
    """

    rotation_rad: float
    along_mm: float
    gain: Array
    press_mm: float
    hum_v: Array
    leak: Array
    noise: Array
    motion_v: Array
    pops_per_s: float
    posture: Posture


def don(armband: Armband, habitual_roll_rad: float, rng: np.random.Generator) -> Donning:
    """Draw one donning.

    Rotation: 12 degrees, a quarter of a Myo's electrode pitch: tuned, with contact and `session.HABIT_DRIFT`, to what
    an unseen session of myo_readings costs. Hum and artefacts are assumptions in the range of dry electrodes.
    """
    channels = armband.channels
    posture = Posture(
        forearm_roll_rad=habitual_roll_rad + float(rng.normal(0.0, 0.35)),
        elevation_rad=float(np.clip(rng.normal(0.1, 0.35), -1.0, 1.2)),
        support=float(np.clip(rng.normal(0.75, 0.35), 0.0, 1.0)),
        elbow_load=float(rng.lognormal(np.log(0.02), 0.6)),
        tension=float(rng.lognormal(0.0, 0.3)),
    )
    return Donning(
        rotation_rad=float(np.deg2rad(rng.normal(0.0, 12.0))),
        along_mm=float(rng.normal(0.0, 8.0)),
        gain=rng.lognormal(0.0, 0.13, channels) * rng.lognormal(0.0, 0.1),
        press_mm=float(rng.uniform(0.0, 0.25)),
        hum_v=rng.lognormal(np.log(8e-6), 0.8, channels),
        leak=rng.normal(COMMON_LEAK, COMMON_LEAK / 2.0, channels),
        noise=rng.lognormal(0.0, 0.15, channels),
        motion_v=rng.lognormal(np.log(4e-5), 0.7, channels),
        pops_per_s=float(rng.lognormal(np.log(0.01), 0.8)),
        posture=posture,
    )


def electrode_angles_rad(armband: Armband, donning: Donning, left: bool) -> Array:
    """Angle of each electrode pair around the limb, `[channels]`, in the frame of `anatomy.MUSCLES`.

    Channel 0 lies over the dorsal midline. Worn on the left, the band meets the muscles in the opposite order.
    """
    around = 2.0 * np.pi * np.arange(armband.channels) / armband.channels + donning.rotation_rad
    return np.pi + (-around if left else around)


def sense(clean_v: Signal, speed: Array, donning: Donning, armband: Armband, rng: np.random.Generator) -> Signal:
    """What the band reports: disturbances, filters, sampling and, for a Myo, counts.

    Args:
        clean_v: float32 `[samples × oversampling, channels]`, volts at the internal rate.
        speed: `[frames]`, how fast the hand moves, radians per second, at FRAME_HZ.

    Returns: float32 `[samples, channels]` in the band's unit.
    """
    from scipy import signal

    length, channels = clean_v.shape
    shared = clean_v.sum(axis=1, keepdims=True) * donning.leak.astype(np.float32)
    total = clean_v * donning.gain.astype(np.float32)
    total += shared
    total += _hum(length, armband.internal_hz, donning.hum_v, rng)
    total += _motion(length, armband.internal_hz, speed, donning, rng)
    total = signal.sosfilt(_filters(armband), total, axis=0).astype(np.float32)
    total = np.ascontiguousarray(total[:: armband.oversampling])
    noise = rng.standard_normal((len(total), channels), dtype=np.float32)
    total += noise * (armband.noise_v * donning.noise).astype(np.float32)
    if armband.counts_per_v is None:
        return np.clip(total, -armband.full_scale, armband.full_scale)
    return np.asarray(np.clip(np.rint(total * np.float32(armband.counts_per_v)), -128.0, 127.0), np.float32)


def _filters(armband: Armband) -> Array:
    from scipy import signal

    rate = armband.internal_hz
    stages = [signal.butter(armband.high_pass_order, armband.high_pass_hz, "highpass", fs=rate, output="sos")]
    if armband.low_pass_hz is not None:
        stages.append(signal.butter(4, armband.low_pass_hz, "lowpass", fs=rate, output="sos"))
    stages += [signal.tf2sos(*signal.iirnotch(hum, hum / _NOTCH_WIDTH_HZ, fs=rate)) for hum in armband.notches_hz]
    return np.vstack(stages)


def _hum(length: int, rate_hz: float, hum_v: Array, rng: np.random.Generator) -> Signal:
    """Mains at 50 Hz, slightly off and wandering, with odd harmonics."""
    cycles = (50.0 + rng.normal(0.0, 0.02)) / rate_hz * np.arange(length, dtype=np.float64)
    result = np.zeros((length, len(hum_v)), np.float32)
    for harmonic, share in ((1, 1.0), (3, 0.3), (5, 0.12)):
        if harmonic * 50.0 < 0.45 * rate_hz:
            wave = np.sin(2.0 * np.pi * (harmonic * cycles % 1.0) + rng.uniform(0.0, 2.0 * np.pi)).astype(np.float32)
            result += wave[:, None] * (share * hum_v).astype(np.float32)
    return result


_SHAKE_FRAMES = 12
"""Cables and skin move below 10 Hz; the high-pass of every band takes most of that away."""


def _motion(length: int, rate_hz: float, speed: Array, donning: Donning, rng: np.random.Generator) -> Signal:
    """Slow offsets while the hand moves, baseline drift, and now and then an electrode that pops."""
    frames = len(speed)
    channels = len(donning.gain)
    sway = rng.standard_normal((frames, channels))
    slow = np.cumsum(sway, axis=0)
    slow -= np.linspace(slow[0], slow[-1], frames)
    shake = slow - np.vstack([np.zeros((min(_SHAKE_FRAMES, frames), channels)), slow[:-_SHAKE_FRAMES]])[:frames]
    shake /= np.sqrt(_SHAKE_FRAMES)
    coarse = donning.motion_v * (shake * speed[:, None] + 0.3 * slow / np.sqrt(FRAME_HZ))
    for _ in range(rng.poisson(donning.pops_per_s * frames / FRAME_HZ)):
        at, channel = int(rng.integers(frames)), int(rng.integers(channels))
        decay = np.exp(-np.arange(frames - at) / (0.15 * FRAME_HZ))
        coarse[at:, channel] += rng.normal(0.0, 1.2e-3) * decay
    return upsample(coarse, length, rate_hz)


def upsample(coarse: Array, length: int, rate_hz: float) -> Signal:
    """Straight lines between frames at FRAME_HZ: `[frames, columns]` to float32 `[length, columns]` at `rate_hz`."""
    position = np.minimum(np.arange(length) * (FRAME_HZ / rate_hz), len(coarse) - 1)
    low = position.astype(np.int64)
    share = (position - low).astype(np.float32)[:, None]
    steps = coarse.astype(np.float32)
    high = np.minimum(low + 1, len(coarse) - 1)
    return np.asarray(steps[low] * (np.float32(1.0) - share) + steps[high] * share, np.float32)
