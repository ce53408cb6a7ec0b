"""The loops behind `sums`: one pass over eight rows at once that adds up what was asked for and nothing else.

A function is written for each set of features, from the text in `sums`; its name holds the sets as bits:

* sums_X_Y writes the sums X over the samples and Y over their logarithms, eight rows after eight;
* blocks_X_Y does so for rows that go on from the samples before them, and behind each sum writes the terms that reach there;
* finish_K_F_X_Y makes the formulas F of these, K "sane" or "libemg";
* features_K_F does both at once, without the sums ever leaving the registers.

Each lane is a row (see `lanes`) and goes through its samples in their order. Of each sum at most eight terms are added in
float32, these totals in float64: a long row loses nothing, and a scalar loop gives the same bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from textwrap import indent
from typing import Any

import numpy as np
from numba.extending import register_jitable

from embridge_edge.features.lane_logarithms import exp64, exponent, log64, log_ordinary, mantissa
from embridge_edge.features.lanes import (
    WIDTH,
    bits,
    choose,
    item,
    load,
    magnitude,
    most,
    root,
    single,
    spread,
    store,
    transposed,
    wide,
)
from embridge_edge.features.records import BESIDE, kind_of
from embridge_edge.features.sums import FORMULAS, LOG_FLOOR, SUMS, VALUES, Sum, named, needed

_FLOOR = float(LOG_FLOOR)
_LOG_FLOOR = math.log(_FLOOR)


@register_jitable
def _any(value):  # type: ignore[no-untyped-def]
    return value


@register_jitable
def _any_where(condition, value):  # type: ignore[no-untyped-def]
    return value


@register_jitable
def _divided(above, below):  # type: ignore[no-untyped-def]
    return above / below


@register_jitable
def _divided_or_nan(above, below):  # type: ignore[no-untyped-def]
    return choose(below > 0.0, above / below, math.nan)


@register_jitable
def _joined(b, a):  # type: ignore[no-untyped-def]
    return (-2.0 * a) * b / (a * a + b * b)


@register_jitable
def _ratio(above, below):  # type: ignore[no-untyped-def]
    return choose(magnitude(below) > 0.0, above / below, 0.0)


@register_jitable
def _floored(logarithm):  # type: ignore[no-untyped-def]
    return most(logarithm, _LOG_FLOOR)


@register_jitable
def _where(condition, logarithm):  # type: ignore[no-untyped-def]
    return choose(condition > 0.0, logarithm, _LOG_FLOOR)


@register_jitable
def _safe_log(value):  # type: ignore[no-untyped-def]
    return log64(most(value, _FLOOR))


@register_jitable
def _safe_joined(b, a):  # type: ignore[no-untyped-def]
    return _ratio((-2.0 * a) * b, a * a + b * b)


@register_jitable
def _unless_level(power, steps, logarithm):  # type: ignore[no-untyped-def]
    return choose((power > 0.0) & (steps <= 0.0), 0.0 * power, logarithm)


_NAMES: dict[str, Any] = {
    "__name__": __name__,
    "WIDTH": WIDTH,
    "bits": bits,
    "choose": choose,
    "exp64": exp64,
    "exponent": exponent,
    "item": item,
    "load": load,
    "log64": log64,
    "log_ordinary": log_ordinary,
    "magnitude": magnitude,
    "mantissa": mantissa,
    "most": most,
    "root": root,
    "single": single,
    "spread": spread,
    "store": store,
    "transposed": transposed,
    "unless_level": _unless_level,
    "wide": wide,
    "EPSILON": np.float32(np.spacing(1.0)),
    "FLOOR": _FLOOR,
    "LOG_2": math.log(2.0),
    "LOG_10": math.log(10.0),
    # Both slopes of a product are multiplied by this, so that its sign survives for any float32.
    "HUGE": np.float32(2.0**75),
}
_KINDS: dict[str, dict[str, Any]] = {
    "libemg": {
        "ratio": _divided,
        "varied": _divided_or_nan,
        "joined": _joined,
        "floored": _any,
        "where": _any_where,
        "safe_log": log64,
    },
    "sane": {
        "ratio": _ratio,
        "varied": _ratio,
        "joined": _safe_joined,
        "floored": _floored,
        "where": _where,
        "safe_log": _safe_log,
    },
}


def __getattr__(name: str) -> Callable[..., Any]:
    if match := re.fullmatch(r"sums_([0-9a-f]+)_([0-9a-f]+)", name):
        x, y = (named(int(mask, 16), SUMS) for mask in match.groups())
        return _compiled(name, _over_rows(name, x, y, _writes(x, y)), "sane")
    if match := re.fullmatch(r"blocks_([0-9a-f]+)_([0-9a-f]+)", name):
        x, y = (named(int(mask, 16), SUMS) for mask in match.groups())
        return _compiled(name, _over_rows(name, x, y, _writes(x, y, beside=True), blocks=True), "sane")
    if match := re.fullmatch(r"features_(\w+)_([0-9a-f]+)", name):
        formulas = named(int(match[2], 16), FORMULAS)
        x, y = _needed_by(formulas)
        return _compiled(name, _over_rows(name, x, y, _formulas(formulas)), match[1])
    if match := re.fullmatch(r"finish_(\w+)_([0-9a-f]+)_([0-9a-f]+)_([0-9a-f]+)", name):
        x, y = (named(int(mask, 16), SUMS) for mask in match.groups()[2:])
        return _compiled(name, _over_sums(name, x, y, _formulas(named(int(match[2], 16), FORMULAS))), match[1])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _compiled(name: str, source: str, kind: str) -> Callable[..., Any]:
    names = {**_NAMES, **_KINDS[kind]}
    exec(compile(source, f"<{name}>", "exec"), names)  # noqa: S102 (written in this module, from tables)
    function: Callable[..., Any] = names[name]
    return function


def _needed_by(formulas: Sequence[str]) -> tuple[list[str], list[str]]:
    x, y = zip(*(needed(FORMULAS[name].value) for name in formulas), strict=True)
    return [name for name in SUMS if name in set().union(*x)], [name for name in SUMS if name in set().union(*y)]


def _inside(head: str, body: str) -> str:
    return f"{head}\n{indent(body, '    ')}"


_NUMBERS = """\
zc_limit = numbers[0]
ssc_limit = numbers[1]
wamp_limit = numbers[2]
n = numbers[3]
log_n_1 = numbers[4]
"""

_OFFSETS = "".join(f"row_{lane} = offsets[min(first + {lane}, last)]\n" for lane in range(8))
_LOADS = "".join(f"    load(base, row_{lane} + {{at}}),\n" for lane in range(8))
_COLUMNS = f"columns = transposed((\n{_LOADS}))\n"
_SPILL = "".join(f"store(scratch, {8 * at}, columns[{at}])\n" for at in range(8))
_SHORT = _inside(
    "for i in range(length):", "".join(f"scratch[WIDTH * i + {lane}] = base[row_{lane} + i]\n" for lane in range(8))
)

_BEFORE = "".join(
    f"scratch[WIDTH * {at} + {lane}] = base[max(0, min(row_{lane} + {at - 2}, end_of_base))]\n"
    for at in range(4)
    for lane in range(8)
)

_LEVEL = """\
size = magnitude(x)
squared = x * x
centred = wide(x) - reference
"""
_STEP = f"""\
before = x
held_before = held
step_before = step
scaled_before = scaled
x = {{value}}
{_LEVEL}step = x - before
scaled = step * HUGE
bend = step - step_before
held = choose(size > 0.0, x, held)
opened = choose(magnitude(opened) > 0.0, opened, x)
"""
_FIRST = f"""\
x = {{value}}
reference = wide(x)
held = x + 0.0
opened = x
step = spread(0.0)
scaled = step
{_LEVEL}"""
_STATE = re.compile(
    r"\b(x|size|squared|centred|reference|before|step|step_before|scaled|scaled_before|bend|held|held_before|opened)\b"
)

_BACK = {
    "sum": "{which}_{name} = wide({value})\n",
    "count": "{which}_{name} = wide(single(bits(spread(0.0)) - {value}))\n",
}
_ZERO = {
    "sum": "{name} = wide(0.0)\n",
    "wide": "{name} = wide(0.0)\n",
    "logarithm": "{name} = wide(0.0)\npart_{name} = wide(1.0)\n",
    "count": "{name} = bits(spread(0.0))\n",
    "most": "{name} = {value}\n",
    "value": "",
}
_ADD = {
    "sum": "part_{name} += {value}\n",
    "wide": "{name} += {value}\n",
    "logarithm": "part_{name} *= {value}\n",
    "count": "{name} -= {value}\n",
    "most": "{name} = most({name}, {value})\n",
    "value": "",
}
_END = {
    "sum": "",
    "wide": "",
    "logarithm": "{name} = LOG_2 * {name} + log64(part_{name})\n",
    "count": "{name} = wide(single({name}))\n",
    "most": "{name} = wide({name})\n",
    "value": "{name} = {value}\n",
}

_UNSIGNED = """\
for lane in range(WIDTH):
    if item(begun, lane) == 0.0:
        at = offsets[min(first + lane, last)]
        i = 0
        while i < length and base[at + i] == 0.0:
            i += 1
        if i < length and base[at + i] < 0.0:
            scratch[lane] = 1.0
"""
"""A row that begins with zeros, of either sign, has none until its first other sample; the loop took it for a positive one."""


class _Side:
    """The sums over the samples, or over y; there every name ends in _y."""

    def __init__(self, names: Sequence[str], suffix: str) -> None:
        self._suffix = suffix
        self._sums: dict[str, Sum] = {name: SUMS[name] for name in names}

    def __bool__(self) -> bool:
        return bool(self._sums)

    def _named(self, code: str) -> str:
        return _STATE.sub(rf"\1{self._suffix}", code) if self._suffix else code

    def _each(self, texts: dict[str, str], reach: int = 2) -> str:
        return self._named(
            "".join(
                texts[item.kind].format(name=name + self._suffix, value=item.value)
                for name, item in self._sums.items()
                if item.reach <= reach
            )
        )

    def _of_parts(self, texts: dict[str, str]) -> str:
        return "".join(
            texts[item.kind].format(name=name + self._suffix) for name, item in self._sums.items() if item.kind in texts
        )

    def sample(self, value: str, reach: int) -> str:
        """One more sample of each row: the first has no step, the second no bend."""
        if not self._sums:
            return ""
        if self._suffix:
            value = f"log_ordinary({value} * {value} + EPSILON)"
        head = _FIRST if reach == 0 else _STEP
        zeros = self._each(_ZERO) + self.nothing() if reach == 0 else ""
        return self._named(head.format(value="VALUE")).replace("VALUE", value) + zeros + self._each(_ADD, reach)

    def back(self) -> str:
        """The terms of the first two samples that reach before the row, as early_… and late_…; bends have two such terms."""
        state = _Side(list(self._sums), f"{self._suffix}_b")
        code = self._state(state, "load(scratch, 0)", _FIRST) + self._state(state, "load(scratch, WIDTH)", _STEP)
        code += self._state(state, "load(scratch, 2 * WIDTH)", _STEP) + self._terms(state, "early", 1)
        code += "".join(f"late_{name}{self._suffix} = wide(0.0)\n" for name in self._sums if BESIDE[kind_of(name)] == 2)
        second = self._state(state, "load(scratch, 3 * WIDTH)", _STEP) + self._terms(state, "late", 2)
        return code + _inside("if length > 1:", second)

    def _state(self, state: _Side, value: str, head: str) -> str:
        if self._suffix:
            value = f"log_ordinary({value} * {value} + EPSILON)"
        return state._named(head.format(value="VALUE")).replace("VALUE", value)

    def _terms(self, state: _Side, which: str, least: int) -> str:
        return "".join(
            _BACK[item.kind].format(which=which, name=name + self._suffix, value=state._named(item.value))
            for name, item in self._sums.items()
            if BESIDE[kind_of(name)] >= least
        )

    def nothing(self) -> str:
        return self._of_parts({"sum": "part_{name} = spread(0.0)\n"})

    def flush(self) -> str:
        # A product of eight stays a float64; then its power of two is counted and one logarithm is left for the end.
        product = "{name} += exponent(part_{name})\npart_{name} = mantissa(part_{name})\n"
        return self._of_parts({"sum": "{name} += wide(part_{name})\n", "logarithm": product})

    def end(self) -> str:
        return self._each(_END)


def _over_rows(name: str, x: Sequence[str], y: Sequence[str], then: str, blocks: bool = False) -> str:
    """A function over rows that has the sums `x` and `y` of eight of them and then does something with them.

    `blocks`: also the terms that reach before the rows, into whatever lies there.
    """
    sides = [_Side(x, ""), _Side(y, "_y")]

    def samples(value: str, reach: int) -> str:
        return f"v = {value}\n" + "".join(side.sample("v", reach) for side in sides)

    zero = "".join(side.nothing() for side in sides)
    flush = "".join(side.flush() for side in sides)
    level = next((item for item in x if SUMS[item].kind == "sum" and SUMS[item].reach == 0), None)
    check = "" if level is not None else "spoilt += wide(v - v)\n"

    def each(head: str) -> str:
        # A loop for each side: both at once need more registers than there are.
        value = "v = load(scratch, WIDTH * i)\n"
        loops = [side.sample("v", 2) for side in sides if side]
        loops[0] += check
        return zero + "".join(_inside(head, value + loop) for loop in loops) + flush

    some, eight = each("for i in range(begin, end):"), each("for i in range(WIDTH):")
    code = _OFFSETS
    if blocks:
        code += _BEFORE + "".join(side.back() for side in sides if side)
    code += _inside("if length >= WIDTH:", _COLUMNS.format(at="0") + _SPILL) + _inside("else:", _SHORT)
    code += "spoilt = wide(0.0)\n" + samples("load(scratch, 0)", 0) + check + "begun = v\n"
    code += _inside("if length > 1:", samples("load(scratch, WIDTH)", 1) + check) + flush
    # What is left of the first eight, then whole eights, then what is left of those: the loop over some is there once.
    code += "begin = 2\nend = min(WIDTH, length)\nstart = 0\n"
    whole = _COLUMNS.format(at="start") + _SPILL + eight + "start += WIDTH\n"
    rest = _inside("while start + WIDTH <= length:", whole)
    rest += _inside("if start >= length:", "break\n") + _COLUMNS.format(at="length - WIDTH") + _SPILL
    rest += "begin = start - (length - WIDTH)\nend = WIDTH\nstart = length\n"
    code += _inside("while True:", some + "start += WIDTH\n" + rest)
    code += "".join(side.end() for side in sides)
    if level is not None:
        code += f"spoilt = {level} - {level}\n"
    if "crossings" in x:
        code += "store(scratch, 0, spread(0.0))\n" + _UNSIGNED + "crossings -= wide(load(scratch, 0))\n"
    body = (
        "last = offsets.shape[0] - 1\nend_of_base = base.shape[0] - 1\nstride = (last + WIDTH) // WIDTH * WIDTH\n"
        + _NUMBERS
    )
    body += _inside("for first in range(0, last + 1, WIDTH):", code + then)
    return _inside(f"def {name}(base, offsets, length, numbers, scratch, out):", body)


def _over_sums(name: str, x: Sequence[str], y: Sequence[str], then: str) -> str:
    """A function over sums as `sums_X_Y` writes them."""
    names = ["spoilt", *x, *(f"{item}_y" for item in y)]
    code = "".join(f"{item} = load(sums, {place} * stride + first)\n" for place, item in enumerate(names))
    body = _NUMBERS + _inside("for first in range(0, stride, WIDTH):", code + then)
    return _inside(f"def {name}(sums, stride, numbers, out):", body)


def _writes(x: Sequence[str], y: Sequence[str], beside: bool = False) -> str:
    """Code that writes the sums, one after the other, with `beside` each before the terms that reach before the row."""
    lines = ["spoilt"]
    for name, suffix in [*((name, "") for name in x), *((name, "_y") for name in y)]:
        lines.append(name + suffix)
        if beside:
            lines += [f"{which}_{name}{suffix}" for which in ("early", "late")[: BESIDE[kind_of(name)]]]
    return "".join(f"store(out, {place} * stride + first, {line})\n" for place, line in enumerate(lines))


def _formulas(formulas: Sequence[str]) -> str:
    """Code that computes formulas of sums, what they share once, and writes them."""
    done: dict[str, str] = {}

    def define(value: str, suffix: str) -> str:
        def resolve(match: re.Match[str]) -> str:
            name = match[0]
            own = "_y" if name.endswith("_y") else suffix
            plain = name.removesuffix("_y")
            if plain in VALUES and plain + own not in done:
                expression = define(VALUES[plain], own)
                done[plain + own] = f"{plain}{own} = {expression}\n"
            return plain + own if plain in VALUES or plain in SUMS else name

        return re.sub(r"[a-z]\w*", resolve, value)

    writes = ""
    for place, name in enumerate(formulas):
        writes += f"store(out, {place} * stride + first, single({define(FORMULAS[name].value, '')} + spoilt))\n"
    return "".join(done.values()) + writes
