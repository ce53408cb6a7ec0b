"""One set of weights for every band: what must change nothing changes nothing, and what must not be seen is not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embridge_edge.errors import EdgeError
from embridge_edge.model.foundation import POWER_FLOOR, FoundationEncoder, macs, patch_basis, ring
from embridge_edge.model.foundation_shape import FoundationShape
from embridge_edge.recordings.loading import read_recordings

SHAPE = FoundationShape(width=16, blocks=2, heads=2)
RATES = st.sampled_from([54.0, 125.0, 200.0, 250.0, 1000.0, 2000.0])
SEEDS = st.integers(0, 2**16)


def encoder(seed: int = 0, shape: FoundationShape = SHAPE) -> FoundationEncoder:
    torch.manual_seed(seed)
    return FoundationEncoder(shape).eval()


def noise(seed: int, rate_hz: float, channels: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, round(0.4 * rate_hz), channels, generator=torch.Generator().manual_seed(seed))


def tokens(network: FoundationEncoder, x: Tensor, rate_hz: float, **more: Tensor) -> Tensor:
    basis = network.basis(x, rate_hz)
    return network.tokens(basis.spectra(x), basis.reached, **more)


@given(rate_hz=RATES, channels=st.integers(1, 20), seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_any_channel_count_and_rate_run_through_the_same_weights(rate_hz: float, channels: int, seed: int) -> None:
    pooled = encoder()(noise(seed, rate_hz, channels), rate_hz)
    assert pooled.shape == (2, SHAPE.embedding)
    assert torch.isfinite(pooled).all()


@given(rate_hz=RATES, seed=SEEDS, order=st.permutations(range(6)), turn=st.floats(-3.0, 3.0))
@settings(max_examples=15, deadline=None)
def test_channels_permuted_with_their_angles_permute_tokens_and_leave_the_pooled_output(
    rate_hz: float, seed: int, order: list[int], turn: float
) -> None:
    network, x = encoder(), noise(seed, rate_hz, 6)
    angles = ring(6) + turn
    with torch.inference_mode():
        before, after = (
            tokens(network, x, rate_hz, angles=angles),
            tokens(network, x[..., order], rate_hz, angles=angles[order]),
        )
        torch.testing.assert_close(after, before[:, order], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            network(x[..., order], rate_hz, angles[order]), network(x, rate_hz, angles), atol=1e-5, rtol=1e-4
        )


def test_channels_permuted_without_their_angles_are_another_input() -> None:
    network, x = encoder(), noise(1, 200.0, 6)
    order = [1, 0, 2, 3, 4, 5]
    assert not torch.allclose(network(x[..., order], 200.0), network(x, 200.0), atol=1e-3)


def test_whole_turn_is_no_turn_and_half_an_electrode_is_one() -> None:
    network, x = encoder(), noise(2, 200.0, 8)
    torch.testing.assert_close(
        network(x, 200.0, ring(8) + 2.0 * math.pi), network(x, 200.0, ring(8)), atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(network(x, 200.0, ring(8) + 0.5), network(x, 200.0, ring(8)), atol=1e-3)


@given(rate_hz=RATES, seed=SEEDS, padding=st.integers(1, 5), loud=st.floats(0.0, 100.0))
@settings(max_examples=15, deadline=None)
def test_absent_channels_change_nothing(rate_hz: float, seed: int, padding: int, loud: float) -> None:
    network, x = encoder(), noise(seed, rate_hz, 5)
    padded = torch.cat([x, loud * noise(seed + 1, rate_hz, padding)], dim=-1)
    angles = torch.cat([ring(5), torch.zeros(padding)])
    present = torch.arange(5 + padding) < 5
    with torch.inference_mode():
        torch.testing.assert_close(
            network(padded, rate_hz, angles, present), network(x, rate_hz, ring(5)), atol=1e-5, rtol=1e-4
        )
        hidden = torch.rand(2, 5 + padding, 8, generator=torch.Generator().manual_seed(seed)) < 0.5
        hidden[:, :5, 0] = True
        hidden[:, :5, 1] = False
        error, count = network.masked_error(padded, rate_hz, hidden, angles, present)
        alone, of = network.masked_error(x, rate_hz, hidden[:, :5], ring(5))
    assert torch.equal(count, of)
    torch.testing.assert_close(error, alone, atol=1e-3, rtol=1e-4)


@given(seed=SEEDS, rate_hz=RATES)
@settings(max_examples=20, deadline=None)
def test_hidden_content_reaches_no_token(seed: int, rate_hz: float) -> None:
    network, x = encoder(), noise(seed, rate_hz, 4).requires_grad_()
    hidden = torch.rand(2, 4, 8, generator=torch.Generator().manual_seed(seed)) < 0.5
    hidden[:, 3] = True  # a channel hidden whole: its samples are behind nothing that is seen
    out = tokens(network, x, rate_hz, hidden=hidden)
    out.square().sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad[..., 3], torch.zeros_like(x.grad[..., 3]))
    basis = network.basis(x, rate_hz)
    for patch in range(basis.patches):
        owned = basis.samples[patch][basis.mean[patch] > 0]
        for window, channel in zip(*torch.nonzero(hidden[:, :, patch], as_tuple=True), strict=True):
            assert torch.equal(x.grad[window, owned, channel], torch.zeros(len(owned)))
    assert (x.grad.abs().sum(dim=1)[~hidden.all(dim=2)] > 0).all()


def test_loss_counts_hidden_tokens_within_reach_alone() -> None:
    network, x = encoder(), noise(3, 200.0, 4)
    hidden = torch.zeros(2, 4, 8, dtype=torch.bool)
    hidden[0, 1, 2] = hidden[0, 3, 5] = True
    basis = network.basis(x, 200.0)
    for loss in ("mse", "smooth_l1"):
        error, count = network.masked_error(x, 200.0, hidden, loss=loss)
        assert count.tolist() == [2.0 * (1 + 4), 0.0]  # 20, 40, 60 and 80 Hz lie below 0.45 × 200 Hz
        foretold = network.decoder(tokens(network, x, 200.0, hidden=hidden))
        gap = (foretold - basis.spectra(x)).abs()[0, [1, 3], [2, 5]][:, basis.reached > 0]
        by_hand = gap.square() if loss == "mse" else torch.where(gap < 1, 0.5 * gap.square(), gap - 0.5)
        torch.testing.assert_close(error, torch.stack([by_hand.sum(), torch.tensor(0.0)]))


def test_every_parameter_of_the_encoder_learns_from_masked_tokens() -> None:
    network = encoder().train()
    error, count = network.masked_error(noise(4, 2000.0, 8), 2000.0, torch.rand(2, 8, 8) < 0.5)
    (error.sum() / count.sum()).backward()
    untouched = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert untouched == []


@given(
    hz=st.floats(22.0, 78.0),
    phase=st.floats(0.0, 6.28),
    strength=st.floats(0.1, 10.0),
    rates=st.tuples(st.sampled_from([200.0, 250.0]), st.sampled_from([1000.0, 2000.0])),
)
@settings(max_examples=40, deadline=None)
def test_tone_has_the_same_spectrum_at_any_rate_that_reaches_it(
    hz: float, phase: float, strength: float, rates: tuple[float, float]
) -> None:
    found = []
    for rate_hz in rates:
        time = (torch.arange(round(0.4 * rate_hz)) + 0.5) / rate_hz
        x = strength * torch.sin(2.0 * math.pi * hz * time + phase)[None, :, None]
        found.append(patch_basis(rate_hz, x.shape[1], 50.0, 450.0).spectra(x.float())[0, 0])
    slow, quick = found
    # Amplitudes, not their logarithms: what leaks into a bin that the tone is not in is small and differs.
    torch.testing.assert_close(slow[:, :5].exp(), quick[:, :5].exp(), atol=0.12 * strength, rtol=0.05)


def test_tone_on_a_bin_has_its_power_there_and_nowhere_else() -> None:
    time = (torch.arange(800) + 0.5) / 2000.0
    x = (3.0 * torch.sin(2.0 * math.pi * 100.0 * time + 0.7))[None, :, None]
    amplitude = patch_basis(2000.0, 800, 50.0, 450.0).spectra(x)[0, 0].exp()
    expected = torch.full((8, 23), POWER_FLOOR**0.5)
    expected[:, 0] = expected[:, 5] = math.sqrt(4.5 + POWER_FLOOR)
    torch.testing.assert_close(amplitude, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("rate_hz", [125.0, 200.0, 250.0, 2000.0])
def test_patches_share_the_samples_out_by_time(rate_hz: float) -> None:
    basis = patch_basis(rate_hz, round(0.4 * rate_hz), 50.0, 450.0)
    owned = [basis.samples[patch][basis.mean[patch] > 0] for patch in range(8)]
    assert torch.equal(torch.cat(owned), torch.arange(round(0.4 * rate_hz)))
    assert {len(own) for own in owned} <= {math.floor(rate_hz / 20.0), math.ceil(rate_hz / 20.0)}
    torch.testing.assert_close(basis.mean.sum(dim=1), torch.ones(8))


def test_real_recording_at_half_its_rate_is_nearly_the_same(data: Path) -> None:
    """EMG at 250 Hz, and every second sample behind a low-pass: what both rates reach looks alike to the encoder."""
    from scipy.signal import decimate

    recording = next(iter(read_recordings(data / "openbci_hands" / "s_1")))
    emg = recording.emg[1000:13800].astype(np.float64)
    emg = (emg - emg.mean(axis=0)) / emg.std()
    half = decimate(emg, 2, ftype="fir", axis=0)
    whole_x, half_x = (
        torch.from_numpy(np.ascontiguousarray(one.reshape(128, -1, emg.shape[1]), np.float32)) for one in (emg, half)
    )
    whole = patch_basis(250.0, whole_x.shape[1], 50.0, 450.0).spectra(whole_x)[..., :3].flatten().numpy()
    halved = patch_basis(125.0, half_x.shape[1], 50.0, 450.0).spectra(half_x)[..., :3].flatten().numpy()
    assert np.corrcoef(whole, halved)[0, 1] > 0.9


def test_macs_are_those_of_the_layers() -> None:
    shape = FoundationShape(width=16, blocks=1, heads=2)
    network = encoder(shape=shape)
    layer = network.encoder.layers[0]  # type: ignore[union-attr, index]
    weights = [
        layer.self_attn.in_proj_weight,
        layer.self_attn.out_proj.weight,
        layer.linear1.weight,
        layer.linear2.weight,
    ]  # type: ignore[union-attr]
    dense = sum(weight.numel() for weight in weights) + network.embed.weight.numel()  # type: ignore[union-attr, misc]
    assert macs(shape, 8, 8) == 64 * dense + 2 * 64 * 64 * 16


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"width": 30, "heads": 4}, "width 30 is no multiple of heads 4"),
        ({"blocks": 0}, "blocks is 0; give 1 or more"),
        ({"patch_ms": 5.0}, "patch_ms is 5"),
        ({"patch_ms": 20.0, "highest_hz": 40.0}, "highest_hz 40 is below the first bin of a patch, 50 Hz"),
    ],
)
def test_impossible_shape_is_one_line(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(EdgeError, match=says):
        FoundationShape(**wrong)  # type: ignore[arg-type]


def test_rate_that_does_not_go_with_the_patches_is_one_line() -> None:
    with pytest.raises(EdgeError, match="fewer than 2 samples at 54 Hz; lengthen patch_ms"):
        patch_basis(54.0, 22, 25.0, 450.0)
    with pytest.raises(EdgeError, match="holds no patch of 50 ms"):
        patch_basis(200.0, 5, 50.0, 450.0)


def test_basis_made_without_gradients_serves_with_them() -> None:
    patch_basis.cache_clear()
    network, x = encoder(), noise(5, 200.0, 3)
    with torch.inference_mode():
        network(x, 200.0)
    network(x, 200.0).sum().backward()
