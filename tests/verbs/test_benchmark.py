"""`benchmark` on people made in seconds: every arm gets its rows, nothing is done twice, and what cannot be judged is one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embridge_edge.cli import run
from embridge_edge.errors import EdgeError
from embridge_edge.gestures import read_library
from embridge_edge.learning.splits import training_windows
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.checkpoint import load_checkpoint
from embridge_edge.recipe import Recipe, arms_of, find_recipe
from embridge_edge.verbs.benchmark import benchmark
from embridge_edge.verbs.comparing import divisions, permuted_library
from embridge_edge.verbs.scoring import read_scores
from embridge_edge.verbs.sides import sides_of
from embridge_edge.verbs.synth import synth
from embridge_edge.verbs.workflow import short_hash

RECIPE = """
name = "mini"
target = "host"
[chain]
window_ms = 400.0
hop_ms = 50.0
bandpass_hz = false
features = ["LOGRMS", "ZC"]
frame_ms = 50.0
[windows]
guard_ms = 0.0
hold_out_gestures = ["point", "supination"]
[teacher]
patch_ms = 100.0
emg_width = 8
emg_blocks = 1
pose_width = 8
pose_blocks = 1
query_blocks = 2
queries = 2
heads = 2
embedding = 8
[train]
batch = 16
draw_over = "wearers"
pose_steps = 2
masked_steps = 2
steps = 3
label_weight = 0.0
soft_targets = "cascle"
reconstruct_weight = 1.0
[evaluate]
probe_windows = 300
[simulate]
wearers = 4
sessions = 2
seconds = 45.0
channels = 8
rate_hz = 200.0
free_share = 0.2
[benchmark]
seeds = [0, 1]
unseen_wearers = 1
test_windows = 300
shares = [0.5]
arms = ["lda", "ridge", "masked", "supervised", "regression", "cpep", "qformer", "embridge", "no_qformer", "softclip", "poses"]
"""


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "mini.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def done(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("benchmark") / "out"
    benchmark(str(mini), out)
    return out


@pytest.mark.slow
def test_every_arm_is_judged_with_every_seed_on_both_groups(done: Path, mini: Path) -> None:
    content = json.loads((done / "benchmark.json").read_text())
    found = {(row["arm"], row["seed"], row["group"], row["metric"]) for row in content["scores"]}
    for arm, seed, group in (
        (a, s, g)
        for a in find_recipe(str(mini)).benchmark.arms
        for s in (0, 1)
        for g in ("seen_wearers", "unseen_wearers")
    ):
        probed = {metric for one, two, three, metric in found if (one, two, three) == (arm, seed, group)}
        assert ({"lp_seen", "lp_unseen", "lp_unseen_f1"} <= probed) == (arm != "ridge"), arm
        posed = arm not in ("lda", "masked", "supervised")
        assert ({"zs_seen", "zs_unseen", "zs_all_unseen", "zs_harmonic"} <= probed) == posed, arm
        if arm not in ("lda", "ridge"):
            assert {"few_shot_1", "few_shot_others_1"} <= probed
            assert "attr_unseen" in probed
    assert {"zs_unseen@50", "lp_unseen@50"} <= {metric for _, _, _, metric in found}
    assert all(
        0.0 <= row["value"] <= 1.0 for row in content["scores"] if row["metric"] != "r2@50" and row["metric"] != "r2"
    )
    assert content["groups"] == {"seen_wearers": 3, "unseen_wearers": 1}
    for name in ("benchmark.md", "benchmark.html"):
        assert "EMBridge" in (done / name).read_text()


@pytest.mark.slow
def test_nothing_is_done_twice_and_a_new_arm_uses_the_same_towers(done: Path, mini: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / "work").rglob("step.json")}
    assert any(path.parent.name == "held.seed0.towers" for path in before)
    report = benchmark(str(mini), done, arms=["lda", "embridge", "smoothing"], seeds=[0])
    after = {path: path.stat().st_mtime_ns for path in (done / "work").rglob("step.json")}
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in after.keys() - before.keys()} == {
        "held.seed0.smoothing", "held.seed0.smoothing.scores",
    }  # fmt: skip
    assert report.text().count("Label smoothing in the place of CASCLe") >= 1


@pytest.mark.slow
def test_no_network_has_seen_held_out_gestures_or_wearers(done: Path, mini: Path) -> None:
    recipe = find_recipe(str(mini))
    windows = WindowSet.load(done / "work" / "windows").holding_out(recipe.windows.hold_out_gestures)
    sides = sides_of(windows, recipe)
    train = training_windows(windows, sides.split)
    names = {windows.gestures[label] for label in np.unique(windows.labels[train]) if label >= 0}
    assert not names & set(recipe.windows.hold_out_gestures)
    assert "w004" not in {windows.wearer_names[wearer] for wearer in np.unique(windows.wearers[train])}
    assert not set(windows.sessions[train]) & set(windows.sessions[sides.split.test])
    assert set(np.unique(windows.wearers[sides.groups["unseen_wearers"]])) == {windows.wearer_names.index("w004")}
    # What the checkpoints themselves say: rows of the label head stay 0 where no window taught the gesture.
    trained = load_checkpoint(done / "work" / "held.seed0.supervised")
    head = trained.heads[0]
    taught = {name for name, row in zip(head.names, head.rows, strict=True) if np.any(row)}
    assert taught == set(windows.gestures) - set(recipe.windows.hold_out_gestures)
    seen = set(trained.provenance["seen_wearers"])
    assert seen == {short_hash(name) for name in ("w001", "w002", "w003")}


@pytest.mark.slow
def test_damaged_towers_are_one_line_and_nothing_is_lost(
    done: Path, mini: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    towers = done / "work" / "held.seed0.towers" / "towers.safetensors"
    whole, table = towers.read_bytes(), (done / "benchmark.json").read_bytes()
    towers.write_bytes(whole[: len(whole) // 2])
    try:
        status = run(
            ["benchmark", "--recipe", str(mini), "--out", str(done), "--arms", "no_mprl", "--seeds", "1", "--quiet"]
        )
        said = capsys.readouterr().err.strip()
    finally:
        towers.write_bytes(whole)
    assert status == 2
    assert len(said.splitlines()) == 1
    assert "towers.safetensors" in said
    assert (done / "benchmark.json").read_bytes() == table


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ('arms = ["lda", "embrige"]', "Unknown arm 'embrige'; choose from lda, ridge, masked"),
        ('arms = ["lda", "lda"]', "give one or more, each once"),
        ("seeds = []", "give one or more, each once"),
        ("seed = [1]", "unknown key 'seed'; choose from arms, reference, seeds"),
        ("unseen_wearers = 1.5", "unseen_wearers: 1.5 is not of type int"),
        ("shares = [1.5]", "give shares between 0 and 1"),
        ('every_pair_of = ["fist"]', "names one gesture"),
    ],
)
def test_wrong_recipe_is_one_line(tmp_path: Path, changed: str, says: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(f'name = "wrong"\ntarget = "host"\n[benchmark]\n{changed}\n')
    with pytest.raises(EdgeError, match=says) as caught:
        benchmark(str(file), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_arm_that_changes_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        'name = "own"\ntarget = "host"\n[arms.mine]\ntitle = "Mine"\nchanges = { "train.temprature" = 1.0 }\n'
        '[benchmark]\narms = ["mine"]\n[simulate]\n'
    )
    with pytest.raises(EdgeError, match=r"Unknown recipe key 'train.temprature'"):
        benchmark(str(file), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_recipe_that_simulates_nothing_wants_data(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="simulates nothing; give recordings with --data"):
        benchmark("quick", tmp_path / "out")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "few"
    synth(
        out,
        wearers=2,
        sessions=2,
        seconds=20.0,
        channels=8,
        rate_hz=200.0,
        gestures=("rest", "fist", "flexion", "point"),
    )
    return out


@pytest.mark.parametrize(
    ("gestures", "unseen_wearers", "says"),
    [
        (["point"], 0, "holds out one gesture"),
        (["point", "wave"], 0, "holds out 'wave', which these recordings lack; they have rest"),
        (["point", "fist"], 2, "unseen_wearers is 2 in the recipe, and these recordings have 2 wearers"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_trains(
    recordings: Path, mini: Path, tmp_path: Path, gestures: list[str], unseen_wearers: int, says: str
) -> None:
    text = mini.read_text().replace('["point", "supination"]', json.dumps(gestures))
    file = tmp_path / "other.toml"
    file.write_text(text.replace("unseen_wearers = 1", f"unseen_wearers = {unseen_wearers}"))
    with pytest.raises(EdgeError, match=says):
        benchmark(str(file), tmp_path / "out", data=recordings)
    assert not list((tmp_path / "out").rglob("towers.safetensors"))


def test_folder_of_something_else_is_left_alone(mini: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(EdgeError, match="did not write"):
        benchmark(str(mini), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "all of it"


def test_seven_gestures_have_twenty_one_pairs() -> None:
    names = ("flexion", "extension", "radial_deviation", "ulnar_deviation", "pronation", "supination", "fist")
    recipe = Recipe("x", "host")
    held = divisions(replace(recipe, benchmark=replace(recipe.benchmark, every_pair_of=names)))
    assert len({one.tag for one in held}) == 21
    assert held[0].recipe(recipe).windows.hold_out_gestures == ("flexion", "extension")


def test_permuted_poses_are_the_same_poses_with_other_gestures() -> None:
    library, names = read_library(), ("rest", "fist", "flexion", "point")
    dealt = permuted_library(library, names, 3)
    for name in names:
        assert not np.array_equal(dealt.poses((name,)), library.poses((name,)))
    assert {dealt.poses((name,)).tobytes() for name in names} == {library.poses((name,)).tobytes() for name in names}
    assert np.array_equal(dealt.poses(("hook",)), library.poses(("hook",)))


def test_shipped_arms_change_what_recipes_have() -> None:
    from embridge_edge.recipe import arm_recipe

    recipe = find_recipe("tiny")
    for name, arm in arms_of(recipe).items():
        changed = arm_recipe(recipe, name).to_dict()
        for place, value in arm.changes.items():
            section, key = place.split(".")
            assert changed[section][key] == value
            assert recipe.to_dict()[section][key] != value, f"{name} changes {place} to what tiny has"


@pytest.mark.slow
def test_pairs_of_real_gestures_with_their_control(data: Path, tmp_path: Path, mini: Path) -> None:
    chosen = tmp_path / "few"
    chosen.mkdir()
    for archive in sorted((data / "myo_readings").glob("*.tar.xz"))[:3]:
        (chosen / archive.name).symlink_to(archive)
    text = mini.read_text().replace("shares = [0.5]", 'shares = []\nevery_pair_of = ["fist", "flexion", "extension"]')
    text = text[: text.index("arms =")] + 'arms = ["ridge", "embridge", "permuted"]\n'
    file = tmp_path / "pairs.toml"
    file.write_text(text.replace('hold_out_gestures = ["point", "supination"]', "hold_out_gestures = []"))
    report = benchmark(str(file), tmp_path / "out", data=chosen, seeds=[0])
    assert [one["unseen"] for one in report.content["divisions"]] == [
        ["fist", "flexion"], ["fist", "extension"], ["flexion", "extension"],
    ]  # fmt: skip
    rows = [row for row in report.content["scores"] if row["metric"] == "zs_unseen"]
    assert {row["arm"] for row in rows} == {"ridge", "embridge", "permuted"}
    own, notes = read_scores(tmp_path / "out" / "work" / "fist-flexion.seed0.embridge.scores" / "scores.json")
    assert {row.metric for row in own} >= {"zs_unseen", "lp_unseen"}
    assert all(isinstance(note, str) for note in notes)


@pytest.mark.slow
def test_angles_are_read_out_of_recordings_without_gestures(data: Path, tmp_path: Path, mini: Path) -> None:
    """One tracked recording and no labels: its end is kept, and R² is all there is to say."""
    text = mini.read_text().replace('hold_out_gestures = ["point", "supination"]', "hold_out_gestures = []")
    text = text.replace("unseen_wearers = 1", "later_share = 0.3").replace("shares = [0.5]", "shares = []")
    file = tmp_path / "hands.toml"
    file.write_text(text[: text.index("arms =")] + 'arms = ["ridge", "embridge"]\n')
    report = benchmark(str(file), tmp_path / "out", data=data / "myo_hands", seeds=[0])
    found = {row["arm"]: row["value"] for row in report.content["scores"]}
    assert {row["metric"] for row in report.content["scores"]} == {"r2"}
    assert 0.2 < found["ridge"] < 0.7  # ridge on the last 30 % is known to reach .5 on other features
    assert "R² of the joint angles" in report.text()
