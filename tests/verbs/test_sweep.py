"""`sweep` on small recordings: what a trial trains and is judged on, several workers, and that nothing is lost or done twice."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge_edge.artifacts import read_json
from embridge_edge.cli import run
from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import read_library
from embridge_edge.learning.splits import make_splits
from embridge_edge.learning.windows import WindowSet, cut_windows
from embridge_edge.progress import Progress
from embridge_edge.recipe import WindowPlan, find_recipe, varied
from embridge_edge.recordings.emg2pose import write_emg2pose
from embridge_edge.recordings.recording import Recording
from embridge_edge.sweeping import Choices, SweepPlan
from embridge_edge.verbs import trials as module
from embridge_edge.verbs.sweep import read_recipe, sweep
from embridge_edge.verbs.trials import inner_split, outer_split
from embridge_edge.verbs.workflow import job_for
from tests.tools import ctrl_c_heard, hear_ctrl_c

GESTURES = ("rest", "fist", "flexion", "extension")
RECIPE = """
name = "small"
target = "nrf52840"
[chain]
window_ms = 200.0
bandpass_hz = false
features = ["LOGRMS", "ZC"]
frame_ms = 50.0
[windows]
hold_out_gestures = ["extension"]
[teacher]
emg_width = 16
emg_blocks = 1
pose_width = 16
pose_blocks = 1
query_blocks = 2
queries = 4
heads = 2
embedding = 8
[train]
pose_steps = 5
masked_steps = 5
steps = {steps}
batch = 32
"""
SWEEP = """
[sweep]
trials = {trials}
hold_out_gestures = ["fist"]
heartbeat_s = 0.5
[sweep.fixed]
train.masked_steps = 4
[sweep.parameters]
"train.temperature" = {{ low = 0.02, high = 0.2, log = true }}
"chain.features" = [["LOGRMS", "ZC"], ["LOGRMS"]]
teacher.queries = {{ low = 2, high = 8, step = 2 }}
"""


def recording(wearer: str, session: int) -> Recording:
    """Three repetitions of four gestures; each gesture is noise of another strength on each channel."""
    runs = [(label, repetition) for repetition in (1, 2, 3) for label in range(4)]
    labels = np.repeat([label for label, _ in runs], 240).astype(np.int16)
    random = np.random.default_rng([ord(wearer), session])
    strength = 1.0 + 4.0 * np.abs(np.sin(1.7 * (labels[:, None] + 2.0) * (1.0 + np.arange(4))))
    return Recording(
        emg=(strength * random.standard_normal((len(labels), 4))).astype(np.float32),
        rate_hz=200.0,
        unit="V",
        source=f"{wearer}{session}",
        wearer=wearer,
        session=str(session),
        labels=labels,
        gestures=GESTURES,
        repetitions=np.repeat([repetition for _, repetition in runs], 240).astype(np.int16),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three wearers with three sessions each: the last is the test side, the one before it judges trials."""
    folder = tmp_path_factory.mktemp("sweep") / "recordings"
    write_emg2pose([recording(wearer, session) for wearer in "abc" for session in (1, 2, 3)], folder)
    return folder


def recipe(folder: Path, *, steps: int = 8, trials: int = 3, text: str = SWEEP) -> Path:
    file = folder / "small.toml"
    file.write_text(RECIPE.format(steps=steps) + text.format(trials=trials))
    return file


@pytest.fixture(scope="module")
def swept(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a finished sweep in it, and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    report = sweep(str(recipe(folder)), data, str(folder / "study.journal"), folder / "out")
    assert report.text()
    return folder, json.loads(json.dumps(report.to_json()))


def windows_of(plan: WindowPlan, wearers: str = "abc") -> WindowSet:
    recordings = [recording(wearer, session) for wearer in wearers for session in (1, 2, 3)]
    return cut_windows(recordings, ChainPlan(window_ms=200.0, bandpass_hz=None), plan, read_library())


def plan_of(**about: Any) -> SweepPlan:
    return SweepPlan({"train.batch": Choices((8, 16))}, hold_out_gestures=("fist",), **about)


@pytest.mark.parametrize("division", ["session", "wearer"])
@pytest.mark.parametrize("outer_name", ["session", "wearer", "repetition"])
def test_no_trial_sees_the_test_side_or_the_recipes_own_held_out_gestures(division: str, outer_name: str) -> None:
    plan = plan_of(division=division)
    windows = windows_of(WindowPlan(hold_out_gestures=("extension", "fist")))
    own = varied(find_recipe("quick"), {"windows.hold_out_gestures": ["extension"]})
    outer = outer_split(windows, outer_name, own)
    inner = inner_split(windows, outer, plan)
    blind = replace(own, windows=replace(own.windows, hold_out_gestures=("extension", "fist")))
    job = job_for(windows, inner, blind)
    extension, fist = windows.gestures.index("extension"), windows.gestures.index("fist")
    assert len(job.train) and len(job.test)
    assert not (outer.test[job.train].any() or outer.test[job.test].any())
    assert not np.isin(windows.labels[job.train], [extension, fist]).any()
    assert extension not in windows.labels[job.test]
    assert fist in windows.labels[job.test] and windows.gestures.index("rest") in windows.labels[job.test]
    assert not (inner.train & inner.test).any()
    shared = windows.wearers if division == "wearer" else windows.sessions
    assert not np.intersect1d(shared[job.train], shared[job.test]).size


def test_wearers_whom_the_benchmark_keeps_take_no_part() -> None:
    windows = windows_of(WindowPlan(), "abcdef")
    own = varied(find_recipe("quick"), {"benchmark.unseen_wearers": 2})
    outer = outer_split(windows, "session", own)
    assert {windows.wearer_names[wearer] for wearer in np.unique(windows.wearers[outer.train])} == set("abcd")


def test_one_session_to_train_on_is_told_so() -> None:
    recordings = [recording(wearer, session) for wearer in "ab" for session in (1, 2)]
    windows = cut_windows(recordings, ChainPlan(window_ms=200.0, bandpass_hz=None), WindowPlan(), read_library())
    (split,) = make_splits(windows, "session")
    with pytest.raises(EdgeError, match=r'two sessions to train on; .*, or set division = "wearer" in \[sweep\]'):
        inner_split(windows, split, plan_of())
    one = replace(split, train=split.train & (windows.wearers == 0))
    with pytest.raises(EdgeError, match='holds one wearer, which division = "wearer" of'):
        inner_split(windows, one, plan_of(division="wearer"))


def test_the_objective_is_the_harmonic_mean_per_wearer() -> None:
    scores = {
        "zero_shot_balanced_accuracy": {"a": 0.8, "b": 0.5, "c": 0.9},
        "zero_shot_unseen_balanced_accuracy": {"a": 0.2, "b": 0.0},
        "balanced_accuracy": {"a": 0.5, "b": 0.7},
    }
    assert module.objective_of("zs_harmonic", scores) == pytest.approx((2 * 0.8 * 0.2 / 1.0 + 0.0) / 2)
    assert module.objective_of("zs_all_seen", scores) == pytest.approx(2.2 / 3)
    assert module.objective_of("zs_all_unseen", scores) == pytest.approx(0.1)
    assert module.objective_of("lp_seen", scores) == pytest.approx(0.6)
    assert module.objective_of("r2", scores) is None


@pytest.mark.slow
def test_the_best_recipe_is_the_recipe_with_the_best_trials_values(swept: tuple[Path, dict[str, Any]]) -> None:
    folder, report = swept
    assert [row["state"] for row in report["trials"]] == ["complete"] * 3
    assert report["best"]["score"] == max(row["score"] for row in report["trials"])
    assert read_json(folder / "out" / "sweep.json") == report
    original, _, _ = read_recipe(str(folder / "small.toml"))
    best = find_recipe(str(folder / "out" / "best.toml"))
    assert best.train.masked_steps == 5  # trials had 4
    assert best == varied(original, report["best"]["values"])
    heading = (folder / "out" / "best.toml").read_text().splitlines()[:2]
    assert f"trial {report['best']['number']} of study small in journal:" in heading[0]
    assert f"zs_harmonic {report['best']['score']:.4f}" in heading[1]
    assert "sweep" not in tomllib.loads((folder / "out" / "best.toml").read_text())


@pytest.mark.slow
def test_the_recipes_own_values_are_the_first_trial(swept: tuple[Path, dict[str, Any]]) -> None:
    _, report = swept
    own = {"train.temperature": 0.07, "chain.features": ["LOGRMS", "ZC"], "teacher.queries": 4}
    assert report["trials"][0]["values"] == own
    assert report["own"] == report["trials"][0]["score"]


@pytest.mark.slow
def test_unseen_gestures_are_told_from_each_other_alone(data: Path, tmp_path: Path) -> None:
    text = SWEEP.replace('["fist"]', '["fist", "flexion"]\nobjective = "zs_unseen"')
    file = recipe(tmp_path, trials=1, text=text)
    report = sweep(str(file), data, str(tmp_path / "study.journal"), tmp_path / "out")
    assert report.done == 1
    (score,) = [row.score for row in report.trials]
    assert (
        score is not None and 0.2 < score <= 1.0
    )  # of two gestures; among all four an untrained network finds hardly any


@pytest.mark.slow
def test_windows_are_cut_once_for_each_chain(swept: tuple[Path, dict[str, Any]]) -> None:
    folder, report = swept
    chains = {json.dumps(row["values"]["chain.features"]) for row in report["trials"]}
    assert len(list((folder / "out" / "work").glob("windows-*/step.json"))) == len(chains)
    assert list((folder / "out" / "work" / "unfinished").rglob("*.safetensors")) == []


@pytest.mark.slow
def test_the_same_command_again_trains_nothing_and_says_the_same(
    swept: tuple[Path, dict[str, Any]], data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, report = swept
    monkeypatch.setattr(module, "score", lambda *given: pytest.fail("trained"))
    arguments = [str(folder / "small.toml"), "--data", str(data), "--storage", str(folder / "study.journal"), "--quiet"]
    assert run(["sweep", *arguments, "--out", str(folder / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert run(["sweep", *arguments, "--out", str(folder / "out")]) == 0
    printed = capsys.readouterr().out
    assert "3 of 3 trials" in printed and "train.temperature" in printed and "the recipe's own values: " in printed


@pytest.mark.slow
def test_scores_on_disk_are_not_trained_for_again_by_a_new_study(
    swept: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, report = swept
    monkeypatch.setattr(module, "score", lambda *given: pytest.fail("trained"))
    shutil.copytree(folder / "out", tmp_path / "out")
    again = sweep(str(folder / "small.toml"), data, f"sqlite:///{tmp_path / 'new.db'}", tmp_path / "out")
    assert [row.score for row in again.trials] == [row["score"] for row in report["trials"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (("steps = 8", "steps = 9"), "belongs to another recipe; choose another --study or --storage."),
        (("low = 0.02", "low = 0.03"), "belongs to another sweep; choose another --study or --storage."),
        (("heartbeat_s", "seed = 4\nheartbeat_s"), "belongs to another sweep;"),
    ],
)
def test_a_study_of_another_recipe_is_refused(
    swept: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path, edit: tuple[str, str], says: str
) -> None:
    folder, report = swept
    file = tmp_path / "small.toml"
    file.write_text((folder / "small.toml").read_text().replace(*edit))
    with pytest.raises(EdgeError, match=says):
        sweep(str(file), data, str(folder / "study.journal"), tmp_path / "out")
    with pytest.raises(EdgeError, match="is another sweep's result; choose another --out, or replace it with --force"):
        sweep(str(file), data, str(tmp_path / "new.journal"), folder / "out")
    assert read_json(folder / "out" / "sweep.json") == report


@pytest.mark.slow
def test_a_study_of_other_recordings_is_refused(swept: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path) -> None:
    folder, _ = swept
    other = tmp_path / "other"
    shutil.copytree(data, other)
    copied = sweep(str(folder / "small.toml"), other, str(folder / "study.journal"), tmp_path / "same")
    assert copied.done == 3  # copied elsewhere they are the same
    write_emg2pose([recording(wearer, session) for wearer in "abd" for session in (1, 2, 3)], tmp_path / "changed")
    with pytest.raises(EdgeError, match="belongs to another data; choose another"):
        sweep(str(folder / "small.toml"), tmp_path / "changed", str(folder / "study.journal"), tmp_path / "out")


@pytest.mark.slow
def test_a_trial_is_worth_the_mean_of_its_seeds_and_bad_ones_are_given_up_early(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[float, int]] = []

    def fake(recipe: Any, job: Any, plan: Any, hidden: Any, run: Any) -> float:
        calls.append((recipe.train.temperature, run.seed))
        return float(recipe.train.temperature + 0.01 * run.seed)

    monkeypatch.setattr(module, "score", fake)
    text = SWEEP.replace("heartbeat_s", 'seeds = 3\npruner = "median"\nsampler = "random"\nheartbeat_s')
    text = text.replace('"chain.features"', "#").replace("teacher.queries", "#")
    report = sweep(str(recipe(tmp_path, trials=12, text=text)), data, str(tmp_path / "j"), tmp_path / "out")
    complete = [row for row in report.trials if row.state == "complete"]
    pruned = [row for row in report.trials if row.state == "pruned"]
    assert len(complete) + len(pruned) == 12 and len(pruned) >= 2
    for row in complete:
        assert row.score == pytest.approx(row.values["train.temperature"] + 0.01)
    for row in pruned:
        assert (row.values["train.temperature"], 2) not in calls and row.score is None
    assert report.best.score == max(row.score for row in complete if row.score is not None)


@pytest.mark.slow
def test_a_training_that_fails_is_named_and_the_others_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(recipe: Any, job: Any, plan: Any, hidden: Any, run: Any) -> float:
        if recipe.teacher.queries == 4:
            raise EdgeError("the loss is no longer finite at step 3; lower the learning rate.")
        return 0.5

    monkeypatch.setattr(module, "score", fake)
    text = (
        SWEEP.replace('"chain.features"', "#")
        .replace('"train.temperature"', "#")
        .replace("low = 2, high = 8, step = 2", "low = 3, high = 6")
    )
    report = sweep(str(recipe(tmp_path, trials=6, text=text)), data, str(tmp_path / "j"), tmp_path / "out")
    assert report.trials[0].state == "failed" and "no longer finite" in str(report.trials[0].error)
    assert report.own is None and report.best.score == 0.5
    assert " failed" in report.text() and report.done == 6


@pytest.mark.slow
def test_a_study_in_which_everything_fails_is_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(*given: Any) -> float:
        raise EdgeError("the loss is no longer finite.")

    monkeypatch.setattr(module, "score", fake)
    file = str(recipe(tmp_path, trials=2))
    with pytest.raises(EdgeError, match="No trial of study 'small' has a score, 2 failed, the last because: the loss"):
        sweep(file, data, str(tmp_path / "j"), tmp_path / "out")
    assert not (tmp_path / "out" / "best.toml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (('["fist"]', '["fits"]'), "holds out 'fits', which these recordings lack; they have rest, fist, flexion."),
        (('["fist"]', '["extension"]'), "'extension' is held out by the recipe itself"),
        (('hold_out_gestures = ["fist"]', 'objective = "r2"'), "has no tracked poses to judge r2 on"),
        (("low = 0.02", "low = -0.02"), "log needs low above 0"),
        (("[sweep]", "[swept]"), "unknown key 'swept'"),
        (("trials = 3", "trials = 3.5"), "trials is 3.5; give a whole number"),
    ],
)
def test_what_cannot_be_swept_is_one_line_before_anything_is_trained(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: tuple[str, str], says: str
) -> None:
    file = recipe(tmp_path)
    before, mark, after = file.read_text().rpartition(edit[0])
    file.write_text(before + edit[1] + after)
    arguments = ["--data", str(data), "--storage", str(tmp_path / "j"), "--out", str(tmp_path / "out"), "--quiet"]
    assert mark and run(["sweep", str(file), *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not (tmp_path / "j").exists()


def test_places_that_would_be_overwritten_are_refused(data: Path, tmp_path: Path) -> None:
    file = str(recipe(tmp_path))
    with pytest.raises(EdgeError, match="lies inside"):
        sweep(file, data, str(tmp_path / "j"), data / "out")
    with pytest.raises(EdgeError, match=r"--storage .* lies inside .*, which is read"):
        sweep(file, data, str(data / "j"), tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(EdgeError, match=r"holds thesis\.txt, which this verb does not write"):
        sweep(file, data, str(tmp_path / "j"), tmp_path / "out")


def test_a_recipe_without_a_sweep_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match=r"Recipe quick has no \[sweep\] table"):
        read_recipe("quick")
    with pytest.raises(EdgeError, match="Unknown recipe 'quikc'"):
        read_recipe("quikc")


def command(file: Path, data: Path, folder: Path) -> list[str]:
    arguments = ["--data", str(data), "--storage", str(folder / "out" / "study.journal"), "--out", str(folder / "out")]
    return [sys.executable, "-m", "embridge_edge", "sweep", str(file), *arguments]


@pytest.mark.slow
def test_two_commands_at_once_share_the_trials_and_train_each_once(data: Path, tmp_path: Path) -> None:
    file = recipe(tmp_path, trials=5, steps=20)
    both = [
        subprocess.Popen(command(file, data, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    report = read_json(tmp_path / "out" / "sweep.json")
    assert [row["state"] for row in report["trials"]] == ["complete"] * 5
    scored = [{line for line in err.splitlines() if " min)" in line} for _, err in said]
    assert len(scored[0]) + len(scored[1]) == 5 - sum(row["same_as"] is not None for row in report["trials"])
    assert all("5 of 5 trials" in out for out, _ in said)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_command_goes_on_where_it_stopped(data: Path, tmp_path: Path, how: signal.Signals) -> None:
    file = recipe(tmp_path, trials=2, steps=250)
    process = subprocess.Popen(
        command(file, data, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509
    )
    until = time.monotonic() + 300
    journal = tmp_path / "out" / "study.journal"
    while not (journal.exists() and "beat" in journal.read_text()):
        assert time.monotonic() < until and process.poll() is None, process.communicate()
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(how)
    _, said = process.communicate(timeout=300)
    if how == signal.SIGINT:
        assert process.returncode == 130, said
        assert said.endswith("Interrupted; run the same command again to go on where it stopped.\n")
    done = subprocess.run(command(file, data, tmp_path), capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = read_json(tmp_path / "out" / "sweep.json")["trials"]
    assert [row["state"] for row in rows] == ["repeated", "complete", "complete"]
    (again,) = [row for row in rows if row["retry_of"] is not None]
    assert again["retry_of"] == 0 and again["values"] == rows[0]["values"]
    assert "2 of 2 trials (1 begun again)" in done.stdout


class Watched(Progress):
    """Notes with which step each alignment begins, and presses Ctrl-C in the step `at`."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "first", [])

    @contextlib.contextmanager
    def bar(self, label: str, total: int, unit: str = "") -> Iterator[Callable[[int], object]]:
        done: list[int] = []

        def advance(amount: int) -> None:
            if label.endswith("alignment"):
                if not done:
                    self.first.append(amount)  # type: ignore[attr-defined]
                done.append(amount)
                if len(done) == self.at:  # type: ignore[attr-defined]
                    os.kill(os.getpid(), signal.SIGINT)

        yield advance


@pytest.mark.slow
def test_an_interrupted_training_goes_on_at_its_step_and_scores_as_if_it_had_not_been(
    data: Path, tmp_path: Path, swept: tuple[Path, dict[str, Any]]
) -> None:
    file, places = str(recipe(tmp_path)), (data, str(tmp_path / "j"), tmp_path / "out")
    with ctrl_c_heard(), pytest.raises(KeyboardInterrupt):
        sweep(file, *places, progress=Watched(at=6))
    after = Watched(at=None)
    report = sweep(file, *places, progress=after)
    assert after.first == [5, 0, 0]  # type: ignore[attr-defined]
    _, uninterrupted = swept
    assert [row.score for row in report.trials[1:]] == pytest.approx([row["score"] for row in uninterrupted["trials"]])
    assert [row.state for row in report.trials] == ["repeated", "complete", "complete", "complete"]
