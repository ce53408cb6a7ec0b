"""`benchmark` on people made in seconds: every arm gets its rows, nothing is done twice, and what cannot be judged is one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embridge_edge.cli import run
from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE, read_library
from embridge_edge.learning.splits import training_windows
from embridge_edge.learning.windows import WindowSet, cut_windows
from embridge_edge.model.checkpoint import load_checkpoint
from embridge_edge.recipe import Recipe, arms_of, find_recipe
from embridge_edge.recordings.emg2pose import write_emg2pose
from embridge_edge.recordings.recording import Recording
from embridge_edge.verbs.benchmark import benchmark
from embridge_edge.verbs.comparing import divisions, permuted_library
from embridge_edge.verbs.scoring import read_scores
from embridge_edge.verbs.seen import short_hash
from embridge_edge.verbs.sides import kept_stages, sides_of
from embridge_edge.verbs.synth import synth

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


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("heads = 2", "heads = 3", "Arm masked: emg_width 8 is no multiple of heads 3"),
        ("embedding = 8", "embedding = 16", 'Arm masked: readout "mean" gives an embedding of emg_width 8, not 16'),
        ("patch_ms = 100.0", "patch_ms = 500.0", "Arm masked: A patch of 10 steps does not fit a window of 8"),
        ("bandpass_hz = false", "bandpass_hz = [120.0, 140.0]", "band"),
    ],
)
def test_network_that_cannot_be_is_refused_before_anybody_is_simulated(
    mini: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    file = tmp_path / "impossible.toml"
    file.write_text(mini.read_text().replace(old, new))
    with pytest.raises(EdgeError, match=says) as caught:
        benchmark(str(file), tmp_path / "out")
    assert "\n" not in str(caught.value)
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


def stage_recordings() -> list[Recording]:
    """Five users as emg2pose has them, a recording for each stage: two users and two stages are only tested."""
    made = []
    for user in range(5):
        for number, stage in enumerate(("fists", "pinches", "counting", "wiggling")):
            new = [name for name, is_new in (("user", user > 2), ("stage", number > 1)) if is_new]
            random = np.random.default_rng([user, number])
            pose = np.full((800, len(POSE)), 0.1 * number, np.float32)
            pose[:, :20] += 0.3 * np.sin(np.arange(800)[:, None] / 90.0 + number * np.arange(20)).astype(np.float32)
            strength = 1.0 + np.abs(pose[:, :8])
            made.append(
                Recording(
                    emg=(strength * random.standard_normal((800, 8))).astype(np.float32),
                    rate_hz=200.0,
                    unit="V",
                    source=f"{user}{stage}",
                    wearer=f"u{user}",
                    session=f"{user}{stage}",
                    stage=stage,
                    pose=pose,
                    partition="test" if new else "train",
                    generalization="_".join(new),
                )
            )
    return made


def stages_recipe(mini: Path, tmp_path: Path, more: str = "") -> Path:
    text = mini.read_text().replace('hold_out_gestures = ["point", "supination"]', f'gestures_from = "stages"\n{more}')
    text = text.replace("unseen_wearers = 1", "").replace("shares = [0.5]", "")
    file = tmp_path / "stages.toml"
    file.write_text(text[: text.index("arms =")] + 'arms = ["ridge", "masked", "cpep", "embridge"]\n')
    return file


def test_division_of_emg2pose_tests_new_users_and_shows_probes_new_stages_of_known_ones(
    mini: Path, tmp_path: Path
) -> None:
    recipe = find_recipe(str(stages_recipe(mini, tmp_path)))
    windows = cut_windows(stage_recordings(), recipe.chain, recipe.windows, read_library())
    kept = kept_stages(windows, recipe)
    assert set(kept) == {"counting", "wiggling"}
    (held,) = divisions(recipe, kept)
    windows = windows.holding_out(held.unseen)
    sides = sides_of(windows, held.recipe(recipe))

    def seen(mask: npt.NDArray[Any]) -> set[tuple[str, str]]:
        return {
            (windows.wearer_names[wearer], windows.stage_names[stage])
            for wearer, stage in zip(windows.wearers[mask], windows.stages[mask], strict=True)
        }

    known, new = ("u0", "u1", "u2"), ("u3", "u4")
    stages = ("fists", "pinches", "counting", "wiggling")
    assert seen(sides.split.train) == {(user, stage) for user in known for stage in stages}
    assert seen(training_windows(windows, sides.split)) == {(user, stage) for user in known for stage in stages[:2]}
    assert list(sides.groups) == ["unseen_wearers"]
    assert seen(sides.groups["unseen_wearers"]) == {(user, stage) for user in new for stage in stages}
    assert not sides.shown.any()
    with pytest.raises(EdgeError, match="keeps 'wiggling' from training, which the recipe does not hold out"):
        sides_of(windows, replace(recipe, windows=replace(recipe.windows, hold_out_gestures=("counting",))))


def test_division_of_emg2pose_without_held_out_users_is_refused(mini: Path, tmp_path: Path) -> None:
    recipe = find_recipe(str(stages_recipe(mini, tmp_path)))
    known = [one for one in stage_recordings() if "user" not in one.generalization]
    windows = cut_windows(known, recipe.chain, recipe.windows, read_library())
    (held,) = divisions(recipe, kept_stages(windows, recipe))
    with pytest.raises(EdgeError, match="no test recordings of held-out users"):
        sides_of(windows, held.recipe(recipe))


@pytest.mark.slow
def test_emg2pose_gets_the_papers_table(mini: Path, tmp_path: Path) -> None:
    write_emg2pose(stage_recordings(), tmp_path / "data")
    report = benchmark(str(stages_recipe(mini, tmp_path)), tmp_path / "out", data=tmp_path / "data", seeds=[0])
    assert report.content["divisions"] == [{"name": "held", "unseen": ["counting", "wiggling"]}]
    assert report.content["groups"] == {"unseen_wearers": 2}
    found = {row["metric"] for row in report.content["scores"] if row["arm"] == "embridge"}
    assert {"lp_seen", "zs_seen", "lp_unseen", "zs_unseen", "zs_harmonic", "r2"} <= found


def test_days_that_nobody_recorded_are_one_line(mini: Path, recordings: Path, tmp_path: Path) -> None:
    text = mini.read_text().replace('["point", "supination"]', "[]").replace("unseen_wearers = 1", "unseen_wearers = 0")
    file = tmp_path / "days.toml"
    file.write_text(f"{text}[benchmark.days]\nlater = [7, 8]\n")
    with pytest.raises(EdgeError, match=r"names; theirs are unknown\."):
        benchmark(str(file), tmp_path / "out", data=recordings)


@pytest.mark.slow
def test_groups_of_days_are_judged_by_themselves(data: Path, tmp_path: Path, mini: Path) -> None:
    text = mini.read_text().replace('hold_out_gestures = ["point", "supination"]', "")
    text = text.replace("unseen_wearers = 1", "").replace("shares = [0.5]", "").replace("400.0", "200.0")
    text = text.replace("patch_ms = 100.0", "patch_ms = 50.0").replace("probe_windows = 300", "probe_windows = 2000")
    file = tmp_path / "days.toml"
    file.write_text(
        text[: text.index("arms =")]
        + 'arms = ["lda", "embridge"]\n[benchmark.days]\nneutral = [4, 9]\ninward = [5, 6]\n'
    )
    report = benchmark(str(file), tmp_path / "out", data=data / "longterm_shift" / "sub1.days1-10.tar.xz", seeds=[0])
    assert report.content["groups"] == {"neutral": 1, "inward": 1}
    found = {
        row["group"]: row["value"]
        for row in report.content["scores"]
        if (row["arm"], row["metric"]) == ("lda", "lp_seen")
    }
    assert found["neutral"] > found["inward"] > 0.3  # of 22 motions; the band was turned on days 5 and 6


@pytest.mark.slow
def test_combinations_are_recognised_by_their_names_alone(data: Path, tmp_path: Path, mini: Path) -> None:
    """Networks see single motions and mixtures of them; the poses of the combinations come from their names."""
    held = ["flexion+pronation", "extension+fist", "supination+fist"]
    text = mini.read_text().replace('["point", "supination"]', json.dumps(held)).replace("400.0", "200.0")
    text = (
        text.replace("unseen_wearers = 1", "")
        .replace("shares = [0.5]", "")
        .replace("patch_ms = 100.0", "patch_ms = 50.0")
    )
    text = text.replace("steps = 3\n", "steps = 3\nmix_share = 0.5\n").replace('"wearers"', '"gestures"')
    file = tmp_path / "combinations.toml"
    file.write_text(text[: text.index("arms =")] + 'arms = ["ridge", "embridge"]\n')
    report = benchmark(str(file), tmp_path / "out", data=data / "longterm_shift" / "sub1.days1-10.tar.xz", seeds=[0])
    metrics = {(row["arm"], row["metric"]) for row in report.content["scores"]}
    assert {("ridge", "zs_unseen"), ("embridge", "zs_unseen"), ("embridge", "attr_unseen")} <= metrics
