"""A training that was interrupted and goes on ends where one that was not does, bit for bit."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from embridge_edge.errors import EdgeError
from embridge_edge.learning import loop
from embridge_edge.learning.loop import Saved, Schedule, fit, key_of

STEPS = 12
SCHEDULE = Schedule(STEPS, 1e-2, 0.05)


class Network(nn.Module):
    """Dropout, batch statistics, and a part that no loss reaches: what the teacher and the student have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
        self.unused = nn.Linear(3, 3)
        self.late = nn.Parameter(torch.zeros(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def loss_of(network: Network) -> Callable[[int], Tensor]:
    def loss(step: int) -> Tensor:
        x = torch.randn(16, 3)
        out = network.body(x) + (network.late if step >= 4 else 0)  # a parameter whose first gradient comes later
        return (out - x[:, :2]).square().mean()

    return loss


def train(saved: Saved | None = None, stop_at: int | None = None, seed: int = 1) -> tuple[Network, list[float]]:
    network = Network()
    plain = loss_of(network)

    def loss(step: int) -> Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        return plain(step)

    return network, fit(network, loss, SCHEDULE, seed=seed, label="test", saved=saved)


def assert_equal(one: nn.Module, two: nn.Module) -> None:
    for (name, mine), (_, its) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert torch.equal(mine, its), name


@given(stops=st.lists(st.integers(0, STEPS - 1), min_size=1, max_size=3), every=st.sampled_from([-1.0, 1e9]))
@settings(max_examples=20, deadline=None)
def test_interrupted_training_that_goes_on_equals_an_uninterrupted_one(stops: list[int], every: float) -> None:
    whole, losses = train()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY_S", every)
        saved = Saved(Path(folder) / "state.safetensors", "key")
        for stop in sorted(stops):
            try:
                train(saved, stop_at=stop)
            except KeyboardInterrupt:
                pass
            else:
                raise AssertionError("was not interrupted")
        torch.manual_seed(12345)  # what ran before has no say
        again, rest = train(saved)
    assert_equal(again, whole)
    assert rest == losses[STEPS - len(rest) :]
    assert len(rest) == (STEPS - max(stops) if every < 0 else STEPS)


@pytest.mark.parametrize("saves", [True, False])
def test_ctrl_c_waits_for_the_step_and_keeps_it(tmp_path: Path, saves: bool) -> None:
    network = Network()
    plain = loss_of(network)

    def loss(step: int) -> Tensor:
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return plain(step)

    saved = Saved(tmp_path / "state.safetensors", "key") if saves else None
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(network, loss, SCHEDULE, seed=1, label="test", saved=saved)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    again, rest = train(saved)
    assert len(rest) == (STEPS - 5 if saves else STEPS)
    assert_equal(again, train()[0])


def test_second_ctrl_c_does_not_wait() -> None:
    network = Network()

    def loss(step: int) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one was held back too")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(network, loss, SCHEDULE, seed=1, label="test")
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("damage", ["another key", "truncated", "empty", "text", "folder"])
def test_state_that_is_none_starts_afresh(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    file = tmp_path / "state.safetensors"
    train(Saved(file, "key"))
    key = "key"
    match damage:
        case "another key":
            key = "other"
        case "truncated":
            file.write_bytes(file.read_bytes()[:200])
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_text("no tensors")
        case "folder":
            file.unlink()
            file.mkdir()
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 1e9)
    again, losses = train(Saved(file, key))
    assert len(losses) == STEPS
    assert_equal(again, train()[0])


def test_finished_training_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    saved = Saved(tmp_path / "state.safetensors", "key")
    done, _ = train(saved)
    again, losses = train(saved)
    assert losses == []
    assert not again.training
    assert_equal(again, done)


def test_another_seed_learns_otherwise_and_what_is_frozen_stays() -> None:
    one, two = train(seed=1)[0], train(seed=2)[0]
    assert not torch.equal(one.body[0].weight, two.body[0].weight)
    fresh = Network()
    assert torch.equal(one.frozen, fresh.frozen)
    assert torch.equal(one.unused.weight, fresh.unused.weight)


def test_loss_that_is_no_number_is_one_line() -> None:
    network = Network()
    with pytest.raises(EdgeError, match="test: the loss is no longer finite at step 0"):
        fit(network, lambda step: loss_of(network)(step) * torch.nan, SCHEDULE, seed=0, label="test")


def test_schedule_warms_up_and_decays_to_next_to_nothing() -> None:
    rates = [Schedule(100, 1.0, 0.0).rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001
    assert Schedule(1, 1.0, 0.0).rate_at(0) == 1.0


def test_key_tells_everything_apart() -> None:
    assert key_of({"a": 1}, "x") == key_of({"a": 1}, "x")
    assert len({key_of(*parts) for parts in (("x", 1), ("x", "1"), ("x", None), ("x",), ("x", [1]), ("x", 1.5))}) == 6
