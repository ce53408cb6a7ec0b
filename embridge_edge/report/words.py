"""What models, splits and metrics are called, and how a number is written with its unit."""

from __future__ import annotations

import math

NOT_MEASURED = "not measured"
SPACE = "\u00a0"

MODELS = {
    "lda": ("LDA, 5 time-domain features", "LDA"),
    "ridge": ("ridge regression, 5 time-domain features", "ridge"),
    "supervised": ("supervised network of the teacher's size", "supervised"),
    "teacher": ("EMBridge teacher", "teacher"),
    "student": ("distilled student, float", "student"),
    "student_int8": ("distilled student, int8", "student int8"),
}
"""Long and short name of each model, in the order in which they are shown."""

BASELINES = ("lda", "ridge")
SHIPPED = ("student_int8", "student", "teacher", "supervised")
"""Which model a report is about: the first of these that was judged."""

SPLITS = {
    "session": ("unseen session", "trained on every session but each wearer's last, judged on the last"),
    "day": ("later days", "trained on each wearer's first day, judged on the other days"),
    "repetition": (
        "unseen repetitions",
        "judged on the repetitions of the data set's custom (NinaPro: 2 and 5), else on the last third of each session's; "
        "trained on the others",
    ),
    "wearer": ("unseen wearers", "folds over wearers: judged on people of whom nothing was trained on, no calibration"),
    "emg2pose_user": (
        "unseen users",
        "emg2pose's own division: judged on its held-out users in stages that were trained on",
    ),
    "emg2pose_stage": (
        "unseen stages",
        "emg2pose's own division: judged on held-out stages of users that were trained on",
    ),
    "emg2pose_user_stage": (
        "unseen users and stages",
        "emg2pose's own division: judged on held-out stages of held-out users",
    ),
}
"""What a split is called and what it means, in the order in which they are shown."""

METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "zero_shot_balanced_accuracy": "zero-shot balanced accuracy, gestures seen in training",
    "zero_shot_unseen_balanced_accuracy": "zero-shot balanced accuracy, unseen gestures",
    "class_flips": "class flips, float to int8",
    "mean_removed_error": "mean-removed error, float to int8",
    "r2": "R² of the joint angles",
}

FORMS = {
    "float": "float",
    "ptq": "int8, quantized as it is",
    "qat": "int8, trained with rounding",
    "qat_float": "its weights, not rounded",
}
"""What a student is compared as, where it was trained with the rounding of int8."""

RUNTIMES = {
    "litert": "LiteRT with XNNPACK",
    "xnnpack": "LiteRT with XNNPACK",
    "litert-xnnpack": "LiteRT with XNNPACK",
    "litert-ref": "LiteRT, reference kernels",
    "litert-reference": "LiteRT, reference kernels",
    "tflm": "TensorFlow Lite Micro on the host",
    "onnx": "ONNX Runtime",
    "onnxruntime": "ONNX Runtime",
    "torch": "PyTorch",
}

_PLAIN = ("r2", "cosine", "mean_removed_error", "relative_error", "scale")
_SUFFIXES = {
    "_ms": ("ms", 3),
    "_us": ("µs", 1),
    "_s": ("s", 2),
    "_kib": ("KiB", 4),
    "_mib": ("MiB", 4),
    "_gib": ("GiB", 3),
    "_mhz": ("MHz", 4),
    "_hz": ("Hz", 5),
    "_uj": ("µJ", 4),
    "_mj": ("mJ", 4),
    "_ma": ("mA", 4),
    "_db": ("dB", 3),
    "_deg": ("°", 3),
    "_degrees": ("°", 3),
    "_per_hour": ("per hour", 3),
}


def model_name(model: object) -> str:
    """The name people read: `student_int8` is "distilled student, int8"."""
    return MODELS[str(model)][0] if str(model) in MODELS else _spaced(model)


def form_name(form: object) -> str:
    """`qat` is "int8, trained with rounding"."""
    return FORMS[str(form)] if str(form) in FORMS else _spaced(form)


def model_short(model: object) -> str:
    """The name on a picture."""
    return MODELS[str(model)][1] if str(model) in MODELS else _spaced(model)


def model_rank(model: object) -> tuple[int, str]:
    names = list(MODELS)
    return (names.index(str(model)) if str(model) in names else len(names), str(model))


def split_name(split: object) -> str:
    return SPLITS[str(split)][0] if str(split) in SPLITS else _spaced(split)


def split_meaning(split: object) -> str:
    return SPLITS[str(split)][1] if str(split) in SPLITS else ""


def split_rank(split: object) -> tuple[int, str]:
    names = list(SPLITS)
    return (names.index(str(split)) if str(split) in names else len(names), str(split))


def metric_name(metric: object) -> str:
    return METRICS.get(str(metric)) or _spaced(metric)


def runtime_name(runtime: object) -> str:
    """`tflm` is "TensorFlow Lite Micro on the host"."""
    return RUNTIMES.get(str(runtime).lower().replace("_", "-").replace(" ", "-")) or _spaced(runtime)


def gesture_name(gesture: object) -> str:
    return _spaced(gesture)


def number(value: object) -> float | None:
    """A finite number, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def is_fraction(name: str) -> bool:
    """Whether a metric or a gate is a fraction, and is written in percent."""
    return not any(name == plain or name.endswith(plain) for plain in _PLAIN) and not any(
        name.endswith(suffix) for suffix in (*_SUFFIXES, "bytes", "steps", "macs", "parameters", "_n", "count", "ops")
    )


def quantity(name: str, value: object, digits: int = 1) -> str:
    """A number with the unit that its name carries; a fraction in percent; "not measured" for None.

    Args:
        digits: decimals of a percentage; shares below 1 % have one more.
    """
    real = number(value)
    if real is None:
        return NOT_MEASURED
    if name.endswith("bytes"):
        return size(real)
    if name.endswith("steps"):
        return f"{real:,.4g}{SPACE}{'step' if abs(real) == 1 else 'steps'}"
    if name.endswith("loss"):
        return f"{100 * real:.{digits}f}{SPACE}points".replace("-", "−")
    if name.endswith("_ms") and 0 < abs(real) < 0.1:
        return f"{significant(1000 * real, 3)}{SPACE}µs"
    for suffix, (unit, figures) in _SUFFIXES.items():
        if name.endswith(suffix):
            return f"{real:.1f}{SPACE}{unit}" if suffix == "_db" else f"{significant(real, figures)}{SPACE}{unit}"
    if any(name == plain or name.endswith(plain) for plain in _PLAIN):
        return f"{real:.{digits + 2}f}".replace("-", "−")
    if not is_fraction(name):
        return f"{real:,.0f}" if real == int(real) else significant(real, 4)
    return percent(real, digits)


def percent(value: float, digits: int = 1) -> str:
    return f"{_hundredths(value, digits)}{SPACE}%"


def interval(name: str, low: object, high: object) -> str:
    """ "41.0–49.2 %", or an empty text where there is no interval."""
    first, last = number(low), number(high)
    if first is None or last is None:
        return ""
    if is_fraction(name):
        return f"{_hundredths(first)}–{_hundredths(last)}{SPACE}%"
    if any(name.endswith(plain) for plain in _PLAIN):
        return f"{first:.3f}–{last:.3f}" if first >= 0 else f"{first:.3f} to {last:.3f}".replace("-", "−")
    return f"{significant(first, 3)}–{significant(last, 3)}"


def count(value: object, noun: str = "", plural: str = "") -> str:
    """ "1 wearer", "41,210 windows"."""
    real = number(value)
    if real is None:
        return f"{noun} not counted" if noun else NOT_MEASURED
    text = f"{real:,.0f}"
    return f"{text}{SPACE}{noun if real == 1 else plural or noun + 's'}" if noun else text


def size(value: float) -> str:
    """Bytes exactly, and in KiB or MiB from 1 KiB on."""
    exact = f"{value:,.0f}{SPACE}B"
    if value < 1024:
        return exact
    return f"{exact} ({kib(value)})"


def kib(value: float) -> str:
    """Bytes in KiB, or in MiB from 10 MiB on."""
    if value >= 10 * 2**20:
        return f"{value / 2**20:,.1f}{SPACE}MiB"
    return f"{value / 1024:,.1f}{SPACE}KiB"


def significant(value: float, figures: int) -> str:
    """A number with so many significant figures, thousands kept whole."""
    if value and abs(value) >= 10**figures:
        return f"{value:,.0f}"
    text = f"{value:.{figures}g}"
    return f"{float(text):,g}" if "e" in text and abs(value) >= 1e-4 else text


def listed(items: list[str], most: int = 12) -> str:
    """ "a, b and c"; what exceeds `most` is counted."""
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters; the middle is left out, since layers differ at their ends."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _hundredths(value: float, digits: int = 1) -> str:
    decimals = digits + 1 if 0 < abs(value) < 0.01 else digits
    # What is not quite all or not quite nothing never reads as 100 or as 0.
    while (
        decimals < 4
        and value not in (0.0, 1.0)
        and f"{100 * value:.{decimals}f}" in (f"{100:.{decimals}f}", f"{0:.{decimals}f}")
    ):
        decimals += 1
    return f"{100 * value:.{decimals}f}"


def _spaced(name: object) -> str:
    return str(name).replace("_", " ") if name not in (None, "") else "not stated"
