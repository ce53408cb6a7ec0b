"""Windows per second of each feature and group, beside LibEMG, scipy and a plain copy of memory.

    make libemg
    python benchmarks/features_speed.py myo_readings/ [--picture docs/pictures/features_speed.svg]

Two shapes: windows of real recordings, 8 channels of 40 samples (200 ms at 200 Hz), and simulated ones, 16 channels of 400 samples (200 ms at
2 kHz). float32 for us, float64 for LibEMG, which is what it computes in. The best of five after a warm-up, on one thread and on two; compiled
before. Prints tables, and how each group stands against the last run, which it keeps in build/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.features import GROUPS, extract, slide
from embridge_edge.features.catalogue import FEATURES

ROOT = Path(__file__).resolve().parent.parent
LAST = Path("build/benchmarks/features_speed.json")
SHAPES = {"8 × 40": (8, 40, 200.0), "16 × 400": (16, 400, 2000.0)}
LEAST_S = 0.1
SLOW = {"TSTD", "LS4", "LS9"}
"""Groups with features that LibEMG computes window by window in Python: told apart in the mean, since they flatter it."""

Windows = npt.NDArray[np.float32]


def best(function: Callable[[Windows], object], windows: Windows, repeats: int = 5) -> float:
    """Windows per second: the best of several runs, each of a tenth of a second at least where there are windows enough."""
    count = min(64, len(windows))
    while True:
        function(windows[:count])
        started = time.perf_counter()
        function(windows[:count])
        spent = time.perf_counter() - started
        if spent > LEAST_S or count == len(windows):
            break
        count = min(len(windows), max(2 * count, int(count * 1.5 * LEAST_S / max(spent, 1e-6))))
    fastest = spent
    for _ in range(repeats):
        started = time.perf_counter()
        function(windows[:count])
        fastest = min(fastest, time.perf_counter() - started)
    return count / fastest


def recorded(folder: Path, channels: int, samples: int, count: int) -> Windows:
    """Windows of real recordings, `[count, channels, samples]`."""
    from embridge_edge.recordings.loading import read_recordings

    parts: list[Windows] = []
    for recording in read_recordings(folder):
        view = np.lib.stride_tricks.sliding_window_view(recording.emg[:, :channels], samples, axis=0)[:: samples // 4]
        parts.append(np.ascontiguousarray(view, np.float32))
        if sum(map(len, parts)) >= count:
            break
    return np.concatenate(parts)[:count]


def simulated(channels: int, samples: int, rate_hz: float, count: int) -> Windows:
    """Windows of a simulated armband, `[count, channels, samples]`."""
    from embridge_edge.gestures import read_library
    from embridge_edge.synthesis.armband import choose_armband
    from embridge_edge.synthesis.session import make_wearer, simulate_session

    library = read_library()
    names = ("rest", "fist", "flexion")
    seconds = max(10.0, count * samples / 4 / rate_hz + 1.0)
    poses = library.poses(names).astype("float64")
    made = simulate_session(make_wearer(1, 0), 1, choose_armband(channels, rate_hz), names, poses, seconds, 0.1)
    view = np.lib.stride_tricks.sliding_window_view(made.emg, samples, axis=0)[:: samples // 4]
    return np.ascontiguousarray(view[:count], np.float32)


def libemg(python: Path, windows: Windows, rate_hz: float, sets: dict[str, list[str]]) -> dict[str, float]:
    """LibEMG's windows per second, one thread, float64."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "in.npz", Path(folder) / "out.json"
        np.savez(given, windows=windows.astype(np.float64), rate_hz=rate_hz, sets=json.dumps(sets))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        script = ROOT / "benchmarks" / "libemg_reference.py"
        subprocess.run([str(python), str(script), "times", str(given), str(out)], check=True, env=os.environ | threads)
        return json.loads(out.read_text("utf-8"))  # type: ignore[no-any-return]


def others(rate_hz: float) -> dict[str, Callable[[Windows], object]]:
    """The same quantity from scipy and numpy, where they have it."""
    from scipy import signal, stats

    return {
        "SKEW": lambda w: stats.skew(w, axis=2),
        "KURT": lambda w: stats.kurtosis(w, axis=2, fisher=False),
        "BANDPOWER": lambda w: signal.periodogram(w, rate_hz, "hann", axis=2),
        "MNP": lambda w: np.square(np.abs(np.fft.rfft(w, axis=2))).mean(axis=2),
        "COVARIANCE": lambda w: np.matmul(w - w.mean(axis=2, keepdims=True), np.swapaxes(w, 1, 2)),
        "RMS": lambda w: np.sqrt(np.square(w).mean(axis=2)),
    }


def measure(name: str, folder: Path, python: Path | None) -> dict[str, Any]:
    """All numbers of one shape."""
    channels, samples, rate_hz = SHAPES[name]
    count = 40_000 if samples < 100 else 3_000
    windows = (
        recorded(folder, channels, samples, count) if name == "8 × 40" else simulated(channels, samples, rate_hz, count)
    )
    sets = {group: list(members) for group, members in GROUPS.items()} | {feature: [feature] for feature in FEATURES}
    ours, two, alike = {}, {}, {}
    for label, names in sets.items():
        ours[label] = best(lambda w, names=names: extract(w, names, rate_hz), windows)  # type: ignore[misc]
        two[label] = best(lambda w, names=names: extract(w, names, rate_hz, threads=2), windows)  # type: ignore[misc]
    known = {label: names for label, names in sets.items() if label not in FEATURES or label in LIBEMG_FEATURES}
    for label in known:  # by its group's name: LibEMG's COMB leaves AR9 out
        asked = [label] if label in GROUPS else sets[label]
        alike[label] = best(lambda w, asked=asked: extract(w, asked, rate_hz, compat="libemg"), windows)  # type: ignore[misc]
    theirs = {} if python is None else libemg(python, windows[: count // 4], rate_hz, known)
    flat = np.ascontiguousarray(windows)
    copied = best(lambda w: w.copy(), flat)
    signal = np.ascontiguousarray(windows[:, :, :].transpose(0, 2, 1).reshape(-1, channels))
    hop = max(1, samples // 4)
    slid = {}
    for label in ("HTD", "TDPSD", "ITD"):
        slide(signal, label, rate_hz, samples, hop)
        started = time.perf_counter()
        found = slide(signal, label, rate_hz, samples, hop)
        slid[label] = len(next(iter(found.values()))) / (time.perf_counter() - started)
    return {
        "windows": len(windows),
        "bytes": channels * samples * 4,
        "ours": ours,
        "two": two,
        "alike": alike,
        "libemg": theirs,
        "others": {label: best(function, windows) for label, function in others(rate_hz).items()},
        "copy": copied,
        "slide": slid,
    }


LIBEMG_FEATURES = set(FEATURES) - {
    "AR9", "LOGMAV", "LOGRMS", "LOGWL", "LOGVAR", "BANDPOWER", "COVARIANCE", "LOGCOVARIANCE", "MPF", "STFT"
}  # fmt: skip


def table(found: dict[str, Any], last: dict[str, Any]) -> list[str]:
    """Lines of one shape; times LibEMG where both give the same values (compat="libemg")."""
    lines = [
        "| | windows/s, 1 thread | 2 threads | GB/s | compat | LibEMG | times | scipy, numpy | last run |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for label, speed in found["ours"].items():
        theirs, alike, other = (found[key].get(label) for key in ("libemg", "alike", "others"))
        before = last.get("ours", {}).get(label)
        cells = [
            f"**{label}**" if label in GROUPS and label not in FEATURES else label,
            f"{speed:,.0f}",
            f"{found['two'][label]:,.0f}",
            f"{speed * found['bytes'] / 1e9:.2f}",
            "" if alike is None else f"{alike:,.0f}",
            "" if theirs is None else f"{theirs:,.0f}",
            "" if theirs is None or alike is None else f"{alike / theirs:.1f}",
            "" if other is None else f"{other:,.0f}",
            "" if before is None else f"{speed / before:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(f"| *memory copy* | {found['copy']:,.0f} | | {found['copy'] * found['bytes'] / 1e9:.2f} | | | | | |")
    return lines


def means(found: dict[str, Any]) -> list[str]:
    """Geometric means over LibEMG's groups, and the worst."""
    ratio = {group: found["alike"][group] / found["libemg"][group] for group in GROUPS if found["libemg"].get(group)}
    if not ratio:
        return []
    plain = [value for group, value in ratio.items() if group not in SLOW]
    least = min(ratio, key=lambda group: ratio[group])
    return [
        f"geometric mean over {len(ratio)} groups {np.exp(np.mean(np.log(list(ratio.values())))):.1f} times LibEMG (at least 40), "
        f"without {', '.join(sorted(SLOW))} {np.exp(np.mean(np.log(plain))):.1f} (at least 20), "
        f"least {least} {ratio[least]:.1f} (at least 8)"
    ]


def against_size() -> list[str]:
    """Cost against window length and channels, nanoseconds per sample and channel."""
    lines = ["| samples × channels | " + " | ".join(GROUPS) + " |", "|---|" + "---:|" * len(GROUPS)]
    random = np.random.default_rng(0)
    for channels, samples in ((8, 32), (8, 128), (8, 512), (8, 2048), (1, 256), (4, 256), (16, 256), (64, 256)):
        windows = random.standard_normal((max(8, 400_000 // (channels * samples)), channels, samples)).astype(
            np.float32
        )
        cells = []
        for group in GROUPS:
            if group == "TSTD" and samples > 512:
                cells.append("")
                continue
            speed = best(lambda w, group=group: extract(w, group, 1000.0), windows, repeats=2)  # type: ignore[misc]
            cells.append(f"{1e9 / speed / channels / samples:.2f}")
        lines.append(f"| {samples} × {channels} | " + " | ".join(cells) + " |")
    return lines


def start_up() -> list[str]:
    """Seconds until the first HTD, with nothing compiled and in a second process."""
    script = (
        "import time; t = time.perf_counter(); import numpy as np; from embridge_edge.features import extract; "
        "extract(np.ones((2, 8, 40), np.float32), {name!r}, 200.0); print(time.perf_counter() - t)"
    )
    lines = ["| | first call, nothing compiled, s | first call in a second process, s |", "|---|---:|---:|"]
    for name in ("HTD", ",".join(GROUPS)):
        with tempfile.TemporaryDirectory() as folder:
            asked = repr(name.split(",")) if "," in name else repr(name)
            command = [sys.executable, "-c", script.replace("{name!r}", asked)]
            environment = os.environ | {"NUMBA_CACHE_DIR": folder}
            times = [
                float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
                for _ in range(2)
            ]
        lines.append(f"| {'all groups' if ',' in name else name} | {times[0]:.2f} | {times[1]:.2f} |")
    return lines


def picture(results: dict[str, Any], file: Path) -> None:
    """Times LibEMG for each group and shape."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    groups = list(GROUPS)
    for place, (shape, found) in enumerate(results.items()):
        ratio = [found["alike"][group] / found["libemg"][group] for group in groups]
        bars = axes.bar(np.arange(len(groups)) + 0.4 * place, ratio, 0.38, label=f"{shape} samples")
        axes.bar_label(bars, [f"{value:.0f}" for value in ratio], fontsize=7)
    axes.axhline(8, color="grey", linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    axes.set_xticks(np.arange(len(groups)) + 0.2, groups, rotation=30)
    axes.set_ylabel("times as many windows per second")
    axes.set_title("Feature groups beside LibEMG, one thread", loc="left", fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("data", type=Path, help="myo_readings, or other recordings of 8 channels")
    arguments.add_argument("--libemg", type=Path, default=ROOT / "build" / "libemg" / "bin" / "python")
    arguments.add_argument("--picture", type=Path)
    asked = arguments.parse_args()
    python = asked.libemg if asked.libemg.exists() else None
    if python is None:
        sys.stderr.write("No LibEMG: run make libemg for the comparison.\n")
    last = json.loads(LAST.read_text("utf-8")) if LAST.is_file() else {}
    results = {}
    for shape in SHAPES:
        results[shape] = measure(shape, asked.data, python)
        print(f"\n{shape}: {results[shape]['windows']:,} windows\n")
        print("\n".join(table(results[shape], last.get(shape, {}))))
        print("\n" + "\n".join(means(results[shape])), flush=True)
        slid = ", ".join(f"{group} {speed:,.0f}" for group, speed in results[shape]["slide"].items())
        print(f"sliding over the signal by a quarter of the window, windows/s: {slid}")
    print("\nns per sample and channel, one thread, white noise\n\n" + "\n".join(against_size()))
    print("\n" + "\n".join(start_up()))
    LAST.parent.mkdir(parents=True, exist_ok=True)
    LAST.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if asked.picture and python is not None:
        picture(results, asked.picture)


if __name__ == "__main__":
    main()
