"""`check`: how good a checkpoint or an artifact is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import SPLITS, recipe_from_dict
from embridge_edge.verbs.models import OpenModel, embed_windows, open_model
from embridge_edge.verbs.options import Common, common_options, show

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.export.comparing import FilePair
    from embridge_edge.export.support import OpSupport
    from embridge_edge.learning.scores import Result

    Floats = npt.NDArray[np.float32]

NOISE_WINDOWS = 256
LAYER_WINDOWS = 200


@dataclass(frozen=True)
class CheckReport:
    """Scores of a model beside its baselines, and of a second model where one was given.

    Attributes:
        results: one per model and metric. confusions: counts per model. per_wearer: the values behind the means.
        comparison: how far the second model lies from the first; None without one.
        files: where both are files, what these differ in, and by how many integer steps their outputs do.
        layers: error of each int8 layer against the float twin, worst first.
        ops: on which runtimes the ops of the file run.
        split, data: on what.
    """

    model: str
    data: str | None
    split: str | None
    results: tuple[Result, ...] = ()
    confusions: tuple[dict[str, Any], ...] = ()
    per_wearer: tuple[dict[str, Any], ...] = ()
    comparison: dict[str, Any] | None = None
    files: FilePair | None = None
    layers: tuple[dict[str, Any], ...] = field(default=())
    ops: tuple[OpSupport, ...] = ()

    def text(self) -> str:
        lines = []
        if self.results:
            lines.append(f"{self.data}, split {self.split}")
            for result in self.results:
                interval = "" if result.ci_low is None else f"  [{result.ci_low:.3f}, {result.ci_high:.3f}]"
                wearers = f"{result.n_groups} wearer{'s' * (result.n_groups != 1)}"
                lines.append(
                    f"  {result.model:18} {result.metric:34} {result.value:6.3f}{interval}  n={result.n:,} windows, {wearers}"
                )
        lines += [_worst_class(table) for table in self.confusions]
        if self.comparison is not None:
            c = self.comparison
            flips = (
                "no heads to decide with" if c["class_flips"] is None else f"class flips {100 * c['class_flips']:.2f} %"
            )
            lines.append(
                f"{c['model']} against {c['against']} on {c['inputs']}: {flips}, "
                f"mean-removed error {c['mean_removed_error']:.4f}, largest difference {c['largest_difference']:.4g}"
            )
            if self.files is not None:
                lines.append(self.files.text())
        if self.layers:
            lines.append(
                "layer (worst first)             op                     SNR dB  cosine  mean-removed error  clipped"
            )
            lines += [
                f"  {row['name'][:28]:28}  {row['op']:20} {row['snr_db']:8.1f} {row['cosine']:7.4f} {row['mean_removed_error']:19.4f}"
                f" {100 * row['clipped']:7.2f} %"
                for row in self.layers
            ]
        if self.ops:
            told = [one.text() for one in self.ops if one.status != "runs"]
            lines += [
                *told,
                f"{len(self.ops) - len(told)} of {len(self.ops)} pairs of op and runtime run without a remark",
            ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "data": self.data,
            "split": self.split,
            "results": [result.to_json() for result in self.results],
            "confusions": list(self.confusions),
            "per_wearer": list(self.per_wearer),
            "comparison": self.comparison,
            "files": None if self.files is None else self.files.to_json(),
            "layers": list(self.layers),
            "ops": [one.to_json() for one in self.ops],
        }


def check(
    artifact: Path,
    data: Path | None = None,
    *,
    split: str | None = None,
    against: Path | None = None,
    layers: bool = False,
    ops: bool = False,
    format: str | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> CheckReport:
    """Judge a model on the test side of a split, beside LDA on the same split; or compare it with another model.

    Args:
        artifact: checkpoint folder, bundle, `.tflite` or `.onnx`.
        data: recordings. Without them only a comparison is possible, on white noise, which says nothing of the task.
        split: None takes the one that the model was trained with.
        against: another model: class flips and mean-removed error between both.
        layers: error of each layer of an int8 `.tflite` against its float twin (`against`, or `student.tflite` beside it).
        ops: on which runtimes the ops of the file run, and what to use in the place of those that do not.

    Raises:
        EdgeError: the model lacks what judging needs, has seen the test windows, or does not fit the recordings.
    """
    model = open_model(artifact)
    if data is None and against is None and not layers and not ops:
        lacks = f"{model.path} lacks a {', a '.join(model.lacks)}. " if model.lacks else ""
        raise EdgeError(f"{lacks}Nothing to check with: give recordings with --data, or another model with --against.")
    other = None if against is None else open_model(against)
    judged: dict[str, Any] = {}
    columns = None
    if data is not None:
        judged, columns = _judge(model, other, data, split, format, seed, progress)
    comparison = files = rows = None
    if other is not None:
        comparison, files = _compare(model, other, columns, seed)
    if layers:
        windows = _inputs(model, columns, LAYER_WINDOWS, seed)
        rows = layer_table(model.path, None if other is None else other.path, windows)
    return CheckReport(
        model=model.name,
        data=None if data is None else data.resolve().name,
        split=judged.pop("split", None),
        comparison=comparison,
        files=files,
        layers=tuple(rows or ()),
        ops=_ops_of(model) if ops else (),
        **judged,
    )


def _ops_of(model: OpenModel) -> tuple[OpSupport, ...]:
    from embridge_edge.export.support import op_support

    if model.path.is_dir():
        raise EdgeError(
            f"--ops needs a .tflite or an .onnx file, not the checkpoint {model.path}; run quantize or export."
        )
    return op_support(model.path.read_bytes())


def _judge(
    model: OpenModel,
    other: OpenModel | None,
    data: Path,
    split: str | None,
    format: str | None,
    seed: int,
    progress: Progress,
) -> tuple[dict[str, Any], Floats]:
    """Scores of the model, of the baselines, and of the other model where it can be judged; and some windows before normalisation."""
    import dataclasses

    from embridge_edge.learning.baselines import baseline_answers
    from embridge_edge.learning.judge import answer, judge
    from embridge_edge.verbs.seen import refuse_leak
    from embridge_edge.verbs.workflow import (
        choose_split,
        job_for,
        read_windows,
        refuse_nothing_to_judge,
        refuse_other_chain,
    )

    if model.lacks or model.chain is None:
        raise EdgeError(
            f"{model.path} lacks a {', a '.join(model.lacks)}: it was not made by this tool and cannot be judged on recordings; "
            "measure it with profile, or export it from a checkpoint."
        )
    recipe = recipe_from_dict(model.provenance["recipe"])
    windows = read_windows(data, recipe, format, progress)
    trained = model.provenance.get("split")
    chosen = choose_split(windows, split or (trained if trained in SPLITS else None), recipe)
    assert chosen is not None  # noqa: S101 ("none" is no choice of check)
    judged = [model]
    if other is not None and not other.lacks:
        name = other.name if other.name != model.name else f"{other.name} ({other.path.name})"
        judged.append(dataclasses.replace(other, name=name))
    for one in judged:
        assert one.chain is not None  # noqa: S101 (it lacks nothing)
        refuse_other_chain(one.name, one.chain, windows.chain)
        refuse_leak(dict(one.provenance), windows, chosen)
    job = job_for(windows, chosen, recipe)
    refuse_nothing_to_judge(job)
    answers = baseline_answers(windows, chosen.name, job.train, job.test, seed)
    for one in judged:
        embeddings = embed_windows(one, windows, job.test, progress)
        answers.append(answer(one.name, chosen.name, windows, job.test, embeddings, one.heads))
    twins = {model.name: judged[1].name} if len(judged) > 1 else {}
    judgement = judge(windows, answers, data.resolve().name, recipe.windows.hold_out_gestures, seed, twins)
    found = {name: getattr(judgement, name) for name in ("results", "confusions", "per_wearer")}
    some = job.test[:: max(1, len(job.test) // 4096)]
    return found | {"split": chosen.name}, model.chain.columns_of(windows.signal, windows.starts[some])


def _inputs(model: OpenModel, columns: Floats | None, count: int, seed: int) -> Floats:
    """What a model takes: some windows under its own normalisation, or white noise of unit power where there are none."""
    import numpy as np

    if columns is not None and model.chain is not None:
        return model.chain.normalised(columns[:: max(1, len(columns) // count)])
    return np.random.default_rng(seed).standard_normal((count, *model.input_shape)).astype(np.float32)


def _compare(
    model: OpenModel, other: OpenModel, columns: Floats | None, seed: int
) -> tuple[dict[str, Any], FilePair | None]:
    import numpy as np

    from embridge_edge.export.comparing import compare_files
    from embridge_edge.learning.scores import mean_removed_error

    if model.input_shape != other.input_shape:
        one, two = (" × ".join(str(size) for size in shape) for shape in (model.input_shape, other.input_shape))
        raise EdgeError(
            f"{model.path} takes {one}, {other.path} takes {two}; only models of one input can be compared."
        )
    count = NOISE_WINDOWS if columns is None else len(columns)
    windows = _inputs(model, columns, count, seed)
    # The other model may have been normalised otherwise; a bare file has no chain and takes what the first one takes.
    own = windows if other.chain is None else _inputs(other, columns, count, seed)
    mine, its = model.embed(windows), other.embed(own)
    if mine.shape != its.shape:
        raise EdgeError(
            f"{model.path} gives {mine.shape[1]} values, {other.path} {its.shape[1]}; they are not versions of one model."
        )
    head = next((head for head in model.heads if head.kind in ("linear", "poses")), None)
    flips = None
    if head is not None:
        its_head = next((one for one in other.heads if one.kind == head.kind), head)
        flips = float(
            np.mean(np.array(head.names)[head.decide(mine)] != np.array(its_head.names)[its_head.decide(its)])
        )
    files = compare_files(model.path, other.path, mine, its) if model.path.is_file() and other.path.is_file() else None
    name, its_name = ((one.name if model.name != other.name else f"{one.name} ({one.path})") for one in (model, other))
    return {
        "model": name,
        "against": its_name,
        "inputs": f"{len(windows)} windows of white noise (give --data for recordings)"
        if columns is None
        else f"{len(windows)} test windows",
        "class_flips": flips,
        "mean_removed_error": mean_removed_error(its, mine),
        "largest_difference": float(np.abs(mine - its).max()),
    }, files


def layer_table(path: Path, twin: Path | None, inputs: Floats) -> list[dict[str, Any]]:
    """Error of each int8 layer against the float twin, worst first."""
    from embridge_edge.export.comparing import layer_errors

    if path.is_dir() or path.suffix != ".tflite":
        raise EdgeError(f"--layers needs an int8 .tflite, not {path}; quantize first.")
    twin = twin or path.parent / "student.tflite"
    if not twin.is_file() or twin == path:
        raise EdgeError(f"--layers compares {path.name} with its float twin; name it with --against.")
    rows = [asdict(row) for row in layer_errors(twin, path, inputs)]
    return [{**row, "shape": list(row["shape"])} for row in rows]


def _worst_class(table: dict[str, Any]) -> str:
    counts = table["counts"]
    recalls = {
        name: row[place] / sum(row)
        for place, (name, row) in enumerate(zip(table["gestures"], counts, strict=True))
        if sum(row)
    }
    worst = min(recalls, key=lambda name: recalls[name])
    return f"  {table['model']:18} worst class {worst}: recall {recalls[worst]:.3f}"


@click.command("check")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="A recording, an archive or a folder.")
@click.option("--split", type=click.Choice(SPLITS), help="What to test on; by default what the model was trained with.")
@click.option("--against", type=click.Path(path_type=Path), help="Another model to compare with.")
@click.option("--layers", is_flag=True, help="Error of each int8 layer against the float twin, worst first.")
@click.option("--ops", is_flag=True, help="On which runtimes its ops run, and what to use in the place of the others.")
@click.option("--format", help="Name of a format, or a description file.")
@common_options
def command(
    artifact: Path,
    data: Path | None,
    split: str | None,
    against: Path | None,
    layers: bool,
    ops: bool,
    format: str | None,
    common: Common,
) -> None:
    """Say how good ARTIFACT is: a checkpoint, a bundle, a .tflite or an .onnx file."""
    report = check(
        artifact,
        data,
        split=split,
        against=against,
        layers=layers,
        ops=ops,
        format=format,
        seed=common.seed,
        progress=common.progress,
    )
    show(report, common)
