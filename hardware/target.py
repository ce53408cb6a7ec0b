"""A target as a value that is checked when it is made: what a board, an emulated board, a phone or this host offers."""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from embridge_edge.errors import EdgeError
from embridge_edge.hardware.vela import Npu

KINDS = ("mcu", "emulated", "npu", "phone", "linux", "host")
BUDGETED_KINDS = ("mcu", "emulated")
CURRENT_STATES = ("active", "sleep")
RUNTIMES_FILE = "runtimes.toml"


@dataclass(frozen=True)
class Core:
    """What a processor core may have, and what each of its kind has.

    Attributes:
        always: flags that the core never lacks.
        optional: flags that a chip maker may have left out.
    """

    always: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


# From Arm's and Espressif's technical reference manuals. `dsp`: saturating and packed 16-bit arithmetic; `fp32` and
# `fp64`: scalar floating point in hardware; `mve`, `mve-float`: Helium; `pie`: the 128-bit vectors of the ESP32-S3.
CORES: Mapping[str, Core] = MappingProxyType(
    {
        "cortex-m0plus": Core(),
        "cortex-m3": Core(),
        "cortex-m4": Core(frozenset({"dsp"}), frozenset({"fp32"})),
        "cortex-m7": Core(frozenset({"dsp"}), frozenset({"fp32", "fp64"})),
        "cortex-m33": Core(frozenset(), frozenset({"dsp", "fp32"})),
        "cortex-m55": Core(frozenset({"dsp"}), frozenset({"fp32", "fp64", "mve", "mve-float"})),
        "xtensa-lx7": Core(frozenset(), frozenset({"fp32", "pie"})),
        "cortex-a53": Core(frozenset({"fp32", "fp64", "neon"}), frozenset()),
        "cortex-a76": Core(frozenset({"fp32", "fp64", "neon", "dotprod"}), frozenset()),
        "arm64": Core(frozenset({"fp32", "fp64", "neon"}), frozenset({"dotprod"})),
        "ethos-u": Core(),
        "host": Core(),
    }
)
# A flag on the left cannot be without those on the right.
IMPLIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {"fp64": frozenset({"fp32"}), "mve": frozenset({"dsp"}), "mve-float": frozenset({"mve", "fp32"})}
)


@dataclass(frozen=True)
class Runtime:
    """What runs a model on a target.

    Attributes:
        name: "tflm", "litert", "c" (our own), "ethos-u" or "onnxruntime". title: for people.
        source: where the list of ops is from.
        ops: names as the format has them and the tensor types that each runs in; None where nothing is listed, because all run.
        format: "tflite" or "onnx".
        remarks: what is to be known of an op that runs. instead: what to use in the place of one that does not.
        falls_back: whether what it lacks runs beside it, on the processor.
    """

    name: str
    source: str
    ops: Mapping[str, frozenset[str]] | None = None
    title: str = ""
    format: str = "tflite"
    remarks: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    falls_back: bool = False

    def lacks(self, ops: Iterable[str], tensor_type: str = "int8") -> tuple[str, ...]:
        """Those of `ops` that do not run in `tensor_type`, each once, in order."""
        if self.ops is None:
            return ()
        return tuple(dict.fromkeys(op for op in ops if tensor_type not in self.ops.get(op, frozenset())))


@dataclass(frozen=True)
class Current:
    """A published supply current, in milliampere, and under which conditions who published it."""

    ma: float
    source: str


@dataclass(frozen=True)
class Target:
    """Something a model runs on. Sizes are in KiB (1024 bytes); None where the kind has no such budget.

    Attributes:
        name: what `--target` takes.
        title: the name people use.
        kind: "mcu", "emulated" (a QEMU machine), "npu" (an accelerator, of which Vela gives estimates), "phone", "linux" (a
            single-board computer) or "host".
        core: a key of `CORES`.
        flags: what the core has of what it may have; those that it always has are added.
        clock_mhz: highest clock of the core; for an emulated board that of its tick counter. None where it varies.
        flash_kib: memory for code and constants.
        ram_kib: memory for data.
        application_flash_kib, application_ram_kib: what the rest of the firmware already uses.
        runtime: what its ops are counted against.
        current: supply current per state, where one is published.
        machine: QEMU's name of an emulated board. npu: Vela's names of an accelerator.
        notes: what a reader must know, each with its source.
    """

    name: str
    title: str
    kind: str
    core: str
    runtime: Runtime
    flags: frozenset[str] = frozenset()
    clock_mhz: float | None = None
    flash_kib: float | None = None
    ram_kib: float | None = None
    application_flash_kib: float = 0.0
    application_ram_kib: float = 0.0
    current: Mapping[str, Current] = field(default_factory=dict)
    machine: str = ""
    npu: Npu | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise self._wrong(f"name {self.name!r} is empty or padded")
        if self.kind not in KINDS:
            raise self._wrong(f"kind {self.kind!r} is unknown; choose one of {', '.join(KINDS)}")
        if self.core not in CORES:
            raise self._wrong(f"core {self.core!r} is unknown; choose one of {', '.join(CORES)}")
        self._check_flags()
        if self.clock_mhz is not None and not self.clock_mhz > 0:
            raise self._wrong(f"clock_mhz must be positive, not {self.clock_mhz:g}")
        self._check_memory("flash_kib", self.flash_kib, self.application_flash_kib)
        self._check_memory("ram_kib", self.ram_kib, self.application_ram_kib)
        if (self.kind == "emulated") != bool(self.machine):
            raise self._wrong("an emulated target, and no other, names its QEMU machine")
        if (self.kind == "npu") != (self.npu is not None):
            raise self._wrong("an npu, and no other, has a table [npu]")
        for state, current in self.current.items():
            if state not in CURRENT_STATES:
                raise self._wrong(f"current of {state!r} is unknown; choose from {', '.join(CURRENT_STATES)}")
            if not current.ma > 0 or not current.source:
                raise self._wrong(f"current of {state!r} needs a positive number of mA and its source")

    def _check_flags(self) -> None:
        core = CORES[self.core]
        for flag in sorted(self.flags - core.always - core.optional):
            raise self._wrong(f"a {self.core} has no {flag}; it may have {_listed(core.always | core.optional)}")
        object.__setattr__(self, "flags", self.flags | core.always)
        for flag in sorted(self.flags):
            if missing := IMPLIES.get(flag, frozenset()) - self.flags:
                raise self._wrong(f"{flag} needs {_listed(missing)} as well")

    def _check_memory(self, name: str, there_is: float | None, used: float) -> None:
        if there_is is None:
            if self.kind in BUDGETED_KINDS:
                raise self._wrong(f"{name} is missing")
            if used:
                raise self._wrong(f"application_{name} is given, {name} is not")
            return
        if not there_is > 0:
            raise self._wrong(f"{name} must be positive, not {there_is:g}")
        if not 0 <= used < there_is:
            raise self._wrong(f"application_{name} is {used:g} of {there_is:g} KiB: nothing is left for a model")

    def _wrong(self, what: str) -> EdgeError:
        return EdgeError(f"Target {self.name or '?'}: {what}.")

    @property
    def free_flash_kib(self) -> float | None:
        """Flash that the application leaves."""
        return None if self.flash_kib is None else self.flash_kib - self.application_flash_kib

    @property
    def free_ram_kib(self) -> float | None:
        """RAM that the application leaves."""
        return None if self.ram_kib is None else self.ram_kib - self.application_ram_kib

    def to_json(self) -> dict[str, Any]:
        """Plain values; sets sorted."""
        return {
            "name": self.name,
            "title": self.title,
            "kind": self.kind,
            "core": self.core,
            "flags": sorted(self.flags),
            "clock_mhz": self.clock_mhz,
            "flash_kib": self.flash_kib,
            "ram_kib": self.ram_kib,
            "application_flash_kib": self.application_flash_kib,
            "application_ram_kib": self.application_ram_kib,
            "runtime": self.runtime.name,
            "current_ma": {state: {"ma": item.ma, "source": item.source} for state, item in self.current.items()},
            "machine": self.machine,
            "npu": None if self.npu is None else vars(self.npu),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class FitReport:
    """A firmware's needs beside what a target has left; bytes."""

    target: Target
    flash_bytes: int
    ram_bytes: int

    @property
    def flash_budget_bytes(self) -> int | None:
        return _bytes(self.target.free_flash_kib)

    @property
    def ram_budget_bytes(self) -> int | None:
        return _bytes(self.target.free_ram_kib)

    @property
    def flash_ok(self) -> bool:
        return self.flash_budget_bytes is None or self.flash_bytes <= self.flash_budget_bytes

    @property
    def ram_ok(self) -> bool:
        return self.ram_budget_bytes is None or self.ram_bytes <= self.ram_budget_bytes

    @property
    def ok(self) -> bool:
        return self.flash_ok and self.ram_ok

    def text(self) -> str:
        return f"{self.target.name}: {self._line('flash', self.flash_bytes, self.flash_budget_bytes)}, " + self._line(
            "RAM", self.ram_bytes, self.ram_budget_bytes
        )

    @staticmethod
    def _line(name: str, needed: int, budget: int | None) -> str:
        if budget is None:
            return f"{name} {needed / 1024:.1f} KiB, no budget"
        verdict = "fits" if needed <= budget else f"is {(needed - budget) / 1024:.1f} KiB too much"
        return f"{name} {needed / 1024:.1f} of {budget / 1024:.1f} KiB free {verdict}"

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target.name,
            "ok": self.ok,
            "flash_bytes": self.flash_bytes,
            "flash_budget_bytes": self.flash_budget_bytes,
            "ram_bytes": self.ram_bytes,
            "ram_budget_bytes": self.ram_budget_bytes,
        }


def fits(target: Target, flash_bytes: int, ram_bytes: int) -> FitReport:
    """Compare what a model needs with what the target's application leaves."""
    return FitReport(target, flash_bytes, ram_bytes)


@functools.cache
def runtimes() -> Mapping[str, Runtime]:
    """The runtimes whose ops are known, by name."""
    table = tomllib.loads(files("embridge_edge.hardware").joinpath(RUNTIMES_FILE).read_text("utf-8"))
    return MappingProxyType({name: _runtime(name, entry) for name, entry in table.items()})


def _runtime(name: str, entry: Mapping[str, Any]) -> Runtime:
    ops: dict[str, set[str]] = {}
    for tensor_type, names in entry.get("ops", {}).items():
        for op in names:
            ops.setdefault(op, set()).add(tensor_type)
    return Runtime(
        name=name,
        source=entry["source"],
        ops=None if entry.get("all_ops") else MappingProxyType({op: frozenset(types) for op, types in ops.items()}),
        title=entry["title"],
        format=entry.get("format", "tflite"),
        remarks=MappingProxyType(entry.get("remarks", {})),
        instead=MappingProxyType(entry.get("instead", {})),
        falls_back=entry.get("falls_back", False),
    )


def shipped_targets() -> list[str]:
    """Names of the targets that come with the package."""
    folder = files("embridge_edge.hardware.targets")
    return sorted(path.name.removesuffix(".toml") for path in folder.iterdir() if path.name.endswith(".toml"))


def all_targets() -> list[Target]:
    """Every shipped target: boards first, then what is emulated, then the rest."""
    return sorted(map(find_target, shipped_targets()), key=lambda target: (KINDS.index(target.kind), target.name))


def find_target(name: str) -> Target:
    """A shipped target by name, or one of your own by the path of its TOML file.

    A file may say `based_on = "NAME"` and then only what differs, such as what the application uses.

    Raises:
        EdgeError: no such target, no TOML, an unknown key, a value of the wrong type or an impossible combination.
    """
    if name in shipped_targets():
        return _target(_shipped_table(name), name)
    path = Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, shipped_targets(), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise EdgeError(
            f"Unknown target {name!r};{hint} choose one of {', '.join(shipped_targets())}, or give a TOML file."
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EdgeError(f"{path} is not valid TOML: {error}.") from None
    if (base := table.pop("based_on", None)) is not None:
        if base not in shipped_targets():
            raise EdgeError(f"{path}: based_on {base!r} is unknown; choose one of {', '.join(shipped_targets())}.")
        table = {**_shipped_table(base), **table}
    return _target({"name": path.stem, "title": path.stem, **table}, str(path))


def _shipped_table(name: str) -> dict[str, Any]:
    table = tomllib.loads(files("embridge_edge.hardware.targets").joinpath(f"{name}.toml").read_text("utf-8"))
    return {"name": name, **table}


_TYPES: Mapping[str, tuple[type, ...]] = {
    "clock_mhz": (int, float),
    "flash_kib": (int, float),
    "ram_kib": (int, float),
    "application_flash_kib": (int, float),
    "application_ram_kib": (int, float),
    "flags": (list,),
    "notes": (list,),
    "current": (dict,),
    "npu": (dict,),
}


def _target(table: dict[str, Any], place: str) -> Target:
    """A `Target` from the table of its file."""
    known = {item.name: item for item in fields(Target)}
    for key, value in table.items():
        if key not in known:
            raise EdgeError(f"Target {place}: unknown key {key!r}; choose from {', '.join([*known, 'based_on'])}.")
        if not isinstance(value, _TYPES.get(key, (str,))) or isinstance(value, bool):
            raise EdgeError(f"Target {place}: {key} = {value!r} is not of the right type.")
    for key, item in known.items():
        if key not in table and item.default is MISSING and item.default_factory is MISSING:
            raise EdgeError(f"Target {place}: {key} is missing.")
    runtime = runtimes().get(table["runtime"])
    if runtime is None:
        raise EdgeError(
            f"Target {place}: runtime {table['runtime']!r} is unknown; choose one of {', '.join(runtimes())}."
        )
    listed = {key: _strings(table.get(key, []), f"Target {place}: {key}") for key in ("flags", "notes")}
    current = {
        state: _current(entry, f"Target {place}: current of {state}")
        for state, entry in table.get("current", {}).items()
    }
    return Target(
        **{
            **table,
            "runtime": runtime,
            "flags": frozenset(listed["flags"]),
            "notes": tuple(listed["notes"]),
            "current": MappingProxyType(current),
            "npu": _npu(table["npu"], place) if "npu" in table else None,
        }
    )


def _strings(values: list[Any], place: str) -> list[str]:
    for value in values:
        if not isinstance(value, str):
            raise EdgeError(f"{place} must be a list of texts, not {value!r}.")
    return values


def _current(entry: Any, place: str) -> Current:
    if not isinstance(entry, dict) or set(entry) != {"ma", "source"} or not isinstance(entry["ma"], int | float):
        raise EdgeError(f'{place} must be {{ ma = NUMBER, source = "WHERE IT IS PUBLISHED" }}.')
    return Current(float(entry["ma"]), str(entry["source"]))


def _npu(entry: Any, place: str) -> Npu:
    keys = [item.name for item in fields(Npu)]
    if sorted(entry) != sorted(keys) or not all(isinstance(value, str) for value in entry.values()):
        raise EdgeError(f"Target {place}: [npu] must have the texts {', '.join(keys)}, as Vela names them.")
    return Npu(**entry)


def _listed(flags: Iterable[str]) -> str:
    return ", ".join(sorted(flags)) or "no flags"


def _bytes(kib: float | None) -> int | None:
    return None if kib is None else int(kib * 1024)
