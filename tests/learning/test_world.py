"""Two processes train as one does: the same batch, the same losses, the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embridge_edge.errors import EdgeError
from embridge_edge.learning.world import World, open_world
from tests.learning import distributed_case

CASE = Path(distributed_case.__file__)


def trained(out: Path, processes: int, accumulate: int = 1) -> dict[str, Any]:
    starter = [sys.executable]
    if processes > 1:
        starter += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*starter, str(CASE), str(out), str(accumulate)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_have_the_loss_curve_of_one_with_the_whole_batch(tmp_path: Path, accumulate: int) -> None:
    one = trained(tmp_path / "one.json", 1, accumulate)
    two = trained(tmp_path / "two.json", 2, accumulate)
    assert (one["processes"], two["processes"]) == (1, 2)
    for stage, curve in one["curves"].items():
        assert curve[-1] != curve[0]
        np.testing.assert_allclose(two["curves"][stage], curve, rtol=2e-4, err_msg=stage)


class _Fabric:
    """Stands for one of two processes, for what needs no other."""

    global_rank, world_size = 1, 2

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


def test_parts_are_the_whole_in_order_and_draws_are_those_of_one_process() -> None:
    second = World(_Fabric())
    assert second.part(np.arange(6)).tolist() == [3, 4, 5]
    torch.manual_seed(0)
    whole = torch.rand(6, 2)
    torch.manual_seed(0)
    assert torch.equal(second.rand(3, 2), whole[3:])
    with pytest.raises(EdgeError, match="A batch of 5 does not divide among 2 processes"):
        second.part(np.arange(5))


def test_process_that_nobody_started_is_alone() -> None:
    world = open_world()
    assert (world.rank, world.size, world.first) == (0, 1, True)
    x = torch.randn(3, 2)
    assert world.gather(x) is x
