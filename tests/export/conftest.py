"""A student that has learned something, and every file made from it: random weights say nothing about quantization."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.export.onnx import quantize_onnx, to_onnx
from embridge_edge.export.quantizing import quantize_tflite
from embridge_edge.export.tflite import to_tflite
from embridge_edge.model.student import Student, StudentShape

CLASSES = 8


@dataclasses.dataclass(frozen=True)
class Exported:
    """One trained student, its head and its four files."""

    folded: Student
    head: torch.nn.Linear
    calibration: npt.NDArray[np.float32]
    windows: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    float_tflite: bytes
    int8_tflite: bytes
    float_onnx: bytes
    int8_onnx: bytes

    def embeddings(self) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(self.folded(torch.from_numpy(self.windows)))

    def decisions(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        with torch.no_grad():
            return np.asarray(self.head(torch.from_numpy(embeddings)).argmax(dim=1))


def gestures(count: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Windows `[n, 80, 8]`: each class has its own muscles; effort varies as it does on an arm."""
    labels = rng.integers(0, CLASSES, count)
    distance = (np.arange(8)[None] - labels[:, None] + 4) % 8 - 4
    envelope = 0.3 + np.exp(-0.5 * distance**2)
    effort = rng.lognormal(0, 0.4, (count, 1, 1))
    return (rng.standard_normal((count, 80, 8)) * envelope[:, None] * effort).astype(np.float32), labels


@pytest.fixture(scope="session")
def exported() -> Exported:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    student, head = Student(StudentShape(80, 8)), torch.nn.Linear(64, CLASSES)
    optimizer = torch.optim.AdamW([*student.parameters(), *head.parameters()], 2e-3)
    for _ in range(80):
        windows, labels = gestures(64, rng)
        loss = torch.nn.functional.cross_entropy(head(student(torch.from_numpy(windows))), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folded = fold_batchnorm(student)
    calibration, _ = gestures(200, rng)
    windows, labels = gestures(200, rng)
    float_tflite, float_onnx = to_tflite(folded, (1, 80, 8)), to_onnx(folded, (1, 80, 8))
    return Exported(
        folded,
        head,
        calibration,
        windows,
        labels,
        float_tflite,
        quantize_tflite(float_tflite, calibration),
        float_onnx,
        quantize_onnx(float_onnx, calibration),
    )
