"""Models of others through the verbs: described, taken to int8, as teachers; and what is refused before anything is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from embridge_edge.artifacts import read_json, sha256_of_file
from embridge_edge.cli import run
from embridge_edge.export.onnx_ops import FLOAT_ONLY, OPS
from embridge_edge.export.running import run_onnx
from embridge_edge.learning import distill as distilling
from embridge_edge.learning.splits import make_splits, training_windows
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.checkpoint import load_checkpoint
from embridge_edge.model.foreign import read_description
from embridge_edge.recipe import find_recipe
from embridge_edge.recordings.emg2pose import write_emg2pose
from embridge_edge.verbs.workflow import read_windows
from tests.verbs.conftest import Edge
from tests.verbs.test_journey import GESTURES, recording

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models-of-others.md"
GAIN = 0.25
RECIPE = """
name = "others"
target = "nrf52840"
[chain]
window_ms = 200.0
bandpass_hz = false
[student]
widths = [16, 16]
kernels = [5, 3]
strides = [2, 2]
queries = 2
[distill]
steps = 150
batch = 32
learning_rate = 5e-3
teacher_windows = 400
time_shift = false
gain_jitter = 0.0
channel_jitter = 0.0
rotation = 0.0
{distill}
[quantize]
windows = 64
[evaluate]
folds = 3
[gates]
class_flips = false
"""
DESCRIPTION = f"""
split = "session"
[input]
name = "emg"
layout = ["batch", "channels", "time"]
[outputs]
scores = "scores"
gestures = ["rest", "fist", "flexion"]
[signal]
rate_hz = 200.0
channels = 4
unit = "V"
[chain]
window_ms = 200.0
hop_ms = 50.0
bandpass_hz = false
[normalisation]
gain = {GAIN}
"""


class World:
    """Recordings, a model that somebody trained on them without this tool, and its description."""

    def __init__(self, folder: Path) -> None:
        self.data, self.net, self.toml = folder / "recordings", folder / "net.onnx", folder / "net.toml"
        self.turned = folder / "turned.onnx"
        write_emg2pose([recording(wearer, session) for wearer in "abc" for session in (1, 2)], self.data)
        self.toml.write_text(DESCRIPTION)
        self.windows = read_windows(self.data, find_recipe(str(self.recipe(folder))), None)
        self.split = make_splits(self.windows, "session")[0]
        assert self.windows.gestures == GESTURES
        self.export(self.net, turn=0)
        self.export(self.turned, turn=1)

    @staticmethod
    def recipe(folder: Path, distill: str = "") -> Path:
        file = folder / "others.toml"
        file.write_text(RECIPE.format(distill=distill))
        return file

    def inputs(self, which: Any) -> torch.Tensor:
        return torch.from_numpy(self.windows.samples(which)).transpose(1, 2) * GAIN

    def export(self, file: Path, turn: int) -> None:
        """Train on the first sessions; with `turn` on labels that are wrong in a way of their own."""
        torch.manual_seed(0)
        train = training_windows(self.windows, self.split)
        train = train[self.windows.labels[train] >= 0]
        x, y = self.inputs(train), (torch.from_numpy(self.windows.labels[train]) + turn) % 3
        net = nn.Sequential(
            nn.Conv1d(4, 16, 5, 2), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 16, 3, 2), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 3),
        )  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(250):
            some = torch.randint(len(x), (64,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[some]), y[some]).backward()
            optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net.eval(), (x[:1],), file, input_names=["emg"], output_names=["scores"],
                dynamic_axes={"emg": {0: "batch"}}, dynamo=False,
            )  # fmt: skip

    @property
    def test(self) -> Any:
        return np.flatnonzero(self.split.test & (self.windows.labels >= 0))

    def said(self, file: Path) -> Any:
        """Gestures that a model decides for on the windows of the last sessions."""
        return run_onnx(file, self.inputs(self.test).numpy()).argmax(axis=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("others"))


def test_describe_writes_a_description_that_needs_only_its_marks_taken_away(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["describe", str(world.net), "--quiet"]) == 0
    text = capsys.readouterr().out
    assert set(tomllib.loads(text)) == {"input", "outputs", "signal", "chain", "normalisation"}
    for key in ("split", "layout", "scores", "gestures", "rate_hz", "channels", "unit", "window_ms", "hop_ms", "bandpass_hz"):  # fmt: skip
        text, count = re.subn(rf"^# ({key} = )", r"\1", text, count=1, flags=re.MULTILINE)
        assert count == 1, key
    filled = tmp_path / "filled.toml"
    filled.write_text(text)
    plan = read_description(filled)
    assert (plan.input.name, plan.outputs.scores, plan.split) == ("emg", "scores", "session")


def test_describe_lists_what_may_be_the_embedding(world: World, edge: Edge) -> None:
    told = edge("describe", world.net)
    assert told["inputs"] == [{"name": "emg", "shape": [None, 4, 40], "type": "float32"}]
    assert [port["name"] for port in told["outputs"]] == ["scores"]
    assert told["embeddings"] and told["sha256"] == sha256_of_file(world.net)


@pytest.fixture(scope="module")
def int8(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    out = folder / "int8"
    arguments = [
        "quantize",
        world.net,
        "--describe",
        world.toml,
        "--data",
        world.data,
        "--recipe",
        world.recipe(folder),
    ]
    assert run([*map(str, arguments), "--out", str(out), "--quiet"]) == 0
    return out


def test_int8_of_a_model_of_others_decides_as_it_does(world: World, int8: Path, edge: Edge) -> None:
    own = float(np.mean(world.said(world.net) == world.windows.labels[world.test]))
    assert own > 0.8
    report = edge("check", int8, "--data", world.data, "--split", "session")
    (accuracy,) = (
        row["value"]
        for row in report["results"]
        if row["metric"] == "balanced_accuracy" and row["model"] == "student_int8"
    )
    assert abs(accuracy - own) < 0.05
    assert (
        edge("check", int8, "--against", int8 / "student.tflite", "--data", world.data)["comparison"]["class_flips"]
        < 0.05
    )


def test_the_artifact_says_whose_model_it_is(world: World, int8: Path, edge: Edge, tmp_path: Path) -> None:
    from embridge_edge.export.reading import read_artifact

    about = read_artifact(int8 / "student_int8.tflite").metadata
    assert about is not None
    foreign = about["provenance"]["foreign"]
    assert foreign["sha256"] == sha256_of_file(world.net) and foreign["file"] == "net.onnx"
    assert foreign["description"]["outputs"]["gestures"] == list(GESTURES)
    assert about["chain"]["gain"] == [GAIN] * 4 and about["provenance"]["split"] == "session"
    assert about["provenance"]["seen_sessions"]
    names = {row["path"] for row in edge("export", int8, "--out", tmp_path / "files")["files"]}
    assert names == {"student.tflite", "student_int8.tflite", "student.onnx", "student_int8.onnx"}


def test_a_model_of_others_is_not_judged_on_what_it_may_have_seen(
    world: World, int8: Path, refused: Callable[..., str]
) -> None:
    assert "has seen" in refused("check", int8, "--data", world.data, "--split", "wearer")


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(world: World, int8: Path, edge: Edge, tmp_path: Path) -> None:
    recipe = world.recipe(tmp_path)
    edge("quantize", world.net, "--describe", world.toml, "--data", world.data, "--recipe", recipe, "--out", tmp_path / "again")  # fmt: skip
    first, second = ({f.name: sha256_of_file(f) for f in folder.iterdir()} for folder in (int8, tmp_path / "again"))
    assert first == second


def distilled(
    world: World, net: Path, folder: Path, distill: str, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], Any, dict[str, Any]]:
    """Losses of the training, the student's decisions on the last sessions, and what the verb said."""
    losses: list[float] = []
    fit = distilling.fit

    def listening(*arguments: Any, **named: Any) -> list[float]:
        losses.extend(fit(*arguments, **named))
        return losses

    monkeypatch.setattr(distilling, "fit", listening)
    out = folder / "student"
    recipe = world.recipe(folder, distill)
    said = edge("distill", net, "--describe", world.toml, "--data", world.data, "--recipe", recipe, "--out", out)
    student = load_checkpoint(out)
    with torch.no_grad():
        embedded = student.network()(torch.from_numpy(inputs(world.windows, student, world.test))).numpy()
    head = next(head for head in student.heads if head.kind == "linear")
    assert head.names == GESTURES
    return losses, head.decide(embedded), said


def inputs(windows: WindowSet, student: Any, which: Any) -> Any:
    return windows.with_chain(student.chain).inputs(which)


def test_a_student_learns_what_the_teacher_says_and_not_what_the_labels_say(
    world: World, tmp_path: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher takes each gesture for the next one."""
    weights = "teacher_weight = 0.0\nscore_weight = 1.0\nlabel_weight = 0.0\npose_weight = 0.0"
    losses, decided, said = distilled(world, world.turned, tmp_path, weights, edge, monkeypatch)
    assert np.mean(losses[-15:]) < 0.5 * np.mean(losses[:15])
    taught = world.said(world.turned)
    assert np.bincount(taught).max() / len(taught) < 0.5  # chance
    assert np.mean(decided == taught) > 0.8
    assert np.mean(decided == world.windows.labels[world.test]) < 0.2
    assert said["taught"] == []
    origin = load_checkpoint(tmp_path / "student").provenance
    assert origin["parents"] == [sha256_of_file(world.turned)] and origin["foreign"]["file"] == "turned.onnx"


def test_a_recipe_that_asks_for_the_embedding_takes_the_scores_where_there_is_none_and_says_so(
    world: World, tmp_path: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, decided, said = distilled(world, world.net, tmp_path, "", edge, monkeypatch)
    assert len(said["taught"]) == 2 and "score_weight 1" in said["taught"][0] and "pose_weight" in said["taught"][1]
    assert np.mean(decided == world.said(world.net)) > 0.8
    assert losses[-1] < losses[0]


def test_an_embedding_inside_the_graph_teaches_and_sets_the_students_width(
    world: World, tmp_path: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = edge("describe", world.net)["embeddings"][-1]
    assert inner["shape"][-1] == 16
    described = tmp_path / "embedding.toml"
    text = DESCRIPTION.replace(
        'scores = "scores"\ngestures = ["rest", "fist", "flexion"]', f'embedding = "{inner["name"]}"'
    )
    described.write_text(text)
    monkeypatch.setattr(world, "toml", described)
    weights = "relation_weight = 1.0\nlabel_weight = 0.0"
    losses, decided, said = distilled(world, world.net, tmp_path, weights, edge, monkeypatch)
    assert np.mean(losses[-15:]) < 0.5 * np.mean(losses[:15])
    assert said["taught"] == ["it embeds no poses: pose_weight is left out"]
    assert np.mean(decided == world.windows.labels[world.test]) > 0.7  # by a probe on what it learnt without labels
    assert load_checkpoint(tmp_path / "student").network()(torch.zeros(1, 40, 4)).shape == (1, 16)


@pytest.mark.parametrize(
    ("distill", "said"),
    [
        (
            "token_weight = 1.0",
            r"token_weight .* needs tokens, which \[outputs\] does not name; name them, or set it to 0",
        ),
        ("relation_weight = 1.0", r"relation_weight .* needs embedding or tokens"),
        ("teacher_weight = 0.0", r"Nothing in the recipe's \[distill\] learns from this teacher"),
    ],
)
def test_losses_that_the_teacher_cannot_give_are_refused(
    world: World, tmp_path: Path, refused: Callable[..., str], distill: str, said: str
) -> None:
    recipe = world.recipe(tmp_path, distill)
    out = tmp_path / "student"
    line = refused(
        "distill", world.net, "--describe", world.toml, "--data", world.data, "--recipe", recipe, "--out", out
    )
    assert re.search(said, line), line
    assert not out.exists()


@pytest.mark.parametrize("verb", ["distill", "quantize"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('unit = "V"', 'unit = "myo"', "has unit 'myo', the recordings have 'V'"),
        ("rate_hz = 200.0", "rate_hz = 400.0", "takes emg [free, 4, 40], but layout"),
        ("gain = 0.25", "gain = [1.0, 1.0]", "has 2 numbers in gain, the chain 4 columns"),
        ('["rest", "fist", "flexion"]', '["a", "b", "c"]', "the recordings have rest, fist, flexion"),
        ('split = "session"', 'split = "sesion"', "Unknown split 'sesion'"),
        ('name = "emg"', 'name = "EMG"', "has no input 'EMG'; name one of emg"),
    ],
)
def test_what_does_not_fit_the_recordings_is_refused_before_anything_is_written(
    world: World, tmp_path: Path, refused: Callable[..., str], verb: str, old: str, new: str, said: str
) -> None:
    described = tmp_path / "other.toml"
    assert old in DESCRIPTION
    described.write_text(DESCRIPTION.replace(old, new))
    recipe = world.recipe(tmp_path)
    out = tmp_path / "out"
    line = refused(verb, world.net, "--describe", described, "--data", world.data, "--recipe", recipe, "--out", out)
    assert said in line
    assert not out.exists()


def test_an_onnx_file_needs_a_description_and_a_checkpoint_has_its_own(
    world: World, tmp_path: Path, refused: Callable[..., str]
) -> None:
    arguments = ("--data", world.data, "--recipe", world.recipe(tmp_path), "--out", tmp_path / "out")
    line = refused("quantize", world.net, *arguments)
    assert f"embridge-edge describe {world.net} writes one" in line
    assert "is a folder; --describe goes with" in refused("distill", tmp_path, "--describe", world.toml, *arguments)
    assert "name an .onnx file" in refused("quantize", tmp_path / "none.onnx", "--describe", world.toml, *arguments)
    none = tmp_path / "none.toml"
    assert "embridge-edge describe writes one" in refused("quantize", world.net, "--describe", none, *arguments)


def test_the_page_lists_the_ops_that_there_are() -> None:
    text = " ".join(PAGE.read_text().split())
    (listed,) = re.findall(r"Ops: ([^.]*)\.", text)
    assert listed.split(", ") == sorted(OPS)
    (refused,) = re.findall(r"without an int8 kernel, so refused: ([^(]*) \(", text)
    assert refused.split(", ") == sorted(FLOAT_ONLY)


@pytest.mark.slow
def test_the_page_works_word_by_word(tmp_path: Path) -> None:
    text = PAGE.read_text()
    (tmp_path / "bin").mkdir()
    for name, module in (("embridge-edge", "-m embridge_edge"), ("python", "")):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        program.chmod(0o755)
    blocks = re.findall(r"```(sh|python|toml)\n(.*?)```", text, flags=re.DOTALL)
    (net,) = (block for kind, block in blocks if kind == "python")
    description, recipe = (block for kind, block in blocks if kind == "toml")
    (tmp_path / "net.py").write_text(net)
    (tmp_path / "net.toml").write_text(description)
    (tmp_path / "mine.toml").write_text(recipe)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    printed = ""
    for block in (block for kind, block in blocks if kind == "sh"):
        done = subprocess.run(
            ["sh", "-e", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        printed += done.stdout
    assert str(tuple(tomllib.loads(description)["outputs"]["gestures"])) in printed
    assert (tmp_path / "student" / "model.safetensors").is_file() and (tmp_path / "firmware").is_dir()
    assert read_json(tmp_path / "int8" / "quantized.json")
