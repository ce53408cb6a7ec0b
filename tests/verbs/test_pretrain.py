"""`pretrain`: from folders of several bands to a checkpoint and a head; what is wrong is one line and nothing is lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embridge_edge.artifacts import read_json
from embridge_edge.cli import run
from embridge_edge.errors import EdgeError
from embridge_edge.model.foundation_checkpoint import load_foundation
from embridge_edge.verbs.pretrain import PretrainReport, pretrain
from embridge_edge.verbs.synth import synth

TINY = """
name = "tiny-foundation"
[signal]
guard_ms = 0.0
[encoder]
width = 16
blocks = 1
heads = 2
[pretrain]
steps = 4
batch = 8
[head]
probe_windows = 400
"""
GESTURES = ("rest", "fist", "flexion")


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Myo with two sessions of two wearers, and sixteen channels at 1 kHz."""
    folder = tmp_path_factory.mktemp("bands")
    synth(folder / "myo", wearers=2, sessions=2, seconds=12.0, channels=8, rate_hz=200.0, gestures=GESTURES)
    synth(folder / "wide", wearers=1, sessions=1, seconds=6.0, channels=16, rate_hz=1000.0, gestures=GESTURES)
    return folder / "myo", folder / "wide"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text(TINY)
    return str(file)


@pytest.fixture(scope="module")
def made(
    bands: tuple[Path, Path], recipe: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PretrainReport, Path]:
    out = tmp_path_factory.mktemp("made") / "encoder"
    return pretrain(bands, out, recipe=recipe, head=bands[0]), out


def test_checkpoint_holds_sources_head_and_nothing_is_left_beside_it(
    made: tuple[PretrainReport, Path], bands: tuple[Path, Path]
) -> None:
    report, out = made
    assert [path.name for path in out.parent.iterdir()] == ["encoder"]
    assert sorted(path.name for path in out.iterdir()) == ["model.json", "model.safetensors"]
    stored = load_foundation(out)
    assert [(one.name, one.channels, one.rate_hz) for one in stored.sources] == [
        ("myo", 8, 200.0),
        ("wide", 16, 1000.0),
    ]
    assert stored.heads[0].device.name == "myo"
    assert stored.heads[0].head.rows.shape == (len(report.head.gestures), report.embedding)  # type: ignore[union-attr]
    assert sum(row.drawn_share for row in report.sources) == pytest.approx(1.0)
    assert report.head is not None
    assert report.head.split == "session"
    assert not report.head.seen
    assert 0.0 <= float(report.head.balanced_accuracy or -1) <= 1.0
    network = stored.network()
    with torch.inference_mode():
        assert network(torch.randn(1, 400, 5), 1000.0).shape == (1, report.embedding)


def test_report_reads_as_text_and_as_json(made: tuple[PretrainReport, Path]) -> None:
    report, _ = made
    assert "16 channels at 1000 Hz" in report.text()
    assert "balanced accuracy" in report.text()
    assert json.loads(json.dumps(report.to_json()))["sources"][0]["name"] == "myo"


def test_what_a_head_is_judged_by_was_not_seen_in_pre_training(
    made: tuple[PretrainReport, Path], bands: tuple[Path, Path], recipe: str, tmp_path: Path
) -> None:
    report, out = made
    whole = pretrain(bands, tmp_path / "whole", recipe=recipe)
    assert whole.sources[0].hours > 1.9 * report.sources[0].hours  # without a head nothing is kept back
    assert whole.sources[1].hours == report.sources[1].hours
    kept = load_foundation(out).provenance["kept_back"]
    assert list(kept.values()) == ["session"]
    later = pretrain((), tmp_path / "later", start=tmp_path / "whole", head=bands[0])
    assert later.head is not None
    assert later.head.seen
    assert "pre-training has seen these recordings" in later.text()
    again = pretrain((), tmp_path / "again", start=out, head=bands[0])
    assert again.head is not None
    assert not again.head.seen


def test_start_takes_the_encoder_as_it_is_and_adds_a_head(
    made: tuple[PretrainReport, Path], bands: tuple[Path, Path], tmp_path: Path
) -> None:
    _, out = made
    pretrain((), tmp_path / "more", start=out, head=bands[1], split="none")
    before, after = load_foundation(out), load_foundation(tmp_path / "more")
    assert [one.device.name for one in after.heads] == ["myo", "wide"]
    for name, array in before.tensors.items():
        assert np.array_equal(array, after.tensors[name])


def test_fine_tuning_changes_the_encoder_and_drops_other_heads(
    made: tuple[PretrainReport, Path], bands: tuple[Path, Path], recipe: str, tmp_path: Path
) -> None:
    _, out = made
    own = tmp_path / "finetune.toml"
    own.write_text(Path(recipe).read_text() + "finetune_steps = 3\n")
    report = pretrain((), tmp_path / "tuned", start=out, head=bands[1], split="none", recipe=str(own))
    after = load_foundation(tmp_path / "tuned")
    assert [one.device.name for one in after.heads] == ["wide"]
    assert report.head is not None
    assert report.head.finetuned
    assert not np.array_equal(after.tensors["embed.weight"], load_foundation(out).tensors["embed.weight"])


def test_same_seed_gives_the_same_encoder_and_another_another(
    made: tuple[PretrainReport, Path], bands: tuple[Path, Path], recipe: str, tmp_path: Path
) -> None:
    _, out = made
    pretrain(bands, tmp_path / "same", recipe=recipe, head=bands[0])
    pretrain(bands, tmp_path / "other", recipe=recipe, head=bands[0], seed=1)
    same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("same", "other"))
    assert (out / "model.safetensors").read_bytes() == same
    assert same != other


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Nothing to learn from; give recordings with --data"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--data", "empty"], "No recording in"),
        (["--data", "text"], "is in no known format"),
        (["--data", "myo", "--recipe", "armband-m4"], "Unknown foundation recipe 'armband-m4'; choose one of"),
        (["--data", "myo", "--recipe", "wrong.toml"], "unknown key 'widht'"),
        (["--data", "myo", "--recipe", "odd.toml"], "width 30 is no multiple of heads 4"),
        (["--data", "myo", "--start", "encoder"], "give one of them"),
        (["--start", "encoder"], "--start without --head changes nothing"),
        (["--start", "myo", "--head", "myo"], "is no checkpoint"),
        (["--start", "cut", "--head", "myo"], "is missing or is not the file that was written with model.json"),
        (["--start", "other", "--head", "myo"], "kind 'student', no foundation encoder of format 1"),
        (["--start", "hollow", "--head", "myo"], "is damaged"),
        (["--start", "encoder", "--head", "wide", "--split", "day"], "No wearer has a recording of a second day"),
    ],
)
def test_what_is_wrong_is_one_line_with_status_2(
    arguments: list[str],
    says: str,
    made: tuple[PretrainReport, Path],
    bands: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.csv").write_text("no,recording\n")
    (tmp_path / "myo").symlink_to(bands[0])
    (tmp_path / "wide").symlink_to(bands[1])
    (tmp_path / "wrong.toml").write_text('name = "x"\n[encoder]\nwidht = 3\n')
    (tmp_path / "odd.toml").write_text('name = "x"\n[encoder]\nwidth = 30\n')
    for name in ("encoder", "cut", "other", "hollow"):
        shutil.copytree(made[1], tmp_path / name)
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"cut")
    about = read_json(tmp_path / "other" / "model.json")
    (tmp_path / "other" / "model.json").write_text(json.dumps(about | {"kind": "student"}))
    (tmp_path / "hollow" / "model.json").write_text(json.dumps({**about, "sources": [{"name": "x"}]}))
    assert run(["pretrain", "--out", "out", "--quiet", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_tensors_of_another_shape_are_one_line(made: tuple[PretrainReport, Path]) -> None:
    stored = load_foundation(made[1])
    with pytest.raises(EdgeError, match="tensors do not fit its shape"):
        replace(stored, shape=replace(stored.shape, width=32)).network()


def test_result_is_replaced_only_when_forced(
    made: tuple[PretrainReport, Path], bands: tuple[Path, Path], recipe: str
) -> None:
    _, out = made
    with pytest.raises(EdgeError, match="is not empty; choose another --out"):
        pretrain(bands, out, recipe=recipe)
