"""Every feature as a row of one table: what it means, what it costs, how wide it is and where it comes from.

In the formulas x is a sample, N the number of samples in a window, d[i] = x[i] − x[i−1], e[i] = d[i] − d[i−1], y = log(x² + 2⁻⁵²) and
P the power spectrum. Sums run over the terms that lie within the window. `checks` holds what is asked for against this table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from embridge_edge.features import labels

LIBEMG = "libemg"

_SOURCES = {
    "hudgins": "Hudgins, Parker and Scott, A new strategy for multifunction myoelectric control, IEEE TBME 40(1), 1993",
    "phinyomark": "Phinyomark, Phukpattaranont and Limsakul, Feature reduction and selection for EMG signal classification, Expert "
    "Systems with Applications 39(8), 2012",
    "robust": "Phinyomark et al., EMG feature evaluation for improving myoelectric pattern recognition robustness, Expert Systems "
    "with Applications 40(12), 2013",
    "difference": "Phinyomark et al., Feature extraction of the first difference of EMG time series for EMG pattern recognition, "
    "Computer Methods and Programs in Biomedicine 117(2), 2014",
    "wearable": "Phinyomark, Khushaba and Scheme, Feature extraction and selection for myoelectric control based on wearable EMG "
    "sensors, Sensors 18(5), 2018",
    "samuel": "Samuel et al., Pattern recognition of electromyography signals based on novel time domain features for amputees' limb "
    "motion classification, Computers and Electrical Engineering 67, 2018",
    "timemy": "Al-Timemy, Khushaba, Bugmann and Escudero, Improving the performance against force variation of EMG controlled "
    "multifunctional upper-limb prostheses for transradial amputees, IEEE TNSRE 24(6), 2016",
    "thongpanja": "Thongpanja et al., Probability density functions of stationary surface EMG signals in noisy environments, IEEE "
    "Transactions on Instrumentation and Measurement 65(7), 2016",
    "phasor": "Onay and Mert, Phasor represented EMG feature extraction against varying contraction level of prosthetic control, "
    "Biomedical Signal Processing and Control 59, 2020",
    "pancholi": "Pancholi, Jain, Varghese and Joshi, A novel time-domain based feature for EMG-PR prosthetic and rehabilitation "
    "application, EMBC 2019",
    "asogbon": "Asogbon et al., Enhancing the robustness of EMG-PR based system against the combined influence of force variation and "
    "subject mobility, ACIRS 2018",
    "hjorth": "Hjorth, EEG analysis based on time domain properties, Electroencephalography and Clinical Neurophysiology 29(3), 1970",
    "he": "He, Zhang, Sheng, Li and Zhu, Invariant surface EMG feature against varying contraction level for myoelectric control based "
    "on muscle coordination, IEEE JBHI 19(3), 2015",
    "richman": "Richman and Moorman, Physiological time-series analysis using approximate entropy and sample entropy, American Journal "
    "of Physiology 278(6), 2000",
    "chen": "Chen, Wang, Xie and Yu, Characterization of surface EMG signal based on fuzzy entropy, IEEE TNSRE 15(2), 2007",
    "khushaba": "Khushaba, Kodagoda, Lal and Dissanayake, Driver drowsiness classification using fuzzy wavelet-packet-based "
    "feature-extraction algorithm, IEEE TBME 58(1), 2011",
    "barachant": "Barachant, Bonnet, Congedo and Jutten, Multiclass brain-computer interface classification by Riemannian geometry, "
    "IEEE TBME 59(4), 2012",
    "ctrl": "CTRL-labs at Reality Labs, A generic non-invasive neuromotor interface for human-computer interaction, Nature 645, 2025",
    "welch": "Welch, The use of fast Fourier transform for the estimation of power spectra, IEEE Transactions on Audio and "
    "Electroacoustics 15(2), 1967",
}


class Operations(NamedTuple):
    """What a device computes for each sample and channel; what comes once per window is left out. |x| counts as a comparison."""

    multiplications: int = 0
    additions: int = 0
    comparisons: int = 0
    logarithms: int = 0
    roots: int = 0


@dataclass(frozen=True)
class Option:
    """A setting of a feature: its default, whether it is a whole number, and its range."""

    default: float
    whole: bool
    least: float
    most: float
    meaning: str


OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        "ZC_threshold": Option(0.0, False, 0.0, math.inf, "step that a crossing must exceed, in the unit of x"),
        "SSC_threshold": Option(
            0.0, False, 0.0, math.inf, "slope that one side of a turn must exceed, in the unit of x"
        ),
        "WAMP_threshold": Option(
            2e-3, False, 0.0, math.inf, "step that counts, in the unit of x: choose it by your signal"
        ),
        "AR_order": Option(4, True, 1, 64, "coefficients of AR"),
        "CC_order": Option(4, True, 1, 64, "coefficients of CC"),
        "MAVSLP_segment": Option(2, True, 2, 1024, "segments of MAVSLP"),
        "TM_order": Option(3, True, 1, 6, "order of TM"),
        "SM_order": Option(2, True, 0, 8, "order of SM"),
        "SAMPEN_dim": Option(2, True, 2, 16, "length of the patterns of SAMPEN"),
        "SAMPEN_tolerance": Option(
            0.3, False, 1e-6, 1e6, "distance of alike patterns of SAMPEN, in standard deviations"
        ),
        "FUZZYEN_dim": Option(2, True, 2, 16, "length of the patterns of FUZZYEN"),
        "FUZZYEN_tolerance": Option(0.3, False, 1e-6, 1e6, "width of FUZZYEN's likeness, in standard deviations"),
        "FUZZYEN_win": Option(2, True, 1, 8, "power of the distance in FUZZYEN's likeness"),
    }
)
"""Settings of the features, with LibEMG's names and defaults; what it calls *_fs is `rate_hz` here. Each begins with the name of the
one feature that it belongs to."""


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        name, meaning, formula: for people.
        unit: in terms of the signal's unit u.
        least: samples that a window must have; a function of the options.
        source: paper that defines it.
        module: which module computes it.
        slides: whether a stream updates it at the cost of the hop, whatever the window.
        operations: of each sample; None where they depend on the window's length, see `cost`.
        cost: of each sample, in words.
        differs: from LibEMG, unless compat="libemg"; "" where it does not.
        order: columns in LibEMG's order: "channel" has all columns of a channel together, "column" all channels of a column;
            "window" belongs to no single channel.
        columns: labels of the columns of one channel, or of a window, from channels, rate, samples and options; None for one.
    """

    name: str
    meaning: str
    formula: str
    unit: str
    least: Callable[[Mapping[str, Any]], int]
    source: str
    module: str
    slides: bool
    operations: Operations | None
    cost: str
    differs: str
    order: str
    columns: labels.Labels | None


def _sum(
    name: str,
    meaning: str,
    formula: str,
    unit: str,
    source: str,
    operations: Operations,
    least: int = 1,
    differs: str = "",
    columns: labels.Labels | None = None,
) -> Feature:
    """A feature of sums."""
    return Feature(
        name, meaning, formula, unit, lambda _: least, _SOURCES[source], "sums", True, operations, "", differs,
        "channel" if columns is None else "window", columns,
    )  # fmt: skip


def _whole(
    name: str,
    meaning: str,
    formula: str,
    unit: str,
    source: str,
    module: str,
    cost: str,
    least: int | Callable[[Mapping[str, Any]], int] = 2,
    differs: str = "",
    order: str = "channel",
    columns: labels.Labels | None = None,
) -> Feature:
    """A feature of whole windows."""
    needed = least if callable(least) else lambda _: least
    return Feature(
        name, meaning, formula, unit, needed, _SOURCES[source], module, False, None, cost, differs, order, columns
    )  # fmt: skip


_FFT = "one transform of the next power of two M: 2 log₂ M multiplications and 3 log₂ M additions, shared; then "
_WAVELET = "the wavelet decomposition, shared: 32 multiplications and 32 additions; then "
_SILENT = "0 for a window without power, where LibEMG has NaN"
_FLOORED = "logarithms are floored and ratios over 0 are 0, where LibEMG has NaN or −inf"
_SORT = "a sort: log₂ N comparisons; then 1 multiplication and 1 addition"
_ABOUT = "N comparisons of patterns: {} N {}"

_LIST = (
    _sum("MAV", "mean absolute value", "Σ|x| / N", "u", "hudgins", Operations(0, 1, 1)),
    _sum(
        "ZC",
        "zero crossings",
        "count of successive non-zero samples of different sign, further apart than ZC_threshold",
        "",
        "hudgins",
        Operations(0, 1, 2),
        2,
        "LibEMG misses a crossing that stops at zero, and has no threshold",
    ),
    _sum(
        "SSC",
        "slope sign changes",
        "count of i with d[i]·d[i−1] < 0 and one of both larger than SSC_threshold",
        "",
        "hudgins",
        Operations(1, 2, 1),
        3,
        "LibEMG counts (x[i]−x[i−1])(x[i]−x[i+1]) ≥ threshold, so that with 0 a flat signal turns at each sample",
    ),
    _sum("WL", "waveform length", "Σ|d|", "u", "hudgins", Operations(0, 2, 1), 2),
    _whole(
        "LS",
        "L-score, the second L-moment",
        "Σ (2r − N − 1) x₍ᵣ₎ / (N(N − 1)), x₍ᵣ₎ in order",
        "u",
        "wearable",
        "ranks",
        _SORT,
    ),
    _sum(
        "MFL",
        "maximum fractal length",
        "log₁₀ Σ|d|",
        "log₁₀ u",
        "robust",
        Operations(0, 2, 1),
        2,
        "the sum is floored at 1e-9, where LibEMG has −inf",
    ),
    _sum(
        "MSR",
        "mean square root",
        "|Σ√x| / N, the root of a negative sample imaginary",
        "√u",
        "samuel",
        Operations(0, 1, 1, 0, 1),
    ),
    _sum("WAMP", "Willison amplitude", "count of |d| > WAMP_threshold", "", "phinyomark", Operations(0, 2, 2), 2),
    _sum("RMS", "root mean square", "√(Σx² / N)", "u", "phinyomark", Operations(1, 1)),
    _sum("IAV", "integral of the absolute value", "Σ|x|", "u", "phinyomark", Operations(0, 1, 1)),
    _sum("DASDV", "standard deviation of the differences", "√(Σd² / (N − 1))", "u", "phinyomark", Operations(1, 2), 2),
    _sum("VAR", "variance", "Σ(x − mean)² / N", "u²", "difference", Operations(1, 3)),
    _sum(
        "M0",
        "power, from samples and their logarithms",
        "−2ab / (a² + b²), b = log(10 m₀(x)), a = log(10 m₀(y)), m₀ = (√Σx² / (N − 1))^0.1",
        "",
        "timemy",
        Operations(2, 3, 0, 1),
        2,
        _FLOORED,
    ),
    _sum(
        "M2",
        "second moment, from samples and their logarithms",
        "as M0 with log(10 |m₀ − m₂|), m₂ = √(Σd² / (N − 1))^0.1",
        "",
        "timemy",
        Operations(4, 7, 0, 1),
        2,
        _FLOORED,
    ),
    _sum(
        "M4",
        "fourth moment, from samples and their logarithms",
        "as M0 with log(10 |m₀ − m₄|), m₄ = √(Σe² / (N − 1))^0.1",
        "",
        "timemy",
        Operations(4, 9, 0, 1),
        3,
        _FLOORED,
    ),
    _sum(
        "SPARSI",
        "sparseness, from samples and their logarithms",
        "as M0 with log(√|(m₀ − m₂)(m₀ − m₄)| / m₀)",
        "",
        "timemy",
        Operations(6, 11, 0, 1),
        3,
        _FLOORED,
    ),
    _sum(
        "IRF",
        "irregularity factor, from samples and their logarithms",
        "as M0 with log(m₂ / √(m₀ m₄))",
        "",
        "timemy",
        Operations(6, 11, 0, 1),
        3,
        _FLOORED,
    ),
    _sum(
        "WLF",
        "waveform length factor, from samples and their logarithms",
        "as M0 with log √(Σ|d| / Σ|e|)",
        "",
        "timemy",
        Operations(1, 9, 4, 1),
        3,
        _FLOORED,
    ),
    _whole(
        "AR",
        "autoregressive coefficients, by Burg's method",
        "a₁ … a_order of x[i] + Σ aₖ x[i−k] = noise",
        "",
        "phinyomark",
        "prediction",
        "5 multiplications and 4 additions for each coefficient",
        lambda options: int(options["AR_order"]) + 1,
        "0 for a window that is constant or silent",
        columns=labels.orders("AR_order"),
    ),
    _whole(
        "AR9",
        "autoregressive coefficients of order 9",
        "AR with order 9",
        "",
        "phinyomark",
        "prediction",
        "45 multiplications and 36 additions",
        10,
        "LibEMG names it in COMB and leaves it out",
        columns=labels.count(9),
    ),
    _whole(
        "CC",
        "cepstral coefficients of AR",
        "c₁ = −a₁, cₚ = −aₚ − Σ (1 − l/p) aₚ cₚ₋ₗ, l from 1 to p − 1",
        "",
        "phinyomark",
        "prediction",
        "5 multiplications and 4 additions for each coefficient",
        lambda options: int(options["CC_order"]) + 1,
        "0 for a window that is constant or silent",
        columns=labels.orders("CC_order"),
    ),
    _sum(
        "LD",
        "log detector",
        "exp(Σlog(|x| + 1) / N), as the logarithm of a product",
        "",
        "phinyomark",
        Operations(1, 1, 1),
    ),
    _sum("MAVFD", "mean absolute first difference", "Σ|d| / (N − 1)", "u", "difference", Operations(0, 2, 1), 2),
    _whole(
        "MAVSLP",
        "slope of the mean absolute value",
        "differences of Σ|x| / M between successive segments of M = round(N / MAVSLP_segment) samples",
        "u",
        "phinyomark",
        "sums",
        "1 addition and 1 comparison",
        lambda options: int(options["MAVSLP_segment"]),
        "with more than two segments LibEMG mixes up windows and channels",
        order="column",
        columns=labels.slopes,
    ),
    _whole(
        "MDF",
        "median frequency",
        "lowest f with Σ P up to it above half of Σ P",
        "Hz",
        "phinyomark",
        "spectra",
        _FFT + "2 additions",
        differs=_SILENT,
    ),
    _whole(
        "MNF",
        "mean frequency",
        "Σ f P / Σ P",
        "Hz",
        "phinyomark",
        "spectra",
        _FFT + "2 multiplications, 2 additions",
        differs=_SILENT,
    ),
    _whole("MNP", "mean power", "Σ P / bins", "u²", "phinyomark", "spectra", _FFT + "1 multiplication, 1 addition"),
    _sum("MPK", "highest sample", "max x", "u", "phinyomark", Operations(0, 0, 1)),
    _sum(
        "SKEW",
        "skewness",
        "Σ(x − mean)³ / N / VAR^1.5",
        "",
        "thongpanja",
        Operations(2, 4),
        1,
        "0 for a constant window, where LibEMG has NaN",
    ),
    _sum(
        "KURT",
        "kurtosis",
        "Σ(x − mean)⁴ / N / VAR²",
        "",
        "thongpanja",
        Operations(3, 5),
        1,
        "0 for a constant window, where LibEMG has NaN",
    ),
    _sum(
        "RMSPHASOR",
        "distances between the channels' RMS as phasors around the arm, and over those of the differences",
        "log D(x), log(D(x) / D(d)), D = |RMS_a e^(2πia/C) − RMS_b e^(2πib/C)|",
        "log u",
        "phasor",
        Operations(2, 3),
        2,
        _FLOORED,
        labels.pairs,
    ),
    _sum("PAP", "peak average power", "√Σx² √Σd² / √Σe²", "u", "pancholi", Operations(3, 5), 3, "0 where Σe² is 0"),
    _sum(
        "WLPHASOR",
        "distances between the channels' WL as phasors around the arm, and over those of the differences",
        "log D(x), log(D(x) / D(d)), D = |WL_a e^(2πia/C) − WL_b e^(2πib/C)|",
        "log u",
        "phasor",
        Operations(0, 4, 2),
        3,
        _FLOORED,
        labels.pairs,
    ),
    _sum("MZP", "root mean square difference", "√(Σd² / N)", "u", "pancholi", Operations(1, 2), 2),
    _sum("TM", "absolute temporal moment", "Σ|x|^TM_order / N", "u^TM_order", "phinyomark", Operations(2, 1, 1)),
    _whole(
        "SM",
        "spectral moment",
        "Σ f^SM_order P",
        "u² Hz^SM_order",
        "phinyomark",
        "spectra",
        _FFT + "2 multiplications, 1 addition",
    ),
    _whole(
        "SAMPEN",
        "sample entropy",
        "−log of the share of patterns of SAMPEN_dim samples, alike within SAMPEN_tolerance, that stay alike one sample longer",
        "",
        "richman",
        "entropy",
        _ABOUT.format(1, "additions and comparisons"),
        lambda options: int(options["SAMPEN_dim"]) + 2,
        "0 for a constant window, where LibEMG has NaN",
    ),
    _whole(
        "FUZZYEN",
        "fuzzy entropy",
        "as SAMPEN, patterns without their mean, likeness exp(−distance^FUZZYEN_win / (FUZZYEN_tolerance · SD))",
        "",
        "chen",
        "entropy",
        _ABOUT.format(4, "additions and comparisons, 2 N exponentials"),
        lambda options: int(options["FUZZYEN_dim"]) + 3,
        "0 for a constant window, where LibEMG has NaN",
    ),
    _whole(
        "DFTR",
        "spectrum in bands",
        "(mean of √P in each band)^⅔, edges 20, 92, 163, 235, 305, 378, 450 Hz, bands below half the rate",
        "u^⅔",
        "he",
        "spectra",
        _FFT + "1 multiplication, 1 addition, 1 root",
        differs="0 for a band without a bin, where LibEMG has NaN",
        order="column",
        columns=labels.dftr_bands,
    ),
    _sum("ISD", "integral square descriptor", "Σx²", "u²", "asogbon", Operations(1, 1)),
    _sum(
        "COR",
        "coefficient of regularization",
        "Σd² / (Σe² Σx²)",
        "1/u²",
        "asogbon",
        Operations(3, 5),
        3,
        "0 where the denominator is 0",
    ),
    _sum("MDIFF", "mean difference derivative", "Σd² / N", "u²", "asogbon", Operations(1, 2), 2),
    _sum("MLK", "mean logarithm kernel", "log(Σ|x| + 2⁻⁵²) / N", "", "asogbon", Operations(0, 1, 1)),
    _sum("ACT", "activity", "Σx² / N", "u²", "hjorth", Operations(1, 1)),
    _sum(
        "MOB",
        "mobility",
        "√(Σd² / Σx²)",
        "",
        "hjorth",
        Operations(2, 3),
        2,
        "0 for a silent window, where LibEMG has NaN",
    ),
    _sum(
        "COMP",
        "complexity",
        "√(Σe² / Σd²)",
        "",
        "hjorth",
        Operations(2, 4),
        3,
        "LibEMG sums e² over all windows and channels of the call; 0 where Σd² is 0",
    ),
    _whole(
        "WENG",
        "wavelet energy",
        "log(Σw² + 1e-10) of each level of sym8",
        "log u²",
        "khushaba",
        "wavelets",
        _WAVELET + "1 multiplication, 1 addition",
        order="column",
        columns=labels.levels,
    ),
    _whole(
        "WV",
        "wavelet variance",
        "log(VAR(w²) + 1e-10) of each level",
        "log u⁴",
        "khushaba",
        "wavelets",
        _WAVELET + "2 multiplications, 3 additions",
        order="column",
        columns=labels.levels,
    ),
    _whole(
        "WWL",
        "wavelet waveform length",
        "log(Σ|w²[i] − w²[i−1]| + 1e-10) of each level",
        "log u²",
        "khushaba",
        "wavelets",
        _WAVELET + "1 multiplication, 2 additions, 1 comparison",
        differs="beside WL, LibEMG passes it the wrong options",
        order="column",
        columns=labels.levels,
    ),
    _whole(
        "WENT",
        "wavelet entropy",
        "−Σ p log p of each level, p = w² / Σw²",
        "",
        "khushaba",
        "wavelets",
        _WAVELET + "2 multiplications, 2 additions, 1 logarithm",
        differs="0 log 0 is 0, where LibEMG has NaN",
        order="column",
        columns=labels.levels,
    ),
    _sum("MEAN", "mean", "Σx / N", "u", "phinyomark", Operations(0, 2)),
    _sum("LOGMAV", "logarithm of MAV", "log max(MAV, 1e-9)", "log u", "hudgins", Operations(0, 1, 1)),
    _sum("LOGRMS", "logarithm of RMS", "log max(RMS, 1e-9)", "log u", "phinyomark", Operations(1, 1)),
    _sum("LOGWL", "logarithm of WL", "log max(WL, 1e-9)", "log u", "hudgins", Operations(0, 2, 1), 2),
    _sum("LOGVAR", "logarithm of VAR", "log max(VAR, 1e-18)", "log u²", "difference", Operations(1, 3)),
    _whole(
        "BANDPOWER",
        "power in bands",
        "Σ P of a Hann window in 20–60, 60–120, 120–200, 200–300, 300–450 Hz",
        "u²",
        "welch",
        "spectra",
        _FFT + "3 multiplications, 2 additions",
        8,
        order="column",
        columns=labels.bands,
    ),
    _whole(
        "COVARIANCE",
        "covariance of the channels",
        "Σ(xₐ − mean)(x_b − mean) / N, upper triangle row by row",
        "u²",
        "barachant",
        "multichannel",
        "½ channels multiplications and additions",
        order="window",
        columns=labels.upper,
    ),
    _whole(
        "LOGCOVARIANCE",
        "matrix logarithm of the covariance",
        "log C of the shrunk covariance, upper triangle row by row",
        "log u²",
        "barachant",
        "multichannel",
        "½ channels multiplications and additions, then eigenvalues",
        order="window",
        columns=labels.upper,
    ),
    _whole(
        "MPF",
        "multivariate power-frequency",
        "matrix logarithm of the cross-spectrum of each band, upper triangle row by row",
        "log u²",
        "ctrl",
        "multichannel",
        "one transform, then channels multiplications and additions, then eigenvalues",
        8,
        order="window",
        columns=labels.upper_of_bands,
    ),
    _whole(
        "STFT",
        "short-time spectra",
        "log P in frames of 32 ms with half overlap, frame by frame",
        "log u²",
        "welch",
        "spectra",
        "two transforms of a frame",
        8,
        columns=labels.frames,
    ),
)

FEATURES: Mapping[str, Feature] = MappingProxyType({feature.name: feature for feature in _LIST})
"""Every feature by name."""

_TDPSD = ("M0", "M2", "M4", "SPARSI", "IRF", "WLF")

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "HTD": ("MAV", "ZC", "SSC", "WL"),
        "TSTD": ("MAVFD", "DASDV", "WAMP", "ZC", "MFL", "SAMPEN", *_TDPSD),
        "DFTR": ("DFTR",),
        "ITD": ("ISD", "COR", "MDIFF", "MLK"),
        "HJORTH": ("ACT", "MOB", "COMP"),
        "LS4": ("LS", "MFL", "MSR", "WAMP"),
        "LS9": ("LS", "MFL", "MSR", "WAMP", "ZC", "RMS", "IAV", "DASDV", "VAR"),
        "TDPSD": _TDPSD,
        "TDAR": ("MAV", "ZC", "SSC", "WL", "AR"),
        "COMB": ("WL", "SSC", "LD", "AR9"),
        "MSWT": ("WENG", "WV", "WWL", "WENT"),
    }
)
"""LibEMG's groups of features; with compat="libemg" COMB is without AR9, as there."""

TIME_DOMAIN = ("LOGMAV", "LOGRMS", "LOGWL", "ZC", "SSC")
"""The five time-domain features that the LDA baseline uses."""

LOGARITHMIC = {"LOGMAV": 1.0, "LOGRMS": 1.0, "LOGWL": 1.0, "LOGVAR": 2.0}
"""Features that a gain of e^g shifts by so many g."""
