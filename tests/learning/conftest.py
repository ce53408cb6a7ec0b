"""Small recordings made by hand: each gesture is noise of another strength on each channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import POSE, read_library
from embridge_edge.learning.windows import WindowSet, cut_windows
from embridge_edge.recipe import WindowPlan
from embridge_edge.recordings.recording import Recording

RATE_HZ = 200.0
GESTURES = ("rest", "fist", "flexion")

MakeRecording = Callable[..., Recording]
MakeWindows = Callable[..., WindowSet]


def _recording(
    wearer: str = "a",
    session: str = "1",
    runs: Sequence[tuple[int, int]] = ((0, 300), (1, 300), (2, 300)),
    *,
    gestures: tuple[str, ...] = GESTURES,
    day: int | None = None,
    breaks: Sequence[int] = (),
    tracked: bool = False,
    labelled: bool = True,
    repetitions: Sequence[int] | None = None,
    channels: int = 4,
) -> Recording:
    """`runs` are (label, samples); `repetitions` one number per run."""
    labels = np.concatenate([np.full(count, label, np.int16) for label, count in runs])
    seed = [sum(map(ord, wearer)), sum(map(ord, session)), len(labels)]
    rng = np.random.default_rng(seed)
    strength = 1.0 + 4.0 * np.abs(np.sin(1.7 * (labels[:, None] + 2.0) * (1.0 + np.arange(channels))))
    pose = None
    if tracked:
        phase = np.arange(len(labels))[:, None] / 37.0 + np.arange(len(POSE))
        pose = np.sin(phase).astype(np.float32)
        strength = 1.0 + np.abs(pose[:, :channels])
    counts = None
    if repetitions is not None:
        counts = np.concatenate([np.full(run[1], n, np.int16) for run, n in zip(runs, repetitions, strict=True)])
    return Recording(
        emg=(strength * rng.standard_normal((len(labels), channels))).astype(np.float32),
        rate_hz=RATE_HZ,
        unit="myo",
        source=f"{wearer}-{session}",
        wearer=wearer,
        session=session,
        day=day,
        labels=labels if labelled else None,
        gestures=gestures if labelled else (),
        repetitions=counts,
        pose=pose,
        breaks=np.array(breaks, np.int64),
    )


def _windows(recordings: Sequence[Recording], chain: ChainPlan | None = None, **plan: Any) -> WindowSet:
    chain = chain or ChainPlan(window_ms=200.0, hop_ms=50.0, bandpass_hz=None)
    return cut_windows(recordings, chain, WindowPlan(**plan), read_library())


@pytest.fixture(scope="session")
def recording() -> MakeRecording:
    """Makes a recording of labelled runs."""
    return _recording


@pytest.fixture(scope="session")
def cut() -> MakeWindows:
    """Cuts recordings into windows of 40 samples every 10, without a filter."""
    return _windows


@pytest.fixture(scope="session")
def people() -> WindowSet:
    """Three wearers, two sessions each, three gestures."""
    return _windows([_recording(wearer, session) for wearer in "abc" for session in "12"])
