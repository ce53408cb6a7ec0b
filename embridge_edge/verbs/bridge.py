"""`bridge`: an int8 `.tflite` becomes a C library, checked against its reference and counted on an emulated core."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.artifacts import folder_written_by_rename, write_json
from embridge_edge.errors import EdgeError, GateMissed
from embridge_edge.progress import SILENT, Progress
from embridge_edge.verbs.options import Common, common_options, refuse_existing, show
from embridge_edge.verbs.packaging import EXAMPLE, Plan, Wanted, dressed, planned, sources
from embridge_edge.verbs.workspace import refuse_around

if TYPE_CHECKING:
    from embridge_edge.firmware_bridge.emulated import Measured
    from embridge_edge.firmware_bridge.program import Profile, Program
    from embridge_edge.firmware_bridge.sizing import SizeReport
    from embridge_edge.firmware_bridge.verifying import Verification
    from embridge_edge.hardware.boards import Board
    from embridge_edge.hardware.target import Target
    from embridge_edge.verbs.packaging import RingPlan

OPTIMISE = ("O3", "O2", "Os")
WRITTEN = (
    "CMakeLists.txt", "LICENSE", "README.md", "android", "bridge.json", "cmake", "examples", "idf_component.yml", "library.json",
    "library.properties", "src", "tflm", "zephyr", "*.pdsc", "*.pack", "*_model.bin",
)  # fmt: skip
"""What the verb writes into --out."""


@dataclass(frozen=True)
class BridgeReport:
    """The library that was written, and what was found out about it.

    Attributes:
        model: the `.tflite` file.
        target: what it was made for.
        folder: where it lies.
        program: the network's plan, for a whole input.
        verification: None where nothing was compared.
        selftests: for each place where the package's self-test ran, whether it passed.
        measured: None where nothing was counted.
        sizes: None where nothing was compiled for the target's core.
        const_bytes: parameters, weights and tables.
        files: what was written, below `folder`.
        ring: the two parts that were written in its place, for a ring student whose tokens are kept.
    """

    model: Path
    target: Target
    folder: Path
    program: Program
    verification: Verification | None
    selftests: dict[str, bool]
    measured: Measured | None
    sizes: SizeReport | None
    const_bytes: int
    files: tuple[str, ...]
    ring: RingPlan | None = None

    @property
    def programs(self) -> tuple[Program, ...]:
        """The plans that were written."""
        return (self.program,) if self.ring is None else self.ring.program.programs

    @property
    def network_ram_bytes(self) -> int:
        """Activations, scratch and what the network keeps."""
        if self.ring is not None:
            return self.ring.program.arena_bytes + self.ring.program.ring_bytes
        return self.program.arena_bytes + self.program.state_bytes

    @property
    def live_bytes(self) -> int:
        """Most bytes of activations that are alive at once."""
        return self.program.live_bytes if self.ring is None else self.ring.program.live_bytes

    @property
    def mismatches(self) -> int:
        """Inputs for which a tensor differs, and self-tests that failed."""
        found = len(self.verification.mismatches) if self.verification else 0
        return found + sum(not passed for passed in self.selftests.values())

    @property
    def missed(self) -> str:
        """What is not as it should be, in a line; "" where everything is."""
        if self.verification is not None and not self.verification.ok:
            return self._difference(self.verification)
        failed = [place for place, passed in self.selftests.items() if not passed]
        if failed:
            return f"The package's self-test fails on {failed[0]}; report this with the model."
        if self.sizes is not None and not self.sizes.ok:
            return f"{self.sizes.name} does not fit {self.target.name}: {' and '.join(self.sizes.missing)}."
        return ""

    @staticmethod
    def _difference(found: Verification) -> str:
        if not found.mismatches:
            return "No tensor was compared; report this with the model."
        first = found.mismatches[0]
        return (
            f"{first.tensor!r} differs on {first.where} for input {first.input}, element {first.at}: "
            f"{first.found:g} instead of {first.expected:g}; report this with the model."
        )

    def text(self) -> str:
        program = self.program
        calls = sum(len(one.steps) for one in self.programs)
        lines = [
            f"{self.model.name} for {self.target.name}, profile {program.profile}: {calls} calls, {self.folder}",
            f"  network: RAM {self.network_ram_bytes:,} bytes ({self.live_bytes:,} would be alive at once "
            f"without computing in place), tables {self.const_bytes:,} bytes",
        ]
        if self.ring is not None:
            lines.append(f"  {self.ring.parts.text()}")
        if self.sizes is not None:
            lines += [f"  {line}" for line in self.sizes.text().splitlines()]
        if self.measured is not None:
            lines += self._counted(self.measured)
        if self.verification is not None:
            lines.append(self._compared(self.verification))
        if self.selftests:
            places = (f"{place} {'passed' if passed else 'FAILED'}" for place, passed in self.selftests.items())
            lines.append(f"  self-test of the package: {', '.join(places)}")
        return "\n".join(lines)

    def _counted(self, measured: Measured) -> list[str]:
        widest = max(len(step.kernel) for step in measured.steps)
        return [
            f"  {measured.instructions:,} instructions per inference of the network at {measured.optimise} on {measured.board}: executed on an "
            "emulated core, neither cycles nor time",
            *(
                f"  {step.op:4} {step.name:20} {step.kernel:{widest}} {step.instructions:12,} {step.macs:12,} MACs"
                + (f" {step.instructions / step.macs:7.2f} per MAC" if step.macs else "")
                for step in measured.steps
            ),
        ]

    @staticmethod
    def _compared(found: Verification) -> str:
        fused = f"; never written: {', '.join(found.fused)}" if found.fused else ""
        fused += f"; left out, since no output needs them: {', '.join(found.left_out)}" if found.left_out else ""
        said = f"  {found.inputs_checked} inputs, {found.tensors_checked:,} tensors compared: "
        return said + ("all equal" if found.ok else f"{len(found.mismatches)} differ") + fused

    def to_json(self) -> dict[str, Any]:
        measured, found = self.measured, self.verification
        return {
            "model": str(self.model),
            "target": self.target.name,
            "profile": self.program.profile,
            "name": self.program.name,
            "folder": str(self.folder),
            "inputs_checked": found.inputs_checked if found else 0,
            "tensors_checked": found.tensors_checked if found else 0,
            "mismatches": self.mismatches,
            "first_mismatches": [dataclasses.asdict(item) for item in found.mismatches[:10]] if found else [],
            "fused_tensors": [one.tensor(index).name for one in self.programs for index in one.fused],
            "left_out_tensors": [one.tensor(index).name for one in self.programs for index in one.left_out],
            "selftests": dict(self.selftests),
            "instructions": measured.instructions if measured else None,
            "first_instructions": measured.first_instructions if measured else None,
            "instructions_source": "icount" if measured else None,
            "emulated": measured.board if measured else None,
            "optimise": measured.optimise if measured else None,
            "per_op": [
                {
                    "op": step.op,
                    "name": step.name,
                    "layer": step.layer,
                    "kernel": step.kernel,
                    "instructions": step.instructions,
                    "macs": step.macs,
                }
                for step in (measured.steps if measured else ())
            ],
            "code_flash_bytes": self.sizes.code_bytes if self.sizes else None,
            "const_bytes": self.sizes.constant_bytes if self.sizes else self.const_bytes,
            "ram_bytes": self.sizes.arena_bytes + self.sizes.state_bytes if self.sizes else self.network_ram_bytes,
            "network_ram_bytes": self.network_ram_bytes,
            "live_activation_bytes": self.live_bytes,
            "stack_bytes": self.sizes.stack_bytes if self.sizes else None,
            "sizes": self.sizes.to_json() if self.sizes else None,
            "files": list(self.files),
            "ring": None if self.ring is None else self.ring.parts.to_json(),
        }


def bridge(
    model: Path,
    target: str,
    out: Path,
    *,
    wanted: Wanted | None = None,
    verify: int = 0,
    measure: bool = False,
    force: bool = False,
    seed: int = 0,
    progress: Progress = SILENT,
) -> BridgeReport:
    """Write the C library of an int8 model, with its signal chain and head where it carries them.

    Args:
        model: a `.tflite` file.
        target: name of a target, or its TOML file.
        out: folder for the package.
        wanted: everything else that is said about the library.
        verify: number of seeded inputs for which every tensor is compared with the profile's reference, on this machine and,
            where the target is emulated, on the emulated core; the package's self-test runs there too.
        measure: count instructions, and compile for sizes, on the emulated core of the target's kind.

    Raises:
        EdgeError: the model cannot be compiled for the target, or a tool is missing.
    """
    from embridge_edge.firmware_bridge.section import constant_bytes
    from embridge_edge.hardware.target import find_target

    wanted = wanted or Wanted()
    refuse_existing(out, force, WRITTEN)
    refuse_around(out, model)
    found = find_target(target)
    board = _board_for(found) if measure else None
    plan = planned(model, found, wanted)
    verification = _verified(plan, verify, seed, progress) if verify else None
    measured = _measured(plan, board, seed) if board is not None else None
    library = sources(plan)
    sizes = _sizes(plan, measured, library, board) if measured is not None and board is not None else None
    files = dressed(plan, library, sizes)
    report = BridgeReport(
        model=model,
        target=found,
        folder=out,
        program=plan.program,
        verification=verification,
        selftests=_selftests(plan, files, progress) if verify else {},
        measured=measured,
        sizes=sizes,
        const_bytes=sum(sum(constant_bytes(program).values()) for program, _ in plan.compiled),
        files=tuple(files),
        ring=plan.ring,
    )
    with folder_written_by_rename(out) as temporary:
        for path, content in files.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        write_json(temporary / "bridge.json", report.to_json())
    return report


def _board_for(target: Target) -> Board:
    """The emulated core of a target's kind.

    Raises:
        EdgeError: there is none.
    """
    from embridge_edge.hardware.boards import BOARDS, board_of_core

    board = board_of_core(target.core)
    if board is None:
        raise EdgeError(
            f"Instructions are counted on an emulated core, and there is none of {target.name}'s kind; use --target "
            f"{', '.join(BOARDS)}."
        )
    return board


def _verified(plan: Plan, count: int, seed: int, progress: Progress) -> Verification:
    from embridge_edge.firmware_bridge.verifying import seeded_inputs, together, verify_board, verify_host

    target, verified = plan.target, []
    for program, content in plan.compiled:
        inputs = list(seeded_inputs(program.graph, count, seed))
        progress.say(f"  comparing {count} inputs on this machine")
        found, traces = verify_host(program, content, inputs)
        if target.kind == "emulated":
            from embridge_edge.firmware_bridge import emulated

            progress.say(f"  comparing {count} inputs on {target.name}")
            on_board = emulated.traces(program, _board_for(target), inputs, f"-{plan.wanted.optimise}")
            found = verify_board(program, found, traces, on_board, target.name)
        verified.append(found)
    return together(verified)


def _measured(plan: Plan, board: Board, seed: int) -> Measured:
    from embridge_edge.firmware_bridge import emulated
    from embridge_edge.firmware_bridge.verifying import representative_input

    return emulated.summed(
        [
            emulated.measure(program, board, representative_input(program.graph, seed), f"-{plan.wanted.optimise}")
            for program, _ in plan.compiled
        ]
    )


def _sizes(plan: Plan, measured: Measured, library: dict[str, str], board: Board) -> SizeReport:
    """What the network takes, and with it chain, head and context where the library has them."""
    from embridge_edge.firmware_bridge import emulated
    from embridge_edge.firmware_bridge.device import NAME
    from embridge_edge.firmware_bridge.sizing import size_report, taking_turns, with_chain

    flash, ram = plan.target.free_flash_kib, plan.target.free_ram_kib
    reports = [
        size_report(
            program,
            measured.symbols,
            target=plan.target.name,
            stack_estimated=measured.stack_estimated,
            stack_painted_bytes=measured.stack_painted_bytes,
            flash_budget_bytes=None if flash is None else int(1024 * flash),
            ram_budget_bytes=None if ram is None else int(1024 * ram),
            beside=[f"{other.name}_section" for other, _ in plan.compiled if other is not program],
        )
        for program, _ in plan.compiled
    ]
    network = (
        reports[0] if plan.ring is None else taking_turns(reports, plan.program.name, plan.ring.program.ring_bytes)
    )
    if plan.device is None:
        return network
    device = emulated.measure_device(library, board, f"-{plan.wanted.optimise}")
    return with_chain(
        network,
        NAME,
        device.symbols,
        device.context_bytes,
        stack_estimated=device.stack_estimated,
        stack_painted_bytes=device.stack_painted_bytes,
    )


def _selftests(plan: Plan, files: dict[str, str | bytes], progress: Progress) -> dict[str, bool]:
    """Whether the package's own self-test passes, on this machine, on an emulated target, and as AArch64 code for a phone."""
    from embridge_edge.firmware_bridge.host_build import AARCH64, has_aarch64, run_example

    target, texts = plan.target, {path: text for path, text in files.items() if isinstance(text, str)}
    progress.say("  running the package's self-test")
    passed = {"host": run_example(texts, EXAMPLE) == 0}
    if target.kind == "emulated":
        from embridge_edge.firmware_bridge import emulated

        status = emulated.selftest(texts, EXAMPLE, _board_for(target), f"-{plan.wanted.optimise}")
        passed[target.name] = status == 0
    if "neon" in target.flags:  # which AArch64 alone has among our cores
        if has_aarch64():
            passed["qemu-aarch64"] = run_example(texts, EXAMPLE, aarch64=True) == 0
        else:
            progress.say(f"  not run as AArch64 code: that needs {' and '.join(AARCH64)}")
    return passed


def address_of(text: str | None) -> int | None:
    """An address as C writes it, "0x08080000".

    Raises:
        EdgeError: it is no number.
    """
    try:
        return None if text is None else int(text, 0)
    except ValueError:
        raise EdgeError(f"--address {text!r} is no number; write it as 0x08080000.") from None


@click.command("bridge")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", required=True, help="Name of a target, or its TOML file; see targets.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the package.")
@click.option(
    "--profile", type=click.Choice(["litert-ref", "tflm"]), default="litert-ref", show_default=True,
    help="Whose rounding is followed, bit for bit.",
)  # fmt: skip
@click.option("--name", help="Prefix of all C symbols of a network; by default the file's name.")
@click.option(
    "--verify", type=click.IntRange(0), default=0, metavar="N",
    help="Compare every tensor of N seeded inputs with the profile's reference.",
)  # fmt: skip
@click.option("--measure", is_flag=True, help="Count instructions and bytes on the emulated core of the target's kind.")
@click.option("--optimise", type=click.Choice(OPTIMISE), default="O3", show_default=True, help="GCC's level there.")
@click.option("--network-only", is_flag=True, help="Leave out the signal chain and the head that the model carries.")
@click.option(
    "--whole-window", is_flag=True, help="Compute whole windows with a ring student, too, and keep no tokens."
)
@click.option("--head", help="Which of the model's heads decides: linear, poses, regression.")
@click.option(
    "--sample-bits",
    type=click.Choice(["16", "32"]),
    help="Of the converter's samples; 16 unless said.",
)
@click.option("--unit-per-count", type=float, metavar="X", help="What one count is in the chain's unit, such as volts.")
@click.option("--address", metavar="ADDRESS", help="Where the model lies in flash, to update it without the firmware.")
@click.option("--tflm", is_flag=True, help="Also write model array, op resolver and example for TensorFlow Lite Micro.")
@click.option("--package-version", default="1.0.0", show_default=True, help="Version in the package's manifests.")
@common_options
def command(
    model: Path,
    target: str,
    out: Path,
    profile: Profile,
    name: str | None,
    verify: int,
    measure: bool,
    optimise: str,
    network_only: bool,
    whole_window: bool,
    head: str | None,
    sample_bits: str | None,
    unit_per_count: float | None,
    address: str | None,
    tflm: bool,
    package_version: str,
    common: Common,
) -> None:
    """Write the int8 .tflite MODEL as a C library for a target."""
    wanted = Wanted(
        profile, name, package_version, network_only, head, int(sample_bits) if sample_bits else None, unit_per_count, address_of(address), tflm,
        optimise, whole_window,
    )  # fmt: skip
    report = bridge(
        model, target, out,
        wanted=wanted, verify=verify, measure=measure, force=common.force, seed=common.seed, progress=common.progress,
    )  # fmt: skip
    show(report, common)
    if report.missed:
        raise GateMissed(report.missed)
