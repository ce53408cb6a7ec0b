"""Every feature in C is what the Python stream computes: sums within 4 units in the last place, the rest within 64."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from embridge_edge.features import FEATURES, Stream
from embridge_edge.features.chain import ChainPlan, SignalChain, resolve
from embridge_edge.firmware_bridge.chain import C_FEATURES, RawSamples
from tests.firmware_bridge.chain.compiling import compiled, emg_like, feature_chain, some_head

THROUGH_LOGARITHMS = {
    "LD", "MFL", "MLK", "M0", "M2", "M4", "SPARSI", "IRF", "WLF", "LOGMAV", "LOGRMS", "LOGWL", "LOGVAR",
    "MNF", "MDF", "MNP", "SM", "SAMPEN", "FUZZYEN",
}  # fmt: skip
"""Or through a Fourier transform."""

COUNTS = RawSamples(), "adc", 300.0
VOLTS = RawSamples(16, unit_per_count=2e-7), "V", 300.0
WIDE = RawSamples(32), "adc", 1e7
WIDE_VOLTS = RawSamples(32, unit_per_count=1e-9), "V", 1e5

GEOMETRIES = [
    pytest.param(COUNTS, (200, 50, None), id="whole hops", marks=pytest.mark.slow),
    pytest.param(VOLTS, (200, 30, 200), id="hops and a head"),
    pytest.param(WIDE, (200, 50, 40), id="frames anew", marks=pytest.mark.slow),
    *(
        pytest.param(kind, times, id=f"{name} {times}", marks=pytest.mark.slow)
        for name, kind in (("counts", COUNTS), ("volts", VOLTS), ("wide", WIDE), ("wide volts", WIDE_VOLTS))
        for times in (
            (200, 200, None),
            (200, 40, 100),
            (37, 1, None),
            (40, 7, None),
            (41, 40, None),
            (60, 60, 50),
            (400, 400, 200),
        )
    ),
]


def all_features(times: tuple[int, int, int | None], unit: str) -> SignalChain:
    """A chain of one channel with everything in it, which is neither normalised nor clipped."""
    window, hop, frame = times
    plan = ChainPlan(window_ms=window, hop_ms=hop, frame_ms=frame, features=tuple(C_FEATURES), notch_hz=50.0)
    return replace(resolve(plan, 1000.0, 1, unit), limit=3e38)


def apart(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Units in the last place. Two logarithms of nearly 1 are less exact in float64 than what it can hold of their values."""
    difference = np.abs(left.astype(np.float64) - right)
    units = difference / np.spacing(np.maximum(np.abs(left), np.abs(right)))
    return np.where(difference < np.finfo(np.float64).eps, 0.0, units)


def test_a_chain_can_hold_no_feature_without_c() -> None:
    assert set(C_FEATURES) == {name for name, feature in FEATURES.items() if feature.columns is None}


@pytest.mark.parametrize(("kind", "times"), GEOMETRIES)
def test_every_feature(tmp_path: Path, kind: tuple[RawSamples, str, float], times: tuple[int, int, int | None]) -> None:
    samples, unit, amplitude = kind
    chain = all_features(times, unit)
    made = compiled(tmp_path, chain, samples)
    counts = emg_like(1500, 1, amplitude=amplitude)
    # The columns that the context holds are those of the last frame.
    expected = Stream(chain).push(made.as_unit(counts))[:, -1]
    distance = apart(made.run(counts).columns, expected).max(axis=0)
    bounds = [64 if name in THROUGH_LOGARITHMS else 4 for name in chain.features]
    assert np.isfinite(expected).all()
    assert {name: d for name, d, bound in zip(chain.features, distance, bounds, strict=True) if d > bound} == {}


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 5, -32768])
def test_silence_and_constants_are_finite(tmp_path: Path, level: int) -> None:
    chain = replace(all_features((200, 50, None), "adc"), sections=())
    made = compiled(tmp_path, chain)
    counts = np.full((600, 1), level)
    counts[400:, 0] += np.arange(200) % 2 * (level == 5)
    np.testing.assert_allclose(
        made.run(counts).columns, Stream(chain).push(made.as_unit(counts))[:, -1], rtol=1e-6, atol=1e-9
    )


@pytest.mark.slow
@given(
    features=st.lists(st.sampled_from(sorted(C_FEATURES)), min_size=1, max_size=4, unique=True),
    window=st.integers(8, 90),
    hop=st.integers(1, 90),
    frame=st.integers(5, 90),
    channels=st.integers(1, 3),
    bits=st.sampled_from([16, 32]),
)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
def test_any_chain_compiles_without_a_warning_and_gives_the_bytes_of_python(
    features: list[str], window: int, hop: int, frame: int, channels: int, bits: int
) -> None:
    hop, frame = min(hop, window), min(frame, window)
    counts = emg_like(500, channels, seed=window, amplitude=200)
    chain = feature_chain(
        1000.0,
        channels,
        counts,
        window_ms=window,
        hop_ms=hop,
        frame_ms=frame,
        features=tuple(features),
        bandpass_hz=(5.0, 400.0),
    )
    with tempfile.TemporaryDirectory() as folder:
        made = compiled(Path(folder), chain, RawSamples(bits), some_head(rows=1))
        expected = made.expected(counts)
        # One step where a float in its last place falls on the other side of a half.
        assert np.abs(made.run(counts).inputs.astype(int) - expected).max(initial=0) <= 1
        assert np.mean(made.run(counts).inputs == expected) > 0.9999
