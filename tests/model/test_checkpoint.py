"""A checkpoint gives back what went in, and what is no checkpoint is one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embridge_edge.artifacts import canonical_json
from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan, resolve
from embridge_edge.model import checkpoint as module
from embridge_edge.model.checkpoint import Checkpoint, load_checkpoint, new_network, save_checkpoint, tensors_of
from embridge_edge.model.head import make_head
from embridge_edge.model.student import StudentShape

CHAIN = resolve(ChainPlan(window_ms=200.0), 200.0, 4, "myo")
STUDENT = StudentShape(40, 4, (8, 8), (3, 3), (2, 2), 2, 8).to_dict()
TEACHER = {
    "steps": 40, "columns": 4, "patch": 10, "frames": 4, "gestures": 2, "emg_width": 8, "emg_blocks": 1, "pose_width": 8,
    "pose_blocks": 1, "query_blocks": 2, "queries": 2, "heads": 2, "embedding": 8, "dropout": 0.1,
}  # fmt: skip


def made(kind: str = "student") -> Checkpoint:
    shape = STUDENT if kind == "student" else TEACHER
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    head = make_head("linear", ["rest", "fist"], rng.standard_normal((2, 8)).astype(np.float32), np.ones(2, np.float32))
    return Checkpoint(
        kind,
        shape,
        tensors_of(new_network(kind, shape)),
        CHAIN,
        ("rest", "fist"),
        (head,),
        {"seed": 3, "split": "session"},
    )


@pytest.mark.parametrize("kind", ["student", "teacher", "supervised"])
def test_checkpoint_survives_the_disk(kind: str, tmp_path: Path) -> None:
    one = made(kind)
    save_checkpoint(one, tmp_path / "a")
    again = load_checkpoint(tmp_path / "a")
    assert (again.kind, again.gestures, again.provenance) == (one.kind, one.gestures, one.provenance)
    assert again.chain == replace(one.chain, resolved=again.chain.resolved)
    assert again.tensors.keys() == one.tensors.keys()
    for name, tensor in one.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], tensor)
        assert again.tensors[name].dtype == tensor.dtype
    x = torch.randn(3, 40, 4)
    with torch.no_grad():
        assert torch.equal(again.network()(x), one.network()(x))
    assert canonical_json(again.metadata()) == canonical_json(one.metadata())
    assert not again.network().training


def test_same_checkpoint_same_bytes_and_an_old_one_is_replaced(tmp_path: Path) -> None:
    for name in ("a", "b", "b"):
        save_checkpoint(made(), tmp_path / name)
    files = [sorted(path.read_bytes() for path in (tmp_path / name).iterdir()) for name in "ab"]
    assert files[0] == files[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    save_checkpoint(made(), tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["model.json", "model.safetensors"]


def damage(folder: Path, what: str) -> None:
    about = json.loads((folder / "model.json").read_text())
    weights = folder / "model.safetensors"
    match what:
        case "no json":
            (folder / "model.json").unlink()
        case "no text":
            (folder / "model.json").write_bytes(b"\xff\x00")
        case "no object":
            (folder / "model.json").write_text("[]")
        case "no weights":
            weights.unlink()
        case "truncated weights":
            weights.write_bytes(weights.read_bytes()[:-8])
        case "newer":
            (folder / "model.json").write_text(json.dumps({**about, "format": 99}))
        case "another kind":
            (folder / "model.json").write_text(json.dumps({**about, "kind": "onnx"}))
        case "no kind":
            (folder / "model.json").write_text(json.dumps({**about, "kind": [1]}))
        case _:
            del about[what]
            (folder / "model.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    "what",
    ["no json", "no text", "no object", "no weights", "truncated weights", "newer", "another kind", "no kind", "chain",
     "heads", "gestures", "shape", "provenance", "tensors_sha256"],
)  # fmt: skip
def test_damaged_checkpoint_is_one_line(what: str, tmp_path: Path) -> None:
    save_checkpoint(made(), tmp_path / "a")
    damage(tmp_path / "a", what)
    with pytest.raises(EdgeError) as caught:
        load_checkpoint(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a") in str(caught.value)


@pytest.mark.parametrize("kind", ["teacher", "supervised"])
def test_towers_of_before_their_stem_was_mended_are_to_be_trained_again(kind: str, tmp_path: Path) -> None:
    save_checkpoint(made(kind), tmp_path / "a")
    file = tmp_path / "a" / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 1}))
    with pytest.raises(EdgeError, match=f"format 1 and kind '{kind}'; this version reads .*: train it again"):
        load_checkpoint(tmp_path / "a")


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("student", {**STUDENT, "widths": (8, 16)}),
        ("student", {**STUDENT, "block": "separable"}),
        ("student", TEACHER),
        ("teacher", {**TEACHER, "emg_blocks": 2}),
        ("teacher", STUDENT),
    ],
)
def test_another_architecture_is_one_line(kind: str, shape: dict[str, object]) -> None:
    with pytest.raises(EdgeError) as caught:
        replace(made(kind), shape=shape).network()
    assert "\n" not in str(caught.value)


def test_architecture_error_names_the_tensor() -> None:
    with pytest.raises(EdgeError, match=r"another architecture: embedding\.weight is \(8, 16\), \(8, 32\) expected"):
        replace(made(), shape={**STUDENT, "queries": 4}).network()


def test_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        path.write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(EdgeError, match="No space left"):
        save_checkpoint(made(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
