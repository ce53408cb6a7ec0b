"""Single motions in, combinations out: what mixtures are worth on longterm_shift.

    python benchmarks/combinations.py longterm_shift/

Each wearer and day is a task of its own: trained on the first two trials of the eight single motions, judged on the last two trials of
the fourteen combinations, with the band where it was. Windows of 250 ms every 50 ms, five time-domain features. Nothing that is judged
was trained on, but for the upper bound, which has the first two trials of the combinations.

* by parts: one linear discriminant for each of the seven parts (with it or without), then the motion whose parts fit best together;
  from the single motions alone, or from mixtures as well.
* whole: one linear discriminant over all motions; combinations come from mixtures alone: by the rule of learning.combinations, by the
  same without effort (the parts in full), or by the mean of two windows.

Prints how well each documented pair is found from the power over electrodes, then balanced accuracy among the fourteen and among all
twenty-two (days averaged, mean over wearers), and paired differences over wearers and seeds of the mixtures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations as pairs_of
from pathlib import Path

import numpy as np

from embridge_edge.features.catalogue import TIME_DOMAIN
from embridge_edge.features.extraction import columns_at
from embridge_edge.gestures import AND, REST
from embridge_edge.learning.baselines import lda_rows
from embridge_edge.learning.combinations import EFFORT, PairSampler, mixed_batch
from embridge_edge.learning.evaluation import Score, averaged
from embridge_edge.learning.paired import paired_difference, summary
from embridge_edge.learning.scores import balanced_accuracy
from embridge_edge.recordings.loading import read_recordings

WINDOW, HOP = 50, 10
MIXTURES = 100  # of each combination, as many as a motion has real windows, to the nearest hundred

ARMS = {
    "parts": "by parts, single motions",
    "parts_mixed": "by parts, single motions and mixtures",
    "whole_mean": "whole, mixtures by the mean of two windows",
    "whole_full": "whole, mixtures with both parts in full",
    "whole": "whole, mixtures with random effort",
    "real": "whole, real combinations (upper bound)",
}
PAIRS = (
    ("parts_mixed", "parts"),
    ("whole", "parts"),
    ("whole", "whole_mean"),
    ("whole", "whole_full"),
    ("whole", "real"),
)


@dataclass(frozen=True)
class Day:
    """Windows of one wearer's day: raw float32 `[n, samples, channels]`, motion (0 is rest), trial."""

    wearer: str
    day: int
    raw: np.ndarray
    motions: np.ndarray
    trials: np.ndarray


def motions_of(folder: Path) -> list[str]:
    """The data set's motions: rest, seven single ones, fourteen combinations."""
    return list(next(recording.gestures for recording in read_recordings(folder) if recording.gestures))


def days_of(folder: Path, motions: Sequence[str]) -> list[Day]:
    found: dict[tuple[str, int], list[tuple[np.ndarray, int, int]]] = {}
    for recording in read_recordings(folder):
        if recording.labels is None or recording.repetitions is None or recording.day is None:
            continue
        motion = motions.index(recording.gestures[recording.labels[0]])
        starts = range(0, recording.samples - WINDOW + 1, HOP)
        cut = np.stack([recording.emg[start : start + WINDOW] for start in starts])
        found.setdefault((recording.wearer, recording.day), []).append((cut, motion, int(recording.repetitions[0])))
    days = []
    for (wearer, day), parts in sorted(found.items()):
        sizes = [len(cut) for cut, _, _ in parts]
        labels, trials = (np.repeat([part[place] for part in parts], sizes) for place in (1, 2))
        raw = np.concatenate([part[0] for part in parts])
        days.append(Day(wearer, day, raw - raw.mean(axis=1, keepdims=True), labels, trials))
    return days


def features(raw: np.ndarray) -> np.ndarray:
    """Log MAV, log RMS, log WL, ZC and SSC, float32 `[n, channels × 5]`."""
    flat = np.ascontiguousarray(raw.reshape(-1, raw.shape[2]))
    starts = np.arange(len(raw)) * raw.shape[1]
    return columns_at(flat, starts, raw.shape[1], TIME_DOMAIN, 200.0)


def whole(x: np.ndarray, y: np.ndarray, asked: np.ndarray, many: int) -> np.ndarray:
    """Scores of all motions, `[n, motions]`."""
    weights, bias = lda_rows(x, y, many)
    return asked @ weights.T + bias


def by_parts(x: np.ndarray, y: np.ndarray, asked: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Log likelihood that the parts are those of each motion, `[n, motions]`; `has` is bool `[motions, parts]`."""
    scores = np.zeros((len(asked), len(has)))
    for part in range(has.shape[1]):
        odds = np.diff(whole(x, has[y, part].astype(np.int64), asked, 2), axis=1)
        scores += -np.logaddexp(0.0, np.where(has[:, part], -odds, odds))
    return scores


def judge(day: Day, seed: int, triples: list[tuple[int, int, int]], has: np.ndarray) -> list[Score]:
    many = len(has)
    first, last = day.trials <= 2, day.trials > 2
    single = first & (day.motions < 8)
    raw, motions = day.raw[single], day.motions[single]
    rest = np.square(raw[motions == 0]).mean(axis=(0, 1))
    x, asked, truth = features(raw), features(day.raw[last]), day.motions[last]

    def mixed(effort: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        donnings = np.zeros(len(motions), np.int64)
        drawn = PairSampler(motions, donnings, triples, seed, effort).draw(0, MIXTURES * len(triples))
        parts = raw[drawn.first], raw[drawn.second]
        made = mixed_batch(*parts, rest, drawn.first_effort, drawn.second_effort)
        return np.concatenate([x, features(made)]), np.append(motions, drawn.labels)

    def averaged_windows() -> tuple[np.ndarray, np.ndarray]:
        drawn = PairSampler(motions, np.zeros(len(motions), np.int64), triples, seed).draw(0, MIXTURES * len(triples))
        made = (raw[drawn.first] + raw[drawn.second]) / 2
        return np.concatenate([x, features(made)]), np.append(motions, drawn.labels)

    random, full, means = mixed(EFFORT), mixed((1.0, 1.0)), averaged_windows()
    scores = {
        "parts": by_parts(x, motions, asked, has),
        "parts_mixed": by_parts(*random, asked, has),
        "whole_mean": whole(*means, asked, many),
        "whole_full": whole(*full, asked, many),
        "whole": whole(*random, asked, many),
        "real": whole(features(day.raw[first]), day.motions[first], asked, many),
    }
    combined, found = truth >= 8, []
    for arm, table in scores.items():
        everything = np.argmax(table, axis=1)
        for metric, mask, decided in (
            ("among the fourteen", combined, 8 + np.argmax(table[:, 8:], axis=1)),
            ("among all: combinations", combined, everything),
            ("among all: single motions", ~combined, everything),
        ):
            found.append(Score(arm, seed, "day", metric, day.wearer, balanced_accuracy(truth[mask], decided[mask])))
    return found


def print_composition(days: list[Day], motions: Sequence[str], triples: list[tuple[int, int, int]]) -> None:
    """How near the power of each combination is to the sum of its parts', among all pairs of singles."""
    print("| motion | power, of the parts' together | rank of the pair among 21 |\n|---|---:|---:|")
    candidates = list(pairs_of(range(1, 8), 2))
    for one, other, label in triples:
        ratios, ranks = [], []
        for day in days:
            power = np.stack([np.square(day.raw[day.motions == m]).mean(axis=(0, 1)) for m in range(len(motions))])
            log_gap = np.array(
                [np.log(power[label] / np.maximum(power[a] + power[b] - power[0], 1e-9)) for a, b in candidates]
            )
            order = np.argsort(log_gap.var(axis=1))
            here = candidates.index((min(one, other), max(one, other)))
            ratios.append(log_gap[here].mean())
            ranks.append(int(np.flatnonzero(order == here)[0]) + 1)
        print(f"| {motions[label]} | {np.exp(np.median(ratios)):.2f} | {np.median(ranks):g} |")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--seeds", type=int, default=3)
    asked = arguments.parse_args()
    motions = motions_of(asked.data)
    made_of = {motion: motion.split(AND) if motion != REST else [] for motion in motions}
    parts = [motion for motion, of in made_of.items() if len(of) == 1]
    has = np.array([[part in of for part in parts] for of in made_of.values()])
    triples = [
        (motions.index(of[0]), motions.index(of[1]), place) for place, of in enumerate(made_of.values()) if len(of) == 2
    ]
    days = days_of(asked.data, motions)
    print_composition(days, motions, triples)
    scores = averaged(row for seed in range(asked.seeds) for day in days for row in judge(day, seed, triples, has))
    metrics = list(dict.fromkeys(row.metric for row in scores))
    print(
        f"\n| {len({row.wearer for row in scores})} wearers, {len(days)} days | {' | '.join(metrics)} |\n|---|{'---:|' * len(metrics)}"
    )
    for arm, title in ARMS.items():
        cells = [summary(scores, arm, "day", metric) for metric in metrics]
        print(f"| {title} | {' | '.join(f'{cell.mean:.3f} ± {cell.deviation or 0:.3f}' for cell in cells if cell)} |")
    print(f"\n| difference | {' | '.join(metrics)} |\n|---|{'---:|' * len(metrics)}")
    for arm, reference in PAIRS:
        gaps = [paired_difference(scores, arm, reference, "day", metric) for metric in metrics]
        cells = [f"{gap.value:+.3f} [{gap.ci_low:+.3f}, {gap.ci_high:+.3f}] {gap.verdict}" for gap in gaps if gap]
        print(f"| {ARMS[arm]} against {ARMS[reference]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
