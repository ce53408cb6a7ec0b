"""Few-shot: shots come from one wearer, more of them help, and whoever has too few gives none."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from embridge_edge.learning.evaluation import Embedded, Judged
from embridge_edge.learning.few_shot import few_shot
from embridge_edge.learning.scores import balanced_accuracy

UNSEEN = np.array([5, 6, 7])
JUDGED = Judged("a", 0, "seen_wearers", ("ann", "bob", "cyd"))
CENTRE = np.zeros(6, np.float32)


def people(seed: int, each: int = 60, own: float = 0.0, wearers: tuple[int, ...] = (0, 1)) -> Embedded:
    """Three unseen gestures; `own` turns every wearer's gestures into another's by so much."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.repeat(UNSEEN, each), len(wearers))
    people = np.repeat(wearers, 3 * each)
    corners = np.eye(3, 6)[labels - 5] + own * np.eye(3, 6)[(labels - 5 + people) % 3]
    return Embedded((corners + 0.6 * rng.standard_normal((len(labels), 6))).astype(np.float32), labels, people)


def value(rows: list, metric: str, wearer: str = "ann") -> float:
    return next(row.value for row in rows if (row.metric, row.wearer) == (metric, wearer))


def test_more_shots_help_and_all_of_them_give_the_class_means() -> None:
    support, test = people(0), people(1)
    rows = few_shot(JUDGED, support, test, UNSEEN, CENTRE, shots=(1, 5, 60))
    curve = [value(rows, f"few_shot_{n}") for n in (1, 5, 60)]
    assert curve[0] < curve[1] <= curve[2] + 0.02

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    own, asked = support.wearers == 0, test.wearers == 0
    means = NearestCentroid().fit(unit(support.embeddings[own]), support.labels[own])
    expected = balanced_accuracy(test.labels[asked], means.predict(unit(test.embeddings[asked])))
    assert curve[2] == pytest.approx(expected)


def test_another_wearers_shots_are_of_no_use_where_gestures_differ() -> None:
    rows = few_shot(JUDGED, people(0, own=3.0), people(1, own=3.0), UNSEEN, CENTRE, shots=(20,))
    assert value(rows, "few_shot_20") > 0.9
    assert value(rows, "few_shot_others_20") < 0.4


def test_too_few_windows_give_no_row() -> None:
    support = people(0, each=5)
    metrics = {row.metric for row in few_shot(JUDGED, support, people(1), UNSEEN, CENTRE)}
    assert {"few_shot_5", "few_shot_others_5", "few_shot_5_f1"} <= metrics
    assert not {"few_shot_10", "few_shot_others_10"} & metrics


def test_a_new_wearer_has_shots_of_others_only() -> None:
    rows = few_shot(JUDGED, people(0), people(1, wearers=(2,)), UNSEEN, CENTRE, shots=(2,))
    assert {(row.metric, row.wearer) for row in rows} == {("few_shot_others_2", "cyd"), ("few_shot_others_2_f1", "cyd")}


def test_seen_gestures_take_no_part_and_one_unseen_gesture_gives_no_curve() -> None:
    support, test = people(0), people(1)
    more = Embedded(
        np.concatenate([support.embeddings, np.ones((9, 6), np.float32)]),
        np.append(support.labels, np.zeros(9, np.int64)),
        np.append(support.wearers, np.zeros(9, np.int64)),
    )
    assert few_shot(JUDGED, more, test, UNSEEN, CENTRE) == few_shot(JUDGED, support, test, UNSEEN, CENTRE)
    assert few_shot(JUDGED, support, test, np.array([5]), CENTRE) == []


def test_what_all_embeddings_share_is_taken_off() -> None:
    support, test, far = people(0), people(1), np.full(6, 50.0, np.float32)
    moved = [Embedded(part.embeddings + far, part.labels, part.wearers) for part in (support, test)]
    here, there = (
        few_shot(JUDGED, support, test, UNSEEN, CENTRE, shots=(5,)),
        few_shot(JUDGED, *moved, UNSEEN, far, shots=(5,)),
    )
    assert [row.value for row in there] == pytest.approx([row.value for row in here], abs=0.02)
