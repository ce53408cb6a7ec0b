"""Arrays that grow by rows, all with the same names: kept in memory, or appended to .npy files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rows = Mapping[str, Array]
Kinds = Mapping[str, npt.DTypeLike]

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_BYTES = 128
"""Room for the header of an .npy file whose length is not known yet: the format pads it with spaces."""


class Columns(Protocol):
    """Arrays by name to which rows are appended."""

    def append(self, rows: Rows) -> None:
        """Append rows to each array; they are cast to its kind."""


class MemoryColumns:
    """Arrays in memory, which grow where they are: parts that are joined at the end would be held twice."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._arrays: dict[str, Array] = {}
        self._rows = dict.fromkeys(kinds, 0)

    def append(self, rows: Rows) -> None:
        for name, kind in self._kinds.items():
            block = rows[name]
            whole = self._arrays.setdefault(name, np.empty((0, *block.shape[1:]), kind))
            stop = self._rows[name] + len(block)
            if stop > len(whole):
                whole.resize((max(stop, len(whole) * 5 // 4), *whole.shape[1:]), refcheck=False)
            whole[self._rows[name] : stop] = block
            self._rows[name] = stop

    def arrays(self) -> dict[str, Array]:
        """The arrays so far; nothing can be appended behind them afterwards."""
        for name, whole in self._arrays.items():
            whole.resize((self._rows[name], *whole.shape[1:]), refcheck=False)
        return self._arrays


class FileColumns:
    """Arrays in .npy files of a folder; a file is one once the block has ended well."""

    def __init__(self, folder: Path, kinds: Kinds) -> None:
        self.folder = folder
        self._kinds = {name: np.dtype(kind) for name, kind in kinds.items()}
        self._open = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def __enter__(self) -> FileColumns:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self._kinds:
            self._files[name] = self._open.enter_context((self.folder / f"{name}.npy").open("wb"))
            self._files[name].write(bytes(_HEADER_BYTES))
        return self

    def append(self, rows: Rows) -> None:
        for name, kind in self._kinds.items():
            block = np.ascontiguousarray(rows[name], kind)
            count, *width = self._shapes.get(name, (0, *block.shape[1:]))
            self._shapes[name] = (count + len(block), *width)
            self._files[name].write(block.data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            for name, file in self._files.items() if kind is None else ():
                file.seek(0)
                file.write(_header(self._kinds[name], self._shapes.get(name, (0,))))


def _header(kind: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Header of an .npy file, version 1.0 (numpy.lib.format), in `_HEADER_BYTES` bytes."""
    about = repr({"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}).encode("latin1")
    room = _HEADER_BYTES - len(_MAGIC) - 2
    return _MAGIC + room.to_bytes(2, "little") + about.ljust(room - 1) + b"\n"
