"""Under compat="libemg", every feature and group is LibEMG's, on random and on real windows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embridge_edge.features import GROUPS, extract
from embridge_edge.features.catalogue import FEATURES

ROOT = Path(__file__).resolve().parents[2]
OURS_ALONE = {"AR9", "LOGMAV", "LOGRMS", "LOGWL", "LOGVAR", "BANDPOWER", "COVARIANCE", "LOGCOVARIANCE", "MPF", "STFT"}
NAMES = [name for name in FEATURES if name not in OURS_ALONE]

RELATIVE = 1e-4
"""Of the spread of a feature over the windows, or of the value: float32 against LibEMG's float64."""
LOOSER = {
    # Differences of nearly equal numbers: what float32 loses in the terms is large beside what is left.
    "M2": 2e-3,
    "M4": 2e-3,
    "SPARSI": 2e-3,
    "CC": 5e-4,
    "SKEW": 5e-4,
}

Windows = npt.NDArray[np.float32]
Reference = Callable[[Windows, float, list[str]], dict[str, npt.NDArray[np.float64]]]


@pytest.fixture(scope="module")
def libemg(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """LibEMG's features of windows."""
    python = Path(os.environ.get("EMBRIDGE_LIBEMG_PYTHON") or ROOT / "build" / "libemg" / "bin" / "python")
    if not python.exists():
        pytest.skip("needs LibEMG: run make libemg")
    folder = tmp_path_factory.mktemp("libemg")
    known: dict[tuple[bytes, float, int], dict[str, npt.NDArray[np.float64]]] = {}

    def features(windows: Windows, rate_hz: float, names: list[str]) -> dict[str, npt.NDArray[np.float64]]:
        key = (windows.tobytes(), rate_hz, len(names))
        if key not in known:  # importing LibEMG takes many seconds
            known[key] = asked(windows, rate_hz, names)
        return known[key]

    def asked(windows: Windows, rate_hz: float, names: list[str]) -> dict[str, npt.NDArray[np.float64]]:
        np.savez(folder / "in.npz", windows=windows.astype(np.float64), rate_hz=rate_hz, names=names)
        script = ROOT / "benchmarks" / "libemg_reference.py"
        subprocess.run(
            [str(python), str(script), "values", str(folder / "in.npz"), str(folder / "out.npz")],
            check=True,
            capture_output=True,
        )
        with np.load(folder / "out.npz") as stored:
            return {name: stored[name] for name in stored.files}

    return features


def random_windows(count: int, channels: int, samples: int, seed: int) -> Windows:
    """Band-limited noise whose strength varies over windows and channels, as EMG's does."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((count, channels, samples + 8))
    smooth = np.apply_along_axis(np.convolve, 2, noise, [0.3, 0.5, 0.3, -0.2], "same")[:, :, 4:-4]
    return (smooth * np.exp(random.normal(size=(count, channels, 1)))).astype(np.float32)


def assert_alike(windows: Windows, rate_hz: float, libemg: Reference, names: list[str] = NAMES) -> None:
    theirs = libemg(windows, rate_hz, names)
    ours = extract(windows, names, rate_hz, compat="libemg")
    wrong = []
    for name in names:
        expected, found = theirs[name].astype(np.float64), ours[name].astype(np.float64)
        assert found.shape == expected.shape, name
        allowed = LOOSER.get(name, RELATIVE)
        finite = np.isfinite(expected)
        same_kind = (np.isnan(found) == np.isnan(expected)) & (np.isinf(found) == np.isinf(expected))
        spread = np.std(expected[finite]) if finite.any() else 0.0
        difference = np.abs(found - expected)[finite] / (np.abs(expected[finite]) + spread + 1e-12)
        if not same_kind.all() or (finite.any() and difference.max() > allowed):
            wrong.append((name, int((~same_kind).sum()), float(difference.max(initial=0.0))))
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "samples", "rate_hz"), [(8, 40, 200.0), (3, 77, 500.0), (16, 400, 2000.0)])
def test_random_windows(libemg: Reference, channels: int, samples: int, rate_hz: float) -> None:
    assert_alike(random_windows(24, channels, samples, seed=samples), rate_hz, libemg)


@pytest.mark.slow
def test_windows_of_recordings(libemg: Reference, data: Path) -> None:
    from embridge_edge.recordings.loading import read_recordings

    recording = next(iter(read_recordings(data / "myo_readings")))
    starts = np.arange(0, len(recording.emg) - 80, max(80, len(recording.emg) // 60))
    windows = np.stack([recording.emg[start : start + 80].T for start in starts])
    assert_alike(np.ascontiguousarray(windows, np.float32), recording.rate_hz, libemg)


@pytest.mark.slow
def test_silence_gives_what_libemg_gives(libemg: Reference) -> None:
    windows = random_windows(6, 4, 64, seed=1)
    windows[2] = 0.0
    windows[3, 1] = 0.0
    assert_alike(windows, 500.0, libemg, [name for name in NAMES if name != "MDF"])  # theirs ends with an IndexError


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(GROUPS))
def test_groups_are_libemgs(libemg: Reference, group: str) -> None:
    windows = random_windows(8, 4, 64, seed=2)
    found = extract(windows, group, 1000.0, compat="libemg")
    theirs = libemg(windows, 1000.0, NAMES)
    assert set(found) <= set(theirs)
    for name, values in found.items():
        np.testing.assert_allclose(values, theirs[name], rtol=LOOSER.get(name, RELATIVE) * 10, atol=1e-3, err_msg=name)
