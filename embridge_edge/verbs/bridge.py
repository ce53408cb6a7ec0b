"""`bridge`: an int8 `.tflite` becomes a C library, checked against its reference and counted on an emulated core."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.artifacts import folder_written_by_rename, write_json
from embridge_edge.errors import EdgeError, GateMissed
from embridge_edge.progress import SILENT, Progress
from embridge_edge.verbs.options import Common, common_options, refuse_existing, show
from embridge_edge.verbs.workspace import refuse_around

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embridge_edge.firmware_bridge.device import Device
    from embridge_edge.firmware_bridge.emulated import Measured
    from embridge_edge.firmware_bridge.graph import Graph
    from embridge_edge.firmware_bridge.program import Layout, Profile, Program
    from embridge_edge.firmware_bridge.sizing import SizeReport
    from embridge_edge.firmware_bridge.verifying import Verification
    from embridge_edge.hardware.boards import Board
    from embridge_edge.hardware.target import Target

OPTIMISE = ("O3", "O2", "Os")
WRITTEN = (
    "CMakeLists.txt", "LICENSE", "README.md", "bridge.json", "cmake", "examples", "idf_component.yml", "library.json",
    "library.properties", "src", "tflm", "zephyr", "*.pdsc", "*.pack", "*_model.bin",
)  # fmt: skip
"""What the verb writes into --out."""

LONGEST_NAME = 40
_C_NAMES = """
assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic
stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype int8 int16 int32 int64
uint8 uint16 uint32 uint64 intptr uintptr intmax uintmax size ssize ptrdiff max_align
"""
RESERVED = frozenset(_C_NAMES.split())
"""Names that C itself has as NAME.h or NAME_t: a library of that name would hide them from its own sources."""
PAIRED_CORES = ("cortex-m4", "cortex-m7", "cortex-m33")
EXAMPLE = "examples/host/main.c"
"""Of the package: runs the self-test; its exit status is 0 where the result is the reference's."""


@dataclass(frozen=True)
class Wanted:
    """What the command line says of the library, beside model and target.

    Attributes:
        profile: whose rounding is followed.
        name: prefix of all symbols; None for the file's name.
        version: of the package.
        network_only: leave out the signal chain that the model carries.
        head: kind of the head that decides; None for the model's first.
        sample_bits: of the integers that the converter gives; None for 16.
        unit_per_count: what one of them is in the chain's unit.
        address: where the model's section is to lie in flash; None for the linker's choice.
        tflm: also write what TensorFlow Lite Micro needs.
        optimise: the compiler's level where instructions are counted.
    """

    profile: Profile = "litert-ref"
    name: str | None = None
    version: str = "1.0.0"
    network_only: bool = False
    head: str | None = None
    sample_bits: int | None = None
    unit_per_count: float | None = None
    address: int | None = None
    tflm: bool = False
    optimise: str = "O3"


@dataclass(frozen=True)
class BridgeReport:
    """The library that was written, and what was found out about it.

    Attributes:
        model: the `.tflite` file.
        target: what it was made for.
        folder: where it lies.
        program: the plan.
        verification: None where nothing was compared.
        selftests: for each place where the package's self-test ran, whether it passed.
        measured: None where nothing was counted.
        sizes: None where nothing was compiled for the target's core.
        const_bytes: parameters, weights and tables.
        files: what was written, below `folder`.
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

    @property
    def mismatches(self) -> int:
        """Inputs for which a tensor differs, and self-tests that failed."""
        found = len(self.verification.mismatches) if self.verification else 0
        return found + sum(not passed for passed in self.selftests.values())

    def text(self) -> str:
        program = self.program
        lines = [
            f"{self.model.name} for {self.target.name}, profile {program.profile}: {len(program.steps)} calls, {self.folder}",
            f"  network: RAM {program.arena_bytes + program.state_bytes:,} bytes ({program.live_bytes:,} would be alive at once "
            f"without computing in place), tables {self.const_bytes:,} bytes",
        ]
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
        network_ram = self.program.arena_bytes + self.program.state_bytes
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
            "fused_tensors": [self.program.tensor(index).name for index in self.program.fused],
            "left_out_tensors": [self.program.tensor(index).name for index in self.program.left_out],
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
            "ram_bytes": self.sizes.arena_bytes + self.sizes.state_bytes if self.sizes else network_ram,
            "network_ram_bytes": network_ram,
            "live_activation_bytes": self.program.live_bytes,
            "stack_bytes": self.sizes.stack_bytes if self.sizes else None,
            "sizes": self.sizes.to_json() if self.sizes else None,
            "files": list(self.files),
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
    from embridge_edge.export import metadata
    from embridge_edge.export.flatbuffer import repack_inline
    from embridge_edge.firmware_bridge import device as devices
    from embridge_edge.firmware_bridge.graph import read_graph
    from embridge_edge.firmware_bridge.passes import make_program
    from embridge_edge.firmware_bridge.section import constant_bytes
    from embridge_edge.hardware.target import find_target

    wanted = wanted or Wanted()
    refuse_existing(out, force, WRITTEN)
    refuse_around(out, model)
    found = find_target(target)
    board = _board_of(found) if measure else None
    content = _read(model)
    digest, graph = sha256(content).digest(), read_graph(content)
    if graph.weights_at_offsets:  # where TFLM would read nothing
        content = repack_inline(content)
        graph = read_graph(content)
    about = None if wanted.network_only else metadata.read(content)
    with_chain = about is not None and "chain" in about and about.get("heads")
    _refuse_useless(wanted, bool(with_chain))
    name = devices.NETWORK_NAME if with_chain else symbol_name(wanted.name, model)
    program = make_program(graph, name, wanted.profile, layout_for(found))
    device = _device(about or {}, program, wanted) if with_chain else None
    verification = _verified(program, content, found, verify, seed, wanted, progress) if verify else None
    measured = _measured(program, board, seed, wanted) if board is not None else None
    sizes = _sizes(program, measured, found) if measured is not None else None
    files = _package(model, program, digest, content, device, found, wanted, sizes)
    if device is not None and sizes is not None and board is not None:
        sizes = _with_chain(sizes, files, board, wanted)
        files = _package(model, program, digest, content, device, found, wanted, sizes)
    if wanted.tflm:
        files |= _tflm_files(program.name, content, graph)
    selftests = _selftests(files, found, wanted, progress) if verify else {}
    report = BridgeReport(
        model=model,
        target=found,
        folder=out,
        program=program,
        verification=verification,
        selftests=selftests,
        measured=measured,
        sizes=sizes,
        const_bytes=sum(constant_bytes(program).values()),
        files=tuple(files),
    )
    with folder_written_by_rename(out) as temporary:
        for path, written in files.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_bytes(written.encode("utf-8") if isinstance(written, str) else written)
        write_json(temporary / "bridge.json", report.to_json())
    return report


def _refuse_useless(wanted: Wanted, with_chain: bool) -> None:
    """Refuse what would change nothing.

    Raises:
        EdgeError: an option of the chain for a network alone, or the other way round.
    """
    if with_chain and wanted.name is not None:
        raise EdgeError("The library of a signal chain is always called emb; leave out --name, or use --network-only.")
    if with_chain and wanted.address is not None:
        raise EdgeError("--address places a network alone, not its signal chain and head; use --network-only.")
    chain_options = {
        "--head": wanted.head, "--sample-bits": wanted.sample_bits, "--unit-per-count": wanted.unit_per_count,
    }  # fmt: skip
    useless = [option for option, value in chain_options.items() if value is not None]
    if useless and not with_chain:
        raise EdgeError(f"{useless[0]} is for a model with a signal chain and a head; leave it out.")


def _with_chain(sizes: SizeReport, files: dict[str, str | bytes], board: Board, wanted: Wanted) -> SizeReport:
    """The sizes of the network with those of chain, head and context added."""
    from embridge_edge.firmware_bridge import emulated
    from embridge_edge.firmware_bridge.device import NAME

    texts = {path: text for path, text in files.items() if isinstance(text, str)}
    symbols, context = emulated.device_symbols(texts, board, f"-{wanted.optimise}")
    code: dict[str, int] = {}
    for symbol in symbols:
        if symbol.section.startswith(".text"):
            code[symbol.name] = code.get(symbol.name, 0) + symbol.size
    constants = sum(symbol.size for symbol in symbols if symbol.section.startswith(".rodata"))
    return dataclasses.replace(
        sizes,
        name=NAME,
        code=dict(sorted(code.items(), key=lambda item: -item[1])),
        constants={**sizes.constants, "chain and head": constants - sizes.constant_bytes},
        state_bytes=context - sizes.arena_bytes,
    )


def layout_for(target: Target) -> Layout:
    """How weights are stored for a target's core: in pairs where its multiplier takes two 16-bit halves at once."""
    if "mve" in target.flags:
        return "vectors"
    return "pairs" if target.core in PAIRED_CORES and "dsp" in target.flags else "rows"


def symbol_name(name: str | None, model: Path) -> str:
    """The prefix of all symbols: what the user wants, or made of the file's name.

    Raises:
        EdgeError: it is no C identifier of small letters.
    """
    wanted = name or re.sub(r"\W+", "_", model.stem, flags=re.ASCII).strip("_").lower()[:LONGEST_NAME].rstrip("_")
    if name is None and (wanted in RESERVED or not re.match(r"(?!emb(_|$))[a-z]", wanted)):
        wanted = f"model_{wanted}".rstrip("_")[:LONGEST_NAME]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", wanted) or len(wanted) > LONGEST_NAME:
        raise EdgeError(
            f"--name {wanted!r} is no C identifier of at most {LONGEST_NAME} small letters, digits and underscores."
        )
    if wanted == "emb" or wanted.startswith("emb_"):
        raise EdgeError(f"--name {wanted!r} begins like the kernels; choose another --name.")
    if wanted in RESERVED:
        raise EdgeError(f"--name {wanted!r} is a header or a type of C; choose another --name.")
    return wanted


def _read(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise EdgeError(f"Cannot read {model}: {error.strerror}; name a .tflite file.") from None


def _board_of(target: Target) -> Board:
    """The emulated core on which instructions of a target are counted: its own, or one of its kind.

    Raises:
        EdgeError: no such core is emulated.
    """
    from embridge_edge.hardware.boards import BOARDS

    name = (
        target.name if target.kind == "emulated" else f"qemu-{target.core.removeprefix('cortex-').removesuffix('plus')}"
    )
    if name not in BOARDS:
        raise EdgeError(
            f"Instructions are counted on an emulated core, and there is none of {target.name}'s kind; use --target "
            f"{', '.join(BOARDS)}."
        )
    return BOARDS[name]


def _verified(
    program: Program, content: bytes, target: Target, count: int, seed: int, wanted: Wanted, progress: Progress
) -> Verification:
    from embridge_edge.firmware_bridge.verifying import seeded_inputs, verify_board, verify_host

    inputs = list(seeded_inputs(program.graph, count, seed))
    progress.say(f"  comparing {count} inputs on this machine")
    found, traces = verify_host(program, content, inputs)
    if target.kind != "emulated":
        return found
    from embridge_edge.firmware_bridge import emulated

    progress.say(f"  comparing {count} inputs on {target.name}")
    on_board = emulated.traces(program, _board_of(target), inputs, f"-{wanted.optimise}")
    return verify_board(program, found, traces, on_board, target.name)


def _measured(program: Program, board: Board, seed: int, wanted: Wanted) -> Measured:
    from embridge_edge.firmware_bridge import emulated
    from embridge_edge.firmware_bridge.verifying import representative_input

    values: Sequence[Any] = representative_input(program.graph, seed)
    return emulated.measure(program, board, values, f"-{wanted.optimise}")


def _sizes(program: Program, measured: Measured, target: Target) -> SizeReport:
    from embridge_edge.firmware_bridge.sizing import size_report

    flash, ram = target.free_flash_kib, target.free_ram_kib
    return size_report(
        program,
        measured.symbols,
        target=target.name,
        stack_estimated=measured.stack_estimated,
        stack_painted_bytes=measured.stack_painted_bytes,
        flash_budget_bytes=None if flash is None else int(1024 * flash),
        ram_budget_bytes=None if ram is None else int(1024 * ram),
    )


def _device(about: dict[str, Any], program: Program, wanted: Wanted) -> Device:
    from embridge_edge.firmware_bridge.chain import RawSamples
    from embridge_edge.firmware_bridge.device import device_of, stored_chain

    chain, _ = stored_chain(about)
    if chain.unit == "V" and wanted.unit_per_count is None:
        raise EdgeError(
            "The model's signal chain takes volts: say what one count of the converter is with --unit-per-count VOLTS "
            "(0.195e-6 for an RHD2000), or write the network alone with --network-only."
        )
    samples = RawSamples(bits=wanted.sample_bits or 16, unit_per_count=wanted.unit_per_count or 1.0)
    return device_of(about, program.graph, samples, wanted.head)


def _package(
    model: Path,
    program: Program,
    digest: bytes,
    content: bytes,
    device: Device | None,
    target: Target,
    wanted: Wanted,
    sizes: SizeReport | None,
) -> dict[str, str | bytes]:
    """Every file of the package by its path.

    Args:
        digest: SHA-256 of the model's file.
        content: the model as both references read it.
    """
    import numpy as np

    from embridge_edge.firmware_bridge import packages, section
    from embridge_edge.firmware_bridge.device import NAME, device_library, usage
    from embridge_edge.firmware_bridge.emit import library
    from embridge_edge.firmware_bridge.oracle import oracle_for

    address = wanted.address
    files = library(program, digest) if address is None else section.placed_library(program, digest, address)
    files = {path: text for path, text in files.items() if path.endswith((".c", ".h"))}
    oracle = oracle_for(content, program.graph, program.profile)
    output = program.graph.outputs[0]
    if device is None:
        inputs = packages.selftest_inputs(program)
        answers = oracle(inputs)
        files |= packages.selftest_files(program, [answers[index] for index in program.graph.outputs])
    else:
        files = device_library(
            device, files, lambda windows: np.stack([oracle([window[None]])[output].reshape(-1) for window in windows])
        )
    description = packages.describe(
        program,
        version=wanted.version,
        target=target.name,
        about=re.sub(r'[^ -~]|["\\\\@$]', "_", f"{model.name} as C for {target.title}.")[:150],  # manifests quote it
        model_sha256=digest,
        cpu_flags=" ".join(_cpu_flags(target)),
        sizes=sizes.text() if sizes else "",
        address=address,
        usage=usage(device) if device else "",
    )
    if device is not None:
        context = sizes.arena_bytes + sizes.state_bytes if sizes else 0
        description = dataclasses.replace(description, name=NAME, context_bytes=context, ports=())
    package: dict[str, str | bytes] = dict(packages.package(files, description))
    if address is not None:
        package[f"{program.name}_model.bin"] = section.image(program, digest, address)
    return package


def _tflm_files(name: str, content: bytes, graph: Graph) -> dict[str, str]:
    """What TensorFlow Lite Micro needs for the model: all of its ops, those that the library does with others included."""
    from embridge_edge.export.running import tflm_arena_bytes
    from embridge_edge.firmware_bridge import packages

    made = packages.tflm_files(graph, content, name, tflm_arena_bytes(content))
    return {f"tflm/{path}": text for path, text in made.items()}


def _cpu_flags(target: Target) -> tuple[str, ...]:
    from embridge_edge.hardware.boards import BOARDS

    near = f"qemu-{target.core.removeprefix('cortex-').removesuffix('plus')}"
    return BOARDS[near].cpu_flags if near in BOARDS else ()


def _selftests(files: dict[str, str | bytes], target: Target, wanted: Wanted, progress: Progress) -> dict[str, bool]:
    """Whether the package's own self-test passes, on this machine and on an emulated target."""
    from embridge_edge.firmware_bridge.host_build import run_example

    texts = {path: text for path, text in files.items() if isinstance(text, str)}
    progress.say("  running the package's self-test")
    passed = {"host": run_example(texts, EXAMPLE) == 0}
    if target.kind == "emulated":
        from embridge_edge.firmware_bridge import emulated

        passed[target.name] = emulated.selftest(texts, EXAMPLE, _board_of(target), f"-{wanted.optimise}") == 0
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
        optimise,
    )  # fmt: skip
    report = bridge(
        model, target, out,
        wanted=wanted, verify=verify, measure=measure, force=common.force, seed=common.seed, progress=common.progress,
    )  # fmt: skip
    show(report, common)
    if report.verification is not None and not report.verification.ok:
        first = report.verification.mismatches[0]
        raise GateMissed(
            f"{first.tensor!r} differs on {first.where} for input {first.input}, element {first.at}: "
            f"{first.found:g} instead of {first.expected:g}; report this with the model."
        )
    for place, passed in report.selftests.items():
        if not passed:
            raise GateMissed(f"The package's self-test fails on {place}; report this with the model.")
    if report.sizes is not None and not report.sizes.ok:
        raise GateMissed(
            f"{report.program.name} does not fit {report.target.name}: {' and '.join(report.sizes.missing)}."
        )
