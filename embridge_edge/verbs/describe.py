"""`describe`: what an ONNX model of others takes and gives, as a description to fill in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.verbs.options import Common, common_options, show

if TYPE_CHECKING:
    from embridge_edge.export.foreign import OnnxFile, Port

MOST_INNER = 6


@dataclass(frozen=True)
class DescribeReport:
    """A model's inputs and outputs, and tensors inside it that may be its embedding."""

    file: OnnxFile

    @property
    def embeddings(self) -> tuple[Port, ...]:
        """Tensors of two axes, the last of the graph: where an embedding is looked for."""
        flat = [port for port in self.file.inner if port.shape is not None and len(port.shape) == 2]
        return tuple(flat[-MOST_INNER:])

    def text(self) -> str:
        given, *others = self.file.inputs
        return "\n".join(
            [
                f"# {self.file.path.name}, sha256 {self.file.sha256[:16]}…: fill in what begins with # and take the # away.",
                *(f"# It also takes {port.spelled()}: export it with that as a constant." for port in others),
                "",
                '# split = "session"  # that it was trained with: quantize and distill then keep to the same training side',
                "",
                "[input]",
                f'name = "{given.name}"  # {given.spelled()}',
                '# layout = ["batch", "channels", "time"]  # what each axis is, in this order; "one" is an axis of length 1',
                "",
                "[outputs]  # as many as there are; a tensor inside the graph will do",
                *(f'# scores = "{port.name}"  # {port.spelled()}' for port in self.file.outputs),
                '# gestures = ["rest", "fist"]  # of the scores, in their order, named as in the recordings',
                *(
                    f'# embedding = "{port.name}"  # {port.spelled()}'
                    for port in (*self.embeddings, *self.file.outputs)
                ),
                "",
                *_REST,
            ]
        )

    def to_json(self) -> dict[str, Any]:
        def listed(ports: tuple[Port, ...]) -> list[dict[str, Any]]:
            return [{"name": port.name, "shape": port.shape, "type": port.type} for port in ports]

        return {
            "file": str(self.file.path),
            "sha256": self.file.sha256,
            "inputs": listed(self.file.inputs),
            "outputs": listed(self.file.outputs),
            "embeddings": listed(self.embeddings),
        }


_REST = (
    "[signal]  # of the recordings that it was trained on",
    "# rate_hz = 200.0",
    "# channels = 8",
    '# unit = "V"  # as embridge-edge inspect shows it',
    "",
    "[chain]  # what happens to the samples before the model, as in a recipe",
    "# window_ms = 200.0",
    "# hop_ms = 50.0",
    "# bandpass_hz = [20.0, 450.0]  # false for none",
    "",
    "[normalisation]  # (x - offset) * gain, clipped to ± limit; a list has one number for each column",
    "# offset = 0.0",
    "# gain = 1.0",
    "# limit = 8.0",
)


def describe(model: Path) -> DescribeReport:
    """What an ONNX model takes and gives.

    Raises:
        EdgeError: the file is missing, damaged or no ONNX model.
    """
    from embridge_edge.errors import EdgeError
    from embridge_edge.export.foreign import read_onnx

    file = read_onnx(model)
    if not file.inputs:
        raise EdgeError(f"{model} has no input that needs a value; export it again.")
    return DescribeReport(file)


@click.command("describe")
@click.argument("model", type=click.Path(path_type=Path))
@common_options
def command(model: Path, common: Common) -> None:
    """Print what MODEL, an ONNX file of others, takes and gives, as a description for distill and quantize to fill in."""
    show(describe(model), common)
