"""`bridge` on a ring student: hop by hop in C, with a ring of tokens, decides what the whole graph decides in Python."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.export import metadata
from embridge_edge.export.quantizing import quantize_tflite
from embridge_edge.export.reading import quantize_values
from embridge_edge.export.running import run_tflite
from embridge_edge.export.tflite import to_tflite
from embridge_edge.features import Stream
from embridge_edge.features.chain import ChainPlan, SignalChain, resolve
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.host_build import WARNINGS
from embridge_edge.learning.distill import ring_shape
from embridge_edge.model.head import make_head
from embridge_edge.model.ring_student import RingShape
from embridge_edge.recipe import StudentPlan
from embridge_edge.recordings import read_recordings
from tests.model.test_ring_student import trained
from tests.tools import QEMU, needs
from tests.verbs.conftest import Edge

GESTURES = ("rest", "fist", "flexion", "extension", "point")
PLAN = StudentPlan(
    family="ring", widths=(16, 24), kernels=(5, 3), strides=(2, 2), width=16, reader_widths=(24,), reader_kernels=(3,)
)

MAIN = """
#include <stdio.h>
#include "emb.h"

int main(void)
{
    static emb_t emb;
    static emb_sample_t frames[7 * EMB_FRAME_CHANNELS];
    emb_decision_t decision;
    size_t count;
    uint32_t given = 0;
    emb_init(&emb);
    while ((count = fread(frames, sizeof frames[0] * EMB_FRAME_CHANNELS, 7, stdin)) != 0) {
        if (INTERRUPTED != 0 && given <= INTERRUPTED && given + 7 > INTERRUPTED) {
            emb_interrupt(&emb);
        }
        given += (uint32_t)count;
        if (emb_push(&emb, frames, count) != count) {
            return 1;
        }
        while (emb_poll(&emb, &decision)) {
            fwrite(emb_model_output(&emb.model), 1, EMB_EMBEDDING, stdout);
            fwrite(&decision.first, 1, 4, stdout);
        }
    }
    return emb_lost(&emb) != 0;
}
"""


def raw_chain() -> SignalChain:
    made = resolve(ChainPlan(window_ms=400.0, hop_ms=50.0, bandpass_hz=(5.0, 450.0)), 200.0, 8, "myo")
    return replace(made, gain=(1 / 32,) * made.columns)


def feature_chain() -> SignalChain:
    plan = ChainPlan(
        window_ms=400.0, hop_ms=100.0, bandpass_hz=(5.0, 450.0), features=("LOGRMS", "ZC", "MNF"), frame_ms=50.0
    )
    made = resolve(plan, 200.0, 8, "myo")
    return replace(made, gain=(0.5, 1.0, 0.05) * 8)


def artifact(path: Path, chain: SignalChain) -> RingShape:
    """What `quantize` writes, without the training: a ring student behind the chain, and a head."""
    shape = ring_shape(chain, PLAN, 24)
    model = to_tflite(fold_batchnorm(trained(shape)), (1, *chain.input_shape))
    draw = np.random.default_rng(5)
    windows = 3.0 * draw.standard_normal((64, *chain.input_shape)).astype(np.float32)
    rows, bias = draw.normal(size=(len(GESTURES), 24)), draw.normal(size=len(GESTURES))
    head = make_head("linear", GESTURES, rows.astype(np.float32), bias.astype(np.float32))
    about = {
        "chain": chain.to_dict(), "gestures": list(GESTURES), "heads": [head.to_dict()], "kind": "student",
        "ring": {"frames": shape.frames, "hop": shape.hop},
    }  # fmt: skip
    path.write_bytes(metadata.attach(quantize_tflite(model, windows), about))
    return shape


def embedded_by_python(path: Path, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    given = read_graph(path).tensors[read_graph(path).inputs[0]]
    integers = quantize_values(windows, given.scales[0], given.zero_points[0])
    return np.asarray(run_tflite(path, integers, "litert-ref", raw=True))


def embedded_by_c(
    package: Path, folder: Path, counts: npt.NDArray[np.int16], interrupted: int = 0
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.uint32]]:
    """Embeddings and first samples of all decisions, by a program of this machine that is given seven samples at a time."""
    (folder / "main.c").write_text(MAIN, "utf-8")
    sources = [str(path) for path in sorted((package / "src").rglob("*.c"))]
    flags = [
        "-std=c99",
        "-O1",
        *WARNINGS,
        "-ffp-contract=off",
        "-fsanitize=address,undefined",
        f"-DINTERRUPTED={interrupted}",
    ]
    command = ["cc", *flags, f"-I{package / 'src'}", "-o", str(folder / "run"), *sources, str(folder / "main.c")]
    subprocess.run(command, check=True)
    done = subprocess.run([str(folder / "run")], input=counts.tobytes(), capture_output=True, check=True)
    rows = np.frombuffer(done.stdout, np.uint8).reshape(-1, 28)
    return rows[:, :24].view(np.int8), np.ascontiguousarray(rows[:, 24:]).view("<u4")[:, 0]


def noise(frames: int, seed: int = 0) -> npt.NDArray[np.int16]:
    draw = np.random.default_rng(seed)
    loud = np.exp(np.cumsum(draw.normal(0, 0.05, frames)))[:, None]
    return np.clip(np.rint(20 * loud * draw.standard_normal((frames, 8))), -127, 127).astype(np.int16)


@pytest.mark.parametrize("made", [raw_chain, pytest.param(feature_chain, marks=pytest.mark.slow)])
def test_hop_by_hop_gives_the_bytes_of_the_whole_graph(
    tmp_path: Path, edge: Edge, made: Callable[[], SignalChain]
) -> None:
    chain, model, counts = made(), tmp_path / "student_int8.tflite", noise(400)
    shape = artifact(model, chain)
    report = edge("bridge", model, "--target", "host", "--out", tmp_path / "package", "--verify", "3")
    assert report["selftests"] == {"host": True} and report["mismatches"] == 0
    assert (report["ring"]["macs"], report["ring"]["whole_macs"]) == (shape.hop_macs, shape.macs)
    readme = (tmp_path / "package" / "README.md").read_text("utf-8")
    assert (
        "| plan | `EMB_READER_SECTION_PLAN` in `src/emb/emb_reader_section.h` and `EMB_TOKEN_SECTION_PLAN` in" in readme
    )
    found, first = embedded_by_c(tmp_path / "package", tmp_path, counts)
    expected = embedded_by_python(model, Stream(chain).push(counts.astype(np.float32)))
    np.testing.assert_array_equal(found, expected)
    assert len(found) == (len(counts) - chain.window) // chain.hop + 1  # none before the first window is full
    np.testing.assert_array_equal(first, chain.hop * np.arange(len(found)))
    assert len(np.unique(found, axis=0)) > len(found) / 2


def test_after_an_interruption_the_ring_fills_anew(tmp_path: Path, edge: Edge) -> None:
    """Seven samples at a time: the interruption lies before the 43rd of them, in the middle of a hop."""
    chain, model, counts = raw_chain(), tmp_path / "student_int8.tflite", noise(500)
    artifact(model, chain)
    edge("bridge", model, "--target", "host", "--out", tmp_path / "package")
    found, first = embedded_by_c(tmp_path / "package", tmp_path, counts, interrupted=294)
    before, after = (Stream(chain).push(part.astype(np.float32)) for part in (counts[:294], counts[294:]))
    np.testing.assert_array_equal(found, embedded_by_python(model, np.concatenate([before, after])))
    assert first[len(before)] == 294


def test_a_self_test_notices_a_changed_token(tmp_path: Path, edge: Edge) -> None:
    artifact(tmp_path / "student_int8.tflite", raw_chain())
    edge("bridge", tmp_path / "student_int8.tflite", "--target", "host", "--out", tmp_path / "package")
    glue = tmp_path / "package" / "src" / "emb" / "emb_model.c"
    glue.write_text(glue.read_text("utf-8").replace("(model->oldest + 1u)", "(model->oldest + 2u)"), "utf-8")
    sources = [str(path) for path in sorted((tmp_path / "package" / "src").rglob("*.c"))]
    main = str(tmp_path / "package" / "examples" / "host" / "main.c")
    subprocess.run(["cc", f"-I{tmp_path / 'package' / 'src'}", "-o", str(tmp_path / "run"), *sources, main], check=True)
    assert subprocess.run([str(tmp_path / "run")], check=False, capture_output=True).returncode != 0


def test_a_phone_and_whoever_asks_for_it_get_whole_windows(
    tmp_path: Path, edge: Edge, refused: Callable[..., str]
) -> None:
    model = tmp_path / "student_int8.tflite"
    artifact(model, raw_chain())
    for name, options in (("phone", ["--target", "phone-arm64"]), ("whole", ["--target", "host", "--whole-window"])):
        report = edge("bridge", model, "--out", tmp_path / name, *options)
        assert report["ring"] is None
        assert "src/emb/emb_token.c" not in report["files"] and "src/emb_token.h" not in report["files"]
    alone = edge("bridge", model, "--target", "host", "--out", tmp_path / "alone", "--network-only")
    assert alone["ring"] is None
    line = refused("bridge", model, "--target", "host", "--out", tmp_path / "x", "--network-only", "--whole-window")
    assert "--whole-window is for a ring student with its signal chain" in line


@pytest.mark.slow
def test_ring_takes_fewer_instructions_and_less_memory_than_whole_windows(tmp_path: Path, edge: Edge) -> None:
    needs(*QEMU)
    model = tmp_path / "student_int8.tflite"
    artifact(model, raw_chain())
    common = ("bridge", model, "--target", "qemu-m4", "--measure", "--verify", "3")
    ring = edge(*common, "--out", tmp_path / "ring")
    whole = edge(*common, "--out", tmp_path / "whole", "--whole-window")
    assert ring["selftests"] == whole["selftests"] == {"host": True, "qemu-m4": True}
    assert ring["instructions"] < 0.6 * whole["instructions"]
    assert ring["ram_bytes"] < whole["ram_bytes"]
    assert sum(row["macs"] for row in ring["per_op"]) == ring["ring"]["macs"] < ring["ring"]["whole_macs"]
    assert ring["sizes"]["constants"]["weights"] == whole["sizes"]["constants"]["weights"]


def test_decisions_on_real_recordings_are_those_of_the_whole_graph(data: Path, tmp_path: Path, edge: Edge) -> None:
    chain, model = raw_chain(), tmp_path / "student_int8.tflite"
    artifact(model, chain)
    edge("bridge", model, "--target", "host", "--out", tmp_path / "package")
    for recording in itertools.islice(read_recordings(data / "myo_readings"), 2):
        counts = np.rint(recording.emg).astype(np.int16)[:3000]
        found, _ = embedded_by_c(tmp_path / "package", tmp_path, counts)
        np.testing.assert_array_equal(found, embedded_by_python(model, Stream(chain).push(counts.astype(np.float32))))
