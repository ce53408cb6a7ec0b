"""What a recording's signals are worth: amplitude, clipping, mains, dead channels, gaps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.recordings.recording import Recording

MAINS_HZ = (50.0, 60.0)
BLOCK_FRAMES = 64

CLIPPED = 0.001
MAINS = 0.2
STUCK = 0.02
STILL_S = 0.5
WEAK = 0.2
OFFSET = 20.0
LOWEST_HZ = 5.0


@dataclass(frozen=True)
class ChannelQuality:
    """One channel.

    Attributes:
        rms: root mean square about the mean of each second, in the recording's unit.
        offset: mean, in the recording's unit.
        clipped_share: share of samples at the end of the range.
        mains_share: share of the power above 5 Hz that stands out at `mains_hz` and its harmonics; None where the rate
            shows no mains.
        mains_hz: 50 or 60, whichever stands out more; None where neither can be seen.
        stuck_share: share of samples in stretches of half a second and more without any change.
        nan: values that are no number.
        verdict: "good", or what is wrong, the worst first.
    """

    rms: float
    offset: float
    clipped_share: float
    mains_share: float | None
    mains_hz: float | None
    stuck_share: float
    nan: int
    verdict: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.verdict == ("good",)


Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SignalQuality:
    """Sums over one or many recordings of equal rate and channels, and what they say.

    Attributes:
        squares, total, clipped, stuck, nan: float64 `[channels]`, sums over the samples; `nan` counts values that are no
            number.
        spectrum: float64 `[frequencies, channels]`, summed power of frames of one second; `frequencies` in hertz.
        frames: how many frames the spectrum sums.
        held: samples of which every channel repeats the one before: a receiver that filled in what it lost.
        breaks: places where the clock jumps or a line was dropped.
    """

    rate_hz: float
    unit: str
    samples: int
    squares: Array
    total: Array
    clipped: Array
    stuck: Array
    frequencies: Array
    spectrum: Array
    frames: int
    held: int
    breaks: int
    nan: Array

    @property
    def rms(self) -> Array:
        """Float64 `[channels]`, in `unit`."""
        return np.asarray(np.sqrt(self.squares / max(1, self.samples)))

    @property
    def held_share(self) -> float:
        return self.held / max(1, self.samples)

    @property
    def power_density(self) -> Array:
        """Float64 `[frequencies, channels]`, unit² per hertz."""
        return np.asarray(self.spectrum / max(1, self.frames))

    @property
    def channels(self) -> tuple[ChannelQuality, ...]:
        rms = self.rms
        shares, mains_hz = mains(self.frequencies, self.spectrum)
        typical = float(np.median(rms))
        return tuple(
            self._channel(channel, float(rms[channel]), shares[channel], mains_hz[channel], typical)
            for channel in range(len(rms))
        )

    def _channel(
        self, channel: int, rms: float, mains_share: float | None, mains_hz: float | None, typical: float
    ) -> ChannelQuality:
        count = max(1, self.samples)
        offset = float(self.total[channel]) / count
        clipped = float(self.clipped[channel]) / count
        stuck = float(self.stuck[channel]) / count
        nan = int(self.nan[channel])
        found = {
            "nan": nan > 0,
            "dead": rms == 0.0,
            "stuck": rms > 0.0 and stuck > STUCK,
            "weak": rms > 0.0 and rms < WEAK * typical,
            "clipping": clipped > CLIPPED,
            "mains": mains_share is not None and mains_share > MAINS,
            "offset": rms > 0.0 and abs(offset) > OFFSET * rms,
        }
        verdict = tuple(word for word, wrong in found.items() if wrong) or ("good",)
        return ChannelQuality(rms, offset, clipped, mains_share, mains_hz, stuck, nan, verdict)

    @property
    def ok(self) -> bool:
        return all(channel.ok for channel in self.channels)

    def __add__(self, other: SignalQuality) -> SignalQuality:
        """Both together; they must agree in rate and channels."""
        return SignalQuality(
            self.rate_hz,
            self.unit,
            self.samples + other.samples,
            self.squares + other.squares,
            self.total + other.total,
            self.clipped + other.clipped,
            self.stuck + other.stuck,
            self.frequencies,
            self.spectrum + other.spectrum,
            self.frames + other.frames,
            self.held + other.held,
            self.breaks + other.breaks,
            self.nan + other.nan,
        )


def measure(recording: Recording) -> SignalQuality:
    """Look at one recording, in blocks, so that it needs little memory beside it."""
    frame = max(4, round(recording.rate_hz))
    channels = recording.channels
    squares, total, clipped, stuck, nan = (np.zeros(channels) for _ in range(5))
    frequencies = np.fft.rfftfreq(frame, 1.0 / recording.rate_hz)
    spectrum = np.zeros((len(frequencies), channels))
    window = np.hanning(frame + 1)[:-1].astype(np.float32)
    scale = 2.0 / (recording.rate_hz * float((window.astype(np.float64) ** 2).sum()))
    extremes = _extremes(recording)
    frames = held = 0
    still = max(2, round(STILL_S * recording.rate_hz))
    for block in blocks(recording, frame):
        emg = recording.emg[block]
        if not np.isfinite(emg).all():
            nan += (~np.isfinite(emg)).sum(axis=0)
            emg = np.nan_to_num(emg, posinf=0.0, neginf=0.0)
        total += emg.sum(axis=0, dtype=np.float64)
        level = centred(emg, frame)
        squares += np.einsum("ij,ij->j", level, level, dtype=np.float64)
        clipped += _clipped(emg, extremes, recording.full_scale)
        same = emg[1:] == emg[:-1]
        held += int(same.all(axis=1).sum())
        stuck += _stuck(same, still)
        whole = len(emg) // frame
        if whole:
            shaped = level[: whole * frame].reshape(whole, frame, channels) * window[:, None]
            power = np.abs(np.fft.rfft(shaped, axis=1)) ** 2
            spectrum += power.sum(axis=0) * scale
            frames += whole
    return SignalQuality(
        recording.rate_hz,
        recording.unit,
        recording.samples,
        squares,
        total,
        clipped,
        stuck,
        np.asarray(frequencies, np.float64),
        spectrum,
        frames,
        held,
        len(recording.breaks),
        nan,
    )


def readable(largest: float, unit: str) -> tuple[float, str]:
    """A factor and a unit in which `largest` is easy to read: volts become millivolts or microvolts."""
    if unit == "unknown":
        return 1.0, "(unknown unit)"
    if unit != "V" or largest >= 1.0:
        return 1.0, unit
    return (1e3, "mV") if largest >= 1e-3 else (1e6, "µV")


def blocks(recording: Recording, frame: int) -> Iterator[slice]:
    """Stretches without a break, cut into pieces of at most 64 frames."""
    for segment in recording.segments():
        for start in range(segment.start, segment.stop, BLOCK_FRAMES * frame):
            yield slice(start, min(segment.stop, start + BLOCK_FRAMES * frame))


def centred(emg: npt.NDArray[np.float32], frame: int) -> npt.NDArray[np.float32]:
    """EMG `[samples, channels]` less the mean of each frame, a crude high-pass against offset and drift."""
    whole = len(emg) // frame * frame
    result = np.empty_like(emg)
    if whole:
        shaped = emg[:whole].reshape(-1, frame, emg.shape[1])
        result[:whole] = (shaped - shaped.mean(axis=1, keepdims=True)).reshape(whole, -1)
    if whole < len(emg):
        last = emg[max(0, len(emg) - frame) :]
        result[whole:] = emg[whole:] - last.mean(axis=0)
    return result


def mains(frequencies: Array, spectrum: Array) -> tuple[list[float | None], list[float | None]]:
    """Share of each channel's power above 5 Hz that stands out at the mains, and which mains.

    `spectrum` is float64 `[frequencies, channels]`.

    What stands out is the power within 2 Hz of 50 or 60 Hz and their harmonics, less the median of what lies within
    8 Hz beside: EMG has power there as well, which is no hum.
    """
    channels = spectrum.shape[1]
    nothing: list[float | None] = [None] * channels
    nyquist = float(frequencies[-1]) if len(frequencies) else 0.0
    seen = [mains_hz for mains_hz in MAINS_HZ if mains_hz + 2.0 < nyquist]
    whole = spectrum[frequencies >= LOWEST_HZ].sum(axis=0)
    if not seen or not (whole > 0).any():
        return nothing, list(nothing)
    excess = np.zeros((len(seen), channels))
    for row, mains_hz in enumerate(seen):
        for harmonic in np.arange(mains_hz, nyquist - 1.0, mains_hz):
            distance = np.abs(frequencies - harmonic)
            near, beside = distance <= 2.0, (distance > 2.5) & (distance <= 8.0)
            if beside.any():
                floor = np.median(spectrum[beside], axis=0)
                excess[row] += np.maximum(0.0, spectrum[near].sum(axis=0) - near.sum() * floor)
    shares = np.divide(excess, whole, out=np.zeros_like(excess), where=whole > 0)
    best = shares.argmax(axis=0)
    found: list[float | None] = [float(shares[best[channel], channel]) for channel in range(channels)]
    which: list[float | None] = [
        seen[best[channel]] if (found[channel] or 0) > 0.02 else None for channel in range(channels)
    ]
    return found, which


def _extremes(recording: Recording) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    if recording.full_scale is not None:  # the range is known: no need to look for it
        return recording.emg[0], recording.emg[0]
    return recording.emg.min(axis=0), recording.emg.max(axis=0)


def _clipped(
    emg: npt.NDArray[np.float32],
    extremes: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    full_scale: float | None,
) -> Array:
    """Samples per channel at the end of the range; where that is unknown, those that stay at the channel's extreme."""
    if full_scale is not None:
        return np.asarray((np.abs(emg) >= np.float32(0.99 * full_scale)).sum(axis=0), np.float64)
    low, high = extremes
    at_end = ((emg == low) | (emg == high)) & (low < high)
    if len(emg) < 3:
        return np.zeros(emg.shape[1])
    run = at_end[2:] & at_end[1:-1] & at_end[:-2] & (emg[2:] == emg[1:-1]) & (emg[1:-1] == emg[:-2])
    return np.asarray(run.sum(axis=0), np.float64)


def _stuck(same: npt.NDArray[np.bool_], still: int) -> Array:
    """Samples per channel in runs of at least `still` equal values."""
    result = np.zeros(same.shape[1])
    if len(same) + 1 < still:
        return result
    for channel in range(same.shape[1]):
        changes = np.flatnonzero(~same[:, channel])
        lengths = np.diff(np.concatenate([[-1], changes, [len(same)]]))
        result[channel] = lengths[lengths >= still].sum()
    return result
