"""The logarithm and the exponentials of compiled code are within two units of the last place, the same alone and by eights."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from embridge_edge.features.lanes import load, store
from embridge_edge.features.logarithm import decay32, exp32, log32, log_into


def loops(function: Any) -> tuple[Any, Any]:
    """The function over an array number by number, and by lanes."""

    @numba.njit
    def singly(x, out):  # type: ignore[no-untyped-def]
        for index in range(len(x)):
            out[index] = function(x[index])

    @numba.njit
    def by_eights(x, out):  # type: ignore[no-untyped-def]
        for index in range(0, len(x), 8):
            store(out, index, function(load(x, index)))

    return singly, by_eights


def numbers(low: float, high: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(low, high, 80_000), rng.uniform(-1.0, 1.0, 16_000)]).astype(np.float32)


def worst(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest error in units of the last place."""
    return float(np.max(np.abs(found - expected) / np.spacing(np.abs(expected).astype(np.float32))))


@pytest.mark.parametrize(
    ("function", "plain", "x"),
    [
        (log32, np.log, np.exp(numbers(-103.0, 88.0).astype(np.float64)).astype(np.float32)),
        (exp32, np.exp, numbers(-87.3, 88.7)),
        (decay32, np.exp, -np.abs(numbers(-87.3, 0.0))),
    ],
    ids=["log32", "exp32", "decay32"],
)
def test_values(function: Any, plain: Any, x: np.ndarray) -> None:
    x = x[x != 0] if plain is np.log else x
    x = x[: len(x) // 8 * 8]
    singly, by_eights = loops(function)
    alone, together = np.empty_like(x), np.empty_like(x)
    singly(x, alone)
    by_eights(x, together)
    assert alone.tobytes() == together.tobytes()
    assert worst(alone, plain(x.astype(np.float64))) <= 2.0


def test_edges() -> None:
    x = np.array([0.0, -0.0, -1.0, np.inf, -np.inf, np.nan, 1.0, 1e-45], np.float32)
    found = np.empty_like(x)
    log_into(x, found)
    np.testing.assert_allclose(found[-1], np.log(1.4e-45), rtol=1e-2)
    np.testing.assert_array_equal(found[:-1], [-np.inf, -np.inf, np.nan, np.inf, np.nan, np.nan, 0.0])
    loops(exp32)[0](np.array([-1e3, 1e3, np.inf, -np.inf, np.nan, 0.0], np.float32), found)
    np.testing.assert_array_equal(found[:6], [0.0, np.inf, np.inf, 0.0, np.nan, 1.0])
    loops(decay32)[0](np.array([-1e3, -np.inf, 0.0], np.float32), found)
    np.testing.assert_allclose(found[:3], [0.0, 0.0, 1.0], atol=2e-38)


def test_in_place() -> None:
    x = np.array([1.0, 2.0, 4.0], np.float32)
    log_into(x, x)
    np.testing.assert_allclose(x, [0.0, np.log(2.0), np.log(4.0)], rtol=1e-6)
