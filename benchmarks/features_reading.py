"""How long it takes to read text recordings, and the whole `features` command on them: python benchmarks/features_reading.py.

24 files of a minute each, a time, eight channels and a label in a line. Reading is in a process that has read once before; the
command is a process of its own, as a shell starts it, after one that has compiled. Each is the best of several; on a busy
machine CPU seconds say more than wall seconds. With EMBRIDGE_LIBEMG_PYTHON or --libemg-python naming a Python that has LibEMG,
the same files through its OfflineDataHandler.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embridge_edge.recordings import read_recordings

FILES, SECONDS, CHANNELS, REPEATS = 24, 60, 8, 5
SETS = (("counts", 200), ("volts", 200), ("volts", 1000))

DESCRIPTION = """
[file]
header = true
[emg]
columns = [{channels}]
rate_hz = {rate_hz}
unit = "{unit}"
[time]
column = "time"
[labels]
column = "label"
names = {{ 0 = "rest", 1 = "g1", 2 = "g2", 3 = "g3", 4 = "g4", 5 = "g5", 6 = "g6", 7 = "g7" }}
[path]
patterns = ['S(?P<wearer>\\d+)_T(?P<session>\\d+)\\.csv$']
"""

LIBEMG = """
import sys, time
from libemg.data_handler import OfflineDataHandler, RegexFilter
wearers = RegexFilter("/S", "_T", [str(number) for number in range(8)], "wearers")
sessions = RegexFilter("_T", ".csv", [str(number) for number in range(3)], "sessions")
started = time.process_time()
OfflineDataHandler().get_data(sys.argv[1], [wearers, sessions], skiprows=1, data_column=list(range(1, 9)))
print(time.process_time() - started)
"""


def make(folder: Path, kind: str, rate_hz: int) -> None:
    """Write a set: a Myo's counts, or numbers with two decimals as of a converter in microvolts."""
    folder.mkdir()
    names = [f"ch_{number}" for number in range(CHANNELS)]
    unit = "myo" if kind == "counts" else "V"
    channels = ", ".join(f'"{name}"' for name in names)
    (folder / "recording.toml").write_text(DESCRIPTION.format(channels=channels, rate_hz=rate_hz, unit=unit))
    rng = np.random.default_rng(0)
    samples = np.arange(SECONDS * rate_hz)
    for number in range(FILES):
        active = samples // (5 * rate_hz) % 2
        emg = rng.normal(0, 15, (len(samples), CHANNELS)) * (1 + 2 * active)[:, None]
        rows = np.column_stack([samples / rate_hz, emg, active * (1 + number % 7)])
        if kind == "counts":
            rows[:, 1:-1] = np.clip(np.round(emg), -128, 127)
        written = ",".join(["%.4f", *(["%d" if kind == "counts" else "%.2f"] * CHANNELS), "%d"])
        header = ",".join(["time", *names, "label"])
        np.savetxt(folder / f"S{number // 3}_T{number % 3}.csv", rows, fmt=written, header=header, comments="")


def best(function: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Wall and CPU seconds of the quickest call, children included, after one call that does not count."""
    function()
    spent = []
    for _ in range(repeats):
        wall, core = time.perf_counter(), sum(os.times()[:4])
        function()
        spent.append((time.perf_counter() - wall, sum(os.times()[:4]) - core))
    walls, cores = zip(*spent, strict=True)
    return min(walls), min(cores)


def command(folder: Path) -> list[str]:
    out = str(folder.with_suffix(".parquet"))
    asked = ["--set", "HTD", "--window-ms", "200", "--hop-ms", "50", "--out", out, "--force", "--quiet"]
    return [sys.executable, "-m", "embridge_edge", "features", str(folder), *asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libemg-python", default=os.environ.get("EMBRIDGE_LIBEMG_PYTHON"))
    parser.add_argument("--rates", default="200,1000", help="rates of the sets, separated by commas")
    given = parser.parse_args()
    rates = {int(rate) for rate in given.rates.split(",")}
    print(
        f"{'set':<7} {'Hz':>5} {'MiB':>6} {'read s':>7} {'MiB/s':>6} {'command s':>10} {'LibEMG reads s':>15} {'×':>5}"
    )
    with tempfile.TemporaryDirectory() as root:
        for kind, rate_hz in SETS:
            if rate_hz not in rates:
                continue
            folder = Path(root) / f"{kind}-{rate_hz}"
            make(folder, kind, rate_hz)
            size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
            read, read_core = best(lambda folder=folder: list(read_recordings(folder)))
            whole, whole_core = best(
                lambda folder=folder: subprocess.run(command(folder), check=True, stdout=subprocess.DEVNULL)
            )
            theirs = ratio = "–"
            if given.libemg_python:
                call = [given.libemg_python, "-c", LIBEMG, str(folder)]
                done = subprocess.run(call, check=True, capture_output=True, text=True)
                seconds = float(done.stdout.splitlines()[-1])
                theirs, ratio = f"{seconds:.2f}", f"{seconds / read_core:.0f}"
            print(
                f"{kind:<7} {rate_hz:5d} {size:6.1f} {read:7.3f} {read_core:7.3f} {size / read_core:7.0f} "
                f"{whole:7.3f} {whole_core:7.3f} {theirs:>8} {ratio:>6}",
                flush=True,
            )


if __name__ == "__main__":
    main()
