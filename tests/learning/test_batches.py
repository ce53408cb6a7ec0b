"""Batches are even over gestures and wearers, depend on seed and step alone, and vary only what they may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan, SignalChain, resolve
from embridge_edge.learning.batches import EvenSampler, _rotations, augmented, emg_batch
from embridge_edge.learning.windows import WindowSet
from embridge_edge.learning.world import open_world
from embridge_edge.recipe import TrainPlan
from embridge_edge.recordings.recording import Recording

ALONE = open_world()
STILL = TrainPlan(gain_jitter=0.0, channel_jitter=0.0, rotation=0.0, noise=0.0, channel_drop=0.0)


@pytest.fixture(scope="module")
def lopsided(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> WindowSet:
    """Wearer a rests for long; b makes a fist once and briefly; c has no rest."""
    return cut(
        [
            recording("a", "1", [(0, 6000), (1, 200)]),
            recording("b", "1", [(0, 200), (1, 150)]),
            recording("c", "1", [(-1, 100), (2, 400)]),
        ]
    )


def test_gestures_and_their_wearers_come_evenly(lopsided: WindowSet) -> None:
    drawn = EvenSampler(lopsided, np.arange(len(lopsided)), 0).draw(0, 40_000)
    labels, wearers = lopsided.labels[drawn], lopsided.wearers[drawn]
    kinds = np.unique(lopsided.labels)
    assert kinds.tolist() == [-1, 0, 1, 2]
    for label in kinds:
        assert np.mean(labels == label) == pytest.approx(1 / 4, abs=0.01)
        own = np.unique(lopsided.wearers[lopsided.labels == label])
        for wearer in own:
            assert np.mean(wearers[labels == label] == wearer) == pytest.approx(1 / len(own), abs=0.02)


def test_every_window_of_a_cell_can_be_drawn_and_no_other(lopsided: WindowSet) -> None:
    which = np.flatnonzero(lopsided.labels == 1)[::-1]
    assert set(EvenSampler(lopsided, which, 0).draw(0, 4000).tolist()) == set(which.tolist())


def test_draw_depends_on_seed_and_step_alone(people: WindowSet) -> None:
    which = np.arange(len(people))
    one, two, other = EvenSampler(people, which, 3), EvenSampler(people, which, 3), EvenSampler(people, which, 4)
    one.draw(0, 7)
    np.testing.assert_array_equal(one.draw(5, 64), two.draw(5, 64))
    assert not np.array_equal(one.draw(5, 64), one.draw(6, 64))
    assert not np.array_equal(one.draw(5, 64), other.draw(5, 64))


def test_nothing_to_draw_from_is_one_line(people: WindowSet) -> None:
    with pytest.raises(EdgeError, match="No window to train on"):
        EvenSampler(people, np.zeros(0, np.int64), 0)


@given(step=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_shifted_windows_stay_in_their_segment_and_label(people: WindowSet, step: int) -> None:
    which = np.arange(len(people))
    whole = people.chain.normalised(people.signal)
    x = emg_batch(people, which, step, 0, shifted=True, world=ALONE).numpy()
    moved = 0
    for window, start in enumerate(people.starts):
        shifts = [
            shift
            for shift in range(min(int(people.slack[window]), people.chain.hop - 1) + 1)
            if np.array_equal(whole[start + shift : start + shift + people.chain.window], x[window])
        ]
        assert len(shifts) == 1
        moved += shifts[0] > 0
    assert moved > len(which) / 4
    still = emg_batch(people, which, step, 0, shifted=False, world=ALONE).numpy()
    np.testing.assert_array_equal(still, people.inputs(which))


def chain(channels: int, *features: str) -> SignalChain:
    made = resolve(ChainPlan(window_ms=200.0, hop_ms=50.0, bandpass_hz=None, features=features), 200.0, channels, "myo")
    columns = channels * max(1, len(features))
    return replace(made, offset=(0.0,) * columns, gain=tuple(0.5 + 0.01 * column for column in range(columns)))


RAW, THREE = chain(3), chain(3, "LOGRMS", "ZC", "LOGVAR")


@pytest.mark.parametrize("own", [RAW, THREE])
def test_augmentation_that_is_off_changes_nothing(own: SignalChain) -> None:
    x = torch.randn(5, 7, own.columns)
    torch.testing.assert_close(augmented(x, STILL, own, ALONE), x, rtol=0, atol=0)


def test_gains_multiply_raw_samples_by_one_number_per_window_and_channel() -> None:
    plan = replace(STILL, gain_jitter=0.5, channel_jitter=0.1)
    x = torch.randn(64, 20, 3)
    ratio = (augmented(x, plan, RAW, ALONE) / x).log()
    assert ratio.std(dim=1).max() < 1e-3
    assert 0.3 < ratio[:, 0].mean(dim=1).std() < 0.7


def test_companded_samples_are_varied_as_the_samples_were() -> None:
    plan = replace(STILL, gain_jitter=0.5, channel_jitter=0.1, rotation=0.4, noise=0.1)
    x = torch.randn(16, 20, 3)
    x[3, 4] = 0.0
    torch.manual_seed(2)
    plain = augmented(x, plan, RAW, ALONE)
    torch.manual_seed(2)
    rooted = augmented(x.sign() * x.abs().sqrt(), plan, replace(RAW, compand="root"), ALONE)
    torch.testing.assert_close(rooted * rooted.abs(), plain, rtol=1e-4, atol=1e-5)
    quiet = augmented(torch.zeros(2, 20, 3), replace(STILL, gain_jitter=0.5), replace(RAW, compand="root"), ALONE)
    assert torch.equal(quiet, torch.zeros(2, 20, 3))


def test_gains_shift_logarithmic_features_as_they_would_have_shifted_the_samples_features() -> None:
    """The features of louder samples are those that augmentation makes of the quiet ones', whatever the normalisation."""
    torch.manual_seed(3)
    plan = replace(STILL, channel_jitter=0.4)
    signal = np.random.default_rng(0).standard_normal((400, 3)).astype(np.float32)
    starts = np.arange(0, 300, 50)
    torch.manual_seed(1)
    got = augmented(torch.from_numpy(THREE.inputs(signal, starts)), plan, THREE, ALONE)
    torch.manual_seed(1)
    gains = (0.0 * torch.randn(len(starts), 1, 1) + 0.4 * torch.randn(len(starts), 1, 3)).exp().numpy()
    for row, start in enumerate(starts):
        louder = THREE.inputs(signal[start : start + 100] * gains[row], np.zeros(1, np.int64))[0]
        kept = [column for column in range(9) if column % 3 != 1]  # zero crossings know no gain
        np.testing.assert_allclose(got[row].numpy()[:, kept], louder[:, kept], atol=1e-4)


def test_dropped_channels_are_silent_for_the_whole_window() -> None:
    plan = replace(STILL, channel_drop=0.25)
    x = torch.rand(400, 6, 8) + 1
    silent = augmented(x, plan, chain(8), ALONE) == 0
    assert torch.equal(silent.all(dim=1), silent.any(dim=1))
    assert silent.float().mean().item() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("channels", [3, 8, 16])
def test_rotation_by_whole_electrodes_is_a_roll(channels: int) -> None:
    x = torch.randn(5, 11, channels)
    shifts = torch.tensor([0.0, 1.0, -1.0, 3.0, float(channels)])
    turned = torch.bmm(x, _rotations(shifts, channels))
    for row, shift in enumerate(shifts.long().tolist()):
        torch.testing.assert_close(turned[row], x[row].roll(shift, dims=-1), atol=1e-5, rtol=1e-4)


def test_rotation_by_half_an_electrode_moves_a_smooth_ring_by_half_and_there_and_back_is_nothing() -> None:
    angle = 2 * torch.pi * torch.arange(8) / 8
    there = torch.cos(angle)[None, None] @ _rotations(torch.tensor([0.5]), 8)[0]
    torch.testing.assert_close(there[0, 0], torch.cos(angle - torch.pi / 8), atol=1e-5, rtol=1e-4)
    back = there @ _rotations(torch.tensor([-0.5]), 8)[0]
    torch.testing.assert_close(back[0, 0], torch.cos(angle), atol=1e-5, rtol=1e-4)


def test_features_turn_with_their_electrodes() -> None:
    own = chain(8, "LOGRMS", "ZC")
    x = torch.randn(4, 5, 16)
    plan = replace(STILL, rotation=0.5)
    torch.manual_seed(0)
    got = augmented(x, plan, own, ALONE).reshape(4, 5, 8, 2)
    for feature in range(2):
        torch.manual_seed(0)
        alone = augmented(x.reshape(4, 5, 8, 2)[..., feature], plan, chain(8), ALONE)
        torch.testing.assert_close(got[..., feature], alone)
