"""Compositional training: windows of single motions become windows of combinations, which nobody has to record.

EMG of several muscles adds up at an electrode, so the windows are mixed as raw samples, after the filters and before features,
normalisation and the network. Yazawa, Yoneda and Furui (2025, arXiv 2505.15218) mix with random weights, as here, and found that
mixing at the input does better than within the network; Smedemark-Margulies et al. (2023, arXiv 2309.12217) mix features, which
are not additive (a sum of logarithms is a product).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import AND, REST, GestureLibrary, combined_poses
from embridge_edge.learning.windows import WindowSet

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

EFFORT = (0.5, 1.0)
"""Range of the share of a single motion's amplitude that a part keeps in a combination.

People do not exert both parts in full: in `longterm_shift` a combination has .36 to 1.04 of the power of its parts together, .6 in
the middle (benchmarks/combinations.py); a uniform share between these ends has .58 of the power on average.
"""

MOVED_RAD = 0.25
"""An angle this far from rest is moved by a gesture: below the smallest wrist gesture (radial deviation, .3), above how fingers give
way when the wrist bends (.18)."""

REST_WINDOWS = 64
"""Windows of rest that a donning's level is measured on."""


@dataclass(frozen=True)
class Pairs:
    """Which windows are mixed, by position.

    Attributes:
        first, second: int64 `[n]`, windows of one wearer and donning. labels: int64 `[n]`, the combination.
        first_effort, second_effort: float32 `[n]`, amplitude shares.
    """

    first: Index
    second: Index
    labels: Index
    first_effort: Floats
    second_effort: Floats


def combinable(library: GestureLibrary, names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of gestures that a hand can make at once: none of them rest, each with a pose, and no angle moved by both."""
    rest = library.pose(REST)
    if rest is None:
        return []
    poses = {name: library.pose(name) for name in names if name != REST}
    moved = {name: np.abs(pose - rest) > MOVED_RAD for name, pose in poses.items() if pose is not None}
    return [pair for pair in combinations(moved, 2) if not (moved[pair[0]] & moved[pair[1]]).any()]


class PairSampler:
    """Draws pairs of windows to mix: a combination evenly, a donning evenly among those with both parts, a window of each part.

    Both windows come from one donning, because electrodes stand elsewhere in another. The draw of a step depends on (seed, step) alone.

    Args:
        labels: int64 `[n]`. donnings: int64 `[n]`, the recording session of each window, by which it is known who wore the band.
        mixed: (label of one part, label of the other, label of the combination).
        effort: ends of the amplitude shares, drawn uniformly for each part.

    Raises:
        EdgeError: nothing to mix, or a combination of which no donning has both parts.
    """

    def __init__(
        self,
        labels: Index,
        donnings: Index,
        mixed: Sequence[tuple[int, int, int]],
        seed: int,
        effort: tuple[float, float] = EFFORT,
    ) -> None:
        if not mixed:
            raise EdgeError(
                "No two gestures of these recordings can be made at once; set mix_share to 0 in the recipe."
            )
        self._order = np.lexsort((labels, donnings))
        found, starts = np.unique(np.stack([donnings[self._order], labels[self._order]]), axis=1, return_index=True)
        stops = np.append(starts[1:], len(self._order))
        cells = {
            (int(donning), int(label)): (int(start), int(stop))
            for (donning, label), start, stop in zip(found.T, starts, stops, strict=True)
        }
        places: list[tuple[int, int, int, int]] = []
        self._first, self._last = (np.zeros(len(mixed), np.int64) for _ in range(2))
        for row, (one, other, label) in enumerate(mixed):
            self._first[row] = len(places)
            places += [
                (*cells[donning, one], *cells[donning, other])
                for donning in np.unique(donnings).tolist()
                if (donning, one) in cells and (donning, other) in cells
            ]
            self._last[row] = len(places)
            if self._first[row] == self._last[row]:
                raise EdgeError(
                    f"No recording holds both parts ({one} and {other}) of the combination {label}; leave it out or record them."
                )
        self._places = np.array(places, np.int64)
        self._labels = np.array([label for _, _, label in mixed], np.int64)
        self._seed = seed
        self._effort = effort

    def draw(self, step: int, count: int) -> Pairs:
        """Draw `count` pairs."""
        random = np.random.default_rng([self._seed, step])
        which = random.integers(len(self._labels), size=count)
        place = self._places[random.integers(self._first[which], self._last[which])]
        first, second = (self._order[random.integers(place[:, at], place[:, at + 1])] for at in (0, 2))
        efforts = random.uniform(*self._effort, size=(2, count)).astype(np.float32)
        return Pairs(first, second, self._labels[which], efforts[0], efforts[1])


class Mixtures:
    """Windows of combinations made from labelled windows of a set, with the pose and the label that such a window would have.

    A combination is labelled where its name ("flexion+pronation") is a gesture of the set.

    Args:
        which: windows to make them of; donnings without rest among them are left out, because their level is unknown.

    Raises:
        EdgeError: no donning with rest and two gestures that can be made at once.
    """

    def __init__(self, windows: WindowSet, which: Index, library: GestureLibrary, seed: int) -> None:
        rest_pose = library.pose(REST)
        resting = windows.gestures.index(REST) if REST in windows.gestures else -1
        labels, donnings = windows.labels[which], windows.sessions[which].astype(np.int64)
        known = np.unique(donnings[labels == resting]) if resting >= 0 else np.zeros(0, np.int64)
        if rest_pose is None or not len(known):
            raise EdgeError(
                "Mixtures need windows of rest, which these recordings lack; set mix_share to 0 in the recipe."
            )
        self._rest_pose = rest_pose
        self._windows = windows
        self._level = np.zeros((len(windows.session_names), windows.signal.shape[1]), np.float32)
        for donning in known.tolist():
            quiet = which[(labels == resting) & (donnings == donning)]
            some = quiet[:: -(-len(quiet) // REST_WINDOWS)]
            self._level[donning] = np.square(windows.samples(some)).mean(axis=(0, 1))
        self._which = which[(labels >= 0) & np.isin(donnings, known)]
        labels, donnings = windows.labels[self._which], windows.sessions[self._which].astype(np.int64)
        mixed = [
            (one, other, _label(windows.gestures, one, other))
            for one, other in (
                tuple(windows.gestures.index(name) for name in pair)
                for pair in combinable(library, [windows.gestures[label] for label in np.unique(labels)])
            )
            if np.intersect1d(donnings[labels == one], donnings[labels == other]).size
        ]
        self._sampler = PairSampler(labels, donnings, mixed, seed)

    def draw(self, step: int, count: int, rows: Index | slice = slice(None)) -> tuple[Floats, Floats, Index]:
        """Draw `count` combinations and make those at `rows`.

        Returns: inputs of the network float32 `[rows, steps, columns]`, poses float32 `[rows, frames, 23]` and labels int64 `[rows]`,
            −1 where the set has no such gesture.
        """
        windows, pairs = self._windows, self._sampler.draw(step, count)
        first, second = self._which[pairs.first[rows]], self._which[pairs.second[rows]]
        mixed = mixed_batch(
            windows.samples(first),
            windows.samples(second),
            self._level[windows.sessions[first]],
            pairs.first_effort[rows],
            pairs.second_effort[rows],
        )
        chain = windows.chain
        x = chain.inputs(mixed.reshape(-1, mixed.shape[2]), np.arange(len(mixed)) * chain.window)
        return x, combined_poses(windows.poses(first), windows.poses(second), self._rest_pose), pairs.labels[rows]


def _label(gestures: Sequence[str], one: int, other: int) -> int:
    names = (f"{gestures[one]}{AND}{gestures[other]}", f"{gestures[other]}{AND}{gestures[one]}")
    return next((gestures.index(name) for name in names if name in gestures), -1)


def mixed_batch(
    first: Floats,
    second: Floats,
    rest_power: Floats,
    first_effort: Floats | float = 1.0,
    second_effort: Floats | float = 1.0,
) -> Floats:
    """Raw windows of combinations from raw windows of their parts.

    The sum of both, and the level of rest, which both hold, taken off once: each channel is scaled so that its power is that
    of the parts above rest (times their squared efforts) and of rest once. Rest with rest is rest, a motion with rest the motion.

    Args:
        first, second: float32 `[n, samples, channels]`, filtered, mean 0. rest_power: mean square at rest in the same donning, float32
            `[n, channels]` or `[channels]`. first_effort, second_effort: amplitude shares, `[n]` or one number.

    Returns: float32 `[n, samples, channels]`, in the unit of the windows.
    """
    shares = [np.asarray(effort, np.float32).reshape(-1, 1) for effort in (first_effort, second_effort)]
    powers = [np.mean(np.square(part), axis=1) for part in (first, second)]
    summed = shares[0][:, :, None] * first + shares[1][:, :, None] * second
    present = sum(share**2 * power for share, power in zip(shares, powers, strict=True))
    above = sum(share**2 * np.maximum(power - rest_power, 0) for share, power in zip(shares, powers, strict=True))
    gain = np.sqrt((above + rest_power) / np.maximum(present, np.finfo(np.float32).tiny))
    return np.asarray(summed * gain[:, None, :], np.float32)
