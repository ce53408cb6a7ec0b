"""The table of features is whole, and its options and groups are checked."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.features.catalogue import FEATURES, GROUPS, OPTIONS, TIME_DOMAIN
from embridge_edge.features.checks import check_names, check_options, columns, expand, user_of
from embridge_edge.features.extraction import Plan
from embridge_edge.features.rows import Rows
from embridge_edge.features.sums import FORMULAS, formula_of

LIBEMG = {
    *(
        "MAV",
        "ZC",
        "SSC",
        "WL",
        "LS",
        "MFL",
        "MSR",
        "WAMP",
        "RMS",
        "IAV",
        "DASDV",
        "VAR",
        "M0",
        "M2",
        "M4",
        "SPARSI",
        "IRF",
    ),
    *(
        "WLF",
        "AR",
        "CC",
        "LD",
        "MAVFD",
        "MAVSLP",
        "MDF",
        "MNF",
        "MNP",
        "MPK",
        "SKEW",
        "KURT",
        "RMSPHASOR",
        "PAP",
        "WLPHASOR",
    ),
    *(
        "MZP",
        "TM",
        "SM",
        "SAMPEN",
        "FUZZYEN",
        "DFTR",
        "ISD",
        "COR",
        "MDIFF",
        "MLK",
        "ACT",
        "MOB",
        "COMP",
        "WENG",
        "WV",
        "WWL",
    ),
    *("WENT", "MEAN"),
}


def test_all_of_libemg_is_there_and_what_towers_use() -> None:
    assert set(FEATURES) >= LIBEMG
    others = set(FEATURES) - LIBEMG
    assert others == {
        "AR9", "LOGMAV", "LOGRMS", "LOGWL", "LOGVAR", "BANDPOWER", "COVARIANCE", "LOGCOVARIANCE", "MPF", "STFT"
    }  # fmt: skip
    assert set(GROUPS) == {"HTD", "TSTD", "DFTR", "ITD", "HJORTH", "LS4", "LS9", "TDPSD", "TDAR", "COMB", "MSWT"}
    assert {name for group in GROUPS.values() for name in group} <= set(FEATURES)


@pytest.mark.parametrize("name", list(FEATURES))
def test_every_row_is_filled_in(name: str) -> None:
    feature = FEATURES[name]
    assert feature.name == name
    assert feature.meaning
    assert feature.formula
    assert feature.source.count(",") >= 2
    assert feature.order in ("channel", "column", "window")
    assert (feature.operations is not None) == feature.slides
    assert feature.slides or feature.cost
    assert feature.least(check_options(None)) >= 1
    if feature.slides:
        assert feature.module == "sums"
        for compat in (False, True):
            assert formula_of(name, check_options(None), compat) in FORMULAS


def test_names_of_columns() -> None:
    assert columns("MAV", 2, 1000.0, 40) == ["MAV_c0", "MAV_c1"]
    assert columns("AR", 2, 1000.0, 40, {"AR_order": 2}) == ["AR_c0_1", "AR_c0_2", "AR_c1_1", "AR_c1_2"]
    assert columns("DFTR", 2, 200.0, 40) == ["DFTR_c0_20-92Hz", "DFTR_c1_20-92Hz"]
    assert columns("RMSPHASOR", 2, 1000.0, 40) == ["RMSPHASOR_0_1", "RMSPHASOR_0_1_d"]
    assert columns("COVARIANCE", 2, 1000.0, 40) == ["COVARIANCE_0_0", "COVARIANCE_0_1", "COVARIANCE_1_1"]
    assert columns("WENT", 1, 200.0, 40)[:2] == ["WENT_c0_a5", "WENT_c0_d5"]


def test_names_and_groups_expand() -> None:
    assert expand("MAV") == ("MAV",)
    assert expand(["WL", "HTD", "RMS", "ZC"]) == ("WL", "MAV", "ZC", "SSC", "RMS")
    assert expand(["COMB"], "libemg") == ("WL", "SSC", "LD")
    assert expand(["AR9", "COMB"], "libemg") == ("AR9", "WL", "SSC", "LD")
    with pytest.raises(EdgeError, match="Unknown feature 'mav'"):
        expand(["mav"])


def test_a_chain_takes_one_column_per_channel() -> None:
    assert check_names(TIME_DOMAIN) == TIME_DOMAIN
    assert check_names(["HJORTH", "MDF"]) == ("ACT", "MOB", "COMP", "MDF")
    with pytest.raises(EdgeError, match="not COVARIANCE"):
        check_names(["COVARIANCE"])


def test_options_have_libemgs_defaults() -> None:
    found = check_options({"AR_order": 6.0, "ZC_threshold": 1})
    assert found["AR_order"] == 6
    assert isinstance(found["AR_order"], int)
    assert found["ZC_threshold"] == 1.0
    assert {name: found[name] for name in OPTIONS if name not in ("AR_order", "ZC_threshold")} == {
        "SSC_threshold": 0.0, "WAMP_threshold": 2e-3, "CC_order": 4, "MAVSLP_segment": 2, "TM_order": 3, "SM_order": 2,
        "SAMPEN_dim": 2, "SAMPEN_tolerance": 0.3, "FUZZYEN_dim": 2, "FUZZYEN_tolerance": 0.3, "FUZZYEN_win": 2,
    }  # fmt: skip


def test_each_option_belongs_to_one_feature() -> None:
    assert {user_of(option) for option in OPTIONS} <= set(FEATURES)


@pytest.mark.parametrize("option", list(OPTIONS))
def test_an_option_changes_its_feature_and_no_other(option: str) -> None:
    windows = np.random.default_rng(0).standard_normal((3, 2, 60)).astype(np.float32)
    value = {"SAMPEN_tolerance": 0.1, "FUZZYEN_tolerance": 0.1}.get(option, OPTIONS[option].default + 1)
    changed = Plan(tuple(FEATURES), 1000.0, check_options({option: value}), False).of_part(Rows.of_windows(windows))
    for name, values in (
        Plan(tuple(FEATURES), 1000.0, check_options(None), False).of_part(Rows.of_windows(windows)).items()
    ):
        assert np.array_equal(values, changed[name]) == (name != user_of(option)), name


def test_the_page_is_what_the_catalogue_says() -> None:
    root = Path(__file__).resolve().parents[2]
    specification = importlib.util.spec_from_file_location("features_table", root / "benchmarks" / "features_table.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    page = (root / "docs" / "features.md").read_text("utf-8")
    assert module.replaced(page) == page  # else: python benchmarks/features_table.py docs/features.md
