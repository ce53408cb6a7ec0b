"""Memory, disk and time of cutting recordings into windows on disk, and how fast batches are read back:
python benchmarks/windows_memory.py [--counts 8,16,32,64] [--seconds 60] [--out FOLDER].

Recordings are emg2pose files of 16 channels at 2 kHz with a tracked pose, all copies of one simulated session under other
names: what is in them does not matter here, how well it packs does. Each line is of processes of its own, on one core. *Peak*
is the most memory that cutting had resident (VmHWM), with a folder and without. *Cold* reads random windows of 400 ms just
after the kernel was asked to drop the files from its cache, *warm* the same windows again, batches of 256, normalised; on a
busy machine windows per CPU second say more. The last column is what the first batch has made resident, of the signal's size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import read_library
from embridge_edge.learning.windows import KINDS, WindowSet, cut_windows
from embridge_edge.recipe import WindowPlan
from embridge_edge.recordings import read_recordings
from embridge_edge.recordings.emg2pose import write_emg2pose
from embridge_edge.synthesis.armband import choose_armband
from embridge_edge.synthesis.session import make_wearer, simulate_session

BATCH = 256
READ_WINDOWS = 4096


def write_recordings(folder: Path, count: int, seconds: float) -> list[Path]:
    """`count` emg2pose files, ten sessions to a wearer."""
    import h5py

    library = read_library()
    names = tuple(library.gestures)
    poses = library.poses(names).astype(np.float64)
    session = simulate_session(make_wearer(1, 0), 1, choose_armband(16, 2000.0), names, poses, seconds, 0.2)
    folder.mkdir()
    (first,) = write_emg2pose([replace(session, labels=None, gestures=(), repetitions=None)], folder)
    made = []
    for number in range(count):
        made.append(folder / f"{number:04d}.hdf5")
        shutil.copy(first, made[-1])
        with h5py.File(made[-1], "r+") as file:
            file["emg2pose"].attrs.update({"user": f"w{number // 10}", "session": str(number % 10)})
    return made


def status(key: str) -> int:
    """A line of /proc/self/status in bytes. Not getrusage's ru_maxrss, which begins with the peak of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


def cut(recordings: Path, folder: Path | None) -> dict[str, float]:
    """Cut what lies in a folder; seconds and the peak of memory."""
    started, core = time.perf_counter(), time.process_time()
    windows = cut_windows(read_recordings(recordings), ChainPlan(), WindowPlan(), read_library(), folder)
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - core,
        "peak": status("VmHWM"),
        "windows": len(windows),
        "hours": len(windows.signal) / windows.chain.rate_hz / 3600.0,
    }


def read(folder: Path) -> dict[str, float]:
    """Read random windows from a folder, cold and warm."""
    for file in folder.glob("*.npy"):
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    windows = WindowSet.load(folder)
    starts = np.random.default_rng(0).choice(windows.starts, READ_WINDOWS)
    before, resident = status("RssFile"), 0
    found: dict[str, float] = {}
    for name in ("cold", "warm"):
        began, core = time.perf_counter(), time.process_time()
        for first in range(0, READ_WINDOWS, BATCH):
            windows.chain.inputs(windows.signal, starts[first : first + BATCH])
            resident = resident or status("RssFile") - before
        found[name] = READ_WINDOWS / (time.perf_counter() - began)
        found[f"{name} of a core"] = READ_WINDOWS / (time.process_time() - core)
    return {**found, "resident": resident, "signal": windows.signal.nbytes}


def in_a_process(task: str, *paths: Path) -> dict[str, Any]:
    call = [sys.executable, __file__, "--task", task, *map(str, paths)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | threads)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(made: list[Path], out: Path) -> str:
    """The line for some recordings: linked into a folder of their own, cut in both ways, read back."""
    chosen, folder = out / "chosen", out / "windows"
    chosen.mkdir()
    for path in made:
        (chosen / path.name).hardlink_to(path)
    stored, kept = in_a_process("cut", chosen, folder), in_a_process("cut", chosen)
    size = {name: (folder / f"{name}.npy").stat().st_size for name in KINDS}
    index = sum(of for name, of in size.items() if name not in ("signal", "pose_track"))
    back = in_a_process("read", folder)
    for file in (*chosen.iterdir(), *folder.iterdir()):
        file.unlink()
    chosen.rmdir()
    folder.rmdir()
    hours = stored["hours"]
    return (
        f"{len(made):>10} {hours:>6.2f} {stored['peak'] / 2**20:>9.0f} {kept['peak'] / 2**20:>12.0f} "
        f"{sum(size.values()) / hours / 1e6:>9.1f} {size['pose_track'] / hours / 1e6:>7.2f} {index / hours / 1e6:>8.2f} "
        f"{stored['wall_s'] / hours:>7.1f} {stored['cpu_s'] / hours:>6.1f} {back['cold']:>8.0f} {back['warm']:>8.0f} "
        f"{back['warm of a core']:>8.0f} {back['resident'] / 2**20:>9.0f} of {back['signal'] / 2**20:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="8,16,32,64", help="recordings, separated by commas")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a recording")
    parser.add_argument(
        "--out", type=Path, help="where there is room: 0.5 GB an hour, twice; a temporary folder otherwise"
    )
    parser.add_argument("--task", choices=("cut", "read"), help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        folder = given.paths[1] if len(given.paths) > 1 else None
        print(json.dumps(cut(given.paths[0], folder) if given.task == "cut" else read(given.paths[0])))
        return
    counts = [int(count) for count in given.counts.split(",")]
    print(
        f"{'recordings':>10} {'hours':>6} {'peak MiB':>9} {'in memory':>12} {'MB/hour':>9} {'poses':>7} {'index':>8} "
        f"{'s/hour':>7} {'CPU s':>6} {'cold/s':>8} {'warm/s':>8} {'per CPU s':>8} {'resident MiB':>12}"
    )
    with tempfile.TemporaryDirectory(dir=given.out) as root:
        made = write_recordings(Path(root) / "made", max(counts), given.seconds)
        for count in counts:
            print(measure(made[:count], Path(root)), flush=True)


if __name__ == "__main__":
    main()
