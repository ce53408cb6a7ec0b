"""Compiled functions whose machine code is kept and loaded without numba.

Importing numba and readying its compiler takes half a second, even where its own cache has everything; loading an object
file through LLVM takes milliseconds. A function with a given signature is compiled by numba once per machine; the object
file lies in a cache folder and every later process loads that. It is the same machine code either way.

Kept are functions over arrays and numbers that allocate nothing; any other is left to numba and its own cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embridge_edge.artifacts import user_cache

MAGIC = b"embridge-edge kernel 1\n"
"""What a kept file begins with; then the hash of what it was made from, the hash of the rest, symbol and object file."""

TESTED_NUMBA = ("0.68.",)
"""Versions of numba whose inner ways were tested; under any other, numba and its own cache do the work."""

_SCALARS: dict[str, Any] = {
    "boolean": ctypes.c_bool,
    "int32": ctypes.c_int32,
    "int64": ctypes.c_int64,
    "uint64": ctypes.c_uint64,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}
_NEVER_CALLED = "NRT_MemInfo_call_dtor"
"""Numba frees an array of its own by this. Arrays that come from Python have no owner that it knows, so nothing is freed."""

_TYPE = re.compile(r"(\w+)(?:\[((?::,)*:)(:1)?\])?")
_SEPARATOR = re.compile(r",(?![^\[]*\])")
_LOCK = threading.RLock()


def jit(function: Callable[..., Any], signature: str | None = None, **options: Any) -> Any:
    """`function` compiled by numba, which keeps the machine code in its own cache folder.

    Where no cache folder can be written (a read-only container) it is compiled in each process instead.
    """
    import numba

    given = () if signature is None else (signature,)
    try:
        return numba.njit(*given, cache=True, **options)(function)
    except (RuntimeError, OSError):
        return numba.njit(*given, **options)(function)


class Kernel:
    """A compiled function; it is called like the function that it is made from, and runs without the interpreter's lock.

    Arguments are checked, never converted: an array of another type or layout is a TypeError.
    """

    def __init__(
        self,
        module: str,
        name: str,
        signature: str,
        sources: Sequence[Path],
        function: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        """Name the function; nothing is imported, compiled or loaded before the first call.

        Args:
            module, name: where the function is found when it has to be compiled.
            signature: as numba writes it, "int64(float32[:, ::1], float64)"; "void" for no result.
            sources: the files that the machine code depends on, the function's own first.
            function: the function, where it is at hand.
            options: what `numba.njit` takes besides.
        """
        self.module, self.name, self.signature = module, name, signature.replace(" ", "")
        self.sources = tuple(sources)
        self.options = {"nogil": True, **options}
        self._function = function
        self._dispatcher: Any = None
        self._run: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        return (self._run or self._ready())(*args)

    @property
    def py_func(self) -> Callable[..., Any]:
        """The function as it is written."""
        if self._function is None:
            self._function = getattr(import_module(self.module), self.name)
        return self._function

    @property
    def kept(self) -> bool:
        """Whether what runs is kept machine code; false before the first call."""
        return isinstance(self._run, _Call)

    @property
    def _numba_type_(self) -> Any:
        """By this numba knows what to call where another compiled function calls this one."""
        if self._dispatcher is None:
            self._dispatcher = jit(self.py_func, **self.options)
        return self._dispatcher._numba_type_

    def _ready(self) -> Callable[..., Any]:
        with _LOCK:
            if self._run is None:
                self._run = self._kept() or jit(self.py_func, self.signature, **self.options)
            return self._run

    def _kept(self) -> Callable[..., Any] | None:
        """The machine code, loaded or made; None where it cannot be kept."""
        if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0" or not sys.platform.startswith("linux"):
            return None
        with contextlib.suppress(OSError):  # a source that cannot be read: then nothing can be known to be up to date
            key = self._key()
            name = f"{self.module.rpartition('.')[2]}.{self.name}-{_machine()[:8]}.kernel"
            folders = list(_folders(self.sources[0]))
            for folder in folders:
                found = _read(folder / name, key)
                if found is not None:
                    return _Call(self, found)
            made = _compile(self)
            if made is not None:
                _keep(folders, name, key, made)
                return _Call(self, made)
        return None

    def _key(self) -> bytes:
        digest = hashlib.sha256(repr((_machine(), self.module, self.name, self.signature)).encode())
        for option, value in sorted(self.options.items()):
            said = sorted(value) if isinstance(value, set | frozenset) else value  # a set has no order of its own
            digest.update(f"{option}={said}\n".encode())
        for path in self.sources:
            digest.update(_digest(path))
        return digest.digest()


def kernel(reference: str, signature: str, **options: Any) -> Kernel:
    """The function "package.module:name" as a kernel, without importing the module, which may need numba itself.

    The machine code is made again when any module in the folder of that one has changed.
    """
    module, _, name = reference.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    own = Path(spec.origin)
    return Kernel(module, name, signature, (own, *sorted(set(own.parent.glob("*.py")) - {own})), **options)


class _Code(NamedTuple):
    symbol: str
    object_file: bytes


class _Call:
    """Machine code that is called with numba's own convention: arrays are spread into their fields."""

    def __init__(self, kernel: Kernel, code: _Code) -> None:
        result, self._arguments = parse_signature(kernel.signature)
        self._name = kernel.name
        self._result = result
        types: list[Any] = [ctypes.c_void_p, ctypes.c_void_p]
        for argument in self._arguments:
            if isinstance(argument, _Array):
                fields = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
                types += [*fields, *[ctypes.c_int64] * (2 * argument.dimensions)]
            else:
                types.append(argument)
        self._engine, address = _load(code)
        self._function = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(address)

    def __call__(self, *args: Any) -> Any:
        if len(args) != len(self._arguments):
            raise TypeError(f"{self._name} takes {len(self._arguments)} arguments, {len(args)} given")
        flat: list[Any] = []
        for value, argument in zip(args, self._arguments, strict=True):
            if isinstance(argument, _Array):
                argument.check(value, self._name)
                at = value.__array_interface__["data"][0]
                flat += (None, None, value.size, value.itemsize, at, *value.shape, *value.strides)
            else:
                flat.append(argument(value.item() if isinstance(value, np.generic) else value))
        result, error = self._result(), ctypes.c_void_p()
        status = self._function(ctypes.addressof(result), ctypes.addressof(error), *flat)
        if status:
            raise RuntimeError(f"{self._name} ended with status {status}")
        return result.value


class _Array(NamedTuple):
    """What an argument that is an array must be."""

    dtype: np.dtype[Any]
    dimensions: int
    contiguous: bool

    def check(self, value: npt.NDArray[Any], name: str) -> None:
        if value.dtype != self.dtype or value.ndim != self.dimensions:
            raise TypeError(
                f"{name} takes {self.dtype} of {self.dimensions} dimensions, not {value.dtype} {value.shape}"
            )
        if self.contiguous and not value.flags.c_contiguous:
            raise TypeError(f"{name} takes a contiguous array")


def parse_signature(signature: str) -> tuple[Any, list[Any]]:
    """The type of the result and of each argument; a function without a result writes a null pointer, which is None."""
    result, _, rest = signature.partition("(")
    given = [_argument(item) for item in _SEPARATOR.split(rest[:-1])]
    return ctypes.c_void_p if result == "void" else _SCALARS[result], given


def _argument(written: str) -> Any:
    match = _TYPE.fullmatch(written)
    if match is None:
        raise ValueError(f"{written!r} is no type of an argument")
    name, dimensions, contiguous = match.groups()
    if dimensions is None:
        return _SCALARS[name]
    return _Array(np.dtype("bool" if name == "boolean" else name), dimensions.count(":"), contiguous is not None)


@cache
def _machine() -> str:
    """A hash of what turns source into machine code here: processor, LLVM, numba, Python."""
    import llvmlite.binding as llvm

    spec = find_spec("numba")
    version = Path(spec.origin).with_name("_version.py") if spec is not None and spec.origin is not None else None
    settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_") and "CACHE" not in item[0])
    said = (
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        llvm.llvm_version_info,
        version.read_bytes() if version is not None and version.exists() else b"",
        sys.implementation.cache_tag,
        settings,
    )
    return hashlib.sha256(repr(said).encode()).hexdigest()


@cache
def _digest(path: Path) -> bytes:
    """Hash of a source file; it is read once in a process, like the module that it holds."""
    return hashlib.sha256(path.read_bytes()).digest()


def _folders(source: Path) -> Iterator[Path]:
    """Where machine code may lie, like that of numba: a folder that is asked for, else beside the source, else the user's own."""
    asked = os.environ.get("NUMBA_CACHE_DIR")
    if asked:
        yield Path(asked)
        return
    yield source.parent / "__pycache__"
    yield user_cache()


def _read(path: Path, key: bytes) -> _Code | None:
    """What is kept in a file, if it was made from the same and is whole."""
    try:
        held = path.read_bytes()
    except OSError:
        return None
    start = len(MAGIC) + len(key)
    if held[:start] != MAGIC + key or hashlib.sha256(held[start + 32 :]).digest() != held[start : start + 32]:
        return None
    symbol, _, object_file = held[start + 32 :].partition(b"\n")
    return _Code(symbol.decode(), object_file)


def _keep(folders: list[Path], name: str, key: bytes, code: _Code) -> None:
    """Keep machine code in the first folder that can be written; without one it is made again in each process."""
    rest = code.symbol.encode() + b"\n" + code.object_file
    for folder in folders:
        temporary = folder / f".{name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(MAGIC + key + hashlib.sha256(rest).digest() + rest)
            temporary.replace(folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
        else:
            return


def _compile(kernel: Kernel) -> _Code | None:
    """Have numba compile a kernel without a wrapper for Python.

    None where its code needs more than arrays and libm, and under a numba that this was not tested with: no public way leads
    to an object without a wrapper, so both the way there and the calling convention are that version's own.
    """
    import llvmlite.binding as llvm
    import numba
    from numba.core import compiler, dispatcher, sigutils
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target

    if not numba.__version__.startswith(TESTED_NUMBA):
        return None
    compiler_class: Any = vars(dispatcher)["_FunctionCompiler"]
    options = {"nopython": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, **kernel.options}
    with global_compiler_lock:
        arguments, result = sigutils.normalize_signature(kernel.signature)
        made = compiler_class(kernel.py_func, cpu_target, options, {}, compiler.Compiler).compile(arguments, result)
        codegen = made.library.codegen
        module = llvm.parse_bitcode(made.library._final_module.as_bitcode())
        object_file = bytes(codegen._tm.emit_object(module))
    process = ctypes.CDLL(None)
    if not all(name == _NEVER_CALLED or hasattr(process, name) for name in undefined_symbols(object_file)):
        return None
    return _Code(made.fndesc.llvm_func_name, object_file)


def undefined_symbols(object_file: bytes) -> list[str]:
    """Names that a 64-bit little-endian ELF object takes from elsewhere."""
    table, entry, count = (*struct.unpack_from("<Q", object_file, 40), *struct.unpack_from("<HH", object_file, 58))
    sections = [struct.unpack_from("<IIQQQQIIQQ", object_file, table + entry * index) for index in range(count)]
    names = []
    for _, kind, _, _, start, size, link, *_ in sections:
        if kind != 2:  # the symbol table
            continue
        strings = sections[link][4]
        for at in range(start + 24, start + size, 24):  # the first entry is empty
            name, _, _, section = struct.unpack_from("<IBBH", object_file, at)
            if section == 0:
                end = object_file.index(b"\0", strings + name)
                names.append(object_file[strings + name : end].decode())
    return names


@cache
def _target() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    if llvm.address_of_symbol(_NEVER_CALLED) is None:
        llvm.add_symbol(_NEVER_CALLED, ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value)
    return llvm.Target.from_default_triple()


def _load(code: _Code) -> tuple[Any, int]:
    """An engine that holds the machine code, which lives as long as that, and the function's address."""
    import llvmlite.binding as llvm

    machine = _target().create_target_machine(codemodel="jitdefault", jit=True)  # the engine's own, which frees it
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_file))
    engine.finalize_object()
    return engine, engine.get_function_address(code.symbol)
