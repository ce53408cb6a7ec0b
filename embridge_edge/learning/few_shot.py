"""Few-shot: unseen gestures from a handful of labelled windows, on the frozen embedding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embridge_edge.learning.evaluation import F1, Embedded, Judged, Score
from embridge_edge.learning.scores import balanced_accuracy, macro_f1
from embridge_edge.learning.zero_shot import of_unit_length

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

SHOTS = (1, 2, 5, 10, 20)
DRAWS = 5


def few_shot(
    judged: Judged,
    support: Embedded,
    test: Embedded,
    unseen: Index,
    centre: Floats,
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
) -> list[Score]:
    """Few-shot curve among the unseen gestures, one point per number of labelled windows and wearer.

    All shots of a draw come from one wearer: `few_shot_N` from whom it is judged on, `few_shot_others_N` from another one, drawn
    anew each time. A value is the mean over the draws. The head is the nearest class mean after the embedding's centre is
    taken off and lengths are made 1 (CL2N of Wang et al. 2019, SimpleShot), which has nothing to tune.

    A wearer who has fewer than N windows of an unseen gesture gives no shots; where nobody is left there is no row.

    Args:
        judged: arm, seed, group and names of wearers.
        support: labelled windows that shots are drawn from, none of them among `test`, nor overlapping with it.
        test: windows of the group. unseen: int64, labels to tell apart, at least two.
        centre: float32 `[embedding]`, mean embedding of the windows that the network was trained on.
    """
    test = test.only(np.isin(test.labels, unseen))
    gestures = np.intersect1d(support.labels, unseen)
    if len(gestures) < 2:
        return []
    x, queries = of_unit_length(support.embeddings - centre), of_unit_length(test.embeddings - centre)
    windows = {
        int(wearer): [np.flatnonzero((support.wearers == wearer) & (support.labels == gesture)) for gesture in gestures]
        for wearer in np.unique(support.wearers)
    }
    found = []
    for wearer in np.unique(test.wearers):
        own = test.wearers == wearer
        for count in shots:
            givers = [giver for giver, parts in windows.items() if min(map(len, parts)) >= count]
            for metric, choice in (
                (f"few_shot_{count}", [giver for giver in givers if giver == wearer]),
                (f"few_shot_others_{count}", [giver for giver in givers if giver != wearer]),
            ):
                if not choice:
                    continue
                random = np.random.default_rng([judged.seed, int(wearer), count])
                decided = []
                for _ in range(draws):
                    parts = windows[choice[int(random.integers(len(choice)))]]
                    means = np.stack([x[random.choice(part, count, replace=False)].mean(axis=0) for part in parts])
                    decided.append(gestures[_nearest_mean(queries[own], means)])
                for suffix, function in (("", balanced_accuracy), (F1, macro_f1)):
                    value = float(np.mean([function(test.labels[own], one) for one in decided]))
                    found.append(judged.row(metric + suffix, wearer, value))
    return found


def _nearest_mean(queries: Floats, means: Floats) -> Index:
    distance = np.square(means).sum(axis=1) - 2.0 * queries @ means.T
    return np.asarray(np.argmin(distance, axis=1))
