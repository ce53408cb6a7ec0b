"""How fast the simulator is on one core: python benchmarks/synth_speed.py [--seconds S].

Seconds of signal over wall seconds, after compiling, for one session without writing the file; the best of three.
"""

from __future__ import annotations

import argparse
import time

from embridge_edge.gestures import read_library
from embridge_edge.synthesis.armband import choose_armband
from embridge_edge.synthesis.session import make_wearer, simulate_session

SHAPES = ((16, 2000.0), (8, 200.0), (8, 1000.0), (64, 2000.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    library = read_library()
    names = tuple(library.gestures)
    poses = library.poses(names).astype("float64")
    wearer = make_wearer(1, 0)
    simulate_session(wearer, 1, choose_armband(8, 200.0), names, poses, 5.0, 0.2)
    print(f"{'channels':>8} {'Hz':>6} {'wall s':>7} {'CPU s':>7} {'× real time':>12} {'× per CPU s':>12}")
    for channels, rate_hz in SHAPES:
        armband = choose_armband(channels, rate_hz)
        spent = []
        for _ in range(3):
            wall, core = time.perf_counter(), time.process_time()
            simulate_session(wearer, 1, armband, names, poses, seconds, 0.2)
            spent.append((time.perf_counter() - wall, time.process_time() - core))
        wall, core = min(spent)
        print(f"{channels:8d} {rate_hz:6g} {wall:7.3f} {core:7.3f} {seconds / wall:12.0f} {seconds / core:12.0f}")


if __name__ == "__main__":
    main()
