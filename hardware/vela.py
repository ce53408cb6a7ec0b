"""What Arm's compiler for Ethos-U makes of an int8 model, and what its model of the accelerator says of cycles and memory.

Vela ends well where nothing was accelerated, and its default system is another for each accelerator: so all three of accelerator, system and
memory mode are named here, and ops that stay on the processor are counted.
"""

from __future__ import annotations

import csv
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embridge_edge.errors import EdgeError, one_line

ON_CPU = re.compile(r"^Warning \(.*?\) operator: (\w+), ofm: '(.*?)'", re.MULTILINE)
COUNTED = re.compile(r"^(CPU|NPU) operators = (\d+)", re.MULTILINE)
KIB = 1024


@dataclass(frozen=True)
class Npu:
    """An accelerator as Vela names it: `--accelerator-config`, `--system-config`, `--memory-mode`."""

    accelerator: str
    system_config: str
    memory_mode: str


@dataclass(frozen=True)
class NpuEstimate:
    """What Vela says of one inference. An estimate of a model of the accelerator: nothing was run.

    Attributes:
        npu_ops, cpu_ops: ops of the compiled graph. on_cpu: those that stay on the processor, as "OP tensor", as far as Vela names them.
        cycles: of the accelerator's clock, memory waited for. npu_cycles: of its multipliers and shifters alone.
        sram_bytes: peak of the fast memory. off_chip_bytes: flash or DRAM that is used, weights included.
        clock_mhz: of the named system. vela: its version.
    """

    npu: Npu
    npu_ops: int
    cpu_ops: int
    on_cpu: tuple[str, ...]
    cycles: int
    npu_cycles: int
    sram_bytes: int
    off_chip_bytes: int
    clock_mhz: float
    vela: str

    @property
    def ms(self) -> float:
        """Of an inference, by Vela's estimate."""
        return self.cycles / self.clock_mhz / 1000

    def text(self) -> str:
        ops = f"{self.npu_ops} ops on the accelerator, {self.cpu_ops} on the processor"
        named = f" ({', '.join(self.on_cpu)})" if self.on_cpu else ""
        return (
            f"{ops}{named}; {self.cycles:,} cycles ({self.npu_cycles:,} without waiting for memory), {self.ms:.3f} ms at "
            f"{self.clock_mhz:g} MHz, {self.sram_bytes / KIB:.1f} KiB of SRAM, {self.off_chip_bytes / KIB:.1f} KiB off chip: Vela {self.vela}'s "
            f"estimate for {self.npu.system_config}, {self.npu.memory_mode}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "on_cpu": list(self.on_cpu), "ms": self.ms}


def estimate(model: bytes, npu: Npu) -> NpuEstimate:
    """Compile a `.tflite` with Vela, and read what it says.

    Raises:
        EdgeError: Vela is missing, or cannot compile the model.
    """
    if find_spec("ethosu") is None:
        raise EdgeError(
            "Models for Ethos-U are compiled by Vela (ethos-u-vela is missing); install embridge-edge[npu]."
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "model.tflite").write_bytes(model)
        options = {
            "--accelerator-config": npu.accelerator,
            "--system-config": npu.system_config,
            "--memory-mode": npu.memory_mode,
            "--output-dir": "made",
        }
        command = [sys.executable, "-P", "-m", "ethosu.vela", "model.tflite"]
        command += [word for option in options.items() for word in option]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        said = done.stdout + done.stderr
        tables = list((folder / "made").glob("*_summary_*.csv"))
        counts = {kind: int(count) for kind, count in COUNTED.findall(said)}
        if done.returncode or len(tables) != 1 or counts.keys() != {"CPU", "NPU"}:
            lines = [line for line in said.splitlines() if line.strip()] or [f"status {done.returncode}"]
            errors = [line for line in lines if "rror" in line]
            raise EdgeError(
                f"Vela cannot compile this model for {npu.accelerator} ({one_line(EdgeError((errors or lines)[-1]))}); give a "
                "full-int8 .tflite, and check --ops for what it runs."
            )
        with tables[0].open(newline="") as stream:
            (row,) = csv.DictReader(stream)
    kib = {name: float(row[f"{name}_memory_used"]) for name in ("sram", "dram", "on_chip_flash", "off_chip_flash")}
    return NpuEstimate(
        npu=npu,
        npu_ops=counts["NPU"],
        cpu_ops=counts["CPU"],
        on_cpu=tuple(dict.fromkeys(f"{op} {tensor}" for op, tensor in ON_CPU.findall(said))),
        cycles=round(float(row["cycles_total"])),
        npu_cycles=round(float(row["cycles_npu"])),
        sram_bytes=round(kib["sram"] * KIB),
        off_chip_bytes=round((kib["dram"] + kib["on_chip_flash"] + kib["off_chip_flash"]) * KIB),
        clock_mhz=float(row["core_clock"]) / 1e6,
        vela=importlib.metadata.version("ethos-u-vela"),
    )
