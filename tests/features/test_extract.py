"""`extract` takes what people have, gives each window what it would have alone, and refuses in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.features import FEATURES, GROUPS, extract
from embridge_edge.features.catalogue import LIBEMG
from embridge_edge.features.checks import columns
from embridge_edge.features.extraction import columns_at, of_rows
from embridge_edge.features.rows import Rows

ALL = list(FEATURES)


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((21, 3, 130)).astype(np.float32)


@pytest.mark.parametrize("compat", [None, LIBEMG])
def test_every_feature_has_the_columns_that_the_catalogue_says(windows: np.ndarray, compat: str | None) -> None:
    got = extract(windows, ALL, 1000.0, compat)
    assert list(got) == ALL
    for name, values in got.items():
        assert values.dtype == np.float32
        assert values.shape == (21, len(columns(name, 3, 1000.0, 130))), name
        assert len(set(columns(name, 3, 1000.0, 130))) == values.shape[1]
        assert values.flags.c_contiguous, name


@pytest.mark.parametrize("count", [0, 1])
def test_no_window_and_one_give_no_row_and_one(windows: np.ndarray, count: int) -> None:
    whole = extract(windows[:1], ALL, 1000.0)
    got = extract(windows[:count], ALL, 1000.0)
    for name in ALL:
        assert got[name].shape == (count, whole[name].shape[1]), name
        np.testing.assert_array_equal(got[name], whole[name][:count])


def test_a_window_alone_has_the_bits_that_it_has_among_others(windows: np.ndarray) -> None:
    whole = extract(windows, ALL, 1000.0)
    for index in (0, 7, 20):
        alone = extract(windows[index : index + 1], ALL, 1000.0)
        for name in ALL:
            np.testing.assert_array_equal(alone[name][0], whole[name][index], err_msg=name)


@pytest.mark.parametrize("threads", [2, 3, 50])
def test_threads_change_nothing(windows: np.ndarray, threads: int) -> None:
    whole, split = (extract(windows, ALL, 1000.0, threads=n) for n in (1, threads))
    for name in ALL:
        np.testing.assert_array_equal(split[name], whole[name], err_msg=name)


def test_threads_change_nothing_of_what_libemg_takes_from_all_windows(windows: np.ndarray) -> None:
    options = {"MAVSLP_segment": 3}
    one, two = (extract(windows, ("COMP", "MAVSLP"), 1000.0, LIBEMG, options, threads) for threads in (1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    x = windows.astype(np.float64)
    expected = np.sqrt(np.sum(np.diff(x, 2) ** 2) / np.sum(np.diff(x) ** 2, axis=2))
    np.testing.assert_allclose(one["COMP"], expected, rtol=1e-6)


@pytest.mark.parametrize("names", [("WL", "HTD", "VAR"), ("HJORTH", "MAV", "HJORTH"), ("SSC", "ACT", "LS", "MAV")])
def test_groups_and_features_mix_and_keep_their_order(names: tuple[str, ...]) -> None:
    windows = np.random.default_rng(0).standard_normal((2, 2, 10)).astype(np.float32)
    expected = list(dict.fromkeys(item for name in names for item in GROUPS.get(name, (name,))))
    got = extract(windows, names, 200.0)
    assert list(got) == expected
    for name, values in got.items():
        np.testing.assert_allclose(values, extract(windows, name, 200.0)[name], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float64, np.bool_])
def test_other_numbers_are_converted_first(dtype: Any) -> None:
    windows = (100 * np.random.default_rng(0).standard_normal((3, 2, 40))).clip(-127, 127).astype(dtype)
    got, expected = (extract(given, ("HTD", "RMS", "AR"), 200.0) for given in (windows, windows.astype(np.float32)))
    for name in got:
        np.testing.assert_array_equal(got[name], expected[name])


def test_views_are_taken_as_they_are() -> None:
    signal = np.random.default_rng(0).standard_normal((4, 200)).astype(np.float32)
    view = np.lib.stride_tricks.sliding_window_view(signal, 40, axis=1)[:, ::10].transpose(1, 0, 2)
    got, copied = extract(view, "HTD", 200.0), extract(view.copy(), "HTD", 200.0)
    for name in got:
        np.testing.assert_array_equal(got[name], copied[name])
    rows = Rows.of_signal(signal, np.arange(0, 161, 10), 40)
    for name, values in of_rows(rows, "HTD", 200.0).items():
        np.testing.assert_array_equal(values, got[name])


@pytest.mark.parametrize("starts", [[0, 10, 20, 30], [500, 3], [7], []])
def test_columns_of_a_signal_are_those_of_its_windows(starts: list[int]) -> None:
    signal = np.random.default_rng(0).standard_normal((600, 3)).astype(np.float32)
    at = np.array(starts, np.int64)
    got = columns_at(signal, at, 40, ("WL", "ZC"), 200.0)
    windows = signal[at[:, None] + np.arange(40)].transpose(0, 2, 1).reshape(-1, 3, 40)
    found = extract(windows, ("WL", "ZC"), 200.0)
    np.testing.assert_array_equal(got[:, ::2], found["WL"])
    np.testing.assert_array_equal(got[:, 1::2], found["ZC"])


def test_a_broken_sample_makes_its_channel_nan_for_every_feature(windows: np.ndarray) -> None:
    broken = windows.copy()
    broken[3, 1, 60] = np.nan
    for compat in (None, LIBEMG):
        got = extract(broken, [name for name in ALL if name != "COMP" or compat is None], 1000.0, compat)
        for name, values in got.items():
            bad = np.isnan(values)
            assert not np.delete(bad, 3, axis=0).any(), name
            own = [("_c1" in label) or FEATURES[name].order == "window" for label in columns(name, 3, 1000.0, 130)]
            if FEATURES[name].order == "window":
                assert bad[3].any(), name
            else:
                np.testing.assert_array_equal(bad[3], own, err_msg=name)


def test_silent_and_constant_windows_are_finite() -> None:
    windows = np.zeros((2, 3, 130), np.float32)
    windows[1] = 5.0
    for name, values in extract(windows, ALL, 1000.0).items():
        assert np.isfinite(values).all(), name


@pytest.mark.parametrize("value", [1e-30, 1e12])
def test_extreme_amplitudes_are_finite(value: float) -> None:
    windows = (value * np.random.default_rng(0).standard_normal((2, 3, 130))).astype(np.float32)
    for name, values in extract(windows, [n for n in ALL if n not in ("TM", "WV")], 1000.0).items():
        assert np.isfinite(values).all(), name


def refused(says: str, names: str | Sequence[str] = "HTD", shape: tuple[int, ...] = (2, 3, 40), **given: Any) -> None:
    windows = given.pop("windows", np.zeros(shape, np.float32))
    rate_hz = given.pop("rate_hz", 200.0)
    with pytest.raises(EdgeError, match=says) as caught:
        extract(windows, names, rate_hz, **given)
    assert "\n" not in str(caught.value)


def test_what_makes_no_sense_is_refused_in_one_line() -> None:
    refused(r"Unknown feature 'XYZ'; choose from MAV, .* or the groups HTD,", ("MAV", "XYZ"))
    refused("Unknown option 'MAV_order'; choose from ZC_threshold", options={"MAV_order": 2})
    refused("give it once as rate_hz", options={"MDF_fs": 2000})
    refused("must be a whole number from 1 to 64, not 2.5", options={"AR_order": 2.5})
    refused("must be a number from 0 up, not nan", options={"ZC_threshold": float("nan")})
    refused("not True", options={"AR_order": True})
    refused(r"Windows must be numbers \[windows, channels, samples\], not float32 \[2, 3\]", shape=(2, 3))
    refused(r"Windows must be numbers .*, not <U1", windows=np.full((1, 1, 40), "a"))
    refused("ZC needs windows of at least 2 samples, not 1", shape=(2, 3, 1))
    refused("MAV needs windows of at least 1 samples, not 0", "MAV", shape=(2, 3, 0))
    refused("AR9 needs windows of at least 10 samples, not 9", "COMB", shape=(2, 3, 9))
    refused("RMSPHASOR compares channels and needs at least 2", "RMSPHASOR", shape=(2, 1, 40))
    refused("MAVSLP cannot cut 6 samples into 4 segments", "MAVSLP", shape=(1, 1, 6), options={"MAVSLP_segment": 4})


@pytest.mark.parametrize("names", [[], (), "", " , "])
def test_no_feature_is_refused(names: Any) -> None:
    refused("No feature given; name features or groups", names)


@pytest.mark.parametrize("names", [None, 3, ["MAV", None], [["MAV"]], b"MAV"])
def test_names_that_are_no_texts_are_refused(names: Any) -> None:
    refused("Features are named by texts, such as", names)


@pytest.mark.parametrize("given", [["AR_order"], [("AR_order", 2)], "AR_order=2", 4])
def test_options_that_are_no_mapping_are_refused(given: Any) -> None:
    refused("Options are given by name, such as", "AR", options=given)


@pytest.mark.parametrize("value", [None, "6", True, [6], {}, 10**400, np.ones(2)])
def test_values_of_options_that_are_no_numbers_are_refused(value: Any) -> None:
    refused("AR_order .* must be a whole number from 1 to 64, not ", "AR", options={"AR_order": value})


def test_names_of_options_that_are_no_texts_are_refused() -> None:
    refused("Unknown option 4; choose from", options={4: 4})


@pytest.mark.parametrize("threads", [0, -1, 2.5, 2.0, "2", None, True])
def test_threads_that_are_no_count_are_refused(threads: Any) -> None:
    refused("threads must be a whole number, 1 or more, not ", threads=threads)


@pytest.mark.parametrize("rate_hz", [0.0, -1, None, "200", True, np.ones(2), float("nan"), float("inf"), 1j, []])
def test_rates_that_are_none_are_refused(rate_hz: Any) -> None:
    refused("rate_hz must be the sample rate in hertz", rate_hz=rate_hz)


@pytest.mark.parametrize("compat", ["matlab", 1, ["libemg"], np.array(["libemg", "libemg"])])
def test_other_libraries_are_refused(compat: Any) -> None:
    refused("compat .* is unknown", compat=compat)


@pytest.mark.parametrize(
    ("windows", "says"),
    [
        ([[[1.0, 2.0, 3.0], [1.0, 2.0]]], "rows differ in length: cut or pad them"),
        (None, "not object"),
        ([[["a", "b"]]], "not <U1"),
        (np.zeros((1, 1, 40), complex), "not complex128"),
    ],
)
def test_windows_that_are_no_array_of_numbers_are_refused(windows: Any, says: str) -> None:
    refused(rf"Windows must be numbers \[windows, channels, samples\].*{says}", windows=windows)


def test_options_that_none_of_the_features_uses_are_refused() -> None:
    refused(
        "None of the features asked for uses AR_order; leave it out, or ask for AR as well.", options={"AR_order": 4}
    )
    given = {"ZC_threshold": 0.1, "SAMPEN_dim": 2, "SAMPEN_tolerance": 0.2, "CC_order": 4}
    says = "uses SAMPEN_dim, SAMPEN_tolerance, CC_order; leave them out, or ask for SAMPEN, CC as well"
    refused(says, options=given)
    refused("LibEMG's ZC has no threshold; leave out ZC_threshold, or", compat=LIBEMG, options={"ZC_threshold": 0.1})
    assert extract(np.ones((1, 2, 40)), "TSTD", 200.0, options={"ZC_threshold": 0.1, "SAMPEN_dim": 3})


@pytest.mark.parametrize("name", ALL)
def test_the_shortest_windows_are_taken(name: str) -> None:
    from embridge_edge.features.checks import check_options

    least = FEATURES[name].least(check_options(None))
    windows = np.random.default_rng(0).standard_normal((2, 2, least)).astype(np.float32)
    for values in extract(windows, name, 200.0).values():
        assert np.isfinite(values).all()


def test_libemgs_combination_is_without_the_feature_that_it_leaves_out(windows: np.ndarray) -> None:
    assert list(extract(windows, "COMB", 1000.0, LIBEMG)) == ["WL", "SSC", "LD"]
    assert list(extract(windows, "COMB", 1000.0)) == ["WL", "SSC", "LD", "AR9"]


def test_importing_the_package_loads_no_compiler() -> None:
    code = (
        "import sys, embridge_edge.features as f; f.FEATURES; assert not {'numba', 'scipy', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
