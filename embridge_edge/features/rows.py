"""Windows without copies: where each window of each channel lies in one flat array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.compiled import compiled
from embridge_edge.errors import EdgeError

Samples = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """One row per window and channel, window by window; row r is `base[offsets[r] : offsets[r] + length]`.

    Attributes:
        base: float32, flat. offsets: int64 `[windows × channels]`. length: samples in a window. channels: rows in a window.
    """

    base: Samples
    offsets: Index
    length: int
    channels: int

    @classmethod
    def of_windows(cls, windows: Samples) -> Rows:
        """Rows of windows `[windows, channels, samples]`; copied only where they are not contiguous float32."""
        if windows.ndim != 3:
            raise EdgeError(f"Features need windows [windows, channels, samples], not {list(windows.shape)}.")
        flat = np.ascontiguousarray(windows, np.float32).reshape(-1)
        count, channels, length = windows.shape
        return cls(flat, np.arange(count * channels, dtype=np.int64) * length, length, channels)

    @classmethod
    def of_signal(cls, signal: Samples, starts: Index, length: int) -> Rows:
        """Rows of the windows that begin at `starts` in a signal `[channels, samples]`, contiguous float32."""
        channels, samples = signal.shape
        offsets = starts[:, None] + np.arange(channels, dtype=np.int64)[None] * samples
        return cls(signal.reshape(-1), np.ascontiguousarray(offsets.reshape(-1)), length, channels)

    @classmethod
    def of_places(cls, signal: Samples, starts: Index, length: int) -> Rows:
        """Rows of the windows that begin at `starts` in a signal `[samples, channels]`, in any order and far apart: copied."""
        if len(starts) and not 0 <= starts.min() <= starts.max() <= len(signal) - length:
            raise IndexError(f"a window of {length} samples begins outside of a signal of {len(signal)}")
        windows = np.empty((len(starts), signal.shape[1], length), np.float32)
        _gather(np.ascontiguousarray(signal, np.float32), np.ascontiguousarray(starts, np.int64), windows)
        return cls.of_windows(windows)

    @property
    def windows(self) -> int:
        return len(self.offsets) // self.channels if self.channels else 0

    def part(self, first: int, last: int) -> Rows:
        """The rows of windows `first` to `last`, the last one left out."""
        return Rows(self.base, self.offsets[first * self.channels : last * self.channels], self.length, self.channels)


@compiled("void(float32[:,::1],int64[::1],float32[:,:,::1])")
def _gather(signal: Any, starts: Any, windows: Any) -> None:
    """Windows by channel from samples by time: a window fits the cache, and turns there."""
    count, channels, length = windows.shape
    for window in range(count):
        first = starts[window]
        for channel in range(channels):
            for sample in range(length):
                windows[window, channel, sample] = signal[first + sample, channel]
