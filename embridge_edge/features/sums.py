"""Features that are functions of sums over a window's samples, their differences and second differences.

What can be added up is `SUMS`; a feature is a formula of such sums in `FORMULAS`. Both are text in the names of `passes`, which
compiles one loop for each set of features that is asked for. Where a feature comes from and what it means says `catalogue`.

In what follows x is a sample, d[i] = x[i] − x[i−1], e[i] = d[i] − d[i−1], N the number of samples and y = log(x² + 2⁻⁵²).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embridge_edge.features.rows import Index, Rows, Samples
from embridge_edge.features.scratch import scratch
from embridge_edge.machine_code import Kernel

Doubles = npt.NDArray[np.float64]

LANES = 8
"""Rows that compiled code takes at once; arrays that it writes are padded to whole multiples."""

LOG_FLOOR = np.float32(1e-9)
"""Amplitudes below this count as this in a logarithm, so that a silent channel stays finite; powers have its square."""


class Sum(NamedTuple):
    """One sum.

    Attributes:
        reach: how many samples before its own a term looks at.
        kind: "sum" of float32 terms; "wide" of float64 ones, "logarithm" of their product; "count" of where `value` holds;
            "most", the largest; "value", what stands at the end.
        value: the term.
    """

    reach: int
    kind: str
    value: str


_FLIP = "((bits(held) ^ bits(held_before)) >> 31)"
_TURN = "(scaled * scaled_before < 0.0)"

SUMS: Mapping[str, Sum] = {
    "absolute": Sum(0, "sum", "size"),
    "square": Sum(0, "sum", "squared"),
    "power_3": Sum(0, "sum", "squared * size"),
    "power_4": Sum(0, "sum", "squared * squared"),
    "power_5": Sum(0, "sum", "squared * squared * size"),
    "power_6": Sum(0, "sum", "squared * squared * squared"),
    "log_one": Sum(0, "logarithm", "(wide(size) + 1.0)"),
    "root_above": Sum(0, "sum", "root(most(x, spread(0.0)))"),
    "root_below": Sum(0, "sum", "root(most(0.0 - x, spread(0.0)))"),
    "highest": Sum(0, "most", "x"),
    "reference": Sum(0, "value", "reference"),
    "centred_1": Sum(0, "wide", "centred"),
    "centred_2": Sum(0, "wide", "centred * centred"),
    "centred_3": Sum(0, "wide", "centred * centred * centred"),
    "centred_4": Sum(0, "wide", "(centred * centred) * (centred * centred)"),
    "step_absolute": Sum(1, "sum", "magnitude(step)"),
    "step_square": Sum(1, "sum", "step * step"),
    "large_steps": Sum(1, "count", "(magnitude(step) > wamp_limit)"),
    "crossings": Sum(1, "count", _FLIP),
    "large_crossings": Sum(
        1, "count", f"({_FLIP} & (magnitude(held - held_before) > zc_limit) & (magnitude(held_before) > 0.0))"
    ),
    "opposites": Sum(1, "count", "(((bits(x) ^ bits(before)) >> 31) & (size > 0.0) & (magnitude(before) > 0.0))"),
    "opened": Sum(0, "value", "wide(opened)"),
    "closed": Sum(0, "value", "wide(held)"),
    "bend_absolute": Sum(2, "sum", "magnitude(bend)"),
    "bend_square": Sum(2, "sum", "bend * bend"),
    "turns": Sum(2, "count", _TURN),
    "steep_turns": Sum(2, "count", f"({_TURN} & (most(magnitude(step), magnitude(step_before)) > ssc_limit))"),
    "product_turns": Sum(2, "count", "(step * step_before <= 0.0 - ssc_limit)"),
}
"""Every sum by name. `held` is the last sample that was not zero, `opened` the first, `reference` the first sample of all."""

VALUES: Mapping[str, str] = {
    "offset": "centred_1 / n",
    "mean": "reference + offset",
    "second": "centred_2 / n",
    "third": "centred_3 / n",
    "variance": "most(second - offset * offset, 0.0)",
    "moment_3": "third - offset * (3.0 * second - 2.0 * offset * offset)",
    "moment_4": "most(centred_4 / n - offset * (4.0 * third - offset * (6.0 * second - 3.0 * offset * offset)), 0.0)",
    # The moments to the tenth and ten times, as logarithms.
    "log_m0": "LOG_10 + 0.05 * log64(square) - 0.1 * log_n_1",
    "log_m2": "LOG_10 + 0.05 * (log64(step_square) - log_n_1)",
    "log_m4": "LOG_10 + 0.05 * (log64(bend_square) - log_n_1)",
    "m0": "exp64(log_m0)",
    "log_02": "log64(magnitude(m0 - exp64(log_m2)))",
    "log_04": "log64(magnitude(m0 - exp64(log_m4)))",
    "power_tenth": "floored(log_m0)",
    "second_tenth": "floored(log_02)",
    "fourth_tenth": "floored(log_04)",
    # Without steps it is log 1, which logarithms of their own rounding would miss by a little.
    "sparseness": "floored(unless_level(square, step_square + bend_square, 0.5 * (log_02 + log_04) - log_m0))",
    "irregularity": "floored(where(bend_square, log_m2 - 0.5 * (log_m0 + log_m4)))",
    "length_factor": "floored(where(bend_absolute, 0.5 * log64(step_absolute / bend_absolute)))",
}
"""What several features share. A name that ends in _y stands for the same of y."""


class Formula(NamedTuple):
    """A feature as a function of sums and `VALUES`; `pairs` instead of `value` compares channels, see `_phasors`."""

    value: str = ""
    pairs: tuple[str, str] | None = None


def _joined(name: str) -> Formula:
    return Formula(f"joined({name}, {name}_y)")


FORMULAS: Mapping[str, Formula] = {
    "MAV": Formula("absolute / n"),
    "IAV": Formula("absolute"),
    "MEAN": Formula("mean"),
    "RMS": Formula("root(square / n)"),
    "ISD": Formula("square"),
    "ACT": Formula("square / n"),
    "VAR": Formula("variance"),
    "SKEW": Formula("varied(moment_3, variance * root(variance))"),
    "KURT": Formula("varied(moment_4, variance * variance)"),
    "TM": Formula("power_3 / n"),
    "TM 1": Formula("absolute / n"),
    "TM 2": Formula("square / n"),
    "TM 4": Formula("power_4 / n"),
    "TM 5": Formula("power_5 / n"),
    "TM 6": Formula("power_6 / n"),
    "MPK": Formula("highest"),
    "LD": Formula("exp64(log_one / n)"),
    "MSR": Formula("root(root_above * root_above + root_below * root_below) / n"),
    "MLK": Formula("log64(absolute + 2.0**-52) / n"),
    "WL": Formula("step_absolute"),
    "MFL": Formula("safe_log(step_absolute) / LOG_10"),
    "MAVFD": Formula("step_absolute / (n - 1.0)"),
    "DASDV": Formula("root(step_square / (n - 1.0))"),
    "MZP": Formula("root(step_square / n)"),
    "MDIFF": Formula("step_square / n"),
    "WAMP": Formula("large_steps"),
    "ZC": Formula("crossings"),
    "ZC above": Formula("large_crossings"),
    "ZC libemg": Formula("opposites"),
    "SSC": Formula("turns"),
    "SSC above": Formula("steep_turns"),
    "SSC libemg": Formula("product_turns"),
    "PAP": Formula("ratio(root(square), ratio(root(bend_square), root(step_square)))"),
    "COR": Formula("ratio(step_square, bend_square * square)"),
    "MOB": Formula("root(ratio(step_square, square))"),
    "COMP": Formula("root(ratio(bend_square, step_square))"),
    # Theirs has Σe² of all windows; it is put together when all are there.
    "COMP libemg": Formula("step_square"),
    "COMP bends": Formula("bend_square"),
    "M0": _joined("power_tenth"),
    "M2": _joined("second_tenth"),
    "M4": _joined("fourth_tenth"),
    "SPARSI": _joined("sparseness"),
    "IRF": _joined("irregularity"),
    "WLF": _joined("length_factor"),
    "LOGMAV": Formula("log64(most(absolute / n, FLOOR))"),
    "LOGRMS": Formula("log64(most(root(square / n), FLOOR))"),
    "LOGWL": Formula("log64(most(step_absolute, FLOOR))"),
    "LOGVAR": Formula("log64(most(variance, FLOOR * FLOOR))"),
    "RMSPHASOR": Formula(pairs=("square", "step_square")),
    "WLPHASOR": Formula(pairs=("step_absolute", "bend_absolute")),
}
"""Every feature of sums; one whose definition depends on options has a formula for each."""

COMP_BENDS = "COMP bends"

_SUM_PLACES = {name: place for place, name in enumerate(SUMS)}
_FORMULA_PLACES = {name: place for place, name in enumerate(FORMULAS)}
_IDENTIFIER = re.compile(r"[a-z]\w*")
_HERE = "embridge_edge.features.passes"
_SOURCES = tuple(
    Path(__file__).with_name(f"{name}.py")
    for name in ("passes", "sums", "records", "lanes", "lane_logarithms", "logarithm")
)
"""What the machine code depends on."""
_ROWS = "float32[::1], int64[::1], int64, float64[::1], float32[::1]"


def named(mask: int, places: Iterable[str]) -> list[str]:
    """The names whose bits are set, in their order."""
    return [name for place, name in enumerate(places) if mask >> place & 1]


def mask_of(names: Iterable[str]) -> int:
    """The bits of these sums."""
    return sum(1 << _SUM_PLACES[name] for name in set(names))


def needed(value: str) -> tuple[set[str], set[str]]:
    """The sums over samples and those over y that an expression goes back to."""
    of_samples: set[str] = set()
    of_logarithms: set[str] = set()
    for name in _IDENTIFIER.findall(value):
        plain = name.removesuffix("_y")
        found: tuple[set[str], set[str]] = (set(), set())
        if plain in SUMS:
            found = ({plain}, set())
        elif plain in VALUES:
            found = needed(VALUES[plain])
        if plain != name:
            found = (set(), found[0])
        of_samples |= found[0]
        of_logarithms |= found[1]
    return of_samples, of_logarithms


def formula_of(name: str, options: Mapping[str, Any], compat: bool) -> str:
    """Which of FORMULAS a feature is with these options."""
    if compat and name in ("ZC", "SSC", "COMP"):
        return f"{name} libemg"
    if name in ("ZC", "SSC"):
        return f"{name} above" if options[f"{name}_threshold"] > 0 else name
    if name == "TM" and options["TM_order"] != 3:
        return f"TM {options['TM_order']}"
    return name


class Adder:
    """Adds up a set of sums over the samples of rows, and one over their logarithms."""

    def __init__(self, of_samples: Iterable[str], of_logarithms: Iterable[str] = ()) -> None:
        """Args:
        of_samples, of_logarithms: from SUMS; they are put in its order.
        """
        self.masks = mask_of(of_samples), mask_of(of_logarithms)
        self.of_samples, self.of_logarithms = (named(mask, SUMS) for mask in self.masks)
        self._sums, self._blocks = (
            _kernel(f"{kind}_{self.masks[0]:x}_{self.masks[1]:x}", f"void({_ROWS}, float64[::1])")
            for kind in ("sums", "blocks")
        )

    @property
    def names(self) -> list[str]:
        """What `added` gives, line by line; sums over y end in _y."""
        return ["spoilt", *self.of_samples, *(f"{name}_y" for name in self.of_logarithms)]

    def added(self, base: Samples, offsets: Index, length: int, options: Mapping[str, Any]) -> Doubles:
        """The sums of each row, float64 `[names, rows]`, rows padded to a multiple of eight.

        The first is 0 where all samples are finite, else NaN.
        """
        count = 1 + len(self.of_samples) + len(self.of_logarithms)
        return _filled(self._sums, count, base, offsets, length, options)

    def blocks(self, base: Samples, offsets: Index, length: int, options: Mapping[str, Any], count: int) -> Doubles:
        """As `added`, of rows that go on from the two samples before them; what reaches there stands behind each sum.

        Args:
            count: lines of the result, see `records`. Where no sample comes before a row, those lines are without meaning.
        """
        return _filled(self._blocks, count, base, offsets, length, options)


class Request:
    """What a set of features needs to have added up, and how they come of it."""

    def __init__(self, names: Sequence[str], options: Mapping[str, Any], compat: bool) -> None:
        """Args:
        names: features of sums. options: all of `catalogue.OPTIONS`. compat: whether as LibEMG has it; then COMP is Σd² and
            COMP_BENDS comes besides.
        """
        self.names = tuple(names)
        self.options = options
        self._compat = compat
        formulas = [formula_of(name, options, compat) for name in names]
        if "COMP libemg" in formulas:
            self.names += (COMP_BENDS,)
            formulas.append(COMP_BENDS)
        of_samples, of_logarithms = set[str](), set[str]()
        for formula in formulas:
            found = needed(FORMULAS[formula].value)
            of_samples |= found[0] | set(FORMULAS[formula].pairs or ())
            of_logarithms |= found[1]
        self.adder = Adder(of_samples, of_logarithms)
        self._pairs = [name for name in names if FORMULAS[name].pairs is not None]
        # The compiled functions give the features in the order of FORMULAS.
        plain = sorted((f for f in formulas if FORMULAS[f].pairs is None), key=_FORMULA_PLACES.__getitem__)
        self._plain = [formula if formula == COMP_BENDS else formula.partition(" ")[0] for formula in plain]
        asked = sum(1 << _FORMULA_PLACES[formula] for formula in plain)
        kind = "libemg" if compat else "sane"
        x, y = self.adder.masks
        self._finish = _kernel(
            f"finish_{kind}_{asked:x}_{x:x}_{y:x}", "void(float64[::1], int64, float64[::1], float32[::1])"
        )
        self._compute = _kernel(f"features_{kind}_{asked:x}", f"void({_ROWS}, float32[::1])")

    def finished(self, sums: Doubles, length: int, rows: int, channels: int) -> dict[str, Samples]:
        """The features of rows with these sums: float32 `[windows, channels]`, or `[windows, columns]` across channels.

        Args:
            sums: as `adder` gives them. length: samples in a row. rows: without what they are padded to.
        """
        out = np.empty(len(self._plain) * sums.shape[1], np.float32)
        if len(out):
            self._finish(sums.reshape(-1), sums.shape[1], _numbers(self.options, length), out)
        found = self._by_name(out, rows, channels)
        names = self.adder.names
        for name in self._pairs:
            levels, steps = FORMULAS[name].pairs or ("", "")
            x, d = (sums[names.index(item), :rows].reshape(-1, channels) for item in (levels, steps))
            if name == "RMSPHASOR":
                x, d = np.sqrt(x / length), np.sqrt(d / (length - 1))
            found[name] = _phasors(x, d, sums[0, :rows].reshape(-1, channels), self._compat)
        return {name: found[name] for name in self.names}

    def features(self, rows: Rows) -> dict[str, Samples]:
        """The features of rows: float32 `[windows, channels]`, or `[windows, columns]` across channels."""
        count = len(rows.offsets)
        if self._pairs:
            added = self.adder.added(rows.base, rows.offsets, rows.length, self.options)
            return self.finished(added, rows.length, count, rows.channels)
        out = np.empty(len(self._plain) * padded(count), np.float32)
        if len(out):
            numbers = _numbers(self.options, rows.length)
            self._compute(rows.base, rows.offsets, rows.length, numbers, scratch(LANES * LANES), out)
        found = self._by_name(out, count, rows.channels)
        return {name: found[name] for name in self.names}

    def _by_name(self, out: Samples, rows: int, channels: int) -> dict[str, Samples]:
        values = out.reshape(len(self._plain), padded(rows))
        return {
            name: values[place, :rows].reshape(rows // max(1, channels), channels)
            for place, name in enumerate(self._plain)
        }


def _filled(run: Kernel, lines: int, base: Samples, offsets: Index, length: int, options: Mapping[str, Any]) -> Doubles:
    out = np.empty(lines * padded(len(offsets)))
    if len(offsets):
        run(base, offsets, length, _numbers(options, length), scratch(LANES * LANES), out)
    return out.reshape(lines, padded(len(offsets)))


def _numbers(options: Mapping[str, Any], length: int) -> Doubles:
    """What the compiled functions need to know besides: thresholds, N and log(N − 1)."""
    limits = [options[f"{name}_threshold"] for name in ("ZC", "SSC", "WAMP")]
    return np.array([*limits, length, np.log(max(1, length - 1))])


@lru_cache(maxsize=512)
def _kernel(name: str, signature: str) -> Kernel:
    return Kernel(_HERE, name, signature, _SOURCES, error_model="numpy")


def padded(rows: int) -> int:
    """Rows and what fills them up to a multiple of eight."""
    return -(-rows // LANES) * LANES


def _phasors(levels: Doubles, steps: Doubles, spoilt: Doubles, compat: bool) -> Samples:
    """Distances between the channels' phasors, and over those of their differences: float32 `[windows, 2 × pairs]`.

    Channel c's phasor has the angle 2πc / channels: the electrodes of a band lie around the arm.

    Args:
        levels, steps: amplitudes of the channels and of their differences, `[windows, channels]`. spoilt: 0 or NaN.
    """
    channels = levels.shape[1]
    first, second = np.triu_indices(channels, 1)
    turn = 2.0 - 2.0 * np.cos(2.0 * np.pi * (second - first) / channels)

    def distances(amplitudes: Doubles) -> Doubles:
        a, b = amplitudes[:, first], amplitudes[:, second]
        return np.asarray(np.sqrt((a - b) ** 2 + turn * a * b))

    def logarithm(value: Doubles) -> Doubles:
        return np.asarray(np.log(value if compat else np.maximum(value, LOG_FLOOR)))

    with np.errstate(all="ignore"):
        of_levels, of_steps = distances(levels), distances(steps)
        ratio = of_levels / of_steps
        if not compat:
            ratio = np.where(of_steps > 0, ratio, 0.0)
        found = np.concatenate([logarithm(of_levels), logarithm(ratio)], axis=1)
        pairs = spoilt[:, first] + spoilt[:, second]
        return np.ascontiguousarray(found + np.concatenate([pairs, pairs], axis=1), np.float32)


def mavslp(rows: Rows, names: Collection[str], options: Mapping[str, Any]) -> dict[str, Samples]:
    """MAVSLP: differences of the mean |x| between successive segments of the window.

    With M = round(N / segments), halves to even, segment s is x[sM] to x[(s + 1)M − 1]; the last one ends with the window.

    Returns: float32 `[rows, segments − 1]`.
    """
    if "MAVSLP" not in names:
        return {}
    segments = options["MAVSLP_segment"]
    size = round(rows.length / segments)
    adder = Adder(("absolute",))
    means = []
    for segment in range(segments):
        length = min(size, rows.length - segment * size)
        added = adder.added(rows.base, rows.offsets + segment * size, length, options)
        spoilt, absolute = added[:, : len(rows.offsets)]
        means.append(absolute / length + spoilt)
    return {"MAVSLP": np.diff(np.stack(means, axis=1), axis=1).astype(np.float32)}
