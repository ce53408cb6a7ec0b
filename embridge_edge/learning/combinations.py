"""Compositional training: windows of single motions become windows of combinations, which nobody has to record.

EMG of several muscles adds up at an electrode, so the windows are mixed as raw samples, after the filters and before features,
normalisation and the network. Yazawa, Yoneda and Furui (2025, arXiv 2505.15218) mix with random weights, as here, and found that
mixing at the input does better than within the network; Smedemark-Margulies et al. (2023, arXiv 2309.12217) mix features, which
are not additive (a sum of logarithms is a product).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.synthesis.anatomy import POSE_LIMITS_RAD

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

EFFORT = (0.5, 1.0)
"""Range of the share of a single motion's amplitude that a part keeps in a combination.

People do not exert both parts in full: in `longterm_shift` a combination has .36 to 1.04 of the power of its parts together, .6 in
the middle (benchmarks/combinations.py); a uniform share between these ends has .58 of the power on average.
"""


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


def read_combinations(data_set: str) -> Mapping[str, tuple[str, ...]]:
    """The gestures that each motion of a data set is made of, as `combinations.toml` has them.

    Raises:
        EdgeError: nothing is written down for `data_set`.
    """
    tables = tomllib.loads(files("embridge_edge").joinpath("combinations.toml").read_text("utf-8"))
    if data_set not in tables:
        raise EdgeError(f"No combinations are known of {data_set!r}; choose one of {', '.join(sorted(tables))}.")
    return {motion: tuple(parts) for motion, parts in tables[data_set].items()}


def draw_pairs(
    labels: Index,
    donnings: Index,
    combinations: Sequence[tuple[int, int, int]],
    count: int,
    step: int,
    seed: int,
    effort: tuple[float, float] = EFFORT,
) -> Pairs:
    """Draw pairs of windows to mix: a combination evenly, a donning evenly among those with both parts, a window of each part.

    Both windows come from one donning, because electrodes stand elsewhere in another. The draw depends on (seed, step) alone.

    Args:
        labels: int64 `[n]`. donnings: int64 `[n]`, the recording session of each window, by which it is known who wore the band.
        combinations: (label of one part, label of the other, label of the combination).
        effort: ends of the amplitude shares, drawn uniformly for each part.

    Raises:
        EdgeError: a combination of which no donning has both parts.
    """
    random = np.random.default_rng([seed, step])
    cells = {
        (int(donning), int(label)): np.flatnonzero((donnings == donning) & (labels == label))
        for donning, label in np.unique(np.stack([donnings, labels], axis=1), axis=0)
    }
    shared = [
        [donning for donning in np.unique(donnings).tolist() if (donning, one) in cells and (donning, other) in cells]
        for one, other, _ in combinations
    ]
    for (one, other, label), having in zip(combinations, shared, strict=True):
        if not having:
            raise EdgeError(
                f"No recording holds both parts ({one} and {other}) of the combination {label}; leave it out or record them."
            )
    drawn = np.zeros((count, 3), np.int64)
    for row, which in enumerate(random.integers(len(combinations), size=count)):
        one, other, label = combinations[which]
        donning = shared[which][int(random.integers(len(shared[which])))]
        drawn[row] = random.choice(cells[donning, one]), random.choice(cells[donning, other]), label
    efforts = random.uniform(*effort, size=(2, count)).astype(np.float32)
    return Pairs(drawn[:, 0], drawn[:, 1], drawn[:, 2], efforts[0], efforts[1])


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


def combined_poses(first: Floats, second: Floats, rest: Floats) -> Floats:
    """Poses of combinations: the joints' excursions from rest add up, and end at the limits of active motion (AAOS 1965).

    Args:
        first, second: float32 `[..., 23]`, radians. rest: float32 `[23]`, the resting pose. NaN stays NaN.
    """
    low, high = POSE_LIMITS_RAD[:, 0], POSE_LIMITS_RAD[:, 1]
    return np.asarray(np.clip(first + second - rest, low, high), np.float32)
