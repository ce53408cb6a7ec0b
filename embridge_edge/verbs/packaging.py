"""From a model's file to the files of its package: the plan, the C library, and what build systems want around it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge.errors import EdgeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.export.ring import Parts
    from embridge_edge.firmware_bridge.device import Device
    from embridge_edge.firmware_bridge.program import Layout, Profile, Program
    from embridge_edge.firmware_bridge.ring import RingProgram
    from embridge_edge.firmware_bridge.sizing import SizeReport
    from embridge_edge.hardware.target import Target

EXAMPLE = "examples/host/main.c"
"""Of the package: runs the self-test; its exit status is 0 where the result is the reference's."""
LONGEST_NAME = 40
_C_NAMES = """
assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic
stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype int8 int16 int32 int64
uint8 uint16 uint32 uint64 intptr uintptr intmax uintmax size ssize ptrdiff max_align
"""
RESERVED = frozenset(_C_NAMES.split())
"""Names that C itself has as NAME.h or NAME_t: a library of that name would hide them from its own sources."""


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
        whole_window: compute the whole window for each decision, with a ring student, too.
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
    whole_window: bool = False


@dataclass(frozen=True)
class RingPlan:
    """The form of a ring student in which each hop costs one token.

    Attributes:
        parts: the two models that the whole was cut into. program: their plans.
    """

    parts: Parts
    program: RingProgram


@dataclass(frozen=True)
class Plan:
    """A model that is to become a package.

    Attributes:
        model: the `.tflite` file.
        file: its bytes.
        digest: SHA-256 of them.
        content: the model as both references read it, its weights inside the flatbuffer.
        target: what it is made for.
        wanted: what was said about the library.
        program: the network, for a whole input.
        device: signal chain and head around it; None for a network alone.
        ring: what is written in the network's place for a ring student with its signal chain; None for any other.
    """

    model: Path
    file: bytes
    digest: bytes
    content: bytes
    target: Target
    wanted: Wanted
    program: Program
    device: Device | None
    ring: RingPlan | None = None

    @property
    def compiled(self) -> tuple[tuple[Program, bytes], ...]:
        """The plans that are written as C, each with its model."""
        if self.ring is None:
            return ((self.program, self.content),)
        parts, ring = self.ring.parts, self.ring.program
        return (ring.token, parts.token), (ring.reader, parts.reader)

    @property
    def for_phone(self) -> bool:
        """Whether the package is an Android library as well."""
        return self.target.kind == "phone" and self.device is not None


def planned(model: Path, target: Target, wanted: Wanted) -> Plan:
    """Read a model and lay out its network for a target.

    Raises:
        EdgeError: it cannot be read or compiled, or something is wanted that does not go with it.
    """
    from embridge_edge.export import metadata
    from embridge_edge.export.flatbuffer import repack_inline
    from embridge_edge.export.ring import is_ring
    from embridge_edge.firmware_bridge.device import NETWORK_NAME
    from embridge_edge.firmware_bridge.graph import read_graph
    from embridge_edge.firmware_bridge.packing import layout_for
    from embridge_edge.firmware_bridge.passes import make_program

    file = content = _read(model)
    digest, graph = sha256(content).digest(), read_graph(content, str(model))
    if graph.weights_at_offsets:  # where TFLM would read nothing
        content = repack_inline(content)
        graph = read_graph(content)
    about = {} if wanted.network_only else metadata.read(content) or {}
    with_chain = bool("chain" in about and about.get("heads"))
    if target.kind == "npu":
        raise EdgeError(
            f"{target.name} runs what Vela compiles, and no C; say what it costs there with profile --target {target.name}."
        )
    parts = _parts(content, about, target, wanted) if with_chain else None
    _refuse_useless(wanted, with_chain, ring=with_chain and is_ring(about))
    name = NETWORK_NAME if with_chain else symbol_name(wanted.name, model)
    program = make_program(graph, name, wanted.profile, layout_for(target))
    frames = 0 if parts is None else parts.frames
    device = _device(about, program, wanted, frames, phone=target.kind == "phone") if with_chain else None
    ring = None if parts is None else RingPlan(parts, _ring_program(parts, wanted, layout_for(target)))
    return Plan(model, file, digest, content, target, wanted, program, device, ring)


def _parts(content: bytes, about: dict[str, Any], target: Target, wanted: Wanted) -> Parts | None:
    """A ring student's parts, where its tokens are to be kept: a phone's LiteRT computes whole windows."""
    from embridge_edge.export.ring import is_ring, parts_of

    keeps = is_ring(about) and target.kind != "phone" and not wanted.whole_window
    return parts_of(content) if keeps else None


def _ring_program(parts: Parts, wanted: Wanted, layout: Layout) -> RingProgram:
    from embridge_edge.firmware_bridge.graph import read_graph
    from embridge_edge.firmware_bridge.passes import make_program
    from embridge_edge.firmware_bridge.ring import READER_NAME, TOKEN_NAME, RingProgram

    token, reader = (
        make_program(read_graph(part), name, wanted.profile, layout)
        for part, name in ((parts.token, TOKEN_NAME), (parts.reader, READER_NAME))
    )
    return RingProgram(token, reader)


def sources(plan: Plan) -> dict[str, str]:
    """The C library with its self-test, whose results are the reference's: `include/*.h` and `src/*.[ch]`."""
    from embridge_edge.firmware_bridge import packages, section
    from embridge_edge.firmware_bridge.device import device_library
    from embridge_edge.firmware_bridge.emit import library
    from embridge_edge.firmware_bridge.oracle import oracle_for
    from embridge_edge.firmware_bridge.ring import ring_library

    program, digest, address = plan.program, plan.digest, plan.wanted.address
    if plan.ring is not None:
        both = library(plan.ring.program.token, digest) | library(plan.ring.program.reader, digest)
        written = ring_library(both, plan.ring.program, program.name)
    else:
        written = library(program, digest) if address is None else section.placed_library(program, digest, address)
    network = {path: text for path, text in written.items() if path.endswith((".c", ".h"))}
    oracle = oracle_for(plan.content, program.graph, program.profile)
    if plan.device is None:
        answers = oracle(packages.selftest_inputs(program))
        return network | packages.selftest_files(program, [answers[index] for index in program.graph.outputs])

    def run(windows: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        import numpy as np

        (output,) = program.graph.outputs
        return np.stack([oracle([window[None]])[output].reshape(-1) for window in windows])

    halves = packages.halves() if plan.for_phone else {}
    return device_library(plan.device, network, run) | halves


def dressed(plan: Plan, library: dict[str, str], sizes: SizeReport | None) -> dict[str, str | bytes]:
    """Every file of the package by its path.

    Args:
        library: what `sources` made of the plan.
        sizes: what its README says of the library's size; None where nothing was compiled.

    Raises:
        EdgeError: a text that some package format does not take.
    """
    from embridge_edge.firmware_bridge import packages, section
    from embridge_edge.firmware_bridge.device import NAME, usage
    from embridge_edge.hardware.boards import board_of_core

    program, target, wanted, device = plan.program, plan.target, plan.wanted, plan.device
    board = board_of_core(target.core)
    description = packages.describe(
        program,
        version=wanted.version,
        target=target.name,
        about=_quotable(f"{plan.model.name} as C for {target.title}.")[:150],
        model_sha256=plan.digest,
        cpu_flags=" ".join(board.cpu_flags) if board else "",
        sizes=sizes.text() if sizes else "",
        address=wanted.address,
        usage=usage(device) if device else "",
    )
    if device is not None:
        context = sizes.arena_bytes + sizes.state_bytes if sizes else 0
        description = dataclasses.replace(description, name=NAME, context_bytes=context, ports=(), phone=plan.for_phone)
    package: dict[str, str | bytes] = dict(packages.package(library, description))
    if device is not None and plan.for_phone:
        package |= packages.android_files(device, plan.file, _quotable(plan.model.name), program.profile)
    if wanted.address is not None:
        package[f"{program.name}_model.bin"] = section.image(program, plan.digest, wanted.address)
    if wanted.tflm:
        package |= _tflm_files(plan)
    return package


def _quotable(text: str) -> str:
    """What manifests and documents may hold between quotes of whatever kind."""
    return re.sub(r'[^ -~]|["\\@$]', "_", text)


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


def _refuse_useless(wanted: Wanted, with_chain: bool, *, ring: bool) -> None:
    """Refuse what would change nothing.

    Raises:
        EdgeError: an option of the chain for a network alone, or the other way round.
    """
    if with_chain and wanted.name is not None:
        raise EdgeError("The library of a signal chain is always called emb; leave out --name, or use --network-only.")
    if with_chain and wanted.address is not None:
        raise EdgeError("--address places a network alone, not its signal chain and head; use --network-only.")
    if wanted.whole_window and not ring:
        raise EdgeError("--whole-window is for a ring student with its signal chain; leave it out.")
    chain_options = {
        "--head": wanted.head, "--sample-bits": wanted.sample_bits, "--unit-per-count": wanted.unit_per_count,
    }  # fmt: skip
    useless = [option for option, value in chain_options.items() if value is not None]
    if useless and not with_chain:
        raise EdgeError(f"{useless[0]} is for a model with a signal chain and a head; leave it out.")


def _device(about: dict[str, Any], program: Program, wanted: Wanted, tokens: int, *, phone: bool) -> Device:
    from embridge_edge.firmware_bridge.chain import RawSamples
    from embridge_edge.firmware_bridge.device import device_of, stored_chain

    chain, _ = stored_chain(about)
    if chain.unit == "V" and wanted.unit_per_count is None:
        raise EdgeError(
            "The model's signal chain takes volts: say what one count of the converter is with --unit-per-count VOLTS "
            "(0.195e-6 for an RHD2000), or write the network alone with --network-only."
        )
    samples = RawSamples(bits=wanted.sample_bits or 16, unit_per_count=wanted.unit_per_count or 1.0, patient=phone)
    return device_of(about, program.graph, samples, wanted.head, tokens)


def _tflm_files(plan: Plan) -> dict[str, str]:
    """What TensorFlow Lite Micro needs for the model: all of its ops, those that the library does with others included."""
    from embridge_edge.export.running import tflm_arena_bytes
    from embridge_edge.firmware_bridge import packages
    from embridge_edge.firmware_bridge.graph import read_graph

    graph, content = read_graph(plan.content), plan.content
    made = packages.tflm_files(graph, content, plan.program.name, tflm_arena_bytes(content))
    return {f"tflm/{path}": text for path, text in made.items()}
