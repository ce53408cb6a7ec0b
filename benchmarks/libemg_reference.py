"""LibEMG's features of windows in a file, values or times; runs in the environment that `make libemg` makes, not in this package's.

    build/libemg/bin/python benchmarks/libemg_reference.py values|times WINDOWS.npz OUT

WINDOWS.npz holds `windows` float64 or float32 `[n, channels, samples]`, `rate_hz`, and `names` (features) or `sets` (for times: a JSON
object from a name to its features). Values go into an .npz, times as JSON `{set: windows per second}`.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from libemg.feature_extractor import FeatureExtractor

RATED = {"MDF": "MDF_fs", "MNF": "MNF_fs", "SM": "SM_fs", "DFTR": "DFTR_fs"}
RATED |= {name: f"{name}_fs" for name in ("WENG", "WV", "WWL", "WENT")}


def features(names: list[str], windows: np.ndarray, rate_hz: float) -> dict[str, np.ndarray]:
    """LibEMG's dictionary; the features that know a rate are told it."""
    rates = {RATED[name]: int(rate_hz) for name in names if name in RATED}
    # LibEMG takes an option for every feature whose name is part of the option's: "WL" would be handed "WWL_fs".
    found = {}
    for name in names:
        own = {key: value for key, value in rates.items() if key.startswith(f"{name}_")}
        found |= FeatureExtractor().extract_features([name], windows, own)
    return found


def per_second(names: list[str], windows: np.ndarray, rate_hz: float) -> float:
    """Windows per second: the best of five, each of at least a tenth of a second where the windows allow it."""
    count, best = min(16, len(windows)), 0.0
    while True:
        started = time.perf_counter()
        features(names, windows[:count], rate_hz)
        spent = time.perf_counter() - started
        if spent > 0.1 or count == len(windows):
            break
        count = min(len(windows), max(count * 2, int(count * 0.15 / max(spent, 1e-6))))
    for _ in range(5):
        started = time.perf_counter()
        features(names, windows[:count], rate_hz)
        best = max(best, count / (time.perf_counter() - started))
        if spent > 5.0:
            break
    return best


def main() -> None:
    mode, given, out = sys.argv[1:]
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    with np.load(given) as stored:
        windows, rate_hz = stored["windows"], float(stored["rate_hz"])
        if mode == "values":
            np.savez(out, **features([str(name) for name in stored["names"]], windows, rate_hz))
            return
        sets = json.loads(str(stored["sets"]))
    with Path(out).open("w", encoding="utf-8") as stream:
        json.dump({name: per_second(names, windows, rate_hz) for name, names in sets.items()}, stream)


if __name__ == "__main__":
    main()
