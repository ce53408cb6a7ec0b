"""What is asked for, held against the catalogue: whatever cannot be is one line that says what can."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from embridge_edge.errors import EdgeError
from embridge_edge.features.catalogue import FEATURES, GROUPS, LIBEMG, OPTIONS

if TYPE_CHECKING:
    import numpy.typing as npt


def expand(names: str | Iterable[str], compat: str | None = None) -> tuple[str, ...]:
    """Features by name: groups become their features, order is kept, what comes twice counts once.

    Args:
        names: features and groups; one text may hold several, with commas between them.

    Raises:
        EdgeError: one is unknown, lists what there is; there is none, or they are no texts.
    """
    found: dict[str, None] = {}
    for name in _listed(names):
        if name in FEATURES:
            found[name] = None
        elif name in GROUPS:
            found.update(dict.fromkeys(item for item in GROUPS[name] if item != "AR9" or compat is None))
        else:
            raise EdgeError(
                f"Unknown feature {name!r}; choose from {', '.join(FEATURES)}, or the groups {', '.join(GROUPS)}."
            )
    if not found:
        raise EdgeError("No feature given; name features or groups, such as HTD or MAV,WL.")
    return tuple(found)


def _listed(names: str | Iterable[str]) -> list[str]:
    if isinstance(names, str):
        return [name.strip() for name in names.split(",") if name.strip()]
    found = list(names) if isinstance(names, Iterable) else [names]
    for name in found:
        if not isinstance(name, str):
            raise EdgeError(f'Features are named by texts, such as "HTD" or ["MAV", "WL"], not {_kind(name)}.')
    return found


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The features of a chain: those that `names` stand for, each with one column per channel; none for raw samples.

    Raises:
        EdgeError: a name is unknown, or a feature has another number of columns; lists what there is.
    """
    found = expand(names) if names else ()
    for name in found:
        if FEATURES[name].columns is not None:
            fitting = [feature.name for feature in FEATURES.values() if feature.columns is None]
            raise EdgeError(f"A chain takes features with one column per channel, not {name}: {', '.join(fitting)}.")
    return found


def check_compat(compat: str | None) -> bool:
    """Whether LibEMG's values are wanted.

    Raises:
        EdgeError: neither None nor "libemg".
    """
    if compat is not None and not (isinstance(compat, str) and compat == LIBEMG):
        raise EdgeError(f'compat {compat!r} is unknown; leave it out, or give "libemg" for its values.')
    return compat is not None


def check_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """All options, those that are not given at their default.

    Raises:
        EdgeError: one is unknown, of another kind or out of its range; they are no mapping.
    """
    if options is not None and not isinstance(options, Mapping):
        raise EdgeError(f'Options are given by name, such as {{"WAMP_threshold": 0.01}}, not as {_kind(options)}.')
    found: dict[str, Any] = {name: option.default for name, option in OPTIONS.items()}
    for name, value in (options or {}).items():
        option = OPTIONS.get(name)
        if option is None:
            if str(name).endswith("_fs"):
                raise EdgeError(f"Option {name!r} is the sample rate; give it once as rate_hz.")
            raise EdgeError(f"Unknown option {name!r}; choose from {', '.join(OPTIONS)}.")
        number = as_number(value)
        fits = option.least <= number <= option.most and math.isfinite(number)
        if not fits or (option.whole and number != int(number)):
            kind = "a whole number" if option.whole else "a number"
            limits = f"from {option.least:g}" + (f" to {option.most:g}" if math.isfinite(option.most) else " up")
            raise EdgeError(f"Option {name} ({option.meaning}) must be {kind} {limits}, not {value!r}.")
        found[name] = int(number) if option.whole else number
    return found


def user_of(option: str) -> str:
    """The feature that an option belongs to."""
    return option.rpartition("_")[0]


def check_used(options: Mapping[str, Any] | None, names: Sequence[str], compat: str | None) -> None:
    """Refuse options that change nothing of what is asked for: whoever gives one believes that it does something.

    Args:
        options: as `check_options` takes them. names: features, groups resolved.

    Raises:
        EdgeError: names the options, and the features that would use them.
    """
    unused = [name for name in options or {} if user_of(name) not in names]
    if unused:
        users = ", ".join(dict.fromkeys(map(user_of, unused)))
        raise EdgeError(
            f"None of the features asked for uses {', '.join(unused)}; leave {'it' if len(unused) == 1 else 'them'} out, or ask "
            f"for {users} as well."
        )
    if compat is not None and "ZC_threshold" in (options or {}):
        raise EdgeError('LibEMG\'s ZC has no threshold; leave out ZC_threshold, or compat="libemg".')


def used_by(options: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, Any]:
    """Of the options those that belong to one of these features."""
    return {name: value for name, value in (options or {}).items() if user_of(name) in names}


def check_length(names: Sequence[str], length: int, channels: int, options: Mapping[str, Any]) -> None:
    """Refuse windows that are too short for one of these features, or that have too few channels.

    Raises:
        EdgeError: names the feature and the least length.
    """
    for name in names:
        least = FEATURES[name].least(options)
        if length < least:
            raise EdgeError(f"{name} needs windows of at least {least} samples, not {length}; lengthen the window.")
        if name in ("RMSPHASOR", "WLPHASOR") and channels < 2:
            raise EdgeError(f"{name} compares channels and needs at least 2, not {channels}; leave it out.")
        segments = options["MAVSLP_segment"]
        if name == "MAVSLP" and (segments - 1) * round(length / segments) >= length:
            raise EdgeError(f"MAVSLP cannot cut {length} samples into {segments} segments; use fewer.")


def check_rate(rate_hz: float) -> float:
    """The sample rate as a number.

    Raises:
        EdgeError: it is not positive and finite.
    """
    number = as_number(rate_hz)
    if not 0 < number < math.inf:
        raise EdgeError(f"rate_hz must be the sample rate in hertz, above 0, not {rate_hz!r}.")
    return number


def check_whole(what: str, value: int) -> int:
    """A count of 1 or more: threads, channels, samples of a window.

    Raises:
        EdgeError: it is no whole number, or less than 1.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise EdgeError(f"{what} must be a whole number, 1 or more, not {value!r}.")
    return int(value)


def as_numbers(what: str, given: npt.ArrayLike, shape: str) -> npt.NDArray[Any]:
    """What a caller has as an array of real numbers, in its own type.

    Args:
        what: what it is, for the message. shape: its axes, such as "[samples, channels]".

    Raises:
        EdgeError: it holds something else than numbers, is ragged or has another number of axes.
    """
    import numpy as np

    try:
        found = np.asarray(given)
    except ValueError:
        raise EdgeError(f"{what} must be numbers {shape}; here rows differ in length: cut or pad them.") from None
    if found.dtype.kind not in "iufb" or found.ndim != shape.count(",") + 1:
        raise EdgeError(f"{what} must be numbers {shape}, not {found.dtype} {list(found.shape)}.")
    return found


def as_number(value: object) -> float:
    """A value as a number; NaN where it is none: a text or a truth value is none, whatever it could be read as."""
    if isinstance(value, bool | str):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def columns(
    name: str, channels: int, rate_hz: float, length: int, options: Mapping[str, Any] | None = None
) -> list[str]:
    """Names of the columns of a feature's array, in its order: feature, channel from 0, what within it.

    "MAV_c0"; "AR_c0_1"; "DFTR_c0_20-92Hz"; "RMSPHASOR_0_1" for channels 0 and 1, "…_d" for its second half.

    Args:
        name: from `catalogue.FEATURES`. rate_hz: sample rate. length: samples in a window. options: of any feature.
    """
    feature = FEATURES[name]
    if feature.columns is None:
        return [f"{name}_c{channel}" for channel in range(channels)]
    labels = feature.columns(channels, rate_hz, length, check_options(options))
    if feature.order == "window":
        return [f"{name}_{label}" for label in labels]
    if feature.order == "channel":
        return [f"{name}_c{channel}_{label}" for channel in range(channels) for label in labels]
    return [f"{name}_c{channel}_{label}" for label in labels for channel in range(channels)]


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
