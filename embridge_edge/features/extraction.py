"""Features of windows, of any length and number, on one thread or several."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.features import catalogue, checks
from embridge_edge.features.rows import Rows, Samples
from embridge_edge.features.sums import COMP_BENDS, Request


def extract(
    windows: npt.ArrayLike,
    names: str | Sequence[str],
    rate_hz: float,
    compat: str | None = None,
    options: Mapping[str, Any] | None = None,
    threads: int = 1,
) -> dict[str, Samples]:
    """Features of windows of a signal.

    A window with a NaN or an infinity in a channel gives NaN for each feature of that channel, and for each feature across
    channels that has to do with it. Silent and constant windows give finite values unless `compat` is given; `catalogue` says
    which, feature by feature. Squares are float32: samples beyond 10¹⁸ count as infinite.

    Args:
        windows: `[windows, channels, samples]`; whole numbers and float64 are converted to float32.
        names: of features and groups, see `catalogue.FEATURES` and `GROUPS`.
        rate_hz: sample rate, for what is in hertz.
        compat: "libemg" for LibEMG's definitions where they differ.
        options: see `catalogue.OPTIONS`; of the features asked for only.
        threads: chunks of windows are spread over so many.

    Returns: for each feature in the order of `names` float32 `[windows, channels]`, or `[windows, columns]` with the columns that
        `checks.columns` names.

    Raises:
        EdgeError: no feature or an unknown one, an option that is unknown or that none of them uses, windows of another shape or too
            short, a rate that is not positive, threads below 1.
    """
    given = checks.as_numbers("Windows", windows, "[windows, channels, samples]")
    return of_rows(Rows.of_windows(given.astype(np.float32, copy=False)), names, rate_hz, compat, options, threads)


def of_rows(
    rows: Rows,
    names: str | Sequence[str],
    rate_hz: float,
    compat: str | None = None,
    options: Mapping[str, Any] | None = None,
    threads: int = 1,
) -> dict[str, Samples]:
    """As `extract`, of windows that lie anywhere in one array: no copy of the signal for each."""
    plan = plan_of(names, rate_hz, compat, options)
    checks.check_length(plan.names, rows.length, rows.channels, plan.options)
    parts = min(checks.check_whole("threads", threads), rows.windows)
    if parts <= 1:
        whole = plan.of_part(rows)
    else:
        edges = [rows.windows * part // parts for part in range(parts + 1)]
        with ThreadPoolExecutor(parts) as pool:
            found = list(pool.map(plan.of_part, (rows.part(*edge) for edge in itertools.pairwise(edges))))
        whole = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    if plan.as_libemg:
        _as_whole_batch(whole, plan, rows)
    return whole


def columns_at(
    signal: Samples, starts: npt.NDArray[np.int64], length: int, names: Sequence[str], rate_hz: float
) -> Samples:
    """Features with one column per channel, of the windows of a signal that begin at `starts`.

    Args:
        signal: float32 `[samples, channels]`, in memory or mapped. starts: int64 `[n]`, in any order. length: samples.
        names: of features, each with one column per channel.

    Returns: float32 `[n, channels × names]`, channel by channel, in the order of `names` within a channel.
    """
    channels = signal.shape[1]
    if not len(starts):
        return np.zeros((0, channels * len(names)), np.float32)
    first, last = int(starts.min()), int(starts.max()) + length
    if last - first <= len(starts) * length:
        # The windows overlap or touch: laid out once, no sample is copied for each.
        rows = Rows.of_signal(np.ascontiguousarray(signal[first:last].T), starts - first, length)
    else:
        rows = Rows.of_places(signal, starts, length)
    found = of_rows(rows, names, rate_hz)
    return np.stack([found[name] for name in names], axis=-1).reshape(len(starts), channels * len(names))


def _as_whole_batch(found: dict[str, Samples], plan: Plan, rows: Rows) -> None:
    """What LibEMG makes of all windows of a call together: COMP, and MAVSLP of more than two segments."""
    if "COMP" in found:
        # Σe² over the windows and channels that are whole; N stands above and below.
        total = np.nansum(found.pop(COMP_BENDS), dtype=np.float64)
        with np.errstate(all="ignore"):
            found["COMP"] = np.sqrt(total / found["COMP"]).astype(np.float32)
    slopes = plan.options["MAVSLP_segment"] - 1
    if "MAVSLP" in found and slopes > 1:
        by_slope = found["MAVSLP"].reshape(rows.windows, slopes, rows.channels).transpose(1, 0, 2)
        found["MAVSLP"] = np.ascontiguousarray(by_slope).reshape(rows.windows, slopes * rows.channels)


class Plan:
    """Which module computes which of a set of features."""

    def __init__(self, names: Sequence[str], rate_hz: float, options: Mapping[str, Any], as_libemg: bool) -> None:
        """Args:
        names: from `catalogue.FEATURES`. options: all of them. as_libemg: whether LibEMG's values are wanted.
        """
        self.names = tuple(names)
        self.rate_hz = rate_hz
        self.options = options
        self.as_libemg = as_libemg
        self.sliding = tuple(name for name in names if catalogue.FEATURES[name].slides)
        self.others: dict[str, list[str]] = {}
        for name in names:
            if name not in self.sliding:
                self.others.setdefault(catalogue.FEATURES[name].module, []).append(name)
        self.request = Request(self.sliding, options, as_libemg) if self.sliding else None

    def of_part(self, rows: Rows) -> dict[str, Samples]:
        """The features of some windows, in the order of `names`; with LibEMG's COMP, behind them what it is made of."""
        found = self.of_whole_windows(rows)
        if self.request is not None:
            found |= self.request.features(rows)
        return {name: found.pop(name) for name in self.names} | found

    def of_whole_windows(self, rows: Rows) -> dict[str, Samples]:
        """Those features that need all samples of a window."""
        found: dict[str, Samples] = {}
        compat = catalogue.LIBEMG if self.as_libemg else None
        known = {"rate_hz": self.rate_hz, "options": self.options, "compat": compat}
        for module, names in self.others.items():
            function, needed = _COMPUTE[module]
            compute = getattr(import_module(f"embridge_edge.features.{module}"), function)
            for name, values in compute(rows, names, **{key: known[key] for key in needed}).items():
                found[name] = _arranged(name, values, rows.windows, rows.channels)
        return found


def plan_of(names: str | Sequence[str], rate_hz: float, compat: str | None, options: Mapping[str, Any] | None) -> Plan:
    """The plan for what a caller of `extract` asks; the same plan for the same question.

    Raises:
        EdgeError: as `extract`.
    """
    as_libemg = checks.check_compat(compat)
    wanted = checks.expand(names, compat)
    checked = tuple(checks.check_options(options).items())
    checks.check_used(options, wanted, compat)
    return _planned(wanted, checks.check_rate(rate_hz), checked, as_libemg)


@lru_cache(maxsize=64)
def _planned(names: tuple[str, ...], rate_hz: float, options: tuple[tuple[str, Any], ...], as_libemg: bool) -> Plan:
    return Plan(names, rate_hz, dict(options), as_libemg)


def _arranged(name: str, values: Samples, windows: int, channels: int) -> Samples:
    """`[rows, k]` as `[windows, columns]` in the feature's order."""
    order = catalogue.FEATURES[name].order
    if order == "window":
        return np.ascontiguousarray(values)
    width = values.shape[-1]
    by_channel = values.reshape(windows, channels, width)
    if order == "column":
        by_channel = by_channel.transpose(0, 2, 1)
    return np.ascontiguousarray(by_channel).reshape(windows, channels * width)


_COMPUTE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "entropy": ("entropy", ("options", "compat")),
    "multichannel": ("multichannel", ("rate_hz",)),
    "prediction": ("prediction", ("options", "compat")),
    "ranks": ("ranks", ()),
    "spectra": ("spectral", ("rate_hz", "options", "compat")),
    "sums": ("mavslp", ("options",)),
    "wavelets": ("wavelet", ("rate_hz", "compat")),
}
"""By module: its function for rows and names, and what that depends on besides. A module is imported when it is needed."""
