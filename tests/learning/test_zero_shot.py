"""Nearest poses decide as a brute-force count does; ties and copies cannot decide anything by chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.learning.zero_shot import PoseLibrary, balanced_library, decide_by_poses


def brute_force(embedding: np.ndarray, library: PoseLibrary, neighbours: int) -> int:
    """Sort all poses, count, and let the nearest decide between equal counts."""
    cosine = [float(embedding @ pose / np.linalg.norm(embedding) / np.linalg.norm(pose)) for pose in library.embeddings]
    order = sorted(range(len(cosine)), key=lambda place: -cosine[place])[:neighbours]
    votes: dict[int, int] = {}
    for place in order:
        votes[int(library.labels[place])] = votes.get(int(library.labels[place]), 0) + 1
    best = max(votes.values())
    return next(int(library.labels[place]) for place in order if votes[int(library.labels[place])] == best)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 12), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_decisions_are_those_of_a_count_by_hand(poses: int, gestures: int, neighbours: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    library = PoseLibrary(
        rng.standard_normal((poses, 6)).astype(np.float32), rng.integers(gestures, size=poses).astype(np.int64)
    )
    embeddings = rng.standard_normal((25, 6)).astype(np.float32)
    expected = [brute_force(row.astype(np.float64), library, neighbours) for row in embeddings]
    np.testing.assert_array_equal(decide_by_poses(embeddings, library, neighbours), expected)


@given(st.integers(2, 10), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_with_one_pose_per_gesture_the_nearest_decides(gestures: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    poses = rng.standard_normal((gestures, 5)).astype(np.float32)
    labels = rng.permutation(100)[:gestures]
    embeddings = rng.standard_normal((30, 5)).astype(np.float32)
    cosine = embeddings @ (poses / np.linalg.norm(poses, axis=1, keepdims=True)).T
    np.testing.assert_array_equal(
        decide_by_poses(embeddings, PoseLibrary(poses, labels)), labels[np.argmax(cosine, axis=1)]
    )


def test_the_order_of_the_library_matters_only_between_equally_near_poses() -> None:
    rng = np.random.default_rng(0)
    library = PoseLibrary(rng.standard_normal((60, 8)).astype(np.float32), rng.integers(5, size=60))
    turned = PoseLibrary(library.embeddings[::-1], library.labels[::-1])
    embeddings = rng.standard_normal((500, 8)).astype(np.float32)
    np.testing.assert_array_equal(decide_by_poses(embeddings, library), decide_by_poses(embeddings, turned))
    same = PoseLibrary(np.ones((30, 3), np.float32), np.repeat(np.array([4, 2, 7]), 10))
    assert set(decide_by_poses(embeddings[:, :3], same).tolist()) == {4}  # all equally near: the first ten


def test_chunks_and_lengths_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    library = PoseLibrary(rng.standard_normal((40, 8)).astype(np.float32), rng.integers(5, size=40))
    embeddings = rng.standard_normal((101, 8)).astype(np.float32)
    whole = decide_by_poses(embeddings, library)
    monkeypatch.setattr("embridge_edge.learning.zero_shot._CHUNK", 7)
    np.testing.assert_array_equal(decide_by_poses(64 * embeddings, library), whole)


def test_an_embedding_of_length_zero_is_decided_too() -> None:
    library = PoseLibrary(np.eye(3, dtype=np.float32), np.arange(3))
    assert decide_by_poses(np.zeros((1, 3), np.float32), library).tolist() == [0]


def test_empty_library_is_one_line() -> None:
    with pytest.raises(EdgeError, match="pose library is empty"):
        decide_by_poses(np.ones((1, 2), np.float32), PoseLibrary(np.ones((0, 2), np.float32), np.zeros(0, np.int64)))


def test_copies_of_a_canonical_pose_count_once_and_every_gesture_gives_as_many() -> None:
    rng = np.random.default_rng(0)
    canonical = rng.standard_normal((3, 4)).astype(np.float32)
    copies = PoseLibrary(np.repeat(canonical, (50, 3, 9), axis=0), np.repeat(np.arange(3), (50, 3, 9)))
    one_each = balanced_library(copies, 200, 0)
    assert one_each.labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(one_each.embeddings, canonical)
    tracked = PoseLibrary(rng.standard_normal((60, 4)).astype(np.float32), np.repeat(np.arange(3), (40, 15, 5)))
    assert np.bincount(balanced_library(tracked, 200, 0).labels).tolist() == [5, 5, 5]
    assert np.bincount(balanced_library(tracked, 2, 0).labels).tolist() == [2, 2, 2]
    rows = {tuple(row) for row in tracked.embeddings.tolist()}
    assert {tuple(row) for row in balanced_library(tracked, 4, 0).embeddings.tolist()} <= rows
