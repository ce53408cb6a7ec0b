"""Features of a signal window after window, offline and on samples as they arrive: the same bits either way.

For features of sums the signal is cut into blocks at each hop, and where the window is no whole number of hops, once more within
each hop. A block is added up once; of the terms of differences that reach back before it the first ones are kept by
themselves, since a window that begins with the block has to do without them. What a hop costs then grows with the hop. Other
features need all samples of a window, and are computed of it anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features import checks
from embridge_edge.features.extraction import of_rows, plan_of
from embridge_edge.features.records import BESIDE, PLAIN, WITHIN, kind_of
from embridge_edge.features.rows import Index, Rows, Samples
from embridge_edge.features.sums import Adder, Doubles, Request, padded
from embridge_edge.machine_code import kernel

_PIECE = 1 << 15
"""Samples of each channel that are taken at once: what is held beside the signal stays small."""

_advance = kernel(
    "embridge_edge.features.sliding_lanes:advance",
    "int64(int64[::1], int64[::1], float64, int64, boolean, float64[:, :, ::1], int64, float64[:, ::1], float64[:, :, ::1], "
    "float64[:, :, ::1], float64[:, ::1], float64[:, :, ::1])",
    error_model="numpy",
)


def slide(
    signal: npt.ArrayLike,
    names: str | Sequence[str],
    rate_hz: float,
    window: int,
    hop: int,
    compat: str | None = None,
    options: Mapping[str, Any] | None = None,
    threads: int = 1,
) -> dict[str, Samples]:
    """Features of the windows of a signal, window k from sample k · hop on.

    Features of sums are within 4 units in the last place of what `extract` gives for the same window; the others are the same.

    Args:
        signal: `[samples, channels]`.
        names, rate_hz, compat, options: as `extract` takes them.
        window, hop: samples.
        threads: stretches of the signal are spread over so many; the bits are those of one.

    Returns: as `extract`; without a window where the signal is shorter than one.

    Raises:
        EdgeError: as `extract`, or a window or a hop below 1.
    """
    given = _as_signal(signal)
    plan = plan_of(names, rate_hz, compat, options)
    window, hop = checks.check_whole("window", window), checks.check_whole("hop", hop)
    checks.check_whole("threads", threads)
    together = [name for name in plan.names if plan.as_libemg and _needs_all(name, plan.options)]
    one_by_one = [name for name in plan.names if name not in together]
    found: dict[str, Samples] = {}
    if one_by_one:
        used = checks.used_by(options, one_by_one)

        def of_stretch(stretch: slice) -> dict[str, Samples]:
            stream = FeatureStream(one_by_one, rate_hz, window, hop, given.shape[1], compat, used, warm=False)
            return stream.push(given[stretch])

        found = _joined(of_stretch, _stretches(len(given), window, hop, threads))
    if together:
        starts = np.arange(0, len(given) - window + 1, hop, dtype=np.int64)
        rows = Rows.of_signal(np.ascontiguousarray(given.T), starts, window)
        found |= of_rows(rows, together, rate_hz, compat, checks.used_by(options, together), threads)
    return {name: found[name] for name in plan.names}


def _stretches(samples: int, window: int, hop: int, most: int) -> list[slice]:
    """The signal cut into at most so many stretches that together hold each window once.

    Hops are added up in groups of as many as a window holds (see `sliding_lanes.advance`). A stretch begins with such a group,
    so that its sums are added in the order in which those of the whole signal are.
    """
    windows = max(0, (samples - window) // hop + 1)
    group = max(1, window // hop)
    groups = -(-windows // group)
    parts = min(most, groups)
    if parts <= 1:
        return [slice(0, samples)]
    first = [group * (groups * part // parts) for part in range(parts)]
    return [slice(start * hop, (stop - 1) * hop + window) for start, stop in itertools.pairwise([*first, windows])]


def _joined(of_stretch: Callable[[slice], dict[str, Samples]], stretches: Sequence[slice]) -> dict[str, Samples]:
    """The features of the stretches one after another, each computed in a thread of its own."""
    if len(stretches) == 1:
        return of_stretch(stretches[0])
    with ThreadPoolExecutor(len(stretches)) as pool:
        parts = list(pool.map(of_stretch, stretches))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _needs_all(name: str, options: Mapping[str, Any]) -> bool:
    """Whether LibEMG's value of a window depends on the other windows of the call."""
    return name == "COMP" or (name == "MAVSLP" and options["MAVSLP_segment"] > 2)


def _as_signal(signal: npt.ArrayLike) -> npt.NDArray[Any]:
    return checks.as_numbers("A signal", signal, "[samples, channels]")


class FeatureStream:
    """Features of samples as they arrive, bit for bit those of `slide`, whatever the pieces.

    Held are the sums of one window's blocks and the samples of the block that is not complete; where a feature needs all samples
    of a window, one window of them.
    """

    def __init__(
        self,
        names: str | Sequence[str],
        rate_hz: float,
        window: int,
        hop: int,
        channels: int,
        compat: str | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        warm: bool = True,
    ) -> None:
        """Args:
            names, rate_hz, compat, options: as `extract` takes them. window, hop: samples. channels: of the signal.
            warm: compile and load now what the first `push` would otherwise wait for, by the second.

        Raises:
            EdgeError: as `extract`; a window, a hop or channels below 1; a feature of which LibEMG's value depends on windows to come.
        """
        self.window, self.hop = checks.check_whole("window", window), checks.check_whole("hop", hop)
        self.channels = checks.check_whole("channels", channels)
        self._plan = plan_of(names, rate_hz, compat, options)
        self.names = self._plan.names
        checks.check_length(self.names, self.window, self.channels, self._plan.options)
        for name in self.names:
            if self._plan.as_libemg and _needs_all(name, self._plan.options):
                raise EdgeError(f"LibEMG's {name} depends on all windows of a call; leave out compat, or use slide.")
        self.interrupted()
        if warm:
            self.push(np.zeros((self.window + self.hop, self.channels), np.float32))
            self.interrupted()

    def interrupted(self) -> None:
        """Forget everything: the next sample does not follow the last one."""
        self._buffer = np.empty((self.channels, 0), np.float32)
        self._first = 0  # of the buffer's samples, counted from the start
        self._count = 0  # samples so far
        self._windows = 0  # so far
        request = self._plan.request
        self._blocks = _Blocks(request, self.window, self.hop, self.channels) if request is not None else None

    def push(self, samples: npt.ArrayLike) -> dict[str, Samples]:
        """Take `[samples, channels]`, any number of them; give the features of the windows that they complete.

        Returns: for each feature float32 `[windows, channels]` or `[windows, columns]`, as `extract` gives them.

        Raises:
            EdgeError: another number of channels.
        """
        given = _as_signal(samples)
        if given.shape[1] != self.channels:
            raise EdgeError(
                f"The stream takes {self.channels} channels, the samples have {given.shape[1]}; make one for as many."
            )
        parts = [self._take(given[at : at + _PIECE]) for at in range(0, max(1, len(given)), _PIECE)]
        return parts[0] if len(parts) == 1 else {n: np.concatenate([part[n] for part in parts]) for n in self.names}

    def _take(self, given: npt.NDArray[Any]) -> dict[str, Samples]:
        self._hold(given)
        base, capacity = self._buffer.reshape(-1), self._buffer.shape[1]
        lanes = np.arange(self.channels, dtype=np.int64) * capacity - self._first
        windows = max(0, (self._count - self.window) // self.hop + 1)
        starts = np.arange(self._windows, windows, dtype=np.int64) * self.hop
        offsets = (starts[:, None] + lanes).reshape(-1)
        found = self._plan.of_whole_windows(Rows(base, offsets, self.window, self.channels))
        if self._blocks is not None:
            found |= self._blocks.take(base, lanes, self._count, len(starts))
        self._windows = windows
        return {name: found[name] for name in self.names}

    def _hold(self, given: npt.NDArray[Any]) -> None:
        """Put samples behind those that are still needed."""
        needed = self._count
        if self._plan.others:
            needed = min(needed, self._windows * self.hop)
        if self._blocks is not None:
            needed = min(needed, self._blocks.needed)
        used, kept = self._count - self._first, self._count - needed
        if used + len(given) > self._buffer.shape[1]:
            # Twice what is needed: each sample is moved once on average.
            fresh = self._buffer
            if 2 * kept + len(given) > self._buffer.shape[1]:
                fresh = np.empty((self.channels, 2 * kept + 2 * len(given) + 64), np.float32)
            fresh[:, :kept] = self._buffer[:, used - kept : used].copy()
            self._buffer, self._first, used = fresh, needed, kept
        self._buffer[:, used : used + len(given)] = given.T
        self._count += len(given)


class _Blocks:
    """The sums of successive blocks, and of the windows that they make up."""

    def __init__(self, request: Request, window: int, hop: int, channels: int) -> None:
        self._request = request
        self._window, self._hop, self._channels = window, hop, channels
        self._hops, self._head = divmod(window, hop)
        given = set(request.adder.of_samples)
        if given & {"crossings", "large_crossings"}:
            given |= {"opened", "closed"}
        if "centred_1" in given:
            given |= {"reference"}
        self._adder = Adder(given, request.adder.of_logarithms)
        self._kinds, self._places, self._lines = _layout(self._adder)
        shape = (len(self._kinds), channels)
        self._pending, self._prefix = np.zeros(shape), np.zeros(shape)
        self._group, self._suffixes = (np.zeros((max(1, self._hops), *shape)) for _ in range(2))
        self._done = 0  # blocks so far

    @property
    def needed(self) -> int:
        """The first sample that is still needed: two before the next block."""
        return max(0, self._start(self._done) - 2)

    def _start(self, block: int) -> int:
        if not self._head:
            return block * self._hop
        return block // 2 * self._hop + block % 2 * self._head

    def take(self, base: Samples, lanes: Index, count: int, windows: int) -> dict[str, Samples]:
        """Features of the windows that end within the first `count` samples.

        Args:
            base: flat; sample i of channel c is at i + lanes[c]. windows: how many there are.
        """
        blocks = count // self._hop
        if self._head:
            blocks = 2 * blocks + (count % self._hop >= self._head)
        records = self._records(base, lanes, blocks)
        out = np.empty((windows, len(self._kinds), self._channels))
        options = self._request.options
        _advance(
            self._kinds,
            self._places,
            float(np.float32(options["ZC_threshold"])),
            self._hops,
            self._head > 0,
            records,
            self._done,
            self._pending,
            self._group,
            self._suffixes,
            self._prefix,
            out,
        )
        self._done = blocks
        rows = windows * self._channels
        wanted = [self._lines[name] for name in self._request.adder.names]
        sums = np.empty((len(wanted), padded(rows)))
        sums[:, :rows] = out[:, wanted].transpose(1, 0, 2).reshape(len(wanted), rows)
        sums[:, rows:] = 1.0
        return self._request.finished(sums, self._window, rows, self._channels)

    def _records(self, base: Samples, lanes: Index, blocks: int) -> Doubles:
        """Records of the blocks from the next one to before `blocks`."""
        numbers = np.arange(self._done, blocks, dtype=np.int64)
        starts, lengths = numbers * self._hop, np.full(len(numbers), self._hop, np.int64)
        if self._head:
            starts = numbers // 2 * self._hop + numbers % 2 * self._head
            lengths = np.where(numbers % 2 == 0, self._head, self._hop - self._head)
        records = np.empty((len(starts), len(self._kinds), self._channels))
        records[:, 0] = lengths[:, None]
        for length in np.unique(lengths):
            which = np.flatnonzero(lengths == length)
            offsets = (starts[which, None] + lanes).reshape(-1)
            lines = len(self._kinds) - 1
            added = self._adder.blocks(base, offsets, int(length), self._request.options, lines)[:, : len(offsets)]
            records[which, 1:] = added.reshape(lines, len(which), self._channels).transpose(1, 0, 2)
        return records


def _layout(adder: Adder) -> tuple[Index, Index, dict[str, int]]:
    """What each place in a record holds, where those lie that others need, and where each sum lies."""
    kinds, lines = [PLAIN], {}
    for name in adder.names:
        lines[name] = len(kinds)
        kind = kind_of(name.removesuffix("_y"))
        kinds += [kind, *[WITHIN] * BESIDE[kind]]
    places = [lines.get(name, -1) for name in ("opened", "closed", "reference", "centred_1")]
    powers = sum(name.startswith("centred_") for name in adder.of_samples)
    return np.array(kinds, np.int64), np.array([*places, powers], np.int64), lines
