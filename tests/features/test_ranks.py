"""The L-score is half the mean difference of two samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embridge_edge.errors import EdgeError
from embridge_edge.features.ranks import ranks
from embridge_edge.features.rows import Rows


def half_mean_difference(x: np.ndarray) -> np.ndarray:
    length = x.shape[-1]
    differences = np.abs(x[:, :, None].astype(np.float64) - x[:, None, :])
    return differences.sum(axis=(1, 2)) / (2 * length * (length - 1))


@given(
    x=st.tuples(st.integers(0, 11), st.integers(2, 70)).flatmap(
        lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(-128, 128, width=32))
    )
)
@settings(max_examples=80, deadline=None)
def test_any_samples(x: np.ndarray) -> None:
    found = ranks(Rows.of_windows(x[:, None, :]), ["LS"])["LS"]
    assert found.shape == (len(x), 1)
    np.testing.assert_allclose(found[:, 0], half_mean_difference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [2, 3, 40, 63, 64, 65, 400, 1000])
def test_lengths(length: int) -> None:
    x = np.random.default_rng(length).standard_normal((9, length)).astype(np.float32)
    found = ranks(Rows.of_windows(x[:, None, :]), ["LS"])["LS"][:, 0]
    np.testing.assert_allclose(found, half_mean_difference(x), rtol=1e-6)
    alone = ranks(Rows.of_windows(x[8:, None, :]), ["LS"])["LS"][:, 0]
    assert alone.tobytes() == found[8:].tobytes()


def test_edges() -> None:
    x = np.full((4, 1, 40), 3.0, np.float32)
    x[1, 0, 7], x[2, 0, 39] = np.nan, -np.inf
    found = ranks(Rows.of_windows(x), ["LS"])["LS"][:, 0]
    np.testing.assert_allclose(found, [0.0, np.nan, np.nan, 0.0], atol=1e-6)
    with pytest.raises(EdgeError, match="LS needs windows of 2 samples"):
        ranks(Rows.of_windows(x[:, :, :1]), ["LS"])
