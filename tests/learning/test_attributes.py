"""Zero-shot by words: unseen gestures are found by attributes learnt on others; what cannot be learnt is named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import ATTRIBUTES, POSE, read_library
from embridge_edge.learning.attributes import attribute_scores, fit_attributes
from embridge_edge.learning.evaluation import Embedded

LIBRARY = read_library()
NAMES = tuple(LIBRARY.gestures)


def shown(gestures: np.ndarray, labels: np.ndarray, seed: int, noise: float = 0.3) -> Embedded:
    """Windows whose embedding shows their gesture's attributes through a random rotation."""
    rotation = np.linalg.qr(np.random.default_rng(99).standard_normal((gestures.shape[1],) * 2))[0]
    rng = np.random.default_rng(seed)
    rows = gestures[labels].astype(float) @ rotation + noise * rng.standard_normal((len(labels), gestures.shape[1]))
    return Embedded(rows.astype(np.float32), labels, np.arange(len(labels)) % 3)


def test_unseen_gestures_are_found_by_attributes_of_others() -> None:
    words, gestures = LIBRARY.attribute_rows(NAMES)
    unseen = np.array([NAMES.index(name) for name in ("victory", "extension")])
    labels = np.tile(np.arange(len(NAMES)), 60)
    model = fit_attributes(shown(gestures, labels, 0), words, gestures, unseen)
    rows = attribute_scores("a", 0, model, {"g": shown(gestures, labels, 1)}, unseen, ("x", "y", "z"))
    mean = {metric: np.mean([row.value for row in rows if row.metric == metric]) for metric in {r.metric for r in rows}}
    assert {"attr_seen", "attr_unseen", "attr_all_seen", "attr_all_unseen", "attr_harmonic"} <= set(mean)
    assert mean["attr_unseen"] > 0.9
    assert mean["attr_all_unseen"] > 0.3  # chance among fourteen is .07
    assert model.unlearnable == ("wrist_extended",)


def test_no_window_of_an_unseen_gesture_takes_part() -> None:
    words, gestures = LIBRARY.attribute_rows(NAMES)
    labels = np.tile(np.arange(len(NAMES)), 20)
    train = shown(gestures, labels, 0)
    unseen = np.array([2, 7])
    poisoned = Embedded(
        np.where(np.isin(labels, unseen)[:, None], 1e3, train.embeddings).astype(np.float32), labels, train.wearers
    )
    one, other = (fit_attributes(part, words, gestures, unseen) for part in (train, poisoned))
    for mine, its in zip(one.probes, other.probes, strict=True):
        np.testing.assert_array_equal(mine.weights, its.weights)


def test_decision_is_the_product_of_the_attributes_probabilities() -> None:
    words, gestures = LIBRARY.attribute_rows(NAMES[:6])
    labels = np.tile(np.arange(6), 40)
    train = shown(gestures, labels, 0)
    model = fit_attributes(train, words, gestures, np.array([5]))
    asked = shown(gestures, labels, 1).embeddings[:20]
    expected = np.ones((20, 6))
    for column, probe in enumerate(model.probes):
        having = np.exp(probe.log_probabilities(asked)[:, 1])
        for gesture in range(6):
            expected[:, gesture] *= having if model.gestures[gesture, column] else 1 - having
    np.testing.assert_allclose(np.exp(model.log_likelihood(asked)), expected, rtol=1e-6, atol=1e-12)
    among = np.array([1, 4, 5])
    np.testing.assert_array_equal(model.decide(asked, among), among[np.argmax(expected[:, among], axis=1)])


@given(st.sets(st.integers(0, len(NAMES) - 1), min_size=1, max_size=6))
@settings(max_examples=8, deadline=None)
def test_attributes_that_do_not_vary_among_the_seen_are_named(hidden: set[int]) -> None:
    words, gestures = LIBRARY.attribute_rows(NAMES)
    labels = np.tile(np.arange(len(NAMES)), 4)
    model = fit_attributes(shown(gestures, labels, 0), words, gestures, np.array(sorted(hidden)))
    seen = gestures[[place for place in range(len(NAMES)) if place not in hidden]]
    for word, column in zip(words, seen.T, strict=True):
        assert (word in model.unlearnable) == (column.all() or not column.any())
    assert set(model.attributes) | set(model.unlearnable) == set(words)
    alike = {label for group in model.alike(np.arange(len(NAMES))) for label in group}
    assert (not alike) == (len(np.unique(model.gestures, axis=0)) == len(NAMES))


def test_gestures_that_only_lost_attributes_told_apart_are_said_to_be_alike() -> None:
    words, gestures = LIBRARY.attribute_rows(NAMES)
    turned = np.array([NAMES.index("pronation"), NAMES.index("supination")])
    labels = np.tile(np.arange(len(NAMES)), 10)
    model = fit_attributes(shown(gestures, labels, 0), words, gestures, turned)
    assert set(model.unlearnable) == {"forearm_turns", "palm_down", "palm_up"}
    assert model.alike(np.arange(len(NAMES))) == [(NAMES.index("rest"), *turned.tolist())]


@pytest.mark.parametrize(
    ("labels", "unseen", "says"),
    [
        ([0, 1, 2], [0, 1, 2], "No window of a seen gesture"),
        ([1, 1, 1], [], "No attribute differs"),
        ([0, 1, 3], [], "one row per gesture"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_line(labels: list[int], unseen: list[int], says: str) -> None:
    train = Embedded(np.eye(3, dtype=np.float32), np.array(labels), np.zeros(3, np.int64))
    with pytest.raises(EdgeError, match=says):
        fit_attributes(train, ("a", "b"), np.array([[1, 0], [0, 1], [1, 1]], bool), np.array(unseen, np.int64))


def test_shipped_attributes_are_documented_distinct_and_shared() -> None:
    words, gestures = LIBRARY.attribute_rows(NAMES)
    assert set(words) == set(ATTRIBUTES)
    assert len(np.unique(gestures, axis=0)) == len(NAMES) == 14
    for place, name in enumerate(NAMES):
        others = np.delete(gestures, place, axis=0)
        assert name == "rest" or (gestures[place] & others.any(axis=0)).any(), name


def test_shipped_attributes_say_what_the_poses_show() -> None:
    def angle(name: str, joint: str) -> float:
        pose = LIBRARY.pose(name)
        assert pose is not None
        return float(pose[POSE.index(joint)])

    for name, gesture in LIBRARY.gestures.items():
        has = set(gesture.attributes)
        assert ("wrist_flexed" in has) == (angle(name, "wrist_flexion") > 0.5)
        assert ("wrist_extended" in has) == (angle(name, "wrist_flexion") < -0.5)
        assert ("thumb_side" in has) == (angle(name, "wrist_deviation") < -0.2)
        assert ("little_side" in has) == (angle(name, "wrist_deviation") > 0.2)
        assert ("palm_down" in has) == (angle(name, "wrist_pronation") > 0.5)
        assert ("palm_up" in has) == (angle(name, "wrist_pronation") < -0.5)
        for word, joint in (("index", "index_pip_fe"), ("middle", "middle_pip_fe"), ("outer", "pinky_pip_fe")):
            assert (f"{word}_bent" in has) == (angle(name, joint) > 0.9), (name, word)
        assert ("thumb_bent" in has) == (angle(name, "thumb_ip_fe") > 0.7)
        assert ("thumb_out" in has) == (angle(name, "thumb_cmc_aa") > 0.3)
        for finger in ("index", "middle"):
            straight = angle(name, f"{finger}_pip_fe") == 0
            assert (f"{finger}_out" in has) == straight, (name, finger)
        assert ("spread" in has) == (angle(name, "index_mcp_aa") > 0.2)
        assert ("wrist_moves" in has) == bool(has & {"wrist_flexed", "wrist_extended", "thumb_side", "little_side"})
        assert ("forearm_turns" in has) == bool(has & {"palm_down", "palm_up"})
        bent = {word for word in has if word.endswith("_bent")}
        out = {word for word in has if word.endswith("_out")}
        assert ("fingers_move" in has) == bool(bent | out)
        assert ("flexors" in has) == bool(bent | has & {"wrist_flexed"})
        assert ("extensors" in has) == bool(out | has & {"wrist_extended"})


def test_unknown_gesture_has_no_attributes() -> None:
    with pytest.raises(EdgeError, match="No attributes are known for M3, M4"):
        LIBRARY.attribute_rows(("fist", "M3", "M4"))
