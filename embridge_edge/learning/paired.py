"""Whether one arm is above another: differences in pairs, with an interval over wearers and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embridge_edge.learning.evaluation import Score

DRAWS = 10_000
FEWEST_WEARERS = 3

Verdict = Literal["above", "below", "no difference", "too few wearers"]


@dataclass(frozen=True)
class Summary:
    """A number of the table: the mean over wearers for each seed, then mean and deviation over seeds.

    Attributes:
        mean: a fraction. deviation: standard deviation over seeds (n − 1), None with one seed.
        seeds, wearers: how many. by_wearer: each wearer's mean over seeds.
    """

    mean: float
    deviation: float | None
    seeds: int
    wearers: int
    by_wearer: dict[str, float]


@dataclass(frozen=True)
class Difference:
    """An arm minus its reference, in pairs of the same wearer and the same seed.

    Attributes:
        value: mean difference, a fraction. ci_low, ci_high: 95 % interval, None with fewer than three wearers.
        wearers, seeds: how many the two arms have in common.
        verdict: "above" or "below" only where the interval excludes 0.
    """

    arm: str
    reference: str
    group: str
    metric: str
    value: float
    ci_low: float | None
    ci_high: float | None
    wearers: int
    seeds: int
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summary(scores: Iterable[Score], arm: str, group: str, metric: str) -> Summary | None:
    """One cell of the table; None where nothing was judged."""
    table = _table(scores, arm, group, metric)
    if not table:
        return None
    seeds = sorted({seed for _, seed in table})
    wearers = sorted({wearer for wearer, _ in table})
    means = [np.mean([value for (_, own), value in table.items() if own == seed]) for seed in seeds]
    by_wearer = {
        wearer: float(np.mean([value for (own, _), value in table.items() if own == wearer])) for wearer in wearers
    }
    deviation = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return Summary(float(np.mean(means)), deviation, len(seeds), len(wearers), by_wearer)


def paired_difference(
    scores: Iterable[Score], arm: str, reference: str, group: str, metric: str, seed: int = 0
) -> Difference | None:
    """An arm minus its reference, with a 95 % interval by a two-way bootstrap; None without a pair.

    Wearers and seeds are resampled independently of each other (the pigeonhole bootstrap, Owen 2007), 10,000 times; a draw's
    value is the mean over its grid of wearers and seeds. Wearers count who have both arms under all common seeds.

    What the interval cannot cover: it resamples only the seeds it has. With one seed it says nothing about another training
    of the same arms; with two or three it sees a part of that spread (the bootstrap of n values is too narrow by about
    √((n − 1) / n), .82 with three). Nor does it hold for other recordings, or for many comparisons at once: of twenty
    without any effect, one is expected to exclude 0.
    """
    rows = list(scores)
    ours, theirs = _table(rows, arm, group, metric), _table(rows, reference, group, metric)
    common = ours.keys() & theirs.keys()
    seeds = sorted({seed for _, seed in common})
    wearers = sorted(
        {wearer for wearer, _ in common if all((wearer, seed) in common for seed in seeds)},
    )
    if not wearers:
        return None
    gaps = np.array([[ours[wearer, one] - theirs[wearer, one] for one in seeds] for wearer in wearers])
    low, high = _interval(gaps, seed) if len(wearers) >= FEWEST_WEARERS else (None, None)
    return Difference(
        arm, reference, group, metric, float(gaps.mean()), low, high, len(wearers), len(seeds), _verdict(low, high)
    )


def paired_differences(
    scores: Sequence[Score], pairs: Iterable[tuple[str, str]], group: str, metric: str
) -> list[Difference]:
    """The differences of several (arm, reference) pairs; a pair without common rows is left out."""
    found = [paired_difference(scores, arm, reference, group, metric) for arm, reference in pairs]
    return [one for one in found if one is not None]


def _table(scores: Iterable[Score], arm: str, group: str, metric: str) -> dict[tuple[str, int], float]:
    return {
        (row.wearer, row.seed): row.value
        for row in scores
        if (row.arm, row.group, row.metric) == (arm, group, metric) and np.isfinite(row.value)
    }


def _interval(gaps: npt.NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Percentile interval of the mean of `[wearers, seeds]`, both sides resampled."""
    random = np.random.default_rng(seed)
    wearers, seeds = (
        random.multinomial(count, np.full(count, 1.0 / count), size=DRAWS) / count for count in gaps.shape
    )
    means = np.einsum("bw,ws,bs->b", wearers, gaps, seeds, optimize=True)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _verdict(low: float | None, high: float | None) -> Verdict:
    if low is None or high is None:
        return "too few wearers"
    return "above" if low > 0 else "below" if high < 0 else "no difference"
