"""`bridge` on a model with a signal chain and a head: samples of real recordings in, the decisions of Python out."""

from __future__ import annotations

import itertools
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embridge_edge import cli
from embridge_edge.export import metadata
from embridge_edge.export.reading import quantize_values
from embridge_edge.features import Stream
from embridge_edge.features.chain import ChainPlan, SignalChain, resolve
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.host_build import WARNINGS
from embridge_edge.firmware_bridge.oracle import oracle_for
from embridge_edge.model.head import Head, make_head
from embridge_edge.recordings import read_recordings
from tests.firmware_bridge.single_op import Spec, constant, model_of
from tests.tools import QEMU, needs

EMBEDDING = 24
GESTURES = ("rest", "fist", "flexion", "extension", "point")

MAIN = """
#include <stdio.h>
#include "emb.h"

int main(void)
{
    static emb_t emb;
    static emb_sample_t frames[7 * EMB_FRAME_CHANNELS];
    emb_decision_t decision;
    size_t count;
    emb_init(&emb);
    while ((count = fread(frames, sizeof frames[0] * EMB_FRAME_CHANNELS, 7, stdin)) != 0) {
        if (emb_push(&emb, frames, count) != count) {
            return 1;
        }
        while (emb_poll(&emb, &decision)) {
            printf("%d\\n", decision.index);
        }
    }
    return emb_lost(&emb) != 0;
}
"""


def myo_chain() -> SignalChain:
    made = resolve(ChainPlan(window_ms=400.0, hop_ms=50.0, bandpass_hz=(5.0, 450.0)), 200.0, 8, "myo")
    return replace(made, gain=(1 / 32,) * made.columns)


def artifact(path: Path, chain: SignalChain) -> tuple[Path, Head]:
    """A model of random weights behind the chain, with a head: what `export` writes, without the training."""
    draw = np.random.default_rng(5)
    inputs = chain.steps * chain.columns
    weights = constant(draw.integers(-127, 128, (EMBEDDING, inputs)), np.int8, 0.01)
    bias = constant(draw.integers(-2000, 2000, EMBEDDING), np.int32, 0.01 * chain.largest / 127)
    content = model_of(
        "FULLY_CONNECTED",
        [Spec((1, *chain.input_shape), scale=chain.largest / 127, zero=0), weights, bias],
        [Spec((1, EMBEDDING), scale=0.5, zero=-3)],
    )
    head = make_head(
        "linear",
        GESTURES,
        draw.normal(size=(len(GESTURES), EMBEDDING)).astype(np.float32),
        draw.normal(size=len(GESTURES)).astype(np.float32),
    )
    about = {"chain": chain.to_dict(), "gestures": list(GESTURES), "heads": [head.to_dict()], "kind": "student"}
    path.write_bytes(metadata.attach(content, about))
    return path, head


def decided_by_python(path: Path, chain: SignalChain, head: Head, counts: npt.NDArray[np.int16]) -> list[int]:
    content = path.read_bytes()
    graph = read_graph(content)
    given, taken = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    windows = quantize_values(Stream(chain).push(counts.astype(np.float32)), given.scales[0], given.zero_points[0])
    oracle = oracle_for(content, graph, "litert-ref")
    outputs = np.stack([oracle([window[None]])[taken.index].reshape(-1) for window in windows])
    embedding = (outputs.astype(np.float32) - taken.zero_points[0]) * np.float32(taken.scales[0])
    return [int(index) for index in head.decide(embedding)]


def built(package: Path, folder: Path) -> Path:
    """A program of this machine that reads samples and prints decisions."""
    (folder / "main.c").write_text(MAIN, "utf-8")
    sources = [str(path) for path in sorted((package / "src").rglob("*.c"))]
    command = [
        "cc",
        "-std=c99",
        "-O2",
        *WARNINGS,
        "-ffp-contract=off",
        f"-I{package / 'src'}",
        "-o",
        str(folder / "run"),
    ]
    subprocess.run([*command, *sources, str(folder / "main.c")], check=True)
    return folder / "run"


def test_decisions_on_real_recordings_are_those_of_python(data: Path, tmp_path: Path) -> None:
    chain = myo_chain()
    model, head = artifact(tmp_path / "student_int8.tflite", chain)
    status = cli.run(["bridge", str(model), "--target", "host", "--out", str(tmp_path / "package"), "--quiet"])
    assert status == 0
    program = built(tmp_path / "package", tmp_path)
    for recording in itertools.islice(read_recordings(data / "myo_readings"), 3):
        counts = np.rint(recording.emg).astype(np.int16)[:6000]
        done = subprocess.run([str(program)], input=counts.tobytes(), capture_output=True, check=True)
        found = [int(line) for line in done.stdout.split()]
        assert found == decided_by_python(model, chain, head, counts)
        assert len(found) == (len(counts) - chain.window) // chain.hop + 1
        assert len(set(found)) > 1


def test_self_test_of_the_package_runs_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = artifact(tmp_path / "student_int8.tflite", myo_chain())
    status = cli.run(
        [
            "bridge",
            str(model),
            "--target",
            "host",
            "--out",
            str(tmp_path / "package"),
            "--verify",
            "3",
            "--json",
            "--quiet",
        ]
    )
    report = json.loads(capsys.readouterr().out)
    assert status == 0
    assert report["selftests"] == {"host": True}
    assert (tmp_path / "package" / "src" / "emb.h").is_file()
    assert "emb_push" in (tmp_path / "package" / "README.md").read_text("utf-8")


def test_volts_need_what_a_count_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = replace(myo_chain(), unit="V")
    model, _ = artifact(tmp_path / "student_int8.tflite", chain)
    arguments = ["bridge", str(model), "--target", "host", "--out", str(tmp_path / "package")]
    assert cli.run(arguments) == 2
    assert "--unit-per-count" in capsys.readouterr().err
    assert not (tmp_path / "package").exists()
    assert cli.run([*arguments, "--network-only"]) == 0
    assert not (tmp_path / "package" / "src" / "emb.h").exists()


def test_a_head_that_is_not_there_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = artifact(tmp_path / "student_int8.tflite", myo_chain())
    status = cli.run(["bridge", str(model), "--target", "host", "--out", str(tmp_path / "package"), "--head", "poses"])
    assert status == 2
    assert "it has linear" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"), [(["--name", "left"], "always called emb"), (["--address", "0x80000"], "--network-only")]
)
def test_options_of_a_network_alone_are_refused_beside_a_chain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    model, _ = artifact(tmp_path / "student_int8.tflite", myo_chain())
    status = cli.run(["bridge", str(model), "--target", "host", "--out", str(tmp_path / "package"), *options])
    assert status == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_sizes_count_the_chain_and_its_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A target that holds the network but not the ring and the window is refused, with status 3."""
    needs(*QEMU)
    model, _ = artifact(tmp_path / "student_int8.tflite", myo_chain())
    (tmp_path / "tiny.toml").write_text('based_on = "nrf52840"\nflash_kib = 64\nram_kib = 3\n')
    arguments = ["bridge", str(model), "--measure", "--json", "--quiet", "--out", str(tmp_path / "package")]
    status = cli.run([*arguments, "--target", str(tmp_path / "tiny.toml")])
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert status == 3
    assert "RAM" in printed.err
    assert report["network_ram_bytes"] < 3 * 1024 < report["ram_bytes"]
    assert report["sizes"]["constants"]["chain and head"] > 0
    assert report["sizes"]["stack_estimated_path"][0] == "emb_poll"
    assert report["sizes"]["stack_painted_bytes"] > 0
