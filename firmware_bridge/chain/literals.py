"""Numbers, texts and tables as C literals that give the same bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

_WIDTH = 110


def float_literal(value: Any) -> str:
    """A float32 as the shortest decimal that is read back as itself.

    Raises:
        ValueError: it is not finite.
    """
    number = np.float32(value)
    if not np.isfinite(number):
        raise ValueError(f"{value} has no literal in C")
    text = np.format_float_scientific(number, trim="-")
    mantissa, _, exponent = text.partition("e")
    if -5 < int(exponent) < 9:
        plain = np.format_float_positional(number, trim="0")
        return f"{plain}f"
    return f"{mantissa}e{int(exponent)}f" if "." in mantissa else f"{mantissa}.0e{int(exponent)}f"


def pair_parts(value: float) -> tuple[str, str]:
    """A float64 as two float32 literals whose sum it is to some 48 bits."""
    high = np.float32(value)
    return float_literal(high), float_literal(np.float32(value - float(high)))


def pair_literal(value: float) -> str:
    """The same as an initialiser."""
    return "{{{}, {}}}".format(*pair_parts(value))


def text_literal(text: str) -> str:
    """A text as UTF-8, with what is not plain ASCII as octal escapes, which end after three digits."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{plain}"'


def table(items: Iterable[str], indent: str = "    ") -> str:
    """The lines of an initialiser, as many items in each as fit."""
    lines, line = [], indent
    for item in items:
        if len(line) + len(item) + 1 > _WIDTH and line != indent:
            lines.append(line.rstrip())
            line = indent
        line += f"{item}, "
    return "\n".join([*lines, line.rstrip()])
