"""One training on one processor or several: who computes which part of a batch, and how the parts come together.

Every process draws the whole batch from (seed, step), computes its own part, and takes the losses over what all have gathered. So
the loss, its gradient and the negatives of a contrastive term are those of the whole batch however many processes share it.
Processes are started by `torchrun` or Slurm and joined by Lightning Fabric.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embridge_edge.errors import EdgeError

Precision = Literal["32", "bf16"]


@dataclass(frozen=True)
class World:
    """This process among those of one training.

    Attributes:
        fabric: Lightning Fabric, launched.
    """

    fabric: Any

    @property
    def rank(self) -> int:
        return int(self.fabric.global_rank)

    @property
    def size(self) -> int:
        return int(self.fabric.world_size)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        where: torch.device = self.fabric.device
        return where

    def part(self, drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """This process's share of a batch's windows.

        Raises:
            EdgeError: the batch does not divide among the processes.
        """
        if len(drawn) % self.size:
            raise EdgeError(
                f"A batch of {len(drawn)} does not divide among {self.size} processes; change the recipe's batch."
            )
        each = len(drawn) // self.size
        return drawn[self.rank * each : (self.rank + 1) * each]

    def to(self, tensor: Tensor) -> Tensor:
        """On this process's processor."""
        moved: Tensor = self.fabric.to_device(tensor)
        return moved

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers for this process's part, `shape`; together those of one process with the whole batch."""
        return self._own(torch.rand(self.size * shape[0], *shape[1:]))

    def randn(self, *shape: int) -> Tensor:
        """Normal numbers for this process's part, `shape`; together those of one process with the whole batch."""
        return self._own(torch.randn(self.size * shape[0], *shape[1:]))

    def gather(self, part: Tensor) -> Tensor:
        """`[batch / size, …]` of every process to `[batch, …]`, with its gradient."""
        if self.size == 1:
            return part
        if part.dtype == torch.bool:
            return self.gather(part.to(torch.uint8)).bool()
        whole: Tensor = self.fabric.all_gather(part, sync_grads=part.requires_grad)
        return whole.flatten(0, 1)

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            self.fabric.barrier()

    def _own(self, whole: Tensor) -> Tensor:
        each = len(whole) // self.size
        return self.to(whole[self.rank * each : (self.rank + 1) * each])


def open_world(precision: Precision = "32") -> World:
    """Join the processes that `torchrun` or Slurm started; a process that nobody started is alone.

    A GPU is used where torch finds one.

    Args:
        precision: "bf16" holds on GPUs; a CPU computes in 32 bits.
    """
    # What torch's collectives with a gradient will be replaced by is not public yet.
    warnings.filterwarnings("ignore", "torch.distributed.nn.functional", FutureWarning)
    warnings.filterwarnings("ignore", ".*torch.distributed.nn.functional.all_gather is deprecated")
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    on_gpu = torch.cuda.is_available()
    fabric = Fabric(
        accelerator="cuda" if on_gpu else "cpu",
        devices=local,
        num_nodes=max(1, size // local),
        # The decoders of the pre-training take no part in the alignment.
        strategy=DDPStrategy(find_unused_parameters=True) if size > 1 else "auto",
        precision="bf16-mixed" if precision == "bf16" and on_gpu else "32-true",
    )
    fabric.launch()
    return World(fabric)
