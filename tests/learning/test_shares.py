"""Draws are even and nested; shares are whole sessions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.learning.shares import drawn_evenly, nested_share

sizes = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4), min_size=1, max_size=4)


def windows(counts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """`counts[gesture][wearer]` windows, shuffled."""
    cells = [(label, wearer) for label, row in enumerate(counts) for wearer, n in enumerate(row) for _ in range(n)]
    order = np.random.default_rng(0).permutation(len(cells))
    both = np.array(cells, np.int64).reshape(-1, 2)[order]
    return both[:, 0], both[:, 1]


@given(sizes, st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_nobody_is_drawn_less_than_another_unless_he_has_no_more(counts: list[list[int]], most: int, seed: int) -> None:
    labels, wearers = windows(counts)
    drawn = drawn_evenly(labels, wearers, most, seed)
    assert len(drawn) == min(most, len(labels)) == len(set(drawn.tolist()))
    assert (np.diff(drawn) > 0).all()
    for key in (labels, *(np.where(labels == label, wearers, -1) for label in set(labels.tolist()))):
        values = [value for value in set(key.tolist()) if value >= 0]
        for one in values:
            exhausted = (key[drawn] == one).sum() == (key == one).sum()
            for other in values:
                assert exhausted or (key[drawn] == one).sum() >= (key[drawn] == other).sum() - 1


@given(sizes, st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_fewer_windows_lie_within_more(counts: list[list[int]], seed: int) -> None:
    labels, wearers = windows(counts)
    draws = [set(drawn_evenly(labels, wearers, most, seed).tolist()) for most in (1, 5, 11, 200)]
    assert all(small <= large for small, large in pairwise(draws))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30)), min_size=1, max_size=10),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
    st.integers(0, 9),
)
@settings(max_examples=80, deadline=None)
def test_shares_are_nested_whole_and_no_larger_than_needed(
    blocks: list[tuple[int, int]], one: float, other: float, seed: int
) -> None:
    sessions = np.repeat(np.arange(len(blocks)), [size for _, size in blocks])
    wearers = np.repeat([wearer for wearer, _ in blocks], [size for _, size in blocks])
    small, large = (nested_share(sessions, wearers, share, seed) for share in sorted((one, other)))
    assert set(small.tolist()) <= set(large.tolist())
    taken = set(sessions[large].tolist())
    assert len(large) == sum(blocks[session][1] for session in taken)
    assert len(large) >= max(one, other) * len(sessions) - 1e-3
    assert any(len(large) - blocks[session][1] < max(one, other) * len(sessions) for session in taken)
    assert len(nested_share(sessions, wearers, 1.0, seed)) == len(sessions)


def test_a_small_share_still_has_every_wearer() -> None:
    sessions = np.repeat(np.arange(20), 10)
    wearers = sessions // 5
    share = nested_share(sessions, wearers, 0.2, 3)
    assert set(wearers[share].tolist()) == {0, 1, 2, 3}
    assert len(share) == 40


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_what_is_no_share_is_one_line(share: float) -> None:
    with pytest.raises(EdgeError, match="above 0 and at most 1"):
        nested_share(np.zeros(3, np.int64), np.zeros(3, np.int64), share, 0)
    with pytest.raises(EdgeError, match="No training window"):
        nested_share(np.zeros(0, np.int64), np.zeros(0, np.int64), 0.5, 0)
