"""One training loop: seeded step by step, so that an interrupted run that goes on equals one that was never interrupted."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from embridge_edge.artifacts import sha256_of, written_by_rename
from embridge_edge.errors import EdgeError
from embridge_edge.learning.world import Precision, World, open_world
from embridge_edge.progress import SILENT, Progress

SAVE_EVERY_S = 30.0
WARM_UP_SHARE = 0.1
LARGEST_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW under a linear warm-up and a cosine decay to zero.

    Attributes:
        accumulate: batches whose mean gradient makes one step.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    accumulate: int = 1

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm_up = max(1, round(WARM_UP_SHARE * self.steps))
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.steps - warm_up)
        return self.learning_rate * 0.5 * (1.0 + float(torch.cos(torch.tensor(done * torch.pi))))


@dataclass(frozen=True)
class Saved:
    """Where a training keeps its state, and what it must be the state of: another key starts afresh."""

    file: Path
    key: str


@dataclass(frozen=True)
class Run:
    """One training: what seeds it, what it is called, and where an interrupted one keeps its state.

    Attributes:
        state: folder of the state; None keeps none. key: what the state belongs to besides the training's plan and seed.
        precision: see `world.open_world`.
    """

    seed: int = 0
    name: str = "model"
    state: Path | None = None
    key: str = ""
    progress: Progress = SILENT
    precision: Precision = "32"

    @functools.cached_property
    def world(self) -> World:
        """The processes that share this training."""
        return open_world(self.precision)

    def saved(self, stage: str, *belongs_to: object) -> Saved | None:
        """Where a stage of the training keeps its state, which belongs to all of `belongs_to`."""
        if self.state is None:
            return None
        return Saved(self.state / f"{stage}.safetensors", key_of(self.key, *belongs_to, self.seed))


class _Objective(nn.Module):
    """What is wrapped for several processes: they agree on gradients around one call of `forward`."""

    def __init__(self, network: nn.Module, loss_of: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.loss_of = loss_of

    def forward(self, draw: int) -> Tensor:
        return self.loss_of(draw)


def fit(
    network: nn.Module,
    loss_of: Callable[[int], Tensor],
    schedule: Schedule,
    *,
    seed: int,
    label: str,
    saved: Saved | None = None,
    progress: Progress = SILENT,
    world: World | None = None,
) -> list[float]:
    """Train the parameters of `network` that require a gradient; `loss_of(draw)` draws its own batch from the draw's number.

    Dropout and everything else random in torch is seeded from (seed, draw), so the result depends on neither
    interruptions nor on what ran before. With `saved`, the state is kept on disk and taken up again.

    Args:
        world: the processes that share it; None is this one alone.

    Returns: the loss of each step since the (re)start.

    Raises:
        EdgeError: the loss is no longer finite.
    """
    world = open_world() if world is None else world
    progress = progress if world.first else SILENT
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    plain = [parameter for parameter in parameters if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=schedule.learning_rate,
        betas=(0.9, 0.98),
    )
    fabric = world.fabric
    objective, stepping = fabric.setup(_Objective(network, loss_of), optimizer)
    first = 0 if saved is None else _restore(network, optimizer, parameters, saved)
    losses: list[float] = []
    network.train()
    last_save = time.monotonic()
    with progress.bar(label, schedule.steps, "step") as advance, _interrupt_noted() as interrupted:
        advance(first)
        for step in range(first, schedule.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate_at(step)
            optimizer.zero_grad(set_to_none=True)
            total = 0.0
            for draw in range(step * schedule.accumulate, (step + 1) * schedule.accumulate):
                torch.manual_seed((seed * 1_000_003 + draw) % (2**63 - 1))
                last = draw + 1 == (step + 1) * schedule.accumulate
                with fabric.no_backward_sync(objective, enabled=not last):
                    loss = objective(draw) / schedule.accumulate
                    fabric.backward(loss)
                total += float(loss.detach())
            fabric.clip_gradients(objective, stepping, max_norm=LARGEST_GRADIENT_NORM, error_if_nonfinite=False)
            stepping.step()
            losses.append(total)
            if not math.isfinite(total):
                raise EdgeError(
                    f"{label}: the loss is no longer finite at step {step}; lower the learning rate or inspect the signals."
                )
            advance(1)
            if saved is not None and world.first and (interrupted() or time.monotonic() - last_save > SAVE_EVERY_S):
                _save(network, optimizer, parameters, step + 1, saved)
                last_save = time.monotonic()
            if interrupted():
                raise KeyboardInterrupt
    network.cpu().eval()
    return losses


@contextlib.contextmanager
def _interrupt_noted() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait until a step is whole: yields a function that says whether it came. A second one does not wait."""
    came = False

    def note(number: int, frame: object) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    # Only the main thread may set a handler; and a job in the background, which ignores SIGINT, goes on ignoring it.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)


def key_of(*parts: object) -> str:
    """Identifies what a state belongs to."""
    return sha256_of([json.loads(json.dumps(part, default=str)) for part in parts])


def _save(
    network: nn.Module, optimizer: torch.optim.AdamW, parameters: list[nn.Parameter], step: int, saved: Saved
) -> None:
    from safetensors.torch import save_file

    tensors = {f"network.{name}": tensor.detach().contiguous().clone() for name, tensor in network.state_dict().items()}
    for index, parameter in enumerate(parameters):
        # A parameter that no loss has reached yet, such as the decoder of the masked pre-training, has no state.
        for name, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{index}.{name}"] = tensor.contiguous().clone()
    with written_by_rename(saved.file) as temporary:
        save_file(tensors, temporary, metadata={"key": saved.key, "step": str(step)})


def _restore(network: nn.Module, optimizer: torch.optim.AdamW, parameters: list[nn.Parameter], saved: Saved) -> int:
    """Take up a saved state; returns the step to go on with, 0 where there is none of this key."""
    if not saved.file.is_file():
        return 0
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(saved.file, framework="pt") as stored:
            about = stored.metadata() or {}
            if about.get("key") != saved.key:
                return 0
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
            step = int(about["step"])
    except (SafetensorError, KeyError, ValueError, OSError):
        return 0  # a damaged state is worth no more than none
    states: dict[int, dict[str, Tensor]] = {}
    for place, tensor in tensors.items():
        if place.startswith("optimizer."):
            _, index, name = place.split(".")
            states.setdefault(int(index), {})[name] = tensor
    network.load_state_dict(
        {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    )
    for number, state in states.items():
        optimizer.state[parameters[number]] = state
    return step
