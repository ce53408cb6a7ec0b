"""`targets`: the known targets and their budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from embridge_edge.hardware.target import Target, all_targets
from embridge_edge.verbs.options import Common, common_options, show


@dataclass(frozen=True)
class TargetList:
    """The shipped targets: boards, emulated boards, then the rest."""

    targets: tuple[Target, ...]

    def text(self) -> str:
        rows = [("target", "kind", "core", "MHz", "flash KiB", "RAM KiB", "what it is"), *map(_row, self.targets)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
        lines = ["  ".join([*map(_aligned, row, widths, range(len(row))), row[-1]]).rstrip() for row in rows]
        return "\n".join(
            [*lines, "", "A --target may also be a TOML file of your own: see embridge-edge targets --help."]
        )

    def to_json(self) -> dict[str, Any]:
        return {"targets": [target.to_json() for target in self.targets]}


def targets() -> TargetList:
    """The known targets and their budgets."""
    return TargetList(tuple(all_targets()))


def _row(target: Target) -> tuple[str, ...]:
    numbers = (_number(value) for value in (target.clock_mhz, target.free_flash_kib, target.free_ram_kib))
    return (target.name, target.kind, target.core, *numbers, target.title)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}" if value < 1e6 else f"{value:.0f}"


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column in (3, 4, 5) else cell.ljust(width)


@click.command("targets")
@common_options
def command(common: Common) -> None:
    """List the known targets and their budgets.

    Flash and RAM are what the application leaves. A TOML file of your own names a board of your own, or one of these
    with what your application uses:

    \b
        based_on = "nrf52840"
        title = "Our armband"
        application_flash_kib = 420
        application_ram_kib = 96
    """
    show(targets(), common)
