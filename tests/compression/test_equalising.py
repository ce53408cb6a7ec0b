"""Equalisation changes no output, and evens out what int8 has to cover with one scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embridge_edge.compression.equalising import _pairs, _peaks, equalised
from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.model.student import Block, Student, StudentShape


def student(block: Block = "conv", seed: int = 0) -> Student:
    """A folded student whose channels differ by two orders of magnitude, as depthwise ones do after training."""
    torch.manual_seed(seed)
    made = Student(StudentShape.fitting(40, 8, widths=(16, 16, 16), kernels=(5, 5, 3), block=block)).train()
    made(torch.randn(64, 40, 8))
    made = fold_batchnorm(made)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, torch.nn.Conv2d):
                spread = torch.logspace(-1, 1, module.out_channels)
                module.weight *= spread[:, None, None, None]
                if module.bias is not None:
                    module.bias *= spread
    return made


def spread(network: Student, windows: torch.Tensor) -> list[float]:
    """Of each layer that another reads alone: how far its channels are apart, as the deviation of their logarithms."""
    found = []
    for first, _ in _pairs(network):
        peaks = _peaks(network, first, windows).numpy()
        found.append(float(np.log(peaks[peaks > 0]).std()))
    return found


@pytest.mark.parametrize("block", ["conv", "separable"])
def test_outputs_stay_and_channels_even_out(block: Block) -> None:
    network, windows = student(block), torch.randn(128, 40, 8)
    evened = equalised(network, windows)
    with torch.no_grad():
        expected, got = network(windows), evened(windows)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    before, after = spread(network, windows), spread(evened, windows)
    assert len(before) == {"conv": 2, "separable": 3}[block]  # a residual reads the first separable block
    assert all(now < 0.9 * then for now, then in zip(after, before, strict=True))


def test_the_student_given_is_left_as_it_is() -> None:
    network = student()
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    equalised(network, torch.randn(16, 40, 8))
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, kept[name], rtol=0, atol=0)


def test_silent_channels_stay_silent() -> None:
    network = student()
    with torch.no_grad():
        first = network.blocks[0].layers[0].convolution
        first.weight[3], first.bias[3] = 0.0, -1.0
    windows = torch.randn(32, 40, 8)
    evened = equalised(network, windows)
    with torch.no_grad():
        assert torch.isfinite(evened(windows)).all()
        torch.testing.assert_close(evened(windows), network(windows), rtol=1e-4, atol=1e-3)
