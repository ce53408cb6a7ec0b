"""Entropies are what comparing each pattern with each other gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.features.entropy import entropy
from embridge_edge.features.rows import Rows

TINY = 2.0**-52


def patterns(x: np.ndarray, size: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), size)


def sample_entropy(x: np.ndarray, size: int, tolerance: float) -> float:
    found = []
    for m in (size, size + 1):
        held = patterns(x, m)
        apart = np.abs(held[:-1, None] - held[None]).max(axis=2)
        alike = (apart <= tolerance * x.astype(np.float64).std()).sum(axis=1) - 1
        found.append(np.mean(alike / (len(x) - size - 1)))
    return float(np.log((found[0] + TINY) / (found[1] + TINY)))


def fuzzy_entropy(x: np.ndarray, size: int, tolerance: float, power: int) -> float:
    found = []
    for m in (size, size + 1):
        held = patterns(x, m)
        held = held - held.mean(axis=1, keepdims=True)
        apart = np.abs(held[:-1, None] - held[None]).max(axis=2)
        alike = np.exp(-(apart**power) / (tolerance * x.astype(np.float64).std()))
        # Each is left out itself; adding it and taking off 1 again would round away what is below 1e-16.
        np.fill_diagonal(alike, 0.0)
        found.append(np.mean(alike.sum(axis=1) / (len(x) - m - 1)))
    return float(np.log((found[0] + TINY) / (found[1] + TINY)))


@given(
    length=st.integers(7, 90),
    rows=st.integers(0, 10),
    size=st.integers(2, 4),
    tolerance=st.sampled_from([0.1, 0.3, 0.77]),
    power=st.integers(1, 3),
    whole=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_values(length: int, rows: int, size: int, tolerance: float, power: int, whole: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.integers(-20, 20, (rows, length)) if whole else rng.standard_normal((rows, length))).astype(np.float32)
    options: dict[str, Any] = {"FUZZYEN_win": power}
    for name in ("SAMPEN", "FUZZYEN"):
        options[f"{name}_dim"], options[f"{name}_tolerance"] = size, tolerance
    found = entropy(Rows.of_windows(x[:, None, :]), ["SAMPEN", "FUZZYEN"], options)
    assert found["SAMPEN"].shape == found["FUZZYEN"].shape == (rows, 1)
    np.testing.assert_allclose(
        found["SAMPEN"][:, 0], [sample_entropy(row, size, tolerance) for row in x], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        found["FUZZYEN"][:, 0], [fuzzy_entropy(row, size, tolerance, power) for row in x], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("scale", [1e-5, 1.0, 100.0])
def test_long_windows_in_other_units(scale: float) -> None:
    x = (np.random.default_rng(3).standard_normal((2, 400)) * scale).astype(np.float32)
    found = entropy(Rows.of_windows(x[:, None, :]), ["SAMPEN", "FUZZYEN"])
    np.testing.assert_allclose(found["SAMPEN"][:, 0], [sample_entropy(row, 2, 0.3) for row in x], rtol=1e-5)
    np.testing.assert_allclose(found["FUZZYEN"][:, 0], [fuzzy_entropy(row, 2, 0.3, 2) for row in x], rtol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_row_has_the_same_bits_alone_and_among_others(count: int) -> None:
    x = np.random.default_rng(4).standard_normal((20, 1, 50)).astype(np.float32)
    whole = entropy(Rows.of_windows(x), ["SAMPEN", "FUZZYEN"])
    part = entropy(Rows.of_windows(x[-count:]), ["SAMPEN", "FUZZYEN"])
    for name in whole:
        assert part[name].tobytes() == whole[name][-count:].tobytes()


def test_edges() -> None:
    x = np.full((4, 1, 40), 0.1, np.float32)
    x[1, 0, 7], x[2, 0, 39] = np.nan, np.inf
    found = entropy(Rows.of_windows(x), ["SAMPEN", "FUZZYEN"])
    for name in found:
        np.testing.assert_array_equal(found[name][:, 0], [0.0, np.nan, np.nan, 0.0])
    theirs = entropy(Rows.of_windows(x), ["SAMPEN", "FUZZYEN"], {}, "libemg")
    np.testing.assert_array_equal(theirs["SAMPEN"][:, 0], [0.0, np.nan, np.nan, 0.0])
    assert np.isnan(theirs["FUZZYEN"]).all()
    with pytest.raises(EdgeError, match="SAMPEN needs windows of 4 samples"):
        entropy(Rows.of_windows(x[:, :, :3]), ["SAMPEN"])
    with pytest.raises(EdgeError, match="FUZZYEN needs windows of 6 samples"):
        entropy(Rows.of_windows(x[:, :, :5]), ["FUZZYEN"], {"FUZZYEN_dim": 3})
