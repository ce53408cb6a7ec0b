"""Example dictionaries of `report.json`, as `deploy` and `benchmark` make them. The numbers are made up."""

from __future__ import annotations

import random
from typing import Any

import pytest

from embridge_edge.recipe import Recipe

GESTURES = ["rest", "fist", "flexion", "extension", "radial_deviation", "ulnar_deviation", "pronation", "supination"]
MEANS = {
    "session": {"lda": 0.489, "supervised": 0.641, "teacher": 0.684, "student": 0.673, "student_int8": 0.668},
    "wearer": {"lda": 0.428, "supervised": 0.447, "teacher": 0.462, "student": 0.455, "student_int8": 0.452},
}
WINDOWS = {"session": 41_210, "wearer": 198_402}
WEARERS = 32


def example_report() -> dict[str, Any]:
    """A full report: eight gestures, two splits, five models, one gate missed."""
    chance = random.Random(7)
    results: list[dict[str, Any]] = []
    per_wearer: list[dict[str, Any]] = []
    confusions: list[dict[str, Any]] = []
    for split, means in MEANS.items():
        ease = [chance.gauss(0.0, 0.14) for _ in range(WEARERS)]
        for model, mean in means.items():
            values = [min(0.99, max(0.1, mean + shift + chance.gauss(0.0, 0.03))) for shift in ease]
            for metric, offset in (("balanced_accuracy", 0.0), ("accuracy", 0.11), ("macro_f1", -0.02)):
                results.append(_result(model, split, metric, sum(values) / WEARERS + offset, 0.05))
            n = WINDOWS[split] // WEARERS
            per_wearer += [
                {
                    "model": model,
                    "split": split,
                    "metric": "balanced_accuracy",
                    "wearer": f"p{index:02}",
                    "value": value,
                    "n": n,
                }
                for index, value in enumerate(values)
            ]
            confusions.append(
                {"model": model, "split": split, "gestures": GESTURES, "counts": _counts(chance, split, mean)}
            )
        results.append(_result("teacher", split, "zero_shot_balanced_accuracy", means["teacher"] - 0.06, 0.05))
        results.append(_result("student_int8", split, "class_flips", 0.034 if split == "wearer" else 0.021, 0.004))
    results.append(_result("student_int8", "session", "mean_removed_error", 0.0413, 0.006))
    return {
        "title": "Armband on nRF52840: deploy report",
        "created": "2026-03-14T09:26:53Z",
        "recipe": Recipe("armband", "nrf52840").to_dict(),
        "recipe_sha256": "6f1ed002ab5595859014ebf0951522d9f0d1ab3a5cb0d4f8e14b3d1e94f9a1c2",
        "seed": 0,
        "data": {
            "name": "myo_readings",
            "recordings": 96,
            "wearers": WEARERS,
            "sessions": 96,
            "hours": 5.62,
            "channels": 8,
            "rate_hz": 200.0,
            "unit": "adc",
            "gestures": GESTURES,
            "windows": 239_612,
            "problems": [
                "p07/session2.csv: 1,204 of 61,400 samples repeat the one before; the clock jumps at 00:03:11",
                "p19/session1.csv: channel 4 saturates in 2.1 % of the samples",
            ],
        },
        "chain": {
            "rate_hz": 200.0,
            "bandpass_hz": [20.0, 90.0],
            "notch_hz": [50.0],
            "window_ms": 400.0,
            "hop_ms": 50.0,
        },
        "results": results,
        "confusions": confusions,
        "per_wearer": per_wearer,
        "quantization": {
            "layers": [
                {
                    "name": name,
                    "op": op,
                    "snr_db": 38.0 - 1.6 * index,
                    "mean_removed_error": 0.004 + 0.0041 * index,
                    "cosine": 0.99996 - 0.0001 * index,
                }
                for index, (name, op) in enumerate(_layers())
            ],
            "input_scale": 0.0625,
            "input_zero_point": 0,
            "output_scale": 0.0471223,
            "output_zero_point": -3,
            "sensitivity": {
                "whole": {"mean_removed_error": 0.0432},
                "layers": [
                    {
                        "name": name,
                        "op": op,
                        "alone": {"mean_removed_error": 0.001 * (index + 1)},
                        "without": {"mean_removed_error": 0.0432 - 0.001 * index},
                        "wide": None if op == "SOFTMAX" else {"mean_removed_error": 0.0433 - 0.001 * index},
                    }
                    for index, (name, op) in enumerate(_layers())
                ],
                "advice": '[quantize] wide = ["student/embedding"]',
            },
        },
        "parity": [
            {
                "reference": "litert-ref",
                "other": "tflm",
                "windows": 1000,
                "max_steps": 0,
                "within_one_step": 1.0,
                "class_flips": 0.0,
                "exact": 1.0,
            },
            {
                "reference": "litert-ref",
                "other": "litert",
                "windows": 1000,
                "max_steps": 2,
                "within_one_step": 0.99987,
                "class_flips": 0.001,
                "exact": 0.971,
            },
        ],
        "artifacts": [
            _artifact("student_int8.tflite", "int8 tflite", 72_104, 11_280, 9_600, 0),
            _artifact("student.tflite", "float tflite", 236_880, None, 38_400, 21),
            _artifact("student.onnx", "onnx", 231_455, None, None, None),
        ],
        "target": {
            "name": "nrf52840",
            "core": "cortex-m4",
            "clock_mhz": 64,
            "flash_kib": 1024,
            "ram_kib": 256,
            "flash_used_bytes": 72_104,
            "ram_used_bytes": 11_280,
            "ok": True,
            "notes": [
                "A Bluetooth stack takes flash and RAM: give yours as application_flash_kib and application_ram_kib."
            ],
        },
        "latency": [
            {
                "artifact": "student_int8.tflite",
                "runtime": "litert",
                "threads": 1,
                "p50_ms": 0.1834,
                "p99_ms": 0.2411,
                "n": 500,
                "source": "host wall clock",
            },
            {
                "artifact": "student_int8.tflite",
                "runtime": "tflm",
                "threads": 1,
                "p50_ms": 6.412,
                "p99_ms": 7.03,
                "n": 500,
                "source": "host wall clock",
            },
            {
                "artifact": "student.onnx",
                "runtime": "onnxruntime",
                "threads": 1,
                "p50_ms": 0.2207,
                "p99_ms": None,
                "n": 500,
                "source": "host wall clock",
            },
        ],
        "calibration": {
            "windows": 512,
            "wearers": 32,
            "sessions": 64,
            "rest_share": 0.127,
            "gesture_shares": dict.fromkeys(GESTURES, 0.125),
            "channels": [
                {
                    "channel": index,
                    "calibration_low": -7.9 + 0.45 * (index % 4),
                    "calibration_high": 7.9 - 0.5 * (index % 3),
                    "test_low": -7.2 + 0.2 * index,
                    "test_high": 7.95 if index == 5 else 6.3,
                    "saturated_share": 0.0004 if index == 5 else 0.0,
                }
                for index in range(8)
            ],
        },
        "gates": [
            {
                "name": "student_balanced_accuracy",
                "limit": 0.6,
                "value": 0.668,
                "ok": True,
                "what": "balanced accuracy of the int8 student, unseen session",
            },
            {
                "name": "int8_loss",
                "limit": 0.01,
                "value": 0.005,
                "ok": True,
                "what": "balanced accuracy lost from float to int8",
            },
            {
                "name": "class_flips",
                "limit": 0.03,
                "value": 0.0304,
                "ok": False,
                "what": "share of windows whose decided gesture int8 changes",
            },
            {"name": "tflite_bytes", "limit": 128_000, "value": 72_104, "ok": True, "what": "size of the int8 .tflite"},
            {
                "name": "parity_max_steps",
                "limit": 3,
                "value": 2,
                "ok": True,
                "what": "largest difference between runtimes, in int8 steps",
            },
            {
                "name": "parity_within_one",
                "limit": 0.97,
                "value": 0.99987,
                "ok": True,
                "what": "share of outputs within one int8 step of the reference",
            },
            {
                "name": "parity_class_flips",
                "limit": 0.005,
                "value": None,
                "ok": None,
                "what": "share of windows that runtimes decide differently",
            },
        ],
        "minutes": [
            {"step": "read recordings", "minutes": 0.021, "cached": True},
            {"step": "train teacher", "minutes": 18.4, "cached": False},
            {"step": "distil student", "minutes": 9.7, "cached": False},
            {"step": "quantize and export", "minutes": 0.8, "cached": False},
            {"step": "judge, 5 folds", "minutes": 24.2, "cached": False},
            {"step": "measure latency", "minutes": 0.3, "cached": False},
        ],
        "host": {"cpu": "Example CPU @ 2.00GHz", "cores": 2, "memory_gib": 7.8, "os": "Linux 6.1", "python": "3.11.9"},
        "versions": {
            "embridge-edge": "0.1.0",
            "torch": "2.13.0",
            "ai-edge-litert": "2.3.0",
            "litert-torch": "0.10.0",
            "numpy": "2.4.6",
        },
    }


def poses_report() -> dict[str, Any]:
    """Recordings of one wearer with hand tracking and no gestures: only R², no interval, no confusion."""
    whole = example_report()
    results = [
        {
            "model": model,
            "data": "tracked",
            "split": "repetition",
            "metric": "r2",
            "value": value,
            "ci_low": None,
            "ci_high": None,
            "n": 3120,
            "n_groups": 1,
            "spread": None,
        }
        for model, value in (("ridge", 0.31), ("teacher", 0.52), ("student", 0.49), ("student_int8", 0.488))
    ]
    per_wearer = [
        {"model": row["model"], "split": "repetition", "metric": "r2", "wearer": "me", "value": row["value"], "n": 3120}
        for row in results
    ]
    return whole | {
        "title": "Hand poses of one wearer",
        "created": None,
        "results": results,
        "per_wearer": per_wearer,
        "confusions": [],
        "data": whole["data"] | {"name": "tracked", "gestures": [], "wearers": 1, "problems": []},
        "gates": [],
        "latency": [],
        "parity": [],
        "calibration": whole["calibration"] | {"gesture_shares": {}},
        "minutes": [],
        "target": {},
    }


def _result(model: str, split: str, metric: str, value: float, half: float) -> dict[str, Any]:
    return {
        "model": model,
        "data": "myo_readings",
        "split": split,
        "metric": metric,
        "value": value,
        "ci_low": value - half,
        "ci_high": value + half,
        "n": WINDOWS[split],
        "n_groups": WEARERS,
        "spread": 2.9 * half,
    }


def _counts(chance: random.Random, split: str, mean: float) -> list[list[int]]:
    table = []
    for truth in range(len(GESTURES)):
        windows = WINDOWS[split] * (4 if truth == 0 else 1) // 11
        hard = {0: 0.38, 6: -0.24, 7: -0.16}.get(truth, 0.06)
        recall = min(0.97, max(0.05, mean + hard + chance.gauss(0.0, 0.05)))
        shares = [chance.random() ** 3 + (0.8 if other == 0 else 0.0) for other in range(len(GESTURES))]
        shares[truth] = 0.0
        wrong = (1.0 - recall) / sum(shares)
        table.append(
            [round(windows * (recall if other == truth else shares[other] * wrong)) for other in range(len(GESTURES))]
        )
    return table


def _layers() -> list[tuple[str, str]]:
    blocks = [
        (f"student/block{index}/{part}", op)
        for index in range(4)
        for part, op in (("depthwise", "DEPTHWISE_CONV_2D"), ("pointwise", "CONV_2D"), ("relu", "RELU"))
    ]
    return [
        *blocks,
        ("student/pool/queries/softmax", "SOFTMAX"),
        ("student/pool/matmul", "BATCH_MATMUL"),
        ("student/embedding", "FULLY_CONNECTED"),
    ]


def _artifact(
    path: str, kind: str, size: int, arena: int | None, peak: int | None, floats: int | None
) -> dict[str, Any]:
    return {
        "path": path,
        "kind": kind,
        "bytes": size,
        "macs": 1_843_200,
        "parameters": 57_312,
        "arena_bytes": arena,
        "peak_activation_bytes": peak,
        "float_ops": floats,
    }


@pytest.fixture(scope="session")
def full_report() -> dict[str, Any]:
    """Not to be changed."""
    return example_report()


@pytest.fixture
def report() -> dict[str, Any]:
    return example_report()


@pytest.fixture
def poses() -> dict[str, Any]:
    return poses_report()
