"""Which division of the recordings a verb takes, and that it proposes none that these recordings do not allow."""

from __future__ import annotations

import numpy as np
import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import read_library
from embridge_edge.learning.splits import SPLIT_NEEDS, allowed_splits, make_splits, training_windows
from embridge_edge.learning.windows import WindowSet, cut_windows
from embridge_edge.recipe import SPLITS, WindowPlan, find_recipe
from embridge_edge.recordings.recording import Recording
from embridge_edge.verbs.seen import refuse_leak
from embridge_edge.verbs.workflow import Job, choose_split, provenance

RECIPE = find_recipe("armband-m4")


def recording(wearer: str, session: str, repetitions: int = 1) -> Recording:
    """Fist and flexion in turns of 300 samples, so many times each; no rest, no known day."""
    turns = np.arange(2 * repetitions).repeat(300)
    return Recording(
        emg=np.random.default_rng(0).standard_normal((len(turns), 4)).astype(np.float32),
        rate_hz=200.0,
        unit="myo",
        source=f"{wearer}-{session}",
        wearer=wearer,
        session=session,
        labels=(turns % 2).astype(np.int16),
        gestures=("fist", "flexion"),
        repetitions=(turns // 2 + 1).astype(np.int16),
    )


def cut(*recordings: Recording) -> WindowSet:
    chain = ChainPlan(window_ms=200.0, hop_ms=50.0, bandpass_hz=None)
    return cut_windows(recordings, chain, WindowPlan(), read_library())


ONE_SESSION = (recording("a", "1"),)
TWO_SESSIONS = (recording("a", "1"), recording("a", "2"))
REPEATED = (recording("a", "1", repetitions=4),)
TWO_PEOPLE = (recording("a", "1"), recording("b", "1"))


def remembered(windows: WindowSet, split: str | None) -> dict[str, object]:
    """The provenance of a model that is trained on `windows` under `split`."""
    chosen = None if split is None else make_splits(windows, split)[0]
    return provenance(Job(windows, chosen, training_windows(windows, chosen), read_library()), RECIPE, 0, ())


@pytest.mark.parametrize(
    ("recordings", "allowed"),
    [(ONE_SESSION, []), (TWO_SESSIONS, ["session"]), (REPEATED, ["repetition"]), (TWO_PEOPLE, ["wearer"])],
)
@pytest.mark.parametrize("asked", SPLITS)
def test_only_splits_that_the_recordings_allow_are_proposed(
    recordings: tuple[Recording, ...], allowed: list[str], asked: str
) -> None:
    windows = cut(*recordings)
    assert allowed_splits(windows) == allowed
    if asked in allowed:
        chosen = choose_split(windows, asked, RECIPE)
        assert chosen is not None and chosen.name == asked
        return
    with pytest.raises(EdgeError, match=f"--split {asked} needs {SPLIT_NEEDS[asked]}, which these") as caught:
        choose_split(windows, asked, RECIPE)
    proposed = str(caught.value).partition("lack; ")[2]
    assert proposed == (f"use --split {allowed[0]}." if allowed else "they allow no other either: record more.")


def test_what_splits_need_is_said_for_each_of_them() -> None:
    assert set(SPLIT_NEEDS) == set(SPLITS)


def test_a_model_that_has_seen_the_person_is_not_sent_to_a_split_that_one_person_does_not_allow() -> None:
    everybody = [recording(wearer, session) for wearer in "ab" for session in "12"]
    stored = remembered(cut(*everybody), "wearer")  # the first fold holds out a and trains on b
    own = cut(*everybody[2:])
    with pytest.raises(EdgeError, match="trained with --split wearer and has seen 1 of the test sessions") as caught:
        refuse_leak(stored, own, make_splits(own, "session")[0])
    assert str(caught.value).endswith("(b/2 …); train one with --split session on these recordings.")


def test_a_model_that_was_trained_on_everything_is_not_sent_to_no_split() -> None:
    windows = cut(*TWO_SESSIONS)
    with pytest.raises(EdgeError, match="trained with --split none and has seen") as caught:
        refuse_leak(remembered(windows, None), windows, make_splits(windows, "session")[0])
    assert "check it with" not in str(caught.value)


def test_a_model_is_sent_to_its_own_split_where_that_is_possible() -> None:
    windows = cut(*(recording(wearer, session) for wearer in "ab" for session in "12"))
    with pytest.raises(EdgeError, match="check it with --split session, or train one with --split wearer on these"):
        refuse_leak(remembered(windows, "session"), windows, make_splits(windows, "wearer")[0])
