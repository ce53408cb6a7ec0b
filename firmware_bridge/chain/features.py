"""Which features there are in C, what is called for each, and what that needs to have been computed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embridge_edge.errors import EdgeError
from embridge_edge.features import spectra
from embridge_edge.features.chain import SignalChain
from embridge_edge.features.checks import check_options
from embridge_edge.features.sums import FORMULAS, SUMS, formula_of, needed

_OF_SUMS: Mapping[str, str] = {
    "MAV": "emb_mean(sums->x.absolute)",
    "IAV": "emb_total(sums->x.absolute)",
    "MEAN": "emb_mean_of(sums)",
    "RMS": "emb_root_mean(sums->x.square)",
    "ISD": "emb_total(sums->x.square)",
    "ACT": "emb_mean(sums->x.square)",
    "VAR": "emb_variance(sums)",
    "SKEW": "emb_skewness(sums)",
    "KURT": "emb_kurtosis(sums)",
    "TM": "emb_mean(sums->x.power_3)",
    "MPK": "sums->highest",
    "LD": "emb_log_detector(sums->log_one)",
    "MSR": "emb_mean_square_root(sums->x.root_above, sums->x.root_below)",
    "MLK": "emb_mean_log_kernel(sums->x.absolute)",
    "WL": "emb_total(sums->x.step_absolute)",
    "MFL": "emb_log10_total(sums->x.step_absolute)",
    "MAVFD": "emb_mean_of_steps(sums->x.step_absolute)",
    "DASDV": "emb_root_mean_of_steps(sums->x.step_square)",
    "MZP": "emb_root_mean(sums->x.step_square)",
    "MDIFF": "emb_mean(sums->x.step_square)",
    "WAMP": "emb_number(sums->large_steps)",
    "ZC": "emb_number(sums->crossings)",
    "SSC": "emb_number(sums->turns)",
    "PAP": "emb_peak_average_power(sums->x.square, sums->x.step_square, sums->x.bend_square)",
    "COR": "emb_regularization(sums->x.square, sums->x.step_square, sums->x.bend_square)",
    "MOB": "emb_root_ratio(sums->x.step_square, sums->x.square)",
    "COMP": "emb_root_ratio(sums->x.bend_square, sums->x.step_square)",
    "M0": "emb_joined(EMB_POWER(sums->x), EMB_POWER(sums->y))",
    "M2": "emb_joined(EMB_SECOND_MOMENT(sums->x), EMB_SECOND_MOMENT(sums->y))",
    "M4": "emb_joined(EMB_FOURTH_MOMENT(sums->x), EMB_FOURTH_MOMENT(sums->y))",
    "SPARSI": "emb_joined(EMB_SPARSENESS(sums->x), EMB_SPARSENESS(sums->y))",
    "IRF": "emb_joined(EMB_IRREGULARITY(sums->x), EMB_IRREGULARITY(sums->y))",
    "WLF": "emb_joined(EMB_LENGTH_FACTOR(sums->x), EMB_LENGTH_FACTOR(sums->y))",
    "LOGMAV": "emb_log_mean(sums->x.absolute)",
    "LOGRMS": "emb_log_root_mean(sums->x.square)",
    "LOGWL": "emb_log_total(sums->x.step_absolute)",
    "LOGVAR": "emb_log_variance(sums)",
}
_OF_SPECTRA: Mapping[str, str] = {
    "MNF": "emb_mean_frequency(powers)",
    "MDF": "emb_median_frequency(powers)",
    "MNP": "emb_mean_power(powers)",
    "SM": "emb_spectral_moment(powers)",
}
_OF_PATTERNS: Mapping[str, str] = {
    "SAMPEN": "emb_sample_entropy(samples)",
    "FUZZYEN": "emb_fuzzy_entropy(samples, work)",
}
_OF_RANKS: Mapping[str, str] = {"LS": "emb_l_score(samples, work)"}

C_FEATURES: Mapping[str, str] = {**_OF_SUMS, **_OF_SPECTRA, **_OF_PATTERNS, **_OF_RANKS}
"""The C expression for each feature that there is; names as in `features.catalogue`."""

WAMP_LIMIT: float = check_options(None)["WAMP_threshold"]
"""A chain has no options: each is at its default, and thresholds other than this one are 0."""

_CENTRED = "centred_"
_NAMED_APART = ("log_one", "highest", "reference", "opened", "closed")


@dataclass(frozen=True)
class Plan:
    """What the C code of a chain's features consists of.

    Attributes:
        names: of the features, in the chain's order.
        level, step, bend: float32 sums whose terms reach no sample, one or two back, of x and, with `logarithms`, of y.
        others: further sums: crossings, turns, large_steps, highest, log_one.
        centred: highest power of x less the first sample that is summed; 0 for none.
        logarithms: whether sums over y = log(x² + 2⁻⁵²) are needed.
        block, hops, head: a window of `hops` hops and of `head` samples more; samples of a block at most.
        frame, span, stride: samples of a frame; of what is completed at once, a frame or, where frames are computed anew for each
            window, the window; and from one of these to the next.
        anew: whether frames are computed anew for each window, since the hop is no whole number of them.
        spectrum: samples of the transform, 0 for none.
        entropy, ranks: whether features of these are there.
    """

    names: tuple[str, ...]
    level: tuple[str, ...]
    step: tuple[str, ...]
    bend: tuple[str, ...]
    others: frozenset[str]
    centred: int
    logarithms: bool
    block: int
    hops: int
    head: int
    frame: int
    span: int
    stride: int
    anew: bool
    spectrum: int
    entropy: bool
    ranks: bool

    @property
    def sums(self) -> bool:
        """Whether any feature is one of sums."""
        return any(name in _OF_SUMS for name in self.names)

    @property
    def whole(self) -> bool:
        """Whether any feature needs all samples of a frame."""
        return any(name not in _OF_SUMS for name in self.names)

    @property
    def held(self) -> int:
        """Samples of each channel that are kept; 0 where sums of blocks are enough."""
        return self.span if self.whole or self.anew else 0

    @property
    def group(self) -> int:
        """Hops whose sums are kept; 0 where each block is a window."""
        return self.hops if self.sums and not self.anew and (self.head or self.hops > 1) else 0

    @property
    def work(self) -> int:
        """Numbers of room that features of whole frames need; at least one, since C has no empty array."""
        transform = 2 * self.spectrum + self.spectrum // 2 + 1 if self.spectrum else 0
        return max(1, transform, self.frame if self.ranks or "FUZZYEN" in self.names else 0)


def plan_of(chain: SignalChain) -> Plan:
    """The plan for a chain of features.

    Raises:
        EdgeError: a feature has no C yet; lists those that do.
    """
    for name in chain.features:
        if name not in C_FEATURES:
            raise EdgeError(f"Feature {name} has no C yet; train with some of {', '.join(C_FEATURES)}.")
    of_samples, of_logarithms = _sums_for([name for name in chain.features if name in _OF_SUMS], check_options(None))
    plain = {
        name
        for name in of_samples | of_logarithms
        if SUMS[name].kind == "sum" and name not in _NAMED_APART and not name.startswith(_CENTRED)
    }
    by_reach = [tuple(name for name in SUMS if name in plain and SUMS[name].reach == reach) for reach in range(3)]
    centred = [int(name.removeprefix(_CENTRED)) for name in of_samples if name.startswith(_CENTRED)]
    anew = not (chain.steps == 1 or chain.hop % chain.frame == 0)
    span = chain.window if anew else chain.frame
    stride = chain.hop if anew or chain.steps == 1 else chain.frame
    hops, head = divmod(span, stride)
    return Plan(
        names=chain.features,
        level=by_reach[0],
        step=by_reach[1],
        bend=by_reach[2],
        others=frozenset(of_samples & {"crossings", "turns", "large_steps", "highest", "log_one"}),
        centred=max(centred, default=0),
        logarithms=bool(of_logarithms),
        block=max(head, stride - head),
        hops=hops,
        head=head,
        frame=chain.frame,
        span=span,
        stride=stride,
        anew=anew,
        spectrum=spectra.size_for(chain.frame) if any(name in _OF_SPECTRA for name in chain.features) else 0,
        entropy=any(name in _OF_PATTERNS for name in chain.features),
        ranks=any(name in _OF_RANKS for name in chain.features),
    )


def calls(plan: Plan) -> list[str]:
    """C statements that write the features of one channel of one frame to `columns`."""
    lines = ["const float *powers = emb_spectrum(samples, work);"] if plan.spectrum else []
    # The spectrum lies in `work` until the features that need it are done.
    order = sorted(range(len(plan.names)), key=lambda place: plan.names[place] not in _OF_SPECTRA)
    lines += [f"columns[{place}] = {C_FEATURES[plan.names[place]]}; /* {plan.names[place]} */" for place in order]
    return lines


def _sums_for(names: Sequence[str], options: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    of_samples, of_logarithms = set[str](), set[str]()
    for name in names:
        found = needed(FORMULAS[formula_of(name, options, compat=False)].value)
        of_samples |= found[0]
        of_logarithms |= found[1]
    return of_samples, of_logarithms
