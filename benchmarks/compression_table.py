"""What each way of making a student smaller costs and keeps, on what a bundle's students have not seen.

    embridge-edge deploy --data myo_readings/ --recipe armband-m4 --out build/myo
    python benchmarks/compression_table.py build/myo --out build/compression --picture build/compression.svg

A bundle is what `deploy` wrote, with its workspace: its teachers, students and int8 models are judged as they are, and from each student are made

* `qat int8`: trained on with the rounding of int8 (`[quantize.qat]`);
* `mixed`: layers taken to 16 bits one after the other, on windows of the training side (`[quantize.mix]`);
* `pruned`: units cut (`[prune]`), what is left distilled again, and its int8.

`--also NAME=RECIPE` distils one more student from the same teacher, as that recipe's [student], [distill] and [quantize] say, and adds its float
form, its int8, and its int8 mixed or trained with rounding where the recipe has [quantize.mix] or [quantize.qat].

Every division that the bundle holds is taken, every fold of it with models of its own, under the recipe's own values and the defaults of what
the recipe does not say; nothing is chosen on the judged side. Accuracy is balanced, a mean over wearers with a 95 % bootstrap interval; a
difference is to the float twin, wearer by wearer, with the interval of `embridge_edge.learning.paired`. `--json` keeps all of it.
What is finished stays in --out, and a second run takes it from there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from embridge_edge.artifacts import read_json, sha256_of_file
from embridge_edge.errors import EdgeError
from embridge_edge.export.quantized import save_quantized
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.learning.evaluation import Score
from embridge_edge.learning.judge import Answers, Judgement, answer, joined, judge
from embridge_edge.learning.loop import Run
from embridge_edge.learning.paired import Difference, paired_difference
from embridge_edge.learning.splits import make_splits
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.checkpoint import load_checkpoint, save_checkpoint
from embridge_edge.model.students import shape_of
from embridge_edge.progress import SILENT
from embridge_edge.recipe import MixPlan, PrunePlan, QatPlan, QuantizePlan, Recipe, find_recipe, recipe_from_dict
from embridge_edge.verbs.models import embed_windows, open_model
from embridge_edge.verbs.prune import pruned
from embridge_edge.verbs.quantize import quantized
from embridge_edge.verbs.workflow import Job, distill_checkpoint, job_for
from embridge_edge.verbs.workspace import Workspace

TWINS = {
    "student": "teacher",
    "int8": "student",
    "qat int8": "student",
    "mixed": "student",
    "pruned": "student",
    "pruned int8": "pruned",
}
KINDS = ("int8", "qat int8", "mixed")
METRIC = "balanced_accuracy"
MARKERS = "odsv^PXD"


@dataclass(frozen=True)
class Size:
    """What a form of a network takes: parameters, multiply-accumulates of a window, and bytes of its file (float32 parameters for a checkpoint)."""

    parameters: int
    macs: int
    size_bytes: int


@dataclass(frozen=True)
class Row:
    """One form on one division."""

    split: str
    form: str
    accuracy: float
    low: float | None
    high: float | None
    wearers: int
    windows: int
    flips: float | None
    error: float | None
    size: Size
    difference: Difference | None


@dataclass(frozen=True)
class Bundle:
    """What deploy left, open."""

    folder: Path
    name: str
    recipe: Recipe
    seed: int
    windows: WindowSet
    report: dict[str, Any]
    also: dict[str, Recipe]

    @property
    def twins(self) -> dict[str, str]:
        """What each form is compared with."""
        more = {f"{name} {kind}": name for name in self.also for kind in KINDS}
        return {**TWINS, **dict.fromkeys(self.also, "student"), **more}

    def folds(self, split: str) -> list[str]:
        """Names of a division's models: one for each fold."""
        work = self.folder / "work"
        if (work / f"{split}.student").is_dir():
            return [split]
        return sorted(path.name.removesuffix(".student") for path in work.glob(f"{split}-*.student"))

    def made(self, tag: str, kind: str) -> Path:
        return self.folder / "work" / f"{tag}.{kind}"


def opened(folder: Path, also: dict[str, Recipe]) -> Bundle:
    if not (folder / "work" / "windows").is_dir() or not (folder / "report.json").is_file():
        raise EdgeError(f"{folder} holds no report and workspace of deploy; run embridge-edge deploy --out {folder}.")
    report = read_json(folder / "report.json")
    recipe = recipe_from_dict(report["recipe"])
    name = f"{report['data']['name']}, {recipe.name}"
    return Bundle(folder, name, recipe, report["seed"], WindowSet.load(folder / "work" / "windows"), report, also)


def recipes_of(asked: list[str]) -> dict[str, Recipe]:
    """What `--also` names, NAME=RECIPE each."""
    also: dict[str, Recipe] = {}
    for one in asked:
        name, _, recipe = one.partition("=")
        if not name or not recipe:
            raise EdgeError(f"--also {one!r} is not NAME=RECIPE, such as --also transformer=phone.")
        if name in also or name in {"supervised", *TWINS, *TWINS.values()} or name.endswith(KINDS):
            raise EdgeError(f"--also {one!r}: the table has a form {name!r} already; give it another name.")
        also[name] = find_recipe(recipe)
    return also


def forms_made(bundle: Bundle, tag: str, job: Job, workspace: Workspace, share: float) -> Iterator[tuple[str, Path]]:
    """Every form of one fold's models, made where it is not there yet."""
    plan, seed = bundle.recipe, bundle.seed
    if bundle.made(tag, "supervised").is_dir():
        yield "supervised", bundle.made(tag, "supervised")
    for form, kind in (("teacher", "teacher"), ("student", "student"), ("int8", "int8")):
        yield form, bundle.made(tag, kind)
    student = load_checkpoint(bundle.made(tag, "student"))
    teacher = load_checkpoint(bundle.made(tag, "teacher"))
    inputs = [sha256_of_file(bundle.made(tag, kind) / "model.safetensors") for kind in ("teacher", "student")]

    def step(name: str, how: Recipe, make: Callable[[Path], None]) -> Path:
        return workspace.step(f"{bundle.folder.name}.{tag}.{name}", [inputs, how.to_dict(), share], make)[0]

    def trained_as(recipe: Recipe) -> Recipe:
        """What a training depends on: a student is no other where it is quantized in another way."""
        return replace(recipe, quantize=QuantizePlan())

    def int8(name: str, source: Path, recipe: Recipe) -> tuple[str, Path]:
        """One more int8 form of a student."""

        def make(to: Path) -> None:
            save_quantized(quantized(job, load_checkpoint(source), recipe, seed), to)

        return name, step(name.replace(" ", "-"), recipe, make)

    base = replace(plan.quantize, qat=None, mix=None)
    trained = replace(base, qat=plan.quantize.qat or QatPlan(), wide=())
    yield int8("qat int8", bundle.made(tag, "student"), replace(plan, quantize=trained))
    mixed = replace(base, mix=plan.quantize.mix or MixPlan())
    yield int8("mixed", bundle.made(tag, "student"), replace(plan, quantize=mixed))
    for name, recipe in bundle.also.items():
        other = replace(plan, student=recipe.student, distill=recipe.distill, quantize=recipe.quantize)

        def distil(to: Path, name: str = name, other: Recipe = other) -> None:
            run = Run(seed, f"{tag} {name}", workspace.state(f"{bundle.folder.name}.{tag}.{name}"), inputs[0], SILENT)
            save_checkpoint(distill_checkpoint(job, teacher, other, run, share=share), to)

        source = step(name, trained_as(other), distil)
        yield name, source
        plain = replace(other.quantize, qat=None, mix=None)
        for kind, how in zip(
            KINDS, (plain, replace(plain, qat=other.quantize.qat), replace(plain, mix=other.quantize.mix)), strict=True
        ):
            if kind == "int8" or how != plain:
                yield int8(f"{name} {kind}", source, replace(other, quantize=how))
    how = plan.prune or PrunePlan()
    smaller = replace(plan, prune=how, quantize=base)

    def prune(to: Path) -> None:
        run = Run(seed, f"{tag} pruned", workspace.state(f"{bundle.folder.name}.{tag}.pruned"), inputs[1], SILENT)
        save_checkpoint(pruned(job, student, teacher, smaller, run, share=share)[0], to)

    small = step("pruned", trained_as(smaller), prune)
    yield "pruned", small
    yield int8("pruned int8", small, smaller)


def size_of(folder: Path, windows: WindowSet, twin: Size | None) -> Size:
    """Of a checkpoint: what takes part in a window's embedding. Of an int8 model: its file, with the parameters of its float twin."""
    if twin is not None and (folder / "student_int8.tflite").is_file():
        content = (folder / "student_int8.tflite").read_bytes()
        return Size(twin.parameters, sum(op.macs for op in read_graph(content).ops), len(content))
    checkpoint = load_checkpoint(folder)
    network = checkpoint.network()
    with FlopCounterMode(display=False) as counter:
        said = network(torch.zeros(1, *windows.chain.input_shape))
    said.sum().backward()
    parameters = sum(one.numel() for one in network.parameters() if one.grad is not None)
    if checkpoint.kind == "student":  # as every report counts them: norms folded
        parameters = shape_of(checkpoint.shape).parameters_count
    return Size(parameters, counter.get_total_flops() // 2, 4 * parameters)


def rows_of(bundle: Bundle, split: str, workspace: Workspace, *, first: bool) -> list[Row]:
    """The table of one division."""
    answers: dict[str, list[Answers]] = {}
    sizes: dict[str, Size] = {}
    divisions = make_splits(bundle.windows, split, bundle.recipe.evaluate.folds)
    share = 1.0 if first else bundle.recipe.evaluate.fold_share
    for tag, division in zip(bundle.folds(split), divisions, strict=True):
        job = job_for(bundle.windows, division, bundle.recipe)
        for form, folder in forms_made(bundle, tag, job, workspace, share):
            model = open_model(folder)
            said = embed_windows(model, job.windows, job.test)
            answers.setdefault(form, []).append(answer(form, split, job.windows, job.test, said, model.heads))
            sizes.setdefault(form, size_of(folder, job.windows, sizes.get(bundle.twins.get(form, ""))))
        print(f"{bundle.name}, {tag}: {time.strftime('%H:%M:%S')}", flush=True)
    whole = [joined(parts) for form, parts in answers.items() if len(parts) == len(divisions)]
    # Embeddings of different folds are different spaces, each compared with its own twin's.
    found = judge(
        bundle.windows, whole, bundle.name, bundle.recipe.windows.hold_out_gestures, bundle.seed, bundle.twins
    )
    return [
        _row(found, split, one.model, sizes[one.model], bundle.twins.get(one.model))
        for one in whole
        if found.value(one.model, split, METRIC)
    ]


def _row(found: Judgement, split: str, form: str, size: Size, twin: str | None) -> Row:
    (result,) = (r for r in found.results if (r.model, r.split, r.metric) == (form, split, METRIC))
    scores = [
        Score(arm=row["model"], seed=0, wearer=row["wearer"], group=split, metric=METRIC, value=row["value"])
        for row in found.per_wearer
        if (row["split"], row["metric"]) == (split, METRIC)
    ]
    return Row(
        split,
        form,
        result.value,
        result.ci_low,
        result.ci_high,
        result.n_groups,
        result.n,
        found.value(form, split, "class_flips"),
        found.value(form, split, "mean_removed_error"),
        size,
        paired_difference(scores, form, twin, split, METRIC) if twin else None,
    )


def table(rows: list[Row]) -> str:
    lines = [
        "| unseen | form | parameters | bytes | thousand MACs | balanced accuracy | beside | difference | class flips | mean-removed error |",
        "|---|---|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        size, gap = row.size, row.difference
        spread = "" if row.low is None else f" [{row.low:.3f}, {row.high:.3f}]"
        beside = "–" if gap is None else gap.reference
        difference = "–"
        if gap is not None:
            around = "" if gap.ci_low is None else f" [{gap.ci_low:+.4f}, {gap.ci_high:+.4f}]"
            difference = f"{gap.value:+.4f}{around} {gap.verdict}"
        alike = row.form.endswith(KINDS)
        flips = f"{100 * row.flips:.2f} %" if alike and row.flips is not None else "–"
        error = f"{row.error:.3f}" if alike and row.error is not None else "–"
        lines.append(
            f"| {row.split} ({row.wearers} wearers, {row.windows:,} windows) | {row.form} | {size.parameters:,} | {size.size_bytes:,} "
            f"| {size.macs / 1000:,.0f} | {row.accuracy:.3f}{spread} | {beside} | {difference} | {flips} | {error} |"
        )
    return "\n".join(lines)


def picture(tables: dict[str, list[Row]], curves: dict[tuple[str, str], list[dict[str, Any]]], file: Path) -> None:
    """For each bundle and division accuracy against bytes, and what each layer that goes to 16 bits takes off the damage."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    panels = [(name, split) for name, rows in tables.items() for split in dict.fromkeys(row.split for row in rows)]
    figure, axes = plt.subplots(len(panels), 2, figsize=(11, 3.6 * len(panels)), layout="constrained", squeeze=False)
    for (left, right), (name, split) in zip(axes, panels, strict=True):
        rows = [row for row in tables[name] if row.split == split]
        for row, marker in zip(rows, cycle(MARKERS), strict=False):
            whisker = None
            if row.low is not None and row.high is not None:
                whisker = [[row.accuracy - row.low], [row.high - row.accuracy]]
            left.errorbar(
                [row.size.size_bytes / 1000], [row.accuracy], whisker, fmt=marker, capsize=3, elinewidth=0.8, alpha=0.75,
                fillstyle="none" if row.form.endswith(KINDS) else "full", label=row.form,
            )  # fmt: skip
        left.set_xscale("log")
        left.set_xlabel("kB: float32 parameters, or the int8 file")
        left.set_ylabel("balanced accuracy")
        left.set_title(f"{name}: unseen {split}, {rows[0].wearers} wearers, 95 %", loc="left", fontsize=9)
        left.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
        curve = curves[name, split]
        sizes = [mix["size_bytes"] / 1000 for mix in curve]
        right.plot(sizes, [mix["damage"]["mean_removed_error"] for mix in curve], "o-", label="mean-removed error")
        right.plot(sizes, [mix["damage"]["class_flips"] for mix in curve], "s--", label="share of decisions that flip")
        for place, (size, mix) in enumerate(zip(sizes, curve, strict=True)):
            what = mix["wide"][-1] if mix["wide"] else "all int8"
            note = f"{what}\n{100 * mix['wide_macs'] / mix['macs']:.0f} % of MACs"
            at, below = (size, mix["damage"]["mean_removed_error"]), place % 2
            right.annotate(note, at, (0, -24 if below else 7), textcoords="offset points", fontsize=7, ha="center")
        right.set_ylim(0, 1.3 * max(mix["damage"]["mean_removed_error"] for mix in curve))
        right.margins(x=0.15)
        right.set_xlabel("kB of the int8 file")
        right.set_title("Layers taken to 16 bits, one after the other (training side)", loc="left", fontsize=9)
        right.legend(frameon=False, fontsize=7, loc="best")
        for axis in (left, right):
            axis.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--out", type=Path, default=Path("build/compression"))
    parser.add_argument("--splits", help="only these of the bundle's divisions, with commas between them")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=RECIPE")
    asked = parser.parse_args()
    tables: dict[str, list[Row]] = {}
    curves: dict[tuple[str, str], list[dict[str, Any]]] = {}
    try:
        also = recipes_of(asked.also)
        for folder in asked.bundles:
            bundle = opened(folder, also)
            held = list(dict.fromkeys(result["split"] for result in bundle.report["results"]))
            chosen = [split for split in held if not asked.splits or split in asked.splits.split(",")]
            workspace = Workspace(asked.out, SILENT)
            rows = [row for split in chosen for row in rows_of(bundle, split, workspace, first=split == held[0])]
            tables[bundle.name] = rows
            for split in chosen:
                mixed = asked.out / f"{bundle.folder.name}.{bundle.folds(split)[0]}.mixed"
                curves[bundle.name, split] = read_json(mixed / "quantized.json")["mixing"]
            print(f"\n{bundle.name}, seed {bundle.seed}\n\n{table(rows)}\n", flush=True)
    except EdgeError as error:
        parser.exit(2, f"{error}\n")
    if asked.picture:
        picture(tables, curves, asked.picture)
    if asked.json:
        asked.json.write_text(
            json.dumps({name: [asdict(row) for row in rows] for name, rows in tables.items()}, indent=1)
        )


if __name__ == "__main__":
    main()
