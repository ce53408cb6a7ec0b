"""How far the simulated armband agrees with real ones: python benchmarks/synth_realism.py [--data DIR] [--picture F].

Simulated 8 × 200 Hz stands beside `myo_readings` (32 people), simulated 8 × 2 kHz brought to 250 Hz beside
`openbci_hands/s_1` (one person). Prints the table of docs/simulator.md and draws docs/pictures/synth_vs_real.svg.
"""

from __future__ import annotations

import argparse
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embridge_edge.gestures import read_library
from embridge_edge.synthesis.armband import choose_armband
from embridge_edge.synthesis.session import make_wearer, simulate_session

Array = npt.NDArray[np.float64]
ROOT = Path(__file__).resolve().parent.parent
GESTURES = (
    "rest",
    "flexion",
    "extension",
    "radial_deviation",
    "ulnar_deviation",
    "pronation",
    "supination",
    "fist",
)
GUARD_S, WINDOW_S, HOP_S = 0.3, 0.4, 0.1


@dataclass(frozen=True)
class Take:
    """One session: EMG `[samples, channels]`, labels, repetitions (both `[samples]`; 0 repetition is none)."""

    wearer: str
    session: str
    emg: Array
    labels: npt.NDArray[np.int64]
    repetitions: npt.NDArray[np.int64]
    rate_hz: float


def real_myo(folder: Path) -> Iterator[Take]:
    """The sessions of myo_readings; labels count from 0.3 s after they change."""
    for archive in sorted(folder.glob("*.tar.xz")):
        sessions: dict[str, list[Array]] = {}
        with tarfile.open(archive) as tar:
            for member in sorted(tar.getmembers(), key=lambda item: item.name):
                path = Path(member.name)
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is None or not path.stem.isdigit() or path.stem == "0":
                    continue
                rows = [line.split(",") for line in stream.read().decode(errors="replace").split()]
                numbers = [row for row in rows if len(row) == 9 and all(cell.lstrip("-").isdigit() for cell in row)]
                sessions.setdefault(path.parent.name, []).append(np.array(numbers, float))
        for name, parts in sorted(sessions.items()):
            labels = [part[:, 8].astype(np.int64) for part in parts]
            yield Take(
                name.split("-")[0],
                name,
                np.vstack([part[:, :8] for part in parts]),
                np.concatenate([_guarded(part, 200.0) for part in labels]),
                np.concatenate([_rounds(part) for part in labels]),
                200.0,
            )


def _guarded(labels: npt.NDArray[np.int64], rate_hz: float) -> npt.NDArray[np.int64]:
    """-1 for the first 0.3 s after each change."""
    result = labels.copy()
    for change in np.flatnonzero(np.diff(labels)) + 1:
        result[change : change + round(GUARD_S * rate_hz)] = -1
    return result


def _rounds(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number of the rest and gesture pair in a file."""
    starts = np.concatenate([[1], (labels[1:] == 0) & (labels[:-1] > 0)])
    return np.cumsum(starts)


def simulated(wearers: int, sessions: int, channels: int, rate_hz: float, seconds: float, seed: int) -> Iterator[Take]:
    """As many sessions of prompted gestures alone."""
    poses = read_library().poses(GESTURES).astype(float)
    for number in range(1, wearers + 1):
        wearer = make_wearer(number, seed)
        for session in range(1, sessions + 1):
            made = simulate_session(wearer, session, choose_armband(channels, rate_hz), GESTURES, poses, seconds, 0.0)
            assert made.labels is not None and made.repetitions is not None
            yield Take(
                wearer.name,
                f"{wearer.name}-{session}",
                made.emg.astype(float),
                made.labels.astype(np.int64),
                made.repetitions.astype(np.int64),
                rate_hz,
            )


@dataclass(frozen=True)
class Windows:
    """Windows of one label: RMS, zero crossings per second, kurtosis `[windows, channels]`; labels, repetitions."""

    rms: Array
    crossings_hz: Array
    kurtosis: Array
    labels: npt.NDArray[np.int64]
    repetitions: npt.NDArray[np.int64]
    wearer: str
    session: str


def windows_of(take: Take) -> Windows:
    length, hop = round(WINDOW_S * take.rate_hz), round(HOP_S * take.rate_hz)
    starts = np.arange(0, len(take.emg) - length, hop)
    pure = [s for s in starts if take.labels[s] >= 0 and (take.labels[s : s + length] == take.labels[s]).all()]
    stack = np.stack([take.emg[start : start + length] for start in pure])
    stack = stack - stack.mean(axis=1, keepdims=True)
    variance = np.maximum((stack**2).mean(axis=1), 1e-30)
    return Windows(
        np.sqrt(variance),
        (np.diff(np.signbit(stack), axis=1) != 0).sum(axis=1) / WINDOW_S,
        (stack**4).mean(axis=1) / variance**2,
        take.labels[pure],
        take.repetitions[pure],
        take.wearer,
        take.session,
    )


def spectrum(takes: list[Take]) -> tuple[Array, Array]:
    """Mean over sessions of the normalised spectrum of active samples: hertz, share of power per bin."""
    from scipy import signal

    total: Array | None = None
    for take in takes:
        active = take.emg[take.labels > 0]
        hertz, power = signal.welch(active, take.rate_hz, nperseg=round(take.rate_hz), axis=0)
        share = power.mean(axis=1) / power.mean(axis=1).sum()
        total = share if total is None else total + share
    assert total is not None
    return hertz, total / len(takes)


def neighbours(takes: list[Take]) -> Array:
    """Mean absolute correlation of the raw signals of channels 1, 2, … apart around the limb, active samples."""
    found = []
    for take in takes:
        matrix = np.abs(np.corrcoef(take.emg[take.labels > 0].T))
        channels = len(matrix)
        found.append([np.diag(np.roll(matrix, -step, axis=1)).mean() for step in range(1, channels // 2 + 1)])
    return np.asarray(np.mean(found, axis=0))


def summary(takes: list[Take], sets: list[Windows]) -> dict[str, float]:
    """The figures of the table; amplitudes are in the unit of the signal."""
    per = []
    for one in sets:
        active, rest = one.rms[one.labels > 0], one.rms[one.labels == 0]
        classes = np.stack([one.rms[one.labels == k].mean(axis=0) for k in np.unique(one.labels) if k > 0])
        per.append(
            {
                "rest RMS, median channel": float(np.median(rest)),
                "active RMS, median channel": float(np.median(active)),
                "active RMS, strongest channel": float(active.mean(axis=0).max()),
                "active RMS, 95th percentile": float(np.percentile(active, 95)),
                "active / rest": float(active.mean() / rest.mean()),
                "spread of log RMS between gestures": float(np.log(classes + 0.3).std(axis=0).mean()),
                "spread of log RMS within a gesture": float(
                    np.mean([np.log(one.rms[one.labels == k] + 0.3).std(axis=0) for k in np.unique(one.labels) if k])
                ),
                "kurtosis, active": float(np.median(one.kurtosis[one.labels > 0])),
                "kurtosis, 90th percentile": float(np.percentile(one.kurtosis[one.labels > 0], 90)),
                "zero crossings per s, active": float(np.mean(one.crossings_hz[one.labels > 0])),
                "zero crossings per s, rest": float(np.mean(one.crossings_hz[one.labels == 0])),
            }
        )
    table = {name: float(np.median([item[name] for item in per])) for name in per[0]}
    names = ("|r| of neighbours", "|r| two apart", "|r| three apart", "|r| four apart")
    return table | dict(zip(names, neighbours(takes), strict=False))


def discriminability(sets: list[Windows]) -> dict[str, float]:
    """Balanced accuracy of LDA (shrinkage, equal priors) on log RMS, four ways of splitting."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import balanced_accuracy_score

    def score(train: list[Windows], test: list[Windows], even: bool | None = None) -> float:
        def stack(parts: list[Windows], wanted: int | None) -> tuple[Array, npt.NDArray[np.int64]]:
            keep = [np.ones(len(p.labels), bool) if wanted is None else p.repetitions % 2 == wanted for p in parts]
            x = np.vstack([np.log(p.rms[k] + 0.3 * scale) for p, k in zip(parts, keep, strict=True)])
            return x, np.concatenate([p.labels[k] for p, k in zip(parts, keep, strict=True)])

        x, y = stack(train, None if even is None else 0)
        classes = len(np.unique(y))
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(classes, 1 / classes))
        u, v = stack(test, None if even is None else 1)
        return float(balanced_accuracy_score(v, model.fit(x, y).predict(u)))

    scale = 1.0 if np.median(sets[0].rms) > 0.01 else 1e-6
    people = sorted({one.wearer for one in sets})
    last = {person: max(one.session for one in sets if one.wearer == person) for person in people}
    within = [score([one], [one], even=True) for one in sets]
    own = [
        score(
            [o for o in sets if o.wearer == p and o.session != last[p]],
            [o for o in sets if o.wearer == p and o.session == last[p]],
        )
        for p in people
        if sum(o.wearer == p for o in sets) > 1
    ]
    folds = [people[index::5] for index in range(5)]
    other = []
    for fold in folds:
        train = [o for o in sets if o.wearer not in fold]
        other += [score(train, [o for o in sets if o.wearer == p]) for p in fold]
    return {
        "LDA, repetitions of one session": float(np.mean(within)),
        "LDA, the wearer's unseen session": float(np.mean(own)),
        "LDA, unseen wearer": float(np.mean(other)),
    }


def per_gesture_pattern(sets: list[Windows]) -> Array:
    """Mean over wearers of how RMS is spread over ranks of channels, `[gestures, channels]`, sorted, share of sum."""
    rows = []
    for label in range(1, len(GESTURES)):
        each = [one.rms[one.labels == label].mean(axis=0) for one in sets if (one.labels == label).any()]
        rows.append(np.mean([np.sort(item / item.sum())[::-1] for item in each], axis=0))
    return np.array(rows)


def openbci(folder: Path) -> list[Take]:
    """The four recordings of openbci_hands/s_1 in microvolts; nothing is labelled, so all counts as active."""
    takes = []
    for path in sorted((folder / "exg").glob("*.csv")):
        emg = np.genfromtxt(path, delimiter=",", skip_header=1)[:, 1:]
        emg = emg[np.isfinite(emg).all(axis=1)]
        ones = np.ones(len(emg), np.int64)
        takes.append(Take("s_1", path.stem, _band(emg, 250.0), ones, ones, 250.0))
    return takes


def as_openbci(seed: int) -> list[Take]:
    """Four simulated wearers, 8 channels, brought from 2 kHz to 250 Hz, in microvolts."""
    from scipy import signal

    takes = []
    for take in simulated(4, 1, 8, 2000.0, 60.0, seed):
        emg = _band(signal.resample_poly(take.emg * 1e6, 1, 8, axis=0), 250.0)
        ones = np.ones(len(emg), np.int64)
        takes.append(Take(take.wearer, take.session, emg, ones, ones, 250.0))
    return takes


def _band(emg: Array, rate_hz: float) -> Array:
    """20 Hz to 100 Hz, without the mains of either continent."""
    from scipy import signal

    stages = [signal.butter(4, (20.0, 100.0), "bandpass", fs=rate_hz, output="sos")]
    stages += [signal.tf2sos(*signal.iirnotch(hum, 15.0, fs=rate_hz)) for hum in (50.0, 60.0)]
    return np.asarray(signal.sosfiltfilt(np.vstack(stages), emg, axis=0))


def print_openbci(real: list[Take], made: list[Take]) -> None:
    print(f"{'8 channels at 250 Hz, 20 to 100 Hz':38} {'real':>9} {'simulated':>9}")
    columns = []
    for takes in (real, made):
        sets = [windows_of(take) for take in takes]
        columns.append(
            {
                "RMS, median window and channel, µV": np.median([np.median(one.rms) for one in sets]),
                "RMS, 95th percentile, µV": np.median([np.percentile(one.rms, 95) for one in sets]),
                "kurtosis": np.median([np.median(one.kurtosis) for one in sets]),
                "zero crossings per s": np.median([one.crossings_hz.mean() for one in sets]),
            }
        )
    for name in columns[0]:
        print(f"{name:38} {columns[0][name]:9.2f} {columns[1][name]:9.2f}")
    for step, (left, right) in enumerate(zip(neighbours(real), neighbours(made), strict=True), 1):
        print(f"{f'|r| {step} apart':38} {left:9.2f} {right:9.2f}")


def draw(
    path: Path,
    pairs: tuple[list[Take], list[Take]],
    sets: tuple[list[Windows], list[Windows]],
    scores: Array,
    others: tuple[list[Take], list[Take]],
) -> None:
    """Six panels, real in blue and simulated in orange."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "synth", "axes.grid": True})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(12.5, 7.2), layout="constrained")
    looks = (("real", "#1f5fa8", "-"), ("simulated", "#d9660a", "--"))
    (a, b, c), (d, e, f) = axes
    for (name, colour, dash), takes, windows, extra in zip(looks, pairs, sets, others, strict=True):
        hertz, power = spectrum(takes)
        a.plot(hertz[1:], 100 * power[1:], dash, color=colour, label=name)
        bins = np.geomspace(0.5, 100, 45)
        for active, alpha in ((True, 1.0), (False, 0.45)):
            rms = np.concatenate([one.rms[(one.labels > 0) == active].ravel() for one in windows])
            label = f"{name}, {'gesture' if active else 'rest'}"
            b.hist(rms, bins, density=True, histtype="step", ls=dash, color=colour, alpha=alpha, lw=1.6, label=label)
        kurtosis = np.concatenate([one.kurtosis[one.labels > 0].ravel() for one in windows])
        c.hist(kurtosis, np.linspace(1.5, 9, 50), density=True, histtype="step", ls=dash, color=colour, lw=1.6)
        d.plot(np.arange(1, 5), neighbours(takes), "o", ls=dash, color=colour)
        hertz, power = spectrum(extra)
        keep = (hertz > 15) & (hertz < 110)
        f.plot(hertz[keep], 100 * power[keep], dash, color=colour)
    places = np.arange(scores.shape[1])
    for number, (name, colour, _) in enumerate(looks):
        bars = e.bar(places + 0.4 * number - 0.2, scores[number], 0.38, color=colour, label=name)
        e.bar_label(bars, fmt="%.2f", fontsize=9)
    e.axhline(1 / len(GESTURES), color="0.4", lw=1, ls=":")
    e.set(
        xticks=places, xticklabels=["same session,\nother repetition", "same wearer,\nother session", "other\nwearer"]
    )
    e.set(ylim=(0, 1.05), title="LDA on log RMS, 8 gestures", ylabel="balanced accuracy (dotted: chance)")
    a.set(title="Spectrum of gestures, Myo at 200 Hz", xlabel="Hz", ylabel="% of power per Hz")
    b.set(title="RMS of 0.4 s windows, Myo", xlabel="counts", ylabel="density", xscale="log", yscale="log")
    b.set(ylim=(1e-4, 2))
    c.set(title="Kurtosis of 0.4 s windows, gestures, Myo", xlabel="kurtosis (3: Gaussian)", ylabel="density")
    d.set(title="Correlation of channels, gestures, Myo", xlabel="channels apart", ylabel="mean |r|", ylim=(0, None))
    d.set(xticks=range(1, 5))
    f.set(title="Spectrum, OpenBCI at 250 Hz", xlabel="Hz", ylabel="% of power per Hz", ylim=(0, None))
    a.legend()
    b.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("EMBRIDGE_DATA") or ROOT.parent / "shared/data")
    )
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--wearers", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=210.0)
    options = parser.parse_args()

    real = list(real_myo(options.data / "myo_readings"))
    made = list(simulated(options.wearers, 3, 8, 200.0, options.seconds, options.seed))
    real_windows, made_windows = [windows_of(take) for take in real], [windows_of(take) for take in made]
    left = summary(real, real_windows) | discriminability(real_windows)
    right = summary(made, made_windows) | discriminability(made_windows)
    print(f"{'8 channels at 200 Hz':38} {'real':>9} {'simulated':>9}")
    for name in left:
        print(f"{name:38} {left[name]:9.3f} {right[name]:9.3f}")
    (_, real_power), (_, made_power) = spectrum(real), spectrum(made)
    print("share of power, % per 10 Hz:")
    for name, power in (("real", real_power), ("simulated", made_power)):
        print(f"  {name:10}", " ".join(f"{100 * power[k : k + 10].sum():5.1f}" for k in range(0, 100, 10)))
    print("share of RMS by rank of channel, mean of gestures:")
    for name, sets in (("real", real_windows), ("simulated", made_windows)):
        print(f"  {name:10}", " ".join(f"{share:5.2f}" for share in per_gesture_pattern(sets).mean(axis=0)))
    others = openbci(options.data / "openbci_hands" / "s_1"), as_openbci(options.seed)
    print_openbci(*others)
    if options.picture:
        scores = np.array([[side[name] for name in side if name.startswith("LDA")] for side in (left, right)])
        draw(options.picture, (real, made), (real_windows, made_windows), scores, others)


if __name__ == "__main__":
    main()
