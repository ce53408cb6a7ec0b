"""One picture of a set of recordings: signals with their labels, spectrum with the mains, amplitude by gesture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.artifacts import written_by_rename
from embridge_edge.recordings.quality import MAINS_HZ, SignalQuality, centred, readable
from embridge_edge.recordings.recording import UNLABELLED, Recording

STRIP_S = 30.0
POINTS = 3000
INK, MUTED, LINE, PAPER = "#1f2430", "#6b7280", "#d9dce3", "#ffffff"
# Okabe and Ito's palette, without black and yellow: eight gestures stay apart for colour-blind readers.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7a5195", "#8a8d2a")
REST = "#9aa1ad"


def draw_recordings(
    path: Path,
    shown: Sequence[Recording],
    quality: SignalQuality,
    rms: Mapping[str, npt.NDArray[np.float64]],
    title: str,
) -> None:
    """Draw to `path` (.png, .svg or .pdf), by rename.

    Args:
        shown: one recording, of which the half minute with most going on is drawn, or short ones, drawn in a row.
        quality: of the whole set.
        rms: per gesture the amplitude of each channel, float64 `[channels]`.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = {
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "embridge-edge",
    }
    with mpl.rc_context(settings):
        lower = 3.0 + 0.19 * max(0, len(rms) - 8)
        upper = 0.9 + 0.42 * min(shown[0].channels, 16)
        figure = Figure(figsize=(12, upper + lower + 1.35), facecolor=PAPER)
        FigureCanvasAgg(figure)
        height = figure.get_figheight()
        grid = figure.add_gridspec(
            2,
            2,
            height_ratios=(upper, lower),
            width_ratios=(1.0, 1.25),
            left=0.062,
            right=0.985,
            top=1 - 0.95 / height,
            bottom=0.55 / height,
            hspace=0.75 / ((upper + lower) / 2),
            wspace=0.2,
        )
        figure.text(0.02, 1 - 0.22 / height, title, fontsize=13, fontweight="bold", va="top")
        _strip(figure.add_subplot(grid[0, :]), _in_a_row(shown), len(shown))
        _spectrum(figure.add_subplot(grid[1, 0]), quality)
        _amplitudes(figure, figure.add_subplot(grid[1, 1]), quality, rms)
        with written_by_rename(path) as temporary:
            figure.savefig(temporary, dpi=144, metadata=_undated(path))


def _undated(path: Path) -> dict[str, Any]:
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}[path.suffix.lower()]


def _heading(axes: Any, text: str, more: str = "") -> None:
    axes.annotate(text, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", fontweight="bold")
    if more:
        axes.annotate(
            more, (1, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", color=MUTED, ha="right"
        )


def _busiest(recording: Recording, length: int) -> slice:
    """The stretch of `length` samples with the most labels in it, the first of equals."""
    if recording.samples <= length or recording.labels is None:
        return slice(0, min(length, recording.samples))
    best, most = 0, -1
    for start in range(0, recording.samples - length + 1, max(1, length // 3)):
        part = recording.labels[start : start + length]
        found = len(np.unique(part[part >= 0]))
        if found > most:
            best, most = start, found
    return slice(best, best + length)


def _in_a_row(recordings: Sequence[Recording]) -> Recording:
    """Short recordings of one donning as one."""
    first = recordings[0]
    if len(recordings) == 1:
        return first
    labels = [
        np.full(part.samples, UNLABELLED, np.int16) if part.labels is None else part.labels for part in recordings
    ]
    return Recording(
        emg=np.concatenate([part.emg for part in recordings]),
        rate_hz=first.rate_hz,
        unit=first.unit,
        source=first.source,
        labels=np.concatenate(labels),
        gestures=first.gestures,
    )


def _strip(axes: Any, recording: Recording, joined: int) -> None:
    frame = max(4, round(recording.rate_hz))
    part = _busiest(recording, round(STRIP_S * recording.rate_hz))
    level = centred(recording.emg[part], frame)
    time = np.arange(part.start, part.stop) / recording.rate_hz
    spread = np.percentile(np.abs(level), 99.7, axis=0)
    step = 2.2 * float(max(spread.max(), 1e-12))
    channels = recording.channels
    tops = step * np.arange(channels)[::-1]
    labels = recording.labels[part] if recording.labels is not None else None
    if labels is not None:
        _bands(axes, labels, recording.gestures, time, tops[0] + 0.62 * step)
    for channel in range(channels):
        at, low, high = _envelope(time, level[:, channel])
        axes.fill_between(at, low + tops[channel], high + tops[channel], color=INK, linewidth=0.35, zorder=3)
    for sample in recording.breaks:
        if part.start < sample < part.stop:
            axes.axvline(sample / recording.rate_hz, color="#c0392b", linewidth=0.9, linestyle=(0, (2, 2)), zorder=4)
    axes.set_xlim(time[0], time[-1] + 1 / recording.rate_hz)
    axes.set_ylim(-0.62 * step, tops[0] + (1.0 if labels is not None else 0.62) * step)
    axes.set_yticks(tops, [f"ch {number}" for number in range(1, channels + 1)])
    axes.tick_params(axis="both", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("time, s", labelpad=2)
    factor, unit = readable(step / 2.2, recording.unit)
    more = f" and {joined - 1} more in a row" if joined > 1 else ""
    red = " · red: a break" if any(part.start < sample < part.stop for sample in recording.breaks) else ""
    _heading(axes, "Signals", f"{recording.source}{more} · ±{step / 2.2 * factor:.3g} {unit} per row{red}")


def _envelope(time: Any, values: Any) -> tuple[Any, Any, Any]:
    """Lowest and highest value per pixel column, so that a long strip keeps its peaks."""
    group = max(1, len(values) // POINTS)
    whole = len(values) // group * group
    shaped = values[:whole].reshape(-1, group)
    if group == 1:
        return time, values, values
    return time[:whole:group], shaped.min(axis=1), shaped.max(axis=1)


def _bands(axes: Any, labels: Any, gestures: Sequence[str], time: Any, top: float) -> None:
    """A tinted band behind each run of a label, with its name above where it fits."""
    edges = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1), len(labels)]
    width = time[-1] - time[0]
    for start, stop in pairwise(edges):
        label = int(labels[start])
        if label < 0:
            continue
        left, right = float(time[start]), float(time[stop - 1])
        colour = _colour(gestures, label)
        axes.axvspan(left, right, color=colour, alpha=0.10 if colour == REST else 0.18, linewidth=0, zorder=1)
        name = gestures[label].replace("_", " ")
        if (right - left) / width > 0.0068 * len(name):
            middle = (left + right) / 2
            axes.text(middle, top, name, ha="center", va="bottom", color=INK, fontsize=8.5, clip_on=True, zorder=5)


def _colour(gestures: Sequence[str], label: int) -> str:
    if gestures[label] == "rest":
        return REST
    active = [index for index, name in enumerate(gestures) if name != "rest"]
    return COLOURS[active.index(label) % len(COLOURS)]


def _spectrum(axes: Any, quality: SignalQuality) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    frequencies, density = quality.frequencies[1:], quality.power_density[1:]
    _heading(axes, "Spectrum", "amplitude density, one line per channel")
    if not quality.frames or not len(frequencies):
        axes.text(0.5, 0.5, "shorter than a second", transform=axes.transAxes, ha="center", color=MUTED)
        axes.set_axis_off()
        return
    factor, unit = readable(float(np.sqrt(density.max())), quality.unit)
    amplitude = np.sqrt(np.maximum(density, 0)) * factor
    nyquist = float(frequencies[-1])
    verdicts = quality.channels
    for mains_hz, colour in zip(MAINS_HZ, ("#8c6bb1", "#c0392b"), strict=True):
        hit = sum(channel.mains_hz == mains_hz and "mains" in channel.verdict for channel in verdicts)
        for harmonic in np.arange(mains_hz, nyquist, mains_hz):
            strong = {"linewidth": 5.0, "alpha": 0.16} if hit else {"linewidth": 0.9, "alpha": 0.5, "linestyle": ":"}
            axes.axvline(harmonic, color=colour, zorder=1, **strong)
        if mains_hz < nyquist:
            text = f"{mains_hz:g} Hz" + (f": hum on {hit} of {len(verdicts)}" if hit else "")
            side = "right" if mains_hz == MAINS_HZ[0] else "left"
            axes.annotate(
                text,
                (mains_hz, 0.985),
                (-4 if side == "right" else 4, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                color=colour,
                ha=side,
                va="top",
                fontsize=8.5,
                fontweight="bold" if hit else "normal",
            )
    for channel in range(amplitude.shape[1]):
        axes.plot(
            frequencies,
            amplitude[:, channel],
            color=COLOURS[channel % len(COLOURS)],
            linewidth=1.1,
            alpha=0.85,
            zorder=3,
        )
    positive = amplitude[amplitude > 0]
    axes.set_yscale("log")
    if len(positive):
        axes.set_ylim(float(np.percentile(positive, 0.5)) / 1.5, float(positive.max()) * 3.0)
        decades = np.log10(axes.get_ylim()[1] / axes.get_ylim()[0])
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(0, nyquist)
    axes.grid(axis="y", color=LINE, linewidth=0.6, zorder=0)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("frequency, Hz")
    axes.set_ylabel(f"{unit}/√Hz")


def _amplitudes(figure: Any, axes: Any, quality: SignalQuality, rms: Mapping[str, npt.NDArray[np.float64]]) -> None:
    rows = rms or {"all samples": quality.rms}
    values = np.stack(list(rows.values()))
    factor, unit = readable(float(values.max()), quality.unit)
    values = values * factor
    _heading(axes, "Amplitude by gesture and channel", f"RMS, {unit}")
    image = axes.imshow(values, aspect="auto", cmap="GnBu", vmin=0, vmax=float(values.max()) or 1.0)
    axes.set_xticks(range(values.shape[1]), [str(number) for number in range(1, values.shape[1] + 1)])
    axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows])
    axes.tick_params(length=0)
    for name in ("left", "bottom"):
        axes.spines[name].set_visible(False)
    axes.set_xlabel("channel")
    if len(rows) <= 24 and values.shape[1] <= 16:
        digits = 0 if values.max() >= 100 else 1 if values.max() >= 1 else 2
        for row in range(len(rows)):
            for column in range(values.shape[1]):
                dark = values[row, column] > 0.6 * values.max()
                axes.text(
                    column,
                    row,
                    f"{values[row, column]:.{digits}f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="#ffffff" if dark else INK,
                )
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=28)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
