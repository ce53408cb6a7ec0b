"""`deploy`: recordings to a checked bundle, under a recipe with gates."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.artifacts import (
    read_json,
    remove_leftovers,
    sha256_of_file,
    write_json,
    written_by_rename,
)
from embridge_edge.errors import EdgeError, GateMissed
from embridge_edge.export.bundle import MANIFEST, SIGNATURE, WORKSPACE, Part, write_manifest
from embridge_edge.export.ring import PART_FILES
from embridge_edge.hardware.host import host_facts, usable_cores
from embridge_edge.hardware.target import find_target
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import SPLITS, PackagePlan, Recipe, find_recipe
from embridge_edge.verbs.judging import CHAIN, Division, Work, judgement_of
from embridge_edge.verbs.measuring import (
    costs,
    forms_beside,
    gates,
    kept_with_int8,
    layer_errors_of,
    parity,
    sensitivity_of_shipped,
)
from embridge_edge.verbs.options import Common, common_options, recipe_options, show
from embridge_edge.verbs.processes import do_all
from embridge_edge.verbs.rounding import refuse_without_nncf
from embridge_edge.verbs.shipped_package import PACKAGE, refuse_package, ship_package, write_package
from embridge_edge.verbs.workflow import (
    SCORES_ARE_OF_OTHERS,
    about_data,
    licence_of,
    recordings_step,
    windows_step,
)
from embridge_edge.verbs.workspace import Workspace, fingerprint, refuse_around, refuse_inside

if TYPE_CHECKING:
    from embridge_edge.learning.windows import WindowSet

WORK = WORKSPACE
CARD = "MODEL_CARD.md"
WRITTEN_LAST = (MANIFEST, SIGNATURE, CARD, "report.html", "report.json")
CHECKPOINT_FILES = ("model.safetensors", "model.json")
SHIPPED = ("student.tflite", "student_int8.tflite", "student.onnx", "student_int8.onnx")


@dataclass(frozen=True)
class DeployReport:
    """What was built and whether it is good enough; `report` is what `report.json` holds."""

    out: Path
    report: dict[str, Any]

    @property
    def missed(self) -> list[dict[str, Any]]:
        """The gates that were missed."""
        return [gate for gate in self.report["gates"] if not gate["ok"]]

    @property
    def ok(self) -> bool:
        return not self.missed

    def text(self) -> str:
        from embridge_edge.report import text_summary

        return f"{text_summary(self.report)}\n{self.report['wall_minutes']:.1f} minutes by the clock\n{self.out / 'report.html'}"

    def to_json(self) -> dict[str, Any]:
        return {"out": str(self.out), "ok": self.ok, **self.report}


def deploy(
    data: Path,
    recipe: str,
    out: Path,
    *,
    checkpoint: Path | None = None,
    unit_per_count: float | None = None,
    format: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
) -> DeployReport:
    """Train, distil, quantize, export, judge and measure; write a bundle with manifest and report.

    Steps whose inputs did not change since the last call with the same `out` are not run again; an interrupted training goes on
    where it stopped. Missed gates do not raise here: the report names them.

    Args:
        data: recordings. recipe: name or file. out: folder of the bundle.
        checkpoint: a teacher to start from, trained on the same split; else one is trained.
        unit_per_count: what one count of the converter is in volts, for the C package; in the place of the recipe's.

    Raises:
        EdgeError: wrong recipe or recordings, or `out` holds something that deploy did not write.
    """
    from embridge_edge.compression.pruning import counts_for
    from embridge_edge.learning.distill import student_shape

    started = time.monotonic()
    title = data.resolve().name
    plan = find_recipe(recipe)
    if unit_per_count is not None:
        plan = replace(plan, package=replace(plan.package or PackagePlan(), unit_per_count=unit_per_count))
    refuse_without_nncf(plan)
    if plan.distill.score_weight:
        raise EdgeError(SCORES_ARE_OF_OTHERS)
    foreign = out.is_dir() and any(out.iterdir()) and not (out / WORK).is_dir()
    if out.is_file() or (foreign and not force):
        raise EdgeError(
            f"{out} holds something that deploy did not write; choose another --out, or use it with --force."
        )
    refuse_inside(out, data)
    for read in (data, *([checkpoint] if checkpoint else [])):
        refuse_around(out, read)
    if foreign:
        progress.say(
            f"warning: {out} holds other files; they are no part of the bundle, and sign and verify will refuse them."
        )
    target = find_target(plan.target)
    trained, embedding = (None, plan.teacher.embedding) if checkpoint is None else _trained(checkpoint)
    stamp = fingerprint(data, format)
    workspace = Workspace(out / WORK, progress)
    data_sha256 = recordings_step(workspace, data, format, stamp)
    windows, key = windows_step(workspace, data, plan, format, stamp)
    progress.say("chain: " + ", ".join(f"{name} {value}" for name, value in windows.chain.resolved.items()))
    # What cannot be is refused before hours of training.
    shape = student_shape(windows, plan.student, embedding)
    if plan.prune is not None:
        counts_for(shape, plan.prune)
    refuse_package(workspace, plan, windows, shape)
    divisions = _divisions(windows, plan, trained)
    primary = divisions[0]
    supervised = [("supervised",)] if windows.gestures else []
    works = [
        Work(division, kinds, workspace.folder, plan, key, data_sha256, seed, checkpoint, progress)
        for division in divisions
        for kinds in ([CHAIN, *supervised] if division.first_split else [CHAIN])
    ]
    workspace.minutes += do_all(works, usable_cores())
    judgements = [
        judgement_of(workspace, windows, [work for work in works if work.division.split == name], plan, title, seed)
        for name in dict.fromkeys(division.split for division in divisions)
    ]
    exported, exported_key = _exported(workspace, primary, plan)
    package = write_package(workspace, exported / "student_int8.tflite", plan)
    if (out / SIGNATURE).is_file():
        progress.say(
            f"warning: {out / SIGNATURE} is removed, since the manifest is written anew; sign the bundle again."
        )
    for name in WRITTEN_LAST:  # a manifest over other files would be worse than none
        (out / name).unlink(missing_ok=True)
        remove_leftovers(out / name)
    kinds = ("teacher", "student", *(name for names in supervised for name in names))
    _ship(workspace, out, primary, exported, kinds, plan, given=checkpoint is not None)
    packaged = ship_package(package, out)
    beside = kept_with_int8(workspace, primary)
    measured, _ = workspace.step(
        "measured",
        [key, exported_key, plan.to_dict(), target.to_json(), asdict(host_facts()), seed],
        lambda folder: write_json(
            folder / "measured.json",
            {
                "parity": parity(workspace, windows, primary, plan, out / "student_int8.onnx", seed),
                "quantization": {
                    **layer_errors_of(workspace, windows, primary, plan, seed),
                    "forms": forms_beside(workspace, windows, primary, plan, seed),
                    "mixing": beside.get("mixing", []),
                },
                "calibration": beside["coverage"],
                **costs(out, plan),
            },
        ),
    )
    hurt, _ = workspace.step(
        "sensitivity",
        [read_json(primary.folder(workspace, "int8") / "step.json")["key"], seed],
        lambda folder: write_json(
            folder / "sensitivity.json", sensitivity_of_shipped(workspace, windows, primary, plan, seed)
        ),
    )
    results = [result.to_json() for judgement in judgements for result in judgement.results]
    report: dict[str, Any] = {
        "title": f"{title} on {plan.target}",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": plan.to_dict(),
        "recipe_sha256": plan.sha256,
        "seed": seed,
        "data": {**about_data(windows, title), "licence": licence_of(data)},
        "chain": dict(windows.chain.resolved),
        "results": results,
        "confusions": [table for judgement in judgements for table in judgement.confusions],
        "per_wearer": [row for judgement in judgements for row in judgement.per_wearer],
        **read_json(measured / "measured.json"),
    }
    report["package"] = packaged
    report["quantization"]["sensitivity"] = read_json(hurt / "sensitivity.json")
    report["gates"] = gates(plan, report, primary.split)
    report["minutes"] = workspace.minutes  # jobs run side by side, so their sum is more than the clock says
    report["wall_minutes"] = (time.monotonic() - started) / 60.0
    _write_bundle(out, report, plan, data_sha256, seed, given=checkpoint is not None)
    return DeployReport(out, report)


def _trained(checkpoint: Path) -> tuple[str, int]:
    """The split that a checkpoint was trained with, and the length of its embedding.

    Raises:
        EdgeError: no checkpoint, or trained on everything.
    """
    from embridge_edge.model.checkpoint import load_checkpoint

    given = load_checkpoint(checkpoint)
    split = str(given.provenance.get("split"))
    if split not in SPLITS:
        raise EdgeError(
            f"{checkpoint} was trained on everything, which leaves nothing to judge it on; train with --split."
        )
    return split, int(given.shape["embedding"])


def _divisions(windows: WindowSet, plan: Recipe, trained: str | None) -> list[Division]:
    """The splits to train and judge on; the first is the one whose models ship.

    Args:
        trained: the split that a teacher to start from was trained with.
    """
    from embridge_edge.learning.splits import make_splits, possible_splits

    names = [trained] if trained else list(plan.evaluate.splits) or possible_splits(windows)
    counts = {name: len(make_splits(windows, name, plan.evaluate.folds)) for name in names}
    if trained:  # it has seen the test side of every fold but the first
        counts = dict.fromkeys(names, 1)
    return [
        Division(name, fold, several=counts[name] > 1, first_split=place == 0)
        for place, name in enumerate(names)
        for fold in range(counts[name])
    ]


def _exported(workspace: Workspace, primary: Division, plan: Recipe) -> tuple[Path, str]:
    """Every exported file of the model that ships, in a folder, and a key that stands for them."""
    from embridge_edge.verbs.export import exported_files

    int8 = primary.folder(workspace, "int8")

    def make(folder: Path) -> None:
        for name, content in exported_files(int8, recipe=plan).items():
            (folder / name).write_bytes(content)

    return workspace.step("exported", [read_json(int8 / "step.json")["key"], plan.to_dict()], make)


def _ship(
    workspace: Workspace,
    out: Path,
    primary: Division,
    exported: Path,
    kinds: Sequence[str],
    plan: Recipe,
    *,
    given: bool,
) -> None:
    """Copy what ships out of the workspace: the checkpoints of the first division and every exported file.

    All of it names the recipe of this run, whose target and gates may have changed since a step that does not depend on them: so a second
    run gives the bytes that a first one would.

    Args:
        given: whether the teacher was given, and names the recipe that it was trained with.
    """
    from embridge_edge.verbs.export import under

    int8 = primary.folder(workspace, "int8")
    for name in (*SHIPPED, *PART_FILES):
        if (exported / name).is_file() or name in SHIPPED:
            _copy(exported / name, out / name)
        else:  # an earlier run may have left one
            (out / name).unlink(missing_ok=True)
    _copy(int8 / "calibration.safetensors", out / "calibration.safetensors")
    if "supervised" not in kinds:  # an earlier run may have left one
        shutil.rmtree(out / "supervised", ignore_errors=True)
    for kind in kinds:
        source = primary.folder(workspace, kind)
        _copy(source / "model.safetensors", out / kind / "model.safetensors")
        about = read_json(source / "model.json")
        remove_leftovers(out / kind / "model.json")
        write_json(out / kind / "model.json", about if given and kind == "teacher" else under(about, plan))


def _copy(source: Path, target: Path) -> None:
    remove_leftovers(target)
    with written_by_rename(target) as temporary:
        shutil.copyfile(source, temporary)


def _write_bundle(out: Path, report: dict[str, Any], plan: Recipe, data_sha256: str, seed: int, *, given: bool) -> None:
    """Write report, card and manifest; the manifest is last, so that its presence means that the bundle is whole.

    Args:
        given: whether the teacher was given rather than trained.
    """
    import platform

    from embridge_edge.report import write_page
    from embridge_edge.report.card import model_card
    from embridge_edge.verbs.workflow import versions

    report["versions"] = versions(all_writers=True)
    write_json(out / "report.json", report)
    write_page(report, out / "report.html")
    teacher, student, int8 = (
        sha256_of_file(out / name)
        for name in ("teacher/model.safetensors", "student/model.safetensors", "student_int8.tflite")
    )
    origin = {"recordings": data_sha256, "teacher": teacher, "student": student, "quantized_model": int8}
    split = read_json(out / "student" / "model.json")["provenance"].get("split")
    with written_by_rename(out / CARD) as temporary:
        called = {name.replace("_", " "): digest for name, digest in origin.items()}
        temporary.write_text(model_card(report, split=split, origin=called), encoding="utf-8")
    parts = _parts(out, plan, data_sha256)
    write_manifest(
        out,
        {
            "data_sha256": data_sha256,
            "parents": {**origin, "given_checkpoint": teacher if given else None},
            "recipe": plan.to_dict(),
            "recipe_sha256": plan.sha256,
            "seed": seed,
            "versions": report["versions"],
            "machine": f"{platform.system()} {platform.machine()}",
            "requantization": "TFLite reference: per-channel symmetric weights, per-tensor asymmetric activations, "
            "int32 bias, multiplier as a 31-bit mantissa and a shift",
        },
        [part for part in parts if (out / part.path).is_file()],
    )


def _parts(out: Path, plan: Recipe, data_sha256: str) -> list[Part]:
    """Every file of a bundle and what it was made from."""
    teacher, student, calibration, int8 = (
        sha256_of_file(out / name)
        for name in (
            "teacher/model.safetensors",
            "student/model.safetensors",
            "calibration.safetensors",
            "student_int8.tflite",
        )
    )
    # A teacher that was given names what it was trained on, which need not be these recordings.
    trained_on = tuple(read_json(out / "teacher" / "model.json")["provenance"].get("parents", ()))
    # Equalising looks at the calibration windows, training with rounding at them and at the recordings; the search for 16-bit layers
    # looks at the recordings, too, and leaves the float twin as it is.
    trained = (calibration, data_sha256) if plan.quantize.qat else ()
    evened = trained or ((calibration,) if plan.quantize.equalise else ())
    rounded = (calibration, *((data_sha256,) if plan.quantize.qat or plan.quantize.mix else ()))
    return [
        *(Part(f"teacher/{name}", "teacher", trained_on) for name in CHECKPOINT_FILES),
        *(Part(f"supervised/{name}", "supervised", (data_sha256,)) for name in CHECKPOINT_FILES),
        *(Part(f"student/{name}", "student", (teacher, data_sha256)) for name in CHECKPOINT_FILES),
        Part("student.tflite", "tflite", (student, *evened)),
        Part("student.onnx", "onnx", (student, *evened)),
        Part("calibration.safetensors", "calibration", (data_sha256, student)),
        Part("student_int8.tflite", "tflite_int8", (student, *rounded)),
        *(Part(name, "tflite_int8", (int8,)) for name in PART_FILES),
        Part("student_int8.onnx", "onnx_int8", (student, *rounded)),
        *(
            Part(path.relative_to(out).as_posix(), "package", (int8,))
            for path in sorted((out / PACKAGE).rglob("*"))
            if path.is_file()
        ),
        Part(CARD, "card", (int8,)),
        Part("report.json", "report", (int8,), reproducible=False),
        Part("report.html", "report", (sha256_of_file(out / "report.json"),), reproducible=False),
    ]


@click.command("deploy")
@recipe_options
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A teacher to start from instead of training one.")
@click.option(
    "--unit-per-count",
    type=float,
    metavar="VOLTS",
    help="What one count of the converter is, for the C package; for recordings in volts.",
)
@common_options
def command(
    data: Path,
    recipe: str,
    out: Path,
    checkpoint: Path | None,
    unit_per_count: float | None,
    format: str | None,
    common: Common,
) -> None:
    """Do all of it for a target, with gates: recordings to a checked bundle.

    Steps whose inputs did not change are not run again, and an interrupted one goes on where it stopped.
    """
    report = deploy(
        data,
        recipe,
        out,
        checkpoint=checkpoint,
        unit_per_count=unit_per_count,
        format=format,
        seed=common.seed,
        force=common.force,
        progress=common.progress,
    )
    show(report, common)
    if not report.ok:
        missed = "; ".join(
            f"{gate['name']} ({gate['what']}) is {gate['value']} against {gate['limit']}" for gate in report.missed
        )
        raise GateMissed(
            f"{len(report.missed)} gates missed: {missed}. The bundle is written; read {out / 'report.html'}."
        )
