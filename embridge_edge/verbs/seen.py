"""What a model has seen, as hashes inside it, and the refusal to judge it on that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from embridge_edge.errors import EdgeError

if TYPE_CHECKING:
    from embridge_edge.learning.splits import Split
    from embridge_edge.learning.windows import WindowSet
    from embridge_edge.verbs.workflow import Job


def seen_by(job: Job) -> dict[str, list[str]]:
    """Sessions, wearers and stages on a job's training side, as hashes: names stay with the recordings.

    Of a donning that a split by repetition shares out, an entry "hash:gesture:1,3,4" of `seen_sessions` says which
    repetitions of a gesture have been seen.
    """
    import numpy as np

    windows = job.windows
    wearers = {windows.wearer_names[index] for index in np.unique(windows.wearers[job.train])}
    stages = {windows.stage_names[index] for index in np.unique(windows.stages[job.train])} - {""}
    return {
        "seen_sessions": _seen_sessions(job),
        "seen_wearers": sorted(map(short_hash, wearers)),
        "seen_stages": sorted(map(short_hash, stages)),
    }


def _seen_sessions(job: Job) -> list[str]:
    import numpy as np

    from embridge_edge.learning.splits import repeated_gestures

    windows = job.windows
    hashes = [short_hash(name) for name in windows.session_names]
    seen = {hashes[session] for session in np.unique(windows.sessions[job.train])}
    if job.split is None or job.split.name != "repetition":
        return sorted(seen)
    numbers: dict[tuple[int, int], set[int]] = {}
    owners = repeated_gestures(windows)[job.train]
    low, high = windows.lowest_repetitions[job.train], windows.highest_repetitions[job.train]
    table = np.stack([windows.sessions[job.train], owners, low, high])
    for session, gesture, first, last in np.unique(table[:, owners >= 0], axis=1).T.tolist():
        numbers.setdefault((session, gesture), set()).update(range(max(1, first), last + 1))
    partly = {hashes[session] for session, _ in numbers}
    return sorted(
        (seen - partly)
        | {
            f"{hashes[session]}:{windows.gestures[gesture]}:{','.join(map(str, sorted(own)))}"
            for (session, gesture), own in numbers.items()
            if own
        }
    )


def short_hash(name: str) -> str:
    """Stands for a session's or wearer's name inside an artifact."""
    return hashlib.sha256(name.encode()).hexdigest()[:10]


def refuse_leak(stored: dict[str, Any], windows: WindowSet, split: Split) -> None:
    """Refuse to judge a model on windows that it was trained on.

    Raises:
        EdgeError: the test side holds sessions (for `wearer`: wearers, for `repetition`: repetitions, for those of emg2pose:
            what is held out by their name) that the model has seen.
    """
    if split.name == "repetition":
        _refuse_seen_repetitions(stored, windows, split)
        return
    for what in HELD_OUT_BY.get(split.name, ("sessions",)):
        _refuse_seen(what, stored, windows, split)


HELD_OUT_BY: Mapping[str, tuple[str, ...]] = {
    "wearer": ("wearers",),
    "emg2pose_user": ("wearers",),
    "emg2pose_stage": ("stages",),
    "emg2pose_user_stage": ("wearers", "stages"),
}
"""What no training window has of a split's test windows, where that is not their session."""


def _refuse_seen(what: str, stored: dict[str, Any], windows: WindowSet, split: Split) -> None:
    import numpy as np

    from embridge_edge.learning.splits import allowed_splits

    if what == "stages" and "seen_stages" not in stored:
        what = "sessions"  # of a model that was made before stages were noted
    seen = {entry.partition(":")[0] for entry in stored.get(f"seen_{what}", ())}
    names, index = {
        "wearers": (windows.wearer_names, windows.wearers),
        "sessions": (windows.session_names, windows.sessions),
        "stages": (windows.stage_names, windows.stages),
    }[what]
    leaked = [names[place] for place in np.unique(index[split.test]) if short_hash(names[place]) in seen]
    if leaked:
        trained = stored.get("split")
        possible = trained != split.name and trained in allowed_splits(windows)
        raise EdgeError(
            f"This model was trained with --split {trained} and has seen {len(leaked)} of the test "
            f"{what} of --split {split.name} ({leaked[0]} …); "
            + (f"check it with --split {trained}, or " if possible else "")
            + f"train one with --split {split.name} on these recordings."
        )


def _refuse_seen_repetitions(stored: dict[str, Any], windows: WindowSet, split: Split) -> None:
    import numpy as np

    from embridge_edge.learning.splits import repeated_gestures

    seen: dict[tuple[str, str], set[int]] = {}  # without a gesture: the whole session
    for entry in stored.get("seen_sessions", ()):
        session, _, rest = entry.partition(":")
        gesture, _, listed = rest.rpartition(":")
        numbers = [int(number) for number in listed.split(",") if number]
        # One alone stands for all up to it, as earlier versions wrote it.
        seen.setdefault((session, gesture), set()).update(range(1, numbers[0] + 1) if len(numbers) == 1 else numbers)
    owners = np.where(split.test, repeated_gestures(windows), -1)
    table = np.stack([windows.sessions, owners, windows.lowest_repetitions, windows.highest_repetitions])[
        :, owners >= 0
    ]
    for session, gesture, first, last in np.unique(table, axis=1).T.tolist():
        name = windows.session_names[session]
        place = short_hash(name)
        known = seen.get((place, windows.gestures[gesture]), set())
        repetition = next((number for number in range(first, last + 1) if number in known), first)
        if (place, "") in seen or repetition in known:
            raise EdgeError(
                f"This model was trained with --split {stored.get('split')} and has seen repetition {repetition} of "
                f"{windows.gestures[gesture]!r} in {name} …, which --split repetition tests; check it on the recordings that "
                "it was trained on with its own split, or train one with --split repetition on these."
            )
